//! Stories of `export`: which checkpoint is meant, and what becomes of a folder. That PyTorch loads the result,
//! `tests/pytorch` shows.

use crate::depth;
use crate::support::Ran;

fn export(space: &crate::support::Space, args: &[&str]) -> Ran {
    space.run(&[&["export"], args].concat())
}

#[test]
fn one_network_that_is_there_is_meant() {
    let space = depth::space();
    let refused = |args: &[&str], said: &str, help: &str| {
        let ran = export(&space, args);
        assert_eq!(ran.code, Some(2), "{}", ran.seen());
        assert!(ran.stderr.contains(said) && ran.stderr.contains(help), "{}", ran.stderr);
    };
    refused(&["model/a"], "no pipeline was run with the cache cache", "atflow export PIPELINE.yaml model/a");
    refused(&["p.yaml", "model/a"], "model/a is not up to date", "`atflow run p.yaml model/a` makes it");
    refused(&["p.yaml", "table"], "`table` makes no checkpoint", "name one of these: model/a, model/b");
    refused(&["p.yaml", "model"], "`model` is 2 networks", "name one of these: model/a, model/b");
    let run = space.command(&["run", "p.yaml"]).env("ATFLOW_WORKER", space.path().join("worker")).output().unwrap();
    assert!(run.status.success());
    // What the worker of this story makes is no checkpoint.
    refused(&["model/a"], "the checkpoint cannot be exported: ", "atflow verify --repair");
    assert!(!space.path().join("export").exists(), "nothing was written");
}

#[test]
fn the_example_of_an_own_attack_has_the_code_that_is_exported() {
    assert_eq!(include_str!("../../pipelines/own/modeling.py"), include_str!("../../src/engine/export/modeling.py"));
}

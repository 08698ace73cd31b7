//! From another folder: the cache beside the pipeline is found, and nothing above the project is.

use crate::support::{Ran, Space};

const PIPELINE: &str = "stages:\n  a: {kind: command, with: {run: 'echo > o', outputs: {o: {path: o, show: o.txt}}}}\n";

fn in_folder(space: &Space, folder: &str, args: &[&str]) -> Ran {
    std::fs::create_dir_all(space.path().join(folder)).unwrap();
    Ran::of(space.command(args).current_dir(space.path().join(folder)).output().unwrap())
}

#[test]
fn a_cache_beside_the_pipeline_or_above_it_in_its_project_is_found_from_any_folder() {
    let space = Space::new();
    space.write("project/pipelines/p.yaml", PIPELINE);
    let made = in_folder(&space, "project", &["run", "pipelines/p.yaml"]);
    assert_eq!((made.code, made.stderr.contains("cache:")), (Some(0), false), "{}", made.seen());

    let plan = in_folder(&space, "elsewhere", &["plan", "../project/pipelines/p.yaml"]);
    assert!(plan.stdout.contains("nothing to do"), "{}", plan.seen());
    let told = plan.stderr.contains("project/cache, beside the pipeline; this folder has none");
    assert!(told, "{}", plan.seen());
    let run = in_folder(&space, "elsewhere", &["run", "../project/pipelines/p.yaml"]);
    assert!(run.stderr.contains("nothing to do"), "{}", run.seen());
    assert!(space.path().join("elsewhere/results/p/o.txt").exists(), "results lie where the run was started");
    assert!(!space.path().join("elsewhere/cache").exists());
    let run = in_folder(&space, "elsewhere", &["run", "-q", "../project/pipelines/p.yaml"]);
    assert_eq!(run.stderr, "", "quiet");

    // A cache that somebody names counts, and so does one in the working folder.
    let named = in_folder(&space, "elsewhere", &["plan", "../project/pipelines/p.yaml", "--cache", "cache"]);
    assert!(named.stdout.contains("never run"), "{}", named.seen());
    in_folder(&space, "own", &["run", "../project/pipelines/p.yaml", "--cache", "cache"]);
    let own = in_folder(&space, "own", &["plan", "../project/pipelines/p.yaml"]);
    assert_eq!((own.stdout.contains("nothing to do"), own.stderr.as_str()), (true, ""), "{}", own.seen());
}

#[test]
fn a_folder_without_the_mark_and_one_above_the_repository_are_no_caches() {
    let space = Space::new();
    space.write("cache/VERSION", "1\n");
    space.write("repository/.git/HEAD", "");
    space.write("repository/cache/README.md", "no cache yet");
    space.write("repository/pipelines/p.yaml", PIPELINE);
    let plan = in_folder(&space, "elsewhere", &["plan", "../repository/pipelines/p.yaml"]);
    assert!(plan.stdout.contains("never run") && plan.stderr.is_empty(), "{}", plan.seen());
}

/// A reader who unpacks a bundle beside the author's cache makes the tables from what was published, not from there.
#[test]
fn a_cache_above_an_unpacked_bundle_is_none_of_its_pipeline() {
    let space = Space::new();
    space.write("cache/VERSION", "1\n");
    space.write("reader/bundle.json", "{}");
    space.write("reader/pipeline/p.yaml", PIPELINE);
    let plan = in_folder(&space, "reader", &["plan", "pipeline/p.yaml"]);
    assert!(plan.stdout.contains("never run") && plan.stderr.is_empty(), "{}", plan.seen());
}

#[test]
fn a_run_that_needs_a_worker_says_at_once_that_there_is_none() {
    let space = Space::new();
    let text = "stages:\n  d: {kind: command, with: {run: 'echo > o', outputs: {o: o}}}\n\
        \x20 f: {kind: transform, needs: {data: d}, with: {op: saturate, level: 4}}\n";
    space.write("p.yaml", text);
    let run = |args: &[&str]| {
        let mut command = space.command(&[&["run", "p.yaml"], args].concat());
        Ran::of(command.env("ATFLOW_WORKER", "/nowhere/atflow-worker").output().unwrap())
    };
    insta::assert_snapshot!(run(&[]).seen());
    assert_eq!(run(&["d"]).code, Some(0), "this one needs none");
    assert!(run(&[]).stderr.contains("the worker is missing"));
}

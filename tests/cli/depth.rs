//! A reviewer's three depths: the same table from predictions, from checkpoints, and from scratch. The worker is a
//! small program that copies prepared predictions, so that what runs is told apart from what it computes.

use std::os::unix::fs::PermissionsExt;

use atflow::formats::Predictions;
use atflow::protocol::PROTOCOL_VERSION;

use crate::support::{Ran, Space};

const PIPELINE: &str = r#"
stages:
  digits:
    kind: dataset
    with:
      format: idx
      train: {images: {path: images}, labels: {path: labels}}
      test: {images: {path: images}, labels: {path: labels}}
      classes: [zero, one]
  model:
    kind: train
    matrix: {variant: {a: 1, b: 2}}
    needs: {data: digits.train}
    seed: "${variant}"
    with: {net: {arch: resnet, width: 4, blocks: [1]}, epochs: 1, batch_size: 4, optimizer: {lr: 0.1}}
  tested:
    kind: evaluate
    matrix: {model: {each: model}}
    needs: {set: digits.test}
  maps: {kind: saliency, needs: {models: model, set: digits.test}, with: {images: [0]}}
  table:
    kind: table
    needs: {results: tested}
    with: {title: One, rows: model.variant, columns: [{label: clean, where: {stage: tested}}]}
"#;

const WORKER: &str = r#"#!/usr/bin/env python3
import json, os, shutil, sys
def say(**event): print(json.dumps(event), flush=True)
say(event="hello", protocol=PROTOCOL, version="0.1.0", libtorch="2.11.0", device="cpu", device_name="a CPU")
for line in sys.stdin:
    job = json.loads(line)
    for name, path in job["outputs"].items():
        if name == "predictions":
            shutil.copy(os.environ["HOME"] + "/predictions", path)
        else:
            open(path, "w").write(job["stage"])
    say(event="finished", id=job["id"], summary="", peak_memory=1)
"#;

/// A space with the pipeline, its data, and the worker.
pub(crate) fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space.write("images", [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1][..], &[7, 9]].concat());
    space.write("labels", [0, 0, 8, 1, 0, 0, 0, 2, 0, 1]);
    let predictions = Predictions {
        labels: vec![0, 1],
        predicted: vec![0, 0],
        probability: vec![0.5; 2],
        loss: vec![0.5; 2],
        ..Predictions::default()
    };
    space.write("predictions", predictions.to_bytes().unwrap());
    let worker = space.write("worker", WORKER.replace("PROTOCOL", &PROTOCOL_VERSION.to_string()));
    std::fs::set_permissions(worker, std::fs::Permissions::from_mode(0o755)).unwrap();
    space
}

fn run(space: &Space, args: &[&str]) -> Ran {
    Ran::of(space.command(args).env("ATFLOW_WORKER", space.path().join("worker")).output().unwrap())
}

/// The stages that a run of these targets runs, the others being cached.
fn ran(space: &Space, args: &[&str]) -> Vec<String> {
    let ran = run(space, &[&["run", "p.yaml", "--json"], args].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    ran.stages().into_iter().filter(|(_, status)| status == "ran").map(|(stage, _)| stage).collect()
}

/// Where the cache keeps what a stage made.
fn object(space: &Space, stage: &str, output: &str) -> std::path::PathBuf {
    let show = space.run(&["show", stage, "--json"]);
    let manifest: serde_json::Value = serde_json::from_str(&show.stdout).unwrap();
    let digest = manifest["outputs"][output]["digest"].as_str().unwrap();
    space.path().join("cache/objects").join(&digest[..2]).join(digest)
}

#[test]
fn each_depth_runs_what_lies_behind_it_and_nothing_before() {
    let space = space();
    ran(&space, &[]);
    assert_eq!(ran(&space, &["table", "--from", "predictions"]), ["table"], "whether or not it is up to date");
    assert_eq!(ran(&space, &["table", "--from", "checkpoints"]), ["table", "tested/a", "tested/b"]);
    assert_eq!(ran(&space, &["--from", "checkpoints"]), ["maps", "table", "tested/a", "tested/b"]);
    let scratch = ["maps", "model/a", "model/b", "table", "tested/a", "tested/b"];
    assert_eq!(ran(&space, &["--from", "scratch"]), scratch);
    space.write("p.yaml", space.read("p.yaml").replace("title: One", "title: Two"));
    assert_eq!(ran(&space, &["--from", "predictions"]), ["table"]);
    assert_eq!(ran(&space, &[]), [""; 0], "what was made anew is a result like any other");
}

#[test]
fn a_plan_shows_what_a_depth_would_run_and_what_it_costs() {
    let space = space();
    ran(&space, &[]);
    let plan = |depth: &str| -> (Vec<String>, f64) {
        let ran = run(&space, &["plan", "p.yaml", "table", "--from", depth, "--json"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let plan: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let tell = |stage: &serde_json::Value| {
            (stage["state"] != "fresh").then(|| format!("{}: {}", text(&stage["name"]), text(&stage["reason"])))
        };
        let stages = plan["stages"].as_array().unwrap().iter().filter_map(tell).collect();
        (stages, plan["price"]["work"].as_f64().unwrap())
    };
    let anew = |stage: &str, depth: &str| format!("{stage}: made anew with --from {depth}");
    let (stages, price) = plan("predictions");
    assert_eq!((stages.as_slice(), price > 0.0), (&[anew("table", "predictions")][..], true));
    let (stages, price) = plan("checkpoints");
    assert_eq!(stages, ["tested/a", "tested/b", "table"].map(|stage| anew(stage, "checkpoints")));
    let (stages, whole) = plan("scratch");
    assert_eq!(stages, ["model/a", "model/b", "tested/a", "tested/b", "table"].map(|stage| anew(stage, "scratch")));
    assert!(0.0 < price && price < whole, "{price} {whole}");
    // A plan that was kept keeps its depth.
    run(&space, &["plan", "p.yaml", "table", "--from", "checkpoints", "--save", "plan.json"]);
    let ran = run(&space, &["run", "--plan", "plan.json", "--json"]);
    assert_eq!((ran.code, ran.events().last().unwrap()["ran"].as_u64()), (Some(0), Some(3)), "{}", ran.seen());
}

#[test]
fn what_a_depth_needs_and_cannot_make_is_named_before_anything_runs() {
    let space = space();
    let first = run(&space, &["run", "p.yaml", "table", "--from", "predictions"]);
    ran(&space, &[]);
    // Another network: its checkpoints and predictions are nowhere.
    space.write("p.yaml", space.read("p.yaml").replace("width: 4", "width: 8"));
    let changed = run(&space, &["plan", "p.yaml", "table", "--from", "predictions"]);
    let untrained = run(&space, &["run", "p.yaml", "--from", "checkpoints"]);
    space.write("p.yaml", space.read("p.yaml").replace("width: 8", "width: 4"));
    std::fs::remove_file(object(&space, "tested/a", "predictions")).unwrap();
    space.write("p.yaml", space.read("p.yaml").replace("title: One", "title: Two"));
    let gone = run(&space, &["run", "p.yaml", "table", "--from", "predictions"]);
    let forced = run(&space, &["run", "p.yaml", "--from", "checkpoints", "--force", "model/b"]);
    let seen = [first, changed, untrained, gone, forced].map(|ran| ran.seen());
    insta::assert_snapshot!(seen.join("\n"));
    assert_eq!(ran(&space, &["table", "--from", "checkpoints"]), ["table", "tested/a", "tested/b"]);
}

#[test]
fn checkpoints_that_are_nowhere_are_named_before_a_data_set_is_made() {
    let space = space();
    let nothing = run(&space, &["run", "p.yaml", "table", "--from", "checkpoints"]);
    assert_eq!(space.cached_files("actions").len(), 0, "no data set was made on the chance");
    let planned = run(&space, &["plan", "p.yaml", "table", "--from", "checkpoints"]);
    std::fs::create_dir_all(space.path().join("elsewhere")).unwrap();
    std::fs::copy(space.path().join("cache/VERSION"), space.path().join("elsewhere/VERSION")).unwrap();
    let remote = run(&space, &["run", "p.yaml", "table", "--from", "checkpoints", "--remote", "elsewhere"]);
    insta::assert_snapshot!([&nothing, &planned, &remote].map(Ran::seen).join("\n"));

    // The data set has to be made again, and comes out as before: then the checkpoints are those of before, too.
    ran(&space, &[]);
    let of_digits =
        |path: &std::path::PathBuf| std::fs::read_to_string(path).unwrap().contains("\"kind\": \"dataset\"");
    let manifest = space.cached_files("actions").into_iter().find(of_digits).unwrap();
    std::fs::remove_file(manifest).unwrap();
    assert_eq!(ran(&space, &["table", "--from", "checkpoints"]), ["digits", "table", "tested/a", "tested/b"]);
    // Of another training there is none, whatever the data set holds.
    let manifest = space.cached_files("actions").into_iter().find(of_digits).unwrap();
    std::fs::remove_file(manifest).unwrap();
    space.write("p.yaml", space.read("p.yaml").replace("{a: 1, b: 2}", "{a: 1, b: 3}"));
    let other = run(&space, &["run", "p.yaml", "table", "--from", "checkpoints"]);
    assert_eq!(other.code, Some(2), "{}", other.seen());
    assert!(other.stderr.contains("model/b: checkpoint") && !other.stderr.contains("model/a"), "{}", other.stderr);
}

#[test]
fn what_turns_out_to_be_gone_while_it_runs_is_not_made_either() {
    let space = space();
    ran(&space, &[]);
    let file = object(&space, "tested/a", "predictions");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, vec![b'x'; bytes.len()]).unwrap();
    space.write("p.yaml", space.read("p.yaml").replace("title: One", "title: Two"));
    let ran = run(&space, &["run", "p.yaml", "table", "--from", "predictions", "--json"]);
    assert_eq!(ran.code, Some(1), "{}", ran.seen());
    assert_eq!(ran.stages()["tested/a"], "failed");
    assert_eq!(ran.stages()["table"], "skipped");
    assert!(ran.stderr.contains("and --from predictions\n"), "{}", ran.stderr);
}

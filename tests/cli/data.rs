//! All results as tables for other programs: what stands in them, with which types, and what is left out.

use std::os::unix::fs::PermissionsExt;

use atflow::formats::{Ensemble, Predictions, UnderAttack};
use atflow::protocol::PROTOCOL_VERSION;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

use crate::support::{Ran, Space};

const PIPELINE: &str = r#"pipeline: story
params: {radii: [2/255, 8/255], rate: 0.1}
stages:
  digits:
    kind: dataset
    with:
      format: idx
      train: {images: {path: images}, labels: {path: labels}}
      test: {images: {path: images}, labels: {path: labels}}
      classes: [zero, one]
  dark: {kind: transform, matrix: {p: [0.5, 64]}, needs: {data: digits.test}, with: {op: saturate, level: "${p}"}}
  model:
    kind: train
    matrix: {variant: {a: 1, b: 2}}
    needs: {data: digits.train}
    seed: "${variant}"
    with: {net: {arch: resnet, width: 4, blocks: [1]}, epochs: 2, batch_size: 4, optimizer: {lr: "${rate}"}}
  tested:
    kind: evaluate
    matrix: {model: {each: model}, set: {each: [digits.test, dark]}}
  attacked:
    kind: evaluate
    matrix: {model: {each: model}, eps: "${radii}"}
    needs: {set: digits.test}
    with: {attack: {attack: pgd, eps: "${eps}", step: 1/255, steps: 2}}
  maps:
    kind: saliency
    needs: {models: model, set: digits.test}
    with: {images: [0, 1], method: {name: grad}, stability: {draws: 1}}
  other:
    kind: command
    with: {run: "cp $HOME/predictions ${out.predictions}", outputs: {predictions: p}}
  table:
    kind: table
    needs: {results: tested}
    with: {title: One, rows: model.variant, columns: dark.p, cell: accuracy_on_correct}
  mine:
    kind: table
    needs: {results: other}
    with: {title: Two, rows: stage, columns: [{label: x, where: {stage: other}}]}
"#;

/// Copies the predictions of a stage that lie in the home folder, or those for all.
const WORKER: &str = r#"#!/usr/bin/env python3
import json, os, shutil, sys
def say(**event): print(json.dumps(event), flush=True)
say(event="hello", protocol=PROTOCOL, version="0.1.0", libtorch="2.11.0", device="cpu", device_name="a CPU")
EPOCH = {"epoch": 1, "lr": 0.1, "train_loss": 2.5, "train_accuracy": 0.25}
EPOCHS = [EPOCH, {**EPOCH, "epoch": 2, "adversarial": {"images": 2, "loss": 3.5, "accuracy": 0.125}, "holdout_accuracy": 0.5}]
NUMBERS = [
    {"measure": "gini", "set": "", "model": "a", "mean": 0.5, "sd": None, "n": 1},
    {"measure": "l1", "set": "", "model": "a", "other": "b", "mean": 0.25, "sd": 0.125, "n": 2},
    {"measure": "relative_input_stability", "set": "", "model": "b", "mean": 2.5, "sd": 1.5, "n": 2},
]
for line in sys.stdin:
    job = json.loads(line)
    for name, path in job["outputs"].items():
        if name == "predictions":
            own = os.environ["HOME"] + "/" + job["stage"].replace("/", "-")
            shutil.copy(own if os.path.exists(own) else os.environ["HOME"] + "/predictions", path)
        elif name == "metrics":
            json.dump({"epochs": EPOCHS, "kept_epoch": 1}, open(path, "w"))
        elif name == "numbers":
            json.dump({"format": "saliency-numbers/1", "numbers": NUMBERS}, open(path, "w"))
        else:
            open(path, "w").write(job["stage"])
    say(event="finished", id=job["id"], summary="made", peak_memory=1)
"#;

fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space.write("images", [&[0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 1][..], &[7, 9, 8, 1]].concat());
    space.write("labels", [0, 0, 8, 1, 0, 0, 0, 4, 0, 1, 0, 1]);
    let right = Predictions {
        labels: vec![0, 1, 0, 1],
        predicted: vec![0, 1, 0, 0],
        probability: vec![0.9, 0.8, 0.7, 0.1],
        loss: vec![0.5, 0.25, 1.0, 4.0],
        ..Predictions::default()
    };
    space.write("predictions", right.to_bytes().unwrap());
    space.write("tested-b-dark-64", Predictions { predicted: vec![1, 1, 0, 0], ..right.clone() }.to_bytes().unwrap());
    let ensemble = Ensemble { attacks: vec!["fgsm".into(), "pgd".into()], broken_by: vec![1, -1, 0, -1] };
    let attack = UnderAttack {
        spec: serde_json::json!({"attack": "autoattack"}),
        iterate: "worst_case".into(),
        ensemble: Some(ensemble),
        ..UnderAttack::default()
    };
    let broken = Predictions { predicted: vec![1, 1, 1, 0], attack: Some(attack), ..right };
    space.write("attacked-a-8_255", broken.to_bytes().unwrap());
    let worker = space.write("worker", WORKER.replace("PROTOCOL", &PROTOCOL_VERSION.to_string()));
    std::fs::set_permissions(worker, std::fs::Permissions::from_mode(0o755)).unwrap();
    space
}

fn run(space: &Space, args: &[&str]) -> Ran {
    let ran = Ran::of(space.command(args).env("ATFLOW_WORKER", space.path().join("worker")).output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    ran
}

/// Some columns of a CSV file, whose texts need no quotes.
fn csv(space: &Space, file: &str, columns: &[&str]) -> String {
    let text = space.read(&format!("results/story/data/{file}.csv"));
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    let places: Vec<usize> =
        columns.iter().map(|name| rows[0].iter().position(|found| found == name).expect(name)).collect();
    rows.iter().map(|row| places.iter().map(|at| row[*at]).collect::<Vec<_>>().join(",") + "\n").collect()
}

/// The lines that hold one of these words.
fn lines(text: &str, words: &[&str]) -> String {
    let is_wanted = |line: &&str| words.iter().any(|word| line.contains(word));
    text.lines().filter(is_wanted).collect::<Vec<_>>().join("\n")
}

/// The rows of a Parquet file: each value with the name of its column.
fn parquet(space: &Space, table: &str) -> Vec<Vec<(String, Field)>> {
    let file = std::fs::File::open(space.path().join(format!("results/story/data/{table}.parquet"))).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let row = |row: parquet::errors::Result<parquet::record::Row>| row.unwrap().into_columns();
    reader.get_row_iter(None).unwrap().map(row).collect()
}

fn value<'r>(row: &'r [(String, Field)], column: &str) -> &'r Field {
    &row.iter().find(|(name, _)| name == column).expect(column).1
}

#[test]
fn every_number_is_a_row_with_its_coordinates_and_its_type() {
    let space = space();
    run(&space, &["run", "p.yaml"]);
    let ran = run(&space, &["data", "p.yaml", "--format", "csv,parquet,csv"]);
    let names = ["metrics", "images", "epochs", "saliency", "stages"];
    let files =
        names.map(|name| format!("results/story/data/{name}.parquet\nresults/story/data/{name}.csv\n")).concat();
    assert_eq!((ran.stdout, ran.stderr.as_str()), (files, ""));

    let columns =
        ["name", "model", "model_seed", "set", "attack", "eps", "eps_written", "metric", "value", "hits", "n"];
    let shown = csv(&space, "metrics", &columns);
    insta::assert_snapshot!("metrics", lines(&shown, &["accur", "metric"]));
    let coordinates = ["name", "model.variant", "dark.p", "attacked.eps", "attacked.eps_written"];
    let shown = csv(
        &space,
        "images",
        &[&coordinates[..], &["index", "label", "predicted", "correct", "loss", "broken_by"]].concat(),
    );
    insta::assert_snapshot!("images", lines(&shown, &["index", "attacked/a", "b/dark-64"]));
    let epochs = ["name", "seed", "epoch", "train_loss", "adversarial_loss", "holdout_accuracy", "kept"];
    insta::assert_snapshot!("epochs", csv(&space, "epochs", &epochs));
    let saliency = ["name", "seed", "method", "set", "model", "other", "measure", "mean", "sd", "n"];
    insta::assert_snapshot!(csv(&space, "saliency", &saliency), @r"
    name,seed,method,set,model,other,measure,mean,sd,n
    maps,0,grad,,a,,gini,0.5,,1
    maps,0,grad,,a,b,l1,0.25,0.125,2
    maps,0,grad,,b,,relative_input_stability,2.5,1.5,2
    ");
    let stages = ["name", "kind", "seed", "state", "device", "libtorch", "summary"];
    insta::assert_snapshot!("stages", csv(&space, "stages", &stages));

    // The same in Parquet: as many rows, each value with its type, and nothing where nothing is known.
    for name in names {
        let lines = space.read(&format!("results/story/data/{name}.csv")).lines().count();
        assert_eq!(parquet(&space, name).len() + 1, lines, "{name}");
    }
    let rows = parquet(&space, "metrics");
    let attacked = rows.iter().find(|row| *value(row, "name") == Field::Str("attacked/a/8_255".into())).unwrap();
    assert_eq!(*value(attacked, "attacked.eps"), Field::Double(8.0 / 255.0));
    assert_eq!(*value(attacked, "attacked.eps_written"), Field::Str("8/255".into()));
    assert_eq!((value(attacked, "hits"), value(attacked, "n")), (&Field::Long(1), &Field::Long(4)));
    assert_eq!((value(attacked, "model_seed"), value(attacked, "dark.p")), (&Field::ULong(1), &Field::Null));
    let rows = parquet(&space, "images");
    assert_eq!((value(&rows[0], "correct"), value(&rows[0], "probability")), (&Field::Bool(true), &Field::Float(0.9)));
    let rows = parquet(&space, "stages");
    assert!(matches!(value(&rows[0], "made"), Field::TimestampMicros(_)), "{:?}", rows[0]);
}

#[test]
fn the_same_results_give_the_same_files_and_what_is_missing_is_told() {
    let space = space();
    let ran = space.run(&["data", "p.yaml"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("cache has no result of this pipeline as it is now"), "{}", ran.stderr);
    assert!(!space.path().join("results").exists(), "nothing is written");

    run(&space, &["run", "p.yaml"]);
    run(&space, &["data", "p.yaml"]);
    run(&space, &["data", "p.yaml", "--out", "again"]);
    for name in ["metrics", "images", "epochs", "saliency", "stages"] {
        let read = |folder: &str| std::fs::read(space.path().join(folder).join(format!("{name}.parquet"))).unwrap();
        assert_eq!(read("results/story/data"), read("again"), "{name}");
    }

    // Other parameters: what they reach is left out, and the command that makes it is named.
    let ran = run(&space, &["data", "p.yaml", "--set", "rate=0.2", "--out", "again"]);
    insta::assert_snapshot!(ran.stderr, @r"
    left out: 14 stages without a current result: model/a, model/b, tested/a/digits.test, tested/a/dark-0.5, tested/a/dark-64, tested/b/digits.test, and 8 more
    `atflow run p.yaml --set rate=0.2` makes them
    ");
    run(&space, &["data", "p.yaml", "--set", "rate=0.2", "--format", "csv"]);
    let stages = space.read("results/story@rate=0.2/data/stages.csv");
    assert!(stages.contains("model/a,train") && stages.contains(",stale,"), "{stages}");
    assert!(!space.read("results/story@rate=0.2/data/metrics.csv").contains("tested/"), "no number is of another time");
    let ran = run(&space, &["data", "p.yaml", "--format", "csv"]);
    assert!(ran.stderr.contains("of an earlier export, and not written now: metrics.parquet"), "{}", ran.stderr);

    // A part of it, with what it is made from.
    run(&space, &["data", "p.yaml", "attacked/a/*", "--format", "csv", "--out", "part"]);
    let names = |table: &str| {
        let text = space.read(&format!("part/{table}.csv"));
        let mut names: Vec<String> =
            text.lines().skip(1).map(|line| line.split(',').nth(1).unwrap().to_owned()).collect();
        names.dedup();
        names
    };
    assert_eq!(names("metrics"), ["attacked/a/2_255", "attacked/a/8_255"]);
    assert_eq!(names("epochs"), ["model/a"]);
    assert_eq!(names("stages"), ["digits", "model/a", "attacked/a/2_255", "attacked/a/8_255"]);

    // A file that is gone, and one that is damaged, cost their own rows only.
    let object = |stage: &str| {
        let shown: serde_json::Value = serde_json::from_str(&run(&space, &["show", stage, "--json"]).stdout).unwrap();
        let digest = shown["outputs"]["predictions"]["digest"].as_str().unwrap().to_owned();
        space.path().join("cache/objects").join(&digest[..2]).join(digest)
    };
    let (gone, damaged) = (object("attacked/a/8_255"), object("tested/b/dark-64"));
    std::fs::remove_file(gone).unwrap();
    let mut bytes = std::fs::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::remove_file(&damaged).unwrap();
    std::fs::write(&damaged, bytes).unwrap();
    let ran = run(&space, &["data", "p.yaml", "--format", "csv"]);
    assert!(ran.stderr.contains("1 stage whose file is gone from the cache: attacked/a/8_255"), "{}", ran.stderr);
    assert!(ran.stderr.contains("`atflow run p.yaml attacked/a/8_255` makes them"), "{}", ran.stderr);
    assert!(ran.stderr.contains("left out: tested/b/dark-64, whose file cannot be read"), "{}", ran.stderr);
    assert!(space.read("results/story/data/metrics.csv").contains("tested/b/dark-0.5"));
}

//! An evaluation at several radii: its predictions at each stand in tables, figures, worst cases and tables for other
//! programs as those of an evaluation of its own.

use std::os::unix::fs::PermissionsExt;

use atflow::formats::{Predictions, Radii, UnderAttack};
use atflow::protocol::PROTOCOL_VERSION;

use crate::support::{Ran, Space};

const PIPELINE: &str = r#"pipeline: story
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
  attacked:
    kind: evaluate
    matrix: {model: {each: model}}
    needs: {set: digits.test}
    with: {attack: {attack: pgd, eps: 8/255, step: 2/255, steps: 4}, eps: [0, 2/255, 8/255]}
  other:
    kind: evaluate
    matrix: {model: {each: model}}
    needs: {set: digits.test}
    with: {attack: {attack: square, eps: 2/255}}
  worst:
    kind: worst_case
    matrix: {of: {each: model.checkpoint}}
    needs: {results: ["attacked/${of.label}.eps_2_255", "other/${of.label}"]}
  curves:
    kind: figure
    needs: {results: attacked}
    with: {x: attacked.eps, series: model.variant}
  by-radius:
    kind: table
    needs: {results: attacked}
    with: {rows: attacked.eps, columns: model.variant}
  numbers:
    kind: table
    needs: {results: [attacked, worst]}
    with:
      rows: model.variant
      columns:
        - {label: "4 steps at 2/255", where: {attacked.eps: 2/255}}
        - {label: on correct, where: {attacked.eps: 8/255}, cell: accuracy_on_correct}
        - {label: median, where: {stage: attacked}, cell: median_eps}
        - {label: worst, where: {stage: worst}}
"#;

/// Copies the file in the home folder that is named after model, stage and output.
const WORKER: &str = r#"#!/usr/bin/env python3
import json, os, shutil, sys
def say(**event): print(json.dumps(event), flush=True)
say(event="hello", protocol=PROTOCOL, version="0.1.0", libtorch="2.11.0", device="cpu", device_name="a CPU")
for line in sys.stdin:
    job = json.loads(line)
    for name, path in job["outputs"].items():
        own = os.path.join(os.environ["HOME"], job["stage"].replace("/", "-") + "-" + name)
        shutil.copy(own, path) if os.path.exists(own) else open(path, "w").write(job["stage"])
    say(event="finished", id=job["id"], summary="made", peak_memory=1)
"#;

fn predictions(predicted: [i32; 4], attack: Option<UnderAttack>) -> Vec<u8> {
    let (labels, probability, loss) = (vec![0, 1, 0, 1], vec![0.5; 4], vec![0.5; 4]);
    Predictions { labels, predicted: predicted.to_vec(), probability, loss, attack, ..Predictions::default() }
        .to_bytes()
        .unwrap()
}

fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space.write("images", [&[0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 1][..], &[7, 9, 8, 1]].concat());
    space.write("labels", [0, 0, 8, 1, 0, 0, 0, 4, 0, 1, 0, 1]);
    // Of a, all four are right, then three, then one; of b two, two, and two.
    let under = |broken_at: [i32; 4]| {
        let radii = Radii { eps: vec![0.0, 2.0 / 255.0, 8.0 / 255.0], broken_at: broken_at.to_vec() };
        Some(UnderAttack { iterate: "last".to_owned(), radii: Some(radii), ..UnderAttack::default() })
    };
    for (model, outputs, broken_at) in
        [("a", [[0, 1, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]], [-1, 2, 2, 1]), ("b", [[0, 1, 1, 0]; 3], [-1, -1, 0, 0])]
    {
        for (output, predicted) in ["eps_0", "eps_2_255", "predictions"].into_iter().zip(outputs) {
            let attack = if output == "predictions" { under(broken_at) } else { None };
            space.write(&format!("attacked-{model}-{output}"), predictions(predicted, attack));
        }
        space.write(&format!("other-{model}-predictions"), predictions([0, 1, 1, 1], None));
    }
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
fn columns(space: &Space, file: &str, columns: &[&str]) -> String {
    let text = space.read(&format!("results/story/{file}.csv"));
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    let places: Vec<usize> =
        columns.iter().map(|name| rows[0].iter().position(|found| found == name).expect(name)).collect();
    rows.iter().map(|row| places.iter().map(|at| row[*at]).collect::<Vec<_>>().join(",") + "\n").collect()
}

#[test]
fn each_radius_is_a_result_of_its_own() {
    let space = space();
    run(&space, &["run", "p.yaml"]);
    insta::assert_snapshot!("curve", columns(&space, "curves", &["series", "x_label", "value", "n"]));
    insta::assert_snapshot!("by_radius", columns(&space, "by-radius", &["row", "column", "value"]));
    // On correct, the untransformed images are those at radius 0. One of a withstands 2/255 of both attacks less.
    insta::assert_snapshot!("numbers", columns(&space, "numbers", &["row", "column", "metric", "value", "hits", "n"]));
    let told = space.read("results/story/numbers.md");
    assert!(told.contains("| 2/255 |") || told.contains("8/255"), "{told}");

    run(&space, &["data", "p.yaml", "--format", "csv"]);
    let names = ["name", "attack", "eps", "eps_written", "metric", "value", "unit"];
    let metrics = columns(&space, "data/metrics", &names);
    let of_a = metrics.lines().filter(|line| line.starts_with("attacked/a,") && !line.contains(",loss,"));
    insta::assert_snapshot!("metrics", of_a.collect::<Vec<_>>().join("\n"));
    let images = columns(&space, "data/images", &["name", "eps_written", "index", "correct", "smallest_eps"]);
    let of_a = images.lines().filter(|line| line.starts_with("attacked/a,8/255"));
    insta::assert_snapshot!("images", of_a.collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_longer_list_is_another_result_and_another_way_to_write_it_is_not() {
    let space = space();
    run(&space, &["run", "p.yaml"]);
    let again = |from: &str, to: &str| -> Vec<String> {
        space.write("p.yaml", PIPELINE.replace(from, to));
        let stages = run(&space, &["run", "p.yaml", "--json"]).stages();
        stages.into_iter().filter(|(_, status)| status == "ran").map(|(stage, _)| stage).collect()
    };
    assert_eq!(again("[0, 2/255, 8/255]", "[0/1, 4/510, 8/255]"), [""; 0], "the same numbers");
    for model in ["a", "b"] {
        space.write(&format!("attacked-{model}-eps_0p01"), predictions([0, 1, 1, 0], None));
    }
    let ran = again("[0, 2/255, 8/255]", "[0, 2/255, 0.01, 8/255]");
    assert_eq!(ran, ["attacked/a", "attacked/b", "by-radius", "curves"], "the other files are the same bytes");
}

//! Learning curves: what figures draw of the numbers that trainings measure after each epoch.

use serde_json::json;

use crate::depth;
use crate::support::{Ran, Space};

const PIPELINE: &str = r#"pipeline: long
stages:
  model:
    kind: command
    matrix: {variant: [standard, pgd]}
    with: {run: "cp $HOME/${variant}.json ${out.metrics}", outputs: {metrics: m}}
  curves:
    kind: figure
    needs: {trainings: model}
    with:
      draw: training
      title: Robust overfitting
      series: model.variant
      names: {pgd: "PGD, ε = 8/255"}
"#;

/// A training that overfits under attack after its second epoch, whose weights are kept.
fn robust() -> serde_json::Value {
    let epoch = |epoch: u32, loss: f64, own: f64, held_out: f64| {
        json!({
            "epoch": epoch, "lr": if epoch < 3 { 0.1 } else { 0.00001 }, "train_loss": loss, "train_accuracy": own,
            "adversarial": {"images": 50, "loss": loss, "accuracy": own},
            "validation_accuracy": 0.8, "holdout_accuracy": held_out,
        })
    };
    let epochs = [epoch(1, 1.5, 0.3, 0.4), epoch(2, 1.25, 0.5, 0.5), epoch(3, 0.75, 0.9, 0.4375)];
    json!({"epochs": epochs, "kept_epoch": 2})
}

/// A training without attack and held-out images.
fn standard() -> serde_json::Value {
    let epoch = |epoch: u32| json!({"epoch": epoch, "lr": 0.1, "train_loss": 1.0, "train_accuracy": 0.7});
    json!({"epochs": [epoch(1), epoch(2)]})
}

fn space(pipeline: &str) -> Space {
    let space = Space::new();
    space.write("p.yaml", pipeline);
    space.write("standard.json", standard().to_string());
    space.write("pgd.json", robust().to_string());
    space
}

#[test]
fn robust_overfitting_is_seen_beside_a_training_that_measured_less() {
    // A command's file may have any of the numbers: those that it lacks have no line.
    let only = PIPELINE.replace("draw: training", "draw: training\n      metrics: [loss, robust_accuracy]");
    let space = space(&only);
    space.ran(&[]);
    insta::assert_snapshot!(space.read("results/long/curves.csv"), @r#"
    metric,series,images,epoch,value,kept
    loss,standard,training,1,1,false
    loss,standard,training,2,1,true
    loss,"PGD, ε = 8/255",training,1,1.5,false
    loss,"PGD, ε = 8/255",training,2,1.25,true
    loss,"PGD, ε = 8/255",training,3,0.75,false
    robust_accuracy,"PGD, ε = 8/255",training,1,0.3,false
    robust_accuracy,"PGD, ε = 8/255",training,2,0.5,true
    robust_accuracy,"PGD, ε = 8/255",training,3,0.9,false
    robust_accuracy,"PGD, ε = 8/255",held-out,1,0.4,false
    robust_accuracy,"PGD, ε = 8/255",held-out,2,0.5,true
    robust_accuracy,"PGD, ε = 8/255",held-out,3,0.4375,false
    "#);
    let svg = space.read("results/long/curves.svg");
    for words in [
        "Robust overfitting",
        "loss",
        "accuracy under attack (%)",
        "standard",
        "PGD, ε = 8/255",
        "training images",
        "held-out images",
        "epoch of the checkpoint",
    ] {
        assert!(svg.contains(&format!(">{words}<")), "{words} is missing in\n{svg}");
    }
    // Three dashed lines and the sample in the legend.
    assert_eq!(svg.matches("stroke-dasharray").count(), 4, "{svg}");
    let png = std::fs::read(space.path().join("results/long/curves.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG"));
    assert!(std::fs::read(space.path().join("results/long/curves.pdf")).unwrap().starts_with(b"%PDF-1.4"));

    // The report shows the figure as it shows others.
    assert_eq!(space.run(&["report", "p.yaml"]).code, Some(0));
    assert!(space.read("results/long/report.html").contains("Robust overfitting"));
    assert!(space.run(&["run", "p.yaml"]).seen().contains("up to date"));

    // Its section Training and TensorBoard have the numbers of commands, too.
    assert!(space.read("results/long/report.html").contains("Accuracy on held-out images under attack"));
    assert_eq!(space.run(&["report", "p.yaml", "--tensorboard", "logs"]).code, Some(0));
    for (run, tag) in [("model-standard", "loss/train"), ("model-pgd", "accuracy/holdout")] {
        let events = std::fs::read(space.path().join("logs").join(run).join("events.out.tfevents.0.atflow")).unwrap();
        assert!(events.windows(tag.len()).any(|bytes| bytes == tag.as_bytes()), "{run} lacks {tag}");
    }
}

#[test]
fn a_size_a_legend_and_no_series_are_as_in_other_figures() {
    let text = PIPELINE.replace("series: model.variant", "size: {width: 84, height: 70}\n      legend: none");
    let space =
        space(&text.replace("      draw: training", "      draw: training\n      metrics: [loss, learning_rate]"));
    space.ran(&[]);
    let svg = space.read("results/long/curves.svg");
    assert!(svg.contains("width=\"317") && svg.contains("height=\"265"), "84 mm and 70 mm in pixels of CSS: {svg}");
    assert!(!svg.contains(">standard<"), "{svg}");
    let csv = space.read("results/long/curves.csv");
    assert!(csv.contains("learning_rate,\"PGD, ε = 8/255\",,3,0.00001,false\n"), "{csv}");
}

#[test]
fn what_no_file_has_and_a_file_of_another_form_are_told() {
    let space = space(&PIPELINE.replace("draw: training", "draw: training\n      metrics: [checked_accuracy]"));
    let ran = space.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(1), "{}", ran.seen());
    assert!(ran.seen().contains("no training has numbers of `checked_accuracy`"), "{}", ran.seen());
    assert!(ran.seen().contains("overfitting_check"), "{}", ran.seen());

    space.write("p.yaml", PIPELINE.replace("cp $HOME/${variant}.json", "echo [] >"));
    let ran = space.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(1), "{}", ran.seen());
    assert!(ran.seen().contains("metrics of a training cannot be read"), "{}", ran.seen());
}

#[test]
fn tensorboard_gets_a_run_for_each_training_and_the_same_bytes_again() {
    let space = depth::space();
    space.write("pgd.json", robust().to_string());
    let writes = r#"open(path, "w").write(job["stage"])"#;
    let copies = r#"open(path, "w").write(open(os.environ["HOME"] + "/pgd.json").read() if name == "metrics" else job["stage"])"#;
    space.write("worker", space.read("worker").replace(writes, copies));
    let mut command = space.command(&["run", "p.yaml", "model"]);
    let ran = Ran::of(command.env("ATFLOW_WORKER", space.path().join("worker")).output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.seen());

    let report = |folder: &str| {
        let ran = space.run(&["report", "p.yaml", "--out", "report.html", "--tensorboard", folder]);
        assert_eq!(ran.code, Some(0), "{}", ran.seen());
        let read = |run: &str| {
            std::fs::read(space.path().join(folder).join(run).join("events.out.tfevents.0.atflow")).unwrap()
        };
        (ran.stdout, [read("model-a"), read("model-b")])
    };
    let (told, files) = report("logs");
    assert_eq!(told, "report.html\nlogs/model-a\nlogs/model-b\n");
    // A head and three epochs, of which each has what the training measured, and nothing else.
    let count = |text: &str| files[0].windows(text.len()).filter(|window| *window == text.as_bytes()).count();
    assert_eq!(count("brain.Event:2"), 1);
    for tag in ["loss/train", "loss/adversarial", "accuracy/validation", "accuracy/holdout", "learning_rate"] {
        assert_eq!(count(tag), 3, "{tag}");
    }
    assert_eq!(count("accuracy/checked"), 0);
    assert_eq!(report("again").1, files);
    assert_eq!(report("logs").1, files, "a file replaces that of the last time");
}

#[test]
fn a_run_without_trainings_says_so() {
    // A command that writes JSON of another form is none.
    let space = space("stages: {a: {kind: command, with: {run: \"echo '[1]' > ${out.n}\", outputs: {n: n}}}}\n");
    space.ran(&[]);
    let ran = space.run(&["report", "p.yaml", "--tensorboard", "logs"]);
    assert!(ran.code == Some(0) && ran.stderr.contains("has no training"), "{}", ran.seen());
    assert!(!space.path().join("logs").exists());
}

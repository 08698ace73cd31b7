//! Stories of `worst_case`: evaluations of several programs as one.

use atflow::formats::{Ensemble, Predictions};

use crate::support::{Space, predictions};

const PIPELINE: &str = r#"
stages:
  first: {kind: command, with: {run: "cp $HOME/first ${out.predictions}", outputs: {predictions: p}}}
  second: {kind: command, with: {run: "cp $HOME/second ${out.predictions}", outputs: {predictions: p}}}
  worst: {kind: worst_case, needs: {results: [first, second]}}
  table:
    kind: table
    needs: {results: [first, second, worst]}
    with: {rows: stage, columns: [{label: all, where: {}}]}
"#;

fn four(predicted: [i32; 4], loss: [f32; 4]) -> Predictions {
    Predictions {
        labels: vec![0; 4],
        predicted: predicted.to_vec(),
        probability: loss.iter().map(|loss| (-loss).exp()).collect(),
        loss: loss.to_vec(),
        ..Predictions::default()
    }
}

fn space(first: &Predictions, second: &Predictions) -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space.write("first", first.to_bytes().unwrap());
    space.write("second", second.to_bytes().unwrap());
    space
}

#[test]
fn an_image_counts_only_if_it_withstands_all() {
    // Both correct, broken by the first, by the second, by both.
    let first = four([0, 1, 0, 2], [0.1, 2.0, 0.3, 3.0]);
    let second = four([0, 0, 3, 1], [0.2, 0.1, 1.5, 9.0]);
    let space = space(&first, &second);
    let ran = space.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    let shown: serde_json::Value = serde_json::from_str(&space.run(&["show", "worst", "--json"]).stdout).unwrap();
    assert_eq!(shown["made"]["summary"], "1 of 4 images correct in all 2 evaluations");
    let file = std::fs::read(shown["outputs"]["predictions"]["path"].as_str().unwrap()).unwrap();
    let worst = Predictions::from_bytes(&file).unwrap();
    // The first that breaks an image is told; where none does, the row has the largest loss.
    assert_eq!((worst.predicted.as_slice(), worst.loss.as_slice()), (&[0, 1, 3, 2][..], &[0.2, 2.0, 1.5, 3.0][..]));
    let attack = worst.attack.unwrap();
    let ensemble = Ensemble { attacks: vec!["first".to_owned(), "second".to_owned()], broken_by: vec![-1, 0, 1, 0] };
    assert_eq!((attack.ensemble, attack.iterate.as_str()), (Some(ensemble), "worst_case"));
    let csv = space.read("results/p/table.csv");
    let rows: Vec<&str> = csv.lines().filter(|line| line.starts_with("worst,")).collect();
    assert!(rows.len() == 1 && rows[0].contains("0.25"), "{csv}");
    // The order of the evaluations decides who is told, so it is in the key.
    space.write("p.yaml", PIPELINE.replace("results: [first, second]}", "results: [second, first]}"));
    assert!(space.run(&["run", "p.yaml", "worst", "--json"]).stdout.contains(r#""status":"ran""#));
}

#[test]
fn evaluations_of_other_images_cannot_be_joined() {
    let space = space(&four([0; 4], [0.1; 4]), &four([0; 4], [0.1; 4]));
    space.write("second", predictions(10));
    let ran = space.run(&["run", "p.yaml", "worst"]);
    assert_eq!(ran.code, Some(1), "{}", ran.seen());
    let said = "input results second is not of the same images as the others";
    assert!(ran.stderr.contains(said) && ran.stderr.contains("200 images"), "{}", ran.stderr);
}

#[test]
fn from_predictions_a_worst_case_is_joined_again() {
    let space = space(&four([0; 4], [0.1; 4]), &four([0; 4], [0.2; 4]));
    space.run(&["run", "p.yaml"]);
    let ran = space.run(&["run", "p.yaml", "--from", "predictions", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    let anew: Vec<String> = ran.stages().into_iter().filter(|(_, how)| how == "ran").map(|(stage, _)| stage).collect();
    assert_eq!(anew, ["table", "worst"]);
}

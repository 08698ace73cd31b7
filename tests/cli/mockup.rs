//! Mock-ups: a profile that runs a pipeline in small says so in everything that people look at.

use atflow::formats::ImageSet;

use crate::support::{Space, predictions};

const PIPELINE: &str = r#"pipeline: paper
params: {right: 100}
profiles:
  tiny: {mockup: true, right: 50}
  small: {mockup: false, right: 50}
stages:
  tested:
    kind: command
    matrix: {model: [standard, pgd], p: [1, 2]}
    with: {run: "cp $HOME/${right} ${out.predictions} # ${model} ${p}", outputs: {predictions: p}}
  table:
    kind: table
    needs: {results: tested}
    with:
      title: Accuracy
      rows: tested.model
      columns: tested.p
      published: published.csv
      tolerance: {absolute: 1}
  curves: {kind: figure, needs: {results: tested}, with: {x: tested.p, series: tested.model}}
  set: {kind: command, with: {run: "cp $HOME/images ${out.images}", outputs: {images: i}}}
  samples: {kind: figure, needs: {sets: set}, with: {draw: samples, title: Images, images: [0]}}
"#;

const WORDS: &str = "mock-up: the numbers mean nothing";

fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space.write("100", predictions(100));
    space.write("50", predictions(50));
    space.write("published.csv", "model,1,2\nstandard,50.0,\npgd,99.0,25.0\n");
    let classes = vec!["cat".to_owned(), "dog, wet".to_owned()];
    let set = ImageSet { pixels: vec![7; 64], shape: [1, 1, 8, 8], labels: vec![1], texture: None, classes };
    space.write("images", set.to_bytes().unwrap());
    space
}

#[test]
fn every_format_of_a_mockup_says_so_and_none_has_a_verdict() {
    let space = space();
    space.ran(&["--profile", "tiny"]);
    let read = |name: &str| space.read(&format!("results/paper@tiny/{name}"));
    insta::assert_snapshot!(read("table.md"), @r"
    # Accuracy (mock-up: the numbers mean nothing)

    | model       |                 1 |                 2 |
    | ----------- | ----------------: | ----------------: |
    | standard    | 25.0 [19.5, 31.4] | 25.0 [19.5, 31.4] |
    | ↳ published |              50.0 |                 – |
    | pgd         | 25.0 [19.5, 31.4] | 25.0 [19.5, 31.4] |
    | ↳ published |              99.0 |              25.0 |

    A mock-up: it shows what the pipeline makes, and its numbers mean nothing.

    Accuracy in percent [95 % Wilson interval], n = 200 images.

    An interval is over images: another seed of a training may change a number by more than that.

    ↳ published: the number of published; a mock-up is not compared with it.
    ");
    insta::assert_snapshot!(read("table.csv"), @r"
    row,column,metric,value,low,high,hits,n,mockup,published,minus_published,verdict,anomaly
    standard,1,accuracy,0.250000,0.195082,0.314341,50,200,true,50.0,,not_compared,
    standard,2,accuracy,0.250000,0.195082,0.314341,50,200,true,,,not_published,
    pgd,1,accuracy,0.250000,0.195082,0.314341,50,200,true,99.0,,not_compared,
    pgd,2,accuracy,0.250000,0.195082,0.314341,50,200,true,25.0,,not_compared,
    ");
    let json: serde_json::Value = serde_json::from_str(&read("table.json")).unwrap();
    assert_eq!((&json["mockup"], &json["title"]), (&true.into(), &format!("Accuracy ({WORDS})").into()));
    assert_eq!(json["published"]["verdicts"], serde_json::json!({"not_compared": 3, "not_published": 1}));
    assert!(read("table.tex").contains(&format!("\\caption{{Accuracy ({WORDS})}}")), "{}", read("table.tex"));
    assert!(read("samples.csv").ends_with(",mockup\n"), "no models, so no numbers: {}", read("samples.csv"));
    assert!(read("curves.csv").lines().skip(1).all(|line| line.ends_with(",true")), "{}", read("curves.csv"));
    assert!(read("curves.svg").contains(">Mock-up: the numbers mean nothing<"), "a figure without a title has one");
    assert!(read("samples.svg").contains("mock-up"), "{}", read("samples.svg"));
    for name in ["curves", "samples"] {
        for ending in ["png", "pdf"] {
            assert!(space.path().join(format!("results/paper@tiny/{name}.{ending}")).exists());
        }
    }
    assert_eq!(space.run(&["report", "p.yaml"]).code, Some(0));
    let page = read("report.html");
    assert!(page.contains("A mock-up: it shows what the pipeline makes") && page.contains(WORDS));
    // What is far from the published number is no failure of a mock-up.
    let verified = space.run(&["verify", "p.yaml", "table", "--profile", "tiny"]);
    assert_eq!(verified.code, Some(0), "{}", verified.seen());
}

#[test]
fn what_is_no_mockup_is_as_it_was() {
    let space = space();
    space.ran(&[]);
    let plain = space.read("results/paper/table.md");
    assert!(!plain.contains("ock-up"), "{plain}");
    assert_eq!(space.run(&["verify", "p.yaml", "table"]).code, Some(3), "99.0 is far from 50");
    // `mockup: false` is as no `mockup`: the same parameters have the same keys.
    space.ran(&["--profile", "small"]);
    let without = PIPELINE.replace("mockup: false, ", "");
    space.write("p.yaml", without);
    assert_eq!(space.ran(&["--profile", "small"]), [""; 0]);
    assert!(!space.read("results/paper@small/curves.csv").contains("mockup"));
    // Declared a mock-up, only what people look at is made again.
    space.write("p.yaml", PIPELINE.replace("mockup: false, ", "mockup: true, "));
    assert_eq!(space.ran(&["--profile", "small"]), ["curves", "samples", "table"]);
}

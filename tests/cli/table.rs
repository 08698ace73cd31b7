//! Tables as a person meets them: beside published numbers, in other formats, and before all of their results are
//! there.

use atflow::formats::{ImageSet, Predictions};

use crate::support::{Space, predictions};

/// `tested` gives predictions that lie beside the pipeline, one file for each model and level.
const PIPELINE: &str = r#"pipeline: story
params: {note: ""}
stages:
  level:
    kind: command
    matrix: {p: [4, 64]}
    with: {run: "echo ${p} > ${out.n}", outputs: {n: n}}
  tested:
    kind: command
    matrix: {model: [standard, pgd], level: {each: level}}
    needs: {level: "${level}"}
    with:
      run: "cp $HOME/${model} ${out.predictions} # ${note}"
      outputs: {predictions: p}
  table:
    kind: table
    needs: {results: tested}
    with:
      title: Saturation
      rows: tested.model
      columns: level.p
      published: {file: published/t.csv, anomalies: published/anomalies.csv}
      tolerance: {absolute: 1.5}
"#;

fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space.write("standard", predictions(100));
    space.write("pgd", predictions(150));
    space.write("published/t.csv", "model,p=4,p=64\nstandard,50.0,49.2\npgd,71.5,99.9\n");
    space.write("published/anomalies.csv", "table,row,column,published,reason\nt,pgd,p=64,99.9,a misprint\n");
    space
}

#[test]
fn published_numbers_stand_beside_ours_and_verify_tells_where_they_differ() {
    let space = space();
    space.ran(&[]);
    insta::assert_snapshot!(space.run(&["table", "table"]).stdout);
    assert!(space.run(&["table", "table", "--format", "tex"]).stdout.contains("\\toprule"));
    assert!(space.read("results/story/table.tex").contains("\\toprule"));
    let ran = space.run(&["verify", "p.yaml", "table"]);
    assert_eq!(ran.code, Some(0), "the misprint is no difference: {}", ran.seen());

    // A folder that cannot be made: the results are kept, and a program is told, too.
    space.write("blocked", "");
    let ran = space.run(&["run", "p.yaml", "--out", "blocked/here", "--json"]);
    assert_eq!((ran.code, &ran.events().pop().unwrap()["outcome"]), (Some(2), &"broken".into()), "{}", ran.seen());
    assert!(ran.stderr.contains("blocked/here") && ran.stderr.contains("another one with --out"), "{}", ran.stderr);

    // Another file of published numbers makes the table stale, and nothing else.
    space.write("published/t.csv", "model,p=4,p=64\nstandard,50.0,49.2\npgd,20,99.9\n");
    assert_eq!(space.ran(&[]), ["table"]);
    let ran = space.run(&["verify", "p.yaml", "table"]);
    assert_eq!(ran.code, Some(3), "{}", ran.seen());
    insta::assert_snapshot!(ran.stdout);
    let json: serde_json::Value =
        serde_json::from_str(&space.run(&["verify", "p.yaml", "table", "--json"]).stdout).unwrap();
    assert_eq!(
        (&json["unlike_published"][0]["row"], &json["unlike_published"][0]["published"]),
        (&"pgd".into(), &20.0.into())
    );
}

#[test]
fn a_table_is_shown_at_any_time_with_what_is_there() {
    let space = space();
    space.ran(&["tested/standard/*"]);
    let ran = space.run(&["table", "table"]);
    assert_eq!(ran.code, Some(0), "of the pipeline of the last run: {}", ran.seen());
    insta::assert_snapshot!(ran.stdout);
    assert_eq!(space.run(&["table", "p.yaml", "table"]).stdout, ran.stdout);

    space.ran(&[]);
    let whole = space.run(&["table", "p.yaml", "table"]).stdout;
    assert!(!whole.contains("missing,") && !whole.contains("stale"), "{whole}");
    let stale = space.run(&["table", "p.yaml", "table", "--set", "note=other"]).stdout;
    assert!(stale.contains("50.0 (stale) [43.1, 56.9]") && stale.contains("4 stale"), "{stale}");
    assert_eq!(space.run(&["table", "table"]).stdout, whole, "nothing was recorded");
    let csv = space.run(&["table", "p.yaml", "table", "--set", "note=other", "--format", "csv"]).stdout;
    assert!(csv.lines().nth(1).unwrap().contains(",stale,"), "{csv}");
}

#[test]
fn a_number_of_an_earlier_state_is_not_compared_and_one_of_another_profile_is_none() {
    let space = space();
    space.write("p.yaml", PIPELINE.replace("stages:", "profiles: {small: {note: small}}\nstages:"));
    space.ran(&["--profile", "small"]);
    // Nothing was ever run at full size: what the small profile made is no number of it.
    let full = space.run(&["table", "p.yaml", "table"]).stdout;
    assert!(full.contains("4 missing") && !full.contains("stale"), "{full}");
    let small = space.run(&["table", "p.yaml", "table", "--profile", "small"]).stdout;
    assert!(!small.contains("missing,") && !small.contains("stale"), "{small}");

    // What the profile once made, and would make otherwise now, is shown without a word on how it compares.
    space.ran(&[]);
    insta::assert_snapshot!(space.run(&["table", "p.yaml", "table", "--set", "note=other"]).stdout);
    let json = space.run(&["table", "p.yaml", "table", "--set", "note=other", "--format", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    for cell in json["cells"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap()) {
        assert_eq!(
            (&cell["state"], &cell["published"]["verdict"]),
            (&"stale".into(), &"not_compared".into()),
            "{cell}"
        );
        assert!(cell["published"]["difference"].is_null(), "{cell}");
    }
}

#[test]
fn a_table_of_the_last_run_is_shown_as_that_run_would_have_made_it() {
    let space = space();
    space.write("p.yaml", PIPELINE.replace("stages:", "profiles: {small: {note: small}}\nstages:"));
    space.ran(&["tested/standard/*", "--profile", "small", "--set", "note=tiny"]);
    let shown = space.run(&["table", "table"]);
    assert!(shown.stdout.contains("2 missing") && !shown.stdout.contains("stale"), "{}", shown.seen());
}

#[test]
fn models_are_not_compared_by_numbers_of_different_times() {
    let space = space();
    space.write(
        "p.yaml",
        PIPELINE.replace("      tolerance:", "      compare: {to: standard, test: mcnemar}\n      tolerance:"),
    );
    space.ran(&[]);
    let made = space.run(&["table", "p.yaml", "table"]).stdout;
    assert_eq!(made.matches(", p < 0.001, Holm p < 0.001").count(), 2, "pgd less standard, at two levels: {made}");
    let stale = space.run(&["table", "p.yaml", "table", "--set", "note=other"]).stdout;
    assert!(stale.contains("75.0 (stale)") && !stale.contains("p < 0.001"), "{stale}");
}

const SAMPLES: &str = r#"pipeline: seen
stages:
  set:
    kind: command
    matrix: {k: [1, 2]}
    with: {run: "cp $HOME/images ${out.images} # ${k}", outputs: {images: i}}
  tested:
    kind: command
    matrix: {model: [standard, pgd], set: {each: set}}
    needs: {set: "${set}"}
    with: {run: "cp $HOME/${model} ${out.predictions} # ${in.set}", outputs: {predictions: p}}
  figure:
    kind: figure
    needs: {sets: set, results: tested}
    with:
      draw: samples
      title: Patch-shuffled images
      images: [3, 0]
      headings: {"2": 2 × 2 pieces}
      probabilities: tested.model
"#;

#[test]
fn images_are_drawn_side_by_side_with_what_models_make_of_them() {
    let space = Space::new();
    space.write("p.yaml", SAMPLES);
    let classes = vec!["cat".to_owned(), "dog".to_owned()];
    let pixels = (0..4 * 3 * 8 * 8).map(|pixel| (pixel % 251) as u8).collect();
    let set = ImageSet { pixels, shape: [4, 3, 8, 8], labels: vec![0, 1, 0, 1], texture: None, classes };
    space.write("images", set.to_bytes().unwrap());
    for (model, probability) in [("standard", [0.9, 0.8, 0.7, 0.625]), ("pgd", [0.5, 0.5, 0.5, 0.25])] {
        let of = Predictions {
            labels: vec![0, 1, 0, 1],
            predicted: vec![0; 4],
            probability: probability.to_vec(),
            loss: vec![1.0; 4],
            ..Predictions::default()
        };
        space.write(model, of.to_bytes().unwrap());
    }
    space.ran(&[]);
    insta::assert_snapshot!(space.read("results/seen/figure.csv"), @r"
    image,class,set,row,probability_of_true_class
    3,dog,1,standard,0.625000
    3,dog,2,standard,0.625000
    3,dog,1,pgd,0.250000
    3,dog,2,pgd,0.250000
    0,cat,1,standard,0.900000
    0,cat,2,standard,0.900000
    0,cat,1,pgd,0.500000
    0,cat,2,pgd,0.500000
    ");
    let png = std::fs::read(space.path().join("results/seen/figure.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG"));
    let svg = space.read("results/seen/figure.svg");
    // Two images in two sets, each as it is: the text is text, and the pixels are not smoothed.
    assert_eq!(svg.matches("href=\"data:image/png;base64,iVBORw0KGgo").count(), 4);
    for text in
        [">Patch-shuffled images<", ">2 × 2 pieces<", ">dog<", ">image 3<", ">62.5 %<", "image-rendering:pixelated"]
    {
        assert!(svg.contains(text), "{text} is missing in\n{svg}");
    }
    assert!(std::fs::read(space.path().join("results/seen/figure.pdf")).unwrap().starts_with(b"%PDF-1.4"));

    // One of each class, with what a model takes it for.
    let changed = SAMPLES.replace("images: [3, 0]", "images: {each_class: 1}");
    space.write("p.yaml", changed.replace("probabilities: tested.model", "predicted: tested.model"));
    space.ran(&[]);
    insta::assert_snapshot!(space.read("results/seen/figure.csv"), @r"
    image,class,set,row,probability_of_true_class,predicted
    0,cat,1,standard,0.900000,cat
    0,cat,2,standard,0.900000,cat
    0,cat,1,pgd,0.500000,cat
    0,cat,2,pgd,0.500000,cat
    1,dog,1,standard,0.800000,cat
    1,dog,2,standard,0.800000,cat
    1,dog,1,pgd,0.500000,cat
    1,dog,2,pgd,0.500000,cat
    ");
    let svg = space.read("results/seen/figure.svg");
    assert_eq!((svg.matches(">dog<").count(), svg.matches(">cat<").count()), (1, 1 + 8), "headings and predictions");
    assert!(svg.contains(">image 1<") && !svg.contains(" %<"), "{svg}");

    // As wide as the column of a paper, with text of eight points: 13 units of 0.615.
    space.write("p.yaml", SAMPLES.replace("      draw: samples\n", "      draw: samples\n      size: {width: 84}\n"));
    space.ran(&[]);
    let (svg, pdf) =
        (space.read("results/seen/figure.svg"), std::fs::read(space.path().join("results/seen/figure.pdf")));
    assert!(svg.contains(" width=\"317.48\""), "84 mm are 317.48 pixels of 1/96 inch: {svg}");
    let pdf = String::from_utf8_lossy(&pdf.unwrap()).into_owned();
    assert!(pdf.contains("/MediaBox [0 0 238.1"), "{pdf}");
    space.write("p.yaml", SAMPLES);

    let few = predictions(2);
    space.write("pgd", few);
    let ran = space.run(&["run", "p.yaml", "--force", "tested/pgd/*"]);
    assert_eq!(ran.code, Some(1), "labels of other images: {}", ran.seen());
    assert!(ran.stderr.contains("not the same images"), "{}", ran.stderr);
}

#[test]
fn a_table_whose_own_bytes_rotted_is_made_again_and_never_laid_out() {
    let space = space();
    space.ran(&[]);
    let right = space.read("results/story/table.csv");
    let blob = space.cached_files("objects").into_iter().find(|path| std::fs::read(path).unwrap() == right.as_bytes());
    let blob = blob.unwrap();
    // As long as before, so that only its bytes tell.
    let rotten = right.replace("0.75", "0.95");
    assert_ne!(rotten, right);
    let mut permissions = std::fs::metadata(&blob).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    std::fs::set_permissions(&blob, permissions).unwrap();
    std::fs::write(&blob, rotten).unwrap();
    std::fs::remove_dir_all(space.path().join("results")).unwrap();
    let ran = space.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert!(
        ran.stderr.contains("warning: output `csv` of table had other bytes than its digest says"),
        "{}",
        ran.stderr
    );
    assert_eq!(space.read("results/story/table.csv"), right);
    assert_eq!((space.cached_files("quarantine").len(), std::fs::read(&blob).unwrap()), (1, right.into_bytes()));
    assert_eq!(space.ran(&[]), [""; 0]);
}

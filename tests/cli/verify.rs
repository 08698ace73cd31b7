//! What `verify` finds: bytes that rotted, and stages that do not give again what they gave.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::{Ran, Space, predictions};

/// `guess` gives what `$HOME/luck` holds, which no key knows; a table is made of it.
const PIPELINE: &str = r#"pipeline: story
stages:
  steady: {kind: command, with: {run: "echo 1 > ${out.n}", outputs: {n: n}}}
  above: {kind: command, needs: {of: steady}, with: {run: "cat ${in.of} > ${out.n}; cat $HOME/mood >> ${out.n}", outputs: {n: n}}}
  guess:
    kind: command
    matrix: {model: [one, other]}
    with: {run: "cp $HOME/luck ${out.predictions} # ${model}", outputs: {predictions: p}}
  table:
    kind: table
    needs: {results: guess}
    with: {rows: guess.model, columns: [{label: all, where: {stage: guess}}]}
"#;

fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space.write("luck", predictions(100));
    space.write("mood", "good\n");
    space.ran(&[]);
    space
}

fn verify(space: &Space, args: &[&str]) -> Ran {
    space.run(&[&["verify"], args].concat())
}

fn overwrite(path: &Path, bytes: &[u8]) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn rotten_bytes_are_found_and_put_aside_when_asked() {
    let space = space();
    let ran = verify(&space, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert!(ran.stdout.contains("5 manifests: all as they should be"), "{}", ran.stdout);

    let blob = space.cached_files("objects").into_iter().find(|path| std::fs::read(path).unwrap() == b"1\n").unwrap();
    overwrite(&blob, b"2\n");
    let manifest = space.cached_files("actions").remove(0);
    std::fs::write(&manifest, "{").unwrap();
    let ran = verify(&space, &[]);
    assert_eq!(ran.code, Some(3), "{}", ran.seen());
    for word in ["corrupt: ", "no manifest: ", "2 flaws", "--repair"] {
        assert!(ran.stdout.contains(word), "{word} is missing in\n{}", ran.stdout);
    }
    assert!(ran.stdout.contains(&blob.display().to_string()) && blob.exists(), "it only looks");

    assert_eq!(verify(&space, &["--repair"]).code, Some(3));
    assert!(!blob.exists() && !manifest.exists());
    assert_eq!(space.cached_files("quarantine").len(), 2);
    assert_eq!(verify(&space, &[]).code, Some(0));
    space.ran(&["steady"]);
    assert_eq!(std::fs::read(&blob).unwrap(), b"1\n", "made again");
}

#[test]
fn a_rerun_that_gives_the_same_is_told_and_leaves_nothing() {
    let space = space();
    let before = space.cached_files("");
    let ran = verify(&space, &["p.yaml", "**"]);
    assert!(ran.code == Some(0) && ran.stdout.contains("of 5 reruns"), "{}", ran.seen());
    let ran = verify(&space, &["p.yaml", "steady", "guess", "table"]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert!(ran.stdout.contains("7 outputs of 4 reruns compared: none differs"), "{}", ran.stdout);
    assert_eq!(space.cached_files(""), before, "the recorded results are as they were, and nothing else is there");
}

#[test]
fn a_difference_names_stage_output_and_cells() {
    let space = space();
    space.write("luck", predictions(103));
    space.write("mood", "bad\n");
    insta::assert_snapshot!(verify(&space, &["p.yaml", "steady", "above", "guess/one", "table"]).stdout);
    let one = verify(&space, &["p.yaml", "guess/one"]).stdout;
    assert!(one.ends_with("1 output of 1 rerun compared: 1 differs\n"), "{one}");
    let ran = verify(&space, &["p.yaml", "table"]);
    assert_eq!(ran.code, Some(0), "from its recorded inputs a table comes out as before: {}", ran.seen());

    let code = |args: &[&str]| verify(&space, &[&["p.yaml", "guess", "table", "--tolerance"], args].concat()).code;
    assert_eq!((code(&["1.5"]), code(&["1.4"])), (Some(0), Some(3)));
    let json = verify(&space, &["p.yaml", "guess", "table", "--tolerance", "1.4", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let outputs = json["outputs"].as_array().unwrap();
    let table = outputs.iter().find(|output| output["output"] == "json").unwrap();
    assert_eq!((&table["verdict"], &table["cells"][0]["rerun"]), (&"numbers".into(), &0.515.into()));
    assert_eq!(space.ran(&[]), [""; 0], "nothing was recorded");
}

#[test]
fn what_has_no_result_cannot_be_compared() {
    let space = space();
    space.write("p.yaml", PIPELINE.replace("echo 1", "echo 2"));
    let seen = |args: &[&str]| verify(&space, args).seen();
    insta::assert_snapshot!(
        [
            seen(&["p.yaml", "above"]),
            seen(&["p.yaml"]),
            seen(&["p.yaml", "guess", "--tolerance", "1"]),
            seen(&["p.yaml", "table", "--tolerance", "-1"]),
        ]
        .join("\n")
    );
}

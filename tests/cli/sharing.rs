//! A run that is given away as an RO-Crate.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::support::{Ran, Space, predictions};

const PIPELINE: &str = r#"pipeline: story
include: parts/names.yaml
params: {eps: 8/255, unused: 1}
stages:
  attacked:
    kind: command
    matrix: {model: [standard, pgd]}
    needs: {list: names}
    with: {run: "echo $HOME; cp $HOME/${model} ${out.predictions} # ${eps}", outputs: {predictions: p}}
  robustness:
    kind: table
    needs: {results: attacked}
    with: {title: Robustness, rows: attacked.model, columns: [{label: PGD, where: {stage: attacked}}]}
"#;

const NAMES: &str = r#"stages:
  names: {kind: command, with: {run: "cp ${file.names.txt} ${out.list}", files: [names.txt], outputs: {list: list}}}
"#;

fn space() -> Space {
    let space = Space::new();
    space.write("exp/p.yaml", PIPELINE);
    space.write("exp/parts/names.yaml", NAMES);
    space.write("exp/parts/names.txt", "standard pgd");
    for (name, right) in [("standard", 20), ("pgd", 150)] {
        space.write(name, predictions(right));
    }
    good(&space, &["run", "exp/p.yaml"]);
    space
}

fn good(space: &Space, args: &[&str]) -> Ran {
    let ran = Ran::of(space.command(args).env("USER", "ann").output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    ran
}

/// Whether an error says something. Its lines are broken anywhere, so white space does not count.
fn tells(ran: &Ran, words: &str) -> bool {
    let squashed = |text: &str| text.replace("\n  | ", "").split_whitespace().collect::<String>();
    squashed(&ran.stderr).contains(&squashed(words))
}

/// All files below a folder of a space, by their paths in it.
fn files(space: &Space, folder: &str) -> BTreeMap<String, Vec<u8>> {
    let root = space.path().join(folder);
    let mut open = vec![root.clone()];
    let mut files = BTreeMap::new();
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// The entities of a crate by their ids.
fn entities(space: &Space, folder: &str) -> BTreeMap<String, Json> {
    let text = space.read(&format!("{folder}/ro-crate-metadata.json"));
    let document: Json = serde_json::from_str(&text).unwrap();
    let list = document["@graph"].as_array().unwrap().iter();
    list.map(|entity| (entity["@id"].as_str().unwrap().to_owned(), entity.clone())).collect()
}

#[test]
fn a_crate_says_what_made_what() {
    let space = space();
    let ran = good(&space, &["report", "exp/p.yaml", "--crate", "crate", "--license", "CC-BY-4.0"]);
    assert!(ran.stdout.ends_with("results/story/report.html\ncrate\n"), "{}", ran.stdout);
    let held = files(&space, "crate");
    for (copy, original) in [
        ("pipeline/p.yaml", "exp/p.yaml"),
        ("pipeline/parts/names.yaml", "exp/parts/names.yaml"),
        ("results/robustness.csv", "results/story/robustness.csv"),
        ("report.html", "results/story/report.html"),
    ] {
        assert_eq!(held[copy], std::fs::read(space.path().join(original)).unwrap(), "{copy}");
    }
    let entities = entities(&space, "crate");
    let root = &entities["./"];
    assert_eq!(root["mainEntity"]["@id"], "pipeline/p.yaml");
    assert_eq!(root["license"]["@id"], "https://spdx.org/licenses/CC-BY-4.0");
    let parts = root["hasPart"].as_array().unwrap();
    for name in held.keys().filter(|name| *name != "ro-crate-metadata.json") {
        assert!(parts.contains(&json!({ "@id": name })), "{name} is a part");
    }
    // The table came from the two predictions, which are named and not copied.
    let made = &entities["#action/robustness"];
    assert_eq!(made["actionStatus"], "http://schema.org/CompletedActionStatus");
    assert_eq!(made["agent"]["@id"], "#person/ann");
    assert_eq!(made["object"].as_array().unwrap().len(), 2);
    let blob = made["object"][0]["@id"].as_str().unwrap();
    assert!(blob.starts_with("#blake3-") && entities[blob]["contentSize"].is_string(), "{made}");
    assert!(made["result"].as_array().unwrap().contains(&json!({ "@id": "results/robustness.csv" })), "{made}");
    // The parameter reached the stage that names it, and no other.
    let object = entities["#action/attacked/pgd"]["object"].clone();
    assert!(object.as_array().unwrap().contains(&json!({ "@id": "#parameter/eps" })), "{object}");
    assert_eq!(entities["#parameter/eps"]["value"], "8/255");
    assert!(!entities.contains_key("#parameter/unused"));
    let connection = &entities["#connection/input/eps/to/tool/attacked/input/eps"];
    assert_eq!(connection["sourceParameter"]["@id"], "pipeline/p.yaml#input/eps");
    // The source is known by its digest.
    let source = entities["#action/names"]["object"]["@id"].as_str().unwrap();
    let digest = atflow::digest::Digest::of(b"standard pgd");
    assert_eq!(source, format!("#blake3-{digest}"));

    // The same results, the same bytes.
    good(&space, &["report", "exp/p.yaml", "--crate", "again", "--license", "CC-BY-4.0"]);
    assert_eq!(files(&space, "again"), held);
}

#[test]
fn a_crate_is_not_made_of_a_pipeline_that_gives_other_results_now() {
    let space = space();
    space.write("exp/p.yaml", PIPELINE.replace("8/255", "4/255"));
    let ran = space.run(&["report", "exp/p.yaml", "--crate", "crate"]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    let words = "3 of its instances have other results now: attacked/pgd, attacked/standard, robustness";
    assert!(tells(&ran, words), "{}", ran.stderr);
    assert!(!space.path().join("crate").exists());
    // A comment changes no result.
    space.write("exp/p.yaml", format!("# a comment\n{PIPELINE}"));
    good(&space, &["report", "exp/p.yaml", "--crate", "crate"]);
    let license = &entities(&space, "crate")["#license"];
    assert!(license["description"].as_str().unwrap().contains("stated no licence"), "{license}");
    // What is there is not overwritten.
    let ran = space.run(&["report", "exp/p.yaml", "--crate", "crate"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("crate is there already"), "{}", ran.seen());
}

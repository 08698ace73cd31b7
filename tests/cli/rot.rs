//! Bytes that rot in a cache while nobody looks: one run makes good whatever hangs on them, and nobody else gets them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use atflow::digest::Digest;

use crate::support::{Ran, Space, predictions};

/// `tested` gives predictions that lie beside the pipeline; each table has four files for people.
const PIPELINE: &str = r#"pipeline: story
stages:
  level:
    kind: command
    matrix: {p: [4, 64]}
    with: {run: "echo ${p} > ${out.n}; echo spare ${p} > ${out.spare}", outputs: {n: n, spare: s}}
  tested:
    kind: command
    matrix: {model: [standard, pgd], level: {each: level.n}}
    needs: {level: "${level}"}
    with: {run: "cp $HOME/${model} ${out.predictions}", outputs: {predictions: p}}
  table:
    kind: table
    needs: {results: tested}
    with: {title: Saturation, rows: tested.model, columns: level.p}
  other:
    kind: table
    needs: {results: tested}
    with: {title: Another, rows: tested.model, columns: level.p}
"#;

fn made() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space.write("standard", predictions(100));
    space.write("pgd", predictions(150));
    space.ran(&[]);
    space
}

/// Changes the last byte of a file; its length stays.
fn rot(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    match bytes.last_mut() {
        Some(last) => *last ^= 1,
        None => return,
    }
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn is_whole(blob: &Path) -> bool {
    blob.ends_with(Digest::of_file(blob).unwrap().to_string())
}

fn manifest(space: &Space, stage: &str) -> serde_json::Value {
    let show = space.run(&["show", stage, "--json"]);
    serde_json::from_str(&show.stdout).unwrap_or_else(|_| panic!("{}", show.seen()))
}

/// The blobs of a stage, by the names of its outputs.
fn blobs(space: &Space, stage: &str) -> BTreeMap<String, PathBuf> {
    let manifest = manifest(space, stage);
    let path = |digest: &str| space.path().join("cache/objects").join(&digest[..2]).join(digest);
    let outputs = manifest["outputs"].as_object().unwrap().iter();
    outputs.map(|(name, blob)| (name.clone(), path(blob["digest"].as_str().unwrap()))).collect()
}

/// The files for people and what is in them, without the manifest of their folder and the report: those tell times.
fn results(space: &Space) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(space.path().join("results/story")).into_iter().flatten();
    files
        .map(|file| file.unwrap())
        .map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap()))
        .filter(|(name, _)| !["atflow-results.json", "report.html"].contains(&name.as_str()))
        .collect()
}

fn run_once(space: &Space, args: &[&str]) -> Ran {
    let ran = space.run(&[&["run", "p.yaml"], args].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    ran
}

#[test]
fn all_outputs_of_a_table_are_made_good_by_one_run() {
    let space = made();
    let before = results(&space);
    let rotten = blobs(&space, "table");
    assert_eq!((rotten.len(), before.len()), (4, 8), "{rotten:?} {:?}", before.keys());
    rotten.values().for_each(|path| rot(path));
    let ran = run_once(&space, &[]);
    assert!(ran.stderr.contains("the cache had a file of table with other bytes"), "{}", ran.stderr);
    assert!(rotten.values().all(|path| is_whole(path)));
    assert_eq!(results(&space), before);
    assert_eq!(space.run(&["verify"]).code, Some(0));
}

#[test]
fn a_cache_of_which_every_blob_has_rotted_is_made_good_by_one_run() {
    let space = made();
    let before = results(&space);
    space.cached_files("objects").iter().for_each(|path| rot(path));
    std::fs::remove_dir_all(space.path().join("results")).unwrap();
    run_once(&space, &[]);
    assert_eq!(results(&space), before);
    let verify = space.run(&["verify"]);
    assert_eq!(verify.code, Some(0), "{}", verify.seen());
    // Whatever was cut or emptied is gone for all purposes.
    for blob in space.cached_files("objects") {
        std::fs::remove_file(&blob).unwrap();
        std::fs::write(&blob, "").unwrap();
    }
    std::fs::remove_dir_all(space.path().join("results")).unwrap();
    run_once(&space, &[]);
    assert_eq!(results(&space), before);
}

#[test]
fn force_puts_good_bytes_in_the_place_of_rotten_ones() {
    let space = made();
    let spare = &blobs(&space, "level/4")["spare"];
    rot(spare);
    run_once(&space, &[]);
    assert!(!is_whole(spare), "nobody reads it");
    let ran = run_once(&space, &["--force", "level/4"]);
    assert!(
        is_whole(spare) && ran.stderr.contains("the cache had a file of level/4 with other bytes"),
        "{}",
        ran.stderr
    );
}

#[test]
fn results_are_laid_out_though_another_cannot_be() {
    let space = made();
    let before = results(&space);
    for name in before.keys() {
        std::fs::remove_file(space.path().join("results/story").join(name)).unwrap();
    }
    // A folder where a file is to be.
    std::fs::create_dir(space.path().join("results/story/other.md")).unwrap();
    let ran = space.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(space.path().join("results/story/table.md").exists(), "{}", ran.stderr);
}

#[test]
fn rotten_bytes_are_not_published_and_the_rest_is() {
    let space = made();
    let folder = space.path().join("shared");
    let remote = folder.display().to_string();
    let rotten = &blobs(&space, "tested/pgd/4")["predictions"];
    rot(rotten);
    let push = space.run(&["push", "p.yaml", "--remote", &remote]);
    assert_eq!(push.code, Some(1), "{}", push.seen());
    assert!(
        push.stderr.contains("other bytes than its digest says and is not copied; it was moved to"),
        "{}",
        push.stderr
    );
    let published =
        |path: &Path| folder.join("objects").join(path.strip_prefix(space.path().join("cache/objects")).unwrap());
    assert!(!published(rotten).exists() && blobs(&space, "table").values().all(|path| is_whole(&published(path))));
    // What was cut there is not what is here.
    let other = published(&blobs(&space, "level/4")["n"]);
    std::fs::remove_file(&other).unwrap();
    std::fs::write(&other, "").unwrap();
    run_once(&space, &["tested"]);
    let push = space.run(&["push", "p.yaml", "--remote", &remote]);
    assert_eq!(push.code, Some(0), "{}", push.seen());
    assert!(is_whole(&published(rotten)) && is_whole(&other));
}

#[test]
fn what_is_pulled_is_whole() {
    let space = made();
    let remote = space.path().join("shared").display().to_string();
    assert_eq!(space.run(&["push", "p.yaml", "--remote", &remote]).code, Some(0));
    let mut outputs = blobs(&space, "tested/pgd/4");
    outputs.extend(blobs(&space, "table"));
    outputs.values().for_each(|path| rot(path));
    let pull = space.run(&["pull", "p.yaml", "--remote", &remote]);
    assert_eq!(pull.code, Some(0), "{}", pull.seen());
    assert!(outputs.values().all(|path| is_whole(path)), "{}", pull.stderr);
    // A run takes what is good there, too, and makes nothing again.
    outputs.values().for_each(|path| rot(path));
    let ran = run_once(&space, &["--remote", &remote]);
    assert!(ran.stderr.contains("0 failed") || ran.stderr.contains("nothing to do"), "{}", ran.stderr);
}

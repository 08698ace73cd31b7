//! Files from outside, through the program: those that only a person can get, and data sets made of them.

use sha2::Digest;

use crate::support::Space;

fn sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn results_need_no_file_that_only_a_person_can_get() {
    let space = Space::new();
    let pipeline = format!(
        r#"
pipeline: story
params: {{extra: 1}}
stages:
  weights:
    kind: file
    with:
      source:
        path: published/weights.pth
        sha256: {}
        by_hand: ask the authors for weights.pth and put it into published/
  counted:
    kind: command
    needs: {{of: weights}}
    with: {{run: "wc -c < ${{in.of}} > ${{out.n}}; echo ${{extra}}", outputs: {{n: n.txt}}}}
"#,
        sha256(b"weights")
    );
    space.write("p.yaml", pipeline);
    let missing = space.run(&["run", "p.yaml"]);
    assert_eq!(missing.code, Some(1), "{}", missing.seen());
    assert!(missing.stderr.contains("there is no file published/weights.pth"), "{}", missing.stderr);
    assert!(
        missing.stderr.contains("ask the authors for weights.pth and put it into published/"),
        "{}",
        missing.stderr
    );

    space.write("published/weights.pth", "weights");
    assert_eq!(space.ran(&[]), ["counted", "weights"]);
    std::fs::remove_file(space.path().join("published/weights.pth")).unwrap();
    assert_eq!(space.ran(&[]), [""; 0], "its digest is its identity");
    assert_eq!(space.ran(&["--set", "extra=2"]), ["counted"], "what was brought in is kept");

    space.write("published/weights.pth", "other");
    let wrong = space.run(&["plan", "p.yaml"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("has another sha256 than the pipeline says"), "{}", wrong.stderr);
}

#[test]
fn a_file_by_hand_of_unknown_digest_is_planned_for_and_stops_only_what_needs_it() {
    let space = Space::new();
    let pipeline = r#"
pipeline: story
stages:
  paintings:
    kind: file
    with: {source: {path: train.zip, by_hand: accept the rules and download train.zip}}
  counted: {kind: command, needs: {of: paintings}, with: {run: "wc -c < ${in.of} > ${out.n}", outputs: {n: n}}}
  other: {kind: command, with: {run: "echo 1 > ${out.n}", outputs: {n: n}}}
"#;
    space.write("p.yaml", pipeline);
    let plan = space.run(&["plan", "p.yaml"]);
    assert_eq!(plan.code, Some(0), "{}", plan.stderr);
    assert!(
        plan.stdout.contains("1 pending") && plan.stdout.contains("to be brought by hand: train.zip"),
        "{}",
        plan.stdout
    );

    let missing = space.run(&["run", "p.yaml"]);
    assert_eq!(missing.code, Some(2), "told before anything runs");
    for words in ["there is no file train.zip", "p.yaml:6:", "accept the rules and download train.zip", "--keep-going"]
    {
        assert!(missing.stderr.contains(words), "{words}: {}", missing.stderr);
    }
    assert!(space.cached_files("actions").is_empty());

    assert_eq!(space.run(&["run", "p.yaml", "other"]).code, Some(0), "a target that does without it");
    let rest = space.run(&["run", "p.yaml", "--keep-going", "--json"]);
    assert_eq!(rest.code, Some(1), "{}", rest.stderr);
    let status: Vec<String> = rest.stages().into_iter().map(|(stage, status)| format!("{stage} {status}")).collect();
    assert_eq!(status, ["counted skipped", "other cached", "paintings failed"]);

    space.write("train.zip", "paintings");
    assert_eq!(space.ran(&[]), ["counted", "paintings"]);
}

#[test]
fn a_data_set_is_made_once_and_again_when_its_archive_or_its_division_changes() {
    let space = Space::new();
    let tiny = |name: &str| {
        std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/tiny").join(name)).unwrap()
    };
    let archive = tiny("256_ObjectCategories.tar");
    space.write("data/objects.tar", &archive);
    let url = format!("file://{}", space.path().join("data/objects.tar").display());
    let pipeline = format!(
        r#"
pipeline: story
params: {{seed: 0}}
stages:
  objects:
    kind: dataset
    with:
      format: caltech256
      archive: {{url: '{url}.gone', mirrors: ['{url}'], sha256: {}}}
      seed: "${{seed}}"
      resize: 40
      center_crop: 32
"#,
        sha256(&archive)
    );
    space.write("p.yaml", pipeline);
    assert_eq!(space.ran(&[]), ["objects"]);
    assert_eq!(space.ran(&[]), [""; 0]);
    assert_eq!(space.ran(&["--set", "seed=1"]), ["objects"]);
    let log = space.run(&["log", "objects"]);
    assert!(log.stdout.contains("passed over: 256_ObjectCategories/198.spider/RENAME2"), "{}", log.seen());
}

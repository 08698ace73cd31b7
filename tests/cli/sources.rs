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

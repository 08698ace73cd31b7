//! What `why` answers: the leaf cause, its old and new value, and the line where the new one is written.

use crate::support::Space;

/// `number` fans out to `double`, whose values are summed; `script` reads a file.
const PIPELINE: &str = r#"pipeline: story
params: {a: 4, b: 7}
stages:
  number:
    kind: command
    matrix:
      n: {one: "${a}", other: 2}
    with: {run: "echo ${n} > ${out.n}", outputs: {n: n}}
  double:
    kind: command
    matrix: {number: {each: number}}
    needs: {of: "${number}"}
    with: {run: "expr 2 '*' $(cat ${in.of}) > ${out.n}", outputs: {n: n}}
  sum:
    kind: command
    needs: {of: double}
    with:
      run: "cat ${in.of} > ${out.n}; echo ${b} >> ${out.n}"
      files: [script.sh]
      outputs: {n: n}
"#;

fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space.write("script.sh", "one\n");
    space
}

fn why(space: &Space, args: &[&str]) -> String {
    let ran = space.run(&[&["why"], args].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    ran.stdout
}

#[test]
fn the_leaf_is_named_with_its_values_and_its_line() {
    let space = space();
    space.ran(&[]);
    insta::assert_snapshot!(why(&space, &["sum", "--set", "a=5"]));
    space.write("p.yaml", PIPELINE.replace("other: 2", "other: 3").replace("b: 7", "b: 8"));
    insta::assert_snapshot!(why(&space, &["p.yaml", "sum"]));
}

#[test]
fn a_changed_file_a_lost_result_and_force_are_causes() {
    let space = space();
    space.ran(&[]);
    space.write("script.sh", "two\n");
    insta::assert_snapshot!(why(&space, &["sum"]));
    space.write("script.sh", "one\n");
    insta::assert_snapshot!(why(&space, &["sum", "--force", "number/one"]));
    for manifest in space.cached_files("actions") {
        if std::fs::read_to_string(&manifest).unwrap().contains("\"number/one\"") {
            std::fs::remove_file(manifest).unwrap();
        }
    }
    insta::assert_snapshot!(why(&space, &["sum"]));
}

/// A text may have several references, a list several items, and a mapping may come from the stage and from defaults:
/// the one that changed is named.
#[test]
fn the_reference_the_item_and_the_default_are_named_that_changed() {
    let space = Space::new();
    let text = r#"pipeline: story
params: {first: 1, second: 2, note: a}
defaults:
  command:
    env: {NOTE: "${note}"}
stages:
  one:
    kind: command
    with:
      run: "cat ${file.a}; echo ${first} ${second} > ${out.n}"
      env: {OWN: b}
      files: [a, b, c]
      outputs: {n: n}
"#;
    space.write("p.yaml", text);
    for file in ["a", "b", "c", "d"] {
        space.write(file, "same\n");
    }
    space.ran(&[]);
    let lines = |args: &[&str]| {
        let answer = why(&space, &[&["p.yaml", "one"], args].concat());
        answer.lines().filter(|line| !line.contains(" is stale") && !line.is_empty()).collect::<Vec<_>>().join("\n")
    };
    let told = [lines(&["--set", "first=3"]), lines(&["--set", "second=3"]), lines(&["--set", "note=z"])];
    space.write("p.yaml", text.replace("note: a", "note: c").replace("OWN: b", "OWN: c"));
    insta::assert_snapshot!([told.join("\n\n"), lines(&[])].join("\n\n"));
}

#[test]
fn a_change_that_was_run_further_up_is_found_where_it_was_made() {
    let space = space();
    space.ran(&[]);
    space.ran(&["number", "--set", "a=6"]);
    let answer = why(&space, &["p.yaml", "double/one", "--set", "a=6"]);
    assert!(answer.contains("double/one is stale"), "{answer}");
    assert!(answer.contains(r#""echo 4 > ${out.n}" → "echo 6 > ${out.n}""#), "{answer}");
    assert!(answer.contains("in       number/one"), "{answer}");
}

#[test]
fn what_never_ran_and_what_is_fresh_are_told() {
    let space = space();
    insta::assert_snapshot!(why(&space, &["p.yaml", "sum"]));
    space.ran(&[]);
    let fresh = why(&space, &["double/one"]);
    let made = fresh.lines().find(|line| line.starts_with("  made")).unwrap().to_owned();
    insta::assert_snapshot!(fresh.replace(&made, "  made     TIME in SECONDS on HOST"));
    let json: serde_json::Value = serde_json::from_str(&why(&space, &["sum", "--set", "b=1", "--json"])).unwrap();
    let cause = &json["stages"][0]["causes"][0];
    assert_eq!(
        (&cause["cause"], &cause["change"], &cause["written"][1]["set"]),
        (&"changed".into(), &"param".into(), &"b".into())
    );
}

#[test]
fn without_a_run_a_stage_alone_is_not_enough() {
    let space = space();
    let ran = space.run(&["why", "sum"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("no pipeline was run") && ran.stderr.contains("why PIPELINE.yaml sum"),
        "{}",
        ran.stderr
    );
    let ran = space.run(&["why", "p.yaml", "smu"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("did you mean `sum`?"), "{}", ran.stderr);
}

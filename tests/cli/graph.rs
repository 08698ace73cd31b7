//! The picture of a pipeline, in its three languages.

use crate::support::Space;

const PIPELINE: &str = r#"stages:
  number: {kind: command, matrix: {n: [1, 2]}, with: {run: "echo ${n} > ${out.n}", outputs: {n: n}}}
  double: {kind: command, matrix: {number: {each: number}}, needs: {of: "${number}"}, with: {run: "cat ${in.of} > ${out.n}", outputs: {n: n}}}
  sum: {kind: command, needs: {of: double, too: number/1}, with: {run: "cat ${in.of} > ${out.n}", outputs: {n: n}}}
"#;

fn graph(space: &Space, args: &[&str]) -> String {
    let ran = space.run(&[&["graph", "p.yaml"], args].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    ran.stdout
}

#[test]
fn stages_are_boxes_with_counts_and_instances_are_drawn_when_asked() {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    insta::assert_snapshot!(graph(&space, &["--format", "dot"]));
    insta::assert_snapshot!(graph(&space, &["--format", "mermaid", "--all"]));
    assert!(!space.path().join("cache").exists(), "drawing leaves nothing");
}

#[test]
fn a_picture_shows_what_is_fresh_and_what_is_not() {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space.ran(&["double/1"]);
    let svg = graph(&space, &[]);
    for text in ["number ×2", "command · 1 fresh, 1 stale", "command · 1 fresh, 1 pending", "command · pending"] {
        assert!(svg.contains(text), "{text} is missing in\n{svg}");
    }
    assert_eq!(svg.matches("<path d=\"M").count(), 3 + 1, "three arrows and the marker");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
}

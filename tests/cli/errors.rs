//! What a user sees of each mistake: at its place, with what was expected, and with nothing half done.

use crate::support::Space;

/// Runs a pipeline that is wrong and gives all that is seen. Nothing may have been run or left.
fn seen(text: &str) -> String {
    let space = Space::new();
    space.write("p.yaml", text);
    let ran = space.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(space.cached_files("actions").is_empty() && space.cached_files("objects").is_empty());
    ran.stderr
}

#[test]
fn a_missing_pipeline_file() {
    let ran = Space::new().run(&["run", "none.yaml"]);
    insta::assert_snapshot!(ran.seen());
}

#[test]
fn malformed_yaml() {
    insta::assert_snapshot!(seen("stages:\n  a: [1, 2\n  b: 3\n"));
}

/// A line as long as a file of data: the place in it is told as ever, and not all of the line is shown.
#[test]
fn a_mistake_in_a_very_long_line() {
    let classes = "shirt, ".repeat(40_000);
    let error = seen(&format!("stages: {{a: {{kind: dataset, classes: [{classes}x], knid: y}}}}\n"));
    assert!(error.len() < 3000, "{} bytes", error.len());
    let column = "stages: {a: {kind: dataset, classes: [x], ".len() + classes.len() + 1;
    assert!(
        error.contains(&format!("p.yaml:1:{column}]")) && error.contains("…") && error.contains("knid: y}"),
        "{error}"
    );
}

#[test]
fn misspelt_keys_are_all_told_in_one_go() {
    insta::assert_snapshot!(seen(
        "param: {a: 1}\nstages:\n  model:\n    kind: trian\n    neds: {data: x}\n  other:\n    knid: train\n"
    ));
}

#[test]
fn an_unknown_stage() {
    insta::assert_snapshot!(seen(
        "stages:\n  fashion: {kind: command, with: {run: x, outputs: {n: n}}}\n  dark: {kind: transform, needs: {data: fashon}, with: {op: saturate, level: 4}}\n"
    ));
}

#[test]
fn a_circle() {
    insta::assert_snapshot!(seen(
        "stages:\n  a: {kind: command, needs: {x: b}, with: {run: x, outputs: {n: n}}}\n  b: {kind: command, needs: {x: c}, with: {run: x, outputs: {n: n}}}\n  c:\n    kind: command\n    needs: {x: a}\n    with: {run: x, outputs: {n: n}}\n"
    ));
}

const DATA: &str = r#"
stages:
  data:
    kind: dataset
    with:
      format: idx
      train: {images: {path: a.gz}, labels: {path: b.gz}}
      test:
        images: {path: a.gz, sha256: 0000000000000000000000000000000000000000000000000000000000000000}
        labels: {path: b.gz}
      classes: [x]
"#;

#[test]
fn a_missing_data_file() {
    insta::assert_snapshot!(seen(DATA));
}

#[test]
fn a_wrong_digest() {
    let space = Space::new();
    space.write("p.yaml", DATA);
    space.write("a.gz", "images");
    space.write("b.gz", "labels");
    insta::assert_snapshot!(space.run(&["run", "p.yaml"]).seen());
    assert!(space.cached_files("actions").is_empty());
}

#[test]
fn wrong_parameters_are_told_at_their_places() {
    insta::assert_snapshot!(seen(
        r#"
params: {eps: 8/0}
stages:
  data: {kind: command, with: {run: x, outputs: {n: n}}}
  model:
    kind: train
    needs: {data: data}
    with:
      net: {arch: resnet, width: 0, blocks: [1]}
      epochs: four
      adversary: {attack: pgd, eps: "${eps}", stepp: 2/255, steps: 5}
      optimizer: {momentum: 2}
      schedule: {shape: cyclic}
"#
    ));
}

#[test]
fn what_is_missing_is_named_with_its_meaning() {
    insta::assert_snapshot!(seen(
        "stages:\n  data: {kind: command, with: {run: x, outputs: {n: n}}}\n  dark: {kind: transform, with: {op: saturate}}\n  shown:\n    kind: evaluate\n    with: {}\n"
    ));
}

#[test]
fn an_empty_matrix_and_labels_that_make_no_names() {
    insta::assert_snapshot!(seen(
        "stages:\n  a: {kind: command, matrix: {x: []}, with: {run: x, outputs: {n: n}}}\n  b: {kind: command, matrix: {x: [1, 1]}, with: {run: x, outputs: {n: n}}}\n  c: {kind: command, matrix: {x: [\"a b\"]}, with: {run: x, outputs: {n: n}}}\n  d: {kind: command, matrix: {x: 3}, with: {run: x, outputs: {n: n}}}\n"
    ));
}

#[test]
fn substitutions_that_lead_nowhere() {
    insta::assert_snapshot!(seen(
        "params: {eps: 1, loop: '${loop}'}\nstages:\n  a: {kind: command, with: {run: 'x ${epz}', outputs: {n: n}}}\n  b: {kind: command, with: {run: '${loop}', outputs: {n: n}}}\n  c: {kind: command, with: {run: '${eps', outputs: {n: n}}}\n"
    ));
}

#[test]
fn an_input_of_the_wrong_sort() {
    insta::assert_snapshot!(seen(
        "stages:\n  a: {kind: table, needs: {results: b}, with: {rows: x, columns: y}}\n  b: {kind: figure, needs: {results: a}, with: {x: x, series: y}}\n  data: {kind: command, with: {run: x, outputs: {n: n, m: m}}}\n  dark: {kind: transform, needs: {data: data}, with: {op: saturate, level: 4}}\n  darker: {kind: evaluate, needs: {model: data.n, set: dark.imags}}\n"
    ));
}

#[test]
fn overrides_that_name_nothing() {
    let space = Space::new();
    space.write("p.yaml", "params: {eps: 8/255}\nstages:\n  a: {kind: command, with: {run: x, outputs: {n: n}}}\n");
    let ran = |args: &[&str]| space.run(&[&["run", "p.yaml"], args].concat()).seen();
    insta::assert_snapshot!(
        [ran(&["--set", "esp=4/255"]), ran(&["--profile", "fast"]), ran(&["mdoel"]), ran(&["--set", "eps"])].join("\n")
    );
}

#[test]
fn hostile_files_get_an_error_and_not_a_crash() {
    let deep = "[".repeat(100_000);
    let aliases = (0..40)
        .fold("a0: &a0 [x, x]\n".to_owned(), |text, n| format!("{text}a{}: &a{} [*a{n}, *a{n}]\n", n + 1, n + 1));
    let wide = "stages:\n  a: {kind: command, matrix: {w: [1,2,3,4,5,6,7,8,9], x: [1,2,3,4,5,6,7,8,9], y: [1,2,3,4,5,6,7,8,9], z: [1,2,3,4,5,6,7,8,9], v: [1,2,3,4,5,6,7,8,9], u: [1,2,3,4,5,6,7,8,9]}, with: {run: x, outputs: {n: n}}}\n";
    for text in
        [&deep, &aliases, wide, "stages: 3", "- 1", "", "\u{0}", "stages: {a: {kind: !!binary x}}", "? [a, b]\n: c\n"]
    {
        seen(text);
    }
    let large = format!("# {}\n", "x".repeat(9 << 20));
    seen(&large);
    let space = Space::new();
    space.write("p.yaml", [0xff, 0xfe, 0x00]);
    assert_eq!(space.run(&["run", "p.yaml"]).code, Some(2));
}

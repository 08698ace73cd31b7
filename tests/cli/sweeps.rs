//! Sweeps: a parameter with several values on the command line, without an edit of the pipeline.

use std::collections::BTreeSet;

use crate::support::{Space, predictions};

/// The standard model reads no `eps`; the other one and every attack do.
const PIPELINE: &str = r#"pipeline: story
params: {eps: 8/255, note: plain}
stages:
  data:
    kind: command
    with: {run: "echo data > ${out.n}", outputs: {n: n}}
  model:
    kind: command
    matrix:
      variant:
        standard: {says: nothing}
        pgd: {says: "${eps}"}
    needs: {data: data}
    with: {run: "echo ${variant.says} > ${out.n}", outputs: {n: n}}
  attacked:
    kind: command
    matrix: {model: {each: model}}
    needs: {model: "${model}"}
    with:
      run: "echo ${note} > ${out.n} && cp $HOME/attacked-${model.label}-${eps} ${out.predictions}"
      outputs: {predictions: p, n: {path: note.txt, show: "note-${model.label}.txt"}}
  table:
    kind: table
    needs: {results: attacked}
    with: {title: "Under attack, at ${eps}", rows: model.variant, columns: [{label: accuracy, where: {stage: attacked}}]}
  across:
    kind: table
    needs: {results: attacked}
    with: {rows: model.variant, columns: eps}
  curves:
    kind: figure
    needs: {results: attacked}
    with: {x: eps, series: model.variant}
"#;

fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    for (eps, right) in [(1, 150), (2, 100), (4, 60), (8, 20)] {
        space.write(&format!("attacked-standard-{eps}/255"), predictions(right));
        space.write(&format!("attacked-pgd-{eps}/255"), predictions(right + 40));
    }
    space
}

const SWEEP: [&str; 2] = ["--set", "eps=1/255,2/255,4/255"];

#[test]
fn a_sweep_runs_what_reads_the_parameter_once_a_value_and_the_rest_once() {
    let space = space();
    let ran: BTreeSet<String> = space.ran(&SWEEP).into_iter().collect();
    insta::assert_snapshot!(ran.into_iter().collect::<Vec<_>>().join("\n"));

    // Each value alone is the run that it would have been, and so is the sweep after them.
    for eps in ["1/255", "2/255", "4/255"] {
        let ran = space.ran(&["--set", &format!("eps={eps}")]);
        assert_eq!(ran, ["across", "curves"], "only these join the values of eps: {eps}");
    }
    assert!(space.ran(&SWEEP).is_empty());
    assert_eq!(space.ran(&["--set", "eps=4/255,8/255", "model", "table/eps=8_255"]).len(), 4);
}

#[test]
fn a_table_and_a_figure_that_name_the_parameter_show_all_values() {
    let space = space();
    space.ran(&SWEEP);
    let folder = "results/story@eps=1_255+2_255+4_255";
    insta::assert_snapshot!(space.read(&format!("{folder}/across.md")));
    insta::assert_snapshot!(space.read(&format!("{folder}/curves.csv")));
    insta::assert_snapshot!(space.read(&format!("{folder}/table-eps=2_255.md")));
    assert_eq!(space.read(&format!("{folder}/note-pgd-eps=4_255.txt")), "plain\n");
    let written = space.run(&["data", "p.yaml", "--set", SWEEP[1], "--format", "csv"]);
    assert_eq!(written.code, Some(0), "{}", written.seen());
    let stages = space.read(&format!("{folder}/data/stages.csv"));
    let columns = "stage,name,kind,attacked.model,params.eps,params.eps_written,model.variant,";
    assert!(stages.starts_with(columns), "{stages}");

    // Without a sweep, they have the one value.
    space.ran(&[]);
    insta::assert_snapshot!(space.read("results/story/across.md"));
}

#[test]
fn a_sweep_is_told_in_plans_runs_and_differences() {
    let space = space();
    let plan = space.run(&["plan", "p.yaml", "--set", "eps=1/255,2/255", "attacked/pgd"]);
    insta::assert_snapshot!(plan.seen());
    space.ran(&[]);
    space.ran(&SWEEP);
    let runs = space.run(&["runs"]).stdout;
    assert!(runs.contains("eps 8/255 → 1/255,2/255,4/255"), "{runs}");
    let why = space.run(&["why", "p.yaml", "attacked/pgd/eps=2_255", "--set", "eps=2/255,3/255"]);
    assert!(why.stdout.contains("attacked/pgd/eps=2_255 is fresh"), "{}", why.seen());
    let told = space.run(&["diff"]).stdout;
    assert!(told.contains("1/255,2/255,4/255"), "{told}");
    // A run without the sweep is an earlier state of every instance of it.
    let why = space.run(&["why", "p.yaml", "attacked/pgd/eps=3_255", "--set", "eps=2/255,3/255"]);
    insta::assert_snapshot!("why_a_swept_instance_is_stale", why.seen());
}

#[test]
fn two_sweeps_multiply_and_a_text_in_quotes_is_none() {
    let space = space();
    let names: Vec<String> = space.stages(&["--set", "eps=1/255,2/255", "--set", "note=a,b"]).into_keys().collect();
    insta::assert_snapshot!(names.join("\n"));
    let names: Vec<String> = space.stages(&["--set", "note='a,b'", "--out", "out", "attacked"]).into_keys().collect();
    assert_eq!(names, ["attacked/pgd", "attacked/standard", "data", "model/pgd", "model/standard"]);
    assert_eq!(space.read("out/note-pgd.txt"), "a,b\n");
}

#[test]
fn a_sweep_that_cannot_be_is_refused() {
    let space = space();
    let seen: Vec<String> = ["eps=1/255,1/255", "eps=1/255,", "note=some words, and more", "epps=1,2"]
        .iter()
        .map(|set| space.run(&["plan", "p.yaml", "--set", set]).seen())
        .collect();
    insta::assert_snapshot!(seen.join("\n"));
}

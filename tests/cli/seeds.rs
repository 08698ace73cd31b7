//! Seeds: `seeds: 3` trains thrice, and tables and curves are of all three.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::support::{Space, predictions};

/// Trainings and what hangs on them read `seed`; the data do not.
const PIPELINE: &str = r#"pipeline: story
params: {seed: 0}
stages:
  data:
    kind: command
    with: {run: "echo data > ${out.n}", outputs: {n: n}}
  model:
    kind: command
    matrix: {variant: [standard, pgd]}
    needs: {data: data}
    with: {run: "echo ${variant} ${seed} > ${out.n}", outputs: {n: n}}
  attacked:
    kind: command
    matrix: {model: {each: model}, k: [1, 2]}
    needs: {model: "${model}"}
    with:
      run: "cp $HOME/$(cut -d' ' -f1 < ${in.model})-$(cut -d' ' -f2 < ${in.model})-${k} ${out.predictions}"
      outputs: {predictions: p}
  robustness:
    kind: table
    needs: {results: attacked}
    with: {rows: model.variant, columns: attacked.k, compare: {to: standard}}
  curves:
    kind: figure
    needs: {results: attacked}
    with: {x: attacked.k, series: model.variant}
"#;

fn space(pipeline: &str) -> Space {
    let space = Space::new();
    space.write("p.yaml", pipeline);
    for (seed, right) in [(0, 100), (1, 112), (2, 91), (7, 60)] {
        for k in [1, 2] {
            space.write(&format!("standard-{seed}-{k}"), predictions(right - 10 * k));
            space.write(&format!("pgd-{seed}-{k}"), predictions(right + 40 - 7 * k + seed));
        }
    }
    space
}

fn cells(space: &Space, folder: &str) -> Json {
    serde_json::from_str(&space.read(&format!("results/{folder}/robustness.json"))).unwrap()
}

#[test]
fn seeds_fan_trainings_out_and_tables_average_over_them() {
    let space = space(PIPELINE);
    let alone: BTreeSet<String> = space.ran(&[]).into_iter().collect();
    assert!(alone.contains("model/pgd") && alone.contains("robustness"), "{alone:?}");
    space.write("p.yaml", format!("seeds: 3\n{PIPELINE}"));
    let ran: BTreeSet<String> = space.ran(&[]).into_iter().collect();
    insta::assert_snapshot!("what_runs_with_three_seeds", ran.iter().cloned().collect::<Vec<_>>().join("\n"));
    // The file asks for its seeds: that is no change of the pipeline, and its results have their plain folder.
    insta::assert_snapshot!("a_table_over_three_seeds", space.read("results/story/robustness.md"));
    let table = cells(&space, "story");
    assert_eq!(table["over"], serde_json::json!(["0", "1", "2"]));
    let cell = &table["cells"][1][0];
    assert_eq!(cell["spread"]["values"].as_array().unwrap().len(), 3);
    assert_eq!(cell["compared"]["seeds"], 3);
    assert!(space.read("results/story/curves.svg").contains("mean of 3 seeds"));
    assert!(space.read("results/story/robustness.tex").contains("Student"));
}

#[test]
fn the_command_line_and_a_profile_choose_seeds() {
    let space = space(&format!("seeds: [0, 7]\nprofiles: {{quick: {{seeds: 1}}}}\n{PIPELINE}"));
    let names = |args: &[&str]| -> BTreeSet<String> {
        let plan = space.run(&[&["plan", "p.yaml", "--json"], args].concat());
        let plan: Json = serde_json::from_str(&plan.stdout).unwrap_or_else(|_| panic!("{}", plan.seen()));
        let stages = plan["stages"].as_array().unwrap().iter();
        stages
            .map(|stage| stage["name"].as_str().unwrap().to_owned())
            .filter(|name| name.starts_with("model/pgd"))
            .collect()
    };
    let some = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(names(&[]), some(&["model/pgd/seed=0", "model/pgd/seed=7"]));
    assert_eq!(names(&["--profile", "quick"]), some(&["model/pgd"]));
    assert_eq!(names(&["--set", "seed=7"]), some(&["model/pgd"]), "one seed is one run");
    assert_eq!(names(&["--set", "seeds=2"]), some(&["model/pgd/seed=0", "model/pgd/seed=1"]));
    assert_eq!(names(&["--set", "seeds=2,7"]), some(&["model/pgd/seed=2", "model/pgd/seed=7"]));
    assert_eq!(names(&["--set", "seeds=[7]"]), some(&["model/pgd"]));
    // The trainings of a seed are those of a run with that seed alone.
    space.ran(&["--set", "seed=7"]);
    let rest: BTreeSet<String> =
        space.ran(&["--set", "seeds=0,7"]).into_iter().filter(|name| name.starts_with("model")).collect();
    assert_eq!(rest, some(&["model/pgd/seed=0", "model/standard/seed=0"]));
}

#[test]
fn seeds_that_cannot_be_are_refused() {
    let seen: Vec<String> = ["0", "three", "[1, 1]", "[1, x]", "[]", "1000"]
        .iter()
        .map(|seeds| {
            let space = space(&format!("seeds: {seeds}\n{PIPELINE}"));
            space.run(&["plan", "p.yaml"]).stderr
        })
        .collect();
    insta::assert_snapshot!("seeds_that_cannot_be", seen.join("\n"));
    let space = space(&format!("seeds: 3\n{}", PIPELINE.replace("{seed: 0}", "{sead: 0}").replace("${seed}", "1")));
    insta::assert_snapshot!("seeds_of_nothing", space.run(&["plan", "p.yaml"]).stderr);
    let refused = space.run(&["plan", "p.yaml", "--set", "seeds=none"]);
    assert!(
        refused.stderr.contains("--set seeds: `seeds` is a number of seeds, or a list of them"),
        "{}",
        refused.stderr
    );
}

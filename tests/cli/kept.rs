//! A plan that is kept runs as it was shown, or not at all.

use crate::depth;
use crate::support::{Ran, Space};

const PIPELINE: &str = r#"pipeline: story
params: {a: 4}
stages:
  one:
    kind: command
    with: {run: "cat numbers 2>/dev/null; cat ${file.numbers} > ${out.n}; echo ${a} >> ${out.n}", files: [numbers], outputs: {n: n}}
  two: {kind: command, needs: {of: one}, with: {run: "cat ${in.of} > ${out.n}", outputs: {n: n}}}
"#;

fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space.write("numbers", "1\n");
    let ran = space.run(&["plan", "p.yaml", "two", "--set", "a=5", "--save", "plan.json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    space
}

#[test]
fn it_runs_with_what_it_was_made_with_and_again_after_a_part_of_it_ran() {
    let space = space();
    let ran = space.run(&["run", "--plan", "plan.json", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.events().last().unwrap()["ran"], 2);
    assert_eq!(space.run(&["run", "--plan", "plan.json"]).code, Some(0));
    assert_eq!(space.ran(&["--set", "a=5"]), [""; 0], "the override was part of it");
}

#[test]
fn what_moved_is_named_and_nothing_runs() {
    let space = space();
    space.write("numbers", "2\n");
    space.write(
        "p.yaml",
        PIPELINE.replace("cat ${in.of} >", "tac ${in.of} >")
            + "  three: {kind: command, needs: {of: two}, with: {run: x, outputs: {n: n}}}\n",
    );
    let ran = space.run(&["run", "--plan", "plan.json"]);
    insta::assert_snapshot!(ran.seen());
    assert!(space.cached_files("actions").is_empty());
}

#[test]
fn a_plan_from_another_folder_says_where_it_runs() {
    let space = space();
    std::fs::create_dir(space.path().join("elsewhere")).unwrap();
    let mut command = space.command(&["run", "--plan", "../plan.json"]);
    let ran = Ran::of(command.current_dir(space.path().join("elsewhere")).output().unwrap());
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    let said = ["../plan.json is of the pipeline p.yaml, which is not there", "the folder where it was made"];
    assert!(said.iter().all(|words| ran.stderr.replace("\n        ", " ").contains(words)), "{}", ran.seen());
}

#[test]
fn other_files_are_no_plans() {
    let space = space();
    let seen = |args: &[&str]| space.run(args).seen();
    space.write("newer.json", "{\"format\": 99}");
    insta::assert_snapshot!(
        [
            seen(&["run", "--plan", "p.yaml"]),
            seen(&["run", "--plan", "newer.json"]),
            seen(&["run", "--plan", "none.json"]),
            seen(&["run", "--plan", "plan.json", "--set", "a=3"]),
            seen(&["run"]),
        ]
        .join("\n")
    );
}

#[test]
fn a_plan_takes_the_place_of_an_older_one_and_of_nothing_else() {
    let space = space();
    let save = |file: &str| space.run(&["plan", "p.yaml", "--save", file]);
    space.write("older.json", "{\"format\": 0, \"pipeline\": \"p.yaml\", \"stages\": {}}");
    for plan in ["plan.json", "older.json", "new.json"] {
        assert_eq!(save(plan).code, Some(0), "{}", save(plan).seen());
        assert_eq!(space.run(&["run", "--plan", plan, "--dry-run"]).code, Some(0));
    }
    space.write("data.json", "{\"format\": 1, \"outputs\": {}}");
    insta::assert_snapshot!([save("p.yaml"), save("data.json")].map(|ran| ran.seen()).join("\n"));
    assert!(space.read("p.yaml") == PIPELINE && space.read("data.json").contains("outputs"), "both are as they were");
    space.write("folder/file", "");
    assert_eq!(save("folder").code, Some(2), "a folder");
}

#[test]
fn a_plan_has_a_price() {
    let space = space();
    space.write("remote", [7; 2500]);
    let url = format!("file://{}", space.path().join("remote").display());
    let source = format!("{{url: '{url}', sha256: '{}'}}", "0".repeat(64));
    let files = format!("{{images: {source}, labels: {source}}}");
    let data =
        format!("  data: {{kind: dataset, with: {{format: idx, train: {files}, test: {files}, classes: [x]}}}}\n");
    space.write("p.yaml", PIPELINE.to_owned() + &data);
    space.ran(&["two"]);
    let plan = space.run(&["plan", "p.yaml", "--set", "a=6", "--jobs", "4", "--json"]);
    let price = serde_json::from_str::<serde_json::Value>(&plan.stdout).unwrap()["price"].clone();
    assert!(price["work"].as_f64().unwrap() > 0.0 && price["wall"].as_f64() <= price["work"].as_f64(), "{price}");
    assert_eq!(
        (&price["jobs"], &price["never_ran"], &price["fetch_files"], &price["fetch_bytes"]),
        (&4.into(), &1.into(), &1.into(), &2500.into()),
        "the same file is fetched once"
    );
    space.ran(&["one", "two"]);
    let nothing = space.run(&["plan", "p.yaml", "one", "--json"]).stdout;
    assert!(nothing.contains("\"work\":0.0"), "not a negative zero: {nothing}");
    let words = space.run(&["plan", "p.yaml", "--set", "a=6"]).stdout;
    assert!(words.contains("of work by the durations of earlier runs"), "{words}");
    assert!(words.contains("; the cost of 1 stage is unknown: it never ran like this"), "{words}");
    assert!(!words.contains("at most"), "what is unknown may be more: {words}");
    assert!(words.contains("1 file to fetch (2.5 kB)"), "{words}");
}

#[test]
fn a_run_at_another_size_tells_nothing_of_the_price_and_one_of_this_size_before_it_does() {
    let space = Space::new();
    space.write(
        "p.yaml",
        r#"pipeline: sized
params: {size: 1000, note: a}
profiles: {tiny: {size: 2}}
stages:
  make: {kind: command, with: {run: "seq ${size} > ${out.n}; echo $NOTE", env: {NOTE: "${note}"}, outputs: {n: n}}}
  sum: {kind: command, needs: {of: make}, with: {run: "wc -l < ${in.of} > ${out.n}", outputs: {n: n}}}
"#,
    );
    let plan = |args: &[&str]| {
        let ran = space.run(&[&["plan", "p.yaml", "--json"], args].concat());
        let plan: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        (plan["price"]["never_ran"].as_u64().unwrap(), plan["stages"][0]["reason"].as_str().unwrap().to_owned())
    };
    space.ran(&["--profile", "tiny"]);
    assert_eq!(plan(&[]).0, 2, "a run of the tiny profile prices nothing of the full size");
    space.ran(&[]);
    space.ran(&["--profile", "tiny", "--set", "note=b"]);
    // The run that differs least from what is wanted, and not the last one, gives the price and the reason.
    let (never_ran, reason) = plan(&["--set", "note=c"]);
    assert_eq!(never_ran, 0);
    assert!(reason.contains("NOTE") && !reason.contains("size"), "{reason}");
}

#[test]
fn what_is_no_work_costs_as_before_and_what_is_costs_in_proportion() {
    let space = depth::space();
    let pipeline = space.read("p.yaml").replace(
        "with: {net: {arch: resnet, width: 4, blocks: [1]}, epochs: 1,",
        "with: {net: {arch: resnet, width: \"${width}\", blocks: [1]}, epochs: \"${epochs}\", limit: \"${limit}\", \
         adversary: {attack: pgd, eps: \"${eps}\", step: 2/255, steps: 3},",
    );
    space.write("p.yaml", format!("params: {{eps: 8/255, epochs: 4, limit: 2, width: 4}}\n{pipeline}"));
    // Every stage of the worker takes 100 seconds and next to nothing.
    let worker = space.read("worker").replace("peak_memory=1)", "peak_memory=1, earlier_seconds=100)");
    space.write("worker", worker);
    let run = |args: &[&str]| {
        let ran = space.command(args).env("ATFLOW_WORKER", space.path().join("worker")).output().unwrap();
        let ran = Ran::of(ran);
        assert_eq!(ran.code, Some(0), "{}", ran.seen());
        ran.stdout
    };
    run(&["run", "p.yaml"]);
    let about = |seconds: f64| (seconds / 20.0).round() * 20.0;
    // Seconds of a training, of an evaluation, of all work, and stages of unknown cost.
    let price = |set: &str| {
        let plan: serde_json::Value = serde_json::from_str(&run(&["plan", "p.yaml", "--set", set, "--json"])).unwrap();
        let of = |name: &str| {
            let stage = plan["stages"].as_array().unwrap().iter().find(|stage| stage["name"] == name).unwrap();
            stage["seconds"].as_f64().map(about)
        };
        let price = &plan["price"];
        (of("model/a"), of("tested/a"), about(price["work"].as_f64().unwrap()), price["never_ran"].as_u64().unwrap())
    };
    let of = |seconds: f64| Some(seconds);
    assert_eq!(price("eps=3/255"), (of(100.0), of(100.0), 500.0, 0), "two trainings, two evaluations, one of maps");
    assert_eq!(price("epochs=12"), (of(300.0), of(100.0), 900.0, 0));
    assert_eq!(price("limit=1"), (of(60.0), of(100.0), 400.0, 0));
    assert_eq!(price("width=8"), (of(400.0), of(400.0), 2000.0, 0), "a wider network is asked more slowly, too");
    assert_eq!(price("epochs=400"), (None, of(100.0), 300.0, 2), "no run is near");
    let words = run(&["plan", "p.yaml", "--set", "epochs=12", "--jobs", "1"]);
    assert!(words.contains("[about 5 min") && words.contains("[last time 1 min 4"), "{words}");
    assert!(words.contains("at most about 15 min"), "{words}");
    let words = run(&["plan", "p.yaml", "--set", "epochs=400", "--jobs", "1"]);
    assert!(words.contains("; the cost of 2 stages is unknown: they never ran like this"), "{words}");
}

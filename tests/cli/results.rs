//! What is left of a run: its results folder that never mixes, its record, what differs from the run before, and the
//! report.

use atflow::formats::Predictions;
use base64::Engine as _;
use serde_json::Value as Json;

use crate::support::{Ran, Space, predictions};

/// `attacked` gives predictions that lie beside the pipeline, by the value of `eps`.
const PIPELINE: &str = r#"pipeline: story
params: {eps: 8/255, note: ""}
profiles: {small: {note: small}}
stages:
  attacked:
    kind: command
    matrix: {model: [standard, pgd]}
    with:
      run: "cp $HOME/${model}-`echo ${eps} | tr / _` ${out.predictions} # ${note}"
      outputs: {predictions: p}
  robustness:
    kind: table
    needs: {results: attacked}
    with: {title: Robustness, rows: attacked.model, columns: [{label: PGD, where: {stage: attacked}}]}
  other:
    kind: table
    needs: {results: attacked}
    with: {title: Again, rows: attacked.model, columns: [{label: again, where: {stage: attacked}}]}
"#;

fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    for (name, right) in [("standard-8_255", 20), ("pgd-8_255", 150), ("standard-4_255", 60), ("pgd-4_255", 170)] {
        space.write(name, predictions(right));
    }
    space
}

fn run(space: &Space, args: &[&str]) -> Ran {
    let ran = space.run(&[&["run", "p.yaml"], args].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    ran
}

fn manifest(space: &Space, folder: &str) -> Json {
    serde_json::from_str(&space.read(&format!("results/{folder}/atflow-results.json"))).unwrap()
}

fn json(ran: &Ran) -> Json {
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn a_profile_and_overrides_write_into_folders_of_their_own() {
    let space = space();
    run(&space, &[]);
    let plain = space.read("results/story/robustness.csv");
    run(&space, &["--set", "eps=4/255"]);
    run(&space, &["--profile", "small", "--set", "eps=4/255", "robustness"]);
    assert_eq!(space.read("results/story/robustness.csv"), plain, "the plain folder is left alone");
    assert!(space.read("results/story@eps=4_255/robustness.csv").contains("85"));
    assert!(!space.path().join("results/story@small,eps=4_255/other.csv").exists());
    let file = manifest(&space, "story@small,eps=4_255")["files"]["robustness.md"].clone();
    assert_eq!((&file["stage"], &file["profile"]), (&"robustness".into(), &"small".into()));
    assert_eq!(file["parameters"]["eps"], serde_json::json!({"from": "8/255", "to": "4/255"}));
    assert_eq!(file["parameters"]["note"]["to"], "small");

    // A saved plan has the profile and the overrides of its plan.
    let ran = space.run(&["plan", "p.yaml", "--set", "eps=4/255", "--save", "plan.json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    std::fs::remove_dir_all(space.path().join("results")).unwrap();
    let ran = space.run(&["run", "--plan", "plan.json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert!(ran.stderr.contains("results in results/story@eps=4_255/"), "{}", ran.stderr);
    assert!(!space.path().join("results/story").exists());
}

#[test]
fn a_file_that_is_not_as_the_pipeline_has_it_now_is_told() {
    let space = space();
    run(&space, &[]);
    space.write("p.yaml", PIPELINE.replace("eps: 8/255", "eps: 4/255"));
    let ran = run(&space, &["robustness"]);
    assert!(ran.stderr.contains("OUTDATED in results/story/: other.{md,csv,json,tex}"), "{}", ran.stderr);
    let shown = space.run(&["show", "results/story/other.md"]).stdout;
    assert!(shown.contains("OUTDATED"), "{shown}");
    let line = run(&space, &["robustness", "--json"]).events().pop().unwrap();
    assert!(line["results"]["outdated"]["other.md"].as_str().unwrap().contains("stale"), "{line}");
    let ran = run(&space, &[]);
    assert!(!ran.stderr.contains("OUTDATED"), "{}", ran.stderr);

    // A stage that is gone leaves its files, and they are told.
    let (start, _) = PIPELINE.split_once("  other:").unwrap();
    space.write("p.yaml", start.replace("eps: 8/255", "eps: 4/255"));
    let ran = run(&space, &[]);
    assert!(ran.stderr.contains("the pipeline has no stage other now"), "{}", ran.stderr);

    // A failed stage leaves the file of before.
    std::fs::remove_file(space.path().join("pgd-4_255")).unwrap();
    let ran = space.run(&["run", "p.yaml", "--force", "attacked/pgd"]);
    assert_eq!(ran.code, Some(1), "{}", ran.seen());
    assert!(ran.stderr.contains("this run did not make them anew"), "{}", ran.stderr);
}

#[test]
fn two_pipelines_may_share_a_folder() {
    let space = space();
    space.write("q.yaml", PIPELINE.replace("pipeline: story", "pipeline: second").replace("other:", "more:"));
    run(&space, &["--out", "all"]);
    let ran = space.run(&["run", "q.yaml", "--out", "all"]);
    assert_eq!((ran.code, ran.stderr.contains("OUTDATED")), (Some(0), false), "{}", ran.seen());
    let ran = run(&space, &["--out", "all"]);
    assert!(!ran.stderr.contains("OUTDATED"), "{}", ran.stderr);
    let pipeline = |file: &str| json(&space.run(&["show", file, "--json"]))["pipeline"].clone();
    assert_eq!((pipeline("all/other.md"), pipeline("all/more.md")), ("story".into(), "second".into()));
}

#[test]
fn a_file_of_the_results_is_shown_by_its_name_or_by_its_bytes() {
    let space = space();
    run(&space, &["--set", "eps=4/255"]);
    let file = "results/story@eps=4_255/robustness.tex";
    let shown = json(&space.run(&["show", file, "--json"]));
    assert_eq!((&shown["stage"], &shown["output"]), (&"robustness".into(), &"tex".into()));
    assert_eq!(shown["parameters"]["eps"]["to"], "4/255");
    assert_eq!(shown["changed_since"], false);
    // Under another name, anywhere: its bytes tell.
    space.write("paper/table1.tex", space.read(file));
    let shown = space.run(&["show", "paper/table1.tex"]).stdout;
    assert!(shown.contains("output `tex` of robustness in pipeline story, by its bytes"), "{shown}");
    space.write(file, "edited");
    let shown = space.run(&["show", file]).stdout;
    assert!(shown.contains("CHANGED") && shown.contains("eps 8/255 → 4/255"), "{shown}");
    space.write("unknown.tex", "made by hand");
    let ran = space.run(&["show", "unknown.tex"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("unknown.tex is no result that "), "{}", ran.stderr);
}

#[test]
fn a_program_finds_the_files_of_every_output() {
    let space = space();
    run(&space, &["--set", "eps=4/255"]);
    let outputs = |stage: &str| json(&space.run(&["show", stage, "--json"]))["outputs"].clone();
    let table = outputs("robustness");
    let result = std::path::PathBuf::from(table["csv"]["result"].as_str().unwrap());
    let root = space.path().canonicalize().unwrap();
    assert_eq!(result.canonicalize().unwrap(), root.join("results/story@eps=4_255/robustness.csv"));
    let blob = |output: &Json| std::fs::read(output["path"].as_str().unwrap()).unwrap();
    assert_eq!(blob(&table["csv"]), std::fs::read(result).unwrap());
    let attacked = outputs("attacked/pgd");
    assert_eq!((blob(&attacked["predictions"]), &attacked["predictions"]["result"]), (predictions(170), &Json::Null));

    // A file that is gone has no path.
    std::fs::remove_file(attacked["predictions"]["path"].as_str().unwrap()).unwrap();
    std::fs::remove_file(root.join("results/story@eps=4_255/robustness.csv")).unwrap();
    assert_eq!(outputs("attacked/pgd")["predictions"]["path"], Json::Null);
    assert_eq!(outputs("robustness")["csv"]["result"], Json::Null);

    // In the folder that a run was given, wherever it is asked for, and the report as well.
    run(&space, &["--set", "eps=4/255", "--out", "paper"]);
    let result = outputs("robustness")["csv"]["result"].as_str().unwrap().to_owned();
    assert_eq!(std::path::Path::new(&result).canonicalize().unwrap(), root.join("paper/robustness.csv"));
    let report = space.run(&["report"]);
    assert_eq!(report.code, Some(0), "{}", report.seen());
    assert!(root.join("paper/report.html").exists(), "{}", report.seen());
}

#[test]
fn runs_tell_what_changed_and_a_run_tells_which_numbers_moved() {
    let space = space();
    assert_eq!(space.run(&["runs"]).code, Some(2), "there is none yet");
    let first = run(&space, &[]);
    assert!(!first.stderr.contains("moved"), "{}", first.stderr);
    let second = run(&space, &["--set", "eps=4/255"]);
    let moved: String =
        second.stderr.lines().skip_while(|line| !line.starts_with("moved")).collect::<Vec<_>>().join("\n");
    assert!(moved.starts_with("moved since run ") && moved.contains("(eps 8/255 → 4/255):"), "{}", second.stderr);
    assert!(moved.contains("robustness standard / PGD: 30.0, was 10.0, +20.0 ["), "{moved}");
    assert!(moved.contains("p < 0.001"), "{moved}");

    let runs = json(&space.run(&["runs", "--json"]));
    let runs = runs["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[0]["changed"]["eps"], serde_json::json!({"from": "8/255", "to": "4/255"}));
    assert_eq!((&runs[0]["outcome"], runs[0]["ran"].as_object().unwrap().len()), (&"done".into(), 4));
    assert_eq!(runs[1]["before"], Json::Null);
    let list = space.run(&["runs"]).stdout;
    assert!(list.lines().nth(1).unwrap().ends_with("eps 8/255 → 4/255"), "{list}");
    assert!(list.lines().nth(2).unwrap().ends_with("first run that is known"), "{list}");

    // A run that says the same as the last one is not listed again; the earlier state is, though nothing ran.
    run(&space, &["--set", "eps=4/255"]);
    run(&space, &[]);
    let runs = json(&space.run(&["runs", "--json"]));
    assert_eq!(runs["runs"].as_array().unwrap().len(), 3);
    assert_eq!(runs["runs"][0]["cached"], 4);

    // A stage that is added, and one that is gone.
    let whole = std::fs::read_to_string(space.path().join("p.yaml")).unwrap();
    let more = "  more:\n    kind: command\n    matrix: {n: [1, 2]}\n    with: {run: 'echo ${n} > ${out.o}', outputs: {o: o}}\n";
    space.write("p.yaml", whole.clone() + more);
    run(&space, &[]);
    let newest = || space.run(&["runs"]).stdout.lines().nth(1).unwrap().to_owned();
    assert!(newest().ends_with("new more ×2"), "{}", newest());
    space.write("p.yaml", whole);
    run(&space, &["--force", "attacked/pgd"]);
    assert!(newest().ends_with("gone more ×2"), "{}", newest());

    // One run by its name.
    let name = runs["runs"][1]["run"].as_str().unwrap().to_owned();
    let one = space.run(&["runs", &name]).stdout;
    assert!(one.contains("eps 8/255 → 4/255") && one.contains("| standard | 30.0"), "{one}");
    let ran = space.run(&["runs", "0000000"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("no run is called `0000000`"), "{}", ran.stderr);

    // A failed run is one, too.
    std::fs::remove_file(space.path().join("pgd-8_255")).unwrap();
    assert_eq!(space.run(&["run", "p.yaml", "--force", "attacked/pgd"]).code, Some(1));
    let runs = json(&space.run(&["runs", "--json"]));
    assert_eq!(runs["runs"][0]["outcome"], "failed");
    assert_eq!(runs["runs"][0]["failed"], serde_json::json!(["attacked/pgd"]));
    assert_eq!(runs["runs"][0]["skipped"], serde_json::json!(["robustness", "other"]));
}

#[test]
fn two_runs_are_compared_cell_by_cell_on_the_same_images() {
    let space = space();
    run(&space, &[]);
    let ran = space.run(&["diff"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("no earlier run of pipeline story has other results"), "{}", ran.stderr);
    run(&space, &["--set", "eps=4/255"]);
    let text = space.run(&["diff"]).stdout;
    let names = regex_free(&text);
    insta::assert_snapshot!(names);
    // The other way round, by names and by folders.
    let back = json(&space.run(&["diff", "last", "last-1", "--format", "json"]));
    let cell = &back["tables"][0]["cells"][0];
    assert_eq!(cell["row"], "standard");
    assert!((cell["difference"].as_f64().unwrap() + 0.2).abs() < 1e-12, "{cell}");
    let paired = &cell["paired"]["compared"];
    assert_eq!((&paired["only_this"], &paired["only_other"], &paired["n"]), (&0.into(), &40.into(), &200.into()));
    let folders = json(&space.run(&["diff", "results/story", "results/story@eps=4_255", "--format", "json"]));
    assert_eq!(folders["parameters"]["eps"]["to"], "4/255");
    assert_eq!(folders["tables"].as_array().unwrap().len(), 2);
    let ran = space.run(&["diff", "published", "last"]);
    assert_eq!(ran.code, Some(2));
    std::fs::create_dir(space.path().join("empty")).unwrap();
    let ran = space.run(&["diff", "empty", "last"]);
    assert!(ran.stderr.contains("empty is no results folder"), "{}", ran.stderr);
    let page = space.run(&["diff", "--format", "html", "--out", "diff.html"]);
    assert_eq!(page.code, Some(0), "{}", page.seen());
    let page = space.read("diff.html");
    assert!(page.starts_with("<!doctype html>") && page.contains("default-src 'none'"), "{page}");
    assert!(page.contains("<td>8/255</td><td>4/255</td>"), "{page}");

    // Other images cannot be paired, and the reason is told.
    space.write("standard-4_255", {
        let other = Predictions {
            labels: vec![0; 100],
            predicted: vec![0; 100],
            probability: vec![0.5; 100],
            loss: vec![1.0; 100],
            ..Predictions::default()
        };
        other.to_bytes().unwrap()
    });
    run(&space, &["--set", "eps=4/255", "--force", "attacked/standard"]);
    let text = space.run(&["diff", "last-1", "last"]).stdout;
    assert!(text.contains("1 cell without a test: the predictions are of 100 images"), "{text}");
}

/// The text with the names of runs replaced, which differ each time.
fn regex_free(text: &str) -> String {
    let is_name = |word: &str| word.len() == 8 && word.chars().all(|c| c.is_ascii_hexdigit());
    let line =
        |line: &str| line.split(' ').map(|word| if is_name(word) { "RUN" } else { word }).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_report_is_one_file_that_says_the_same_for_the_same_results() {
    let space = space();
    run(&space, &[]);
    run(&space, &["--set", "eps=4/255"]);
    let ran = space.run(&["report", "p.yaml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "results/story@eps=4_255/report.html\n"), "{}", ran.seen());
    let page = space.read("results/story@eps=4_255/report.html");
    // Without scripts: the tables, the change, the interval and the difference to the run before.
    for part in [
        ">30.0</span>",
        "[24.1, 36.7]",
        "<td>8/255</td><td>4/255</td>",
        "+20.0 [",
        "attacked/standard",
        "critical path",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    // Nothing is fetched: no address in an attribute, and the policy allows none.
    for attribute in ["src=\"http", "href=\"http", "url(http", "@import"] {
        assert!(!page.contains(attribute), "{attribute}");
    }
    assert!(page.contains("default-src 'none'"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(space.run(&["report", "--out", "again.html"]).code, Some(0));
    assert_eq!(space.read("again.html"), page, "the clock is no part of it");

    // A failed run has one, too.
    std::fs::remove_file(space.path().join("pgd-8_255")).unwrap();
    assert_eq!(space.run(&["run", "p.yaml", "--force", "attacked/pgd"]).code, Some(1));
    assert_eq!(space.run(&["report", "--out", "failed.html"]).code, Some(0));
    let failed = space.read("failed.html");
    assert!(failed.contains("attacked/pgd failed:") && failed.contains("Not made: robustness, other"), "{failed}");
    let ran = space.run(&["report", "--run", "last-9"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("there is no run `last-9`"), "{}", ran.stderr);
}

#[test]
fn a_run_that_changed_anything_leaves_its_report_beside_its_results() {
    let space = space();
    let ran = run(&space, &[]);
    assert!(ran.stderr.contains("report in results/story/report.html\n"), "{}", ran.stderr);
    let page = space.read("results/story/report.html");
    assert!(page.contains("Robustness"));
    assert_eq!(space.run(&["report", "--out", "asked.html"]).code, Some(0));
    assert_eq!(space.read("asked.html"), page, "it is the one that is written on request");

    std::fs::remove_file(space.path().join("results/story/report.html")).unwrap();
    let ran = run(&space, &[]);
    assert!(!ran.stderr.contains("report in") && !space.path().join("results/story/report.html").exists());
    run(&space, &["--set", "eps=4/255", "--no-report"]);
    assert!(!space.path().join("results/story@eps=4_255/report.html").exists());
    let line = run(&space, &["--force", "attacked", "--out", "here", "--json"]).events().pop().unwrap();
    assert_eq!(line["results"]["report"], "here/report.html");
}

#[test]
fn the_report_of_a_failed_run_draws_what_failed_and_what_was_not_made() {
    let space = space();
    std::fs::remove_file(space.path().join("pgd-8_255")).unwrap();
    assert_eq!(space.run(&["run", "p.yaml", "--keep-going"]).code, Some(1));
    let page = space.read("results/story/report.html");
    let (_, graph) = page.split_once("data:image/svg+xml;base64,").unwrap();
    let graph = base64::engine::general_purpose::STANDARD.decode(graph.split('"').next().unwrap()).unwrap();
    let graph = String::from_utf8(graph).unwrap();
    assert!(graph.contains("1 failed") && graph.contains("1 not made"), "{graph}");
    assert!(graph.contains("robustness") && graph.contains("attacked ×2"), "{graph}");
}

//! Outputs of commands that lie among the results, under names that their author chose.

use crate::support::{Ran, Space};

const PIPELINE: &str = r#"pipeline: story
params: {radii: [2/255, 8/255]}
stages:
  mine:
    kind: command
    matrix: {eps: "${radii}"}
    with:
      run: "printf 'eps,x\n${eps},1\n' > ${out.csv}; echo '<svg xmlns=\"http://www.w3.org/2000/svg\"/>' > ${out.plot}; echo raw > ${out.raw}"
      outputs: {csv: {path: out.csv, show: "mine-${eps}.csv"}, plot: {path: plot.svg, show: "plot ${eps}.svg"}, raw: raw}
"#;

fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space
}

fn run(space: &Space, args: &[&str]) -> Ran {
    let ran = space.run(&[&["run", "p.yaml"], args].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    ran
}

fn manifest(space: &Space) -> serde_json::Value {
    serde_json::from_str(&space.read("results/story/atflow-results.json")).unwrap()
}

#[test]
fn an_output_lies_among_the_results_and_its_name_changes_no_key() {
    let space = space();
    let plain = PIPELINE
        .replace(r#"{path: out.csv, show: "mine-${eps}.csv"}"#, "out.csv")
        .replace(r#"{path: plot.svg, show: "plot ${eps}.svg"}"#, "plot.svg");
    assert!(!plain.contains("show"));
    space.write("p.yaml", &plain);
    assert_eq!(space.ran(&[]), ["mine/2_255", "mine/8_255"]);
    let files: Vec<_> =
        std::fs::read_dir(space.path().join("results/story")).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(files, ["report.html"], "what is not shown stays in the cache");

    space.write("p.yaml", PIPELINE);
    assert_eq!(space.ran(&[]), [""; 0], "a name for people runs nothing");
    assert_eq!(space.read("results/story/mine-8_255.csv"), "eps,x\n8/255,1\n");
    let file = manifest(&space)["files"]["plot 2_255.svg"].clone();
    assert_eq!((&file["stage"], &file["output"]), (&"mine/2_255".into(), &"plot".into()));
    let shown = space.run(&["show", "results/story/mine-8_255.csv"]).stdout;
    assert!(shown.contains("output `csv` of mine/8_255 in pipeline story"), "{shown}");

    // Another name: the file of before is outdated.
    space.write("p.yaml", PIPELINE.replace("mine-", "yours-"));
    let ran = run(&space, &[]);
    let words = "OUTDATED in results/story/: mine-2_255.csv (mine/2_255 does not make this file now)";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    assert!(ran.stderr.contains("results in results/story/: yours-*.csv"), "{}", ran.stderr);

    assert_eq!(space.run(&["report", "--out", "report.html"]).code, Some(0));
    assert!(space.read("report.html").contains("<h3>yours-2_255.csv</h3>"), "the run is recorded, though nothing ran");

    // A blob that is gone is made again, as that of a table is.
    for file in space.cached_files("objects") {
        if std::fs::read(&file).unwrap() == b"eps,x\n2/255,1\n" {
            std::fs::remove_file(file).unwrap();
        }
    }
    assert_eq!(space.ran(&[]), ["mine/2_255"]);
}

#[test]
fn the_report_shows_what_commands_laid_among_the_results() {
    let space = space();
    run(&space, &[]);
    assert_eq!(space.run(&["report", "--out", "report.html"]).code, Some(0));
    let page = space.read("report.html");
    for part in
        ["<h3>mine-8_255.csv</h3>", "8/255,1\n", "Output csv of stage mine/8_255, 14 bytes", "<h3>plot 2_255.svg</h3>"]
    {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    assert!(page.contains(r#"alt="Picture plot 2_255.svg" src="data:image/svg+xml;base64,"#), "{page}");
    assert_eq!(space.run(&["report", "--out", "plain.html", "--no-images"]).code, Some(0));
    assert!(!space.read("plain.html").contains("Picture plot"));
}

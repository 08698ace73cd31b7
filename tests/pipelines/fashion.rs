//! A story of `fashion.yaml` at the size of its `smoke` profile, and what its other profiles plan.

use crate::support::{atflow, pipeline, run_file};

#[test]
fn fashion_in_small_makes_every_table_and_picture_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline("fashion.yaml");
    let run = || run_file(folder.path(), &file, &["--profile", "smoke"], |_| {});
    let all = run();
    assert_eq!(all.code, Some(0), "{}", all.stderr);
    assert_eq!(all.stages.keys().filter(|name| name.starts_with("model/")).count(), 11);
    let results = folder.path().join("results/fashion@smoke");
    for table in ["robustness", "saturation", "shuffle", "frequencies", "against-standard"] {
        let text = std::fs::read_to_string(results.join(format!("{table}.md"))).unwrap();
        let first = text.lines().next().unwrap_or_default();
        assert!(first.contains("the numbers mean nothing") && text.contains("| pgd-l2-4 "), "{text}");
    }
    for picture in ["saturation-curves", "shuffle-curves", "samples", "smoothgrad", "grad", "under-transformation"] {
        assert!(results.join(format!("{picture}.png")).exists(), "{picture}");
    }
    let again = run();
    assert_eq!((again.code, again.ran()), (Some(0), vec![]), "nothing changed");

    // At full size the files are the published ones, to be fetched: four of them, and all is planned.
    for profile in [&[][..], &["--profile", "cpu"]] {
        let plan = [&["plan", file.to_str().unwrap(), "--json"], profile].concat();
        let output = atflow().current_dir(folder.path()).args(plan).output().unwrap();
        let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(plan["stages"].as_array().unwrap().len(), all.stages.len(), "{profile:?}");
        assert_eq!(plan["price"]["fetch_files"], 4, "{profile:?}");
    }
}

//! A story of `corruptions.yaml` at the size of its `smoke` profile.

use crate::support::{pipeline, run_file};

#[test]
fn corruptions_in_small_test_every_network_and_draw_its_heat_map() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline("corruptions.yaml");
    let run = || run_file(folder.path(), &file, &["--profile", "smoke"], |_| {});
    let all = run();
    assert_eq!(all.code, Some(0), "{}", all.stderr);
    let results = folder.path().join("results/corruptions@smoke");
    let read = |name: &str| std::fs::read_to_string(results.join(name)).unwrap();
    let table = read("corruptions.md");
    let head = table.lines().find(|line| line.starts_with("| variant ")).unwrap();
    assert_eq!(head.matches('|').count(), 17, "the variant, clean images and 14 corruptions: {head}");
    // 394 frequencies of 28 × 28 pixels, four networks.
    assert_eq!(read("frequencies.csv").lines().count(), 1 + 4 * 394);
    assert!(read("frequencies.md").contains("mock-up"));
    for ending in ["svg", "png", "pdf"] {
        assert!(results.join(format!("frequencies.{ending}")).exists(), "{ending}");
    }
    // The report shows the map, with its summary.
    let report = read("report.html");
    let title = "Errors by frequency of the added wave (frequency 0 in the middle) (mock-up: the numbers mean nothing)";
    assert!(report.contains(&format!("<img alt=\"{title}; its numbers follow\" src=\"data:image/svg+xml")), "the map");
    assert!(report.contains("<summary>Numbers of frequencies</summary>"), "its summary");
    assert_eq!((run().code, run().ran()), (Some(0), vec![]), "nothing changed");
}

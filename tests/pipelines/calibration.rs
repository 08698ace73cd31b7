//! A story of `calibration.yaml` at the size of its `tiny` profile, and what it plans without the files.

use crate::support::{atflow, pipeline, run_file};

/// RobustBench's identifiers of the networks in the `tiny` profile.
const NETWORKS: [&str; 4] =
    ["Wong2020Fast", "Engstrom2019Robustness", "Carmon2019Unlabeled", "Wang2023Better_WRN-28-10"];

#[test]
fn published_weights_stand_beside_their_published_accuracy() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline("calibration.yaml");
    let run = || run_file(folder.path(), &file, &["--profile", "tiny"], |_| {});
    let all = run();
    assert_eq!(all.code, Some(0), "{}", all.stderr);
    let results = folder.path().join("results/calibration@tiny");
    let table = std::fs::read_to_string(results.join("calibration.md")).unwrap();
    // A mock-up has the published numbers below its own, and no verdict on them.
    let mut lines = table.lines();
    for (network, published) in NETWORKS.into_iter().zip(["43.21", "49.25", "59.53", "67.31"]) {
        assert!(lines.any(|line| line.starts_with(&format!("| {network} "))), "{table}");
        let below = lines.next().unwrap_or_default();
        assert!(below.starts_with("| ↳ published ") && below.contains(published), "{table}");
    }
    assert_eq!((run().code, run().ran()), (Some(0), vec![]), "nothing changed");

    // Without the profile the weights are missing, and what to do is said for each of the six.
    let plan = ["plan", file.to_str().unwrap(), "--all"];
    let output = atflow().current_dir(folder.path()).args(plan).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    for network in NETWORKS.into_iter().chain(["Standard", "Rice2020Overfitting"]) {
        assert!(said.contains(&format!("network/{network}")) || said.contains(&format!("{network}.pt")), "{said}");
    }
}

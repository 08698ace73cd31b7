//! A story of `search.yaml` at the size of the quickstart's `smoke` profile.

use crate::support::{pipeline, run_file};

#[test]
fn attacks_that_search_in_16_bits_stand_beside_those_in_32() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline("search.yaml");
    let run = || run_file(folder.path(), &file, &["agreement", "--profile", "smoke"], |_| {});
    let all = run();
    assert_eq!(all.code, Some(0), "{}", all.stderr);
    let csv = std::fs::read_to_string(folder.path().join("results/search@smoke/agreement.csv")).unwrap();
    for network in ["standard", "underfit", "fgsm", "pgd"] {
        for attack in ["PGD-20", "APGD-20"] {
            let value = |bits: &str| -> f64 {
                let cell = format!("{network},\"{attack}, {bits} bits\",");
                let line = csv.lines().find(|line| line.starts_with(&cell)).unwrap_or_else(|| panic!("{cell}: {csv}"));
                line[cell.len()..].split(',').nth(1).unwrap().parse().unwrap()
            };
            // 64 to 128 images of a network that has hardly learned: some lie at the edge.
            assert!((value("32") - value("16")).abs() < 0.1, "{network} {attack}: {csv}");
        }
    }
    assert_eq!((run().code, run().ran()), (Some(0), vec![]), "nothing changed");
}

//! A story of `radii.yaml` at the size of its `smoke` profile.

use crate::support::{pipeline, run_file};

#[test]
fn accuracy_never_rises_with_the_radius() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline("radii.yaml");
    let run = || run_file(folder.path(), &file, &["--profile", "smoke"], |_| {});
    let all = run();
    assert_eq!(all.code, Some(0), "{}", all.stderr);
    let results = folder.path().join("results/radii@smoke");
    for (figure, radii) in [("within-inf-curves", 8), ("within-l2-curves", 5)] {
        let csv = std::fs::read_to_string(results.join(format!("{figure}.csv"))).unwrap();
        for network in ["standard", "underfit", "fgsm", "pgd"] {
            let of = csv.lines().filter(|line| line.starts_with(&format!("{network},")));
            let values: Vec<f64> = of.map(|line| line.split(',').nth(4).unwrap().parse().unwrap()).collect();
            assert_eq!(values.len(), radii, "{csv}");
            assert!(values.windows(2).all(|pair| pair[0] >= pair[1]), "{network} in {figure}: {values:?}");
        }
        assert!(results.join(format!("{figure}.pdf")).exists(), "{figure}");
    }
    // What withstands both balls withstands each.
    let csv = std::fs::read_to_string(results.join("norms.csv")).unwrap();
    let value = |network: &str, column: &str| -> f64 {
        let line = csv.lines().find(|line| line.starts_with(&format!("{network},{column},"))).unwrap();
        line.split(',').nth(3).unwrap().parse().unwrap()
    };
    for network in ["standard", "underfit", "fgsm", "pgd"] {
        let [one, other, both] = ["L-infinity 8/255", "L2 1", "either"].map(|column| value(network, column));
        assert!(both <= one.min(other), "{csv}");
    }
    assert!(std::fs::read_to_string(results.join("smallest-radii.md")).unwrap().contains("median"));
    assert_eq!((run().code, run().ran()), (Some(0), vec![]), "nothing changed");
}

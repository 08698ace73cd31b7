//! A story of `saliency.yaml` at the size of its `smoke` profile.

use crate::support::{pipeline, run_file};

#[test]
fn saliency_in_small_measures_every_network_by_every_method() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline("saliency.yaml");
    let run = || run_file(folder.path(), &file, &["--profile", "smoke"], |_| {});
    let all = run();
    assert_eq!(all.code, Some(0), "{}", all.stderr);
    let results = folder.path().join("results/saliency@smoke");
    for method in ["grad", "smoothgrad", "integrated"] {
        let csv = std::fs::read_to_string(results.join(format!("maps-{method}.csv"))).unwrap();
        let of = |measure: &str| csv.lines().filter(|line| line.starts_with(&format!("{measure},"))).count();
        assert_eq!([of("gini"), of("label_kept")], [5, 5], "{csv}");
        assert!(results.join(format!("maps-{method}.png")).exists(), "{method}");
    }
    // A network and five versions of it: fifteen pairs.
    for network in ["standard", "pgd"] {
        let csv = std::fs::read_to_string(results.join(format!("sanity-{network}-grad.csv"))).unwrap();
        assert_eq!(csv.lines().filter(|line| line.starts_with("ssim,")).count(), 15, "{csv}");
        let markdown = std::fs::read_to_string(results.join(format!("sanity-{network}-grad.md"))).unwrap();
        assert!(markdown.contains(&format!("Similarity to the maps of model-{network}:")), "{markdown}");
    }
    assert_eq!((run().code, run().ran()), (Some(0), vec![]), "nothing changed");
}

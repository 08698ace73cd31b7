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
    // One table has every network by every method, with intervals over images.
    let table = std::fs::read_to_string(results.join("measures.json")).unwrap();
    let table: serde_json::Value = serde_json::from_str(&table).unwrap();
    let csv = std::fs::read_to_string(results.join("maps-smoothgrad.csv")).unwrap();
    let line = csv.lines().find(|line| line.starts_with("gini,") && line.contains(",model-pgd,")).unwrap();
    let mean: f64 = line.split(',').nth(4).unwrap().parse().unwrap();
    let row = table["rows"].as_array().unwrap().iter().position(|row| row == "model-pgd").unwrap();
    let cell = &table["cells"][row][1];
    assert!((cell["value"].as_f64().unwrap() - mean).abs() < 1e-6 && cell["n"] == 4, "{cell} {line}");
    assert!(cell["low"].as_f64().unwrap() < mean && mean < cell["high"].as_f64().unwrap(), "{cell}");
    assert!(table["cells"].as_array().unwrap().iter().all(|row| row.as_array().unwrap().len() == 10), "{table}");
    // A curve for each of the two networks, with a point for each of the five layers.
    let curves = std::fs::read_to_string(results.join("sanity-curves-grad.csv")).unwrap();
    assert_eq!(curves.lines().count(), 1 + 2 * 5, "{curves}");
    let similarity = std::fs::read_to_string(results.join("sanity-pgd-grad.csv")).unwrap();
    let is_last = |line: &&str| line.starts_with("rank_correlation,") && line.contains(",model-pgd,randomised-pgd-5,");
    let mean: f64 = similarity.lines().find(is_last).unwrap().split(',').nth(4).unwrap().parse().unwrap();
    let drawn = curves.lines().find(|line| line.contains("pgd") && line.contains("conv1")).unwrap();
    assert!(drawn.contains(&format!("{mean:.4}")), "{mean} in {drawn}");
    // A network and five versions of it: fifteen pairs.
    for network in ["standard", "pgd"] {
        let csv = std::fs::read_to_string(results.join(format!("sanity-{network}-grad.csv"))).unwrap();
        assert_eq!(csv.lines().filter(|line| line.starts_with("ssim,")).count(), 15, "{csv}");
        let markdown = std::fs::read_to_string(results.join(format!("sanity-{network}-grad.md"))).unwrap();
        assert!(markdown.contains(&format!("Similarity to the maps of model-{network}:")), "{markdown}");
    }
    assert_eq!((run().code, run().ran()), (Some(0), vec![]), "nothing changed");
}

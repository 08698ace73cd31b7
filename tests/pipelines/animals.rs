//! A story of `animals.yaml` at the size of its `smoke` profile.

use crate::support::{pipeline, run_file};

#[test]
fn animals_in_small_asks_both_kinds_of_images_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline("animals.yaml");
    let run = || run_file(folder.path(), &file, &["--profile", "smoke"], |_| {});
    let all = run();
    assert_eq!(all.code, Some(0), "{}", all.stderr);
    // Two data sets, three variants, two seeds.
    assert_eq!(all.stages.keys().filter(|name| name.contains("-model/")).count(), 12);
    let results = folder.path().join("results/animals@smoke");
    for table in ["robustness", "cues"] {
        let [clothes, animals] = ["clothes", "animals"].map(|images| {
            let text = std::fs::read_to_string(results.join(format!("{images}-{table}.md"))).unwrap();
            text.lines().filter(|line| line.starts_with("| ")).map(|line| line.matches('|').count()).collect::<Vec<_>>()
        });
        assert_eq!(clothes, animals, "the same rows and columns");
        // A heading and three rows; the line between them begins otherwise.
        assert!(clothes.len() >= 4, "{clothes:?}");
    }
    for picture in ["samples", "clothes-maps", "animals-maps"] {
        assert!(results.join(format!("{picture}.png")).exists(), "{picture}");
    }
    assert_eq!((run().code, run().ran()), (Some(0), vec![]), "nothing changed");
}

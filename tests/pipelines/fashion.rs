//! A story of `fashion.yaml` at the size of its `smoke` profile, and what its other profiles plan.

use crate::support::{atflow, pipeline, run_file};

/// Instances with three seeds: 11 networks, each tested on 15 sets, as drawn, under two attacks, and for masked
/// gradients; the data, what is watched of it, and 15 other sets; five tables, three pictures, and three pictures of
/// each seed.
const THREE_SEEDS: usize = 3 * 11 * (1 + 15 + 4) + 2 + 15 + 5 + 3 + 3 * 3;

#[test]
fn fashion_in_small_makes_every_table_and_picture_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline("fashion.yaml");
    let run = || run_file(folder.path(), &file, &["--profile", "smoke"], |_| {});
    let all = run();
    assert_eq!(all.code, Some(0), "{}", all.stderr);
    let of = |stage: &str| all.stages.keys().filter(|name| name.starts_with(stage)).count();
    assert_eq!(
        (of("model/"), of("drawn-tested/"), of("attacked/"), of("autoattacked/")),
        (22, 22, 22, 22),
        "two seeds"
    );
    let results = folder.path().join("results/fashion@smoke");
    for table in ["robustness", "saturation", "shuffle", "frequencies", "against-standard"] {
        let text = std::fs::read_to_string(results.join(format!("{table}.md"))).unwrap();
        let first = text.lines().next().unwrap_or_default();
        assert!(first.contains("the numbers mean nothing") && text.contains("| pgd-l2-4 "), "{text}");
        assert!(text.contains("interval of the mean by Student's t"), "{text}");
    }
    // What is compared in a row of the first table was measured on the same images, with the test over seeds.
    let robustness = std::fs::read_to_string(results.join("robustness.json")).unwrap();
    let robustness: serde_json::Value = serde_json::from_str(&robustness).unwrap();
    assert_eq!(robustness["over"], serde_json::json!(["0", "1"]));
    for row in robustness["cells"].as_array().unwrap() {
        let counted: Vec<_> = row.as_array().unwrap().iter().map(|cell| cell["n"].as_u64()).collect();
        assert_eq!(counted, [Some(8); 3], "{row}");
    }
    assert_eq!(robustness["cells"][2][0]["compared"]["seeds"], 2, "{robustness}");
    for picture in ["saturation-curves", "shuffle-curves", "samples"] {
        assert!(results.join(format!("{picture}.png")).exists(), "{picture}");
    }
    for picture in ["smoothgrad", "grad", "under-transformation"] {
        let of_seeds = results.read_dir().unwrap().filter(|entry| {
            let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
            name.starts_with(picture) && name.ends_with(".png")
        });
        assert_eq!(of_seeds.count(), 2, "{picture}");
    }
    let again = run();
    assert_eq!((again.code, again.ran()), (Some(0), vec![]), "nothing changed");

    // At full size the files are the published ones, to be fetched: four of them, and all is planned.
    for profile in [&[][..], &["--profile", "cpu"]] {
        let plan = [&["plan", file.to_str().unwrap(), "--json"], profile].concat();
        let output = atflow().current_dir(folder.path()).args(plan).output().unwrap();
        let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(plan["stages"].as_array().unwrap().len(), THREE_SEEDS, "{profile:?}");
        assert_eq!(plan["price"]["fetch_files"], 4, "{profile:?}");
    }
}

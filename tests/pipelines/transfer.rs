//! A story of `transfer.yaml` at the size of its `smoke` profile: attacks that are made on one network and judged by
//! another.

use serde_json::Value;

use crate::support::{pipeline, run_file};

const NETWORKS: [&str; 4] = ["standard", "underfit", "fgsm", "pgd"];

#[test]
fn transfer_crosses_every_source_with_every_network() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline("transfer.yaml");
    let run = |targets: &[&str]| run_file(folder.path(), &file, &[targets, &["--profile", "smoke"]].concat(), |_| {});
    let all = run(&["transfer", "attacked", "robustness"]);
    assert_eq!(all.code, Some(0), "{}", all.stderr);
    for (source, model) in NETWORKS.iter().flat_map(|source| NETWORKS.iter().map(move |model| (source, model))) {
        assert!(all.stages.contains_key(&format!("transferred/{source}/{model}")), "{source} {model}");
    }
    let results = folder.path().join("results/transfer@smoke");
    let read = |name: &str| std::fs::read_to_string(results.join(name)).unwrap();
    let markdown = read("transfer.md");
    assert!(markdown.contains("| source |") && markdown.contains("| standard | underfit | fgsm | pgd |"), "{markdown}");
    // On the diagonal it is the attack that knows the network: the column of the quickstart's table.
    let [transfer, robustness] =
        ["transfer.json", "robustness.json"].map(|name| serde_json::from_str::<Value>(&read(name)).unwrap());
    let cell = |table: &Value, row: &str, column: &str| {
        let cells = table["cells"].as_array().unwrap();
        let found = cells.iter().find(|cell| cell["row"] == row && cell["column"] == column);
        found.unwrap_or_else(|| panic!("{row} {column}: {table}"))["value"].as_f64().unwrap()
    };
    for name in NETWORKS {
        assert_eq!(cell(&transfer, name, name), cell(&robustness, name, "PGD-20"), "{name}");
    }
    assert_eq!((run(&["transfer"]).code, run(&["transfer"]).ran()), (Some(0), vec![]), "nothing changed");
}

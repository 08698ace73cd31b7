//! A story of `transfer.yaml` at the size of its `smoke` profile: attacks that are made on one network and judged by
//! another.

use serde_json::{Value, json};

use crate::support::{atflow, pipeline, run_file};

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
    let table = |name: &str| serde_json::from_str::<Value>(&read(name)).unwrap();
    let (transfer, robustness) = (table("transfer.json"), table("robustness.json"));
    assert_eq!((&transfer["corner"], &transfer["rows"]), (&json!("source"), &json!(NETWORKS)));
    // On the diagonal it is the attack that knows the network: a column of the quickstart's table.
    let cells = |table: &Value, row: usize, column: usize| table["cells"][row][column]["value"].as_f64().unwrap();
    for (at, network) in NETWORKS.iter().enumerate() {
        assert_eq!(cells(&transfer, at, at), cells(&robustness, at, 1), "{network}");
    }
    // Tables for other programs and the card of an exported network tell such numbers from those of white-box attacks.
    let tell = |args: &[&str]| {
        let told = atflow().current_dir(folder.path()).args(args).args(["--profile", "smoke"]).output().unwrap();
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    };
    let path = file.to_str().unwrap();
    tell(&["data", path, "transferred", "--format", "csv"]);
    let metrics = read("data/metrics.csv");
    let mut crossed = metrics.lines().filter(|line| line.contains(",transferred/fgsm/pgd,"));
    assert!(crossed.next().is_some_and(|line| line.contains(",pgd,model/fgsm,")), "{metrics}");
    tell(&["export", path, "model/pgd", "-o", "network"]);
    let card = std::fs::read_to_string(folder.path().join("network/README.md")).unwrap();
    assert!(card.contains("| pgd, made on model/fgsm |") && card.contains("| pgd |"), "{card}");
    assert_eq!((run(&["transfer"]).code, run(&["transfer"]).ran()), (Some(0), vec![]), "nothing changed");
}

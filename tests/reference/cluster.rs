//! `cluster.yaml`: the schema for editors, the parser and the page of the documentation agree.

use std::path::Path;

use atflow::cluster::classes::ClusterFile;
use atflow::cluster::cluster_schema;

use crate::as_json;

fn parses(text: &str) -> bool {
    ClusterFile::from_text(Path::new("cluster.yaml"), text).is_ok()
}

fn document() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cluster.md")).unwrap()
}

#[test]
fn editors_find_a_current_schema_of_clusters() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/cluster.schema.json");
    let expected = serde_json::to_string_pretty(&cluster_schema()).unwrap() + "\n";
    if std::env::var_os("ATFLOW_BLESS").is_some() {
        std::fs::write(&path, expected).unwrap();
    } else {
        let found = std::fs::read_to_string(&path).unwrap();
        assert!(found == expected, "pipelines/cluster.schema.json is out of date: ATFLOW_BLESS=1 writes it anew");
    }
}

#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    let schema = jsonschema::validator_for(&cluster_schema()).unwrap();
    let slurm = "executor: slurm\nclasses:\n  gpu: {match: {kind: [train, evaluate], stage: 'model/*'}, partition: gpu, \
                 account: 12, gres: 'gpu:1', cpus: 8, memory: 32 GiB, max_memory: 64G, time: 1.5 h, max_agents: 4, \
                 exclude_nodes: n1, sbatch: ['--constraint=a100'], setup: module load cuda, env: {A: 1, B: true}, \
                 idle: 90 s, hang: 10 min, qos: q, device: auto}\n  cpu: {match: , time: 1 d}\n";
    let command = "executor: command\nsubmit: 'q {agent}'\nlist: q\ncancel: 'd {job}'\n\
                   classes: {all: {match: {}, time: 1h}}\n";
    for right in [slurm, command, &slurm.replace("executor: slurm\n", ""), &command.replace("agent", "script")] {
        assert!(parses(right), "{right}");
        let errors: Vec<String> = schema.iter_errors(&as_json(right)).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}\n{right}");
    }
    for (right, from, to) in [
        (slurm, "executor: slurm", "executor: slrum"),
        (slurm, "executor: slurm", "executor: command"),
        (slurm, "executor: slurm", "submit: 'q {agent}'"),
        (slurm, "executor: slurm", "executer: slurm"),
        (slurm, "[train", "[trian"),
        (slurm, "stage:", "stages:"),
        (slurm, "memory: 32 GiB", "memory: 32"),
        (slurm, "memory: 32 GiB", "memory: 0G"),
        (slurm, "memory: 32 GiB", "mem: 32G"),
        (slurm, "time: 1.5 h", "time: 4"),
        (slurm, "time: 1.5 h", "time: 4 weeks"),
        (slurm, ", time: 1 d", ""),
        (slurm, "match: , ", ""),
        (slurm, "cpus: 8", "cpus: 0"),
        (slurm, "max_agents: 4", "max_agents: 1.5"),
        (slurm, "partition: gpu", "partition: [gpu]"),
        (slurm, "partition: gpu", "partition: ' '"),
        (slurm, "exclude_nodes: n1", "exclude_nodes: {n1: 1}"),
        (slurm, "setup: module load cuda", "setup: [module]"),
        (slurm, "env: {A: 1", "env: {1A: 1"),
        (slurm, "env: {A: 1", "env: {A: [1]"),
        (slurm, "  gpu:", "  g pu:"),
        (command, "submit: 'q {agent}'", ""),
        (command, "{agent}", "agent"),
        (command, "{job}", "job"),
        (command, "classes: {all: {match: {}, time: 1h}}", "classes: {}"),
        (command, "classes: {all: {match: {}, time: 1h}}", ""),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert!(wrong != right && !parses(&wrong), "{to}");
        assert!(!schema.is_valid(&as_json(&wrong)), "{to}");
    }
}

/// The names of functions behind a word in the files of a folder or in a file.
fn functions(path: &str, word: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let files = match std::fs::read_dir(&path) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(_) => vec![path],
    };
    let files =
        files.into_iter().filter(|file| file.extension().is_some_and(|ending| ending == "py" || ending == "rs"));
    let lines: Vec<String> = files
        .flat_map(|file| std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let names = lines.iter().filter_map(|line| line.trim_start().strip_prefix(word)?.split('(').next());
    names.map(str::to_owned).collect()
}

#[test]
fn every_test_that_the_page_on_clusters_names_is_there() {
    let (verdicts, stories) =
        (functions("src/engine/cluster/verdict.rs", "fn "), functions("tests/slurm", "def test_"));
    let document = document();
    let (_, table) = document.split_once("| seen | meaning | action | test |").unwrap();
    let (mut named, mut rows) = (0, 0);
    for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cell = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap();
        assert!(cell.contains('`'), "no test is named: {row}");
        rows += 1;
        for name in cell.split(", ") {
            let (place, name) = name.split_once(" `").unwrap_or_else(|| panic!("not `v` or `s` and a name: {name}"));
            let name = name.trim_end_matches('`');
            let known = if place == "v" { &verdicts } else { &stories };
            assert!(known.iter().any(|known| known.contains(name)), "no test of `{place}` is called {name}");
            named += 1;
        }
    }
    assert!(rows > 15 && named > rows, "{rows} rows, {named} names");
}

#[test]
fn the_examples_of_the_page_on_clusters_are_right() {
    let schema = jsonschema::validator_for(&cluster_schema()).unwrap();
    let document = document();
    let mut examples: Vec<String> = Vec::new();
    for block in document.split("```yaml\n").skip(1) {
        let block = block.split("```").next().unwrap();
        // Inside a list it is indented.
        let indent = block.len() - block.trim_start().len();
        let lines = block.lines().map(|line| line.get(indent..).unwrap_or_default());
        examples.push(lines.collect::<Vec<_>>().join("\n"));
    }
    assert!(examples.len() >= 3, "{examples:?}");
    let rows = document.lines().filter(|line| line.starts_with("| ") && line.matches(" | ").count() == 3);
    let mut sites = Vec::new();
    for row in rows {
        // A bar inside a cell of a table is escaped.
        let row = row.replace("\\|", "\u{1}");
        let cells: Vec<String> =
            row.trim_matches('|').split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect();
        let code = |cell: &str| cell.strip_prefix('`')?.strip_suffix('`').map(str::to_owned);
        let [site, submit, list, cancel] = cells.as_slice() else { continue };
        // The head of the table has the names of the keys.
        let Some(submit) = code(submit).filter(|submit| submit != "submit") else { continue };
        let mut text = format!("executor: command\nsubmit: {}\n", serde_json::Value::from(submit));
        for (key, command) in [("list", code(list)), ("cancel", code(cancel))] {
            if let Some(command) = command {
                text.push_str(&format!("{key}: {}\n", serde_json::Value::from(command)));
            }
        }
        examples.push(text + "classes: {all: {match: {}, time: 1h}}\n");
        sites.push(site.clone());
    }
    assert!(sites.iter().any(|site| site == "PBS") && sites.len() >= 5, "{sites:?}");
    for example in examples {
        assert!(parses(&example), "{example}");
        assert!(schema.is_valid(&as_json(&example)), "{example}");
    }
}

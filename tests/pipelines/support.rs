//! The real programs, engine and worker, on a shipped pipeline in a folder of a test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A pipeline that ships.
pub(crate) fn pipeline(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../pipelines")).join(name)
}

/// The engine's program lies where the worker's does: `make test` builds both before it tests either.
pub(crate) fn atflow() -> Command {
    let worker = Path::new(env!("CARGO_BIN_EXE_atflow-worker"));
    let engine = worker.with_file_name("atflow");
    assert!(engine.exists(), "build first: cargo build --release --workspace");
    let mut command = Command::new(engine);
    // A cache beside the pipelines of this repository would serve otherwise, and be written to.
    command.env("ATFLOW_WORKER", worker).env("ATFLOW_CACHE", "cache");
    command
}

/// What one run did.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    /// How each stage ended.
    pub(crate) stages: BTreeMap<String, String>,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn ran(&self) -> Vec<&str> {
        self.stages.iter().filter(|(_, status)| *status == "ran").map(|(stage, _)| stage.as_str()).collect()
    }
}

/// Runs `p.yaml` of the folder, or the quickstart.
pub(crate) fn run_with(folder: &Path, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Run {
    let own = folder.join("p.yaml");
    run_file(folder, &if own.exists() { own } else { pipeline("quickstart.yaml") }, args, prepare)
}

/// Runs a pipeline file on the CPU, in a folder.
pub(crate) fn run_file(folder: &Path, file: &Path, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Run {
    let mut command = atflow();
    command.current_dir(folder).arg("run").arg(file).args(["--json", "--device", "cpu"]).args(args);
    prepare(&mut command);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stdout = String::from_utf8(stdout).unwrap();
    let events = stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let finished = events.filter(|event| event["event"] == "stage_finished");
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    Run {
        code: status.code(),
        stages: finished.map(|event| (text(&event["stage"]), text(&event["status"]))).collect(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// The digest of every output under every key of a cache. (Not by name: of two stages that are one computation, either
/// may have run.)
pub(crate) fn digests(folder: &Path) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for folder in std::fs::read_dir(folder.join("cache/actions")).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            for (name, blob) in manifest["outputs"].as_object().unwrap() {
                out.insert(format!("{} {name}", path.display()), blob["digest"].to_string());
            }
        }
    }
    // The folder is another one in each cache.
    out.into_iter().map(|(name, digest)| (name.rsplit('/').next().unwrap().to_owned(), digest)).collect()
}

//! Stories of the shipped pipeline through both real programs, engine and worker, at the size of its `smoke` profile.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const PIPELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../pipelines/quickstart.yaml");

/// The engine's program lies where the worker's does: `make test` builds both before it tests either.
fn atflow() -> Command {
    let worker = Path::new(env!("CARGO_BIN_EXE_atflow-worker"));
    let engine = worker.with_file_name("atflow");
    assert!(engine.exists(), "build first: cargo build --release --workspace");
    let mut command = Command::new(engine);
    command.env("ATFLOW_WORKER", worker).env_remove("ATFLOW_CACHE");
    command
}

struct Run {
    code: Option<i32>,
    /// How each stage ended.
    stages: BTreeMap<String, String>,
    stderr: String,
}

impl Run {
    fn ran(&self) -> Vec<&str> {
        self.stages.iter().filter(|(_, status)| *status == "ran").map(|(stage, _)| stage.as_str()).collect()
    }
}

fn run(folder: &Path, args: &[&str]) -> Run {
    run_with(folder, args, |_| {})
}

fn run_with(folder: &Path, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Run {
    let mut command = atflow();
    let pipeline = if folder.join("p.yaml").exists() { "p.yaml" } else { PIPELINE };
    command.current_dir(folder).args(["run", pipeline, "--json", "--device", "cpu"]).args(args);
    prepare(&mut command);
    let output = command.output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let events = stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let finished = events.filter(|event| event["event"] == "stage_finished");
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    Run {
        code: output.status.code(),
        stages: finished.map(|event| (text(&event["stage"]), text(&event["status"]))).collect(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The digest of every output under every key of a cache. (Not by name: of two stages that are one computation, either may have run.)
fn digests(folder: &Path) -> BTreeMap<String, String> {
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

#[test]
fn the_quickstart_runs_once_then_only_what_eps_reaches_and_gives_the_same_bytes_anywhere() {
    let first = tempfile::tempdir().unwrap();
    let run_all = |folder: &Path, args: &[&str]| {
        let run = run(folder, &[&["--profile", "smoke"], args].concat());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run
    };
    let all = run_all(first.path(), &[]);
    assert_eq!(all.stages.len(), 73);
    for (stage, status) in &all.stages {
        // After one epoch the underfit network is the standard one to the byte, and what is computed from either is computed once.
        let twin = ["/standard", "/underfit"].iter().any(|name| stage.contains(name)) && !stage.starts_with("model");
        assert!(status == "ran" || (twin && status == "cached"), "{stage} {status}");
    }
    for file in [
        "robustness.md",
        "saturation.csv",
        "shuffle.json",
        "saturation-curves.svg",
        "saturation-curves.png",
        "smoothgrad.png",
    ] {
        assert!(first.path().join("results/quickstart").join(file).exists(), "{file}");
    }
    let digests_of_first = digests(first.path());

    assert_eq!(run_all(first.path(), &[]).ran(), [""; 0], "nothing changed");

    let changed = run_all(first.path(), &["--set", "eps=4/255"]);
    let reached = |stage: &str| {
        matches!(
            stage.split('/').collect::<Vec<_>>().as_slice(),
            ["model" | "tested", "fgsm" | "pgd", ..]
                | ["attacked", _]
                | ["robustness" | "saturation" | "shuffle" | "saturation-curves" | "smoothgrad"]
        )
    };
    for (stage, status) in &changed.stages {
        // A picture or a table may come out as before, a stage below what eps reaches may not be tried again: but nothing else may run.
        assert!(reached(stage) || status == "cached", "{stage} does not depend on eps");
    }
    for stage in ["model/fgsm", "model/pgd", "attacked/standard", "robustness", "smoothgrad"] {
        assert_eq!(changed.stages[stage], "ran", "{stage} depends on eps");
    }
    assert_eq!(run_all(first.path(), &["--set", "eps=8/255"]).ran(), [""; 0], "eps is back");

    // Another cache, one thing at a time: the order in which stages ran leaves no trace in what they made.
    let second = tempfile::tempdir().unwrap();
    run_all(second.path(), &["--jobs", "1"]);
    let digests_of_second = digests(second.path());
    assert!(digests_of_second.len() > 70, "{}", digests_of_second.len());
    assert_eq!(digests_of_second, digests_of_first);
}

/// A pipeline of one stage for a worker.
fn small(folder: &Path) {
    let data = Path::new(PIPELINE).parent().unwrap().join("data/fashion-mnist");
    let file = |name: &str| format!("{{path: {}/{name}-ubyte.gz}}", data.display());
    let text = format!(
        "stages:\n  data:\n    kind: dataset\n    with:\n      format: idx\n      train: {{images: {0}, labels: {1}}}\n      test: {{images: {0}, labels: {1}}}\n      classes: [a, b, c, d, e, f, g, h, i, j]\n  dark: {{kind: transform, needs: {{data: data}}, with: {{op: saturate, level: 4}}}}\n",
        file("t10k-images-idx3"),
        file("t10k-labels-idx1"),
    );
    std::fs::write(folder.join("p.yaml"), text).unwrap();
}

/// A worker that greets, takes a job, and dies; the real one after `deaths` such deaths.
fn dying_worker(folder: &Path, deaths: u32) -> PathBuf {
    let hello = serde_json::json!({
        "event": "hello", "protocol": atflow::protocol::PROTOCOL_VERSION, "version": "0", "libtorch": "0", "device": "cpu", "device_name": "none",
    });
    let worker = env!("CARGO_BIN_EXE_atflow-worker");
    let script = format!(
        "#!/bin/sh\ncd {}\nif [ $(cat deaths 2>/dev/null | wc -l) -lt {deaths} ]; then echo died >> deaths; echo '{hello}'; read job; echo 'out of luck' >&2; exit 9; fi\nexec {worker} \"$@\"\n",
        folder.display()
    );
    let path = folder.join("worker.sh");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_worker_that_dies_is_replaced_and_its_stage_tried_once_more() {
    let folder = tempfile::tempdir().unwrap();
    small(folder.path());
    let worker = dying_worker(folder.path(), 1);
    let run = run_with(folder.path(), &[], |command| _ = command.env("ATFLOW_WORKER", worker));
    assert_eq!((run.code, run.stages["dark"].as_str()), (Some(0), "ran"), "{}", run.stderr);
}

#[test]
fn a_stage_that_kills_its_worker_twice_fails_with_what_the_worker_said() {
    let folder = tempfile::tempdir().unwrap();
    small(folder.path());
    let worker = dying_worker(folder.path(), 2);
    let run = run_with(folder.path(), &[], |command| _ = command.env("ATFLOW_WORKER", worker));
    assert_eq!((run.code, run.stages["dark"].as_str()), (Some(1), "failed"));
    assert!(run.stderr.contains("died 2 times") && run.stderr.contains("out of luck"), "{}", run.stderr);
    let log = atflow().current_dir(folder.path()).args(["log", "dark"]).output().unwrap();
    assert!(String::from_utf8_lossy(&log.stdout).contains("out of luck"));
}

#[test]
fn cuda_that_is_not_there_is_an_error_that_says_why() {
    let folder = tempfile::tempdir().unwrap();
    small(folder.path());
    let output = atflow().current_dir(folder.path()).args(["run", "p.yaml", "--device", "cuda:63"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("cuda:63"), "{stderr}");
}

//! Stories of `quickstart.yaml` at the size of its `smoke` profile, and of workers that fail on the way.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::{Run, atflow, digests, pipeline, run_with};

fn run(folder: &Path, args: &[&str]) -> Run {
    run_with(folder, args, |_| {})
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
    assert_eq!(all.stages.len(), 74);
    for (stage, status) in &all.stages {
        // In this profile the underfit network has as many epochs as the standard one: what both need is computed once.
        let twin = ["/standard", "/underfit"].iter().any(|name| stage.contains(name));
        assert!(status == "ran" || (twin && status == "cached"), "{stage} {status}");
    }
    for file in [
        "robustness.md",
        "saturation.csv",
        "shuffle.json",
        "saturation-curves.svg",
        "saturation-curves.png",
        "learning-curves.pdf",
        "smoothgrad.png",
    ] {
        assert!(first.path().join("results/quickstart@smoke").join(file).exists(), "{file}");
    }
    let digests_of_first = digests(first.path());

    assert_eq!(run_all(first.path(), &[]).ran(), [""; 0], "nothing changed");

    let changed = run_all(first.path(), &["--set", "eps=4/255"]);
    let reached = |stage: &str| {
        matches!(
            stage.split('/').collect::<Vec<_>>().as_slice(),
            ["model" | "tested", "fgsm" | "pgd", ..]
                | ["attacked", _]
                | ["robustness" | "saturation" | "shuffle" | "saturation-curves" | "learning-curves" | "smoothgrad"]
        )
    };
    for (stage, status) in &changed.stages {
        // A picture or a table may come out as before, a stage below what eps reaches may not be tried again: but
        // nothing else may run.
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
    let data = pipeline("data/fashion-mnist");
    let file = |name: &str| format!("{{path: {}/{name}-ubyte.gz}}", data.display());
    let text = format!(
        "stages:\n  data:\n    kind: dataset\n    with:\n      format: idx\n      train: {{images: {0}, labels: {1}}}\n      test: {{images: {0}, labels: {1}}}\n      classes: [a, b, c, d, e, f, g, h, i, j]\n  dark: {{kind: transform, needs: {{data: data}}, with: {{op: saturate, level: 4}}}}\n",
        file("t10k-images-idx3"),
        file("t10k-labels-idx1"),
    );
    std::fs::write(folder.join("p.yaml"), text).unwrap();
}

fn worker_script(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("worker.sh");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
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
    worker_script(folder, &script)
}

/// A worker that says it computes on a GPU, takes its time with each job, and leaves a line in `workers` when it is
/// started.
fn worker_on_gpu(folder: &Path) -> PathBuf {
    let worker = env!("CARGO_BIN_EXE_atflow-worker");
    let slowly = "while read job; do sleep 0.4; echo \"$job\"; done";
    let workers = folder.join("workers");
    let script = format!(
        "#!/bin/sh\necho one >> {}\n{slowly} | {worker} \"$@\" | sed -u 's/\"device\":\"cpu\"/\"device\":\"cuda:0\"/'\n",
        workers.display()
    );
    worker_script(folder, &script)
}

#[test]
fn a_gpu_takes_one_stage_at_a_time_or_as_many_as_share_it() {
    let folder = tempfile::tempdir().unwrap();
    small(folder.path());
    let file = folder.path().join("p.yaml");
    let text = std::fs::read_to_string(&file).unwrap().replace("level: 4}", "level: \"${p}\"}");
    // What ran, and how many workers there were.
    let run = |text: String| {
        std::fs::write(&file, text).unwrap();
        let worker = worker_on_gpu(folder.path());
        let run = run_with(folder.path(), &["--jobs", "8"], |command| _ = command.env("ATFLOW_WORKER", worker));
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let workers = std::fs::read_to_string(folder.path().join("workers")).unwrap_or_default();
        _ = std::fs::remove_file(folder.path().join("workers"));
        (run.ran().len(), workers.lines().count())
    };
    let levels = |first: u32, gpu: &str| {
        let matrix = format!("kind: transform, {gpu} matrix: {{p: [{}, {}, {}]}},", first, first + 1, first + 2);
        text.replace("kind: transform,", &matrix)
    };
    assert_eq!(run(levels(1, "")), (4, 1));
    assert_eq!(run(levels(11, "gpu: 1/2,").replace("11, 12, 13", "11, 12, 13, 14, 15, 16")), (6, 2));
    assert_eq!(run(levels(11, "gpu: 0.3,")), (0, 0), "a share is no part of what is computed");
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

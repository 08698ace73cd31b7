//! A folder with a pipeline, small images and a cache; engines started in it; what they left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use atflow::cache::{Cache, RunRecord, StatMemo};
use atflow::cluster::folder::RunFolder;
use atflow::cluster::frozen_plan::FrozenPlan;
use atflow::digest::Digest;
use atflow::external_inputs::ExternalInputs;
use atflow::graph::Graph;
use atflow::plan::{Goals, PlanContext};
use atflow::spec::{Overrides, PipelineSpec, expand};
use serde_json::Value;

/// Nothing here takes this long on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn worker() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_atflow-worker"))
}

/// Numbers that look random and are the same each time (SplitMix64).
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

pub(crate) struct Space {
    dir: tempfile::TempDir,
}

impl Space {
    /// `images` of 12 × 12 in three classes told apart by where they are bright, a third as many to test.
    pub(crate) fn new(pipeline: &str, images: u32) -> Self {
        let space = Space { dir: tempfile::tempdir().unwrap() };
        std::fs::write(space.path().join("p.yaml"), pipeline).unwrap();
        let mut draws = Draws(1);
        for (name, count) in [("train", images), ("test", images / 3)] {
            let mut pixels =
                [&[0, 0, 8, 3][..], &count.to_be_bytes(), &12u32.to_be_bytes(), &12u32.to_be_bytes()].concat();
            let mut labels = [&[0, 0, 8, 1][..], &count.to_be_bytes()].concat();
            for index in 0..count {
                let class = index % 3;
                labels.push(class as u8);
                for (y, x) in (0..12).flat_map(|y| (0..12).map(move |x| (y, x))) {
                    let bright = [x < 6, y < 6, (3..9).contains(&x) && (3..9).contains(&y)][class as usize];
                    pixels.push(if bright { 120 } else { 60 } + draws.below(60) as u8);
                }
            }
            std::fs::write(space.path().join(format!("{name}.idx")), pixels).unwrap();
            std::fs::write(space.path().join(format!("{name}.lab")), labels).unwrap();
        }
        space
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let engine = worker().with_file_name("atflow");
        assert!(engine.exists(), "build first: cargo build --release --workspace");
        let mut command = Command::new(engine);
        command.args(args).current_dir(self.path()).env("ATFLOW_WORKER", worker()).env_remove("ATFLOW_CACHE");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&self) -> Engine {
        let mut command = self.command(&["run", "p.yaml", "--quiet", "--device", "cpu", "--jobs", "2"]);
        // Nobody reads while it runs: little is said, and what is said last is wanted.
        Engine { child: Some(command.stdout(Stdio::null()).spawn().unwrap()), workers_killed: 0 }
    }

    /// Freezes a plan of the pipeline for agents, all of whose instances are in one class; gives the name of the run.
    pub(crate) fn freeze(&self) -> String {
        let file = self.path().join("p.yaml");
        let graph = Graph::new(expand(&PipelineSpec::read(&file, &Overrides::default()).unwrap()).unwrap());
        let cache = Cache::open(&self.path().join("cache")).unwrap();
        let goals = Goals::all_known(&graph);
        let sources = ExternalInputs::check(&graph, &goals.wanted, &mut StatMemo::open(&cache)).unwrap();
        let context = PlanContext { graph: &graph, cache: &cache, sources: &sources };
        let about = RunRecord { pipeline: "p".to_owned(), file, ..RunRecord::default() };
        let classes = graph.per_instance("any".to_owned());
        let plan = FrozenPlan::new(context, &goals, about, &classes, &graph.per_instance(None)).unwrap();
        let folder = RunFolder::of(&cache, &RunFolder::new_id());
        plan.write(&folder, context, &goals).unwrap();
        folder.id().0.clone()
    }

    /// Starts an agent of a run.
    pub(crate) fn start_agent(&self, run: &str) -> Engine {
        let args = ["agent", "--run", run, "--class", "any", "--device", "cpu", "--jobs", "1"];
        Engine { child: Some(self.command(&args).stdout(Stdio::null()).spawn().unwrap()), workers_killed: 0 }
    }

    /// Runs to the end; gives the exit code, what ran, and standard error.
    pub(crate) fn run(&self, args: &[&str]) -> (Option<i32>, Vec<String>, String) {
        let args = [&["run", "p.yaml", "--json", "--device", "cpu", "--jobs", "2"], args].concat();
        let output = self.command(&args).output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let events = stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let ran = events.filter(|event| event["event"] == "stage_finished" && event["status"] == "ran");
        let ran = ran.map(|event| event["stage"].as_str().unwrap().to_owned()).collect();
        (output.status.code(), ran, String::from_utf8(output.stderr).unwrap())
    }

    /// Returns what a command prints.
    pub(crate) fn says(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs to the end, which must be a good one.
    pub(crate) fn finish(&self) {
        let (code, _, stderr) = self.run(&[]);
        assert_eq!(code, Some(0), "{stderr}");
    }

    pub(crate) fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let started = Instant::now();
        while !is_so() {
            assert!(started.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn manifests(&self) -> Vec<Value> {
        let folders = std::fs::read_dir(self.path().join("cache/actions")).into_iter().flatten();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
        files.map(|file| serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap()).collect()
    }

    /// The digest of every output of every stage; each manifest's blobs are there and are what their names say.
    pub(crate) fn verified_digests(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        for manifest in self.manifests() {
            let stage = &manifest["made"]["stage"];
            let log = manifest["made"]["log"].clone();
            for (name, blob) in manifest["outputs"].as_object().unwrap().iter().chain([(&"log".to_owned(), &log)]) {
                let digest = blob["digest"].as_str().unwrap();
                if let Some(text) = blob["text"].as_str() {
                    assert_eq!(Digest::of(text.as_bytes()).to_string(), digest, "{stage} {name}");
                    continue;
                }
                let path = self.path().join("cache/objects").join(&digest[..2]).join(digest);
                assert_eq!(Digest::of_file(&path).unwrap().to_string(), digest, "{stage} {name}");
                if name != "log" {
                    assert_eq!(
                        out.insert(format!("{stage} {name}"), digest.to_owned()),
                        None,
                        "{stage} is there twice"
                    );
                }
            }
        }
        out
    }

    pub(crate) fn leases(&self) -> usize {
        let entries = std::fs::read_dir(self.path().join("cache/leases")).into_iter().flatten().flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "json")).count()
    }

    /// Trainings whose progress is kept.
    pub(crate) fn progress_left(&self) -> usize {
        std::fs::read_dir(self.path().join("cache/partial")).into_iter().flatten().count()
    }
}

/// What a stage that was run said.
pub(crate) fn log_of(space: &Space, stage: &str) -> String {
    let manifest = space.manifests().into_iter().find(|manifest| manifest["made"]["stage"] == stage).unwrap();
    let log = &manifest["made"]["log"];
    if let Some(text) = log["text"].as_str() {
        return text.to_owned();
    }
    let digest = log["digest"].as_str().unwrap().to_owned();
    std::fs::read_to_string(space.path().join("cache/objects").join(&digest[..2]).join(digest)).unwrap()
}

/// A run under way.
pub(crate) struct Engine {
    child: Option<Child>,
    workers_killed: u32,
}

impl Engine {
    fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("an engine that was ended is not asked")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("an engine that was ended is not asked").id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        let status = self.child().try_wait().unwrap();
        // A stage fails if its worker is killed twice under it: a run of which one worker was killed has no failed
        // stage.
        let may_fail = self.workers_killed >= 2;
        if let Some(status) = status
            && !(matches!(status.code(), Some(0) | None) || status.code() == Some(1) && may_fail)
            && let Some(stderr) = self.child().stderr.take()
        {
            let stderr = std::io::read_to_string(stderr).unwrap();
            panic!("no run may end because a worker was killed, at its start or later: {status}: {stderr}");
        }
        status.is_none()
    }

    pub(crate) fn has_completed(&mut self) -> bool {
        !self.is_running() && self.child().try_wait().unwrap().is_some_and(|status| status.success())
    }

    /// Kills a worker of this run; says whether that was while it started.
    pub(crate) fn kill_worker(&mut self, pid: u32) -> bool {
        // Stopped first: what is seen of it is still so when it is killed.
        signal(pid, "STOP");
        let is_starting = threads_of(pid) == Some(1);
        signal(pid, "KILL");
        // Whoever is killed at the start has no stage yet.
        self.workers_killed += u32::from(!is_starting);
        is_starting
    }

    pub(crate) fn kill(mut self) {
        self.child().kill().unwrap();
        self.child().wait().unwrap();
    }

    /// Stops the run as Ctrl-C does, and waits for its end.
    pub(crate) fn interrupt(mut self) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        assert_eq!(self.child().wait().unwrap().code(), Some(130));
    }

    /// Waits for the end; says whether it was a good one.
    pub(crate) fn end(mut self) -> bool {
        let started = Instant::now();
        while self.is_running() && started.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        // One whose worker was killed twice may have failed; that it ended is what counts where that can be.
        !self.is_running()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// How many threads a process has. A worker has one until it listens for its first stage, however fast the machine.
fn threads_of(pid: u32) -> Option<usize> {
    Some(std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.count())
}

/// The children of a process that run a program of this name.
pub(crate) fn processes_of(parent: u32, name: &str) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((before, after)) = stat.rsplit_once(')') else { return false };
        before.ends_with(name) && after.split_whitespace().nth(1) == Some(parent.to_string().as_str())
    })
    .collect()
}

fn signal(pid: u32, name: &str) {
    // It may have ended by itself.
    _ = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).stderr(Stdio::null()).status();
}

//! What the tests share: a stand-in for the engine that talks to the real binary, and small sets of images that can be
//! learnt.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use atflow::digest::Digest;
use atflow::formats::ImageSet;
use atflow::protocol::{Event, Failure, Input, Job, Request};
use atflow::stage_kinds::StageKind;
use atflow_worker::rng::Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Nothing in these tests takes this long on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A worker process, a folder for its files, and what it said.
pub(crate) struct Engine {
    pub(crate) folder: TempDir,
    child: Child,
    input: Option<ChildStdin>,
    events: Receiver<String>,
    next: u64,
    /// The seed of the jobs that follow.
    pub(crate) seed: u64,
    /// Where trainings keep their progress; nowhere at first.
    pub(crate) partial: Option<PathBuf>,
    /// Where they leave their final state; nowhere at first.
    pub(crate) continuation: Option<PathBuf>,
    /// How long it may be silent.
    pub(crate) patience: Duration,
}

impl Engine {
    pub(crate) fn start(device: &str) -> Self {
        Engine::start_with(device, &[])
    }

    /// A worker with some variables in its environment.
    pub(crate) fn start_with(device: &str, variables: &[(&str, &Path)]) -> Self {
        let variables: Vec<(&str, &OsStr)> = variables.iter().map(|(name, value)| (*name, value.as_os_str())).collect();
        Engine::start_as(&["--device", device], &variables)
    }

    /// A worker with some arguments, and some variables in its environment.
    pub(crate) fn start_as(arguments: &[&str], variables: &[(&str, &OsStr)]) -> Self {
        Engine::spawn(Command::new(env!("CARGO_BIN_EXE_atflow-worker")).args(arguments).envs(variables.iter().copied()))
    }

    /// What a command starts, which must be a worker in the end.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, events) = mpsc::channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let input = child.stdin.take();
        let (folder, patience) = (TempDir::new().unwrap(), PATIENCE);
        Engine { folder, child, input, events, next: 1, seed: 1, partial: None, continuation: None, patience }
    }

    /// A worker on the CPU that has said hello.
    pub(crate) fn ready() -> Self {
        let engine = Engine::start("cpu");
        assert!(matches!(engine.hear(), Event::Hello { .. }));
        engine
    }

    pub(crate) fn hear(&self) -> Event {
        let line = self.events.recv_timeout(self.patience).expect("the worker says something");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts bytes into a file named after them, and gives it as an input.
    pub(crate) fn input(&self, slot: &str, bytes: &[u8]) -> Input {
        let digest = Digest::of(bytes);
        let path = self.path(&digest.to_string());
        fs::write(&path, bytes).unwrap();
        Input { slot: slot.to_owned(), label: String::new(), path, digest }
    }

    /// Sends a job and gives its id; its outputs will be files of this engine's folder.
    pub(crate) fn send(&mut self, kind: StageKind, params: Value, inputs: Vec<Input>, outputs: &[&str]) -> u64 {
        let seed = self.seed;
        let id = self.next;
        self.next += 1;
        let outputs: BTreeMap<String, PathBuf> =
            outputs.iter().map(|&name| (name.to_owned(), self.path(&format!("{id}-{name}")))).collect();
        let stage = format!("stage {id}");
        let (partial, onward) = (self.partial.clone(), self.continuation.clone());
        let job = Job { id, stage, kind, params, seed, threads: 1, inputs, outputs, partial, onward };
        self.say(&serde_json::to_string(&Request::Run(job)).unwrap());
        id
    }

    /// Waits for the end of a job; gives its summary or failure, and what was heard before.
    pub(crate) fn finish(&self, job: u64) -> (Result<String, Failure>, Vec<Event>) {
        let mut heard = Vec::new();
        loop {
            match self.hear() {
                Event::Finished { id, summary, .. } if id == job => return (Ok(summary), heard),
                Event::Failed { id, failure } if id == job => return (Err(failure), heard),
                event => heard.push(event),
            }
        }
    }

    /// Runs a job that must succeed; gives its outputs and its summary.
    pub(crate) fn run<const N: usize>(
        &mut self,
        kind: StageKind,
        params: Value,
        inputs: Vec<Input>,
        outputs: [&str; N],
    ) -> ([Vec<u8>; N], String) {
        let id = self.send(kind, params, inputs, &outputs);
        let (outcome, _) = self.finish(id);
        let summary = outcome.unwrap_or_else(|failure| panic!("{failure:?}"));
        (outputs.map(|name| fs::read(self.path(&format!("{id}-{name}"))).unwrap()), summary)
    }

    /// Runs a job that must fail.
    pub(crate) fn fail(&mut self, kind: StageKind, params: Value, inputs: Vec<Input>) -> Failure {
        let id = self.send(
            kind,
            params,
            inputs,
            &["checkpoint", "metrics", "predictions", "images", "maps", "grid", "numbers", "csv", "markdown"],
        );
        self.finish(id).0.expect_err("the job should fail")
    }

    /// Kills the worker.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Closes the worker's input and waits for its end: its exit code, and how long it took.
    pub(crate) fn leave(mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        drop(self.input.take());
        while self.child.try_wait().unwrap().is_none() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        (self.child.try_wait().unwrap().and_then(|status| status.code()), start.elapsed())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Images of 8 × 8 in three classes told apart by where they are bright, with noise; `seed` draws the noise.
pub(crate) fn shapes(count: usize, channels: usize, seed: u64) -> ImageSet {
    let mut pixels = Vec::new();
    for index in 0..count {
        let mut stream = Rng::new(seed).stream("test images", &[index as u64]);
        for _ in 0..channels {
            for (y, x) in (0..8).flat_map(|y| (0..8).map(move |x| (y, x))) {
                let bright = [x < 4, y < 4, (2..6).contains(&x) && (2..6).contains(&y)][index % 3];
                pixels.push(if bright { 120 } else { 60 } + stream.below(60) as u8);
            }
        }
    }
    let classes = ["left", "top", "middle"].map(str::to_owned).to_vec();
    let labels = (0..count).map(|index| (index % 3) as i32).collect();
    ImageSet { pixels, shape: [count, channels, 8, 8], labels, texture: None, classes }
}

/// Parameters of a short training; `more` is added to them.
pub(crate) fn training(more: Value) -> Value {
    let mut params = json!({
        "net": {"arch": "resnet", "width": 4, "blocks": [1, 1]},
        "epochs": 4, "batch_size": 16, "optimizer": {"lr": 0.1},
    });
    for (key, value) in more.as_object().unwrap() {
        params[key] = value.clone();
    }
    params
}

/// PGD with a random start, as parameters.
pub(crate) fn pgd(eps: f64, steps: u32, start: &str) -> Value {
    json!({"attack": "pgd", "eps": eps, "step": 2.0 / 255.0, "steps": steps, "start": start})
}

/// Grey images of one size, of two classes in turn.
pub(crate) fn sized_shapes(count: usize, channels: usize, side: usize) -> ImageSet {
    let pixels = (0..count * channels * side * side).map(|at| (at % 251) as u8).collect();
    let labels = (0..count).map(|index| (index % 2) as i32).collect();
    let classes = ["even", "odd"].map(str::to_owned).to_vec();
    ImageSet { pixels, shape: [count, channels, side, side], labels, texture: None, classes }
}

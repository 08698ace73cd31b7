//! Jobs in a temporary folder, and a reporter that keeps what it is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use atflow::digest::Digest;
use atflow::executors::{self, Reporter};
use atflow::keeper::Keepers;
use atflow::protocol::{Failure, Input, Job};
use atflow::stage_kinds::StageKind;
use tempfile::TempDir;

/// A stage to run: inputs are added, outputs lie in a folder of their own.
pub(crate) struct Bench {
    folder: TempDir,
    pub(crate) job: Job,
    pub(crate) recorder: Recorder,
}

impl Bench {
    pub(crate) fn new(kind: StageKind, params: serde_json::Value, outputs: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["objects", "tmp"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let output = |name: &&str| ((*name).to_owned(), folder.path().join("tmp").join(name));
        let outputs: BTreeMap<_, _> = outputs.iter().map(output).collect();
        let stage = "stage".to_owned();
        let job = Job {
            id: 1,
            stage,
            kind,
            params,
            seed: 7,
            threads: 1,
            inputs: vec![],
            outputs,
            partial: None,
            onward: None,
        };
        Bench { folder, job, recorder: Recorder::default() }
    }

    /// Gives the stage an input and returns the file it lies in.
    pub(crate) fn input(&mut self, slot: &str, label: &str, bytes: &[u8]) -> PathBuf {
        let digest = Digest::of(bytes);
        let path = self.folder.path().join("objects").join(digest.to_string());
        std::fs::write(&path, bytes).unwrap();
        self.job.inputs.push(Input { slot: slot.to_owned(), label: label.to_owned(), path: path.clone(), digest });
        path
    }

    pub(crate) fn run(&self) -> Result<String, Failure> {
        executors::run(&self.job, &self.recorder)
    }

    /// The failure as a person would read it.
    pub(crate) fn failure(&self) -> Failure {
        self.run().expect_err("the stage should fail")
    }

    pub(crate) fn output(&self, name: &str) -> Vec<u8> {
        std::fs::read(&self.job.outputs[name]).unwrap()
    }

    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8(self.output(name)).unwrap()
    }

    /// What lies in the folder of the outputs.
    pub(crate) fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join("tmp")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Keeps the log; cancels when told to.
pub(crate) struct Recorder {
    keepers: Keepers,
    log: Mutex<Vec<String>>,
    pub(crate) cancel: AtomicBool,
    /// Cancel when a line with this text is logged.
    pub(crate) cancel_at: Option<String>,
}

impl Default for Recorder {
    fn default() -> Self {
        let keepers = Keepers::new(env!("CARGO_BIN_EXE_atflow").into());
        Recorder { keepers, log: Mutex::default(), cancel: AtomicBool::default(), cancel_at: None }
    }
}

impl Recorder {
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

impl Reporter for Recorder {
    fn log(&self, line: &str) {
        self.log.lock().unwrap().push(line.to_owned());
        if self.cancel_at.as_deref().is_some_and(|text| line.contains(text)) {
            self.cancel.store(true, Ordering::Relaxed);
        }
    }

    fn progress(&self, done: u64, total: u64, message: &str) {
        assert!(done <= total, "{done} of {total}: {message}");
    }

    fn keepers(&self) -> Option<&Keepers> {
        Some(&self.keepers)
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

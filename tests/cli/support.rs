//! A sealed folder to run the real program in: no environment but what a test sets, no terminal, its own cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use atflow::formats::Predictions;

/// A folder of its own for one story.
pub(crate) struct Space {
    dir: tempfile::TempDir,
}

/// A predictions file of 200 images of one class, of which the first so many are classified correctly.
pub(crate) fn predictions(right: usize) -> Vec<u8> {
    let predicted = (0..200).map(|index| i32::from(index >= right)).collect();
    let (probability, loss) = (vec![0.5; 200], vec![1.0; 200]);
    Predictions { labels: vec![0; 200], predicted, probability, loss, ..Predictions::default() }.to_bytes().unwrap()
}

/// What one run of the program did.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Space {
    pub(crate) fn new() -> Self {
        Space { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atflow"));
        command.args(args).current_dir(self.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.path());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    /// Runs `p.yaml` and tells how each stage ended; the run must go well.
    pub(crate) fn stages(&self, args: &[&str]) -> BTreeMap<String, String> {
        let ran = self.run(&[&["run", "p.yaml", "--json"], args].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran.stages()
    }

    /// The names of the stages that a run of `p.yaml` runs, the others being cached.
    pub(crate) fn ran(&self, args: &[&str]) -> Vec<String> {
        self.stages(args).into_iter().filter(|(_, status)| status == "ran").map(|(stage, _)| stage).collect()
    }

    /// Every file under a folder of the cache.
    pub(crate) fn cached_files(&self, folder: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut open = vec![self.path().join("cache").join(folder)];
        while let Some(path) = open.pop() {
            for entry in std::fs::read_dir(path).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { open.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The JSON lines on standard output.
    pub(crate) fn events(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    /// How each stage ended, last word first.
    pub(crate) fn stages(&self) -> BTreeMap<String, String> {
        let finished = self.events().into_iter().filter(|event| event["event"] == "stage_finished");
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        finished.map(|event| (text(&event["stage"]), text(&event["status"]))).collect()
    }

    /// All that a user sees, for a snapshot: exit code, standard output, standard error.
    pub(crate) fn seen(&self) -> String {
        let part = |name: &str, text: &str| if text.is_empty() { String::new() } else { format!("--- {name}\n{text}") };
        let code = self.code.map_or("killed".to_owned(), |code| code.to_string());
        format!("exit {code}\n{}{}", part("stdout", &self.stdout), part("stderr", &self.stderr))
    }
}

/// Waits until something is so, which takes less than `patience` on any machine.
pub(crate) fn wait_for(patience: Duration, what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < patience, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

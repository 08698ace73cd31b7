//! What runs now: for each run a folder `live/RUN` with a status file, the logs of the stages that it is running, and
//! the keys of the results that it has made.
//!
//! A run writes them while it lasts and removes them at its end. They are for people and never a result: a reader may
//! find a status that is a second old, and a run on a full disk goes on without them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lease_holder::{Holder, Life, is_over, life};
use super::{Cache, RunRecord};
use crate::action::ActionKey;
use crate::fsio;
use crate::protocol::StageProgress;
use crate::stage_kinds::StageKind;

/// Version of the status file. A reader passes over files of another version.
pub const LIVE_FORMAT: u32 = 1;

const STATUS: &str = "status.json";

/// Keys and names of instances that have a result by this run, a line each.
const MADE: &str = "made";

/// Largest status file, and largest list of results, that is read.
const LARGEST_STATUS: u64 = 16 << 20;

/// State of a run at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LiveRun {
    /// [`LIVE_FORMAT`].
    pub format: u32,
    /// The process of the run.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub holder: Holder,
    /// Name of the pipeline.
    pub pipeline: String,
    /// Pipeline file as given.
    pub file: PathBuf,
    /// Profile, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Overrides from the command line, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(String, String)>,
    /// Targets, as given; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Name of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Start of the run, RFC 3339 in UTC.
    pub started: String,
    /// Time of this state, RFC 3339 in UTC.
    pub at: String,
    /// Number of instances that the targets reach.
    pub stages: usize,
    /// Number of instances that ran.
    pub ran: usize,
    /// Number of instances whose result was there.
    pub cached: usize,
    /// Number of instances that failed.
    pub failed: usize,
    /// Number of instances that were not tried.
    pub skipped: usize,
    /// Instances that run now, in the order of their start.
    pub running: Vec<LiveStage>,
    /// Instances that another run is making, with that run where it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<LiveWait>,
    /// Seconds that the rest takes, by the durations of earlier runs; `None` without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<f64>,
    /// Number of instances to come that never ran at this size: their time is not in `seconds_left`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub never_ran: usize,
}

/// Instance that runs now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LiveStage {
    /// Name of the instance.
    pub stage: String,
    /// Kind of the stage.
    #[schemars(with = "String")]
    pub kind: StageKind,
    /// Start, RFC 3339 in UTC.
    pub started: String,
    /// How far it is; `None` as long as it has not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<StageProgress>,
    /// File of its log in the folder of the run.
    pub log: String,
}

/// Instance that another run is making.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LiveWait {
    /// Name of the instance.
    pub stage: String,
    /// Machine and process of the other run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<(String, i32)>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Whether a run is known to be alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Its process lives on this machine.
    Alive,
    /// Its process was killed, or its machine was.
    Dead,
    /// It is on another machine and last wrote its state so long ago.
    Silent(Duration),
}

/// A run that left a status file, living or killed.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundRun {
    /// Its state.
    pub run: LiveRun,
    /// Whether it lives.
    pub sign: Sign,
    folder: PathBuf,
}

impl FoundRun {
    /// Returns the file with the log of a running instance, up to now.
    pub fn log_path(&self, stage: &str) -> Option<PathBuf> {
        let stage = self.run.running.iter().find(|running| running.stage == stage)?;
        // The name comes from a file that others may have written.
        let is_plain = Path::new(&stage.log).file_name().is_some_and(|name| name == stage.log.as_str());
        is_plain.then(|| self.folder.join(&stage.log))
    }

    /// Returns the key of an instance that the run has made.
    pub fn made(&self, stage: &str) -> Option<ActionKey> {
        let mut text = String::new();
        let file = fsio::open_regular(&self.folder.join(MADE)).ok()?;
        file.take(LARGEST_STATUS).read_to_string(&mut text).ok()?;
        let key =
            |line: &str| Some(ActionKey(line.split_once(' ').filter(|(_, name)| *name == stage)?.0.parse().ok()?));
        // A result that was gone is made again.
        text.lines().rev().find_map(key)
    }
}

impl LiveRun {
    /// Creates the state of a run of this process that has not started any stage.
    pub(crate) fn new(about: &RunRecord, started: String) -> Self {
        let RunRecord { pipeline, file, profile, set, targets, user, .. } = about.clone();
        let holder = Holder::of_this_process();
        let at = started.clone();
        let (stages, ran, cached, failed, skipped, never_ran) = (0, 0, 0, 0, 0, 0);
        let (running, waiting, seconds_left) = (Vec::new(), Vec::new(), None);
        LiveRun {
            format: LIVE_FORMAT,
            holder,
            pipeline,
            file,
            profile,
            set,
            targets,
            user,
            started,
            at,
            stages,
            ran,
            cached,
            failed,
            skipped,
            running,
            waiting,
            seconds_left,
            never_ran,
        }
    }

    /// Number of instances that ended.
    pub fn ended(&self) -> usize {
        self.ran + self.cached + self.failed + self.skipped
    }
}

/// Folder of a run's state; dropping it removes it.
#[derive(Debug)]
pub(crate) struct LiveFolder(PathBuf);

impl LiveFolder {
    /// Creates the folder of a run.
    pub(crate) fn create(cache: &Cache, holder: &Holder) -> io::Result<Self> {
        let path = cache.live().join(format!("{}-{}", holder.host.replace('/', "_"), holder.run));
        fs::create_dir_all(&path)?;
        Ok(LiveFolder(path))
    }

    /// Replaces the status file. A crash of the machine may lose it, which does not matter.
    pub(crate) fn write(&self, run: &LiveRun) -> io::Result<()> {
        let new = self.0.join("status.new");
        fs::write(&new, serde_json::to_vec(run).unwrap_or_default())?;
        fs::rename(new, self.0.join(STATUS))
    }

    /// Adds results to the list.
    pub(crate) fn add_made(&self, results: &[(ActionKey, String)]) -> io::Result<()> {
        let lines: String = results.iter().map(|(key, stage)| format!("{key} {stage}\n")).collect();
        self.append(MADE, lines.as_bytes())
    }

    /// Appends to a log.
    pub(crate) fn append(&self, log: &str, bytes: &[u8]) -> io::Result<()> {
        File::options().create(true).append(true).open(self.0.join(log))?.write_all(bytes)
    }

    /// Removes a log. Who reads it may read on to its end.
    pub(crate) fn remove(&self, log: &str) {
        _ = fs::remove_file(self.0.join(log));
    }
}

impl Drop for LiveFolder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

impl Cache {
    fn live(&self) -> PathBuf {
        self.root.join("live")
    }

    /// Returns the runs that left a status file, the newest first: those that run now, and killed ones that no later
    /// run has cleared away.
    pub fn live_runs(&self) -> Vec<FoundRun> {
        let entries = fs::read_dir(self.live()).into_iter().flatten().flatten();
        let mut runs: Vec<FoundRun> = entries.filter_map(|entry| found(entry.path())).collect();
        runs.sort_by(|a, b| b.run.started.cmp(&a.run.started).then(a.folder.cmp(&b.folder)));
        runs
    }

    /// Removes what killed runs left.
    pub(super) fn clear_dead_live_runs(&self) {
        for entry in fs::read_dir(self.live()).into_iter().flatten().flatten() {
            let folder = entry.path();
            let status = folder.join(STATUS);
            // A run has just made its folder, or was killed then.
            let path = if status.exists() { &status } else { &folder };
            if is_over(path, read(&status).as_ref().map(|run| &run.holder)) {
                _ = fs::remove_dir_all(folder);
            }
        }
    }
}

fn found(folder: PathBuf) -> Option<FoundRun> {
    let path = folder.join(STATUS);
    let run = read(&path)?;
    let sign = match life(Some(&run.holder)) {
        Life::Alive => Sign::Alive,
        Life::Dead => Sign::Dead,
        Life::Unseen(_) => Sign::Silent(age(&path)),
    };
    Some(FoundRun { run, sign, folder })
}

fn read(path: &Path) -> Option<LiveRun> {
    let mut bytes = Vec::new();
    fsio::open_regular(path).ok()?.take(LARGEST_STATUS).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice::<LiveRun>(&bytes).ok().filter(|run| run.format == LIVE_FORMAT)
}

/// Returns how long ago a file was written, by this machine's clock.
fn age(path: &Path) -> Duration {
    let written = fs::metadata(path).and_then(|metadata| metadata.modified());
    written.ok().and_then(|written| SystemTime::now().duration_since(written).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_seen_while_it_lasts_and_a_killed_one_until_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let about = RunRecord { pipeline: "p".to_owned(), ..RunRecord::default() };
        let run = LiveRun::new(&about, "2026-01-01T00:00:00Z".to_owned());
        let folder = LiveFolder::create(&cache, &run.holder).unwrap();
        assert_eq!(cache.live_runs(), [], "it has not told yet");
        folder.write(&run).unwrap();
        let found = cache.live_runs();
        assert_eq!((found.len(), found[0].sign, &found[0].run), (1, Sign::Alive, &run));
        let [first, second] = ["1", "2"].map(|digit| ActionKey(digit.repeat(64).parse().unwrap()));
        assert_eq!(found[0].made("a"), None);
        folder.add_made(&[(first, "a".to_owned()), (first, "a b".to_owned())]).unwrap();
        folder.add_made(&[(second, "a".to_owned())]).unwrap();
        assert_eq!(["a", "a b", "b"].map(|stage| found[0].made(stage)), [Some(second), Some(first), None]);
        cache.clear_dead_live_runs();
        assert_eq!(cache.live_runs().len(), 1);

        let dead = Holder { started: Some(1), ..run.holder.clone() };
        folder.write(&LiveRun { holder: dead, ..run.clone() }).unwrap();
        assert_eq!(cache.live_runs()[0].sign, Sign::Dead);
        cache.clear_dead_live_runs();
        assert_eq!(cache.live_runs(), []);
        assert!(!folder.0.exists());
    }

    #[test]
    fn a_run_of_another_machine_is_told_with_the_age_of_its_last_sign() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let mut run = LiveRun::new(&RunRecord::default(), String::new());
        let folder = LiveFolder::create(&cache, &run.holder).unwrap();
        run.holder.machine = "elsewhere".to_owned();
        folder.write(&run).unwrap();
        let Sign::Silent(age) = cache.live_runs()[0].sign else { panic!("{:?}", cache.live_runs()) };
        assert!(age < Duration::from_secs(60));
    }

    #[test]
    fn a_log_is_never_looked_for_outside_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let mut run = LiveRun::new(&RunRecord::default(), String::new());
        let stage = |name: &str, log: &str| LiveStage {
            stage: name.to_owned(),
            kind: StageKind::Train,
            started: String::new(),
            progress: None,
            log: log.to_owned(),
        };
        run.running = vec![stage("good", "0.log"), stage("bad", "../../VERSION"), stage("worse", "..")];
        let folder = LiveFolder::create(&cache, &run.holder).unwrap();
        folder.write(&run).unwrap();
        let found = cache.live_runs().remove(0);
        assert_eq!(found.log_path("good"), Some(folder.0.join("0.log")));
        assert_eq!((found.log_path("bad"), found.log_path("worse"), found.log_path("none")), (None, None, None));
    }
}

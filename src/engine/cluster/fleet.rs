//! The agents of a run as its controller knows them: what the site, their notes and their last words say, put together.
//!
//! Turns that into the facts that [`super::verdict`] judges. Decisions are kept in `decisions.jsonl` of the run's
//! folder, so that another controller does not decide again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::folder::{AgentNote, ExitNote, ExitReason, JobLine, RunFolder, add_line, lines};
use super::site::{JobState, SiteJob};
use super::verdict::{Ending, Facts, Seen};
use crate::fsio::{Context, FileError};

const DECISIONS: &str = "decisions.jsonl";
const LOGS: &str = "logs";

/// So much of the end of a log is searched for what the site says of memory.
const LOG_TAIL: u64 = 8 << 10;

/// What Slurm and the kernel write into a job's log when they end it for its memory.
const MEMORY_WORDS: [&str; 5] =
    ["oom-kill", "oom_kill", "out-of-memory handler", "exceeded memory limit", "Exceeded job memory limit"];

/// Why a submission waits for others to end.
pub const RESERVE: &str = "reserve";

/// Judgement on the end of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Time, RFC 3339 in UTC.
    pub at: String,
    /// Name of the agent.
    pub agent: String,
    /// Its class.
    pub class: String,
    /// How it ended.
    pub ending: Ending,
    /// Its machine, if that is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Memory that it had, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The last words of the agent, or what the site says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// An agent.
#[derive(Debug)]
pub struct Agent {
    /// Its name in the run's folder.
    pub name: String,
    /// Its job at the site.
    pub job: String,
    /// Its submission: the job array.
    pub submission: String,
    /// Its class.
    pub class: String,
    /// Whether it waits until others have ended.
    pub is_reserve: bool,
    /// What it runs, by its last note.
    pub running: Vec<String>,
    /// Number of instances that it has run.
    pub ran: usize,
    /// Machine and process, by its last note.
    pub process: Option<(String, u32)>,
    /// Machine, by the site's word.
    pub node: String,
    /// Whether it is over, and that was decided.
    pub is_over: bool,
    /// Whether it was ended by this program.
    pub ended_here: bool,
    /// What the user was told of it.
    pub told: BTreeSet<&'static str>,
    /// What its class had done when it was submitted.
    pub progress_before: Option<usize>,
    /// Its last words.
    pub exit: Option<ExitNote>,
    /// Memory that it was submitted with, in MiB.
    pub memory: Option<u64>,
    state: Option<JobState>,
    reason: (String, Instant),
    note_at: String,
    has_note: bool,
    changed: Instant,
    absent_since: Option<Instant>,
    is_unknown: bool,
}

impl Agent {
    fn new(line: &JobLine, job: String, name: String, now: Instant) -> Self {
        Agent {
            name,
            job,
            submission: line.job.clone(),
            class: line.class.clone(),
            is_reserve: line.why.starts_with(RESERVE),
            running: Vec::new(),
            ran: 0,
            process: None,
            node: String::new(),
            is_over: false,
            ended_here: false,
            told: BTreeSet::new(),
            progress_before: None,
            exit: None,
            memory: line.memory,
            state: None,
            reason: (String::new(), now),
            note_at: String::new(),
            has_note: false,
            changed: now,
            absent_since: None,
            is_unknown: true,
        }
    }

    /// Whether it is known to wait for a machine.
    pub fn is_queued(&self) -> bool {
        matches!(self.state, Some(JobState::Pending | JobState::Requeued))
    }

    /// Why it waits, by the site's word.
    pub fn reason(&self) -> &str {
        &self.reason.0
    }

    /// Whether the site lists it as running.
    pub fn is_running(&self) -> bool {
        self.state == Some(JobState::Running)
    }

    fn note(&mut self, note: &AgentNote, now: Instant) {
        if !self.has_note || self.note_at != note.at {
            (self.has_note, self.changed) = (true, now);
            self.note_at.clone_from(&note.at);
            self.running = note.running.iter().map(|stage| stage.stage.clone()).collect();
            self.ran = note.ran;
            self.process = Some((note.host.clone(), note.pid));
        }
    }

    fn listed(&mut self, job: &SiteJob, now: Instant) {
        let starts = job.state == JobState::Running && self.state != Some(JobState::Running);
        if starts {
            // It cannot have said anything before.
            self.changed = now;
        }
        if self.state != Some(job.state.clone()) || self.reason.0 != job.reason {
            self.reason = (job.reason.clone(), now);
        }
        if self.is_reserve && (job.state != JobState::Pending || job.reason != "Dependency") && !job.reason.is_empty() {
            self.is_reserve = job.state == JobState::Pending && job.reason == "Dependency";
        }
        if starts {
            self.is_reserve = false;
        }
        if !job.node.is_empty() {
            self.node.clone_from(&job.node);
        }
        self.state = Some(job.state.clone());
        (self.absent_since, self.is_unknown) = (None, false);
    }
}

/// All agents of a run.
#[derive(Debug, Default)]
pub struct Fleet {
    agents: BTreeMap<String, Agent>,
    decisions: Vec<Decision>,
    /// Finished epochs of trainings, by instance.
    epochs: BTreeMap<String, u32>,
    folder: Option<PathBuf>,
}

impl Fleet {
    /// Reads what earlier controllers submitted and decided.
    pub fn read(folder: &RunFolder, now: Instant) -> Self {
        let decisions = lines(&folder.path().join(DECISIONS), 64 << 20);
        let folder_path = Some(folder.path().to_owned());
        let mut fleet = Fleet { agents: BTreeMap::new(), decisions, epochs: BTreeMap::new(), folder: folder_path };
        for line in folder.jobs() {
            fleet.add(&line, now);
        }
        fleet
    }

    /// Adds the agents of a submission.
    pub fn add(&mut self, line: &JobLine, now: Instant) {
        let names: Vec<(String, String)> = match &line.agent {
            // One command, one agent.
            Some(agent) => vec![(line.job.clone(), agent.clone())],
            None => {
                (0..line.count).map(|task| format!("{}_{task}", line.job)).map(|name| (name.clone(), name)).collect()
            }
        };
        for (job, name) in names {
            let is_over = self.decisions.iter().any(|decision| decision.agent == name);
            self.agents.entry(name.clone()).or_insert_with(|| Agent { is_over, ..Agent::new(line, job, name, now) });
        }
    }

    /// Takes in what is known now. `listed` is the site's answer: `None` if it did not answer, or has no list.
    pub fn update(&mut self, folder: &RunFolder, listed: Option<&[SiteJob]>, now: Instant) {
        self.update_notes(folder, now);
        let by_name: Option<BTreeMap<&str, &SiteJob>> =
            listed.map(|jobs| jobs.iter().map(|job| (job.id.as_str(), job)).collect());
        for agent in self.agents.values_mut().filter(|agent| !agent.is_over) {
            match &by_name {
                None => agent.is_unknown = true,
                Some(jobs) => match jobs.get(agent.job.as_str()) {
                    Some(job) => agent.listed(job, now),
                    None => {
                        agent.is_unknown = false;
                        agent.state = None;
                        agent.absent_since.get_or_insert(now);
                    }
                },
            }
        }
    }

    /// Takes in the notes and the last words of the agents.
    pub fn update_notes(&mut self, folder: &RunFolder, now: Instant) {
        if self.open().next().is_none() {
            return;
        }
        for note in folder.agents() {
            for running in &note.running {
                // Counted from 1, and the current one is not finished.
                let Some(epoch) = running.progress.as_ref().and_then(|progress| progress.metrics.epoch) else {
                    continue;
                };
                let most = self.epochs.entry(running.stage.clone()).or_default();
                *most = (*most).max(epoch.saturating_sub(1));
            }
            if let Some(agent) = self.agents.get_mut(&note.name).filter(|agent| !agent.is_over) {
                agent.note(&note, now);
            }
        }
        let ended = folder.ended_agents();
        for agent in self.agents.values_mut().filter(|agent| !agent.is_over) {
            // An agent that starts again removes its last words.
            agent.exit = if ended.contains(&agent.name) { folder.exit_of(&agent.name) } else { None };
        }
    }

    /// Returns the number of finished epochs of a training, as far as its agents have told of them.
    pub fn epochs(&self, stage: &str) -> u32 {
        self.epochs.get(stage).copied().unwrap_or(0)
    }

    /// Agents that are not over.
    pub fn open(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values().filter(|agent| !agent.is_over)
    }

    /// An agent by its name.
    pub fn agent_mut(&mut self, name: &str) -> Option<&mut Agent> {
        self.agents.get_mut(name)
    }

    /// Whether a submission is known.
    pub fn knows(&self, submission: &str) -> bool {
        self.agents.values().any(|agent| agent.submission == submission)
    }

    /// What was decided.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// Puts together what is known of an agent.
    pub fn facts(&self, agent: &Agent, hang: Duration, heartbeat: Duration, now: Instant) -> Facts {
        let since = |then: Instant| now.saturating_duration_since(then);
        let seen = match (agent.is_unknown, &agent.state) {
            (true, _) => Seen::Unknown,
            (false, Some(state)) => Seen::Listed(state.clone()),
            (false, None) => Seen::Absent(agent.absent_since.map(since).unwrap_or_default()),
        };
        let may_be_memory = matches!(
            seen,
            Seen::Absent(_)
                | Seen::Listed(JobState::Failed | JobState::Cancelled | JobState::OutOfMemory | JobState::Completed)
        );
        Facts {
            memory_in_log: may_be_memory && agent.exit.is_none() && self.log_says_memory(agent),
            seen,
            reason: agent.reason.0.clone(),
            reason_for: since(agent.reason.1),
            exit: agent.exit.as_ref().map(|note| note.reason),
            started: agent.has_note,
            silent: since(agent.changed),
            ended_here: agent.ended_here,
            hang,
            heartbeat,
            is_idle: agent.running.is_empty(),
        }
    }

    /// Notes that an agent is over.
    ///
    /// # Errors
    /// [`FileError`] if the decision cannot be written.
    pub fn decide(&mut self, decision: Decision) -> Result<(), FileError> {
        if let Some(agent) = self.agents.get_mut(&decision.agent) {
            agent.is_over = true;
        }
        let result = self.folder.as_ref().map_or(Ok(()), |folder| add_line(&folder.join(DECISIONS), &decision));
        self.decisions.push(decision);
        result
    }

    /// The last lines of an agent's log.
    pub fn log_tail(&self, agent: &str) -> String {
        let Some(folder) = &self.folder else { return String::new() };
        tail(&folder.join(LOGS).join(format!("{agent}.txt"))).unwrap_or_default()
    }

    /// The last line of an agent's log that is not empty.
    pub fn last_line(&self, agent: &str) -> String {
        let tail = self.log_tail(agent);
        let last = tail.lines().rev().find(|line| !line.trim().is_empty());
        last.unwrap_or_default().trim().to_owned()
    }

    fn log_says_memory(&self, agent: &Agent) -> bool {
        let text = self.log_tail(&agent.name);
        MEMORY_WORDS.iter().any(|words| text.contains(words))
    }
}

/// Returns the folder for what agents print.
pub fn logs_folder(folder: &RunFolder) -> PathBuf {
    folder.path().join(LOGS)
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether an agent's time was over before it could begin anything.
pub fn did_nothing(agent: &Agent) -> bool {
    agent.exit.as_ref().is_some_and(|note| note.reason == ExitReason::Deadline && note.ran == 0)
}

/// Makes the folder for what agents print.
///
/// # Errors
/// [`FileError`].
pub fn make_logs_folder(folder: &RunFolder) -> Result<PathBuf, FileError> {
    let path = logs_folder(folder);
    fs::create_dir_all(&path).on("make the folder", &path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cache::Cache;
    use crate::cluster::folder::AgentNote;

    #[test]
    fn the_current_epoch_of_a_training_is_not_finished_and_none_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::of(&Cache::open(dir.path()).unwrap(), &RunFolder::new_id());
        let line = json!({"at": "", "class": "gpu", "job": "7", "count": 2, "why": ""});
        let mut fleet = Fleet::read(&folder, Instant::now());
        fleet.add(&serde_json::from_value(line).unwrap(), Instant::now());
        let mut tell = |agent: &str, epoch: Option<u32>| {
            let progress = json!({"done": 0, "total": 0, "message": "", "epoch": epoch});
            let running = json!([{"stage": "model", "kind": "train", "started": "", "progress": progress}]);
            let running = serde_json::from_value(running).unwrap();
            folder.write_agent(&AgentNote { name: agent.to_owned(), running, ..AgentNote::default() }).unwrap();
            fleet.update_notes(&folder, Instant::now());
            (fleet.epochs("model"), fleet.epochs("other"))
        };
        assert_eq!(tell("7_0", None), (0, 0));
        assert_eq!(tell("7_0", Some(5)), (4, 0));
        assert_eq!(tell("7_1", Some(2)), (4, 0), "another agent began behind");
        assert_eq!(tell("7_0", Some(1)), (4, 0));
    }
}

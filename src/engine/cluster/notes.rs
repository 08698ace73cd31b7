//! The notes in the folder of a run that agents share.

use serde::{Deserialize, Serialize};

use crate::action::ActionKey;
use crate::cache::{Blob, RunOutcome};
use crate::protocol::{Failure, StageProgress};
use crate::stage_kinds::StageKind;

/// What an agent does; rewritten while it lives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentNote {
    /// Name of the agent, unique in its run.
    pub name: String,
    /// Class of the instances that it starts.
    pub class: String,
    /// Name of its machine.
    pub host: String,
    /// Process id on its machine.
    pub pid: u32,
    /// Job of the site's scheduler, if it runs in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Start, RFC 3339 in UTC.
    pub started: String,
    /// Time of this note, RFC 3339 in UTC.
    pub at: String,
    /// End that it was given, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// CPU threads that it uses at once.
    pub jobs: usize,
    /// Devices of its workers: `cpu`, `cuda:0`; empty before the first of them is ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// Instructions that libtorch uses on its processor; empty before its first worker is ready.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub isa: String,
    /// Instances that it runs now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub running: Vec<AgentStage>,
    /// Number of instances that it has run.
    pub ran: usize,
    /// Number of instances that failed on it.
    pub failed: usize,
}

/// Instance that an agent runs now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentStage {
    /// Name of the instance.
    pub stage: String,
    /// Kind of the stage.
    pub kind: StageKind,
    /// Start, RFC 3339 in UTC.
    pub started: String,
    /// How far it is, if it has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<StageProgress>,
}

/// Reason why an agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// Nothing that it could ever do is left.
    Finished,
    /// It had nothing to do for long, while others worked.
    Idle,
    /// Its time was over, or what was left of it was too short for any stage.
    Deadline,
    /// The run was cancelled.
    Cancelled,
    /// The cache cannot be used from its machine: the disk is full or broken, or a file handle is stale.
    Storage,
    /// It could not work at all: its worker does not start, for example.
    Failed,
}

impl ExitReason {
    /// Returns the name, as it is in notes.
    pub fn name(self) -> &'static str {
        match self {
            ExitReason::Finished => "finished",
            ExitReason::Idle => "idle",
            ExitReason::Deadline => "deadline",
            ExitReason::Cancelled => "cancelled",
            ExitReason::Storage => "storage",
            ExitReason::Failed => "failed",
        }
    }
}

/// Last words of an agent. A killed agent leaves none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExitNote {
    /// Name of the agent.
    pub name: String,
    /// Class of the instances that it started.
    pub class: String,
    /// Name of its machine.
    pub host: String,
    /// Process id on its machine.
    pub pid: u32,
    /// Job of the site's scheduler, if it ran in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Start, RFC 3339 in UTC.
    pub started: String,
    /// End, RFC 3339 in UTC.
    pub at: String,
    /// Why it ended.
    pub reason: ExitReason,
    /// Exit code of its process.
    pub code: i32,
    /// What went wrong, or a few words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Peak resident memory of the agent and its workers, in bytes; 0 where the system does not tell.
    #[serde(default)]
    pub peak_memory: u64,
    /// Number of instances that it ran.
    pub ran: usize,
    /// Number of instances that failed on it.
    pub failed: usize,
}

/// An instance that failed for good: no other agent tries it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailureNote {
    /// Key of the instance.
    pub key: ActionKey,
    /// Name of the instance.
    pub stage: String,
    /// Kind of the stage.
    pub kind: StageKind,
    /// The failure.
    pub failure: Failure,
    /// Its log, a blob of the cache.
    pub log: Blob,
    /// Agent that tried it last.
    pub agent: String,
    /// Name of that agent's machine.
    pub host: String,
    /// Time, RFC 3339 in UTC.
    pub at: String,
    /// Duration in seconds.
    pub seconds: f64,
}

/// One submission of agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLine {
    /// Time, RFC 3339 in UTC.
    pub at: String,
    /// Class of the agents.
    pub class: String,
    /// Job, as the site's scheduler names it.
    pub job: String,
    /// Number of agents.
    pub count: usize,
    /// Why they were submitted.
    pub why: String,
    /// Memory of each agent in MiB, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Name of the agent, where the site's names of jobs do not become names of agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnd {
    /// Time, RFC 3339 in UTC.
    pub at: String,
    /// Outcome.
    pub outcome: RunOutcome,
}

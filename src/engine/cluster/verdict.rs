//! What became of an agent, from what is seen of it: one pure function from facts to a verdict.
//!
//! The truth about results is in the cache; a verdict only decides whether agents are ended or started. Where a site
//! says nothing certain, nothing is done. `docs/cluster.md` has each row of [`judge`] with the test that shows it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::folder::ExitReason;
use super::site::JobState;

/// An agent writes its note at least this often.
pub const HEARTBEAT: Duration = Duration::from_secs(30);

/// An idle agent writes its note so much more rarely.
const IDLE_RATIO: u32 = 10;

/// A job may wait so long for a reason that somebody has to change before the user is told what to change.
const LONG_WAIT: Duration = Duration::from_secs(600);

/// What the site says of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It lists the job.
    Listed(JobState),
    /// It has answered for so long without naming the job.
    Absent(Duration),
    /// It did not answer, or has no command that lists jobs.
    Unknown,
}

/// All that is known of an agent.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What the site says.
    pub seen: Seen,
    /// The site's reason, as it gives it; empty for none.
    pub reason: String,
    /// How long it has given this reason.
    pub reason_for: Duration,
    /// The last words of the agent.
    pub exit: Option<ExitReason>,
    /// Whether the agent has ever written a note.
    pub started: bool,
    /// How long ago its note last changed, by the clock of whoever looks; since the look began, if it never did.
    pub silent: Duration,
    /// Whether its log says that it was ended for its memory.
    pub memory_in_log: bool,
    /// Whether this program itself ended the job.
    pub ended_here: bool,
    /// The silence after which an agent hangs, by its class.
    pub hang: Duration,
    /// Interval between two notes of an agent that runs something.
    pub heartbeat: Duration,
    /// Whether it runs nothing, by its last note: then it writes a tenth as many.
    pub is_idle: bool,
}

/// What follows from the facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to do.
    Wait,
    /// It waits for a machine; the reason may be shown.
    Queued(String),
    /// It waits, and will until somebody changes something.
    Advise(&'static str),
    /// It is silent: something may be wrong with its machine or the file system.
    Silent,
    /// It has been silent for too long: it is to be ended.
    Hangs,
    /// The site says a word without a meaning here.
    Strange(String),
    /// It is over.
    Over(Ending),
}

/// How an agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It ended by itself, with nothing left to do or after waiting in vain.
    Clean,
    /// Its time was over. What it had begun is kept.
    Deadline,
    /// Its machine was needed for something else.
    TakenAway,
    /// Its machine failed.
    NodeFailed,
    /// It ran out of memory.
    Memory,
    /// A person, or the run, ended it.
    Cancelled,
    /// It was ended here because it hung.
    Hung,
    /// The cache could not be used from its machine.
    Storage,
    /// It could not work at all.
    Broken,
    /// It is gone without a word.
    Lost,
}

/// What is done after an agent's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// Nothing: if there is work, agents are started for it anyway, and nobody is to blame.
    Free,
    /// Another agent may start, on another machine.
    Exclude,
    /// Another agent may start, with more memory.
    MoreMemory,
    /// Another agent may start, and this is one of few tries.
    Charge,
    /// No agent of the class is started for a while.
    Pause,
    /// The whole run ends: a person wanted that.
    StopRun,
}

/// Tells what became of an agent.
pub fn judge(facts: &Facts) -> Verdict {
    use JobState as S;
    let listed = match &facts.seen {
        Seen::Listed(state) => Some(state),
        Seen::Absent(_) | Seen::Unknown => None,
    };
    // A job that waits or runs is not over, whatever an earlier start of it wrote.
    match listed {
        Some(S::Pending) => return queued(facts),
        Some(S::Requeued) => return Verdict::Queued("requeued".to_owned()),
        Some(S::Running) => return running(facts),
        _ => {}
    }
    if let Some(reason) = facts.exit {
        return Verdict::Over(by_its_words(reason, listed, facts));
    }
    match (&facts.seen, listed) {
        (Seen::Absent(since), _) => absent(facts, *since),
        // Leases tell who is alive.
        (Seen::Unknown, _) => match facts.started && facts.silent > facts.hang {
            true => Verdict::Over(Ending::Lost),
            false => Verdict::Wait,
        },
        (Seen::Listed(_), None) => Verdict::Wait,
        (_, Some(_)) if facts.ended_here => Verdict::Over(Ending::Hung),
        (_, Some(S::OutOfMemory)) => Verdict::Over(Ending::Memory),
        (_, Some(S::TimedOut)) => Verdict::Over(Ending::Deadline),
        (_, Some(S::Preempted)) => Verdict::Over(Ending::TakenAway),
        (_, Some(S::NodeFailed)) => Verdict::Over(Ending::NodeFailed),
        (_, Some(S::Failed | S::Cancelled | S::Completed)) if facts.memory_in_log => Verdict::Over(Ending::Memory),
        (_, Some(S::Cancelled)) => Verdict::Over(Ending::Cancelled),
        (_, Some(S::Failed)) => Verdict::Over(Ending::Broken),
        // Its last words may be on their way through a network file system.
        (_, Some(S::Completed)) => match facts.silent > 2 * facts.heartbeat {
            true => Verdict::Over(Ending::Lost),
            false => Verdict::Wait,
        },
        (_, Some(S::Other(word))) => Verdict::Strange(word.clone()),
        (_, Some(S::Pending | S::Requeued | S::Running)) => Verdict::Wait,
    }
}

fn queued(facts: &Facts) -> Verdict {
    match advice(&facts.reason) {
        Some(advice) if facts.reason_for >= LONG_WAIT => Verdict::Advise(advice),
        _ => Verdict::Queued(facts.reason.clone()),
    }
}

fn running(facts: &Facts) -> Verdict {
    // An agent that has just started has no note, and its machine may read the programs through a slow network.
    let patience = 3 * if facts.started && facts.is_idle { IDLE_RATIO * facts.heartbeat } else { facts.heartbeat };
    if facts.silent >= facts.hang.max(patience) {
        return Verdict::Hangs;
    }
    if facts.started && facts.silent >= patience { Verdict::Silent } else { Verdict::Wait }
}

fn absent(facts: &Facts, since: Duration) -> Verdict {
    // The site forgets jobs some time after their end: then the agent's own words count, and after them its silence.
    if facts.silent <= 2 * facts.heartbeat || since <= 2 * facts.heartbeat {
        return Verdict::Wait;
    }
    Verdict::Over(match (facts.ended_here, facts.memory_in_log) {
        (true, _) => Ending::Hung,
        (false, true) => Ending::Memory,
        (false, false) => Ending::Lost,
    })
}

fn by_its_words(reason: ExitReason, listed: Option<&JobState>, facts: &Facts) -> Ending {
    match reason {
        ExitReason::Finished | ExitReason::Idle => Ending::Clean,
        // On TERM an agent cannot tell whose it is: the site can.
        ExitReason::Deadline | ExitReason::Cancelled if facts.ended_here => Ending::Hung,
        ExitReason::Deadline if listed == Some(&JobState::Cancelled) => Ending::Cancelled,
        ExitReason::Deadline if listed == Some(&JobState::Preempted) => Ending::TakenAway,
        ExitReason::Deadline if listed == Some(&JobState::NodeFailed) => Ending::NodeFailed,
        ExitReason::Deadline => Ending::Deadline,
        ExitReason::Cancelled => Ending::Cancelled,
        ExitReason::Storage => Ending::Storage,
        ExitReason::Failed => Ending::Broken,
    }
}

/// What an end means for the agents to come.
pub fn consequence(ending: Ending) -> Consequence {
    match ending {
        Ending::Clean | Ending::Deadline | Ending::TakenAway => Consequence::Free,
        Ending::NodeFailed => Consequence::Exclude,
        Ending::Memory => Consequence::MoreMemory,
        Ending::Hung | Ending::Broken | Ending::Lost => Consequence::Charge,
        Ending::Storage => Consequence::Pause,
        Ending::Cancelled => Consequence::StopRun,
    }
}

/// What somebody has to change for a job to start; `None` for reasons that pass by themselves.
fn advice(reason: &str) -> Option<&'static str> {
    let begins = |prefix: &str| reason.starts_with(prefix);
    match reason {
        "PartitionTimeLimit" => Some("the partition allows less time: write a shorter `time`, or another `partition`"),
        "PartitionNodeLimit" => Some("the partition allows fewer nodes: write another `partition`"),
        "PartitionDown" | "PartitionInactive" => Some("the partition is closed: write another `partition`, or wait"),
        "InvalidAccount" => Some("the account cannot be used: write another `account`"),
        "InvalidQOS" => Some("the quality of service cannot be used: write another `qos`"),
        "BadConstraints" => Some("no node fits: ask for less in `gres`, `memory`, `cpus` or `sbatch`"),
        "JobHeldUser" | "JobHeldAdmin" => Some("the job is held: `scontrol release JOB` lets it start"),
        "DependencyNeverSatisfied" => Some("what it waits for failed: cancel the run and run it again"),
        "JobLaunchFailure" | "launch_failed_requeued_held" => {
            Some("it could not be started: `scontrol show job JOB` and the log of the node tell why")
        }
        _ if begins("ReqNodeNotAvail") => Some("its nodes are down or reserved: take them out of `sbatch`, or wait"),
        _ if begins("AssocGrp") || begins("AssocMax") || begins("QOSGrp") => {
            Some("a limit of the account is reached: lower `max_agents`, or write another `account`")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// An agent that started, wrote a note a moment ago, and has no last words.
    fn facts(seen: Seen) -> Facts {
        Facts {
            seen,
            reason: String::new(),
            reason_for: Duration::ZERO,
            exit: None,
            started: true,
            silent: SECOND,
            memory_in_log: false,
            ended_here: false,
            hang: 600 * SECOND,
            heartbeat: HEARTBEAT,
            is_idle: false,
        }
    }

    fn listed(state: JobState) -> Facts {
        facts(Seen::Listed(state))
    }

    fn over(facts: &Facts) -> Ending {
        match judge(facts) {
            Verdict::Over(ending) => ending,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn last_words_count_whatever_the_site_says() {
        for seen in [
            Seen::Listed(JobState::Completed),
            Seen::Listed(JobState::Failed),
            Seen::Listed(JobState::Other("SPECIAL_EXIT".to_owned())),
            Seen::Absent(SECOND),
            Seen::Unknown,
        ] {
            for (words, ending) in [
                (ExitReason::Finished, Ending::Clean),
                (ExitReason::Idle, Ending::Clean),
                (ExitReason::Deadline, Ending::Deadline),
                (ExitReason::Cancelled, Ending::Cancelled),
                (ExitReason::Storage, Ending::Storage),
                (ExitReason::Failed, Ending::Broken),
            ] {
                assert_eq!(over(&Facts { exit: Some(words), ..facts(seen.clone()) }), ending, "{seen:?}");
            }
        }
    }

    #[test]
    fn an_idle_end_has_no_consequence() {
        let ending = over(&Facts { exit: Some(ExitReason::Idle), ..listed(JobState::Completed) });
        assert_eq!(consequence(ending), Consequence::Free);
    }

    #[test]
    fn a_running_agent_is_waited_for_then_told_of_then_ended() {
        let silent = |seconds| judge(&Facts { silent: seconds * SECOND, ..listed(JobState::Running) });
        assert_eq!(
            [0, 89, 90, 599, 600].map(silent),
            [Verdict::Wait, Verdict::Wait, Verdict::Silent, Verdict::Silent, Verdict::Hangs]
        );
        let idle = |seconds| judge(&Facts { silent: seconds * SECOND, is_idle: true, ..listed(JobState::Running) });
        assert_eq!([599, 899, 900].map(idle), [Verdict::Wait, Verdict::Wait, Verdict::Hangs]);
        // Without any note, its machine may still be reading the program.
        let new = |seconds| judge(&Facts { started: false, silent: seconds * SECOND, ..listed(JobState::Running) });
        assert_eq!([100, 600].map(new), [Verdict::Wait, Verdict::Hangs]);
        let ended = Facts { ended_here: true, ..listed(JobState::Cancelled) };
        assert_eq!((over(&ended), consequence(Ending::Hung)), (Ending::Hung, Consequence::Charge));
        let with_words = Facts { exit: Some(ExitReason::Deadline), ..ended };
        assert_eq!(over(&with_words), Ending::Hung);
    }

    #[test]
    fn a_waiting_job_is_shown_with_its_reason_and_told_of_if_somebody_must_act() {
        let of = |reason: &str, seconds: u32| {
            let (reason, reason_for) = (reason.to_owned(), seconds * SECOND);
            judge(&Facts { reason, reason_for, started: false, silent: reason_for, ..listed(JobState::Pending) })
        };
        for reason in ["Priority", "Resources", "QOSMaxJobsPerUserLimit", "JobArrayTaskLimit", "Dependency", ""] {
            assert_eq!(of(reason, 100_000), Verdict::Queued(reason.to_owned()));
        }
        let needs_somebody = [
            "ReqNodeNotAvail, UnavailableNodes:node1",
            "PartitionTimeLimit",
            "InvalidAccount",
            "AssocGrpCpuLimit",
            "AssocGrpGRES",
            "BadConstraints",
            "JobHeldUser",
        ];
        for reason in needs_somebody {
            assert_eq!(of(reason, 599), Verdict::Queued(reason.to_owned()));
            assert!(matches!(of(reason, 600), Verdict::Advise(_)), "{reason}");
        }
    }

    #[test]
    fn the_end_of_the_time_is_free() {
        assert_eq!(over(&listed(JobState::TimedOut)), Ending::Deadline);
        let on_term = Facts { exit: Some(ExitReason::Deadline), ..listed(JobState::Completed) };
        assert_eq!((over(&on_term), consequence(Ending::Deadline)), (Ending::Deadline, Consequence::Free));
    }

    #[test]
    fn what_was_taken_away_starts_again_and_is_free() {
        assert_eq!(over(&listed(JobState::Preempted)), Ending::TakenAway);
        assert_eq!(consequence(Ending::TakenAway), Consequence::Free);
        // It starts again under its name: what its first start wrote does not end it.
        let words = Facts { exit: Some(ExitReason::Deadline), ..listed(JobState::Requeued) };
        assert_eq!(judge(&words), Verdict::Queued("requeued".to_owned()));
        let again = Facts { exit: Some(ExitReason::Deadline), ..listed(JobState::Running) };
        assert_eq!(judge(&again), Verdict::Wait);
        let preempted = Facts { exit: Some(ExitReason::Deadline), ..listed(JobState::Preempted) };
        assert_eq!(over(&preempted), Ending::TakenAway);
    }

    #[test]
    fn a_failed_node_is_left_out() {
        assert_eq!(over(&listed(JobState::NodeFailed)), Ending::NodeFailed);
        // A node that is taken down may still tell its jobs to stop.
        let on_term = Facts { exit: Some(ExitReason::Deadline), ..listed(JobState::NodeFailed) };
        assert_eq!(over(&on_term), Ending::NodeFailed);
        assert_eq!(consequence(Ending::NodeFailed), Consequence::Exclude);
    }

    #[test]
    fn too_little_memory_is_told_from_other_ends() {
        assert_eq!(over(&listed(JobState::OutOfMemory)), Ending::Memory);
        // Without control groups, Slurm says FAILED or CANCELLED, and the log says why.
        for state in [JobState::Failed, JobState::Cancelled] {
            assert_eq!(over(&Facts { memory_in_log: true, ..listed(state) }), Ending::Memory);
        }
        let forgotten = Facts { memory_in_log: true, silent: 61 * SECOND, ..facts(Seen::Absent(61 * SECOND)) };
        assert_eq!(over(&forgotten), Ending::Memory);
        assert_eq!(consequence(Ending::Memory), Consequence::MoreMemory);
    }

    #[test]
    fn an_agent_that_cannot_work_is_one_of_few_tries() {
        assert_eq!(over(&listed(JobState::Failed)), Ending::Broken);
        assert_eq!(consequence(Ending::Broken), Consequence::Charge);
    }

    #[test]
    fn what_a_person_cancels_stays_cancelled() {
        assert_eq!(over(&listed(JobState::Cancelled)), Ending::Cancelled);
        let on_term = Facts { exit: Some(ExitReason::Deadline), ..listed(JobState::Cancelled) };
        assert_eq!((over(&on_term), consequence(Ending::Cancelled)), (Ending::Cancelled, Consequence::StopRun));
    }

    #[test]
    fn a_strange_word_is_told_and_nothing_is_done() {
        for word in ["DEADLINE", "REVOKED", "SPECIAL_EXIT", "NEW_IN_30"] {
            assert_eq!(judge(&listed(JobState::Other(word.to_owned()))), Verdict::Strange(word.to_owned()));
        }
    }

    #[test]
    fn a_forgotten_job_is_lost_after_two_heartbeats() {
        let of =
            |since: u32, silent: u32| judge(&Facts { silent: silent * SECOND, ..facts(Seen::Absent(since * SECOND)) });
        assert_eq!(of(1000, 1), Verdict::Wait, "it lives, whatever the site has forgotten");
        assert_eq!(of(60, 1000), Verdict::Wait);
        assert_eq!(of(61, 61), Verdict::Over(Ending::Lost));
        assert_eq!(consequence(Ending::Lost), Consequence::Charge);
        // It ended well, and its last words never arrived.
        let completed = |seconds| judge(&Facts { silent: seconds * SECOND, ..listed(JobState::Completed) });
        assert_eq!([60, 61].map(completed), [Verdict::Wait, Verdict::Over(Ending::Lost)]);
    }

    #[test]
    fn while_the_site_is_away_leases_tell() {
        assert_eq!(judge(&facts(Seen::Unknown)), Verdict::Wait);
        let waiting = Facts { started: false, silent: 100_000 * SECOND, ..facts(Seen::Unknown) };
        assert_eq!(judge(&waiting), Verdict::Wait, "it may be in the queue");
        let silent = Facts { silent: 601 * SECOND, ..facts(Seen::Unknown) };
        assert_eq!(over(&silent), Ending::Lost);
    }

    #[test]
    fn a_cache_that_cannot_be_used_pauses_the_class() {
        let ending = over(&Facts { exit: Some(ExitReason::Storage), ..listed(JobState::Failed) });
        assert_eq!((ending, consequence(ending)), (Ending::Storage, Consequence::Pause));
    }
}

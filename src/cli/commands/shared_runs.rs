//! Runs on a cluster as `status` shows them, from any machine that sees the cache.

use atflow::cache::{Cache, RunId, RunOutcome};
use atflow::cluster::board::Board;
use atflow::cluster::folder::{AgentNote, RunFolder};
use atflow::plain::plain;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cluster_run::Attached;
use crate::progress::pace_words;
use crate::report::CliError;
use crate::ui;

/// So many running stages of a run are listed unless all are asked for.
const SHOWN: usize = 8;

/// An agent whose note is older may be gone: it writes one every 30 s, and a network file system may show it late.
const LONGEST_SILENCE: f64 = 120.0;

/// State of a run that agents share.
pub(super) struct SharedRun {
    folder: RunFolder,
    pipeline: String,
    profile: Option<String>,
    user: Option<String>,
    since: String,
    done: usize,
    failed: usize,
    wanted: usize,
    /// Agents that have not said that they ended.
    agents: Vec<AgentNote>,
    ended_agents: usize,
    submitted: usize,
    /// The outcome, if nothing is left to do.
    over: Option<RunOutcome>,
}

/// Returns the runs that have not ended. Notes the end of those that are over and whose controller is gone.
pub(super) fn live(cache: &Cache) -> Vec<Result<SharedRun, (RunId, CliError)>> {
    let live = RunFolder::all(cache).into_iter().filter(RunFolder::is_live);
    live.map(|folder| SharedRun::of(cache, &folder).map_err(|error| (folder.id().clone(), error))).collect()
}

/// Notes the end of a run, unless another controller does. Returns whether it is noted.
pub(super) fn note_end(cache: &Cache, run: &Attached, outcome: RunOutcome) -> Result<bool, CliError> {
    let Some(_lease) = atflow::cluster::controller::take_over(cache, &run.folder)? else { return Ok(false) };
    if !run.folder.is_live() {
        return Ok(true);
    }
    let mut board = Board::new(run.context(cache), &run.plan.goals, &run.since)?;
    board.look(&run.folder.failed_keys().into_iter().collect(), None)?;
    cache.remember(&board.record(run.plan.about.clone(), outcome, &run.folder.failures()))?;
    run.folder.end(outcome).map_err(atflow::cache::CacheError::from)?;
    Ok(true)
}

impl SharedRun {
    fn of(cache: &Cache, folder: &RunFolder) -> Result<Self, CliError> {
        let run = Attached::read(folder)?;
        let cache = &folder.cache(cache)?;
        let mut board = Board::new(run.context(cache), &run.plan.goals, &run.since)?;
        board.look(&folder.failed_keys().into_iter().collect(), None)?;
        let summary = board.summary();
        let over = board.is_over().then(|| board.outcome());
        if let Some(outcome) = over {
            // It is noted the next time if the cache cannot be written.
            _ = note_end(cache, &run, outcome);
        }
        let exits = folder.ended_agents();
        let (ended, agents): (Vec<_>, Vec<_>) =
            folder.agents().into_iter().partition(|note| exits.contains(&note.name));
        let about = &run.plan.about;
        Ok(SharedRun {
            folder: folder.clone(),
            pipeline: about.pipeline.clone(),
            profile: about.profile.clone(),
            user: about.user.clone(),
            since: run.since.clone(),
            done: summary.ran + summary.cached,
            failed: summary.failed,
            wanted: run.plan.goals.wanted.marked().count(),
            agents,
            ended_agents: ended.len(),
            submitted: folder.jobs().iter().map(|line| line.count).sum(),
            over,
        })
    }

    /// The state for programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "run": self.folder.id().short(), "folder": self.folder.path(), "pipeline": self.pipeline,
            "profile": self.profile, "since": self.since, "stages": self.wanted, "done": self.done,
            "failed": self.failed, "agents": self.agents, "agents_ended": self.ended_agents,
            "agents_submitted": self.submitted, "is_cancelled": self.folder.is_cancelled(),
            "outcome": self.over,
        })
    }

    /// The state for people.
    pub(super) fn words(&self, all: bool) -> String {
        let profile = self.profile.iter().map(|profile| format!(" --profile {profile}")).collect::<String>();
        let user = self.user.iter().map(|user| format!(" by {user}")).collect::<String>();
        let (short, since) = (self.folder.id().short(), ui::moment(&self.since));
        let mut text = format!("{}{profile}: run {short} on a cluster{user}, since {since}\n", self.pipeline);
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        text.push_str(&format!("  {} of {} stages done{failed}\n", self.done, self.wanted));
        if self.over.is_some() {
            text.push_str("  it is over\n");
            return text;
        }
        if self.folder.is_cancelled() {
            text.push_str("  it is cancelled\n");
        }
        let silent = self.agents.iter().filter(|note| age(&note.at).is_some_and(|age| age > LONGEST_SILENCE)).count();
        let waiting = self.submitted.saturating_sub(self.agents.len() + self.ended_agents);
        let counts = [
            (self.agents.len() - silent, "at work"),
            (silent, "silent for more than two minutes"),
            (waiting, "not started"),
            (self.ended_agents, "ended"),
        ];
        let parts: Vec<String> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        text.push_str(&format!("  agents: {}\n", if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }));
        let running: Vec<String> = self
            .agents
            .iter()
            .flat_map(|note| note.running.iter().map(move |stage| (note, stage)))
            .map(|(note, stage)| {
                let mut parts = vec![stage.stage.clone()];
                if let Some(progress) = &stage.progress {
                    if progress.total > 0 {
                        parts.push(format!("{:3.0} %", 100.0 * progress.done as f64 / progress.total as f64));
                    }
                    parts.push(progress.message.replace('\n', " "));
                    parts.push(pace_words(progress));
                }
                parts.retain(|part| !part.is_empty());
                parts.push(format!("(agent {} on {})", note.name, note.host));
                plain(&parts.join("  ")).into_owned()
            })
            .collect();
        let shown = if all { running.len() } else { running.len().min(SHOWN) };
        for line in &running[..shown] {
            text.push_str(&format!("    {line}\n"));
        }
        if running.len() > shown {
            text.push_str(&format!("    and {} more running; --all lists them\n", running.len() - shown));
        }
        if self.agents.len() == silent && waiting == 0 {
            text.push_str("  no agent is left: the command that began the run submits more\n");
        }
        text
    }
}

/// Seconds since a moment, by this machine's clock.
fn age(at: &str) -> Option<f64> {
    let at: Timestamp = at.parse().ok()?;
    Some(Timestamp::now().duration_since(at).as_secs_f64())
}

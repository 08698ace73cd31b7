//! One JSON object a line on standard output. The names are fixed: other tools rely on them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use atflow::event::{RunEvent, RunSummary, Status};
use atflow::verify::reproduce::Reproduction;
use serde_json::json;

use crate::report::eprint;
use crate::ui;

/// The display for programs.
#[derive(Default)]
pub(crate) struct JsonLines {
    so_far: SoFar,
}

/// How far a run is, for its last line when it has to end without a word of its own.
#[derive(Clone)]
pub(crate) struct SoFar {
    started: Instant,
    /// How many stages there are, and how those have ended that have.
    stages: Arc<Mutex<(usize, HashMap<String, Status>)>>,
}

impl Default for SoFar {
    fn default() -> Self {
        SoFar { started: Instant::now(), stages: Arc::default() }
    }
}

impl SoFar {
    fn note(&self, event: &RunEvent) {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let (wanted, ended) = &mut *stages;
        match event {
            RunEvent::RunStarted { wanted: count } => *wanted = *count,
            RunEvent::StageFinished { stage, status, .. } => _ = ended.insert(stage.clone(), *status),
            RunEvent::StageReopened { stage, .. } => _ = ended.remove(stage),
            _ => {}
        }
    }

    /// What a run has come to that is stopped here.
    pub(crate) fn summary(&self) -> RunSummary {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let (wanted, ended) = &*stages;
        let count = |status| ended.values().filter(|how| **how == status).count();
        let (ran, cached, failed) = (count(Status::Ran), count(Status::Cached), count(Status::Failed));
        let skipped = wanted.saturating_sub(ran + cached + failed);
        let seconds = self.started.elapsed().as_secs_f64();
        RunSummary { ran, cached, failed, skipped, seconds, interrupted: true, ..RunSummary::default() }
    }
}

/// What is told of a run beside its counts.
#[derive(Default)]
pub(crate) struct RunFacts<'a> {
    /// How results that were made anew compare with the published ones.
    pub reproduced: Option<&'a Reproduction>,
    /// Results that do not count for want of a signature, by the reason.
    pub passed_over: Option<serde_json::Value>,
    /// The results folder, its files of this run, and those that are outdated.
    pub results: Option<serde_json::Value>,
}

/// Prints the last line of a run, which says how it ended.
pub(crate) fn run_finished(summary: &RunSummary, error: Option<&str>, told: &RunFacts<'_>) {
    let RunSummary { ran, cached, failed, skipped, seconds, .. } = summary;
    let outcome = match (error, summary) {
        (Some(_), _) => "broken",
        (None, RunSummary { interrupted: true, .. }) => "interrupted",
        (None, RunSummary { failed: 1.., .. }) => "failed",
        (None, _) => "done",
    };
    let mut line = json!({
        "event": "run_finished", "outcome": outcome,
        "ran": ran, "cached": cached, "failed": failed, "skipped": skipped, "seconds": seconds,
    });
    if !summary.elsewhere.is_empty() {
        line["elsewhere"] = json!(summary.elsewhere);
    }
    if !summary.assembled.is_empty() {
        line["assembled"] = json!(summary.assembled);
    }
    if let Some(passed_over) = &told.passed_over {
        line["passed_over"] = json!(passed_over);
    }
    if let Some(results) = &told.results {
        line["results"] = json!(results);
    }
    if let Some(reproduced) = told.reproduced {
        line["reproduced"] = json!(reproduced);
    }
    if let Some(error) = error {
        line["error"] = json!(error);
    }
    print(&line);
}

fn print(line: &serde_json::Value) {
    if ui::print_data(&format!("{line}\n")).is_err() {
        eprint("cannot write to standard output\n");
    }
}

impl JsonLines {
    /// How far the run is, at any time and on any thread.
    pub(super) fn so_far(&self) -> SoFar {
        self.so_far.clone()
    }

    pub(super) fn event(&mut self, event: &RunEvent) {
        self.so_far.note(event);
        let line = match event {
            RunEvent::RunStarted { wanted } => json!({"event": "run_started", "stages": wanted}),
            RunEvent::StageStarted { stage, kind, reason } => {
                json!({"event": "stage_started", "stage": stage, "kind": kind, "reason": reason})
            }
            RunEvent::StageWaiting { stage, holder, patience } => {
                let (host, pid) = holder.as_ref().map(|holder| (&holder.host, holder.pid)).unzip();
                let patience = patience.map(|patience| patience.as_secs_f64());
                json!({"event": "stage_waiting", "stage": stage, "host": host, "pid": pid, "patience": patience})
            }
            RunEvent::StageFinished { stage, status, seconds, summary, failure } => {
                let mut line = json!({"event": "stage_finished", "stage": stage, "status": status, "seconds": seconds});
                if !summary.is_empty() {
                    line["summary"] = json!(summary);
                }
                if let Some(failure) = failure {
                    line["failure"] = json!(failure);
                }
                line
            }
            RunEvent::StageProgress { stage, done, total, message } => {
                json!({"event": "stage_progress", "stage": stage, "done": done, "total": total, "message": message})
            }
            RunEvent::StageLog { stage, line } => json!({"event": "stage_log", "stage": stage, "line": line}),
            RunEvent::Fetching { stage, done, total } if done == total => {
                json!({"event": "fetched", "stage": stage, "bytes": total})
            }
            RunEvent::Fetching { .. } => return,
            RunEvent::StageReopened { stage, output } => {
                json!({"event": "stage_reopened", "stage": stage, "output": output})
            }
            RunEvent::Warning(message) => json!({"event": "warning", "message": message}),
        };
        print(&line);
    }
}

//! One JSON object a line on standard output. The names are fixed: other tools rely on them.

use atflow::event::RunEvent;
use serde_json::json;

use crate::report::eprint;
use crate::ui;

/// The display for programs.
pub(crate) struct JsonLines;

impl JsonLines {
    pub(super) fn event(&mut self, event: &RunEvent) {
        let line = match event {
            RunEvent::RunStarted { wanted } => json!({"event": "run_started", "stages": wanted}),
            RunEvent::StageStarted { stage, kind, reason } => {
                json!({"event": "stage_started", "stage": stage, "kind": kind, "reason": reason})
            }
            RunEvent::StageWaiting { stage, holder } => {
                let (host, pid) = holder.as_ref().map(|holder| (&holder.host, holder.pid)).unzip();
                json!({"event": "stage_waiting", "stage": stage, "host": host, "pid": pid})
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
        if ui::print(&format!("{line}\n")).is_err() {
            eprint("cannot write to standard output\n");
        }
    }
}

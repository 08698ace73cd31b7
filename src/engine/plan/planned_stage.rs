//! Lines of a plan: the state of each instance, the reason for it, and how long the instance may take.

use std::borrow::Cow;

use serde::Serialize;

use super::Goals;
use super::duration::{Durations, Estimate, WorkRequest};
use super::history::History;
use super::resumption::Resumption;
use super::state::{CacheStatus, CacheStatuses, PlannedState, RerunRequest};
use crate::graph::Graph;
use crate::protocol;
use crate::spec::InstanceId;
use crate::stage_kinds::StageKind;

/// Line of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedStage {
    /// Name of the instance.
    pub name: String,
    /// Kind of the stage.
    pub kind: StageKind,
    /// State of the instance.
    pub state: PlannedState,
    /// Reason for the state, in a few words.
    pub reason: String,
    /// Duration in seconds, recorded or estimated from an earlier run of similar size, or counted. `None` without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Whether `seconds` is scaled from a run with another amount of work, or counted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
    /// Whether `seconds` comes from counted passes and the rates of this machine, and not from a run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub counted: bool,
    /// For a training that was interrupted: the epoch after which it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goes_on: Option<Resumption>,
    /// Whether the instance takes a GPU: the nearest earlier run did, or the rates are those of one.
    #[serde(skip)]
    pub on_gpu: bool,
}

/// Turns a survey into plan lines, one for each surveyed instance. `goals` must be those of the survey.
pub fn plan(graph: &Graph, status_of: &CacheStatuses, goals: &Goals, history: &History) -> Vec<PlannedStage> {
    let mut durations = Durations::new(graph, status_of, history);
    let tell = |id: InstanceId| {
        let instance = graph.instance(id);
        let status = status_of[id].as_ref()?;
        let action = match status {
            CacheStatus::Fresh(_, manifest) => Cow::Borrowed(&manifest.record),
            CacheStatus::Stale(action, _) => Cow::Borrowed(&**action),
            // Unknown inputs are left empty: they do not affect which earlier action is nearest.
            CacheStatus::Pending(_) => Cow::Owned(graph.action_by(id, |_, _| String::new(), |_| String::new())),
        };
        let is_fresh = matches!(status, CacheStatus::Fresh(..));
        let before = if is_fresh { None } else { history.nearest(instance, &action) };
        let estimate = match status {
            CacheStatus::Fresh(_, manifest) => Some(Estimate { seconds: manifest.made.seconds, is_scaled: false }),
            _ => {
                let is_whole = matches!(status, CacheStatus::Stale(..));
                durations.of(&WorkRequest { id, action: &action, is_whole, before: before.as_ref() })
            }
        };
        let goes_on = match status {
            CacheStatus::Stale(action, _) => {
                let is_rerun = goals.forced[id].is_some_and(|order| order != RerunRequest::Assemble);
                Resumption::of(history.cache(), action, is_rerun)
            }
            CacheStatus::Fresh(..) | CacheStatus::Pending(_) => None,
        };
        let mut state = status.state();
        let reason = match (status, goals.forced[id]) {
            (CacheStatus::Fresh(..), _) => "up to date".to_owned(),
            (CacheStatus::Stale(_, absence), _) => history.reason_beside(instance, &action, absence, before.as_ref()),
            // It runs whatever its producers make.
            (CacheStatus::Pending(_), Some(order)) if order != RerunRequest::Assemble => {
                state = PlannedState::Stale;
                order.words()
            }
            (CacheStatus::Pending(producer), _) => format!("needs {}", graph.instance(*producer).name),
        };
        let on_gpu = before.is_some_and(|before| protocol::is_gpu(&before.made.device));
        let share_left = goes_on.map_or(1.0, Resumption::share_left);
        let (seconds, estimated) =
            (estimate.map(|of| of.seconds * share_left), estimate.is_some_and(|of| of.is_scaled || goes_on.is_some()));
        Some(PlannedStage {
            name: instance.name.clone(),
            kind: instance.kind,
            state,
            reason,
            seconds,
            estimated,
            counted: false,
            goes_on,
            on_gpu,
        })
    };
    graph.ids().filter_map(tell).collect()
}

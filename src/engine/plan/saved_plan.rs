//! Saved plans: what the user was shown, and what changed since.
//!
//! Knows actions and states, not how a plan is shown or run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::action::{Action, ActionKey, RECORD_FORMAT};
use crate::external_inputs::ExternalInputs;
use crate::graph::Graph;
use crate::plan::difference::{self, Change};
use crate::plan::rerun_from::RerunFrom;
use crate::plan::{CacheStatus, CacheStatuses, PlannedState};
use crate::spec::InstanceId;

/// Version of the saved-plan format. Other versions are refused.
pub const PLAN_FORMAT: u32 = 1;

/// Plan as saved in a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedPlan {
    /// [`PLAN_FORMAT`].
    pub format: u32,
    /// Time of saving, RFC 3339 in UTC.
    pub at: String,
    /// Pipeline file as given.
    pub pipeline: PathBuf,
    /// Profile, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Overrides from the command line, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(String, String)>,
    /// Requested targets; empty means everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Instances forced to rerun.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub force: Vec<String>,
    /// Rerun level, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<RerunFrom>,
    /// Every instance that the targets reach, by name.
    pub stages: BTreeMap<String, SavedStage>,
}

/// Instance of a saved plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedStage {
    /// State when the plan was saved.
    pub state: PlannedState,
    /// Key, if the inputs were known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<ActionKey>,
    /// Part of its action that does not depend on other stages: everything except the inputs that they make.
    pub own: Action,
}

/// One difference from the saved plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanDrift {
    /// A stage is new.
    Added(String),
    /// A stage is gone.
    Removed(String),
    /// The own part of a stage's action changed.
    Changed {
        /// Name of the stage.
        stage: String,
        /// The difference.
        change: Change,
    },
    /// The inputs of a stage have other bytes, though no upstream stage was to run.
    Inputs(String),
    /// A result existed and is gone.
    Lost(String),
}

/// Returns the stages of a survey in the form that a saved plan holds.
pub fn stages(graph: &Graph, sources: &ExternalInputs, status_of: &CacheStatuses) -> BTreeMap<String, SavedStage> {
    let keep = |id: InstanceId| {
        let status = status_of[id].as_ref()?;
        let instance = graph.instance(id);
        let key = match status {
            CacheStatus::Fresh(key, _) => Some(*key),
            CacheStatus::Stale(record, _) => Some(record.key()),
            CacheStatus::Pending(_) => None,
        };
        let source = |need: &crate::spec::ExternalInput| (need.slot.clone(), sources.get(id, need).identity());
        let own = Action {
            format: RECORD_FORMAT,
            kind: instance.kind,
            version: instance.code_version(),
            numerics: instance.recorded_numerics(),
            params: instance.params.clone(),
            seed: instance.recorded_seed(),
            inputs: instance.sources.iter().map(source).collect(),
        };
        Some((instance.name.clone(), SavedStage { state: status.state(), key, own }))
    };
    graph.ids().filter_map(keep).collect()
}

/// Returns the changes since a saved plan that make more or other stages run than shown.
///
/// Fewer stages to run, because some of them ran meanwhile, are no change.
pub fn drift(kept: &BTreeMap<String, SavedStage>, now: &BTreeMap<String, SavedStage>) -> Vec<PlanDrift> {
    let mut moved = Vec::new();
    let mut of_keys = Vec::new();
    for (name, before) in kept {
        let Some(stage) = now.get(name) else {
            moved.push(PlanDrift::Removed(name.clone()));
            continue;
        };
        let changes = difference::changes(&before.own, &stage.own);
        let is_same = changes.is_empty();
        moved.extend(changes.into_iter().map(|change| PlanDrift::Changed { stage: name.clone(), change }));
        match (before.key, stage.key) {
            (Some(old), Some(new)) if is_same && old != new => of_keys.push(PlanDrift::Inputs(name.clone())),
            (Some(_), Some(_))
                if is_same && before.state == PlannedState::Fresh && stage.state == PlannedState::Stale =>
            {
                of_keys.push(PlanDrift::Lost(name.clone()));
            }
            _ => {}
        }
    }
    moved.extend(now.keys().filter(|name| !kept.contains_key(*name)).map(|name| PlanDrift::Added(name.clone())));
    // Changed actions imply changed keys, so key changes are reported only if no action changed.
    if moved.is_empty() { of_keys } else { moved }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::digest::Digest;
    use crate::stage_kinds::StageKind;

    fn stage(level: u32, state: PlannedState, key: Option<&str>) -> BTreeMap<String, SavedStage> {
        let params = std::sync::Arc::new(json!({ "level": level }));
        let (kind, inputs) = (StageKind::Train, BTreeMap::new());
        let own = Action { format: 1, kind, version: 1, numerics: None, params, seed: None, inputs };
        let key = key.map(|text| ActionKey(Digest::of(text.as_bytes())));
        BTreeMap::from([("a".to_owned(), SavedStage { state, key, own })])
    }

    #[test]
    fn less_to_run_is_as_shown_and_anything_else_is_not() {
        use PlannedState::{Fresh, Pending, Stale};
        let a = || "a".to_owned();
        let shown = stage(1, Stale, Some("x"));
        assert_eq!(drift(&shown, &stage(1, Fresh, Some("x"))), []);
        assert_eq!(drift(&stage(1, Pending, None), &stage(1, Stale, Some("x"))), []);
        assert_eq!(drift(&shown, &stage(1, Stale, Some("y"))), [PlanDrift::Inputs(a())]);
        assert_eq!(drift(&stage(1, Fresh, Some("x")), &shown), [PlanDrift::Lost(a())]);
        assert_eq!(drift(&shown, &BTreeMap::new()), [PlanDrift::Removed(a())]);
        assert_eq!(drift(&BTreeMap::new(), &shown), [PlanDrift::Added(a())]);
        let changed = drift(&shown, &stage(2, Stale, Some("y")));
        assert!(matches!(changed.as_slice(), [PlanDrift::Changed { change: Change::Param { .. }, .. }]), "{changed:?}");
    }
}

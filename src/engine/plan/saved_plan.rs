//! A plan that was kept: what somebody was shown, and what of it moved since. It knows records and states, not how a
//! plan is shown or run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::action::{Action, ActionKey, RECORD_FORMAT};
use crate::external_inputs::ExternalInputs;
use crate::graph::Graph;
use crate::plan::difference::{self, Change};
use crate::plan::rerun_from::RerunFrom;
use crate::plan::{PlannedState, Standing};
use crate::spec::InstanceId;

/// Version of a saved plan; others are refused.
pub const PLAN_FORMAT: u32 = 1;

/// A plan as it is kept in a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedPlan {
    /// [`PLAN_FORMAT`].
    pub format: u32,
    /// When it was made, RFC 3339 in UTC.
    pub at: String,
    /// The pipeline file as it was given.
    pub pipeline: PathBuf,
    /// The profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// What was overridden, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(String, String)>,
    /// What was asked for; everything if nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// What was forced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub force: Vec<String>,
    /// From what results were to be made anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<RerunFrom>,
    /// Every instance that the targets reach.
    pub stages: BTreeMap<String, KeptStage>,
}

/// An instance of a saved plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeptStage {
    /// How it stood.
    pub state: PlannedState,
    /// Its key, where its inputs were known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<ActionKey>,
    /// What its record holds whatever other stages make: everything but the inputs that they make.
    pub own: Action,
}

/// One thing that is not as it was when a plan was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanDrift {
    /// A stage is new.
    Added(String),
    /// A stage is gone.
    Removed(String),
    /// A stage's own record changed.
    Changed {
        /// The stage.
        stage: String,
        /// How.
        change: Change,
    },
    /// A stage's inputs hold other bytes, though nothing above it was to run.
    Inputs(String),
    /// A result was there and is gone.
    Lost(String),
}

/// The stages of a survey as they are kept.
pub fn stages(graph: &Graph, sources: &ExternalInputs, standings: &[Option<Standing>]) -> BTreeMap<String, KeptStage> {
    let keep = |id: InstanceId| {
        let standing = standings[id.0].as_ref()?;
        let instance = graph.instance(id);
        let key = match standing {
            Standing::Fresh(key, _) => Some(*key),
            Standing::Stale(record, _) => Some(record.key()),
            Standing::Pending(_) => None,
        };
        let source = |need: &crate::spec::ExternalInput| (need.slot.clone(), sources.get(id, need).identity());
        let own = Action {
            format: RECORD_FORMAT,
            kind: instance.kind,
            version: instance.kind.version(),
            numerics: instance.recorded_numerics(),
            params: instance.params.clone(),
            seed: instance.recorded_seed(),
            inputs: instance.sources.iter().map(source).collect(),
        };
        Some((instance.name.clone(), KeptStage { state: standing.state(), key, own }))
    };
    graph.ids().filter_map(keep).collect()
}

/// What moved between a saved plan and now, so that more or something else would run than was shown. That less is to
/// run, because some of it was run meanwhile, is no reason to refuse.
pub fn moved(kept: &BTreeMap<String, KeptStage>, now: &BTreeMap<String, KeptStage>) -> Vec<PlanDrift> {
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
    // Other keys follow from other records: only where no record changed are they news.
    if moved.is_empty() { of_keys } else { moved }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::digest::Digest;
    use crate::stage_kinds::StageKind;

    fn stage(level: u32, state: PlannedState, key: Option<&str>) -> BTreeMap<String, KeptStage> {
        let params = std::sync::Arc::new(json!({ "level": level }));
        let (kind, inputs) = (StageKind::Train, BTreeMap::new());
        let own = Action { format: 1, kind, version: 1, numerics: None, params, seed: None, inputs };
        let key = key.map(|text| ActionKey(Digest::of(text.as_bytes())));
        BTreeMap::from([("a".to_owned(), KeptStage { state, key, own })])
    }

    #[test]
    fn less_to_run_is_as_shown_and_anything_else_is_not() {
        use PlannedState::{Fresh, Pending, Stale};
        let a = || "a".to_owned();
        let shown = stage(1, Stale, Some("x"));
        assert_eq!(moved(&shown, &stage(1, Fresh, Some("x"))), []);
        assert_eq!(moved(&stage(1, Pending, None), &stage(1, Stale, Some("x"))), []);
        assert_eq!(moved(&shown, &stage(1, Stale, Some("y"))), [PlanDrift::Inputs(a())]);
        assert_eq!(moved(&stage(1, Fresh, Some("x")), &shown), [PlanDrift::Lost(a())]);
        assert_eq!(moved(&shown, &BTreeMap::new()), [PlanDrift::Removed(a())]);
        assert_eq!(moved(&BTreeMap::new(), &shown), [PlanDrift::Added(a())]);
        let changed = moved(&shown, &stage(2, Stale, Some("y")));
        assert!(matches!(changed.as_slice(), [PlanDrift::Changed { change: Change::Param { .. }, .. }]), "{changed:?}");
    }
}

//! Plans a run: marks every wanted instance as fresh, stale or pending, with the reason.
//!
//! The scheduler asks the same questions of one instance at a time during a run. This module runs nothing.

mod assembly;
pub mod causes;
mod counted;
pub mod diagram;
pub mod difference;
mod duration;
pub mod estimate;
mod history;
mod lookup;
mod lost;
pub mod missing;
mod planned_stage;
pub mod preview;
pub mod rerun_from;
mod resumption;
pub mod saved_plan;
mod set_shapes;
mod state;
mod survey;

use crate::cache::Cache;
use crate::external_inputs::ExternalInputs;
use crate::graph::Graph;
use crate::spec::PerInstance;
use rerun_from::RerunFrom;

pub use counted::price_by_passes;
pub use history::History;
pub use lookup::must_be_there;
pub use planned_stage::{PlannedStage, plan};
pub use resumption::Resumption;
pub use state::{CacheStatus, CacheStatuses, PlannedState, RerunRequest, StaleReason, Staleness};
pub use survey::survey;
pub(crate) use survey::waves;

/// Data in which instances are looked up.
#[derive(Debug, Clone, Copy)]
pub struct PlanContext<'a> {
    /// Instances of the pipeline.
    pub graph: &'a Graph,
    /// Cache with the results.
    pub cache: &'a Cache,
    /// Checked external files of the wanted instances.
    pub sources: &'a ExternalInputs,
}

/// What the user wants of each instance.
#[derive(Debug, Clone)]
pub struct Goals {
    /// Marks the instances that the targets reach.
    pub wanted: PerInstance<bool>,
    /// Requests to rerun instances although they are fresh.
    pub forced: PerInstance<Option<RerunRequest>>,
    /// Marks the instances whose outputs must exist at the end. For others, the manifest is enough.
    pub needed: PerInstance<bool>,
    /// Rerun level, which also forbids some instances to run.
    pub rerun_from: Option<RerunFrom>,
}

impl Goals {
    /// Returns the goals that every instance has a result, with no reruns and no required outputs.
    pub fn all_known(graph: &Graph) -> Self {
        Goals {
            wanted: graph.per_instance(true),
            forced: graph.per_instance(None),
            needed: graph.per_instance(false),
            rerun_from: None,
        }
    }

    /// Marks the instances that the rerun level forbids to run.
    pub fn forbidden(&self, graph: &Graph) -> PerInstance<bool> {
        self.rerun_from.map_or_else(|| graph.per_instance(false), |level| level.forbidden_stages(graph))
    }
}

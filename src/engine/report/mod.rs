//! What a report shows of a run: its results joined to a graph, its tables, curves, saliency maps and times.
//!
//! Everything comes from the run's record, the manifests and the blobs of the cache, and nothing from the clock. So the
//! same results give the same report.

mod events;
mod joined;
mod maps;
mod outcomes;
mod tensorboard;
mod timeline;
mod trainings;

pub use joined::{JoinedStage, RunResults};
pub use maps::{MapSheet, map_sheets};
pub use outcomes::{EvaluationOutcomes, outcomes};
pub use tensorboard::{EVENT_FILE, EventFile, event_files};
pub use timeline::{Bar, Timeline, timeline};
pub use trainings::{TrainingCurve, training_curves};

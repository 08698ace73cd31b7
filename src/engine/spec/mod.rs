//! The pipeline file: from text to instances. Knows no cache and runs nothing.
//!
//! text → [`PipelineSpec`] (keys and names checked) → [`Instance`]s (matrices multiplied out, parameters checked, references resolved).

mod check;
mod expand;
mod grid;
mod instance;
mod params;
mod pipeline;
mod problem;
mod refs;
mod schema;
mod source;
mod substitute;
mod trace;
mod yaml;

pub use expand::expand;
pub use instance::{Instance, InstanceId, Need, OutputSpec, SourceNeed};
pub use params::schema;
pub use pipeline::{Overrides, PipelineSpec};
pub use problem::{Problem, Problems, suggestion};
pub use schema::pipeline_schema;
pub use source::{Part, Place, SourceFile, Step, YamlPath};
pub use trace::{At, Written, written};

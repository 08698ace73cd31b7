//! The pipeline file: from text to instances. Knows no cache and runs nothing.
//!
//! files → [`PipelineSpec`] (keys and names checked) → [`Instance`]s (matrices multiplied out, parameters checked, references resolved).

mod build;
mod check;
mod command;
mod coordinates;
mod defaults;
mod expand;
mod fits;
mod grid;
mod headings;
mod include;
mod instance;
mod lenient;
mod matrix;
mod needs;
mod nesting;
mod notes;
mod params;
mod pattern;
mod pipeline;
mod problem;
mod published;
mod refs;
mod schema;
mod sense;
mod settings;
mod shell;
mod source;
mod stage;
mod substitute;
mod template;
mod trace;
mod transform;
mod unknown;
mod untransformed;
mod yaml;

pub use expand::expand;
pub use instance::{Instance, InstanceId, Need, OutputSpec, SourceNeed, fits_on_gpu};
pub use params::schema;
pub(crate) use pattern::Pattern;
pub use pipeline::{Overrides, PipelineSpec};
pub use problem::{Problem, Problems, suggestion};
pub use schema::pipeline_schema;
pub use source::{Part, Place, SourceFile, Step, YamlPath};
pub use trace::{At, Written, written};

//! The pipeline file: from text to instances. Knows no cache and runs nothing.
//!
//! files → [`PipelineSpec`] (keys and names checked) → [`Instance`]s (matrices multiplied out, parameters checked,
//! references resolved).

mod baseline;
mod build;
mod command;
mod coordinates;
mod defaults;
mod describe;
mod diagnostics;
mod expand;
mod fits;
mod grid;
mod headings;
mod include;
mod instance;
mod lenient;
mod load;
mod matrix;
mod mockup;
mod names;
mod needs;
mod nesting;
mod network;
mod options;
mod origin;
mod params;
mod pattern;
mod pipeline;
mod poison;
mod problem;
mod provenance;
mod published;
mod reader;
mod refs;
mod schema;
mod schema_check;
mod settings;
mod shell;
mod shown;
mod slots;
mod source;
mod stage;
mod substitute;
mod sweep;
mod template;
mod transform;
mod uses;
mod validate;
mod view;
mod watch;
mod yaml;

pub use expand::expand;
pub use instance::{ExternalInput, Instance, InstanceId, Need, OutputSpec, PerInstance, fits_on_gpu};
pub use params::schema;
pub(crate) use pattern::Pattern;
pub use pipeline::PipelineSpec;
pub use problem::{Problem, Problems, suggestion};
pub use provenance::{At, Written, written};
pub use schema::pipeline_schema;
pub use settings::Overrides;
pub use source::{Part, Place, SourceFile, Step, YamlPath};

//! `atflow schema`.

use atflow::cache::LiveRun;

use crate::args::{SchemaArgs, SchemaName};
use crate::progress::{line_schema, schema_of};
use crate::report::{CliError, Exit};
use crate::ui;

pub(crate) fn run(args: &SchemaArgs) -> Result<Exit, CliError> {
    let schema = match args.of {
        SchemaName::Pipeline => atflow::spec::pipeline_schema(),
        SchemaName::Cluster => atflow::cluster::cluster_schema(),
        SchemaName::Run => line_schema(),
        SchemaName::Status => schema_of::<LiveRun>(),
    };
    ui::print_data(&text_of(&schema))?;
    Ok(Exit::Done)
}

/// The schema of pipeline files, as editors read it.
pub(super) fn pipeline_schema_text() -> String {
    text_of(&atflow::spec::pipeline_schema())
}

fn text_of(schema: &serde_json::Value) -> String {
    serde_json::to_string_pretty(schema).unwrap_or_default() + "\n"
}

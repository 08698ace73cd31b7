//! `atflow schema`.

use atflow::cache::LiveRun;

use crate::args::{SchemaArgs, SchemaName};
use crate::progress::{line_schema, schema_of};
use crate::report::{CliError, Exit};
use crate::ui;

pub(crate) fn run(args: &SchemaArgs) -> Result<Exit, CliError> {
    let schema = match args.of {
        SchemaName::Pipeline => atflow::spec::pipeline_schema(),
        SchemaName::Run => line_schema(),
        SchemaName::Status => schema_of::<LiveRun>(),
    };
    let text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    ui::print_data(&format!("{text}\n"))?;
    Ok(Exit::Done)
}

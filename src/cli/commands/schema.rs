//! `atflow schema`.

use crate::report::{CliError, Exit};
use crate::ui;

pub(crate) fn run() -> Result<Exit, CliError> {
    let text = serde_json::to_string_pretty(&atflow::spec::pipeline_schema()).unwrap_or_default();
    ui::print_data(&format!("{text}\n"))?;
    Ok(Exit::Done)
}

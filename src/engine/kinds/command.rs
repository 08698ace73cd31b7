//! Any program as a stage.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::Text;

/// Runs a program in an empty folder. It is told where things are by `${in.NEED}`, `${file.PATH}` and `${out.NAME}` in its arguments and its
/// environment: paths relative to that folder, the same in every run. A need with several inputs gives all their paths. `ATFLOW_SEED` and
/// `ATFLOW_THREADS` are in its environment. An axis that stands at instances is an input, too, if the program asks for it by `${in.AXIS}`.
///
/// Arguments and variables may be numbers, `true` and `false`. The program sees one spelling of each, however it is written: `16` for 0x10, `0.001` for 1e-3, `1.0` for 1.0.
///
/// Needs: any names. Outputs: those declared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandParams {
    /// The program and its arguments as a list, or a line for `sh -c`.
    pub run: Run,
    /// Files that the program reads beside its needs (scripts, settings), relative to the pipeline file. Their bytes are part of the key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Variables added to the environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Text>,
    /// What the program writes: a name for each output, and the file's name in the program's folder.
    pub outputs: BTreeMap<String, String>,
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Run {
    /// Program and arguments, run as they are.
    Program(Vec<Text>),
    /// A line for the shell.
    Shell(String),
}

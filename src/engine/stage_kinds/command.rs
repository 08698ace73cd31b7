//! Any program as a stage.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::text::Text;

/// Runs a program in an empty folder. It is told where things are by `${in.NEED}`, `${file.PATH}` and `${out.NAME}` in
/// its arguments and its environment: paths relative to that folder, the same in every run. A need with several inputs
/// gives all their paths. An axis that stands at instances is an input, too, if the program asks for it by
/// `${in.AXIS}`.
///
/// Its environment is declared, so that nothing secret gets into a result by chance: `PATH`, `HOME`, `USER`, `LOGNAME`,
/// `LANG`, `LANGUAGE`, every `LC_…`, `TZ` and `TMPDIR` as they are where atflow runs, `ATFLOW_SEED` and
/// `ATFLOW_THREADS`, what `env` says, and what `pass_env` names. What a program for a GPU may need as well
/// (`CUDA_VISIBLE_DEVICES`, `LD_LIBRARY_PATH`) or one that fetches (`https_proxy`) has to be named there.
///
/// In a line for the shell, a `${name}` that stands for a value never is more than a value: one of letters, digits,
/// spaces and `_@%+=:,./-` goes in as it is, and the shell splits it at its spaces; one with any other character is put
/// in quotes, so that it is one word. Where that cannot be done safely, as within `$(…)` or a here-document, it is an
/// error: pass the value by `env`, or give program and arguments as a list. A line that is nothing but one `${name}` is
/// the line itself.
///
/// The program has ended when its process has: what it left running is ended then, and so it is when the stage is given
/// up or takes too long, in whatever session it is. Not covered is what other services run for it (containers,
/// `systemd-run`, `at`, other machines).
///
/// An output is a file of its own: folders, links, pipes and devices are refused. What a stage made has no mode: the
/// program that reads it finds it readable and not writable, and never executable. Run a script that a stage made by
/// its interpreter, as in `sh ${in.NEED}`; those of `files` can be run as they are.
///
/// Arguments and variables may be numbers, `true` and `false`. The program sees one spelling of each, however it is
/// written: `16` for 0x10, `0.001` for 1e-3, `1.0` for 1.0.
///
/// Needs: any names. Outputs: those declared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandParams {
    /// The program and its arguments as a list, or a line for `sh -c`.
    pub run: Run,
    /// Files that the program reads beside its needs (scripts, settings), relative to the pipeline file. Their bytes
    /// are part of the key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Variables of its environment, with their values. They are part of the key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Text>,
    /// Names of further variables that it is passed as they are where atflow runs, if they are set. Their values are no
    /// part of the key: a result that depends on one does not rerun when it changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pass_env: Vec<String>,
    /// What the program writes: a name for each output, and the file's name in the program's folder.
    pub outputs: BTreeMap<String, CommandOutput>,
}

/// What a program writes: the file's name in its folder. `{path: out.csv, show: my-analysis.csv}` also lays a copy
/// among the results, beside tables and figures.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CommandOutput {
    /// The file's name in the program's folder.
    File(String),
    /// A file that people look at.
    Shown(ShownOutput),
}

/// A file that a program writes, and its copy among the results.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShownOutput {
    /// The file's name in the program's folder.
    pub path: String,
    /// The copy's name in the results folder; no other result has it. The `/` of a fraction becomes `_`, so
    /// `plot-${eps}.png` may be `plot-8_255.png`. The name is no part of the key: a new name runs nothing.
    pub show: String,
}

/// Names in a results folder that no output of a command may have: the folder's manifest, the report, and the folder
/// of `atflow data`.
pub const RESERVED_RESULTS: [&str; 3] = ["atflow-results.json", "report.html", "data"];

impl CommandOutput {
    /// The file's name in the program's folder.
    pub fn path(&self) -> &str {
        match self {
            CommandOutput::File(path) => path,
            CommandOutput::Shown(output) => &output.path,
        }
    }

    /// The copy's name among the results, if there is one.
    pub fn shown(&self) -> Option<String> {
        match self {
            CommandOutput::File(_) => None,
            CommandOutput::Shown(output) => Some(without_fractions(&output.show)),
        }
    }
}

/// A result's name for people must change no key: the canonical form is the file alone.
impl Serialize for CommandOutput {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.path())
    }
}

/// A name with `_` in place of each `/` between two digits, as labels have it.
fn without_fractions(name: &str) -> String {
    let is_digit = |at: Option<usize>| at.and_then(|at| name.as_bytes().get(at)).is_some_and(u8::is_ascii_digit);
    let plain = |(at, letter): (usize, char)| match letter {
        '/' if is_digit(at.checked_sub(1)) && is_digit(at.checked_add(1)) => '_',
        other => other,
    };
    name.char_indices().map(plain).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_for_people_is_no_part_of_the_canonical_form() {
        let read = |text: &str| serde_yaml::from_str::<CommandOutput>(text).unwrap();
        let (plain, shown) = (read("out.csv"), read("{path: out.csv, show: mine.csv}"));
        assert_eq!(serde_json::to_value(&shown).unwrap(), serde_json::to_value(&plain).unwrap());
        assert_eq!((plain.shown(), shown.shown().as_deref()), (None, Some("mine.csv")));
        for (name, expected) in [("a-8/255.csv", "a-8_255.csv"), ("../8", "../8"), ("8/a", "8/a"), ("1/2/3", "1_2_3")] {
            assert_eq!(without_fractions(name), expected);
        }
    }
}

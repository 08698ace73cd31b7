//! What a program that the engine starts for a stage gets of the engine's own environment: what is declared and nothing
//! else, so that a credential of the author's does not get into a result by chance. Knows no stage.

use std::ffi::OsString;

/// Passed wherever it is set, beside every `LC_…`: where programs are, who and where the user is, and in which
/// language, zone and folder for temporary files.
const PASSED: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR"];

/// The variables that are passed, and those of `also` that are set; in the order of their names.
pub(crate) fn passed(also: &[String]) -> Vec<(OsString, OsString)> {
    let is_passed = |name: &str| PASSED.contains(&name) || name.starts_with("LC_") || also.iter().any(|it| it == name);
    let mut variables: Vec<_> = std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_passed)).collect();
    variables.sort();
    variables
}

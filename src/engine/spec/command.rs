//! Checks `${in.NEED}`, `${file.PATH}` and `${out.NAME}` in the texts of a command before anything runs.
//!
//! Their values are determined when the command runs.

use serde_yaml::Value;

use super::diagnostics::Diagnostics;
use super::origin::Origin;
use super::problem::suggestion;
use super::source::{Part, Step};
use super::stage::StageSpec;
use super::validate::key;

/// First parts of names that are filled in when the command runs.
pub(super) const RESERVED: &[&str] = &["in", "file", "out"];

/// A name such as `in.data` in a text of a command.
pub(super) struct Used<'v> {
    /// Path from the command's parameters to the text.
    trail: Vec<Step>,
    /// The name, or an error message if the reference is not closed.
    name: Result<&'v str, String>,
}

/// Returns the names in the texts of a command; its parameters need not be valid.
pub(super) fn used(with: &Value) -> Vec<Used<'_>> {
    let mut out = Vec::new();
    match with.get("run") {
        Some(Value::String(line)) => names(line, || vec![key("run")], &mut out),
        Some(Value::Sequence(words)) => {
            for (at, word) in words.iter().enumerate() {
                names(word.as_str().unwrap_or_default(), || vec![key("run"), Step::Index(at)], &mut out);
            }
        }
        _ => {}
    }
    for (name, value) in with.get("env").and_then(Value::as_mapping).into_iter().flatten() {
        let trail = || vec![key("env"), key(name.as_str().unwrap_or_default())];
        names(value.as_str().unwrap_or_default(), trail, &mut out);
    }
    out
}

fn names<'v>(text: &'v str, trail: impl Fn() -> Vec<Step>, out: &mut Vec<Used<'v>>) {
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        rest = &rest[start + 2..];
        if !RESERVED.iter().any(|word| rest.strip_prefix(word).is_some_and(|after| after.starts_with('.'))) {
            continue;
        }
        let Some(end) = rest.find('}') else {
            out.push(Used { trail: trail(), name: Err(format!("`${{{rest}` has no closing brace")) });
            break;
        };
        out.push(Used { trail: trail(), name: Ok(&rest[..end]) });
    }
}

/// Returns whether a command reads the input `in.NEED`.
pub(super) fn reads(used: &[Used], need: &str) -> bool {
    used.iter().any(|used| used.name.as_ref().is_ok_and(|name| name.strip_prefix("in.") == Some(need)))
}

/// Reports every name that the command does not have; `axes` are those over instances.
pub(super) fn check(
    stage: &StageSpec,
    axes: &[&str],
    used: &[Used],
    with: &Value,
    origin: &Origin,
    notes: &mut Diagnostics,
) {
    if used.is_empty() {
        return;
    }
    let inputs = stage.needs.iter().map(|(need, _)| need.as_str());
    let inputs = inputs.chain(axes.iter().copied()).map(|need| format!("in.{need}"));
    // If files or outputs are invalid, the valid names are unknown.
    let files = with.get("files").map_or(Some(Vec::new()), |files| {
        files.as_sequence()?.iter().map(|file| Some(format!("file.{}", file.as_str()?))).collect()
    });
    let outputs = with.get("outputs").and_then(Value::as_mapping);
    let outputs: Option<Vec<String>> =
        outputs.map(|map| map.keys().filter_map(Value::as_str).map(|output| format!("out.{output}")).collect());
    let (knows_files, knows_outputs) = (files.is_some(), outputs.is_some());
    let known: Vec<String> = inputs.chain(files.into_iter().flatten()).chain(outputs.into_iter().flatten()).collect();
    for Used { trail, name } in used {
        let name = match name {
            Ok(name) => name,
            Err(message) => {
                notes.tell_at(origin.place(trail, Part::Value), message.clone(), "here", None);
                continue;
            }
        };
        if known.iter().any(|known| known == name) {
            continue;
        }
        let (message, help) = match name.split_once('.') {
            Some(("in", _)) if stage.lost.needs || stage.lost.matrix => continue,
            Some(("out", _)) if !knows_outputs => continue,
            Some(("file", _)) if !knows_files => continue,
            Some(("in", axis)) if stage.matrix.iter().any(|candidate| candidate.name == axis) => (
                format!("`${{{name}}}`: the axis `{axis}` stands at values, not at instances, and brings in no file"),
                Some(format!("its value is `${{{axis}}}`; an axis brings in files if it is `{{each: STAGE}}`")),
            ),
            Some(("in", need)) => (format!("`${{{name}}}`: this command has no need `{need}`"), None),
            Some(("out", output)) => (format!("`${{{name}}}`: this command has no output `{output}`"), None),
            _ => (format!("`${{{name}}}`: this command does not list that file under `files`"), None),
        };
        let help = help.or_else(|| suggestion(name, known.iter().map(String::as_str)));
        notes.tell_at(origin.place(trail, Part::Value), message, "here", help);
    }
}

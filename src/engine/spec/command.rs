//! `${in.NEED}`, `${file.PATH}` and `${out.NAME}` in a command's texts, checked before anything runs. What they stand for is decided when it runs.

use super::defaults::Origin;
use super::problem::{Problem, suggestion};
use super::source::{Part, Step};
use crate::kinds::{CommandParams, Run};

/// First parts of names that a running command fills in.
pub(super) const RESERVED: &[&str] = &["in", "file", "out"];

/// The texts of a command in which such names may stand, and the way to each.
pub(super) fn texts(params: &CommandParams) -> Vec<(Vec<Step>, String)> {
    let key = |name: &str| Step::Key(name.to_owned());
    let mut texts = Vec::new();
    match &params.run {
        Run::Shell(line) => texts.push((vec![key("run")], line.clone())),
        Run::Program(words) => {
            texts.extend(words.iter().enumerate().map(|(at, word)| (vec![key("run"), Step::Index(at)], word.clone())));
        }
    }
    texts.extend(params.env.iter().map(|(name, value)| (vec![key("env"), key(name)], value.clone())));
    texts.retain(|(_, text)| text.contains("${"));
    texts
}

/// Every name in `texts` that is none of `known`, such as `in.data`.
pub(super) fn unknown_names(texts: &[(Vec<Step>, String)], known: &[String], origin: &Origin) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (trail, text) in texts {
        let mut rest = text.as_str();
        while let Some(start) = rest.find("${") {
            rest = &rest[start + 2..];
            if !RESERVED.iter().any(|word| rest.strip_prefix(word).is_some_and(|after| after.starts_with('.'))) {
                continue;
            }
            let mut problem = |message: String, help: Option<String>| {
                let place = origin.place(trail, Part::Value);
                problems.push(Problem { message, place: Some(place), label: "here".to_owned(), help });
            };
            let Some(end) = rest.find('}') else {
                problem(format!("`${{{rest}` has no closing brace"), None);
                break;
            };
            let name = &rest[..end];
            if !known.iter().any(|known| known == name) {
                let message = match name.split_once('.') {
                    Some(("in", need)) => format!("`${{{name}}}`: this command has no need `{need}`"),
                    Some(("out", output)) => format!("`${{{name}}}`: this command has no output `{output}`"),
                    _ => format!("`${{{name}}}`: this command does not list that file under `files`"),
                };
                problem(message, suggestion(name, known.iter().map(String::as_str)));
            }
        }
    }
    problems
}

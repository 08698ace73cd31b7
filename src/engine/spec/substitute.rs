//! Replaces `${name.part}` in a value by another value: a parameter, or the current value of a matrix axis.
//!
//! This is substitution, not a language. A text that is a single `${…}` takes the value as is; within a longer text the
//! value must be a scalar. `$${` is a plain `${`.

use std::borrow::Cow;

use serde_yaml::{Mapping, Value};

use super::diagnostics::Lost;
use super::poison::{is_unknown, unknown};
use super::problem::suggestion;
use super::shell::{self, Line};
use super::source::Step;
use super::template::{Token, tokens};
use super::watch::Watch;
use crate::plain::plain_line;

/// Maximum nesting of parameters within parameters; more is a mistake.
const MAX_DEPTH: usize = 50;

/// Maximum size of a substituted value, in characters and items, since nested parameters could exhaust memory.
const MAX_MADE: usize = 4 << 20;

/// Maximum number of failures reported for one value.
const MAX_FAILURES: usize = 50;

/// State of a walk through nested values.
#[derive(Default)]
struct Walk {
    /// The names being replaced, each found in the value of the one before it.
    names: Vec<String>,
    made: usize,
    failures: Vec<Failure>,
    /// Whether to stop the walk.
    is_over: bool,
    /// The shell role of the next value.
    role: Role,
}

/// Role of a value with respect to a shell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Role {
    /// Not passed to a shell.
    #[default]
    Data,
    /// The parameters of a command.
    Command,
    /// What a command runs: a shell line, or a program and its arguments.
    Run,
    /// A shell line: values inserted into it must remain values.
    Line,
}

/// The names available in `${…}`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    /// Axis values; they take precedence over parameters of the same name.
    pub axes: &'a Mapping,
    /// The pipeline's parameters.
    pub params: &'a Mapping,
    /// First parts of names that are left unchanged, for a later step to fill in.
    pub reserved: &'a [&'a str],
    /// Unreadable names, already reported.
    pub lost: &'a Lost,
    /// Whether the axes are among the unreadable names.
    pub are_axes_lost: bool,
    /// Whether the values belong to a command, and may include a shell line.
    pub is_command: bool,
    /// Notes which parameters are read.
    pub watch: Option<&'a Watch>,
}

/// Why a `${…}` could not be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SubstituteError {
    pub message: String,
    pub help: Option<String>,
}

/// A `${…}` that could not be replaced, and the path to its text.
#[derive(Debug)]
pub(super) struct Failure {
    /// Ordered from the text outwards during the walk, then from the value to the text.
    pub trail: Vec<Step>,
    pub error: SubstituteError,
    /// The parameter or axis that contains the `${…}`, if it is not in the value itself. Every user of it meets the
    /// same mistake.
    pub within: Option<String>,
}

impl Scope<'_> {
    /// Replaces every `${…}` in a value; also returns the failures, each of which leaves an unknown value.
    pub(super) fn apply<'v>(&self, value: &'v Value) -> (Cow<'v, Value>, Vec<Failure>) {
        if !has_reference(value) {
            return (Cow::Borrowed(value), Vec::new());
        }
        let role = if self.is_command { Role::Command } else { Role::Data };
        let mut walk = Walk { role, ..Walk::default() };
        let value = self.walk(value, &mut walk);
        walk.failures.iter_mut().for_each(|failure| failure.trail.reverse());
        (Cow::Owned(value), walk.failures)
    }

    fn walk(&self, value: &Value, walk: &mut Walk) -> Value {
        walk.made += 1;
        let role = std::mem::take(&mut walk.role);
        if walk.is_over {
            return unknown();
        }
        match value {
            Value::String(text) => {
                walk.made += text.len();
                if walk.made > MAX_MADE {
                    let message = format!("`${{…}}` repeats values beyond {} MB", MAX_MADE >> 20);
                    walk.fail(SubstituteError { message, help: None });
                    walk.is_over = true;
                    return unknown();
                }
                self.text(text, role, walk)
            }
            Value::Sequence(items) => {
                let word = |index: usize, back: usize| items.get(index.checked_sub(back)?)?.as_str();
                let item = |(index, item)| {
                    let is_line = role == Role::Run && shell::is_line(word(index, 2), word(index, 1));
                    walk.role = if is_line { Role::Line } else { Role::Data };
                    walk.within(|| Step::Index(index), |walk| self.walk(item, walk))
                };
                Value::Sequence(items.iter().enumerate().map(item).collect())
            }
            Value::Mapping(map) => {
                let mut out = Mapping::with_capacity(map.len());
                for (key, item) in map {
                    let step = || Step::Key(key.as_str().unwrap_or_default().to_owned());
                    let is_run = role == Role::Command && key.as_str() == Some("run");
                    walk.role = if is_run { Role::Run } else { Role::Data };
                    out.insert(key.clone(), walk.within(step, |walk| self.walk(item, walk)));
                }
                Value::Mapping(out)
            }
            other => other.clone(),
        }
    }

    fn text(&self, text: &str, role: Role, walk: &mut Walk) -> Value {
        if !text.contains("${") {
            return Value::String(text.to_owned());
        }
        let mut out =
            if matches!(role, Role::Run | Role::Line) { Out::Line(Line::new()) } else { Out::Text(String::new()) };
        let mut is_known = true;
        for token in tokens(text) {
            let (whole, name) = match token {
                Token::Text(plain) => {
                    out.add(plain);
                    continue;
                }
                Token::Open(rest) => {
                    let message = format!("`{rest}` has no closing brace");
                    walk.fail(SubstituteError { message, help: Some("write `$${` for a plain `${`".to_owned()) });
                    return unknown();
                }
                Token::Reference { whole, name } => (whole, name),
            };
            if self.reserved.contains(&name.split('.').next().unwrap_or_default()) {
                out.add_name(whole);
                continue;
            }
            // A text that is a single reference takes the role of its value, which may be a shell line.
            let is_whole = whole.len() == text.len();
            walk.role = if is_whole { role } else { Role::Data };
            let value = self.lookup(name, walk).unwrap_or_else(|error| {
                walk.fail(error);
                unknown()
            });
            walk.role = Role::Data;
            if is_whole {
                return value;
            }
            match scalar_text(&value) {
                Some(inner) if out.add_value(&inner) => {}
                Some(inner) => {
                    walk.fail(unsafe_value(name, &inner));
                    is_known = false;
                }
                None if is_unknown(&value) => is_known = false,
                None => {
                    let message = format!("`${{{name}}}` is not a plain value, so it cannot be part of a text");
                    let help = Some("let the whole value be that one `${…}`".to_owned());
                    walk.fail(SubstituteError { message, help });
                    is_known = false;
                }
            }
        }
        if is_known { Value::String(out.text()) } else { unknown() }
    }

    fn lookup(&self, name: &str, walk: &mut Walk) -> Result<Value, SubstituteError> {
        let mut parts = name.split('.');
        let first = parts.next().unwrap_or_default();
        let is_axis = self.axes.contains_key(first);
        let Some(mut value) = self.axes.get(first).or_else(|| self.params.get(first)) else {
            if self.are_axes_lost || self.lost.may_have(first) {
                return Ok(unknown());
            }
            let names = self.axes.keys().chain(self.params.keys()).filter_map(Value::as_str);
            return Err(SubstituteError {
                message: format!("`${{{name}}}` names no parameter and no axis"),
                help: suggestion(first, names),
            });
        };
        if let Some(watch) = self.watch.filter(|_| !is_axis) {
            watch.read(name);
        }
        while let Some(part) = parts.next() {
            if is_unknown(value) {
                return Ok(unknown());
            }
            // The value is itself a reference: look up the rest of the name behind it.
            if let Some(other) = value.as_str().and_then(only_reference) {
                let rest: Vec<&str> = std::iter::once(part).chain(parts).collect();
                return self.behind(name, walk, |walk| self.lookup(&format!("{other}.{}", rest.join(".")), walk));
            }
            let Some(inner) = value.as_mapping().and_then(|map| map.get(part)) else {
                let names = value.as_mapping().into_iter().flat_map(Mapping::keys).filter_map(Value::as_str);
                return Err(SubstituteError {
                    message: format!("`${{{name}}}`: there is no `{part}`"),
                    help: suggestion(part, names),
                });
            };
            value = inner;
        }
        // An axis over instances is a mapping with a label; used alone, it means the label.
        if is_axis && let Some(label) = value.as_mapping().and_then(|map| map.get(LABEL)) {
            return Ok(label.clone());
        }
        self.behind(name, walk, |walk| {
            let before = walk.failures.len();
            let value = self.walk(value, walk);
            for failure in &mut walk.failures[before..] {
                failure.trail.clear();
                failure.within = Some(first.to_owned());
            }
            Ok(value)
        })
    }

    /// Follows a name to its value, unless the name is already being replaced.
    fn behind(
        &self,
        name: &str,
        walk: &mut Walk,
        go: impl FnOnce(&mut Walk) -> Result<Value, SubstituteError>,
    ) -> Result<Value, SubstituteError> {
        if let Some(start) = walk.names.iter().position(|open| open == name) {
            let names: Vec<String> = walk.names[start..].iter().map(|open| format!("`{open}`")).collect();
            let message = match names.as_slice() {
                [one] => format!("parameter {one} refers to itself"),
                _ => format!("parameters refer to one another in a circle: {} → `{name}`", names.join(" → ")),
            };
            let help = Some("give one of them a value of its own".to_owned());
            return Err(SubstituteError { message, help });
        }
        if walk.names.len() >= MAX_DEPTH {
            let message = format!("`${{{name}}}` is more than {MAX_DEPTH} parameters deep");
            return Err(SubstituteError { message, help: None });
        }
        walk.names.push(name.to_owned());
        let value = go(walk);
        walk.names.pop();
        value
    }
}

/// The output of substituting a text.
enum Out {
    Text(String),
    Line(Line),
}

impl Out {
    fn add(&mut self, text: &str) {
        match self {
            Out::Text(out) => out.push_str(text),
            Out::Line(line) => line.add(text),
        }
    }

    fn add_name(&mut self, name: &str) {
        match self {
            Out::Text(out) => out.push_str(name),
            Out::Line(line) => line.add_name(name),
        }
    }

    fn add_value(&mut self, value: &str) -> bool {
        match self {
            Out::Text(out) => {
                out.push_str(value);
                true
            }
            Out::Line(line) => line.add_value(value),
        }
    }

    fn text(self) -> String {
        match self {
            Out::Text(out) => out,
            Out::Line(line) => line.text(),
        }
    }
}

fn unsafe_value(name: &str, value: &str) -> SubstituteError {
    let value = plain_line(value, 60);
    SubstituteError {
        message: format!("`${{{name}}}` stands where its value, `{value}`, would be part of the shell's language"),
        help: Some(
            "it has characters that are special to the shell, and quotes would not be safe here: pass it by `env`, as in \
             `env: {VALUE: \"${…}\"}`, and write `\"$VALUE\"` in the line, or give program and arguments as a list"
                .to_owned(),
        ),
    }
}

impl Walk {
    fn fail(&mut self, error: SubstituteError) {
        self.failures.push(Failure { trail: Vec::new(), error, within: None });
        self.is_over |= self.failures.len() >= MAX_FAILURES;
    }

    /// Walks one step into a value.
    fn within<T>(&mut self, step: impl Fn() -> Step, go: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.failures.len();
        let result = go(self);
        self.failures[before..].iter_mut().for_each(|failure| failure.trail.push(step()));
        result
    }
}

/// Returns a scalar as text. A number has one spelling, however it is written: 0x10 is `16`, 1e-3 is `0.001`.
pub(super) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// The key that holds an instance's label in the value of an axis over instances.
pub(super) const LABEL: &str = "\u{0}label";

/// Returns the name in a text that is a single `${name}`.
fn only_reference(text: &str) -> Option<&str> {
    let name = text.strip_prefix("${")?.strip_suffix('}')?;
    (!name.contains(['{', '}'])).then(|| name.trim())
}

fn has_reference(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("${"),
        Value::Sequence(items) => items.iter().any(has_reference),
        Value::Mapping(map) => map.values().any(has_reference),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(text: &str) -> Result<Value, String> {
        let params: Mapping = serde_yaml::from_str(
            "{eps: 8/255, n: 3, deep: {a: {b: yes}}, again: '${eps}', loop: '${loop}', round: '${round.x}'}",
        )
        .unwrap();
        let axes: Mapping =
            serde_yaml::from_str("{variant: {adversary: {attack: pgd, eps: '${eps}'}, far: '${deep}'}, n: 4}").unwrap();
        let lost = Lost::default();
        let scope = Scope {
            axes: &axes,
            params: &params,
            reserved: &["in"],
            lost: &lost,
            are_axes_lost: false,
            is_command: false,
            watch: None,
        };
        let text = Value::String(text.to_owned());
        let (value, mut failures) = scope.apply(&text);
        match failures.pop() {
            None => Ok(value.into_owned()),
            Some(failure) => Err(failure.error.message),
        }
    }

    #[test]
    fn whole_values_keep_their_type_and_texts_are_joined() {
        assert_eq!(apply("${n}").unwrap(), Value::from(4), "an axis wins over a parameter");
        assert_eq!(apply("${again}").unwrap(), Value::from("8/255"));
        assert_eq!(apply("a ${n} b ${eps}").unwrap(), Value::from("a 4 b 8/255"));
        assert_eq!(apply("${deep.a.b}").unwrap(), Value::from("yes"));
        assert_eq!(apply("${variant.far.a.b}").unwrap(), Value::from("yes"), "a part of what a parameter stands for");
        assert_eq!(apply("${variant.adversary}").unwrap()["eps"], Value::from("8/255"));
    }

    #[test]
    fn escapes_and_reserved_names_are_left() {
        assert_eq!(apply("$${n}").unwrap(), Value::from("${n}"));
        assert_eq!(apply("x ${in.data} ${n}").unwrap(), Value::from("x ${in.data} 4"));
    }

    #[test]
    fn what_cannot_be_replaced_is_an_error() {
        for text in ["${nothing}", "${deep.x}", "${n", "a ${deep}", "${loop}", "${n.x}", "${round}", "${variant.far.x}"]
        {
            assert!(apply(text).is_err(), "{text}");
        }
    }
}

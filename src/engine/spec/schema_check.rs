//! Checks a value against the JSON schema of a parameter type.
//!
//! Reports all errors of a stage at once, each at its place; deserialization alone would stop at the first and lose its
//! place. Understands only the keywords that the schemas of [`crate::stage_kinds`] use. It ignores unknown keywords,
//! and deserialization has the last word.

use serde_json::{Map, Value as Json};
use serde_yaml::Value;

use super::describe::describe;
use super::origin::Origin;
use super::poison::is_unknown;
use super::problem::{Problem, nearest, suggestion};
use super::source::{Part, Step, YamlPath};
use crate::number::Real;

/// A schema after references are followed: keywords beside a reference override those of its target.
#[derive(Clone)]
struct View<'s> {
    layers: Vec<&'s Map<String, Json>>,
    /// Limits of a choice around this schema; they take precedence.
    limits: Option<Box<View<'s>>>,
}

impl<'s> View<'s> {
    fn get(&self, key: &str) -> Option<&'s Json> {
        self.layers.iter().find_map(|layer| layer.get(key))
    }

    fn limit(&self, key: &str) -> Option<f64> {
        self.limits.as_ref().and_then(|limits| limits.limit(key)).or_else(|| self.get(key)?.as_f64())
    }
}

/// One step of the path to a value. Full paths are built only for problems.
#[derive(Clone, Copy)]
enum Crumb<'a> {
    Key(&'a str),
    Index(usize),
}

/// Collects problems while it walks a value.
struct Checker<'a> {
    /// Where the parameters are written.
    origin: &'a Origin<'a>,
    /// The schema's root, for references.
    root: &'a Json,
    /// The subject of messages: ``a stage of kind `train` ``.
    what: String,
    trail: Vec<Crumb<'a>>,
    problems: Vec<Problem>,
}

/// Returns every deviation of `value` from `schema`; `what` is the subject of messages.
pub(super) fn check(schema: &Json, value: &Value, origin: &Origin, what: String) -> Vec<Problem> {
    let mut checker = Checker { origin, root: schema, what, trail: Vec::new(), problems: Vec::new() };
    checker.check(schema, value);
    checker.problems
}

impl<'a> Checker<'a> {
    fn check(&mut self, schema: &'a Json, value: &'a Value) {
        if !is_unknown(value)
            && let Some(schema) = self.resolve(schema)
        {
            self.check_view(&schema, value);
        }
    }

    fn check_view(&mut self, schema: &View<'a>, value: &'a Value) {
        if let Some(choices) = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Json::as_array) {
            return self.check_choice(schema, choices, value);
        }
        let fits = match schema.get("type") {
            Some(Json::String(one)) => has_type(value, one),
            Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).any(|name| has_type(value, name)),
            _ => true,
        };
        if !fits {
            let expected = expected(schema);
            if expected == WHOLE_NUMBER && beyond_whole_numbers(value) {
                return self.too_large(&shown_number(value), &u64::MAX.to_string());
            }
            return self.wrong_type(&expected, value);
        }
        match value {
            Value::Mapping(map) => self.check_map(schema, map),
            Value::Sequence(items) => {
                self.check_length(schema, items.len());
                if let Some(item_schema) = schema.get("items") {
                    for (index, item) in items.iter().enumerate() {
                        self.trail.push(Crumb::Index(index));
                        self.check(item_schema, item);
                        self.trail.pop();
                    }
                }
            }
            _ => self.check_range(schema, value),
        }
    }

    /// Follows a `$ref`; keywords beside the reference override those of its target.
    fn resolve(&self, schema: &'a Json) -> Option<View<'a>> {
        let mut layers = Vec::with_capacity(2);
        let mut next = Some(schema);
        while let Some(schema) = next.take() {
            let object = schema.as_object()?;
            layers.push(object);
            if let Some(reference) = object.get("$ref").and_then(Json::as_str) {
                next = Some(self.root.pointer(reference.trim_start_matches('#'))?);
            }
        }
        Some(View { layers, limits: None })
    }

    fn check_choice(&mut self, schema: &View<'a>, choices: &'a [Json], value: &'a Value) {
        let resolved: Vec<View> = choices.iter().filter_map(|choice| self.resolve(choice)).collect();
        let words: Vec<&str> = resolved.iter().filter_map(|choice| choice.get("const")?.as_str()).collect();
        if words.len() == resolved.len() {
            self.check_word(&words, value);
        } else if let Some(tag) = tag_of(&resolved) {
            self.check_variants(tag, &resolved, value);
        } else {
            self.check_alternatives(schema, &resolved, value);
        }
    }

    /// Checks a value against an enumeration of words.
    fn check_word(&mut self, words: &[&str], value: &Value) {
        match value.as_str() {
            Some(word) if words.contains(&word) => {}
            Some(word) => self.unknown_word(word, words),
            None => self.wrong_type(&format!("one of {}", list(words)), value),
        }
    }

    /// Checks a value against variants that a key, the tag, tells apart.
    fn check_variants(&mut self, tag: &'a str, variants: &[View<'a>], value: &'a Value) {
        let words: Vec<&str> = variants.iter().filter_map(|choice| tag_value(choice, tag)).collect();
        let Some(map) = value.as_mapping() else {
            let example = format!("a mapping such as {{{tag}: {}, …}}", words.first().unwrap_or(&"…"));
            return self.wrong_type(&example, value);
        };
        let Some(given) = map.get(tag) else {
            if self.may_have_meant(tag, map, &[tag]) {
                return;
            }
            let message = format!("{} needs the parameter `{tag}`", self.what_here());
            let help = format!("add `{tag}:` with one of {}", list(&words));
            return self.problem(Part::Key, message, format!("needs `{tag}`"), Some(help));
        };
        if is_unknown(given) {
            return;
        }
        match given.as_str().and_then(|word| words.iter().position(|name| *name == word)) {
            Some(index) => self.check_view(&variants[index], value),
            None => {
                self.trail.push(Crumb::Key(tag));
                self.check_word(&words, given);
                self.trail.pop();
            }
        }
    }

    /// Checks a value against alternatives of different types: the first that accepts a value of its type applies.
    fn check_alternatives(&mut self, schema: &View<'a>, alternatives: &[View<'a>], value: &'a Value) {
        let fits = |choice: &&View| match choice.get("type") {
            Some(Json::String(name)) => has_type(value, name),
            _ => choice.get("anyOf").or_else(|| choice.get("oneOf")).is_some() && !value.is_null(),
        };
        match alternatives.iter().find(fits) {
            Some(choice) if choice.get("pattern").is_some() => {
                let text = value.as_str().unwrap_or_default();
                match Real::parse(text) {
                    Some(number) => self.check_limits(schema, number.get()),
                    None => self.wrong_type("a number such as 0.25 or a fraction such as 8/255", value),
                }
            }
            Some(choice) => {
                let mut choice = choice.clone();
                choice.limits = Some(Box::new(schema.clone()));
                self.check_view(&choice, value);
            }
            None => {
                let mut all: Vec<String> = alternatives.iter().map(expected).filter(|text| text != "null").collect();
                // A fraction is also a number: one phrase covers both.
                if all.iter().any(|text| text.starts_with("a number such as")) {
                    all.retain(|text| text != "a number");
                }
                all.dedup();
                self.wrong_type(&all.join(" or "), value);
            }
        }
    }

    fn check_map(&mut self, schema: &View<'a>, map: &'a serde_yaml::Mapping) {
        let properties = schema.get("properties").and_then(Json::as_object);
        let property = |name: &str| properties.and_then(|properties| properties.get(name));
        let open = schema.get("additionalProperties");
        for (key, value) in map {
            let Some(key) = key.as_str() else {
                let message = format!("a key must be a word; one in {} is {}", self.shown(), describe(key));
                self.problem(Part::Key, message, "in here".to_owned(), Some("write it in quotes".to_owned()));
                continue;
            };
            self.trail.push(Crumb::Key(key));
            match (property(key), open) {
                (Some(property), _) => self.check(property, value),
                (None, Some(Json::Bool(false))) => {
                    let names = properties.into_iter().flat_map(Map::keys).map(String::as_str);
                    let help = suggestion(key, names.filter(|name| !map.contains_key(*name)));
                    self.trail.pop();
                    let message = format!("{} has no parameter `{key}`", self.what_here());
                    self.trail.push(Crumb::Key(key));
                    self.problem(Part::Key, message, "unknown parameter".to_owned(), help);
                }
                (None, Some(any @ Json::Object(_))) => self.check(any, value),
                (None, _) => {}
            }
            self.trail.pop();
        }
        let known: Vec<&str> = properties.into_iter().flat_map(Map::keys).map(String::as_str).collect();
        for name in schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
            if !map.contains_key(name) && !self.may_have_meant(name, map, &known) {
                let meaning = property(name).and_then(|property| property.get("description")).and_then(Json::as_str);
                let message = format!("{} needs the parameter `{name}`", self.what_here());
                let help = meaning.map(|meaning| format!("{name}: {}", first_sentence(meaning)));
                self.problem(Part::Key, message, format!("needs `{name}`"), help);
            }
        }
    }

    /// Returns whether a missing parameter was written under another name or at another place, which is reported.
    fn may_have_meant(&self, name: &str, map: &serde_yaml::Mapping, known: &[&str]) -> bool {
        let absent = || known.iter().copied().filter(|name| !map.contains_key(*name));
        let mut strange = map.keys().filter_map(Value::as_str).filter(|key| !known.contains(key));
        let is_elsewhere = self.trail.is_empty() && self.origin.lost.may_hold(name);
        is_elsewhere || strange.any(|key| nearest(key, absent()) == Some(name))
    }

    fn check_length(&mut self, schema: &View, length: usize) {
        let least = schema.get("minItems").and_then(Json::as_u64).unwrap_or(0);
        if (length as u64) < least {
            let found = if length == 0 { "empty".to_owned() } else { format!("a list of {length}") };
            let expected = if least == 1 { "one entry".to_owned() } else { format!("{least} entries") };
            let message = format!("{} is {found}; it must have at least {expected}", self.shown());
            self.problem(Part::Value, message, format!("needs at least {expected}"), None);
        }
    }

    fn check_range(&mut self, schema: &View, value: &Value) {
        // The schema's format names the integer type, whose maximum is the limit unless the schema states one.
        if schema.get("format").and_then(Json::as_str) == Some("uint32")
            && schema.limit("maximum").is_none()
            && let Some(number) = value.as_u64().filter(|number| *number > u64::from(u32::MAX))
        {
            return self.too_large(&number.to_string(), &u32::MAX.to_string());
        }
        if let Some(number) = value.as_f64() {
            if !number.is_finite() {
                return self.wrong_type("a finite number", value);
            }
            self.check_limits(schema, number);
        }
    }

    fn too_large(&mut self, number: &str, most: &str) {
        let message = format!("{} is {number}, which is too large: at most {most}", self.shown());
        self.problem(Part::Value, message, "too large".to_owned(), None);
    }

    fn check_limits(&mut self, schema: &View, number: f64) {
        let limit = |name: &str| schema.limit(name);
        let wrong = [
            limit("minimum").filter(|limit| number < *limit).map(|limit| format!("at least {limit}")),
            limit("exclusiveMinimum").filter(|limit| number <= *limit).map(|limit| format!("above {limit}")),
            limit("maximum").filter(|limit| number > *limit).map(|limit| format!("at most {limit}")),
            limit("exclusiveMaximum").filter(|limit| number >= *limit).map(|limit| format!("below {limit}")),
        ];
        for expected in wrong.into_iter().flatten() {
            let message = format!("{} is {number}; it must be {expected}", self.shown());
            self.problem(Part::Value, message, format!("must be {expected}"), None);
        }
    }

    fn unknown_word(&mut self, word: &str, words: &[&str]) {
        let message = format!("{} cannot be `{word}`", self.shown());
        self.problem(Part::Value, message, "not known".to_owned(), suggestion(word, words.iter().copied()));
    }

    fn wrong_type(&mut self, expected: &str, value: &Value) {
        let message = format!("{} is {}; expected {expected}", self.shown(), describe(value));
        let help = match value {
            Value::Number(number) if expected == "a text" => Some(format!("write it in quotes: \"{number}\"")),
            Value::Bool(flag) if expected == "a text" => Some(format!("write it in quotes: \"{flag}\"")),
            Value::String(text) if text.trim_end().ends_with("/0") => Some("nothing can be divided by 0".to_owned()),
            _ => None,
        };
        self.problem(Part::Value, message, format!("expected {expected}"), help);
    }

    /// Adds a problem of the current value.
    fn problem(&mut self, part: Part, message: String, label: String, help: Option<String>) {
        let place = self.origin.place(&self.steps(), part);
        let mut problem = Problem::at(place, message, label);
        problem.help = help;
        self.problems.push(problem);
    }

    fn steps(&self) -> Vec<Step> {
        let step = |crumb: &Crumb| match crumb {
            Crumb::Key(key) => Step::Key((*key).to_owned()),
            Crumb::Index(index) => Step::Index(*index),
        };
        self.trail.iter().map(step).collect()
    }

    /// Returns the path of the current value for messages.
    fn shown(&self) -> String {
        match self.trail.as_slice() {
            [] => "`with`".to_owned(),
            _ => format!("`{}`", YamlPath(self.steps())),
        }
    }

    /// Returns the description of the current mapping for messages.
    fn what_here(&self) -> String {
        if self.trail.is_empty() { self.what.clone() } else { self.shown() }
    }
}

/// Phrase for the schema type `integer`.
const WHOLE_NUMBER: &str = "a whole number";

/// Returns whether a value is a number without a fraction that exceeds every integer type, so YAML reads it as a float.
pub(super) fn beyond_whole_numbers(value: &Value) -> bool {
    let is_integer = value.is_i64() || value.is_u64();
    !is_integer && value.as_f64().is_some_and(|number| number.fract() == 0.0 && number >= u64::MAX as f64)
}

fn shown_number(value: &Value) -> String {
    value.as_f64().map_or(String::new(), |number| format!("{number:e}"))
}

/// Returns the property that has a constant value in every variant.
fn tag_of<'s>(variants: &[View<'s>]) -> Option<&'s str> {
    let first = variants.first()?.get("properties")?.as_object()?;
    let is_tag = |name: &&String| variants.iter().all(|variant| tag_value(variant, name).is_some());
    first.keys().find(is_tag).map(String::as_str)
}

fn tag_value<'s>(variant: &View<'s>, tag: &str) -> Option<&'s str> {
    variant.get("properties")?.get(tag)?.get("const")?.as_str()
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_mapping(),
        "array" => value.is_sequence(),
        "string" => value.is_string(),
        "boolean" => value.is_bool(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => true,
    }
}

fn expected(schema: &View) -> String {
    if schema.get("pattern").is_some() || schema.get("anyOf").is_some() {
        return "a number such as 0.25 or a fraction such as 8/255".to_owned();
    }
    let word = match schema.get("type") {
        Some(Json::String(name)) => name.as_str(),
        Some(Json::Array(names)) => {
            names.iter().filter_map(Json::as_str).find(|name| *name != "null").unwrap_or("null")
        }
        _ => "something else",
    };
    match word {
        "object" => "a mapping",
        "array" => "a list",
        "string" => "a text",
        "boolean" => "true or false",
        "integer" => WHOLE_NUMBER,
        "number" => "a number",
        other => other,
    }
    .to_owned()
}

fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn first_sentence(text: &str) -> &str {
    let text = text.split("\n\n").next().unwrap_or(text);
    text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.')
}

//! Checks a value against the JSON schema of a parameter type, so that every error of a stage is told at its own place and in one go, where
//! deserialization alone would stop at the first and lose its place. It understands what the schemas of [`crate::kinds`] use and no more;
//! a keyword it does not know it lets pass, and deserialization has the last word.

use std::sync::Arc;

use serde_json::{Map, Value as Json};
use serde_yaml::Value;

use super::problem::Problem;
use super::source::{Place, SourceFile, YamlPath};
use crate::number::Real;

/// Where problems are collected while a value is walked.
pub(super) struct Checker<'a> {
    /// The file that the value comes from.
    pub file: &'a Arc<SourceFile>,
    /// The schema's root, for references.
    pub root: &'a Json,
    /// What is being described, for messages: ``a `train` stage``.
    pub what: String,
    /// What was found so far.
    pub problems: Vec<Problem>,
}

impl Checker<'_> {
    /// Checks `value` at `path` against `schema`, a part of the root.
    pub(super) fn check(&mut self, schema: &Json, value: &Value, path: &YamlPath) {
        let Some(schema) = self.resolve(schema) else { return };
        if let Some(choices) = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Json::as_array) {
            return self.check_choice(&schema, choices, value, path);
        }
        let types: Vec<&str> = match schema.get("type") {
            Some(Json::String(one)) => vec![one],
            Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).collect(),
            _ => Vec::new(),
        };
        if !types.is_empty() && !types.iter().any(|name| has_type(value, name)) {
            return self.wrong_type(&expected(&schema), value, path);
        }
        match value {
            Value::Mapping(map) => self.check_map(&schema, map, path),
            Value::Sequence(items) => {
                if let Some(item_schema) = schema.get("items") {
                    for (index, item) in items.iter().enumerate() {
                        self.check(item_schema, item, &path.index(index));
                    }
                }
            }
            _ => self.check_range(&schema, value, path),
        }
    }

    /// The schema that a `$ref` leads to, with what stands beside the reference laid over it.
    fn resolve(&self, schema: &Json) -> Option<Map<String, Json>> {
        let object = schema.as_object()?;
        let Some(reference) = object.get("$ref").and_then(Json::as_str) else { return Some(object.clone()) };
        let target = self.root.pointer(reference.trim_start_matches('#'))?;
        let mut merged = self.resolve(target)?;
        merged.extend(object.iter().filter(|(key, _)| *key != "$ref").map(|(key, value)| (key.clone(), value.clone())));
        Some(merged)
    }

    fn check_choice(&mut self, schema: &Map<String, Json>, choices: &[Json], value: &Value, path: &YamlPath) {
        let resolved: Vec<Map<String, Json>> = choices.iter().filter_map(|choice| self.resolve(choice)).collect();
        // An enumeration of words.
        let words: Vec<&str> = resolved.iter().filter_map(|choice| choice.get("const")?.as_str()).collect();
        if words.len() == resolved.len() {
            match value.as_str() {
                Some(word) if words.contains(&word) => {}
                Some(word) => self.unknown_word(word, &words, path),
                None => self.wrong_type(&list(&words), value, path),
            }
            return;
        }
        // Variants told apart by a tag.
        if let Some(tag) = tag_of(&resolved) {
            let Some(map) = value.as_mapping() else {
                let example = format!("a mapping with a `{tag}`");
                return self.wrong_type(&example, value, path);
            };
            let words: Vec<&str> = resolved.iter().filter_map(|choice| tag_value(choice, &tag)).collect();
            return match map.get(tag.as_str()) {
                None => {
                    let message = format!("{} needs the parameter `{tag}`", self.what);
                    let help = format!("add `{tag}:` with one of {}", list(&words));
                    let problem = Problem::at(Place::key(self.file, path.clone()), message, format!("needs `{tag}`"));
                    self.problems.push(problem.help(help));
                }
                Some(given) => match given.as_str().map(|word| (word, words.iter().position(|name| *name == word))) {
                    Some((_, Some(index))) => {
                        let chosen = Json::Object(resolved[index].clone());
                        self.check(&chosen, value, path);
                    }
                    Some((word, None)) => self.unknown_word(word, &words, &path.key(&tag)),
                    None => self.wrong_type(&list(&words), given, &path.key(&tag)),
                },
            };
        }
        // Alternatives of different types: the first that takes a value of this type is meant.
        let fits = |choice: &&Map<String, Json>| match choice.get("type") {
            Some(Json::String(name)) => has_type(value, name),
            _ => choice.get("anyOf").or_else(|| choice.get("oneOf")).is_some() && !value.is_null(),
        };
        match resolved.iter().find(fits) {
            Some(choice) if choice.contains_key("pattern") => {
                let text = value.as_str().unwrap_or_default();
                match Real::parse(text) {
                    Some(number) => self.check_limits(schema, number.get(), path),
                    None => self.wrong_type("a number such as 0.25 or a fraction such as 8/255", value, path),
                }
            }
            Some(choice) => {
                let mut choice = choice.clone();
                let limits = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"];
                let outer = schema.iter().filter(|(key, _)| limits.contains(&key.as_str()));
                choice.extend(outer.map(|(key, value)| (key.clone(), value.clone())));
                self.check(&Json::Object(choice), value, path);
            }
            None => {
                let all: Vec<String> = resolved.iter().map(expected).filter(|text| text != "null").collect();
                self.wrong_type(&all.join(" or "), value, path);
            }
        }
    }

    fn check_map(&mut self, schema: &Map<String, Json>, map: &serde_yaml::Mapping, path: &YamlPath) {
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Json::as_object).unwrap_or(&empty);
        let open = schema.get("additionalProperties");
        for (key, value) in map {
            let Some(key) = key.as_str() else {
                let place = Place::key(self.file, path.clone());
                self.problems.push(Problem::at(place, "a key must be a word", "in here"));
                continue;
            };
            match (properties.get(key), open) {
                (Some(property), _) => self.check(property, value, &path.key(key)),
                (None, Some(Json::Bool(false))) => {
                    let message = format!("{} has no parameter `{key}`", self.what);
                    let place = Place::key(self.file, path.key(key));
                    let names = properties.keys().map(String::as_str).filter(|name| !map.contains_key(*name));
                    self.problems.push(Problem::at(place, message, "unknown parameter").suggest(key, names));
                }
                (None, Some(any @ Json::Object(_))) => self.check(any, value, &path.key(key)),
                (None, _) => {}
            }
        }
        for name in schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
            if !map.contains_key(name) {
                let meaning =
                    properties.get(name).and_then(|property| property.get("description")).and_then(Json::as_str);
                let message = format!("{} needs the parameter `{name}`", self.what);
                let mut problem = Problem::at(Place::key(self.file, path.clone()), message, format!("needs `{name}`"));
                problem.help = meaning.map(|meaning| format!("{name}: {}", first_sentence(meaning)));
                self.problems.push(problem);
            }
        }
    }

    fn check_range(&mut self, schema: &Map<String, Json>, value: &Value, path: &YamlPath) {
        if let Some(number) = value.as_f64() {
            if !number.is_finite() {
                return self.wrong_type("a finite number", value, path);
            }
            self.check_limits(schema, number, path);
        }
    }

    fn check_limits(&mut self, schema: &Map<String, Json>, number: f64, path: &YamlPath) {
        let limit = |name: &str| schema.get(name).and_then(Json::as_f64);
        let wrong = [
            limit("minimum").filter(|limit| number < *limit).map(|limit| format!("at least {limit}")),
            limit("exclusiveMinimum").filter(|limit| number <= *limit).map(|limit| format!("above {limit}")),
            limit("maximum").filter(|limit| number > *limit).map(|limit| format!("at most {limit}")),
            limit("exclusiveMaximum").filter(|limit| number >= *limit).map(|limit| format!("below {limit}")),
        ];
        for expected in wrong.into_iter().flatten() {
            let message = format!("{path} is {number}; it must be {expected}");
            self.problems.push(Problem::at(
                Place::value(self.file, path.clone()),
                message,
                format!("must be {expected}"),
            ));
        }
    }

    fn unknown_word(&mut self, word: &str, words: &[&str], path: &YamlPath) {
        let message = format!("{path} cannot be `{word}`");
        let place = Place::value(self.file, path.clone());
        self.problems.push(Problem::at(place, message, "not known").suggest(word, words.iter().copied()));
    }

    fn wrong_type(&mut self, expected: &str, value: &Value, path: &YamlPath) {
        let message = format!("{path} is {}; expected {expected}", describe(value));
        self.problems.push(Problem::at(Place::value(self.file, path.clone()), message, format!("expected {expected}")));
    }
}

/// The property that every variant has with a constant value.
fn tag_of(variants: &[Map<String, Json>]) -> Option<String> {
    let first = variants.first()?.get("properties")?.as_object()?;
    let is_tag = |name: &&String| variants.iter().all(|variant| tag_value(variant, name).is_some());
    first.keys().find(is_tag).cloned()
}

fn tag_value<'a>(variant: &'a Map<String, Json>, tag: &str) -> Option<&'a str> {
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

fn expected(schema: &Map<String, Json>) -> String {
    if schema.contains_key("pattern") || schema.get("anyOf").is_some() {
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
        "integer" => "a whole number",
        "number" => "a number",
        other => other,
    }
    .to_owned()
}

/// A value in a few words, for a message.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Bool(flag) => format!("`{flag}`"),
        Value::Number(number) => format!("`{number}`"),
        Value::String(text) if text.chars().count() > 40 => "a long text".to_owned(),
        Value::String(text) => format!("the text `{text}`"),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
        Value::Tagged(tagged) => format!("tagged {}", tagged.tag),
    }
}

fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn first_sentence(text: &str) -> &str {
    let text = text.split("\n\n").next().unwrap_or(text);
    text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.')
}

//! Values of one mapping of a cluster file: texts, numbers, sizes, times. Tells what is wrong with each, and where.

use std::sync::Arc;
use std::time::Duration;

use serde_yaml::{Mapping, Value};

use crate::spec::{Place, Problem, Reader, SourceFile, YamlPath, describe, duration};

/// The fields of one mapping.
pub(super) struct Fields<'r, 'f, 'm> {
    pub reader: &'r mut Reader<'f>,
    pub map: &'m Mapping,
    pub path: YamlPath,
    /// Whose fields they are, for messages.
    pub what: String,
}

impl Fields<'_, '_, '_> {
    fn file(&self) -> &Arc<SourceFile> {
        self.reader.file
    }

    fn wrong(&mut self, key: &str, expected: &str, help: &str) {
        let of = if self.what.is_empty() { String::new() } else { format!(" of {}", self.what) };
        let found = self.map.get(key).map(describe).unwrap_or_default();
        let message = format!("`{key}`{of} must be {expected}; this is {found}");
        let problem =
            Problem::at(Place::value(self.file(), self.path.key(key)), message, format!("expected {expected}"));
        self.reader.problems.push(problem.help(help));
    }

    pub(super) fn is_absent_or_text(&self, key: &str) -> bool {
        matches!(self.map.get(key), None | Some(Value::String(_)))
    }

    /// A text must have one of these parts; the first is the usual one.
    pub(super) fn must_have(&mut self, key: &str, text: &str, parts: &[&str], why: &str) {
        let Some(part) = parts.first() else { return };
        if !parts.iter().any(|part| text.contains(part)) {
            let message = format!("`{key}` has no `{part}`");
            let problem = Problem::at(Place::value(self.file(), self.path.key(key)), message, "here");
            self.reader.problems.push(problem.help(format!("write `{part}` where {why}")));
        }
    }

    /// A text in one line.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        let text = match self.map.get(key)? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Null => return None,
            _ => {
                self.wrong(key, "a text", "write one word, or a text in quotes");
                return None;
            }
        };
        if text.contains(['\n', '\0']) || text.trim().is_empty() {
            self.wrong(key, "a text in one line", "write one word, or a text in quotes");
            return None;
        }
        Some(text)
    }

    /// A text in any number of lines.
    pub(super) fn lines(&mut self, key: &str) -> Option<String> {
        match self.map.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            _ => {
                self.wrong(key, "shell lines", "write `module load cuda`, or several lines after `|`");
                None
            }
        }
    }

    /// A text, or a list of them.
    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        let one = |value: &Value| match value {
            Value::String(text) if !text.contains(['\n', '\0']) && !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let texts = match self.map.get(key) {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::Sequence(items)) => items.iter().map(one).collect(),
            Some(value) => one(value).map(|text| vec![text]),
        };
        texts.unwrap_or_else(|| {
            self.wrong(key, "a list of texts", "write `[ONE, ANOTHER]`");
            Vec::new()
        })
    }

    pub(super) fn number(&mut self, key: &str) -> Option<usize> {
        let value = self.map.get(key)?;
        let number = value.as_u64().filter(|number| (1..=100_000).contains(number)).map(|number| number as usize);
        if number.is_none() {
            self.wrong(key, "a whole number above 0", "write it in digits");
        }
        number
    }

    pub(super) fn memory(&mut self, key: &str) -> Option<u64> {
        let value = self.map.get(key)?;
        let memory = value.as_str().and_then(mebibytes);
        if memory.is_none() {
            self.wrong(key, "a size with its unit", "write it as `512M`, `32G` or `1T`");
        }
        memory
    }

    pub(super) fn time(&mut self, key: &str) -> Option<Duration> {
        let value = self.map.get(key)?;
        let time = value.as_str().and_then(duration);
        if time.is_none() {
            self.wrong(key, "a time with its unit", "write it as `90 s`, `10 min`, `4h` or `1 d`");
        }
        time
    }

    pub(super) fn variables(&mut self, key: &str) -> Vec<(String, String)> {
        let one = |(name, value): (&Value, &Value)| {
            let is_name = |name: &&str| {
                let mut letters = name.bytes();
                letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
                    && letters.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            };
            let text = match value {
                Value::String(text) if !text.contains('\0') => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                _ => return None,
            };
            name.as_str().filter(is_name).map(|name| (name.to_owned(), text))
        };
        let variables = match self.map.get(key) {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::Mapping(map)) => map.iter().map(one).collect(),
            Some(_) => None,
        };
        variables.unwrap_or_else(|| {
            self.wrong(key, "a mapping of variables to texts", "write `{OMP_NUM_THREADS: 1}`");
            Vec::new()
        })
    }
}

/// Reads a size such as `32G`, in MiB.
pub(super) fn mebibytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let text = text.strip_suffix("iB").or_else(|| text.strip_suffix('B')).unwrap_or(text);
    let (number, factor) = match text.as_bytes().last()? {
        b'M' => (&text[..text.len() - 1], 1),
        b'G' => (&text[..text.len() - 1], 1 << 10),
        b'T' => (&text[..text.len() - 1], 1 << 20),
        _ => return None,
    };
    number.trim().parse::<u64>().ok().filter(|number| *number > 0)?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::mebibytes;

    #[test]
    fn sizes_have_units() {
        assert_eq!(
            ["512M", "32G", "1T", "2 GiB", "8GB"].map(mebibytes),
            [512, 32 << 10, 1 << 20, 2048, 8192].map(Some)
        );
        assert_eq!(["32", "", "G", "-1G", "0G", "1.5G", "99999999999999999T"].map(mebibytes), [None; 7]);
    }
}

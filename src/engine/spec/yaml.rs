//! Parses the bytes of a file into a YAML value and rejects hostile files. Knows nothing of pipelines.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use serde_yaml::Value;

use super::diagnostics::MAX_PROBLEMS;
use super::lenient::Lenient;
use super::nesting;
use super::poison::{is_too_large_tag, is_unknown_tag, unknown};
use super::problem::Problem;
use super::source::{Place, SourceFile, Step, YamlPath};
use crate::fsio;

/// Maximum size of a file that is parsed; no readable pipeline is larger.
const MAX_BYTES: u64 = 8 << 20;

/// Reads the text of a file.
///
/// # Errors
/// Returns a message if the file cannot be parsed.
pub(crate) fn text(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let bytes = fsio::read_regular(path, MAX_BYTES).map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("there is no file {shown}"),
        ErrorKind::IsADirectory => format!("{shown} is a folder; a pipeline is a file"),
        ErrorKind::FileTooLarge => {
            format!("{shown} is larger than {} MiB, which no pipeline file may be", MAX_BYTES >> 20)
        }
        _ => format!("cannot read {shown}: {error}"),
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("{shown} is not UTF-8 text: line {line} has other bytes")
    })
}

/// Parses a file's text. Reports repeated keys, tags and oversized whole numbers, and reads the rest without them.
///
/// # Errors
/// The text is not YAML, or exceeds the parser's limits on nesting or repetition.
pub(crate) fn parse(file: &Arc<SourceFile>, problems: &mut Vec<Problem>) -> Result<Value, Problem> {
    if let Some(at) = nesting::too_deep(&file.text) {
        return Err(deep(file, at));
    }
    let mut value = match serde_yaml::from_str::<Value>(&file.text) {
        Ok(value) => value,
        Err(error)
            if is_too_large(&error)
                || (error.to_string().contains("duplicate entry") && !file.repeated_keys().is_empty()) =>
        {
            problems.extend(repeated(file));
            serde_yaml::from_str::<Lenient>(&file.text).map_err(|error| syntax(file, &error))?.0
        }
        Err(error) => return Err(syntax(file, &error)),
    };
    value.apply_merge().map_err(|error| syntax(file, &error))?;
    let mut tagged = Vec::new();
    take_tags(&mut value, &mut YamlPath::default(), &mut tagged);
    problems.extend(tagged.into_iter().map(|(what, path)| {
        match what {
            Taken::Tag(tag) => {
                Problem::at(Place::value(file, path), format!("the tag `{tag}` means nothing here"), "tagged")
                    .help("remove the tag; a text that looks like something else is written in quotes")
            }
            Taken::TooLarge(digits) => {
                let label = if digits.starts_with('-') { "too small" } else { "too large" };
                Problem::at(Place::value(file, path), too_large_words(&digits), label)
                    .help("a text that looks like a number is written in quotes")
            }
        }
    }));
    Ok(value)
}

/// Returns whether parsing failed because a whole number exceeds every integer type.
pub(super) fn is_too_large(error: &serde_yaml::Error) -> bool {
    let message = error.to_string();
    message.contains("invalid type: integer") && (message.contains(" as u128") || message.contains(" as i128"))
}

/// Describes the problem of such a number.
pub(super) fn too_large_words(digits: &str) -> String {
    match digits.starts_with('-') {
        true => format!("{digits} is too small: at least {}", i64::MIN),
        false => format!("{digits} is too large: at most {}", u64::MAX),
    }
}

/// An item removed from a value.
enum Taken {
    Tag(String),
    /// A whole number that exceeds every integer type; an unknown value takes its place.
    TooLarge(String),
}

/// Removes the tags from a value and everything inside it.
fn take_tags(value: &mut Value, path: &mut YamlPath, found: &mut Vec<(Taken, YamlPath)>) {
    while let Value::Tagged(tagged) = value {
        // The value of a repeated key is ambiguous.
        if is_unknown_tag(&tagged.tag) {
            return;
        }
        if is_too_large_tag(&tagged.tag) {
            let digits = tagged.value.as_str().unwrap_or_default().to_owned();
            found.push((Taken::TooLarge(digits), path.clone()));
            *value = unknown();
            return;
        }
        found.push((Taken::Tag(tagged.tag.to_string()), path.clone()));
        *value = std::mem::take(&mut tagged.value);
    }
    match value {
        Value::Sequence(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                path.within(Step::Index(index), |path| take_tags(item, path, found));
            }
        }
        Value::Mapping(map) => {
            for (key, item) in map.iter_mut() {
                // Keys that are not words are reported where their mapping is read.
                if !matches!(item, Value::Tagged(_) | Value::Sequence(_) | Value::Mapping(_)) {
                    continue;
                }
                let key = Step::Key(key.as_str().unwrap_or_default().to_owned());
                path.within(key, |path| take_tags(item, path, found));
            }
        }
        _ => {}
    }
}

/// Returns the problems of keys repeated in one mapping.
fn repeated(file: &Arc<SourceFile>) -> impl Iterator<Item = Problem> {
    file.repeated_keys().iter().take(MAX_PROBLEMS).map(|(key, first, second)| {
        let line = file.line_column(first.start).0;
        Problem::at(Place::bytes(file, second.clone()), format!("the key `{key}` stands here twice"), "again")
            .help(format!("it stands in line {line} already: remove one, or rename it"))
    })
}

fn syntax(file: &Arc<SourceFile>, error: &serde_yaml::Error) -> Problem {
    // The parser's message ends with the position; the place shows it instead.
    let message = error.to_string();
    let Some(location) = error.location() else {
        if message.contains("more than one document") {
            return second_document(file);
        }
        if message.contains("merg")
            && let Some(at) = file.text.find("<<")
        {
            return Problem::at(Place::bytes(file, at..at + 2), message, "here")
                .help("`<<:` takes a mapping, or a list of mappings");
        }
        let (message, help) = words(&file.text, &mut 0, &message);
        let mut problem = Problem::anywhere(format!("{}: {message}", file.name()));
        problem.help = help;
        return problem;
    };
    let mut at = floor(&file.text, location.index());
    // An unterminated construct is reported where it begins.
    if let Some((_, begin)) = message.rsplit_once("while scanning a quoted scalar at ")
        && message.contains("end of stream")
    {
        at = position(file, begin).unwrap_or(at);
        let end = file.text[at..].find('\n').map_or(file.text.len(), |length| at + length);
        return Problem::at(Place::bytes(file, at..end), "a text in quotes begins here and does not end", "here")
            .help("close the quotes");
    }
    if message.contains("recursion limit") {
        return deep(file, at);
    }
    let opened = message.rsplit_once(" at line ").filter(|(before, _)| before.contains("while parsing a flow"));
    let opened = opened.and_then(|(_, begin)| position(file, &format!("line {begin}")));
    let opened = opened.map(|at| file.line_column(at));
    let message = message.split(" at line ").next().unwrap_or(&message);
    let (message, help) = words(&file.text, &mut at, message);
    let end = file.text[at..].chars().next().map_or(at, |next| at + next.len_utf8());
    let mut problem = Problem::at(Place::bytes(file, at..end), format!("this is not valid YAML: {message}"), "here");
    problem.help = match (help, opened) {
        (Some(help), Some((line, column))) => Some(format!("{help}; it begins in line {line}, column {column}")),
        (help, _) => help,
    };
    problem
}

fn deep(file: &Arc<SourceFile>, at: usize) -> Problem {
    let end = file.text[at..].chars().next().map_or(at, |next| at + next.len_utf8());
    let message =
        format!("this is nested too deeply: more than {} lists and mappings in one another", nesting::MAX_DEPTH);
    Problem::at(Place::bytes(file, at..end), message, "here")
        .help("close what is open, or write parts of it as `params`")
}

fn second_document(file: &Arc<SourceFile>) -> Problem {
    let message = "a pipeline file is one document; a second one begins here";
    let second = file.text.match_indices("\n---").map(|(at, _)| at + 1).find(|at| !file.text[..*at].trim().is_empty());
    let problem = match second {
        Some(at) => Problem::at(Place::bytes(file, at..at + 3), message, "here"),
        None => Problem::anywhere(format!("{} holds more than one document; a pipeline file is one", file.name())),
    };
    problem.help("remove the `---`, or put the second into a file of its own and `include` it")
}

/// Returns the byte offset of a position in the parser's notation: `line 2 column 7`.
fn position(file: &SourceFile, told: &str) -> Option<usize> {
    let mut numbers = told.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    let line: usize = numbers.next()?.parse().ok()?;
    let column: usize = numbers.next()?.parse().ok()?;
    let start: usize = file.text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let rest = file.text.get(start..)?;
    Some(start + rest.char_indices().nth(column.checked_sub(1)?).map_or(rest.len(), |(at, _)| at))
}

/// Rephrases the parser's message for readers who do not know its grammar; may move `at` to a better place.
fn words(text: &str, at: &mut usize, message: &str) -> (String, Option<String>) {
    let line_start = text[..*at].rfind('\n').map_or(0, |end| end + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let indent = &line[..line.len() - line.trim_start().len()];
    let help = |text: &str| Some(text.to_owned());
    if let Some(tab) = indent.find('\t') {
        *at = line_start + tab;
        return ("this line is indented with a tab".to_owned(), help("indent with spaces only"));
    }
    let says = |part: &str| message.contains(part);
    match message {
        _ if says("mapping values are not allowed") && glued(text, line_start).is_some() => {
            let (start, key) = glued(text, line_start).unwrap_or_default();
            *at = start;
            (format!("`{key}` is no key: a space is missing after the `:`"), help("write `KEY: VALUE`"))
        }
        _ if says("mapping values are not allowed") => (
            "a `:` where no key can stand".to_owned(),
            help("keys of one mapping start in the same column; a text with `: ` in it is written in quotes"),
        ),
        _ if says("did not find expected key") => (
            "a key was expected in this column".to_owned(),
            help(
                "keys of one mapping start in the same column; look at the indentation of this line and the lines above",
            ),
        ),
        _ if says("did not find expected '-' indicator") => (
            "an item of a list, beginning with `-`, was expected in this column".to_owned(),
            help("items of one list start in the same column"),
        ),
        _ if says("cannot start any token") => {
            ("this character cannot begin a value".to_owned(), help("write the text in quotes"))
        }
        _ if says("unknown anchor") => {
            let name: String =
                text[*at..].chars().skip(1).take_while(|c| !c.is_whitespace() && !",]}".contains(*c)).collect();
            (
                format!("nothing is anchored as `&{name}`"),
                help("`*name` repeats what `&name` marked above; a text that begins with `*` is written in quotes"),
            )
        }
        _ if says("repetition limit") => {
            ("aliases (`*name`) repeat too much".to_owned(), help("use `params` and `${…}` instead"))
        }
        _ if says("alphabetic or numeric") => {
            ("a `*` or `&` without a name".to_owned(), help("a pattern that begins with `*` is written in quotes"))
        }
        _ if says("in merge") => (message.to_owned(), help("`<<:` takes a mapping, or a list of mappings")),
        _ if says("',' or ']'") => (message.to_owned(), help("close the list with `]`, or part its items with `,`")),
        _ if says("',' or '}'") => {
            (message.to_owned(), help("close the mapping with `}`, or part its entries with `,`"))
        }
        _ if says("unexpected end of stream") => (message.to_owned(), help("close the quotes")),
        _ => (message.to_owned(), None),
    }
}

/// Returns the start and the text of a word such as `kind:train` on the line above, if there is one.
fn glued(text: &str, line_start: usize) -> Option<(usize, &str)> {
    let above = text[..line_start].trim_end();
    let start = above.rfind('\n').map_or(0, |end| end + 1);
    let line = &above[start..];
    let word = line.trim_start();
    let (key, value) = word.split_once(':')?;
    let plain =
        |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || "{}[]'\"#&*!:".contains(c));
    (plain(key) && plain(value)).then_some((start + line.len() - word.len(), word))
}

fn floor(text: &str, mut index: usize) -> usize {
    index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

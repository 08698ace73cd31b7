//! Reads a pipeline file and its includes into a list of documents. Knows the meaning of `include`, and only the names
//! of the other keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_yaml::{Mapping, Value};

use super::describe::describe;
use super::nesting;
use super::problem::{Problem, Problems, nearest};
use super::reader::TOP_KEYS;
use super::source::{Place, SourceFile, YamlPath, beside};
use super::yaml;

/// Maximum number of files per pipeline.
const MAX_FILES: usize = 200;

/// Everything that could be read.
pub(super) struct Read {
    /// The documents; the requested file is last.
    pub documents: Vec<Document>,
    pub problems: Vec<Problem>,
    /// Whether every file could be read.
    pub is_whole: bool,
}

/// A file that was read.
pub(super) struct Document {
    pub file: Arc<SourceFile>,
    pub top: Mapping,
}

/// Reads a pipeline file and everything it includes, each file once.
///
/// An included file precedes the file that includes it; the requested file is last.
///
/// # Errors
/// The requested file cannot be read or parsed. Problems of other files are part of the result.
pub(super) fn read(path: &Path) -> Result<Read, Problems> {
    let text = yaml::text(path).map_err(|message| {
        let mut problem = Problem::anywhere(message);
        if !path.is_file() {
            problem.help = Some("give the path of a pipeline file, such as pipelines/quickstart.yaml".to_owned());
        }
        problem
    })?;
    read_text(SourceFile::new(path, text))
}

/// Like [`read`], with the file's text already loaded.
///
/// # Errors
/// As [`read`].
pub(super) fn read_text(file: Arc<SourceFile>) -> Result<Read, Problems> {
    let read = Read { documents: Vec::new(), problems: Vec::new(), is_whole: true };
    let mut reader = Reader { read, open: Vec::new(), seen: Vec::new() };
    let is_read = reader.file(file, None);
    if is_read { Ok(reader.read) } else { Err(Problems(reader.read.problems)) }
}

struct Reader {
    read: Read,
    /// The files being read, each included by the one before it.
    open: Vec<PathBuf>,
    /// Every file started so far.
    seen: Vec<PathBuf>,
}

impl Reader {
    /// Reads a file, included at a place, and its includes; returns whether the file itself could be read.
    fn file(&mut self, file: Arc<SourceFile>, at: Option<Place>) -> bool {
        let identity = identity(&file.path);
        self.seen.push(identity.clone());
        let told = self.read.problems.len();
        let top = match yaml::parse(&file, &mut self.read.problems) {
            Ok(Value::Mapping(top)) if is_pipeline(&top) => Ok(top),
            Ok(Value::Null) => Err(no_mapping(&file, &Value::Null)),
            Ok(Value::Mapping(_)) => Err(stranger(&file, "it has none of the keys", at)),
            Ok(value) if begins_as_pipeline(&file.text) => Err(no_mapping(&file, &value)),
            Err(problem) if begins_as_pipeline(&file.text) => Err(problem),
            Ok(_) => Err(stranger(&file, "it is no mapping with the keys", at)),
            // Only the depth is reported, which reveals none of the text.
            Err(_) if nesting::too_deep(&file.text).is_some() => {
                Err(stranger(&file, "it is nested too deeply for YAML with the keys", at))
            }
            Err(_) => Err(stranger(&file, "it is not YAML with the keys", at)),
        };
        let top = match top {
            Ok(top) => top,
            Err(problem) => {
                if problem.place.as_ref().is_none_or(|place| !Arc::ptr_eq(&place.file, &file)) {
                    // Problems found in a file that is no pipeline would show its lines.
                    self.read.problems.truncate(told);
                }
                self.read.problems.push(problem);
                self.read.is_whole = false;
                return false;
            }
        };
        self.open.push(identity);
        self.includes(&file, &top);
        self.open.pop();
        self.read.documents.push(Document { file, top });
        true
    }

    fn includes(&mut self, file: &Arc<SourceFile>, top: &Mapping) {
        let path = YamlPath::of(&["include"]);
        let one;
        let items = match top.get("include") {
            None | Some(Value::Null) => return,
            Some(Value::Sequence(items)) => items,
            Some(other) => {
                one = vec![other.clone()];
                &one
            }
        };
        for (index, item) in items.iter().enumerate() {
            let at = || {
                let path = if top["include"].is_sequence() { path.index(index) } else { path.clone() };
                Place::value(file, path)
            };
            let Some(name) = item.as_str().filter(|name| !name.is_empty()) else {
                let message = format!("`include` lists the paths of other pipeline files; this is {}", describe(item));
                self.read.problems.push(Problem::at(at(), message, "expected a path"));
                self.read.is_whole = false;
                continue;
            };
            if let Err(problem) = self.include(&beside(&file.path, name), at) {
                self.read.problems.push(problem);
            }
        }
    }

    fn include(&mut self, path: &Path, at: impl Fn() -> Place) -> Result<(), Problem> {
        let identity = identity(path);
        if let Some(start) = self.open.iter().position(|open| *open == identity) {
            let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let names: Vec<String> = self.open[start..].iter().chain([&identity]).map(name).collect();
            let message = format!("files include one another in a circle: {}", names.join(" includes "));
            return Err(Problem::at(at(), message, "this closes the circle")
                .help("move what both need into a third file, and include that"));
        }
        if self.seen.contains(&identity) {
            return Ok(());
        }
        if self.seen.len() >= MAX_FILES {
            let message = format!("a pipeline may have {MAX_FILES} files, all that it includes counted");
            self.read.is_whole = false;
            return Err(Problem::at(at(), message, "one too many"));
        }
        let text = yaml::text(path).map_err(|message| {
            let help = "paths are relative to the file that includes";
            self.read.is_whole = false;
            Problem::at(at(), message, "cannot be included").help(help)
        })?;
        self.file(SourceFile::new(path, text), Some(at()));
        Ok(())
    }
}

fn no_mapping(file: &Arc<SourceFile>, value: &Value) -> Problem {
    let message = format!("a pipeline file is a mapping with `stages`; this is {}", describe(value));
    let place = Place::value(file, YamlPath::default());
    let help = "write `stages:`, and the stages indented below it";
    Problem::at(place, message, "expected a mapping").help(help)
}

/// Returns the problem of a file that is not a pipeline. The file may hold a secret, so none of its text is shown.
fn stranger(file: &Arc<SourceFile>, what: &str, at: Option<Place>) -> Problem {
    let keys = TOP_KEYS.map(|key| format!("`{key}`")).join(", ");
    let message = format!("{} is no pipeline file: {what} {keys}", file.name());
    let problem = match at {
        Some(place) => Problem::at(place, message, "cannot be included"),
        None => Problem::anywhere(message),
    };
    problem.help("name another file, or write its stages under `stages:`; nothing of it is shown, as it may be private")
}

/// Returns whether a mapping is meant as a pipeline: it has a (perhaps misspelt) top-level key, or a misplaced stage.
fn is_pipeline(top: &Mapping) -> bool {
    top.is_empty()
        || top.iter().any(|(key, value)| {
            key.as_str().is_some_and(|key| nearest(key, TOP_KEYS).is_some())
                || value.as_mapping().is_some_and(|map| map.contains_key("kind"))
        })
}

/// Returns whether a text that is no mapping or no YAML is meant as a pipeline: one line starts with a top-level key.
fn begins_as_pipeline(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim_start_matches('\u{feff}');
        let line = line.strip_prefix('{').map_or(line, str::trim_start);
        let word = line.split(':').next().unwrap_or_default().trim_end();
        line.contains(':') && TOP_KEYS.contains(&word.trim_matches(['"', '\'']))
    })
}

/// Canonicalizes a path, so that every spelling of it compares equal.
fn identity(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

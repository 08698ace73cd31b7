//! The text of a pipeline file and places in it, for messages.
//!
//! A place is a path of keys. A second parse with positions locates it in the text, but only on demand. Knows nothing
//! of the file's meaning.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use saphyr_parser::{Event, Marker, Parser};

/// Maximum nesting that the positional parse follows; the real parser gives up earlier.
const MAX_DEPTH: usize = 256;

/// A file as read.
#[derive(Debug)]
pub struct SourceFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Content of the file.
    pub text: String,
    tree: OnceLock<Tree>,
}

impl SourceFile {
    /// Creates a file with a given text.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(SourceFile { path: path.into(), text: text.into(), tree: OnceLock::new() })
    }

    /// Returns the file's name as given.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Returns the byte range of the node at `path`, or of its nearest ancestor in the text.
    pub fn locate(&self, path: &YamlPath, part: Part) -> Range<usize> {
        let mut node = &self.tree().root;
        let mut key: Option<&Range<usize>> = None;
        for step in &path.0 {
            let next = match (step, &node.inner) {
                (Step::Key(wanted), Inner::Map(entries)) => {
                    entries.get(wanted).map(|entry| (&entry.value, Some(&entry.key_span)))
                }
                (Step::Index(index), Inner::Sequence(items)) => items.get(*index).map(|item| (item, None)),
                _ => None,
            };
            // A substituted value has no text of its own: use the place that contains it.
            let Some((value, value_key)) = next else { break };
            (node, key) = (value, value_key);
        }
        let span = match (part, key, &node.inner) {
            (Part::Key, Some(key), _) => key.clone(),
            // Underlining a whole block is unhelpful: use its key.
            (Part::Value, Some(key), Inner::Map(_) | Inner::Sequence(_)) if self.spans_lines(&node.span) => key.clone(),
            _ => node.span.clone(),
        };
        span.start.min(self.text.len())..span.end.min(self.text.len())
    }

    /// Returns whether the text itself has a node at `path`.
    pub fn has(&self, path: &YamlPath) -> bool {
        let mut node = &self.tree().root;
        path.0.iter().all(|step| {
            let next = match (step, &node.inner) {
                (Step::Key(wanted), Inner::Map(entries)) => entries.get(wanted).map(|entry| &entry.value),
                (Step::Index(index), Inner::Sequence(items)) => items.get(*index),
                _ => None,
            };
            next.inspect(|next| node = next).is_some()
        })
    }

    /// Returns keys repeated in one mapping: the key, and the byte ranges of the first and second occurrence.
    pub(super) fn repeated_keys(&self) -> &[(String, Range<usize>, Range<usize>)] {
        &self.tree().repeated
    }

    fn tree(&self) -> &Tree {
        self.tree.get_or_init(|| TreeBuilder::new(&self.text).build())
    }

    /// Returns the line (from 1) and the column (from 1, in characters) of a byte offset.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..offset.min(self.text.len())];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    fn spans_lines(&self, span: &Range<usize>) -> bool {
        self.text.get(span.clone()).is_some_and(|text| text.trim_end().contains('\n'))
    }
}

/// One step of a path into a YAML document.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// The value of a key.
    Key(String),
    /// An item of a sequence.
    Index(usize),
}

/// Path from the root of a document to a value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct YamlPath(pub Vec<Step>);

impl YamlPath {
    /// Creates a path of keys from the root.
    pub fn of(keys: &[&str]) -> Self {
        YamlPath(keys.iter().map(|key| Step::Key((*key).to_owned())).collect())
    }

    /// Returns the path extended by a key.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Key(key.to_owned()));
        path
    }

    /// Extends the path by one step while `then` runs, without copying it.
    pub(super) fn within<T>(&mut self, step: Step, then: impl FnOnce(&mut Self) -> T) -> T {
        self.0.push(step);
        let result = then(self);
        self.0.pop();
        result
    }

    /// Returns the path extended by an index.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Index(index));
        path
    }
}

impl fmt::Display for YamlPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Selects the key or the value of a `key: value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The key.
    Key,
    /// The value.
    Value,
}

/// A place in a file.
#[derive(Debug, Clone)]
pub struct Place {
    /// The file.
    pub file: Arc<SourceFile>,
    spot: Spot,
}

#[derive(Debug, Clone, PartialEq)]
enum Spot {
    Path(YamlPath, Part),
    Bytes(Range<usize>),
}

impl Place {
    /// Returns the place of the key that a path ends in.
    pub fn key(file: &Arc<SourceFile>, path: YamlPath) -> Self {
        Place { file: file.clone(), spot: Spot::Path(path, Part::Key) }
    }

    /// Returns the place of the value that a path leads to.
    pub fn value(file: &Arc<SourceFile>, path: YamlPath) -> Self {
        Place { file: file.clone(), spot: Spot::Path(path, Part::Value) }
    }

    /// Returns a byte range of the text as a place, for texts too broken to have paths.
    pub fn bytes(file: &Arc<SourceFile>, range: Range<usize>) -> Self {
        Place { file: file.clone(), spot: Spot::Bytes(range) }
    }

    /// Returns the byte range in the file's text.
    pub fn span(&self) -> Range<usize> {
        match &self.spot {
            Spot::Path(path, part) => self.file.locate(path, *part),
            Spot::Bytes(range) => range.clone(),
        }
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file) && self.spot == other.spot
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.file.line_column(self.span().start);
        write!(f, "{}:{line}:{column}", self.file.name())
    }
}

#[derive(Debug)]
struct Tree {
    root: Node,
    repeated: Vec<(String, Range<usize>, Range<usize>)>,
}

#[derive(Debug)]
struct Node {
    span: Range<usize>,
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Leaf,
    Sequence(Vec<Node>),
    Map(HashMap<String, Entry>),
}

#[derive(Debug)]
struct Entry {
    key_span: Range<usize>,
    value: Node,
}

/// An open collection, and the pending key in it.
type Frame = (Node, Option<(String, Range<usize>)>);

struct TreeBuilder<'a> {
    text: &'a str,
    offsets: Offsets,
    open: Vec<Frame>,
    repeated: Vec<(String, Range<usize>, Range<usize>)>,
}

impl<'a> TreeBuilder<'a> {
    fn new(text: &'a str) -> Self {
        TreeBuilder { text, offsets: Offsets::new(text), open: Vec::new(), repeated: Vec::new() }
    }

    /// Parses up to the first error; everything after it is ignored.
    fn build(mut self) -> Tree {
        let mut parser = Parser::new_from_str(self.text);
        let mut root: Option<Node> = None;
        let mut depth_beyond = 0_usize;
        while let Some(Ok((event, span))) = parser.next_event() {
            let range = self.offsets.of(&span.start)..self.offsets.of(&span.end);
            let (node, key_text) = match event {
                Event::Scalar(value, ..) => (Node { span: range, inner: Inner::Leaf }, Some(value.into_owned())),
                Event::Alias(_) => (Node { span: range, inner: Inner::Leaf }, None),
                Event::MappingStart(..) | Event::SequenceStart(..)
                    if depth_beyond > 0 || self.open.len() >= MAX_DEPTH =>
                {
                    depth_beyond += 1;
                    continue;
                }
                Event::MappingStart(..) => {
                    self.open.push((Node { span: range, inner: Inner::Map(HashMap::new()) }, None));
                    continue;
                }
                Event::SequenceStart(..) => {
                    self.open.push((Node { span: range, inner: Inner::Sequence(Vec::new()) }, None));
                    continue;
                }
                Event::MappingEnd | Event::SequenceEnd if depth_beyond > 0 => {
                    depth_beyond -= 1;
                    continue;
                }
                Event::MappingEnd | Event::SequenceEnd => {
                    let Some((mut node, _)) = self.open.pop() else { break };
                    node.span.end = range.end.max(node.span.end);
                    (node, None)
                }
                _ => continue,
            };
            if depth_beyond == 0
                && let Some(node) = self.place(node, key_text)
            {
                root = Some(node);
                break;
            }
        }
        // The text ended early: close open collections, so places before the error remain available.
        while root.is_none()
            && let Some((child, _)) = self.open.pop()
        {
            root = self.place(child, None);
        }
        Tree { root: root.unwrap_or(Node { span: 0..0, inner: Inner::Leaf }), repeated: self.repeated }
    }

    /// Adds a finished node to the enclosing collection; returns it if there is none.
    fn place(&mut self, node: Node, key_text: Option<String>) -> Option<Node> {
        let Some((parent, waiting)) = self.open.last_mut() else { return Some(node) };
        match (&mut parent.inner, waiting.take()) {
            (Inner::Sequence(items), _) => items.push(node),
            (Inner::Map(entries), Some((key, key_span))) => {
                if let Some(first) = entries.get(&key) {
                    self.repeated.push((key.clone(), first.key_span.clone(), key_span.clone()));
                }
                entries.insert(key, Entry { key_span, value: node });
            }
            (Inner::Map(_), None) => *waiting = Some((key_text.unwrap_or_default(), node.span)),
            (Inner::Leaf, _) => {}
        }
        None
    }
}

/// Converts the parser's character positions to byte offsets.
struct Offsets {
    /// Start of each line, in bytes and in characters.
    lines: Vec<(usize, usize)>,
    /// Byte offset of each character, if it differs from the character's index.
    bytes: Option<Vec<usize>>,
    length: usize,
}

impl Offsets {
    fn new(text: &str) -> Self {
        let mut lines = vec![(0, 0)];
        for (count, (at, c)) in text.char_indices().enumerate() {
            if c == '\n' {
                lines.push((at + 1, count + 1));
            }
        }
        let bytes = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect());
        Offsets { lines, bytes, length: text.len() }
    }

    fn of(&self, marker: &Marker) -> usize {
        let Some(&(start, count)) = self.lines.get(marker.line().saturating_sub(1)) else { return self.length };
        let offset = match &self.bytes {
            None => start + marker.col(),
            Some(bytes) => bytes.get(count + marker.col()).copied().unwrap_or(self.length),
        };
        offset.min(self.length)
    }
}

/// Resolves a path written in a file to one relative to the working directory.
pub(super) fn beside(file: &Path, name: &str) -> PathBuf {
    let name = name.strip_prefix("./").unwrap_or(name);
    file.parent().unwrap_or(Path::new("")).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "params: {eps: 8/255, größe: 3}\nstages:\n  model:\n    kind: train\n    list: [a, bc]\n";

    fn at(path: &YamlPath, part: Part) -> String {
        let file = SourceFile::new("p.yaml", TEXT);
        TEXT[file.locate(path, part)].to_owned()
    }

    #[test]
    fn keys_values_and_items_are_found() {
        assert_eq!(at(&YamlPath::of(&["params", "eps"]), Part::Value), "8/255");
        assert_eq!(at(&YamlPath::of(&["params", "größe"]), Part::Key), "größe");
        assert_eq!(at(&YamlPath::of(&["params", "größe"]), Part::Value), "3");
        assert_eq!(at(&YamlPath::of(&["stages", "model", "kind"]), Part::Value), "train");
        assert_eq!(at(&YamlPath::of(&["stages", "model", "list"]).index(1), Part::Value), "bc");
    }

    #[test]
    fn what_is_not_in_the_text_is_shown_at_what_holds_it() {
        assert_eq!(at(&YamlPath::of(&["stages", "model", "kind", "deeper"]), Part::Value), "train");
        assert_eq!(at(&YamlPath::of(&["stages", "model", "none"]), Part::Value), "model");
    }

    #[test]
    fn places_are_told_as_file_line_and_column() {
        let file = SourceFile::new("p.yaml", TEXT);
        let place = Place::value(&file, YamlPath::of(&["stages", "model", "kind"]));
        assert_eq!(place.to_string(), "p.yaml:4:11");
    }

    #[test]
    fn deep_and_broken_texts_do_no_harm() {
        for text in ["[".repeat(100_000), "a: [1, 2\nb: }".to_owned(), "{".repeat(5_000), String::new()] {
            let file = SourceFile::new("p.yaml", text);
            file.locate(&YamlPath::of(&["a", "b"]), Part::Value);
        }
    }
}

//! From the bytes of a file to a YAML value, with hostile files refused. Knows nothing of pipelines.

use std::path::Path;
use std::sync::Arc;

use serde_yaml::Value;

use super::problem::{Problem, Problems};
use super::source::{Place, SourceFile};

/// No pipeline that a person can read is larger, and no larger file is parsed.
const MAX_BYTES: u64 = 8 << 20;

/// Reads and parses a file.
///
/// # Errors
/// [`Problems`]: the file cannot be read, is too large, is no UTF-8, or is no YAML.
pub(super) fn read(path: &Path) -> Result<(Arc<SourceFile>, Value), Problems> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Problem::anywhere(format!("there is no file {shown}"))
            .help("give the path of a pipeline file, such as pipelines/quickstart.yaml"),
        _ => Problem::anywhere(format!("cannot read {shown}: {error}")),
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_BYTES {
        let limit = MAX_BYTES >> 20;
        return Err(Problem::anywhere(format!("{shown} has {size} bytes; a pipeline file may have {limit} MiB")).into());
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Problem::anywhere(format!("{shown} is not UTF-8 text (byte {at})"))
    })?;
    parse(SourceFile::new(path, text))
}

/// Parses a file's text.
///
/// # Errors
/// [`Problems`] if it is no YAML, or YAML nested or repeated beyond the parser's limits.
pub(super) fn parse(file: Arc<SourceFile>) -> Result<(Arc<SourceFile>, Value), Problems> {
    let mut value: Value = serde_yaml::from_str(&file.text).map_err(|error| syntax(&file, &error))?;
    value.apply_merge().map_err(|error| syntax(&file, &error))?;
    Ok((file, value))
}

fn syntax(file: &Arc<SourceFile>, error: &serde_yaml::Error) -> Problems {
    // The parser ends its message with the position, which is shown by its line instead.
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or(&message);
    let at = error.location().map_or(0, |location| floor(&file.text, location.index()));
    let end = file.text[at..].chars().next().map_or(at, |next| at + next.len_utf8());
    Problem::at(Place::bytes(file, at..end), format!("this is not valid YAML: {message}"), "here").into()
}

fn floor(text: &str, mut index: usize) -> usize {
    index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

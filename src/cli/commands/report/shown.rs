//! Files that `command` stages put among the results. The page shows pictures and short texts, and names the others.

use std::path::Path;

use atflow::cache::{Blob, Cache, ShownFile};
use atflow::report::RunResults;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::ui;

/// Longest text that stands in the page, in bytes.
pub(super) const MOST_TEXT: u64 = 64 << 10;

/// Pictures that every browser shows, by the ending of their name.
const PICTURES: [(&str, &str); 7] = [
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
];

/// Texts, by the ending of their name.
const TEXTS: [&str; 9] = ["csv", "json", "log", "md", "tex", "toml", "tsv", "txt", "yaml"];

/// A file as the page shows it.
pub(super) struct Analysis {
    pub file: String,
    pub origin: String,
    pub size: String,
    /// The picture, as an address that holds all of it.
    pub uri: Option<String>,
    /// The text, if it is short.
    pub text: Option<String>,
}

/// Returns the files of a run, by name; leaves out those that it did not make.
pub(super) fn analyses(cache: &Cache, results: &RunResults, images: bool) -> Vec<Analysis> {
    let files = results.run.shown.iter();
    files.filter_map(|(name, file)| Some(analysis(cache, blob_of(results, file)?, name, file, images))).collect()
}

fn blob_of(results: &RunResults, file: &ShownFile) -> Option<Blob> {
    let stage = results.stages.iter().find(|stage| stage.name == file.stage)?;
    stage.manifest.outputs.get(&file.output).copied()
}

fn analysis(cache: &Cache, blob: Blob, name: &str, file: &ShownFile, images: bool) -> Analysis {
    let ending = Path::new(name).extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
    let picture = PICTURES.iter().find(|(known, _)| *known == ending).map(|(_, kind)| *kind);
    let is_text = TEXTS.contains(&ending.as_str()) && blob.size <= MOST_TEXT;
    let bytes = if is_text || (picture.is_some() && images) { cache.read(blob.digest).ok() } else { None };
    let uri = |bytes: &Vec<u8>| picture.map(|kind| format!("data:{kind};base64,{}", STANDARD.encode(bytes)));
    Analysis {
        file: name.to_owned(),
        origin: format!("Output {} of stage {}", file.output, file.stage),
        size: ui::bytes(blob.size),
        uri: bytes.as_ref().and_then(uri),
        text: bytes.filter(|_| is_text).and_then(|bytes| String::from_utf8(bytes).ok()),
    }
}

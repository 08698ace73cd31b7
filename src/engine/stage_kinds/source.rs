//! Files from outside the cache as parameters, and the kind of stage that brings in one of them as it is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A file to read: exactly one of `path` and `url`. A file from elsewhere must say its digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// A file, relative to the pipeline file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where to fetch it: `https://…`, `http://…` or `file://…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Beside `url`: where else the same file is, in the order in which the places are tried.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// SHA-256 of the file, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// MD5 of the file, in hexadecimal, where only that is published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub md5: Option<String>,
    /// Beside `path`, for a file that no program may fetch: where a person gets it, and what to do with it. With a
    /// digest the file may be missing for as long as no stage has to read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<String>,
    /// Whether `path` leads to a folder of files. A key of its own says so ([`FolderPath`]), never a source itself.
    #[serde(skip)]
    pub is_folder: bool,
}

/// A folder of files, relative to the pipeline file; in a pipeline its path alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct FolderPath(Source);

impl FolderPath {
    /// The folder as a source.
    pub fn source(&mut self) -> &mut Source {
        &mut self.0
    }
}

impl From<String> for FolderPath {
    fn from(path: String) -> Self {
        FolderPath(Source { path: Some(path), is_folder: true, ..Source::default() })
    }
}

impl From<FolderPath> for String {
    fn from(folder: FolderPath) -> Self {
        folder.0.path.unwrap_or_default()
    }
}

impl Source {
    /// The addresses that it can be fetched from, in the order in which they are tried.
    pub fn urls(&self) -> impl Iterator<Item = &str> {
        self.url.iter().chain(&self.mirrors).map(String::as_str)
    }

    /// What its publisher knows it by, `sha256:…` or `md5:…`; nothing where no digest is given.
    pub fn published(&self) -> Option<String> {
        match (&self.sha256, &self.md5) {
            (Some(sha256), _) => Some(format!("sha256:{}", sha256.to_lowercase())),
            (None, Some(md5)) => Some(format!("md5:{}", md5.to_lowercase())),
            (None, None) => None,
        }
    }
}

/// Brings in one file as it is, the published weights of a network, say: fetches it and checks it against its digest.
///
/// Outputs: `file`, the same bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileParams {
    /// The file.
    pub source: Source,
}

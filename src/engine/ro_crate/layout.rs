//! Where files of a pipeline lie in a crate: as they lie to one another, below one folder.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Folder of a crate with the pipeline and what lies beside it.
pub const PIPELINE: &str = "pipeline";

/// Reason why files cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The path cannot be made absolute.
    #[error("cannot find {}", path.display())]
    NoPath {
        /// The path.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The name has bytes that are no text, so other machines may not read it.
    #[error("the name {} is not UTF-8", path.display())]
    NotText {
        /// The path.
        path: PathBuf,
    },
}

/// Paths in a crate by the paths on this machine.
#[derive(Debug, Default)]
pub struct Layout {
    by_path: BTreeMap<PathBuf, String>,
}

impl Layout {
    /// Lays out files. Their paths relative to one another stay.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<Self, LayoutError> {
        let files: Vec<PathBuf> = files.into_iter().map(absolute).collect::<Result<_, _>>()?;
        let folders = files.iter().filter_map(|file| file.parent());
        let root = folders.map(Path::to_owned).reduce(|a, b| common(&a, &b)).unwrap_or_default();
        let place = |file: PathBuf| {
            let relative = file.strip_prefix(&root).unwrap_or(&file);
            match relative.to_str() {
                Some(name) => Ok((file.clone(), format!("{PIPELINE}/{name}"))),
                None => Err(LayoutError::NotText { path: file.clone() }),
            }
        };
        Ok(Layout { by_path: files.into_iter().map(place).collect::<Result<_, _>>()? })
    }

    /// Returns the path in the crate of a file that was laid out.
    pub fn get(&self, file: &Path) -> Option<&str> {
        self.by_path.get(&absolute(file).ok()?).map(String::as_str)
    }
}

/// Returns an absolute path without `.` and `..`.
fn absolute(path: &Path) -> Result<PathBuf, LayoutError> {
    let found = std::path::absolute(path).map_err(|source| LayoutError::NoPath { path: path.to_owned(), source })?;
    let mut plain = PathBuf::new();
    for part in found.components() {
        if part == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    Ok(plain)
}

fn common(a: &Path, b: &Path) -> PathBuf {
    a.components().zip(b.components()).take_while(|(a, b)| a == b).map(|(part, _)| part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_keep_their_places_to_one_another() {
        let files = ["/w/p/a.yaml", "/w/p/parts/../parts/b.yaml", "/w/data/x.gz"].map(Path::new);
        let layout = Layout::of(files).unwrap();
        assert_eq!(layout.get(files[0]), Some("pipeline/p/a.yaml"));
        assert_eq!(layout.get(Path::new("/w/p/parts/b.yaml")), Some("pipeline/p/parts/b.yaml"));
        assert_eq!(layout.get(files[2]), Some("pipeline/data/x.gz"));
        assert_eq!(layout.get(Path::new("/w/other")), None);
        assert_eq!(Layout::of([Path::new("/w/a.yaml")]).unwrap().get(Path::new("/w/a.yaml")), Some("pipeline/a.yaml"));
    }
}

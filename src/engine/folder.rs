//! Folders of files as one input: which files of a folder count, and one digest for all of them. Knows nothing of what
//! the files hold.
//!
//! What operating systems and version control leave behind does not count. Links are not followed out of the folder,
//! nor to folders.

use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use walkdir::{DirEntry, WalkDir};

use crate::digest::Digest;

/// Largest number of files in a folder: ImageNet has 1.3 million.
const MAX_FILES: usize = 4_000_000;

/// Names of what Windows and macOS leave behind; names that begin with `.` are passed over, too.
const LEFTOVERS: [&str; 3] = ["__MACOSX", "Thumbs.db", "desktop.ini"];

/// Whether a relative path is what macOS, Windows and version control leave behind.
pub fn is_leftover(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.') || LEFTOVERS.contains(&part))
}

/// Why a folder cannot be an input.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It is not there, is no folder, or cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The folder, or a file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A name is not UTF-8, or has a line break.
    #[error("the name {} is not UTF-8 or has a line break: rename it", path.display())]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// It has more files than any data set.
    #[error("{} has more than {MAX_FILES} files", path.display())]
    Many {
        /// The folder.
        path: PathBuf,
    },
}

impl FolderError {
    /// Whether a folder, or a file in it, is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, FolderError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A file in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderFile {
    /// Path within the folder, parts divided by `/`.
    pub name: String,
    /// Size in bytes when it was listed.
    pub size: u64,
}

/// The files of a folder as they were listed.
#[derive(Debug, Clone, Default)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// Its files, in the order of the bytes of their names.
    pub files: Vec<FolderFile>,
    /// Folders in it without anything that counts.
    pub empty: Vec<String>,
    /// What gives no file, a line each: links that are not followed, pipes and devices.
    pub left_out: Vec<String>,
}

impl Folder {
    /// Lists a folder; the folder itself may be a link.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn list(path: &Path) -> Result<Self, FolderError> {
        let failed = |source| FolderError::Io { path: path.to_owned(), source };
        let real = std::fs::canonicalize(path).map_err(failed)?;
        if !real.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        let mut folder = Folder { path: path.to_owned(), ..Folder::default() };
        let walk = WalkDir::new(path).min_depth(1).into_iter();
        for entry in walk.filter_entry(|entry| entry.depth() == 0 || !has_leftover_name(entry)) {
            let entry = entry.map_err(|error| FolderError::Io {
                path: error.path().unwrap_or(path).to_owned(),
                source: error.into(),
            })?;
            folder.add(&entry, &real)?;
        }
        folder.files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        folder.keep_empty();
        Ok(folder)
    }

    fn add(&mut self, entry: &DirEntry, real: &Path) -> Result<(), FolderError> {
        let relative = entry.path().strip_prefix(&self.path).unwrap_or(entry.path()).to_str();
        let Some(name) = relative.filter(|name| !name.contains(['\n', '\r'])) else {
            return Err(FolderError::Name { path: entry.path().to_owned() });
        };
        let name = name.to_owned();
        if entry.file_type().is_dir() {
            self.empty.push(name);
            return Ok(());
        }
        if self.files.len() >= MAX_FILES {
            return Err(FolderError::Many { path: self.path.clone() });
        }
        match size(entry, real) {
            Ok(size) => self.files.push(FolderFile { name, size }),
            Err(why) => self.left_out.push(format!("`{name}` {why}")),
        }
        Ok(())
    }

    /// Leaves in `empty` the folders without a file.
    fn keep_empty(&mut self) {
        let files = &self.files;
        self.empty.sort_unstable();
        self.empty.retain(|folder| {
            let prefix = format!("{folder}/");
            let at = files.partition_point(|file| file.name < prefix);
            !files.get(at).is_some_and(|file| file.name.starts_with(&prefix))
        });
    }

    /// Returns the path of a file in it.
    pub fn path_of(&self, file: &FolderFile) -> PathBuf {
        self.path.join(&file.name)
    }

    /// Returns the digest of the folder from the digests of its files: that of the lines that `b3sum` prints for them,
    /// in the order of the bytes of their names. So it depends on contents and relative names only.
    pub fn digest_of(&self, digests: &[Digest]) -> Digest {
        digest_of_files(self.files.iter().map(|file| file.name.as_str()).zip(digests.iter().copied()))
    }

    /// Reads all files, on all cores, and returns the digest of the folder.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn read_digest(&self) -> Result<Digest, FolderError> {
        Ok(self.digest_of(&self.read_digests()?))
    }

    /// Reads all files, on all cores, and returns their digests, in order.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn read_digests(&self) -> Result<Vec<Digest>, FolderError> {
        let digest = |file: &FolderFile| {
            let path = self.path_of(file);
            Digest::of_file(&path).map_err(|source| FolderError::Io { path, source })
        };
        self.files.par_iter().map(digest).collect()
    }
}

/// Returns the digest of a folder with these files: names, in the order of their bytes, and digests.
pub(crate) fn digest_of_files<'a>(files: impl Iterator<Item = (&'a str, Digest)>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for (name, digest) in files {
        hasher.update(format!("{digest}  {name}\n").as_bytes());
    }
    hasher.finalize().into()
}

fn has_leftover_name(entry: &DirEntry) -> bool {
    entry.file_name().to_str().is_some_and(is_leftover)
}

/// The size of a file, or why an entry gives no file.
fn size(entry: &DirEntry, real: &Path) -> Result<u64, String> {
    let gone = |error: io::Error| format!("cannot be read: {error}");
    if entry.path_is_symlink() {
        let target = std::fs::canonicalize(entry.path()).map_err(|_| "is a link to nothing".to_owned())?;
        if !target.starts_with(real) {
            return Err("is a link that leads out of the folder, and is not followed".to_owned());
        }
        if target.is_dir() {
            return Err("is a link to a folder, and is not followed".to_owned());
        }
    }
    let metadata = std::fs::metadata(entry.path()).map_err(gone)?;
    if metadata.is_file() { Ok(metadata.len()) } else { Err("is no file".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn digest(root: &Path) -> Digest {
        Folder::list(root).unwrap().read_digest().unwrap()
    }

    #[test]
    fn the_digest_is_that_of_b3sum_lines_and_leftovers_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "b/x", "abc");
        write(dir.path(), "b-a", "");
        // `printf abc | b3sum` and `b3sum </dev/null`; `-` sorts before `/`.
        let lines = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262  b-a\n\
                     6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85  b/x\n";
        assert_eq!(digest(dir.path()), Digest::of(lines.as_bytes()));
        for name in [".DS_Store", "b/Thumbs.db", "__MACOSX/b/x", "b/.git/config"] {
            write(dir.path(), name, "left behind");
        }
        assert_eq!(digest(dir.path()), Digest::of(lines.as_bytes()));
        write(dir.path(), "b/y", "abc");
        assert_ne!(digest(dir.path()), Digest::of(lines.as_bytes()));
    }

    #[test]
    fn links_are_not_followed_out_of_the_folder_nor_to_folders() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(dir.path(), "a/1", "one");
        write(other.path(), "secret", "two");
        std::fs::create_dir(dir.path().join("none")).unwrap();
        let link = |target: &Path, name: &str| std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
        link(&dir.path().join("a/1"), "inside");
        link(&other.path().join("secret"), "outside");
        link(&dir.path().join("a"), "folder");
        link(&dir.path().join("gone"), "nowhere");
        let folder = Folder::list(dir.path()).unwrap();
        let names: Vec<&str> = folder.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["a/1", "inside"]);
        assert_eq!(folder.empty, ["none"]);
        let mut left_out = folder.left_out;
        left_out.sort();
        assert_eq!(
            left_out,
            [
                "`folder` is a link to a folder, and is not followed",
                "`nowhere` is a link to nothing",
                "`outside` is a link that leads out of the folder, and is not followed",
            ]
        );
        assert!(Folder::list(&dir.path().join("gone")).unwrap_err().is_missing());
        assert!(Folder::list(&dir.path().join("a/1")).unwrap_err().to_string().contains("not a directory"));
    }
}

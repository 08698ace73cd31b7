//! Folders of files whose bytes are blobs of a cache: the list of the files, and how another machine lays them out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cache::{Blob, Cache};
use crate::digest::Digest;
use crate::folder::{Folder, FolderError, FolderFile, digest_of_files};
use crate::fsio::{self, Context, FileError};

/// The files of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FolderList {
    /// In the order of the bytes of their names.
    files: Vec<ListedFile>,
    /// Folders in it without files. They are not in its digest, and a data set may refuse them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    empty: Vec<String>,
    /// What was left out of it, a line each.
    #[serde(skip)]
    left_out: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ListedFile {
    /// Path within the folder, parts divided by `/`.
    name: String,
    blob: Blob,
}

impl FolderList {
    /// Reads all files of a folder, on all cores. `None` if they have another digest by now.
    ///
    /// # Errors
    /// [`FolderError`].
    pub(crate) fn read(path: &Path, digest: Digest) -> Result<Option<Self>, FolderError> {
        let folder = Folder::list(path)?;
        let digests = folder.read_digests()?;
        let listed = |(file, digest): (FolderFile, Digest)| ListedFile {
            name: file.name,
            blob: Blob { digest, size: file.size },
        };
        let files = folder.files.into_iter().zip(digests).map(listed).collect();
        let list = FolderList { files, empty: folder.empty, left_out: folder.left_out };
        Ok((list.digest() == digest).then_some(list))
    }

    /// Reads a list that was sent. The error says what is wrong with it.
    pub(super) fn parse(bytes: &[u8], digest: Digest) -> Result<Self, String> {
        let list: FolderList = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let names = || list.files.iter().map(|file| &file.name);
        if let Some(name) = names().chain(&list.empty).find(|name| !is_inside(name)) {
            return Err(format!("its list names `{name}`, which is no place in a folder"));
        }
        if !names().is_sorted_by(|one, next| one < next) {
            return Err("its list names a file twice, or is out of order".to_owned());
        }
        if list.digest() == digest { Ok(list) } else { Err("its list is that of another folder".to_owned()) }
    }

    /// Returns the list as it is sent.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Returns what gives no file, a line each.
    pub(crate) fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Returns the digest of the folder.
    fn digest(&self) -> Digest {
        digest_of_files(self.files.iter().map(|file| (file.name.as_str(), file.blob.digest)))
    }

    /// Returns the bytes of the files, each once.
    pub(super) fn blobs(&self) -> Vec<Blob> {
        let mut blobs: Vec<Blob> = self.files.iter().map(|file| file.blob).collect();
        blobs.sort_unstable_by_key(|blob| blob.digest);
        blobs.dedup();
        blobs
    }

    /// Returns the bytes of the files, and where they are in the folder at `path`.
    pub(crate) fn files<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = (Blob, PathBuf)> + 'a {
        self.files.iter().map(|file| (file.blob, path.join(&file.name)))
    }

    /// Lays the files out in a new or empty folder, as links to blobs that are in the cache.
    pub(super) fn lay_out(&self, cache: &Cache, to: &Path) -> Result<(), FileError> {
        fsio::create_dir(to)?;
        for folder in &self.empty {
            fsio::create_dir(&to.join(folder))?;
        }
        for (blob, path) in self.files(to) {
            fsio::create_dir(fsio::folder_of(&path))?;
            let object = cache.object_path(blob.digest);
            match fs::hard_link(&object, &path) {
                // Names may differ in case only. A copy would write through the link to the cache.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error).on("write", &path)?,
                // A file system may allow no links, or no more of them to one file.
                Err(_) => _ = fs::copy(&object, &path).on("write", &path)?,
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// Whether a name leads to a place inside a folder, and is written in one way.
fn is_inside(name: &str) -> bool {
    name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_laid_out_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        for (name, text) in [("b/2", "two"), ("b/3", "two"), ("a/1", ""), ("c", "three")] {
            fs::create_dir_all(from.join(name).parent().unwrap()).unwrap();
            fs::write(from.join(name), text).unwrap();
        }
        let digest = Folder::list(&from).unwrap().read_digest().unwrap();
        fs::create_dir_all(from.join("none/here")).unwrap();
        let list = FolderList::read(&from, digest).unwrap().unwrap();
        assert_eq!(list.blobs().len(), 3);
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        for (_, path) in list.files(&from) {
            cache.put(&fs::read(path).unwrap()).unwrap();
        }
        let sent = FolderList::parse(&list.to_bytes(), digest).unwrap();
        let to = dir.path().join("to");
        sent.lay_out(&cache, &to).unwrap();
        let found = Folder::list(&to).unwrap();
        assert_eq!(found.read_digest().unwrap(), digest);
        assert_eq!(found.empty, Folder::list(&from).unwrap().empty);

        fs::write(from.join("c"), "four").unwrap();
        assert_eq!(FolderList::read(&from, digest).unwrap(), None);
        assert!(FolderList::parse(&list.to_bytes(), Digest::of(b"")).unwrap_err().contains("another folder"));
    }

    #[test]
    fn a_folder_without_files_is_laid_out() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        let digest = Folder::list(&from).unwrap().read_digest().unwrap();
        let list = FolderList::read(&from, digest).unwrap().unwrap();
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        FolderList::parse(&list.to_bytes(), digest).unwrap().lay_out(&cache, &to).unwrap();
        assert_eq!(Folder::list(&to).unwrap().read_digest().unwrap(), digest);
    }

    #[test]
    fn a_list_leads_nowhere_else() {
        let blob = Blob { digest: Digest::of(b""), size: 0 };
        let refused = |names: &[&str]| {
            let files = names.iter().map(|name| ListedFile { name: (*name).to_owned(), blob }).collect();
            let list = FolderList { files, empty: Vec::new(), left_out: Vec::new() };
            FolderList::parse(&list.to_bytes(), list.digest()).unwrap_err()
        };
        for name in ["../up", "/etc/passwd", "a/../../b", "a/./b", "a//b", "", "."] {
            let error = refused(&[name]);
            assert!(error.contains("no place in a folder"), "{error}");
        }
        for names in [["a", "a"], ["b", "a"]] {
            let error = refused(&names);
            assert!(error.contains("twice, or is out of order"), "{error}");
        }
    }
}

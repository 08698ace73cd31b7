//! Archives, and folders on disk, as lists of files that are read where they lie: zip and tar, plain or compressed,
//! told apart by their first bytes, or a folder as it was listed. Nothing is unpacked under a name that an archive
//! chose. Links within an archive are followed; names that lead out of it, and archives that unfold into much more than
//! they are, are refused.

mod pax;
mod tape;
mod tree;
mod unfold;
mod zipped;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tree::{Content, Place, Tree};
use unfold::{Form, form, unfold};
use zip::ZipArchive;

use crate::folder::{Folder, FolderFile};
use crate::regular::read_regular;

/// More files than any data set of the field has in one archive: ImageNet has 1.3 million.
pub(super) const MAX_ENTRIES: usize = 4_000_000;
/// The largest file within an archive that is read: a batch of CIFAR-10 has 31 MB, the largest painting of Painter by
/// Numbers below 100 MB.
pub(super) const MAX_ENTRY: u64 = 1 << 30;
/// How many times its own size an archive may unfold to, once that is much. Images hardly compress; CIFAR-10 has 1.1.
pub(super) const MAX_RATIO: u64 = 100;
/// What counts as much.
pub(super) const MUCH: u64 = 64 << 20;

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::executors) enum ArchiveError {
    #[error("it is no zip, tar or gzip archive: it begins with the bytes {found}")]
    Unknown { found: String },
    #[error("it is {form}, which is not read: repack it as .zip or .tar.gz")]
    Foreign { form: &'static str },
    #[error("what it unfolds to is no tar archive: it begins with the bytes {found}; repack it as .zip or .tar.gz")]
    NoTar { found: String },
    #[error("it is damaged or cut off: {reason}")]
    Damaged { reason: String },
    #[error("its entry `{name}` leads out of the archive")]
    Escape { name: String },
    #[error("its entry `{name}` is encrypted")]
    Encrypted { name: String },
    #[error("it has more than {MAX_ENTRIES} entries")]
    Entries,
    #[error("its entry `{name}` has {size} bytes, more than the {MAX_ENTRY} that are read")]
    Entry { name: String, size: u64 },
    #[error("its {packed} bytes unfold to more than {MAX_RATIO} times as many, as no data set does")]
    Bomb { packed: u64 },
    #[error("the stage was given up")]
    Stopped,
    #[error("it cannot be read")]
    Io(#[from] io::Error),
}

/// A file within an archive.
#[derive(Debug)]
pub(in crate::executors) struct Entry {
    /// Its path, parts divided by `/`, none of them empty, `.` or `..`.
    pub(in crate::executors) name: String,
    content: Content,
}

/// An archive and the files in it.
pub(in crate::executors) struct Archive {
    /// The archive as messages name it.
    pub(in crate::executors) shown: String,
    /// In the order of their names.
    pub(in crate::executors) entries: Vec<Entry>,
    /// Folders without anything in them.
    pub(in crate::executors) empty: Vec<String>,
    /// Members that give no file, a line each: devices, links that lead nowhere, and what is not known.
    pub(in crate::executors) left_out: Vec<String>,
    bytes: Bytes,
}

enum Bytes {
    Tar(Shared),
    Zip(ZipArchive<Shared>),
    Folder(PathBuf),
}

impl Archive {
    /// Lists an archive. A compressed tar archive is first unfolded into a nameless file in `scratch`; `go_on` is asked
    /// meanwhile.
    pub(super) fn open(
        path: &Path,
        shown: &str,
        scratch: &Path,
        go_on: &dyn Fn(u64) -> ControlFlow<()>,
    ) -> Result<Self, ArchiveError> {
        let file = Shared::new(File::open(path)?)?;
        let mut start = [0; 8];
        let count = file.file.read_at(&mut start, 0)?;
        let packed = file.length;
        let mut tree = Tree::default();
        let bytes = match form(&start[..count]) {
            Form::Zip => Bytes::Zip(zipped::list(file, &mut tree)?),
            Form::Packed(packing) => {
                let unfolded = Shared::new(unfold(file, packing, scratch, go_on)?)?;
                if !tape::is_tar(&unfolded) {
                    return Err(ArchiveError::NoTar { found: first_bytes(&unfolded)? });
                }
                tape::list(&unfolded, &mut tree)?;
                Bytes::Tar(unfolded)
            }
            _ if tape::is_tar(&file) => {
                tape::list(&file, &mut tree)?;
                Bytes::Tar(file)
            }
            Form::Foreign(form) => return Err(ArchiveError::Foreign { form }),
            Form::Other => return Err(ArchiveError::Unknown { found: first_bytes(&file)? }),
        };
        let tree::Listed { entries, empty, left_out } = tree.finish()?;
        // A tar archive holds what its files are long, but for links and for the holes of sparse files.
        let most = match &bytes {
            Bytes::Tar(unfolded) => unfolded.length.saturating_mul(MAX_RATIO),
            Bytes::Zip(_) | Bytes::Folder(_) => packed.saturating_mul(MAX_RATIO),
        };
        let mut whole: u64 = 0;
        for entry in &entries {
            let size = entry.content.size;
            if size > MAX_ENTRY {
                return Err(ArchiveError::Entry { name: entry.name.clone(), size });
            }
            whole = whole.saturating_add(size);
            if whole > MUCH.max(most) {
                return Err(ArchiveError::Bomb { packed });
            }
        }
        Ok(Archive { shown: shown.to_owned(), entries, empty, left_out, bytes })
    }

    /// The files of a folder on disk, as they were listed.
    pub(super) fn of_folder(folder: Folder) -> Self {
        let Folder { path, files, empty, left_out } = folder;
        let entry = |(number, FolderFile { name, size }): (usize, FolderFile)| Entry {
            name,
            content: Content { size, place: Place::At(number as u64) },
        };
        let entries = files.into_iter().enumerate().map(entry).collect();
        let shown = path.display().to_string();
        Archive { shown, entries, empty, left_out, bytes: Bytes::Folder(path) }
    }

    /// Pieces of a file by name, first byte and size.
    pub(super) fn of_pieces(shown: &str, pieces: Vec<(String, u64, u64)>, file: File) -> io::Result<Self> {
        let entry =
            |(name, at, size): (String, u64, u64)| Entry { name, content: Content { size, place: Place::At(at) } };
        let entries = pieces.into_iter().map(entry).collect();
        let (shown, bytes) = (shown.to_owned(), Bytes::Tar(Shared::new(file)?));
        Ok(Archive { shown, entries, empty: Vec::new(), left_out: Vec::new(), bytes })
    }

    /// The bytes of a file in it. Several threads may read at a time.
    pub(super) fn read(&self, index: usize) -> Result<Vec<u8>, ArchiveError> {
        let entry = &self.entries[index];
        let mut bytes = vec![0; entry.content.size as usize];
        match (&self.bytes, &entry.content.place) {
            (Bytes::Folder(folder), _) => return Ok(read_regular(&folder.join(&entry.name), MAX_ENTRY)?),
            (Bytes::Tar(shared), &Place::At(at)) => shared.file.read_exact_at(&mut bytes, at)?,
            (Bytes::Tar(shared), Place::Pieces(pieces)) => {
                for piece in pieces.iter() {
                    let from = piece.from as usize;
                    shared.file.read_exact_at(&mut bytes[from..from + piece.length as usize], piece.at)?;
                }
            }
            (Bytes::Zip(_), Place::Pieces(_)) => {}
            (Bytes::Zip(zip), &Place::At(number)) => {
                let damaged = |reason: String| ArchiveError::Damaged { reason: format!("`{}`: {reason}", entry.name) };
                // A clone shares the list of entries and has a place of its own in the file.
                let mut zip = zip.clone();
                let mut file = zip.by_index(number as usize).map_err(|error| damaged(error.to_string()))?;
                // Reading on to the end is what makes the sum be checked.
                let read = file.read_exact(&mut bytes).and_then(|()| file.read(&mut [0]));
                match read {
                    Ok(0) => {}
                    Ok(_) => return Err(damaged("it is longer than the archive says".to_owned())),
                    Err(error) => return Err(damaged(error.to_string())),
                }
            }
        }
        Ok(bytes)
    }

    /// The number of the file of a name.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.entries.iter().position(|entry| entry.name == name)
    }

    /// The folder in which the file of a name stands, with a `/` at its end where it is not the top: archives have
    /// their data in a folder of some name.
    pub(super) fn folder_of(&self, file: &str) -> Option<&str> {
        let candidates = self.entries.iter().filter_map(|entry| entry.name.strip_suffix(file));
        candidates.filter(|folder| folder.is_empty() || folder.ends_with('/')).min_by_key(|folder| folder.len())
    }
}

/// The path of an entry in one form; nothing where it leads out of the archive, an empty one for the archive itself.
fn plain(name: &str) -> Option<String> {
    if name.starts_with('/') || name.contains('\0') {
        return None;
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !["", "."].contains(part)).collect();
    (!parts.contains(&"..")).then(|| parts.join("/"))
}

/// The first bytes of a file, in hexadecimal.
fn first_bytes(file: &Shared) -> io::Result<String> {
    let mut start = [0; 4];
    let count = file.file.read_at(&mut start, 0)?;
    Ok(start[..count].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "))
}

/// A file that several readers read, each at a place of its own.
#[derive(Clone)]
struct Shared {
    file: Arc<File>,
    length: u64,
    at: u64,
}

impl Shared {
    fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Shared { file: Arc::new(file), length, at: 0 })
    }
}

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Shared {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

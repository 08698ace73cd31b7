//! Archives as lists of files that are read where they lie: `.zip`, `.tar` and `.tar.gz`, told apart by their first bytes. Nothing is unpacked under a name
//! that an archive chose; links are passed over; names that lead out of the archive, and archives that unfold into much more than they are, are refused.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use zip::ZipArchive;

/// More files than any data set of the field has in one archive: ImageNet has 1.3 million.
const MAX_ENTRIES: usize = 4_000_000;
/// The largest file within an archive that is read: a batch of CIFAR-10 has 31 MB, the largest painting of Painter by Numbers below 100 MB.
const MAX_ENTRY: u64 = 1 << 30;
/// How many times its own size an archive may unfold to, once that is much. Images hardly compress; CIFAR-10 has 1.1.
const MAX_RATIO: u64 = 100;
/// What counts as much.
const MUCH: u64 = 64 << 20;

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::stages) enum ArchiveError {
    #[error("it is no zip, tar or gzip archive: it begins with the bytes {found}")]
    Unknown { found: String },
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
pub(in crate::stages) struct Entry {
    /// Its path, parts divided by `/`, none of them empty, `.` or `..`.
    pub(in crate::stages) name: String,
    size: u64,
    /// In a tar archive where its bytes start, in a zip archive its number.
    at: u64,
}

/// An archive and the files in it.
pub(in crate::stages) struct Archive {
    /// The archive as messages name it.
    pub(in crate::stages) shown: String,
    pub(in crate::stages) entries: Vec<Entry>,
    /// Entries that are neither files nor folders: links and devices.
    pub(in crate::stages) links: usize,
    bytes: Bytes,
}

enum Bytes {
    Tar(Shared),
    Zip(ZipArchive<Shared>),
}

impl Archive {
    /// Lists an archive. A compressed tar archive is first unfolded into a nameless file in `scratch`; `go_on` is asked meanwhile.
    pub(super) fn open(
        path: &Path,
        shown: &str,
        scratch: &Path,
        go_on: &dyn Fn(u64) -> ControlFlow<()>,
    ) -> Result<Self, ArchiveError> {
        let file = Shared::new(File::open(path)?)?;
        let mut start = [0; 4];
        let count = file.file.read_at(&mut start, 0)?;
        let (mut entries, mut links) = (Vec::new(), 0);
        let bytes = match &start[..count] {
            [b'P', b'K', ..] => Bytes::Zip(list_zip(file, &mut entries, &mut links)?),
            [0x1f, 0x8b, ..] => {
                let unfolded = Shared::new(unfold(file, scratch, go_on)?)?;
                list_tar(&unfolded, &mut entries, &mut links)?;
                Bytes::Tar(unfolded)
            }
            _ if is_tar(&file) => {
                list_tar(&file, &mut entries, &mut links)?;
                Bytes::Tar(file)
            }
            found => {
                let found = found.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
                return Err(ArchiveError::Unknown { found });
            }
        };
        Ok(Archive { shown: shown.to_owned(), entries, links, bytes })
    }

    /// The bytes of a file in it. Several threads may read at a time.
    pub(super) fn read(&self, index: usize) -> Result<Vec<u8>, ArchiveError> {
        let entry = &self.entries[index];
        let mut bytes = vec![0; entry.size as usize];
        match &self.bytes {
            Bytes::Tar(shared) => shared.file.read_exact_at(&mut bytes, entry.at)?,
            Bytes::Zip(zip) => {
                let damaged = |reason: String| ArchiveError::Damaged { reason: format!("`{}`: {reason}", entry.name) };
                // A clone shares the list of entries and has a place of its own in the file.
                let mut zip = zip.clone();
                let mut file = zip.by_index(entry.at as usize).map_err(|error| damaged(error.to_string()))?;
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

    /// The folder in which the file of a name stands, with a `/` at its end where it is not the top: archives have their data in a folder of some name.
    pub(super) fn folder_of(&self, file: &str) -> Option<&str> {
        let candidates = self.entries.iter().filter_map(|entry| entry.name.strip_suffix(file));
        candidates.filter(|folder| folder.is_empty() || folder.ends_with('/')).min_by_key(|folder| folder.len())
    }
}

/// The path of an entry in one form; nothing where it leads out of the archive, an empty one for the archive itself.
fn plain(name: &str) -> Option<String> {
    if name.starts_with('/') || name.contains(['\\', '\0']) {
        return None;
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !["", "."].contains(part)).collect();
    (!parts.contains(&"..")).then(|| parts.join("/"))
}

fn add(entries: &mut Vec<Entry>, name: String, size: u64, at: u64) -> Result<(), ArchiveError> {
    let name = plain(&name).ok_or(ArchiveError::Escape { name })?;
    if size > MAX_ENTRY {
        return Err(ArchiveError::Entry { name, size });
    }
    if entries.len() >= MAX_ENTRIES {
        return Err(ArchiveError::Entries);
    }
    entries.push(Entry { name, size, at });
    Ok(())
}

fn is_tar(file: &Shared) -> bool {
    let mut magic = [0; 5];
    file.file.read_exact_at(&mut magic, 257).is_ok() && &magic == b"ustar"
}

fn list_tar(file: &Shared, entries: &mut Vec<Entry>, links: &mut usize) -> Result<(), ArchiveError> {
    let damaged = |reason: String| ArchiveError::Damaged { reason };
    let mut archive = tar::Archive::new(file.clone());
    for entry in archive.entries_with_seek().map_err(|error| damaged(error.to_string()))? {
        let entry = entry.map_err(|error| damaged(error.to_string()))?;
        let kind = entry.header().entry_type();
        if kind.is_dir() || kind.is_pax_global_extensions() {
            continue;
        }
        if !kind.is_file() && !kind.is_contiguous() {
            *links += 1;
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let (size, at) = (entry.size(), entry.raw_file_position());
        if at.checked_add(size).is_none_or(|end| end > file.length) {
            return Err(damaged(format!("`{name}` goes on behind its end")));
        }
        add(entries, name, size, at)?;
    }
    Ok(())
}

fn list_zip(file: Shared, entries: &mut Vec<Entry>, links: &mut usize) -> Result<ZipArchive<Shared>, ArchiveError> {
    let damaged = |error: zip::result::ZipError| ArchiveError::Damaged { reason: error.to_string() };
    let packed = file.length;
    let mut zip = ZipArchive::new(file).map_err(damaged)?;
    let mut whole: u64 = 0;
    for index in 0..zip.len() {
        let entry = zip.by_index_raw(index).map_err(damaged)?;
        let (name, size) = (entry.name().map_err(damaged)?.into_owned(), entry.size());
        if entry.is_dir() {
            continue;
        }
        if entry.is_symlink() {
            *links += 1;
            continue;
        }
        if entry.encrypted() {
            return Err(ArchiveError::Encrypted { name });
        }
        add(entries, name, size, index as u64)?;
        whole = whole.saturating_add(size);
        if whole > MUCH.max(packed.saturating_mul(MAX_RATIO)) {
            return Err(ArchiveError::Bomb { packed });
        }
    }
    Ok(zip)
}

/// The bytes of a gzip file, in a nameless file that is gone once it is closed.
fn unfold(file: Shared, scratch: &Path, go_on: &dyn Fn(u64) -> ControlFlow<()>) -> Result<File, ArchiveError> {
    let packed = file.length;
    let most = MUCH.max(packed.saturating_mul(MAX_RATIO));
    let mut to = tempfile::tempfile_in(scratch)?;
    let mut from = MultiGzDecoder::new(io::BufReader::with_capacity(1 << 18, file));
    let mut buffer = vec![0; 1 << 20];
    let mut whole: u64 = 0;
    loop {
        if go_on(whole).is_break() {
            return Err(ArchiveError::Stopped);
        }
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(to),
            Ok(count) => count,
            Err(error) => return Err(ArchiveError::Damaged { reason: format!("after {whole} good bytes: {error}") }),
        };
        whole += count as u64;
        if whole > most {
            return Err(ArchiveError::Bomb { packed });
        }
        io::Write::write_all(&mut to, &buffer[..count])?;
    }
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

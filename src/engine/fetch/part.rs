//! What has come of a file so far, beside its place, and the sums of it. Knows nothing of where it comes from.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use md5::Md5;
use sha2::{Digest as _, Sha256};

use super::{BUFFER, Checksums, FetchError};
use crate::digest::Digest;

/// What has come so far, with its sums.
pub(super) struct Part {
    pub(super) path: PathBuf,
    file: File,
    pub(super) sums: Sums,
}

impl Part {
    /// The part beside `to`, and the sums of what it holds already.
    pub(super) fn open(to: &Path) -> Result<Self, FetchError> {
        let mut name = to.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        let opened = || {
            let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            let (mut sums, mut buffer) = (Sums::default(), vec![0; BUFFER]);
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok((file, sums)),
                    count => sums.update(&buffer[..count]),
                }
            }
        };
        match opened() {
            Ok((file, sums)) => Ok(Part { path, file, sums }),
            Err(source) => Err(FetchError::File { path, source }),
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.sums.size
    }

    pub(super) fn clear(&mut self) -> Result<(), FetchError> {
        self.sums = Sums::default();
        let cleared = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)).map(drop));
        cleared.map_err(|source| self.error(source))
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.file.write_all(bytes).map_err(|source| self.error(source))?;
        self.sums.update(bytes);
        Ok(())
    }

    /// Gives the file its name.
    pub(super) fn keep(self, to: &Path) -> Result<(), FetchError> {
        // The bytes reach the disk before the name does: after a crash the name stands for all of them or for what
        // stood there before.
        let kept = self.file.sync_all().and_then(|()| fs::rename(&self.path, to));
        kept.map_err(|source| self.error(source))
    }

    fn error(&self, source: io::Error) -> FetchError {
        FetchError::File { path: self.path.clone(), source }
    }
}

/// The sums of bytes that come one after the other.
#[derive(Clone, Default)]
pub(super) struct Sums {
    blake3: blake3::Hasher,
    sha256: Sha256,
    md5: Md5,
    size: u64,
}

impl Sums {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.blake3.update(bytes);
        self.sha256.update(bytes);
        self.md5.update(bytes);
        self.size += bytes.len() as u64;
    }

    pub(super) fn finish(self) -> Checksums {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Checksums {
            blake3: Digest::from(self.blake3.finalize()),
            sha256: hex(&self.sha256.finalize()),
            md5: hex(&self.md5.finalize()),
            size: self.size,
        }
    }
}

//! Log of a running stage: in memory while it is short, then on disk.
//!
//! A log beyond the limit keeps its first and last part, and says so. Knows neither stages nor writers.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::cache::{Blob, Cache, CacheError, Log, ResultFiles};
use crate::digest::Digest;
use crate::fsio::Context;

/// Approximate size of a write. A shorter log reaches the disk only as a blob.
const PIECE: usize = 64 << 10;

/// Bytes to keep of the beginning of a log, and of its end.
pub(super) const HALF: u64 = 8 << 20;

/// Log that is being written.
pub(super) struct StageLog {
    /// Text that is not on disk yet.
    piece: Vec<u8>,
    disk: Option<Disk>,
    /// File for a long log.
    path: PathBuf,
    /// Error that stopped writing.
    broken: Option<io::Error>,
    left_out: u64,
}

/// Where a complete log is.
enum Complete {
    /// In memory.
    Bytes,
    /// In its file.
    File,
}

/// Part of a log that is on disk.
struct Disk {
    /// First part; the last part is appended to it at the end.
    head: File,
    head_size: u64,
    /// Last part, a ring buffer.
    tail: File,
    /// Bytes ever written to the tail.
    tail_size: u64,
}

impl StageLog {
    /// Creates an empty log. A long log goes to this file and to one beside it.
    pub(super) fn new(path: PathBuf) -> Self {
        StageLog { piece: Vec::new(), disk: None, path, broken: None, left_out: 0 }
    }

    /// Appends one line, or several lines with their line ends.
    pub(super) fn add(&mut self, lines: &str) {
        self.piece.extend_from_slice(lines.as_bytes());
        if !lines.ends_with('\n') {
            self.piece.push(b'\n');
        }
        if self.piece.len() >= PIECE {
            self.flush();
        }
    }

    /// Returns how many bytes the kept log omits.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    fn flush(&mut self) {
        let piece = std::mem::take(&mut self.piece);
        if self.broken.is_none()
            && let Err(error) = self.write(&piece)
        {
            // A log error does not fail the stage. The log keeps as much as fits and says that the rest is missing.
            self.broken = Some(error);
        }
    }

    fn write(&mut self, mut piece: &[u8]) -> io::Result<()> {
        let disk = match &mut self.disk {
            Some(disk) => disk,
            None => self.disk.insert(Disk::create(&self.path)?),
        };
        let room = usize::try_from(HALF - disk.head_size).unwrap_or(usize::MAX).min(piece.len());
        disk.head.write_all(&piece[..room])?;
        disk.head_size += room as u64;
        piece = &piece[room..];
        while !piece.is_empty() {
            let at = disk.tail_size % HALF;
            let now = usize::try_from(HALF - at).unwrap_or(usize::MAX).min(piece.len());
            disk.tail.write_all_at(&piece[..now], at)?;
            disk.tail_size += now as u64;
            piece = &piece[now..];
        }
        Ok(())
    }

    /// Stores the log in the cache.
    ///
    /// # Errors
    /// [`CacheError`]; the log may be stored again.
    pub(super) fn keep(&mut self, cache: &Cache) -> Result<Blob, CacheError> {
        Ok(match self.complete()? {
            Complete::Bytes => cache.put(&self.piece)?,
            Complete::File => cache.ingest(&self.path)?,
        })
    }

    /// Adds the log to the files of a result.
    ///
    /// # Errors
    /// [`CacheError`].
    pub(super) fn keep_in(&mut self, files: &mut ResultFiles) -> Result<Log, CacheError> {
        Ok(match self.complete()? {
            Complete::Bytes => match Log::short(&self.piece) {
                Some(log) => log,
                None => files.add_bytes(&self.piece)?.into(),
            },
            Complete::File => files.add(&self.path)?.into(),
        })
    }

    /// Writes what is to be written; says where the log is.
    fn complete(&mut self) -> Result<Complete, CacheError> {
        if self.disk.is_some() {
            self.flush();
        }
        if let Some(error) = &self.broken {
            let note = format!("[the rest of this log could not be written: {error}]\n");
            match &mut self.disk {
                Some(disk) => disk.head.write_all(note.as_bytes()).on("write", &self.path)?,
                None => self.piece = note.into_bytes(),
            }
        }
        match self.disk.take() {
            None => Ok(Complete::Bytes),
            Some(disk) => {
                self.left_out = disk.tail_size.saturating_sub(HALF);
                disk.join().on("write", &self.path)?;
                Ok(Complete::File)
            }
        }
    }

    /// Returns the blob that the in-memory part would be, for a log that cannot be stored.
    pub(super) fn lost(&self) -> Blob {
        Blob { digest: Digest::of(&self.piece), size: self.piece.len() as u64 }
    }
}

impl Disk {
    fn create(path: &Path) -> io::Result<Self> {
        let open = |path: &Path| File::options().read(true).write(true).create(true).truncate(true).open(path);
        let tail = path.with_extension("tail");
        let tail_file = open(&tail)?;
        // Only the open file refers to it, and it disappears with that.
        std::fs::remove_file(&tail)?;
        Ok(Disk { head: open(path)?, head_size: 0, tail: tail_file, tail_size: 0 })
    }

    /// Appends the last part to the first.
    fn join(mut self) -> io::Result<()> {
        let left_out = self.tail_size.saturating_sub(HALF);
        let start = if left_out == 0 { 0 } else { self.tail_size % HALF };
        let mut pieces = [(start, self.tail_size.min(HALF) - start), (0, start)];
        if left_out > 0 {
            let (kept, all) = (2 * HALF, self.head_size + self.tail_size);
            let note = format!(
                "\n[{left_out} bytes are left out here: of this log of {all} bytes the first and last {HALF} are kept]\n"
            );
            debug_assert!(kept < all);
            self.head.write_all(note.as_bytes())?;
        } else {
            pieces[1].1 = 0;
        }
        let mut buffer = vec![0; PIECE];
        for (mut at, mut left) in pieces {
            while left > 0 {
                let now = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
                self.tail.read_exact_at(&mut buffer[..now], at)?;
                self.head.write_all(&buffer[..now])?;
                at += now as u64;
                left -= now as u64;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the log of these lines as the cache holds it, and the number of omitted bytes.
    fn kept(lines: impl Iterator<Item = String>) -> (String, u64) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let mut log = StageLog::new(dir.path().join("tmp/log"));
        lines.for_each(|line| log.add(&line));
        let blob = log.keep(&cache).unwrap();
        let left_out = log.left_out();
        (String::from_utf8(cache.read(blob.digest).unwrap()).unwrap(), left_out)
    }

    #[test]
    fn a_log_is_kept_as_it_was_up_to_its_limit() {
        assert_eq!(kept(std::iter::empty()), (String::new(), 0));
        assert_eq!(kept(["a".to_owned(), "b\nc\n".to_owned()].into_iter()), ("a\nb\nc\n".to_owned(), 0));
        for size in [PIECE, HALF as usize - 10, HALF as usize, HALF as usize + 10, 2 * HALF as usize] {
            let line = |number: usize| format!("{number:099}\n");
            let all: String = (0..size / 100).map(line).collect();
            let (log, left_out) = kept((0..size / 100).map(line));
            assert!(log == all && left_out == 0, "{size}: {} of {} bytes", log.len(), all.len());
        }
    }

    #[test]
    fn of_a_longer_log_the_first_and_the_last_part_are_kept() {
        let count = 400_000;
        let (log, left_out) = kept((0..count).map(|number| format!("line {number:094}\n")));
        assert_eq!(left_out, 100 * count - 2 * HALF);
        assert!(log.starts_with(&format!("line {:094}\n", 0)) && log.ends_with(&format!("line {:094}\n", count - 1)));
        let note = log.lines().find(|line| line.starts_with('[')).unwrap();
        assert!(note.starts_with(&format!("[{left_out} bytes are left out here")), "{note}");
        assert_eq!(log.len() as u64, 2 * HALF + note.len() as u64 + 2);
    }
}

//! Finds out whether this machine has what a run needs: a worker that starts, a file system that keeps its promises.
//! Gives facts; what they mean for a person is said elsewhere.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use crate::cache::{Cache, CacheError};
use crate::fsio::{self, Context};
use crate::numerics::Numerics;
use crate::protocol::Event;

/// How long a worker may take to say its first line. Loading libtorch from a cold network file system takes a while.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came of starting a worker.
#[derive(Debug)]
pub enum Greeting {
    /// Its first line: [`Event::Hello`] or [`Event::Unusable`].
    Said(Event),
    /// It could not be started.
    NotStarted(std::io::Error),
    /// It ended or went on without a first line; what it said on standard error.
    Silent(String),
}

/// Starts a worker for a device with these numerics, hears its first line, and lets it go.
pub fn worker(program: &Path, device: &str, numerics: Numerics) -> Greeting {
    let mut child = match numerics.worker(program, device).stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => return Greeting::NotStarted(error),
    };
    let (sender, first) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let events = BufReader::new(stdout).lines().map_while(Result::ok);
            // A library may print before the worker does.
            if let Some(event) = events.filter_map(|line| serde_json::from_str::<Event>(&line).ok()).next() {
                // Nobody listens any more if it took too long.
                _ = sender.send(event);
            }
        });
    }
    let event = first.recv_timeout(PATIENCE);
    // It has said what was asked, or never will.
    _ = child.kill();
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        _ = stderr.read_to_string(&mut said);
    }
    _ = child.wait();
    event.map_or(Greeting::Silent(said), Greeting::Said)
}

/// What a cache's file system does.
#[derive(Debug, Clone, Copy)]
pub struct FileSystem {
    /// Bytes that can still be written.
    pub free: u64,
    /// How far its clock is from this machine's, in seconds; above 0 if it is ahead.
    pub clock: f64,
    /// Whether a lock that is held keeps others out.
    pub locks: bool,
    /// Whether a file can have two names.
    pub links: bool,
}

/// Tries the file system of a cache out, in a folder that is removed again.
///
/// # Errors
/// [`CacheError`] if it cannot be written.
pub fn file_system(cache: &Cache) -> Result<FileSystem, CacheError> {
    let folder = cache.scratch()?;
    let path = folder.path().join("probe");
    let before = SystemTime::now();
    fs::write(&path, b"probe").on("write", &path)?;
    fsio::sync(&path)?;
    let written = fs::metadata(&path).and_then(|metadata| metadata.modified()).on("read", &path)?;
    let clock = match written.duration_since(before) {
        Ok(ahead) => ahead.as_secs_f64(),
        Err(behind) => -behind.duration().as_secs_f64(),
    };
    let open = || fs::File::options().read(true).write(true).open(&path).on("write", &path);
    let (held, other) = (open()?, open()?);
    let locks = held.lock().is_ok() && other.try_lock().is_err();
    let links = fs::hard_link(&path, folder.path().join("link")).is_ok();
    let free = fsio::free_space(folder.path()).on("ask for the free space of", folder.path())?;
    Ok(FileSystem { free, clock, locks, links })
}

/// The files of a cache and their bytes.
pub fn size(root: &Path) -> (u64, u64) {
    let files = walkdir::WalkDir::new(root).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    let size = |entry: walkdir::DirEntry| entry.metadata().map_or(0, |metadata| metadata.len());
    files.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + size(entry)))
}

/// The version of git, if it is there.
pub fn git() -> Option<String> {
    let output = Command::new("git").arg("--version").output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// This program.
pub fn own_program() -> PathBuf {
    std::env::current_exe().unwrap_or_default()
}

//! How long a file that one machine writes takes to be seen on another: a caller and a job write files in turns, and
//! each lists the folder until it sees the other's, as agents do.
//!
//! The file system's time stamps tell the delays, so the clocks of the machines do not matter.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// So many files of each side are timed.
pub const ROUNDS: usize = 2;

/// Interval between two looks once the other side has answered: no shorter delay can be told.
const LOOK: Duration = Duration::from_millis(20);

/// Where the files lie, and whose they are.
fn path(folder: &Path, side: &str, round: usize) -> PathBuf {
    folder.join(format!("{side}-{round}"))
}

fn write(folder: &Path, side: &str, round: usize) -> io::Result<()> {
    File::create(path(folder, side, round)).map(drop)
}

/// Whether the folder lists a file. A look at the file itself would be answered from another cache of NFS.
fn is_listed(folder: &Path, side: &str, round: usize) -> io::Result<bool> {
    let path = path(folder, side, round);
    for entry in fs::read_dir(folder)? {
        if Some(entry?.file_name().as_os_str()) == path.file_name() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The side of the job: writes a file and waits for the caller's, [`ROUNDS`] times. Ends early if one does not come
/// within `patience`.
///
/// # Errors
/// Errors of the file system.
pub fn answer(folder: &Path, patience: Duration) -> io::Result<()> {
    write(folder, "there", 0)?;
    for round in 0..ROUNDS {
        let until = Instant::now() + patience;
        while !is_listed(folder, "here", round)? {
            if Instant::now() >= until {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
        write(folder, "there", round + 1)?;
    }
    Ok(())
}

/// The side of the caller.
#[derive(Debug)]
pub struct Caller {
    folder: PathBuf,
    /// The file of the job that is looked for.
    next: usize,
}

/// The longest delays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// From here to there; `None` if nothing was ever seen there.
    pub there: Option<Duration>,
    /// From there to here.
    pub here: Option<Duration>,
}

impl Caller {
    /// Creates it, and the folder.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn new(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Caller { folder, next: 0 })
    }

    /// The folder, for the job.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Answers the job if it has written something. Returns how long to wait until the next look.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn look(&mut self) -> io::Result<Duration> {
        while self.next <= ROUNDS && is_listed(&self.folder, "there", self.next)? {
            write(&self.folder, "here", self.next)?;
            self.next += 1;
        }
        // A job that has not started may be in the queue for minutes.
        Ok(if (1..=ROUNDS).contains(&self.next) { LOOK } else { 10 * LOOK })
    }

    /// The delays so far. The first file of the job is not timed: it is looked for less often.
    pub fn delays(&self) -> Delays {
        let at = |side: &str, round: usize| fs::metadata(path(&self.folder, side, round)).and_then(|of| of.modified());
        // A time stamp may be older than the one before by a step of the clock.
        let between = |from: io::Result<SystemTime>, to: io::Result<SystemTime>| {
            Some(to.ok()?.duration_since(from.ok()?).unwrap_or_default())
        };
        Delays {
            there: (0..ROUNDS).filter_map(|round| between(at("here", round), at("there", round + 1))).max(),
            here: (1..=ROUNDS).filter_map(|round| between(at("there", round), at("here", round))).max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn both_sides_answer_each_other_and_time_stamps_tell_the_longest_delay() {
        let dir = tempfile::tempdir().unwrap();
        let mut caller = Caller::new(dir.path().join("files")).unwrap();
        assert_eq!(caller.delays(), Delays { there: None, here: None });
        let folder = caller.folder().to_owned();
        let job = std::thread::spawn(move || answer(&folder, PATIENCE));
        while caller.next <= ROUNDS {
            std::thread::sleep(caller.look().unwrap());
        }
        job.join().unwrap().unwrap();
        let at = |side: &str, round: usize, seconds: u64| {
            let file = File::options().write(true).open(path(caller.folder(), side, round)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        };
        for (round, (there, here)) in [(100, 150), (153, 160), (165, 164)].into_iter().enumerate() {
            at("there", round, there);
            at("here", round, here);
        }
        let expected = Delays { there: Some(Duration::from_secs(5)), here: Some(Duration::from_secs(7)) };
        assert_eq!(caller.delays(), expected);
    }

    #[test]
    fn a_job_that_is_not_answered_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let caller = Caller::new(dir.path().to_owned()).unwrap();
        answer(dir.path(), Duration::ZERO).unwrap();
        assert_eq!(caller.delays(), Delays { there: None, here: None });
    }
}

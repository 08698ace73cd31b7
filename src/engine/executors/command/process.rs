//! Runs a program under a keeper: its output goes to the log as it comes, and nothing it started outlives it. Knows no
//! inputs or outputs of a stage.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::Reporter;
use super::super::error::StageError;
use super::program::{self, Program};
use crate::keeper::{Ending, Heard, KeeperError, Keepers, Kept};
use crate::lines::Lines;
use crate::plain::plain_line;

/// How often a silent program is looked after: whether it is to be given up.
const TICK: Duration = Duration::from_millis(50);
/// How long a program that was asked to end has to do so.
const GRACE: Duration = Duration::from_secs(3);
/// A longer line of its log is broken.
const LONGEST_LINE: usize = 16 << 10;
/// So many of the last lines are told with a failure …
const LAST_LINES: usize = 10;
/// … and so many bytes of each.
const LONGEST_TOLD: usize = 400;

/// The signal that asks a program to end.
const SIGTERM: i32 = 15;
/// How long this process may take to hear of a signal that has ended a program of the same job.
const OWN_SIGNAL_WAIT: Duration = Duration::from_secs(2);

/// What the shell says of a file that it may not run.
const NOT_EXECUTABLE: i32 = 126;
/// Said where that happened.
const NO_MODES: &str = "what a stage made has no mode and cannot be run by its name: name what runs it, as in \
                        `sh ${in.NEED}`; a script of yours can be run as it is if it is one of the stage's `files`";

/// Runs a program in `folder`. It succeeds if the program ends with status 0.
pub(super) fn run(
    program: &Program,
    environment: &[(OsString, OsString)],
    folder: &Path,
    reporter: &dyn Reporter,
) -> Result<(), StageError> {
    let keepers = reporter.keepers().ok_or(StageError::NoKeeper)?;
    let (program, started) = start(keepers, program, environment, folder)?;
    let broken = |error| broken(&program, error);
    let mut kept = started.map_err(broken)?;
    let (mut lines, mut last) = (Lines::new(LONGEST_LINE), VecDeque::new());
    let mut asked_to_end: Option<Instant> = None;
    let mut is_killed = false;
    let ending = loop {
        match kept.listen(TICK).map_err(broken)? {
            Heard::Nothing => {}
            Heard::Output(bytes) => log(reporter, &mut last, |each| lines.take(bytes, each)),
            Heard::Ended(ending) => break ending,
        }
        match asked_to_end {
            None if reporter.cancelled() => {
                kept.end(false);
                asked_to_end = Some(Instant::now());
            }
            Some(since) if !is_killed && (since.elapsed() > GRACE || reporter.hurried()) => {
                kept.end(true);
                is_killed = true;
            }
            _ => {}
        }
    };
    log(reporter, &mut last, |each| lines.finish(each));
    match ending {
        _ if asked_to_end.is_some() || (is_terminated(ending) && is_cancelled_soon(reporter)) => {
            Err(StageError::Cancelled)
        }
        Ending { left: left @ 1.., .. } => Err(StageError::Left { program: program.clone(), left }),
        Ending { code: Some(0), .. } => Ok(()),
        ending => {
            // Bytes that are no lines of text were written over by later ones, or act on a terminal.
            let mut said: Vec<String> = last.iter().map(|line| plain_line(line, LONGEST_TOLD)).collect();
            if ending.code == Some(NOT_EXECUTABLE) {
                said.push(NO_MODES.to_owned());
            }
            Err(StageError::Exit { program: program.clone(), ending: words_of(ending), last_lines: said })
        }
    }
}

/// Whether SIGTERM ended a program, or one that its shell ran.
fn is_terminated(ending: Ending) -> bool {
    ending.signal == Some(SIGTERM) || ending.code == Some(128 + SIGTERM)
}

/// Waits for word that the stage is cancelled. A site's scheduler sends SIGTERM to all processes of a job, and a
/// program may end of it before this process hears of it.
fn is_cancelled_soon(reporter: &dyn Reporter) -> bool {
    let began = Instant::now();
    while !reporter.cancelled() && began.elapsed() < OWN_SIGNAL_WAIT {
        std::thread::sleep(TICK);
    }
    reporter.cancelled()
}

/// Starts a program; also returns its name.
fn start<'a>(
    keepers: &'a Keepers,
    program: &Program,
    environment: &[(OsString, OsString)],
    folder: &Path,
) -> Result<(String, Result<Kept<'a>, KeeperError>), StageError> {
    let name = program.words.first().ok_or(StageError::NoProgram)?;
    let Some(line) = &program.line else {
        return Ok((name.clone(), keepers.start(&program.words, environment, folder)));
    };
    // As a shell does, which tells its programs where they are.
    let place = (OsString::from("PWD"), folder.as_os_str().to_owned());
    let inner: Vec<_> = environment.iter().filter(|(name, _)| name != "PWD").cloned().chain([place]).collect();
    match keepers.start(&program.words, &inner, folder) {
        Err(KeeperError::Program(_)) => {
            let words = program::shell(line.clone());
            Ok((words[0].clone(), keepers.start(&words, environment, folder)))
        }
        started => Ok((name.clone(), started)),
    }
}

/// Logs the lines that `give` gives, all at once, and keeps the last.
fn log(reporter: &dyn Reporter, last: &mut VecDeque<String>, give: impl FnOnce(&mut dyn FnMut(&str))) {
    let mut text = String::new();
    give(&mut |line| {
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line.to_owned());
        text.push_str(line);
        text.push('\n');
    });
    if !text.is_empty() {
        reporter.log_lines(&text);
    }
}

fn broken(program: &str, error: KeeperError) -> StageError {
    let program = program.to_owned();
    match error {
        KeeperError::Program(source) => {
            let is_denied = source.kind() == std::io::ErrorKind::PermissionDenied;
            StageError::Spawn { program, source, advice: is_denied.then(|| NO_MODES.to_owned()) }
        }
        source => StageError::Keeper { program, source },
    }
}

fn words_of(ending: Ending) -> String {
    match (ending.code, ending.signal) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

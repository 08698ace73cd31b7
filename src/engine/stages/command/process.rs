//! Runs a program: its output goes to the log line by line, and nothing it started outlives it. Knows no inputs or outputs of a stage.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::super::Reporter;
use super::super::error::StageError;

/// How often a silent program is looked after: whether it ended, whether it is to be given up.
const TICK: Duration = Duration::from_millis(50);
/// How long a program that was asked to end has to do so.
const GRACE: Duration = Duration::from_secs(3);
/// After the end, how long to wait for the next line of output that a process outside of the program's group keeps open …
const LINGER: Duration = Duration::from_secs(1);
/// … and how long to listen to such a process at all.
const LONGEST_LINGER: Duration = Duration::from_secs(10);
/// A program that writes faster than its log is kept has to wait after so many lines.
const BACKLOG: usize = 1000;
/// A longer line is broken; a program that writes no line ends must not fill the memory.
const LONGEST_LINE: u64 = 16 << 10;
/// So many of the last lines are told with a failure.
const LAST_LINES: usize = 10;

/// Runs `words` in `folder`. It succeeds if the program ends with status 0.
pub(super) fn run(
    words: &[String],
    environment: &BTreeMap<String, String>,
    folder: &Path,
    reporter: &dyn Reporter,
) -> Result<(), StageError> {
    let (program, arguments) = words.split_first().ok_or(StageError::NoProgram)?;
    let mut command = Command::new(program);
    command.args(arguments).envs(environment).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own: Ctrl-C in the terminal reaches the engine alone, and the program is ended with all that it started.
    command.process_group(0);
    let mut child = spawn(&mut command).map_err(|source| StageError::Spawn { program: program.clone(), source })?;
    if let Some(guard) = reporter.guard() {
        guard.watch(child.id());
    }

    let (sender, lines) = sync_channel(BACKLOG);
    let pipes = [child.stdout.take().map(boxed), child.stderr.take().map(boxed)];
    for pipe in pipes.into_iter().flatten() {
        let sender = sender.clone();
        thread::spawn(move || forward(pipe, &sender));
    }
    drop(sender);

    let mut running = Running { child, lines, last: VecDeque::new(), reporter };
    let (status, cancelled) = running.wait().map_err(|source| StageError::Wait { program: program.clone(), source })?;
    match status {
        _ if cancelled => Err(StageError::Cancelled),
        status if status.success() => Ok(()),
        status => {
            let last_lines = std::mem::take(&mut running.last).into();
            Err(StageError::Exit { program: program.clone(), ending: ending(status), last_lines })
        }
    }
}

/// Starts the program. A script that was just written may be busy for a moment: a process forked at the same time by another stage
/// holds its file open until it has become that stage's program (<https://github.com/golang/go/issues/22315>).
fn spawn(command: &mut Command) -> io::Result<Child> {
    let mut tries = 0;
    loop {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < 40 => {
                tries += 1;
                thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

fn boxed(pipe: impl Read + Send + 'static) -> Box<dyn Read + Send> {
    Box::new(pipe)
}

/// Sends what a pipe gives line by line, until it ends or nobody listens.
fn forward(pipe: Box<dyn Read + Send>, lines: &SyncSender<String>) {
    let mut pipe = BufReader::new(pipe);
    let mut line = vec![];
    loop {
        line.clear();
        match pipe.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                if lines.send(text.trim_end_matches(['\n', '\r']).to_owned()).is_err() {
                    return;
                }
            }
        }
    }
}

struct Running<'a> {
    child: Child,
    lines: Receiver<String>,
    last: VecDeque<String>,
    reporter: &'a dyn Reporter,
}

impl Running<'_> {
    /// Waits for the end of the program and of its output; says whether it was ended because the stage is given up.
    fn wait(&mut self) -> io::Result<(ExitStatus, bool)> {
        let mut asked_to_end: Option<Instant> = None;
        let mut silent = Duration::from_micros(200);
        let mut output_open = true;
        loop {
            if output_open {
                match self.lines.recv_timeout(TICK) {
                    Ok(line) => self.tell(line),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => output_open = false,
                }
            } else {
                // Most programs end right after their output does; the others are asked less and less often.
                thread::sleep(silent);
                silent = (silent * 2).min(TICK);
            }
            if self.has_ended()? {
                break;
            }
            match asked_to_end {
                None if self.reporter.cancelled() => {
                    self.signal(Signal::TERM);
                    asked_to_end = Some(Instant::now());
                }
                Some(since) if since.elapsed() > GRACE || self.reporter.hurried() => self.signal(Signal::KILL),
                _ => {}
            }
        }
        // The program is not waited for yet, so its group's number cannot belong to others.
        self.signal(Signal::KILL);
        self.forget();
        let status = self.child.wait()?;
        let deadline = Instant::now() + LONGEST_LINGER;
        let left = || deadline.saturating_duration_since(Instant::now()).min(LINGER);
        while let Ok(line) = self.lines.recv_timeout(left()) {
            self.tell(line);
        }
        Ok((status, asked_to_end.is_some()))
    }

    /// Whether the program has ended; leaves its status to be waited for.
    fn has_ended(&self) -> io::Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(Pid::from_child(&self.child)), options) {
            Ok(status) => Ok(status.is_some()),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Signals the program and all that it started in its group. They may be gone already, which is as well.
    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }

    /// The guard need not see to the program any more.
    fn forget(&self) {
        if let Some(guard) = self.reporter.guard() {
            guard.forget(self.child.id());
        }
    }

    fn tell(&mut self, line: String) {
        self.reporter.log(&line);
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

impl Drop for Running<'_> {
    /// An error or a panic on the way must not leave the program behind. After [`Running::wait`] this does nothing.
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::KILL);
            self.forget();
            let _ = self.child.wait();
        }
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

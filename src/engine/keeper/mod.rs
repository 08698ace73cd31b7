//! Programs of stages run under a *keeper*: a small process between the engine and a program. Whatever the program
//! starts, in a session of its own or as a daemon, stays below the keeper, which ends all of it when the program ends,
//! when the stage is given up, and when the engine is gone. Knows programs and processes, no stages.
//!
//! A keeper is this same program, started with [`ARGUMENT`]; it keeps one program at a time, and then the next. Orders
//! come on its standard input and answers go to its standard output, one JSON object a line; what the program prints
//! comes out of its standard error.

mod serve;

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

pub use serve::serve;

/// The argument that makes this program a keeper.
pub const ARGUMENT: &str = "--keep-programs";

/// So much of what a program prints is read at once.
const CHUNK: usize = 64 << 10;

/// How long a keeper may take to leave once it is told to: longer than it tries to end what is below it.
const LEAVE: Duration = Duration::from_secs(12);

/// From the engine to a keeper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    Run {
        words: Vec<String>,
        environment: Vec<(Raw, Raw)>,
        folder: Raw,
    },
    /// Ends the program: it is asked to, or killed with all that is below it.
    End {
        at_once: bool,
    },
}

/// From a keeper to the engine.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// The program runs; its process leads a group of that number.
    Started {
        pid: i32,
    },
    /// It does not; what the system said.
    NotStarted {
        errno: i32,
    },
    Ended(Ending),
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Its exit status; none if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Processes that it left and that could not be ended.
    pub left: usize,
}

/// A text of the system, which need not be UTF-8.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Raw {
    Text(String),
    Bytes(Vec<u8>),
}

impl Raw {
    fn of(text: &OsStr) -> Self {
        text.to_str().map_or_else(|| Raw::Bytes(text.as_bytes().to_vec()), |text| Raw::Text(text.to_owned()))
    }

    fn as_os(&self) -> &OsStr {
        match self {
            Raw::Text(text) => OsStr::new(text),
            Raw::Bytes(bytes) => OsStr::from_bytes(bytes),
        }
    }
}

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The program itself could not be started.
    #[error("the program cannot be started")]
    Program(#[source] io::Error),
    /// The process that is to keep it could not be started.
    #[error("{} cannot be started", program.display())]
    Keeper {
        /// This program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The process that keeps it is gone.
    #[error("the process that keeps the program is gone, perhaps killed")]
    Gone,
}

/// The keepers of a run: one for each program that runs, kept for the next.
#[derive(Debug)]
pub struct Keepers {
    program: PathBuf,
    idle: Mutex<Vec<Keeper>>,
}

impl Keepers {
    /// None yet. `program` is this program, for the keepers to be started.
    pub fn new(program: PathBuf) -> Self {
        Keepers { program, idle: Mutex::default() }
    }

    /// Starts a program in a folder, with this environment and no other.
    ///
    /// # Errors
    /// [`KeeperError`].
    pub fn start(
        &self,
        words: &[String],
        environment: &[(OsString, OsString)],
        folder: &Path,
    ) -> Result<Kept<'_>, KeeperError> {
        let environment = environment.iter().map(|(name, value)| (Raw::of(name), Raw::of(value))).collect();
        let order = Order::Run { words: words.to_vec(), environment, folder: Raw::of(folder.as_os_str()) };
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // One that waited may have been killed meanwhile.
        if let Some(mut keeper) = idle
            && let Ok(answer) = keeper.ask(&order)
        {
            return self.kept(keeper, answer);
        }
        let failed = |source| KeeperError::Keeper { program: self.program.clone(), source };
        let mut keeper = Keeper::start(&self.program).map_err(failed)?;
        let answer = keeper.ask(&order)?;
        self.kept(keeper, answer)
    }

    fn kept(&self, keeper: Keeper, answer: Answer) -> Result<Kept<'_>, KeeperError> {
        match answer {
            Answer::Started { pid } => {
                Ok(Kept { keepers: self, keeper: Some(keeper), pid, ending: None, buffer: vec![0; CHUNK] })
            }
            Answer::NotStarted { errno } => {
                self.take_back(keeper);
                Err(KeeperError::Program(io::Error::from_raw_os_error(errno)))
            }
            Answer::Ended(_) => Err(KeeperError::Gone),
        }
    }

    fn take_back(&self, keeper: Keeper) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(keeper);
    }
}

/// A keeper's process.
#[derive(Debug)]
struct Keeper {
    child: Child,
    /// None once it is told to leave.
    orders: Option<ChildStdin>,
    answers: ChildStdout,
    output: ChildStderr,
    /// What came of an answer whose end did not.
    pending: Vec<u8>,
}

impl Keeper {
    fn start(program: &Path) -> io::Result<Self> {
        let mut command = Command::new(program);
        // Not in the folder of a stage, nor in one that somebody wants to unmount; deaf to what a terminal sends.
        command.arg0("atflow").arg(ARGUMENT).env_clear().current_dir("/").process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(orders), Some(answers), Some(output)) = pipes else { return Err(io::ErrorKind::BrokenPipe.into()) };
        Ok(Keeper { child, orders: Some(orders), answers, output, pending: Vec::new() })
    }

    fn order(&mut self, order: &Order) -> Result<(), KeeperError> {
        let mut line = serde_json::to_vec(order).map_err(|_| KeeperError::Gone)?;
        line.push(b'\n');
        let orders = self.orders.as_mut().ok_or(KeeperError::Gone)?;
        orders.write_all(&line).map_err(|_| KeeperError::Gone)
    }

    fn ask(&mut self, order: &Order) -> Result<Answer, KeeperError> {
        self.order(order)?;
        loop {
            self.hear()?;
            if let Some(answer) = self.answer()? {
                return Ok(answer);
            }
        }
    }

    /// Reads more of what it answers.
    fn hear(&mut self) -> Result<(), KeeperError> {
        let mut buffer = [0; 512];
        match self.answers.read(&mut buffer) {
            Ok(0) => return Err(KeeperError::Gone),
            Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(KeeperError::Gone),
        }
        Ok(())
    }

    /// The next answer that was read whole: of a program that ends at once, two come together.
    fn answer(&mut self) -> Result<Option<Answer>, KeeperError> {
        let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line: Vec<u8> = self.pending.drain(..=end).collect();
        serde_json::from_slice(&line).map(Some).map_err(|_| KeeperError::Gone)
    }
}

impl Drop for Keeper {
    /// The end of its orders is its end, and that of all that is below it.
    fn drop(&mut self) {
        self.orders = None;
        let deadline = Instant::now() + LEAVE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                _ = self.child.kill();
                _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A program that runs.
#[derive(Debug)]
pub struct Kept<'a> {
    keepers: &'a Keepers,
    /// None once the program has ended.
    keeper: Option<Keeper>,
    pid: i32,
    /// How it ended, while its last words are read.
    ending: Option<Ending>,
    buffer: Vec<u8>,
}

/// What is heard of a program.
#[derive(Debug)]
pub enum Heard<'b> {
    /// Nothing so far.
    Nothing,
    /// What it printed, to either of its outputs.
    Output(&'b [u8]),
    /// It has ended, and all that it started; nothing more is to be heard.
    Ended(Ending),
}

impl Kept<'_> {
    /// Waits for what the program prints, or for its end.
    ///
    /// # Errors
    /// [`KeeperError::Gone`].
    pub fn listen(&mut self, patience: Duration) -> Result<Heard<'_>, KeeperError> {
        let Some(keeper) = &mut self.keeper else { return Err(KeeperError::Gone) };
        if let Some(Answer::Ended(ending)) = keeper.answer()? {
            self.ending = Some(ending);
        }
        // All that could write is dead when the end is told: what it wrote is in the pipe by then.
        let patience = if self.ending.is_some() { Duration::ZERO } else { patience };
        let timeout = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
        let mut pipes = [PollFd::new(&keeper.output, PollFlags::IN), PollFd::new(&keeper.answers, PollFlags::IN)];
        match poll(&mut pipes, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Err(KeeperError::Gone),
        }
        let [has_output, has_answer] = pipes.map(|pipe| !pipe.revents().is_empty());
        if has_output {
            match keeper.output.read(&mut self.buffer) {
                // The keeper is gone, which its answers tell, too.
                Ok(0) => {}
                Ok(count) => return Ok(Heard::Output(&self.buffer[..count])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Heard::Nothing),
                Err(_) => return Err(KeeperError::Gone),
            }
        }
        if let Some(ending) = self.ending {
            // One that could not end everything keeps nothing more.
            if let Some(keeper) = self.keeper.take().filter(|_| ending.left == 0) {
                self.keepers.take_back(keeper);
            }
            return Ok(Heard::Ended(ending));
        }
        if has_answer {
            keeper.hear()?;
        }
        Ok(Heard::Nothing)
    }

    /// Asks the program to end, or kills it and all that it started.
    pub fn end(&mut self, at_once: bool) {
        if let Some(keeper) = &mut self.keeper {
            // That it is gone is heard.
            _ = keeper.order(&Order::End { at_once });
        }
    }
}

impl Drop for Kept<'_> {
    /// An error or a panic on the way must not leave the program behind, nor must the death of its keeper.
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            drop(keeper);
            if let Some(group) = Pid::from_raw(self.pid) {
                _ = kill_process_group(group, Signal::KILL);
            }
        }
    }
}

//! What starts agents on machines: submits jobs, lists them, ends them. Knows no graph and no cache.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::classes::Class;

/// A command of a site that takes longer is ended. `slurmctld` may be away for hours; its commands then wait.
const LONGEST_CALL: Duration = Duration::from_secs(30);

/// So much of what a command prints is read.
const MOST_SAID: u64 = 64 << 20;

/// Why a site did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SiteError {
    /// A program of the site is not there.
    #[error("cannot start `{program}`: {said}")]
    Missing {
        /// The program.
        program: String,
        /// Error of the system.
        said: String,
    },
    /// A command did not answer in time.
    #[error("`{program}` did not answer within {seconds} s")]
    Silent {
        /// The program.
        program: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The site cannot be reached now; it may be later.
    #[error("`{program}` does not reach the site: {said}")]
    Away {
        /// The program.
        program: String,
        /// What it printed.
        said: String,
    },
    /// A limit of the user's or of the account's is reached; there may be room when a job ends.
    #[error("a limit of the site is reached: {said}")]
    Limit {
        /// What the program printed.
        said: String,
    },
    /// The site refuses what is asked for.
    #[error("`{program}` refuses: {said}")]
    Refused {
        /// The program.
        program: String,
        /// What it printed.
        said: String,
    },
}

impl SiteError {
    /// Whether the same may go well later without anybody changing anything.
    pub fn may_pass(&self) -> bool {
        !matches!(self, SiteError::Missing { .. } | SiteError::Refused { .. })
    }
}

/// State of a job, by the site's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It waits for a machine.
    Pending,
    /// It runs, starts, stops or is suspended: its agent may be alive.
    Running,
    /// It was taken away and waits for a machine again.
    Requeued,
    /// It ended by itself with exit code 0.
    Completed,
    /// It ended by itself with another exit code.
    Failed,
    /// Its time was over.
    TimedOut,
    /// Somebody ended it.
    Cancelled,
    /// Its machine failed.
    NodeFailed,
    /// It used more memory than it asked for.
    OutOfMemory,
    /// It had to make room.
    Preempted,
    /// A word that has no meaning here.
    Other(String),
}

/// Job as the site lists it: one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteJob {
    /// Its name at the site.
    pub id: String,
    /// Its state.
    pub state: JobState,
    /// Why it waits or ended, in the site's word; empty for nothing.
    pub reason: String,
    /// Machine that it runs or ran on; empty if unknown.
    pub node: String,
    /// What the submission said of it; empty if the site does not keep that.
    pub comment: String,
}

/// Agents to be started.
#[derive(Debug, Clone)]
pub struct Submission<'a> {
    /// The run.
    pub run: &'a str,
    /// The class.
    pub class: &'a Class,
    /// Number of agents, at least 1.
    pub count: usize,
    /// Program and arguments of one agent.
    pub agent: &'a [String],
    /// Variables of its environment.
    pub env: &'a [(String, String)],
    /// Memory of one agent in MiB.
    pub memory: Option<u64>,
    /// Machines that are not to be used.
    pub exclude: &'a [String],
    /// Jobs that must have ended before these start.
    pub after: &'a [String],
    /// Folder for what the agents print.
    pub logs: &'a Path,
}

/// A site.
pub trait Site {
    /// Starts agents. Returns the name of each job.
    ///
    /// # Errors
    /// [`SiteError`]; nothing was submitted, or it is found by its comment later.
    fn submit(&mut self, submission: &Submission<'_>) -> Result<Vec<String>, SiteError>;

    /// Lists the jobs of the user, those that ended a moment ago among them; `None` if the site has no such command.
    ///
    /// # Errors
    /// [`SiteError`].
    fn list(&mut self) -> Result<Option<Vec<SiteJob>>, SiteError>;

    /// Ends jobs. Those that have ended are no error.
    ///
    /// # Errors
    /// [`SiteError`].
    fn cancel(&mut self, jobs: &[String]) -> Result<(), SiteError>;

    /// The site's own name and version.
    ///
    /// # Errors
    /// [`SiteError`].
    fn version(&mut self) -> Result<String, SiteError>;

    /// Whether jobs can be made to wait for the end of others.
    fn can_wait(&self) -> bool {
        false
    }
}

/// What a command printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error, without the space around it.
    pub err: String,
}

/// Runs a command of a site, with an end after 30 s.
///
/// The variables of an enclosing job would change what `sbatch` and `squeue` do, so they are left out.
///
/// # Errors
/// [`SiteError::Missing`] and [`SiteError::Silent`].
pub fn call(program: &str, args: &[String], input: &str) -> Result<Said, SiteError> {
    call_within(LONGEST_CALL, program, args, input)
}

fn call_within(limit: Duration, program: &str, args: &[String], input: &str) -> Result<Said, SiteError> {
    let missing = |error: std::io::Error| SiteError::Missing { program: program.to_owned(), said: error.to_string() };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in std::env::vars_os().map(|(name, _)| name).filter(is_of_enclosing_job) {
        command.env_remove(name);
    }
    // Ctrl-C in a terminal goes to all of a group: it is for this program, not for agents that a command starts here.
    command.process_group(0);
    // Long lists of array elements would be cut short.
    command.env("SLURM_BITSTR_LEN", "0");
    let mut child = command.spawn().map_err(missing)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    // On threads of their own, so that a full pipe blocks nobody. If a grandchild holds a pipe open, they are left.
    let text = input.to_owned();
    std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(text.as_bytes())));
    let (sender, receiver) = std::sync::mpsc::channel();
    let errors = sender.clone();
    std::thread::spawn(move || _ = sender.send((true, stdout.map(read))));
    std::thread::spawn(move || _ = errors.send((false, stderr.map(read))));
    let deadline = Instant::now() + limit;
    let silent = || SiteError::Silent { program: program.to_owned(), seconds: limit.as_secs() };
    let (mut out, mut err) = (String::new(), String::new());
    for _ in 0..2 {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((true, text)) => out = text.unwrap_or_default(),
            Ok((false, text)) => err = text.unwrap_or_default(),
            Err(_) => {
                _ = child.kill();
                _ = child.wait();
                return Err(silent());
            }
        }
    }
    loop {
        match child.try_wait().map_err(missing)? {
            Some(status) => return Ok(Said { code: status.code(), out, err: err.trim().to_owned() }),
            None if Instant::now() >= deadline => {
                _ = child.kill();
                _ = child.wait();
                return Err(silent());
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn read(from: impl Read) -> String {
    let mut bytes = Vec::new();
    _ = from.take(MOST_SAID).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a variable comes from a job that this process runs in. `SLURM_CONF` names the site itself.
fn is_of_enclosing_job(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    let prefixes = ["SBATCH_", "SLURM_", "SRUN_", "SALLOC_", "SQUEUE_", "SCANCEL_"];
    name != "SLURM_CONF" && prefixes.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(limit: Duration, script: &str, input: &str) -> Result<Said, SiteError> {
        call_within(limit, "sh", &["-c".to_owned(), script.to_owned()], input)
    }

    #[test]
    fn a_command_is_heard_and_one_that_hangs_is_ended() {
        let said = shell(LONGEST_CALL, "cat; echo no >&2; exit 3", "yes").unwrap();
        assert_eq!(said, Said { code: Some(3), out: "yes".to_owned(), err: "no".to_owned() });
        for hanging in ["sleep 100", "exec >&- 2>&-; sleep 100", "sleep 100 & exit 0"] {
            let error = shell(Duration::from_millis(100), hanging, "").unwrap_err();
            assert_eq!(error, SiteError::Silent { program: "sh".to_owned(), seconds: 0 }, "{hanging}");
            assert!(error.may_pass());
        }
        let error = call("/no/such/program", &[], "").unwrap_err();
        assert!(matches!(error, SiteError::Missing { .. }) && !error.may_pass());
    }

    #[test]
    fn more_than_a_pipe_holds_goes_in_and_out() {
        let long = "a line of a script\n".repeat(100_000);
        assert_eq!(shell(LONGEST_CALL, "cat", &long).unwrap().out, long);
    }

    #[test]
    fn variables_of_an_enclosing_job_are_left_out_and_the_site_itself_is_not() {
        let is_left_out = |name: &str| is_of_enclosing_job(&OsString::from(name));
        assert!(["SLURM_JOB_ID", "SBATCH_PARTITION", "SQUEUE_FORMAT"].into_iter().all(is_left_out));
        assert!(!["SLURM_CONF", "PATH", "SLURMISH"].into_iter().any(is_left_out));
    }
}

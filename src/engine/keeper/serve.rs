//! The keeper's own side: runs one program at a time and ends all that is below it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group, wait};

use super::{Answer, Ending, Order, Raw};

/// How long to try to end what a program left: a process that waits for a dead disk or that is another user's does not
/// end.
const LONGEST_CLEARING: Duration = Duration::from_secs(10);

/// The program that runs, and whether another one may be started.
#[derive(Default)]
struct State {
    running: Option<Pid>,
    is_closed: bool,
}

/// Keeps programs until the engine closes this process' standard input. The caller sees to it that the signals of a
/// terminal do not end it.
///
/// # Errors
/// What the system says where this process cannot become the parent of what its programs leave.
pub fn serve() -> io::Result<()> {
    // What a program starts in the background becomes a child of this process, whatever session it is in.
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(getpid()))?;
    let state = Arc::new(Mutex::new(State::default()));
    let (sender, orders) = mpsc::channel();
    let listening = Arc::clone(&state);
    thread::spawn(move || listen(&listening, &sender));
    for (words, environment, folder) in orders {
        run(&state, &words, &environment, &folder)?;
    }
    // The listening thread ends the process once nothing is left.
    loop {
        thread::park();
    }
}

type Program = (Vec<String>, Vec<(Raw, Raw)>, Raw);

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears orders; the end of them is the end of all that runs, and then of this process.
fn listen(state: &Mutex<State>, programs: &Sender<Program>) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(Order::Run { words, environment, folder }) => {
                if programs.send((words, environment, folder)).is_err() {
                    break;
                }
            }
            Ok(Order::End { at_once }) => {
                let state = lock(state);
                match state.running {
                    Some(group) if at_once => kill_all(Some(group)),
                    Some(group) => _ = kill_process_group(group, Signal::TERM),
                    None => {}
                }
            }
            // Whoever speaks otherwise is not the engine.
            Err(_) => break,
        }
    }
    lock(state).is_closed = true;
    let deadline = Instant::now() + LONGEST_CLEARING;
    loop {
        let state = lock(state);
        if state.running.is_none() || Instant::now() > deadline {
            std::process::exit(0);
        }
        kill_all(state.running);
        drop(state);
        thread::sleep(Duration::from_millis(2));
    }
}

fn run(state: &Mutex<State>, words: &[String], environment: &[(Raw, Raw)], folder: &Raw) -> io::Result<()> {
    let Some((program, arguments)) = words.split_first() else {
        return answer(&Answer::NotStarted { errno: Errno::INVAL.raw_os_error() });
    };
    let prepare = |program: &OsStr| -> io::Result<Command> {
        let mut command = Command::new(program);
        command.env_clear().current_dir(folder.as_os()).stdin(Stdio::null());
        command.envs(environment.iter().map(|(name, value)| (name.as_os(), value.as_os())));
        // One pipe for both, so that their lines come in the order in which they were written.
        command.stdout(io::stderr().as_fd().try_clone_to_owned()?).stderr(Stdio::inherit()).process_group(0);
        Ok(command)
    };
    let found = find(program, environment, folder.as_os());
    let mut command = prepare(found.as_deref().unwrap_or(program.as_ref()))?;
    command.arg0(program).args(arguments);
    let mut now = lock(state);
    if now.is_closed {
        return Ok(());
    }
    let started = match (spawn(&mut command), &found) {
        // A script in a folder of `PATH` that does not say what runs it is one of the shell's.
        (Err(error), Some(found)) if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
            let mut shell = prepare("/bin/sh".as_ref())?;
            spawn(shell.arg(found).args(arguments))
        }
        (started, _) => started,
    };
    let main = match started {
        Ok(child) => Pid::from_child(&child),
        Err(error) => {
            drop(now);
            return answer(&Answer::NotStarted { errno: error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error()) });
        }
    };
    now.running = Some(main);
    drop(now);
    // If nobody hears this, the listening thread ends the program: it must be waited for all the same.
    let told = answer(&Answer::Started { pid: main.as_raw_nonzero().get() });
    let status = wait_for(main);
    if cfg!(not(target_os = "linux")) {
        // Elsewhere nobody tells what else there is: its group is ended.
        _ = kill_process_group(main, Signal::KILL);
    }
    let left = clear();
    lock(state).running = None;
    told?;
    let code = status.and_then(WaitStatus::exit_status);
    let signal = status.and_then(WaitStatus::terminating_signal);
    answer(&Answer::Ended(Ending { code, signal, left }))
}

/// Looks a program up in the folders of `PATH` as a shell does: a program with a path is started without a copy of this
/// process. `None` if it has a path, or is not found: then the system says why.
fn find(program: &str, environment: &[(Raw, Raw)], folder: &OsStr) -> Option<OsString> {
    if program.is_empty() || program.contains('/') {
        return None;
    }
    let path = environment.iter().find(|(name, _)| name.as_os() == "PATH")?.1.as_os();
    let places = path.as_bytes().split(|byte| *byte == b':').map(|place| Path::new(OsStr::from_bytes(place)));
    let places = places.map(|place| if place.as_os_str().is_empty() { Path::new(".") } else { place });
    let is_program = |path: &PathBuf| {
        // Some places are relative to the folder that the program starts in.
        let path = Path::new(folder).join(path);
        path.is_file() && rustix::fs::access(&path, rustix::fs::Access::EXEC_OK).is_ok()
    };
    places.map(|place| place.join(program)).find(is_program).map(PathBuf::into_os_string)
}

/// Starts the program. A script that was just written may be busy for a moment: a process forked at the same time for
/// another stage holds its file open until it has become that stage's program
/// (<https://github.com/golang/go/issues/22315>).
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

/// Waits for the end of the program, and buries what of its left-behinds ends before it.
fn wait_for(main: Pid) -> Option<WaitStatus> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == main => return Some(status),
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Ends what is left below this process; gives how many processes could not be ended. Where none is left this costs one
/// question.
fn clear() -> usize {
    let deadline = Instant::now() + LONGEST_CLEARING;
    let mut pause = Duration::from_micros(200);
    loop {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                // No children: what the dead had left would have become ours.
                Err(_) => return 0,
            }
        }
        if Instant::now() > deadline {
            return descendants(getpid()).len().max(1);
        }
        kill_all(None);
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Kills all that is below this process, and the group of the program that runs.
fn kill_all(group: Option<Pid>) {
    // They may be gone already, which is as well.
    if let Some(group) = group {
        _ = kill_process_group(group, Signal::KILL);
    }
    for pid in descendants(getpid()) {
        _ = kill_process(pid, Signal::KILL);
    }
}

/// All processes below one, as far as the system tells.
fn descendants(of: Pid) -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = std::fs::read(entry.path().join("stat")).unwrap_or_default();
        // The name, in parentheses, may hold anything; the state and the parent follow it.
        let Some(end) = stat.iter().rposition(|byte| *byte == b')') else { continue };
        let fields = String::from_utf8_lossy(&stat[end + 1..]);
        if let Some(parent) = fields.split_whitespace().nth(1).and_then(|field| field.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut found, mut open) = (Vec::new(), vec![of.as_raw_nonzero().get()]);
    while let Some(pid) = open.pop() {
        for child in children.remove(&pid).into_iter().flatten() {
            found.extend(Pid::from_raw(child));
            open.push(child);
        }
    }
    found
}

fn answer(answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

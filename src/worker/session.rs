//! The session with the engine: a hello, then one job after another until the engine closes the worker's input.
//!
//! A thread listens meanwhile, so a running job can be cancelled. Knows no stage kind.

use std::any::Any;
use std::io::{self, BufRead, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use atflow::protocol::{Event, Failure, FailureCode, Job, Measurement, PROTOCOL_VERSION, Request};

use crate::context::{Context, Control};
use crate::data::Library;
use crate::device::ChosenDevice;
use crate::error::StageError;
use crate::{executors, measure, system};

/// Why a session ended other than at the engine's request.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The engine sent an invalid request that names no job to reply to.
    #[error("cannot understand the request `{line}`")]
    Request {
        /// The line.
        line: String,
        /// The parse error.
        source: serde_json::Error,
    },
    /// The engine's messages cannot be read.
    #[error("cannot read from the engine")]
    Input(#[source] io::Error),
    /// The engine no longer reads the worker's messages.
    #[error("cannot write to the engine")]
    Output(#[source] io::Error),
}

/// Grace period for a job to stop after the engine closes the worker's input.
const LONGEST_FAREWELL: Duration = Duration::from_secs(5);

/// Messages from the listening thread.
enum Heard {
    Run(Box<Job>),
    Measure(Box<Measurement>),
    /// A request that cannot be parsed, but whose job is known.
    Unreadable(u64, serde_json::Error),
    Failed(SessionError),
}

/// Writes one event as one line.
///
/// # Errors
/// Returns the error from the system.
pub fn send(output: &mut impl Write, event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_string(event)?;
    line.push('\n');
    output.write_all(line.as_bytes())?;
    output.flush()
}

/// Serves jobs until the engine closes `input`, which cancels a running job.
///
/// `scripts` allows it to run the TorchScript networks in checkpoints.
///
/// # Errors
/// [`SessionError`] if the session breaks.
pub fn serve(
    input: impl BufRead + Send + 'static,
    mut output: impl Write,
    mut chosen: ChosenDevice,
    scripts: bool,
) -> Result<(), SessionError> {
    let hello = Event::Hello {
        protocol: PROTOCOL_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        libtorch: system::libtorch_version(),
        device: chosen.name.clone(),
        device_name: chosen.model.clone(),
        numerics: chosen.numerics,
        arithmetic: chosen.arithmetic.clone(),
    };
    let control = Arc::new(Control::default());
    // It listens before it says so: a process without this thread has told nobody that it can be given a stage.
    let heard = listen(input, Arc::clone(&control));
    send(&mut output, &hello).map_err(SessionError::Output)?;
    let panics = catch_panics();
    let mut library = Library::new(chosen.device, scripts);
    let mut warning = chosen.warning.take();
    for heard in heard {
        let answer = match heard {
            Heard::Failed(error) => return Err(error),
            Heard::Unreadable(id, error) => Event::Failed { id, failure: unreadable(&error) },
            Heard::Measure(of) => {
                let measured = guarded(of.threads, &panics, || measure::measure(&of, chosen.device));
                match measured {
                    Ok((images, took)) => Event::Measured { id: of.id, images, seconds: took.as_secs_f64() },
                    Err(failure) => Event::Failed { id: of.id, failure },
                }
            }
            Heard::Run(job) => {
                let mut broken = None;
                // Do not lose an unsendable line silently: closing the control ends the job, and the error is reported
                // below.
                let mut events = |event: Event| {
                    if let Err(error) = send(&mut output, &event) {
                        broken.get_or_insert(error);
                        control.close();
                    }
                };
                if let Some(line) = warning.take() {
                    events(Event::Log { id: job.id, line });
                }
                let outcome = run(&job, &chosen, &mut library, &mut events, &control, &panics);
                if let Some(error) = broken {
                    return Err(SessionError::Output(error));
                }
                let id = job.id;
                match outcome {
                    Ok((summary, earlier)) => {
                        let (peak_memory, earlier_seconds) = (atflow::host::peak_memory(), earlier.as_secs_f64());
                        Event::Finished { id, summary, peak_memory, earlier_seconds }
                    }
                    Err(failure) => Event::Failed { id, failure },
                }
            }
        };
        send(&mut output, &answer).map_err(SessionError::Output)?;
    }
    Ok(())
}

fn unreadable(error: &serde_json::Error) -> Failure {
    let message = "the worker cannot read this request: engine and worker may be of different versions".to_owned();
    Failure { code: FailureCode::Broken, message, causes: vec![error.to_string()] }
}

/// Starts the listening thread. The channel ends when the engine closes the input.
fn listen(input: impl BufRead + Send + 'static, control: Arc<Control>) -> Receiver<Heard> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in input.lines() {
            let heard = match line {
                Ok(line) if line.trim().is_empty() => continue,
                Ok(line) => match understand(line) {
                    Ok(Request::Cancel { id }) => {
                        control.cancel(id);
                        continue;
                    }
                    Ok(Request::Run(job)) => Heard::Run(Box::new(job)),
                    Ok(Request::Measure(of)) => Heard::Measure(Box::new(of)),
                    Err(heard) => heard,
                },
                Err(error) => Heard::Failed(SessionError::Input(error)),
            };
            let last = matches!(heard, Heard::Failed(_));
            if sender.send(heard).is_err() || last {
                break;
            }
        }
        control.close();
        // A job checks for cancellation between steps. A job that does not, such as one in an operator that takes
        // minutes, must not outlive the engine.
        drop(sender);
        thread::sleep(LONGEST_FAREWELL);
        system::leave_at_once();
    });
    receiver
}

fn understand(line: String) -> Result<Request, Heard> {
    serde_json::from_str(&line).map_err(|source| {
        let id = serde_json::from_str(&line).ok().and_then(|value: serde_json::Value| value.get("id")?.as_u64());
        match id {
            Some(id) => Heard::Unreadable(id, source),
            None => Heard::Failed(SessionError::Request { line, source }),
        }
    })
}

/// Runs one job; the worker survives any panic in it.
///
/// Returns its summary, and the time that earlier jobs spent on the progress it resumed from.
fn run(
    job: &Job,
    chosen: &ChosenDevice,
    library: &mut Library,
    events: &mut dyn FnMut(Event),
    control: &Control,
    panics: &Mutex<String>,
) -> Result<(String, Duration), Failure> {
    let mut context = Context::new(job, chosen, library, events, control);
    guarded(job.threads, panics, || {
        context.reporter.check_cancelled()?;
        let summary = executors::run(&mut context)?;
        Ok((summary, context.earlier))
    })
}

/// Computes something with so many threads; a panic in it is a failure.
fn guarded<T>(
    threads: usize,
    panics: &Mutex<String>,
    compute: impl FnOnce() -> Result<T, StageError>,
) -> Result<T, Failure> {
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
    // What needs gradients enables them explicitly. The guard also resets state left by a panic.
    let _guard = tch::no_grad_guard();
    match panic::catch_unwind(AssertUnwindSafe(compute)) {
        Ok(outcome) => outcome.map_err(|error| error.to_failure()),
        Err(payload) => {
            let place = std::mem::take(&mut *panics.lock().unwrap_or_else(PoisonError::into_inner));
            Err(StageError::Panic(format!("{}{place}", panic_text(payload.as_ref()))).to_failure())
        }
    }
}

/// Records the location of the last panic for the failure message, and keeps it off standard error.
fn catch_panics() -> Arc<Mutex<String>> {
    let place = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&place);
    panic::set_hook(Box::new(move |info| {
        let text = info.location().map(|location| format!(" ({location})")).unwrap_or_default();
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }));
    place
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

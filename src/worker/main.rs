//! The worker's command line: finds its device, says so, and serves the engine.

use std::io::{self, BufReader, Write};
use std::process::ExitCode;

use atflow::protocol::Event;
use atflow_worker::device::{self, Wanted};
use atflow_worker::{session, system};

const USAGE: &str = "Usage: atflow-worker [--device auto|cpu|cuda:N]
       atflow-worker --version

Runs stages for atflow, which starts it by itself: requests on standard input, events on standard output.
";

/// The command line or the environment is wrong.
const WRONG: u8 = 2;

enum Asked {
    Serve(Wanted),
    Show(String),
}

fn read_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut wanted = Wanted::Auto;
    while let Some(argument) = arguments.next() {
        let value = match argument.as_str() {
            "--version" | "-V" => return Ok(Asked::Show(format!("atflow-worker {}\n", env!("CARGO_PKG_VERSION")))),
            "--help" | "-h" => return Ok(Asked::Show(USAGE.to_owned())),
            "--device" => arguments.next().ok_or("`--device` needs a value: `auto`, `cpu` or `cuda:N`")?,
            other => match other.strip_prefix("--device=") {
                Some(value) => value.to_owned(),
                None => return Err(format!("unknown argument `{other}`\n\n{USAGE}")),
            },
        };
        wanted = value.parse().map_err(|error| format!("`--device`: {error}"))?;
    }
    Ok(Asked::Serve(wanted))
}

fn main() -> ExitCode {
    let (code, message) = match read_arguments(std::env::args().skip(1)) {
        Ok(Asked::Show(text)) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => (1, error.to_string()),
        },
        Ok(Asked::Serve(wanted)) => match serve(wanted) {
            Ok(code) => return code,
            Err(error) => (1, chain(&*error)),
        },
        Err(message) => (WRONG, message),
    };
    // Nothing is left to be told if standard error is closed too.
    let _ = writeln!(io::stderr(), "atflow-worker: {message}");
    ExitCode::from(code)
}

fn serve(wanted: Wanted) -> Result<ExitCode, Box<dyn std::error::Error>> {
    system::prepare_process();
    let mut output = system::claim_stdout()?;
    tch::set_num_interop_threads(1);
    match device::choose(wanted) {
        Ok(chosen) => {
            session::serve(BufReader::new(io::stdin()), output, chosen)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(why) => {
            let message = format!("cannot compute on `{wanted}`: {}", chain(&why));
            session::send(&mut output, &Event::Unusable { message })?;
            Ok(ExitCode::from(WRONG))
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

//! The worker's command line: selects the device, reports it, and serves the engine.

use std::io::{self, BufReader, Write};
use std::process::ExitCode;

use atflow::numerics::Numerics;
use atflow::protocol::Event;
use atflow_worker::device::{self, RequestedDevice};
use atflow_worker::{arithmetic, session, system};

const USAGE: &str = "Usage: atflow-worker [--device auto|cpu|cuda:N] [--numerics portable|native] [--scripts]
       atflow-worker --version

Runs stages for atflow, which starts it by itself: requests on standard input, events on standard output.
With `--scripts` it runs the TorchScript networks in checkpoints, too.
";

/// Exit code for a wrong command line or environment.
const WRONG: u8 = 2;

enum Invocation {
    Serve { wanted: RequestedDevice, numerics: Numerics, scripts: bool },
    Show(String),
}

fn read_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Invocation, String> {
    let (mut wanted, mut numerics, mut scripts) = (RequestedDevice::Auto, Numerics::default(), false);
    while let Some(argument) = arguments.next() {
        let (option, value) = match argument.split_once('=') {
            Some((option, value)) => (option, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let mut value_of = |expected: &str| {
            value.clone().or_else(|| arguments.next()).ok_or_else(|| format!("`{option}` needs a value: {expected}"))
        };
        match option {
            "--version" | "-V" => {
                return Ok(Invocation::Show(format!("atflow-worker {}\n", env!("CARGO_PKG_VERSION"))));
            }
            "--help" | "-h" => return Ok(Invocation::Show(USAGE.to_owned())),
            "--scripts" => scripts = true,
            "--device" => {
                let value = value_of("`auto`, `cpu` or `cuda:N`")?;
                wanted = value.parse().map_err(|error| format!("`--device`: {error}"))?;
            }
            "--numerics" => {
                let value = value_of("`portable` or `native`")?;
                numerics = Numerics::from_name(&value)
                    .ok_or_else(|| format!("`--numerics`: expected `portable` or `native`, found `{value}`"))?;
            }
            _ => return Err(format!("unknown argument `{argument}`\n\n{USAGE}")),
        }
    }
    Ok(Invocation::Serve { wanted, numerics, scripts })
}

fn main() -> ExitCode {
    let (code, message) = match read_arguments(std::env::args().skip(1)) {
        Ok(Invocation::Show(text)) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => (1, error.to_string()),
        },
        Ok(Invocation::Serve { wanted, numerics, scripts }) => match serve(wanted, numerics, scripts) {
            Ok(code) => return code,
            Err(error) => (1, chain(&*error)),
        },
        Err(message) => (WRONG, message),
    };
    // If standard error is closed too, there is nowhere left to report.
    let _ = writeln!(io::stderr(), "atflow-worker: {message}");
    ExitCode::from(code)
}

fn serve(wanted: RequestedDevice, numerics: Numerics, scripts: bool) -> Result<ExitCode, Box<dyn std::error::Error>> {
    arithmetic::hold(numerics)?;
    system::prepare_process();
    let mut output = system::claim_stdout()?;
    tch::set_num_interop_threads(1);
    match device::choose(wanted, numerics) {
        Ok(chosen) => {
            session::serve(BufReader::new(io::stdin()), output, chosen, scripts)?;
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

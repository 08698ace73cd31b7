//! Hidden command: the engine starts `atflow` with it to supervise the programs of stages.

use std::process::ExitCode;

use atflow::keeper;

use crate::report::{Exit, eprint};

pub(crate) fn run() -> ExitCode {
    // A terminal's Ctrl-C must not end this process before the programs that it supervises. If no handler can be set,
    // its own process group keeps most such signals away.
    _ = ctrlc::set_handler(|| ());
    match keeper::serve() {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            eprint(&format!("cannot keep programs: {error}\n"));
            Exit::Wrong.into()
        }
    }
}

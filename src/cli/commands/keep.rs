//! What `atflow` does when the engine starts it to keep programs of stages. No command for people.

use std::process::ExitCode;

use atflow::keeper;

use crate::report::{Exit, eprint};

pub(crate) fn run() -> ExitCode {
    // What ends the programs of a terminal must not end this one before what it keeps. Where no handler can be set, its
    // group of its own keeps most of it away.
    _ = ctrlc::set_handler(|| ());
    match keeper::serve() {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            eprint(&format!("cannot keep programs: {error}\n"));
            Exit::Wrong.into()
        }
    }
}

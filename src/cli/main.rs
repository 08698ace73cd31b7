//! The command line of atflow: words, progress and exit codes around the engine. What a command does is in its file
//! under `commands`; every error sentence a user sees passes through `report`.

mod again;
mod args;
mod commands;
mod complete;
mod excerpt;
mod nearby;
mod progress;
mod report;
mod ui;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::{Cli, Command};

/// Thousands of stages are millions of small allocations: the system's allocator takes a quarter of a plan's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == atflow::keeper::ARGUMENT) {
        return commands::keep::run();
    }
    clap_complete::CompleteEnv::with_factory(Cli::command).var(complete::VARIABLE).complete();
    let parsed = Cli::command().try_get_matches().and_then(|found| Ok((Cli::from_arg_matches(&found)?, found)));
    let (mut cli, found) = match parsed {
        Ok(parsed) => parsed,
        // clap prints help to standard output and errors to standard error, and its exit code 2 is ours for a wrong
        // command line.
        Err(error) => error.exit(),
    };
    nearby::adopt(&found, &mut cli.command);
    let is_json = cli.command.prints_json();
    let result = match cli.command {
        Command::Init(args) => commands::init::run(&args),
        Command::Run(args) => commands::run::run(&args),
        Command::Agent(args) => commands::agent::run(&args),
        Command::Plan(args) => commands::plan::run(&args),
        Command::Why(args) => commands::why::run(&args),
        Command::Show(args) => commands::show::run(&args),
        Command::Log(args) => commands::log::run(&args),
        Command::Status(args) => commands::status::run(&args),
        Command::Cancel(args) => commands::cancel::run(&args),
        Command::Runs(args) => commands::runs::run(&args),
        Command::Diff(args) => commands::diff::run(&args),
        Command::Data(args) => commands::data::run(&args),
        Command::Export(args) => commands::export::run(&args),
        Command::Report(args) => commands::report::run(&args),
        Command::Graph(args) => commands::graph::run(&args),
        Command::Verify(args) => commands::verify::run(&args),
        Command::Gc(args) => commands::gc::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Keygen(args) => commands::keygen::run(&args),
        Command::Schema(args) => commands::schema::run(&args),
        Command::Completions(args) => commands::completions::run(&args),
        Command::Man(args) => commands::man::run(&args),
        Command::Table(args) => commands::table::run(&args),
        Command::Bundle(args) => commands::bundle::run(&args),
        Command::Push(args) => commands::push::run(&args),
        Command::Pull(args) => commands::pull::run(&args),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            if is_json {
                error.print_json();
            }
            error.show()
        }
    }
}

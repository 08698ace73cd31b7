//! The stages that the engine runs itself, on files as the scheduler gives them, and fetching from a server on this
//! machine.

mod command;
mod dataset;
#[path = "../datasets/mod.rs"]
mod datasets;
mod fetch;
mod file;
mod numbers;
mod support;

//! Stories told through the program: what runs, what does not, and what a user sees.

mod bad;
mod errors;
mod failures;
mod rerun;
mod scenarios;
mod support;

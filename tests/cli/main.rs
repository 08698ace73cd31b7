//! Stories told through the program: what runs, what does not, and what a user sees.

mod errors;
mod failures;
mod gc;
mod graph;
mod kept;
mod machine;
mod rerun;
mod support;
mod verify;
mod why;

//! Properties of any pipeline: what a key depends on, what runs after an edit, and that no text makes the parser panic.
//!
//! How many cases are tried is set by `PROPTEST_CASES`: `PROPTEST_CASES=200000 cargo test --release --test properties
//! parser` runs the parser for minutes.

mod edits;
mod keys;
mod mistakes;
mod model;
mod parser;

//! Stories told through the program: what runs, what does not, and what a user sees.

mod absent;
mod bad;
mod bucket;
mod depth;
mod errors;
mod failures;
mod gc;
mod graph;
mod kept;
mod language;
mod machine;
mod remote;
mod rerun;
mod scenarios;
mod shared;
mod sources;
mod support;
mod table;
mod trust;
mod verify;
mod versions;
mod why;
mod worker;

//! The engine of atflow: from a pipeline file to results, running only what is stale.
//!
//! It knows no terminal and no libtorch. `docs/architecture.md` tells how the modules stand on one another.

pub mod action;
pub mod address;
pub mod bundle;
pub mod cache;
pub mod dense_map;
pub mod digest;
mod environment;
pub mod event;
pub mod executors;
pub mod external_inputs;
pub mod fetch;
pub mod formats;
pub mod fsio;
pub mod gc;
pub mod graph;
pub mod host;
pub mod keeper;
pub mod lines;
pub mod number;
pub mod numerics;
mod outputs;
pub mod parameters;
pub mod pickle;
pub mod picture;
pub mod plain;
pub mod plan;
pub mod probe;
pub mod protocol;
pub mod publish;
pub mod random;
pub mod redact;
mod regular;
pub mod report;
pub mod resample;
pub mod results;
pub mod results_folder;
pub mod ro_crate;
pub mod run_diff;
pub mod scheduler;
pub mod signing;
pub mod spec;
pub mod stage_kinds;
pub mod tidy;
pub mod time_left;
pub mod verify;

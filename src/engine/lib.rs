//! The engine of atflow: from a pipeline file to results, running only what is stale.
//!
//! It knows no terminal and no libtorch. `docs/architecture.md` tells how the modules stand on one another.

pub mod address;
pub mod cache;
pub mod depth;
pub mod diagram;
pub mod digest;
mod environment;
pub mod event;
pub mod explain;
pub mod export;
pub mod fetch;
pub mod formats;
pub mod frozen;
pub mod fsio;
pub mod gc;
pub mod graph;
pub mod host;
pub mod keeper;
pub mod kinds;
pub mod lines;
pub mod number;
pub mod numerics;
mod outputs;
pub mod picture;
pub mod plain;
pub mod plan;
pub mod preview;
pub mod price;
pub mod probe;
pub mod protocol;
pub mod publish;
pub mod random;
pub mod record;
mod regular;
pub mod remote;
pub mod reproduce;
pub mod resample;
pub mod results;
pub mod scheduler;
pub mod signing;
pub mod sources;
pub mod spec;
pub mod spot_check;
pub mod stages;
pub mod verify;
pub mod why;

//! The engine of atflow: from a pipeline file to results, running only what is stale.
//!
//! It knows no terminal and no libtorch. `docs/architecture.md` tells how the modules stand on one another.

pub mod digest;
pub mod formats;
pub mod kinds;
pub mod number;
pub mod picture;
pub mod protocol;
pub mod results;

//! The worker of atflow: runs the stages that need tensors, one at a time, on request of the engine.
//!
//! From the outside in: [`session`] speaks the protocol, [`context`] serves a running stage, [`executors`] implement
//! the kinds, and [`measure`] times passes. They build on [`data`], [`checkpoint`], [`weights`], [`training_state`],
//! [`attacks`] and [`networks`], which build on [`resize`], [`rng`], [`script`] and [`file_types`]. The worker knows no
//! graph, no keys and no cache.

pub mod arithmetic;
pub mod attacks;
pub mod checkpoint;
pub mod context;
pub mod data;
pub mod device;
pub mod error;
pub mod executors;
pub mod file_types;
pub mod measure;
pub mod networks;
pub mod resize;
pub mod rng;
pub mod script;
pub mod session;
pub mod system;
pub mod training_state;
pub mod weights;

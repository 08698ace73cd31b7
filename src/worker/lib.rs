//! The worker of atflow: runs the stages that need tensors, one at a time, as the engine asks.
//!
//! From the outside in: [`session`] speaks the protocol, [`context`] is what a running stage may ask for, [`executors`]
//! are the kinds, and they stand on [`data`], [`checkpoint`], [`weights`], [`training_state`], [`attacks`] and
//! [`networks`], which stand on [`resize`] and [`rng`]. It knows no graph, no keys and no cache.

pub mod arithmetic;
pub mod attacks;
pub mod checkpoint;
pub mod context;
pub mod data;
pub mod device;
pub mod error;
pub mod executors;
pub mod networks;
pub mod resize;
pub mod rng;
pub mod session;
pub mod system;
pub mod training_state;
pub mod weights;

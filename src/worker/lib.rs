//! The worker of atflow: runs the stages that need tensors, one at a time, as the engine asks.
//!
//! From the outside in: [`session`] speaks the protocol, [`context`] is what a running stage may ask for, [`stages`] are the kinds, and they
//! stand on [`data`], [`checkpoint`], [`weights`], [`partial`], [`attacks`] and [`networks`], which stand on [`resize`] and [`rng`]. It knows no graph, no keys and no cache.

pub mod arithmetic;
pub mod attacks;
pub mod checkpoint;
pub mod context;
pub mod data;
pub mod device;
pub mod error;
pub mod networks;
pub mod partial;
pub mod resize;
pub mod rng;
pub mod session;
pub mod stages;
pub mod system;
pub mod weights;

//! Tests of the worker: numbers against PyTorch, properties that no number may break, and its conversation with the engine
//! through the real binary.

mod data;
mod networks;
mod parity;
mod properties;
mod resume;
mod saliency;
mod stories;
mod support;
mod transforms;

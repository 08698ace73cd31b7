//! Tests of the worker: numbers against PyTorch, properties that no number may break, and its conversation with the engine
//! through the real binary.

mod attacks;
mod ensembles;
mod parity;
mod properties;
mod resume;
mod stories;
mod support;

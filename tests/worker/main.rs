//! Tests of the worker: numbers against PyTorch, and the protocol through the binary.

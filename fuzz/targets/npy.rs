//! An array of NumPy of any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| atflow::executors::fuzzing::npy(bytes));

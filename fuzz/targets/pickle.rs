//! A pickle of any bytes, read as a batch of CIFAR-10.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| atflow::executors::fuzzing::cifar_pickle(bytes));

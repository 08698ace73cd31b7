//! An archive of any bytes: it is listed and its files are read, or it is refused.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| atflow::executors::fuzzing::archive(bytes));

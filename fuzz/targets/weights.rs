//! A file of weights of any bytes: safetensors, or either form that `torch.save` writes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    _ = atflow_worker::weights::read(bytes);
});

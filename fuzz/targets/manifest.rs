//! A manifest of any bytes, as a remote cache may send it: what is read of it has one key, and is read again as the same.

#![no_main]

use atflow::cache::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) else { return };
    let text = serde_json::to_string_pretty(&manifest).unwrap();
    let again: Manifest = serde_json::from_str(&text).unwrap();
    assert_eq!(manifest.record.key(), again.record.key());
    assert_eq!(serde_json::to_string_pretty(&again).unwrap(), text);
});

//! A file that a stage brings in as it is.

use atflow::protocol::FailureCode;
use atflow::stage_kinds::StageKind;
use serde_json::json;

use crate::support::Bench;

#[test]
fn a_file_comes_out_as_it_went_in_and_never_with_other_bytes() {
    let mut bench = Bench::new(StageKind::File, json!({}), &["file"]);
    let path = bench.input("file", "", b"weights");
    assert_eq!(bench.run().unwrap(), "7 bytes");
    assert_eq!(bench.output("file"), b"weights");
    let digest = bench.job.inputs[0].digest;
    std::fs::write(&path, b"weighty").unwrap();
    assert_eq!(bench.failure().code, FailureCode::CorruptInput { digest });
    std::fs::remove_file(&path).unwrap();
    assert!(bench.failure().message.contains("input file is corrupt or gone"), "{:?}", bench.failure());
}

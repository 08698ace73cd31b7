//! Measurements of how fast images pass a network, asked for over the protocol.

use atflow::protocol::{Event, FailureCode, Measurement, Request};
use atflow::stage_kinds::{Net, Pass, Precision};
use serde_json::json;

use crate::support::Engine;

fn measurement(id: u64, pass: Pass, precision: Precision, width: u32) -> Measurement {
    let net = json!({"arch": "resnet", "width": width, "blocks": [1]});
    let net: Net = serde_json::from_value(net).unwrap();
    Measurement { id, pass, precision, net, shape: [3, 8, 8], batch_size: 4, threads: 1, seconds: 0.01 }
}

#[test]
fn every_pass_is_measured_in_both_precisions_and_a_network_that_cannot_be_is_told() {
    let mut engine = Engine::ready();
    let mut ask = |of: Measurement| {
        engine.say(&serde_json::to_string(&Request::Measure(of)).unwrap());
        engine.hear()
    };
    let mut id = 0;
    for pass in Pass::ALL {
        for precision in [Precision::Fp32, Precision::Bf16] {
            id += 1;
            match ask(measurement(id, pass, precision, 2)) {
                Event::Measured { id: answered, images, seconds } => {
                    assert_eq!((answered, images % 4), (id, 0), "whole batches");
                    assert!(images > 0 && seconds > 0.0, "{images} images in {seconds} s");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    match ask(measurement(99, Pass::Forward, Precision::Fp32, 0)) {
        Event::Failed { id: 99, failure } => assert_eq!(failure.code, FailureCode::Invalid),
        other => panic!("{other:?}"),
    }
    let again = ask(measurement(100, Pass::Forward, Precision::Fp32, 2));
    assert!(matches!(again, Event::Measured { id: 100, .. }), "it goes on: {again:?}");
}

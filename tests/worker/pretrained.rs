//! Checkpoints from weights that were trained elsewhere: the tensors are those of the file, and the logits PyTorch's.

use atflow::formats::{ImageSet, Predictions};
use atflow::protocol::{FailureCode, Input};
use atflow::stage_kinds::StageKind;
use atflow_worker::checkpoint::Checkpoint;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tch::{Device, Tensor};

use crate::parity::{self, fixture};
use crate::support::Engine;
use crate::torchscript::{ready, script};

/// The images of make.py, which are whole bytes, and their classes.
fn images() -> ImageSet {
    let bytes = (fixture("images") * 255.0).round().to_kind(tch::Kind::Uint8).view(-1);
    let labels: Vec<i64> = fixture("labels").try_into().unwrap();
    let labels = labels.into_iter().map(|label| label as i32).collect();
    let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
    ImageSet { pixels: bytes.try_into().unwrap(), shape: [6, 2, 8, 8], labels, texture: None, classes }
}

fn net(more: Value) -> Value {
    let mut net = json!({"mean": [0.4, 0.6], "std": [0.25, 0.5]});
    net.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    net
}

fn made(engine: &mut Engine, params: Value, more: Vec<Input>) -> (Vec<u8>, String) {
    let inputs = [vec![engine.input("data", &images().to_bytes().unwrap())], more].concat();
    let ([checkpoint], summary) = engine.run(StageKind::Pretrained, params, inputs, ["checkpoint"]);
    (checkpoint, summary)
}

/// The probability and the loss of each true class, as PyTorch's logits have it.
fn assert_judged_as_by_pytorch(engine: &mut Engine, checkpoint: &[u8]) {
    let inputs = vec![engine.input("model", checkpoint), engine.input("set", &images().to_bytes().unwrap())];
    let ([bytes], _) = engine.run(StageKind::Evaluate, json!({}), inputs, ["predictions"]);
    let found = Predictions::from_bytes(&bytes).unwrap();
    let logits = fixture("logits");
    let truth = logits.log_softmax(1, tch::Kind::Float).gather(1, &fixture("labels").unsqueeze(1), false).view(-1);
    let off = (Tensor::from_slice(&found.loss) + truth).abs().max().double_value(&[]);
    assert!(off < 1e-5, "{off}");
    let predicted: Vec<i64> = logits.argmax(1, false).try_into().unwrap();
    assert_eq!(found.predicted, predicted.into_iter().map(|class| class as i32).collect::<Vec<_>>());
}

#[test]
fn published_weights_become_a_checkpoint_with_not_one_bit_changed() {
    let mut engine = ready();
    let file = parity::model().to_bytes().unwrap();
    let params = json!({"net": net(json!({"arch": "resnet", "width": 4, "blocks": [1, 2]}))});
    let weights = vec![engine.input("weights", &file)];
    let (checkpoint, summary) = made(&mut engine, params.clone(), weights);
    assert!(summary.contains(" parameters in "), "{summary}");
    let checkpoint_file = SafeTensors::deserialize(&checkpoint).unwrap();
    for (name, view) in checkpoint_file.iter() {
        let expected = fixture(&format!("weights/{name}"));
        let found = Tensor::from_data_size(view.data(), &expected.size(), tch::Kind::Float);
        assert!(found == expected, "{name}");
    }
    assert_judged_as_by_pytorch(&mut engine, &checkpoint);

    let weights = vec![engine.input("weights", &file)];
    let mut other = params.clone();
    other["entry"] = json!("model_ema");
    let inputs = [vec![engine.input("data", &images().to_bytes().unwrap())], weights].concat();
    let failure = engine.fail(StageKind::Pretrained, other, inputs);
    assert!(failure.code == FailureCode::Invalid && failure.message.contains("does not fit"), "{failure:?}");
    let inputs = vec![engine.input("data", &images().to_bytes().unwrap())];
    let failure = engine.fail(StageKind::Pretrained, params, inputs);
    assert!(failure.message.contains("there is no `weights` input"), "{failure:?}");
}

#[test]
fn a_torchscript_file_becomes_a_checkpoint_alone_or_with_weights_of_another_file() {
    let mut engine = ready();
    let params = json!({"net": net(json!({"arch": "torchscript"}))});
    let network = vec![engine.input("network", &script("resnet"))];
    let (alone, _) = made(&mut engine, params.clone(), network);
    assert_judged_as_by_pytorch(&mut engine, &alone);
    let both =
        vec![engine.input("network", &script("resnet")), engine.input("weights", &parity::model().to_bytes().unwrap())];
    let (filled, _) = made(&mut engine, params, both);
    let tensors = |bytes: &[u8]| {
        let model = Checkpoint::from_bytes(bytes, Device::Cpu).unwrap();
        model.network.state().entries().iter().map(|entry| entry.tensor.detach().copy()).collect::<Vec<_>>()
    };
    assert!(tensors(&alone) == tensors(&filled));
}

/// Images of another size than the network takes: told by the first stage that shows it any.
#[test]
fn a_set_that_the_network_does_not_take_is_told_at_the_start_of_a_test() {
    let mut engine = ready();
    let set = ImageSet { pixels: vec![9; 6 * 64], shape: [6, 1, 8, 8], ..images() };
    let inputs = vec![engine.input("data", &set.to_bytes().unwrap()), engine.input("network", &script("other-size"))];
    let net = json!({"arch": "torchscript"});
    let ([checkpoint], _) = engine.run(StageKind::Pretrained, json!({"net": net}), inputs, ["checkpoint"]);
    let inputs = vec![engine.input("model", &checkpoint), engine.input("set", &set.to_bytes().unwrap())];
    let failure = engine.fail(StageKind::Evaluate, json!({}), inputs);
    assert!(failure.message.contains("does not take images of 1 × 8 × 8"), "{failure:?}");
}

//! Networks from TorchScript files: their numbers against PyTorch's and against the built-in network of the same
//! weights, and stories through the real binary. `fixtures/make_torchscript.py` made the files.

use std::collections::BTreeMap;
use std::fs;

use atflow::formats::Predictions;
use atflow::number::Real;
use atflow::protocol::{Event, FailureCode, Input, Request};
use atflow::stage_kinds::{Attack, Net, OptimizerParams, StageKind};
use atflow_worker::attacks::{self, Batch};
use atflow_worker::checkpoint::Checkpoint;
use atflow_worker::executors::optimizer::Optimizer;
use atflow_worker::networks::{self, Frozen, Mode, Network, Role};
use atflow_worker::rng::Rng;
use atflow_worker::weights::{self, File, Head};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tch::{Device, Kind, Reduction, Tensor};

use crate::parity::{self, fixture};
use crate::support::{Engine, pgd, shapes, training};

static FIXTURES: &[u8] = include_bytes!("fixtures/torchscript.safetensors");
const OUTPUTS: [&str; 2] = ["checkpoint", "metrics"];

/// A worker that may run scripts in checkpoints.
pub(crate) fn ready() -> Engine {
    let engine = Engine::start_as(&["--device", "cpu", "--scripts"], &[]);
    assert!(matches!(engine.hear(), Event::Hello { .. }));
    engine
}

/// The bytes of a TorchScript file.
pub(crate) fn script(name: &str) -> Vec<u8> {
    let fixtures = SafeTensors::deserialize(FIXTURES).unwrap();
    fixtures.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}")).data().to_vec()
}

fn torchscript(more: Value) -> Net {
    let mut net = json!({"arch": "torchscript"});
    net.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(net).unwrap()
}

/// The network of make.py, as PyTorch scripted it.
fn resnet() -> Checkpoint {
    let net = torchscript(json!({"mean": [0.4, 0.6], "std": [0.25, 0.5]}));
    let network = networks::build_script(&net, script("resnet"), 2, 3, Device::Cpu).unwrap();
    Checkpoint { net, channels: 2, classes: ["a", "b", "c"].map(str::to_owned).to_vec(), network }
}

fn worst(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    (found.detach() - expected.detach()).abs().max().double_value(&[])
}

fn tensors(network: &dyn Network) -> BTreeMap<String, Tensor> {
    network.state().entries().iter().map(|entry| (entry.name.clone(), entry.tensor.detach().copy())).collect()
}

#[test]
fn logits_are_those_of_pytorch_live_and_frozen() {
    // A training of another test may choose other kernels between the two: here both have the same.
    let _kernels = atflow_worker::system::without_onednn();
    let (model, images) = (resnet(), fixture("images"));
    let live = tch::no_grad(|| model.network.forward(&images, Mode::Eval).unwrap());
    assert!(worst(&live, &fixture("logits")) < 1e-5);
    assert!(model.network.freeze().unwrap().forward(&images).unwrap() == live, "a copy computes the same bits");
}

#[test]
fn attacks_move_images_as_those_on_the_built_in_network_and_as_pytorch_does() {
    let (ours, built_in) = (resnet().network.freeze().unwrap(), parity::model().network.freeze().unwrap());
    let (images, labels) = (fixture("images"), fixture("labels"));
    let batch = Batch { images: &images, labels: &labels, indices: &[0, 1, 2, 3, 4, 5], epoch: 0 };
    let predicted = |network: &dyn Frozen, points: &Tensor| network.forward(points).unwrap().argmax(1, false);
    for (name, steps) in [("pgd1", 1), ("pgd20", 20)] {
        let attack = json!({"attack": "pgd", "eps": "8/255", "step": "2/255", "steps": steps});
        let attack: Attack = serde_json::from_value(attack).unwrap();
        let perturbed =
            |network: &dyn Frozen| attacks::perturb(&attack, network, &batch, Rng::new(0), &mut || Ok(())).unwrap();
        let (found, other) = (perturbed(&*ours), perturbed(&*built_in));
        let off = (&found - fixture(name)).abs().gt(1e-6).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
        assert!(off <= 0.005, "{name}: {off} of the coordinates differ");
        assert_eq!(predicted(&*ours, &found), predicted(&*built_in, &other), "{name}");
    }
}

#[test]
fn two_steps_of_training_are_those_of_pytorch_and_leave_a_frozen_copy_alone() {
    let (model, images, labels) = (resnet(), fixture("images"), fixture("labels"));
    let sgd = OptimizerParams {
        lr: Real::new(0.1),
        momentum: Real::new(0.9),
        weight_decay: Real::new(0.05),
        ..OptimizerParams::default()
    };
    // It chooses other kernels for these shapes, so the copy computes after it.
    let mut optimizer = Optimizer::new(&sgd, model.network.state().parameters()).unwrap();
    let frozen = model.network.freeze().unwrap();
    let before = frozen.forward(&images).unwrap();
    for step in [1, 2] {
        let logits = model.network.forward(&images, Mode::Train).unwrap();
        let loss = logits.cross_entropy_loss(&labels, None::<&Tensor>, Reduction::Mean, -100, 0.0);
        optimizer.step(&loss, 0.1).unwrap();
        assert!(worst(&loss.view([1]), &fixture(&format!("loss{step}"))) < 1e-5);
        for (name, tensor) in tensors(&*model.network) {
            match name.ends_with("num_batches_tracked") {
                true => assert_eq!(tensor.int64_value(&[]), step, "{name}"),
                false => assert!(worst(&tensor, &fixture(&format!("step{step}/{name}"))) < 1e-5, "{name}"),
            }
        }
    }
    assert!(frozen.forward(&images).unwrap() == before);
}

#[test]
fn a_checkpoint_holds_the_script_and_every_tensor_in_its_own_type() {
    let model = resnet();
    let _ = tch::no_grad(|| model.network.forward(&fixture("images"), Mode::Train).unwrap());
    let bytes = model.to_bytes().unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("bn1.num_batches_tracked").unwrap().dtype(), safetensors::Dtype::I64);
    assert_eq!(file.tensor("torchscript/program").unwrap().data(), script("resnet"));
    let again = Checkpoint::from_bytes(&bytes, Device::Cpu).unwrap();
    assert!(tensors(&*again.network) == tensors(&*model.network));
    assert!(again.to_bytes().unwrap() == bytes);

    let at = bytes.windows(4).rposition(|four| four == b"PK\x03\x04").unwrap();
    let mut other = bytes.clone();
    other[at] ^= 1;
    let error = Checkpoint::from_bytes(&other, Device::Cpu).err().unwrap().to_string();
    assert_eq!(error, "its TorchScript network is not the one that was put into it");
}

#[test]
fn weights_go_both_ways_by_their_names_in_pytorch() {
    let (script, built_in) = (resnet(), parity::model());
    let fill = |network: &dyn Network, bytes: &[u8]| {
        weights::install(network, &File::open(bytes).unwrap(), Head::Keep, None).unwrap()
    };
    // Into the script: the built-in network has no counters, so those of the script stay.
    for entry in script.network.state().entries() {
        let _ = tch::no_grad(|| entry.tensor.shallow_clone().fill_(2));
    }
    assert_eq!(fill(&*script.network, &built_in.to_bytes().unwrap()).passed_over, 0);
    for (name, tensor) in tensors(&*script.network) {
        match name.ends_with("num_batches_tracked") {
            true => assert_eq!(tensor.int64_value(&[]), 2),
            false => assert!(tensor == fixture(&format!("weights/{name}")), "{name}"),
        }
    }
    // Out of it, into the built-in network and into another script.
    let other = resnet();
    let bytes = script.to_bytes().unwrap();
    let counters = tensors(&*script.network).keys().filter(|name| name.ends_with("num_batches_tracked")).count();
    assert_eq!(fill(&*built_in.network, &bytes).passed_over, counters);
    assert_eq!(fill(&*other.network, &bytes).passed_over, 0);
    assert!(tensors(&*other.network) == tensors(&*script.network));

    let small = networks::build_script(&torchscript(json!({})), self::script("small"), 1, 3, Device::Cpu).unwrap();
    let misfit = weights::install(&*small, &File::open(&bytes).unwrap(), Head::Keep, None).unwrap_err().to_string();
    assert!(misfit.contains("0 of ") && misfit.contains("are missing, the first is `conv.weight`"), "{misfit}");
}

#[test]
fn what_the_author_froze_is_kept_and_not_learnt() {
    let network = networks::build_script(&torchscript(json!({})), script("small"), 1, 3, Device::Cpu).unwrap();
    let role = |name: &str| network.state().entries().iter().find(|entry| entry.name == name).unwrap().role;
    assert_eq!(
        (role("conv.weight"), role("fixed.weight"), role("order")),
        (Role::Parameter, Role::Buffer, Role::Buffer)
    );
}

// Through the binary.

fn data(engine: &Engine) -> Input {
    engine.input("data", &shapes(90, 1, 1).to_bytes().unwrap())
}

fn inputs(engine: &Engine, name: &str) -> Vec<Input> {
    vec![data(engine), engine.input("network", &script(name))]
}

fn params(more: Value) -> Value {
    let mut params = training(json!({"net": {"arch": "torchscript"}, "schedule": {"shape": "constant"}}));
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    params
}

fn train(engine: &mut Engine, params: Value, name: &str) -> [Vec<u8>; 2] {
    let inputs = inputs(engine, name);
    engine.run(StageKind::Train, params, inputs, OUTPUTS).0
}

fn tested(engine: &mut Engine, checkpoint: &[u8], attack: Value) -> Predictions {
    let set = engine.input("set", &shapes(60, 1, 2).to_bytes().unwrap());
    let inputs = vec![engine.input("model", checkpoint), set];
    let ([bytes], _) = engine.run(StageKind::Evaluate, json!({"attack": attack}), inputs, ["predictions"]);
    Predictions::from_bytes(&bytes).unwrap()
}

fn accuracy(predictions: &Predictions) -> f64 {
    (0..predictions.len()).filter(|&index| predictions.correct(index)).count() as f64 / predictions.len() as f64
}

/// Its dropout draws from libtorch's generator; its batch norm has statistics and a counter.
#[test]
fn a_script_learns_is_attacked_and_explained_and_gives_the_same_bytes_each_time() {
    let mut engine = ready();
    let robust = params(json!({"adversary": pgd(0.04, 2, "random"), "epochs": 8}));
    let first = train(&mut engine, robust.clone(), "small");
    assert!(first == train(&mut engine, robust.clone(), "small"), "in one worker");
    let mut second = ready();
    assert!(first == train(&mut second, robust.clone(), "small"), "in another worker");
    second.seed = 2;
    assert!(first != train(&mut second, robust, "small"), "with another seed");

    let clean = tested(&mut engine, &first[0], json!({"attack": "none"}));
    let attacked = tested(&mut engine, &first[0], pgd(0.1, 10, "random"));
    assert!(accuracy(&clean) > 0.9 && accuracy(&attacked) < accuracy(&clean), "{}", accuracy(&clean));
    assert!(attacked == tested(&mut engine, &first[0], pgd(0.1, 10, "random")));

    let model = |engine: &Engine| {
        let set = engine.input("set", &shapes(60, 1, 2).to_bytes().unwrap());
        vec![Input { label: "model".to_owned(), ..engine.input("models", &first[0]) }, set]
    };
    let set = engine.input("set", &shapes(60, 1, 2).to_bytes().unwrap());
    let inputs = vec![engine.input("model", &first[0]), set];
    let failure = Engine::ready().fail(StageKind::Evaluate, json!({}), inputs);
    assert!(failure.causes[0].contains("no stage of this pipeline has `arch: torchscript`"), "{failure:?}");

    let maps = |method: &str| json!({"images": [0, 1], "method": {"name": method}});
    let seen = model(&engine);
    engine.run(StageKind::Saliency, maps("grad"), seen, ["maps", "grid", "numbers", "csv", "markdown"]);
    let seen = model(&engine);
    let failure = engine.fail(StageKind::Saliency, maps("grad_cam"), seen);
    assert!(failure.message.contains("the network of `model` has none"), "{failure:?}");
}

#[test]
fn a_training_of_a_script_that_is_broken_off_ends_with_the_same_bytes() {
    let all = params(json!({"epochs": 5, "adversary": pgd(0.02, 1, "random")}));
    let expected = train(&mut ready(), all.clone(), "small");
    let mut engine = ready();
    engine.partial = Some(engine.path("partial"));
    let inputs = inputs(&engine, "small");
    let id = engine.send(StageKind::Train, all.clone(), inputs.clone(), &OUTPUTS);
    while !matches!(engine.hear(), Event::Log { line, .. } if line.starts_with("epoch 3/")) {}
    engine.say(&serde_json::to_string(&Request::Cancel { id }).unwrap());
    assert!(engine.finish(id).0.is_err());
    let id = engine.send(StageKind::Train, all, inputs, &OUTPUTS);
    let (outcome, heard) = engine.finish(id);
    outcome.unwrap();
    assert!(
        heard.iter().any(|event| matches!(event, Event::Log { line, .. } if line.starts_with("resumed after epoch ")))
    );
    assert!(OUTPUTS.map(|name| fs::read(engine.path(&format!("{id}-{name}"))).unwrap()) == expected);
}

#[test]
fn a_network_that_was_traced_in_evaluation_mode_is_trained_with_a_warning() {
    let mut engine = ready();
    let inputs = inputs(&engine, "traced-in-evaluation");
    let id = engine.send(StageKind::Train, params(json!({"epochs": 1})), inputs, &OUTPUTS);
    let (outcome, heard) = engine.finish(id);
    outcome.unwrap();
    let warned = |event: &Event| matches!(event, Event::Warning { message, .. } if message.contains("does not update `bn.running_mean` in training"));
    assert!(heard.iter().any(warned), "{heard:?}");
}

#[test]
fn what_a_script_cannot_do_is_told_before_the_first_epoch() {
    let mut engine = ready();
    for (name, words) in [
        ("other-size", "does not take images of 1 × 8 × 8: mat1 and mat2 shapes cannot be multiplied"),
        ("always-dropout", "draws random numbers in evaluation"),
        ("traced-in-training", "changes its buffer `bn.running_mean` in evaluation"),
        ("one-batch-size", "takes batches of 3 images and not of 1"),
        ("five-classes", "gives 5 logits for an image, and the data have 3 classes; say `net: {classes: 5}`"),
        ("maps", "gives a tensor of [3, 3, 1, 1] for 3 images"),
        ("no-gradient", "has no gradient with respect to its images"),
        ("unused-parameter", "has no gradient with respect to its parameter `head.weight`"),
        ("double-logits", "gives logits of type Double"),
        ("double-weights", "has the parameter `fc.weight` of type Double"),
        ("pair", "forward returns Tuple[Tensor, Tensor], not a Tensor"),
        ("nothing-to-train", "has no parameters that a training could change"),
    ] {
        let inputs = inputs(&engine, name);
        let failure = engine.fail(StageKind::Train, params(json!({"epochs": 1_000_000})), inputs);
        assert_eq!(failure.code, FailureCode::Invalid, "{name}: {failure:?}");
        let message = failure.message;
        assert!(message.starts_with("the TorchScript network ") && message.contains(words), "{name}: {message}");
        assert_eq!(message.lines().count(), 1, "{name}: {message}");
    }
}

#[test]
fn files_that_are_no_scripts_and_parameters_for_others_are_refused() {
    let mut engine = ready();
    let mut refused = |params: Value, network: Option<&[u8]>| {
        let network = network.map(|bytes| engine.input("network", bytes));
        let inputs = [data(&engine)].into_iter().chain(network).collect();
        engine.fail(StageKind::Train, params, inputs).message
    };
    let script = script("small");
    for (params, network, words) in [
        (params(json!({})), Some(&script[..script.len() / 2]), "the TorchScript network cannot be loaded: "),
        (params(json!({})), Some(FIXTURES), "the TorchScript network cannot be loaded: "),
        (params(json!({})), None, "there is no `network` input"),
        (training(json!({})), Some(&script[..]), "is built in and has no use for a TorchScript file"),
        (params(json!({"precision": "bf16"})), Some(&script[..]), "`precision` must be left out"),
    ] {
        let message = refused(params, network);
        assert!(message.contains(words), "{words}: {message}");
    }
}

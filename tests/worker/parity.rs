//! The worker's numbers against PyTorch's on small fixed tensors. `fixtures/make.py` made them, and is the
//! specification.

use atflow::formats;
use atflow::number::Real;
use atflow::stage_kinds::{Attack, Net, OptimizerParams};
use atflow_worker::attacks::{self, Batch};
use atflow_worker::checkpoint::Checkpoint;
use atflow_worker::executors::optimizer::Optimizer;
use atflow_worker::executors::{saliency, transform};
use atflow_worker::networks::Mode;
use atflow_worker::rng::Rng;
use safetensors::SafeTensors;
use serde_json::json;
use tch::{Device, Kind, Reduction, Tensor};

static FIXTURES: &[u8] = include_bytes!("fixtures/parity.safetensors");

fn fixtures() -> SafeTensors<'static> {
    SafeTensors::deserialize(FIXTURES).unwrap()
}

pub(crate) fn fixture(name: &str) -> Tensor {
    let fixtures = fixtures();
    let view = fixtures.tensor(name).unwrap();
    let kind = match view.dtype() {
        safetensors::Dtype::F32 => Kind::Float,
        safetensors::Dtype::I64 => Kind::Int64,
        safetensors::Dtype::U8 => Kind::Uint8,
        other => panic!("{other:?}"),
    };
    let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
    Tensor::from_data_size(view.data(), &shape, kind)
}

fn net() -> Net {
    let reals = |values: [f64; 2]| values.map(Real::new).to_vec();
    Net::Resnet {
        width: 4,
        blocks: vec![1, 2],
        mean: reals([0.4, 0.6]),
        std: reals([0.25, 0.5]),
        standardise: false,
        smooth: None,
    }
}

/// The network with the weights that PyTorch gave it, through the checkpoint's format.
pub(crate) fn model() -> Checkpoint {
    let fixtures = fixtures();
    let weights = fixtures.iter().filter_map(|(name, view)| Some((name.strip_prefix("weights/")?.to_owned(), view)));
    let metadata = serde_json::json!({
        "format": "checkpoint/1", "net": net(), "channels": 2, "classes": ["a", "b", "c"],
    });
    let bytes = formats::write(weights, &metadata).unwrap();
    Checkpoint::from_bytes(&bytes, Device::Cpu).unwrap()
}

fn assert_close(found: &Tensor, name: &str, tolerance: f64) {
    let expected = fixture(name);
    assert_eq!(found.size(), expected.size(), "{name}");
    let worst = (found.detach() - &expected).abs().max().double_value(&[]);
    assert!(worst <= tolerance, "{name} is off by {worst}, more than {tolerance}");
}

#[test]
fn logits_are_those_of_pytorch_live_and_frozen() {
    let model = model();
    let images = fixture("images");
    assert_close(&model.network.forward(&images, Mode::Eval).unwrap(), "logits", 1e-5);
    assert_close(&model.network.freeze().unwrap().forward(&images).unwrap(), "logits", 1e-5);
}

#[test]
fn attacks_are_those_of_pytorch() {
    let network = model().network.freeze().unwrap();
    let (images, labels) = (fixture("images"), fixture("labels"));
    let batch = Batch { images: &images, labels: &labels, indices: &[0, 1, 2, 3, 4, 5], epoch: 0 };
    let pgd = |steps: u32| json!({"attack": "pgd", "eps": "8/255", "step": "2/255", "steps": steps});
    for (name, attack) in [("fgsm", json!({"attack": "fgsm", "eps": "8/255"})), ("pgd1", pgd(1)), ("pgd20", pgd(20))] {
        let attack: Attack = serde_json::from_value(attack).unwrap();
        let found = attacks::perturb(&attack, &*network, &batch, Rng::new(0), &mut || Ok(())).unwrap();
        // A gradient that is zero up to rounding may have either sign: few such coordinates are let pass.
        let off = (&found - fixture(name)).abs().gt(1e-6).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
        assert!(off <= 0.005, "{name}: {off} of the coordinates differ");
        assert!((&found - &images).abs().max().double_value(&[]) > 0.99 * 2.0 / 255.0, "{name} moves something");
    }
}

#[test]
fn two_steps_of_training_are_those_of_pytorch() {
    let model = model();
    let (images, labels) = (fixture("images"), fixture("labels"));
    let sgd = OptimizerParams {
        lr: Real::new(0.1),
        momentum: Real::new(0.9),
        weight_decay: Real::new(0.05),
        ..OptimizerParams::default()
    };
    let mut optimizer = Optimizer::new(&sgd, model.network.state().parameters()).unwrap();
    for step in [1, 2] {
        let logits = model.network.forward(&images, Mode::Train).unwrap();
        let loss = logits.cross_entropy_loss(&labels, None::<&Tensor>, Reduction::Mean, -100, 0.0);
        optimizer.step(&loss, 0.1).unwrap();
        assert_close(&loss.view([1]), &format!("loss{step}"), 1e-5);
        for entry in model.network.state().entries() {
            assert_close(&entry.tensor, &format!("step{step}/{}", entry.name), 1e-5);
        }
    }
}

/// In the layout that networks here have. Channels that fill no whole blocks of oneDNN's kernels are where these were
/// wrong.
#[test]
fn gradients_of_convolutions_are_those_of_doubles() {
    let channels_last = |sizes: [i64; 4]| {
        let [n, c, h, w] = sizes;
        Tensor::randn([n, h, w, c], (Kind::Float, Device::Cpu)).permute([0, 3, 1, 2])
    };
    let sgd = OptimizerParams {
        lr: Real::new(1.0),
        momentum: Real::new(0.0),
        weight_decay: Real::new(0.0),
        ..OptimizerParams::default()
    };
    for (from, to) in [(1, 4), (4, 8), (8, 16), (12, 24), (16, 16), (16, 32), (64, 128)] {
        for (kernel, stride) in [(1, 1), (1, 2), (3, 1), (3, 2)] {
            for (batch, side) in [(6, 8), (16, 14)] {
                let images = channels_last([batch, from, side, side]);
                let weight = channels_last([to, from, kernel, kernel]).set_requires_grad(true);
                let before = weight.detach().copy();
                let mut optimizer = Optimizer::new(&sgd, vec![weight.shallow_clone()]).unwrap();
                let convolve = |images: &Tensor, weight: &Tensor| {
                    let padding = kernel / 2;
                    images.conv2d(weight, None::<&Tensor>, [stride, stride], [padding, padding], [1, 1], 1)
                };
                let features = convolve(&images, &weight);
                let above = features.randn_like();
                optimizer.step(&(features * &above).sum(Kind::Float), 1.0).unwrap();
                let found = (before.shallow_clone() - weight.detach()).to_kind(Kind::Double);

                let weight = before.to_kind(Kind::Double).set_requires_grad(true);
                let features = convolve(&images.to_kind(Kind::Double), &weight);
                let loss = (features * above.to_kind(Kind::Double)).sum(Kind::Double);
                let expected = Tensor::run_backward(&[&loss], &[&weight], false, false).remove(0);
                let off = ((found - &expected).abs().max() / expected.abs().max()).double_value(&[]);
                let shape = format!("{from} to {to} channels, kernel {kernel}, stride {stride}, {batch} of {side}");
                assert!(off < 1e-4, "{shape}: off by {off:.1e} of the largest");
            }
        }
    }
}

#[test]
fn smoothgrad_is_that_of_pytorch_given_its_noise() {
    let network = model().network.freeze().unwrap();
    let (image, label) = (fixture("images").narrow(0, 0, 1), fixture("labels").narrow(0, 0, 1));
    let sum = saliency::maps::gradient_sum(&*network, &image, &label, &fixture("noise"), 0.1).unwrap();
    assert_close(&(sum / 5.0), "smoothgrad", 1e-6);
}

#[test]
fn transforms_are_those_of_numpy() {
    let fixtures = fixtures();
    let bytes = |name: &str| fixtures.tensor(name).unwrap().data();
    for level in [0.25, 0.5, 1.0, 4.0, 8.0, 16.0, 64.0, 1024.0] {
        assert_eq!(transform::pixels::saturation(level), bytes(&format!("saturation/{level}")), "level {level}");
    }
    let order: Vec<i64> = Vec::try_from(fixture("patches/order")).unwrap();
    let order: Vec<usize> = order.into_iter().map(|piece| piece as usize).collect();
    let mut target = vec![0; 3 * 6 * 9];
    transform::pixels::shuffle_patches(bytes("patches/source"), &mut target, [3, 6, 9], 3, &order);
    assert_eq!(target, bytes("patches/target"));
}

#[test]
fn initial_weights_have_the_spread_of_pytorchs_defaults() {
    let net =
        Net::Resnet { width: 32, blocks: vec![1, 1], mean: vec![], std: vec![], standardise: false, smooth: None };
    let network = atflow_worker::networks::build(&net, 3, 10, Rng::new(4), Device::Cpu).unwrap();
    for entry in network.state().entries() {
        let (name, shape) = (entry.name.as_str(), entry.tensor.size());
        let (low, high) = (entry.tensor.min().double_value(&[]), entry.tensor.max().double_value(&[]));
        let is_norm = name.contains("bn") || name.contains("shortcut.1");
        match name.rsplit('.').next().unwrap() {
            "weight" | "running_var" if is_norm => assert_eq!((low, high), (1.0, 1.0), "{name}"),
            _ if is_norm => assert_eq!((low, high), (0.0, 0.0), "{name}"),
            kind => {
                let fan_in: i64 = if kind == "bias" { 64 } else { shape[1..].iter().product() };
                let bound = 1.0 / (fan_in as f64).sqrt();
                assert!(-bound <= low && high <= bound, "{name}");
                let few = shape.iter().product::<i64>() < 100;
                assert!(few || (low < -0.95 * bound && high > 0.95 * bound), "{name}: {low} {high} of {bound}");
            }
        }
    }
}

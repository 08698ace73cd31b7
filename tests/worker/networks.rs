//! The published architectures against PyTorch's, and files of weights that PyTorch wrote. `fixtures/make_networks.py`
//! made the numbers and the files, and is the specification.

use std::collections::BTreeMap;

use atflow::number::Real;
use atflow::stage_kinds::{Net, OptimizerParams};
use atflow_worker::attacks::input_gradient;
use atflow_worker::executors::optimizer::Optimizer;
use atflow_worker::networks::{self, Mode, Network, Role};
use atflow_worker::rng::Rng;
use atflow_worker::weights::{self, File, Head};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tch::{Device, Kind, Reduction, Tensor};

static FIXTURES: &[u8] = include_bytes!("fixtures/networks.safetensors");

macro_rules! weights_file {
    ($name:literal) => {
        include_bytes!(concat!("fixtures/weights/", $name)).as_slice()
    };
}

pub(crate) fn fixture(name: &str) -> Tensor {
    let fixtures = SafeTensors::deserialize(FIXTURES).unwrap();
    let view = fixtures.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    let kind = if view.dtype() == safetensors::Dtype::F64 { Kind::Double } else { Kind::Float };
    let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
    Tensor::from_data_size(view.data(), &shape, kind)
}

/// `uniform` of the script.
fn uniform(name: &str, count: usize) -> Vec<f64> {
    let key = name.bytes().fold(0x811C_9DC5u32, |key, byte| (key ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let hash = |index: u32| {
        let mut x = index.wrapping_add(key);
        x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
        x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
        f64::from((x ^ (x >> 16)) >> 8) / 16_777_216.0
    };
    (0..count as u32).map(hash).collect()
}

/// `values` of the script.
fn values(name: &str, shape: &[i64]) -> Tensor {
    let fan_in: i64 = shape[1..].iter().product();
    let scaled = |u: f64| match shape.len() {
        1 if name.ends_with("running_var") || name.ends_with("weight") => 0.5 + u,
        1 => (u - 0.5) * 0.2,
        _ => (u - 0.5) * (6.0 / fan_in as f64).sqrt(),
    };
    let values: Vec<f32> =
        uniform(name, shape.iter().product::<i64>() as usize).into_iter().map(|u| scaled(u) as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

pub(crate) fn net(description: Value) -> Net {
    serde_json::from_value(description).unwrap()
}

/// A network with the weights of the script.
fn filled(description: Value, classes: usize) -> Box<dyn Network> {
    let network = networks::build_blank(&net(description), 3, classes, Device::Cpu).unwrap();
    let entries = network.state().entries().iter();
    let weights = entries.map(|entry| (entry.name.clone(), values(&entry.name, &entry.tensor.size()))).collect();
    weights::install(&*network, &File::of(weights), Head::Keep, None).unwrap();
    network
}

/// The first so many images of the script.
pub(crate) fn images(count: i64, side: i64) -> Tensor {
    let values = uniform("images", (count * 3 * side * side) as usize);
    let values: Vec<f32> = values.into_iter().map(|u| u as f32).collect();
    Tensor::from_slice(&values).view([count, 3, side, side])
}

/// Every one of the script's networks: its label, description, classes, side of its images, and what a step of training
/// may be off by, or nothing where it is not trained. Rounding grows on the way through fifty batch norms with the
/// statistics of eight images.
fn every() -> [(&'static str, Value, usize, i64, Option<f64>); 15] {
    [
        ("resnet18-imagenet", json!({"arch": "resnet18", "stem": "imagenet"}), 1000, 64, Some(1e-4)),
        ("resnet50-imagenet", json!({"arch": "resnet50", "stem": "imagenet", "classes": 1000}), 200, 64, None),
        ("resnet18-cifar", json!({"arch": "resnet18", "stem": "cifar"}), 10, 32, Some(1e-4)),
        ("resnet50-cifar-8", json!({"arch": "resnet50", "stem": "cifar", "width": 8}), 10, 32, Some(2e-2)),
        ("wideresnet-16-2", json!({"arch": "wideresnet", "depth": 16, "widen": 2}), 10, 32, Some(1e-4)),
        ("wideresnet-34-1", json!({"arch": "wideresnet", "depth": 34, "widen": 1}), 10, 32, None),
        ("preact-rice-8", json!({"arch": "preact_resnet18", "width": 8}), 10, 32, Some(5e-3)),
        ("preact-wong-8", json!({"arch": "preact_resnet18", "width": 8, "build": "wong"}), 10, 32, Some(5e-3)),
        ("preact-kuangliu-8", json!({"arch": "preact_resnet18", "width": 8, "build": "kuangliu"}), 10, 32, None),
        ("dm-swish-16-2", json!({"arch": "dm_wide_resnet", "depth": 16, "widen": 2}), 10, 32, Some(1e-4)),
        (
            "dm-relu-10-1",
            json!({"arch": "dm_wide_resnet", "depth": 10, "widen": 1, "activation": "relu"}),
            10,
            32,
            None,
        ),
        ("vit-24", json!({"arch": "vit", "side": 32, "patch": 8, "dim": 24, "depth": 2}), 10, 32, Some(1e-4)),
        ("convnext-8", json!({"arch": "convnext", "width": 8, "blocks": [1, 1, 2, 1]}), 10, 32, Some(1e-4)),
        (
            "convnext-8-patch-2",
            json!({"arch": "convnext", "patch": 2, "width": 8, "blocks": [1, 1, 1, 1]}),
            10,
            32,
            None,
        ),
        (
            "convnext-8-patch-1",
            json!({"arch": "convnext", "patch": 1, "width": 8, "blocks": [1, 1, 1, 1]}),
            10,
            32,
            None,
        ),
    ]
}

/// The largest difference of two tensors, as a share of the second one's largest value.
pub(crate) fn off(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let scale = expected.abs().max().double_value(&[]);
    (found.detach() - expected).abs().max().double_value(&[]) / scale
}

pub(crate) fn logits_of(network: &dyn Network, images: &Tensor) -> Tensor {
    tch::no_grad(|| network.forward(images, Mode::Eval).unwrap())
}

#[test]
fn logits_of_the_published_architectures_are_those_of_pytorch() {
    for (label, description, classes, side, _) in every() {
        let network = filled(description, classes);
        let (images, expected) = (images(2, side), fixture(&format!("{label}/logits")));
        assert!(off(&logits_of(&*network, &images), &expected) < 1e-4, "{label}");
        let frozen = network.freeze().unwrap();
        assert!(off(&frozen.forward(&images).unwrap(), &expected) < 1e-4, "{label}, frozen");
        // What attacks climb.
        let labels = Tensor::from_slice(&[0i64, 1]);
        let gradient = input_gradient(&images, &labels, |points| frozen.forward(points)).unwrap();
        let found = BTreeMap::from([("image", gradient)]);
        // A training of another test may choose other kernels meanwhile: through 50 layers that moves it by 0.003.
        assert_checksums(&found, &format!("{label}/image-gradient"), 1e-2);
        // Eight bits of mantissa: so much, and no more, is lost.
        let half = network.freeze_as(Kind::BFloat16).unwrap().forward(&images).unwrap();
        assert_eq!(half.kind(), Kind::Float, "{label}");
        let loss = off(&half, &expected);
        assert!((1e-5..0.1).contains(&loss), "{label}, frozen in bf16: {loss}");
    }
}

/// `checksum` of the script.
fn checksum(name: &str, tensor: &Tensor) -> [f64; 2] {
    let flat: Vec<f64> = Vec::try_from(tensor.detach().contiguous().to_kind(Kind::Double).view(-1)).unwrap();
    let direction = uniform(&format!("direction {name}"), flat.len());
    let norm = flat.iter().map(|x| x * x).sum::<f64>().sqrt();
    [norm, flat.iter().zip(direction).map(|(x, u)| x * (u - 0.5)).sum()]
}

/// Compares named tensors with checksums in the order of their names; what is off is told relative to the tensor's
/// norm.
fn assert_checksums(found: &BTreeMap<&str, Tensor>, name: &str, tolerance: f64) {
    let expected: Vec<f64> = Vec::try_from(fixture(name).view(-1)).unwrap();
    assert_eq!(expected.len(), 2 * found.len(), "{name}");
    for ((tensor_name, tensor), expected) in found.iter().zip(expected.chunks_exact(2)) {
        let found = checksum(tensor_name, tensor);
        let worst = (0..2).map(|at| (found[at] - expected[at]).abs()).fold(0.0, f64::max) / expected[0].max(1e-3);
        assert!(worst < tolerance, "{name}: {tensor_name} is off by {worst}: {found:?}, {expected:?}");
    }
}

/// The numbers are those of `fixtures/make_smooth.py`, whose networks are the exported PyTorch code.
#[test]
fn a_blur_of_feature_maps_is_that_of_the_exported_code() {
    let smooth = |sigma: f64, after: &str| {
        let smooth = json!({"sigma": sigma, "after": after});
        filled(json!({"arch": "resnet", "width": 4, "blocks": [1, 2], "smooth": smooth}), 3)
    };
    for (after, expected) in [
        ("stem", [-0.043654_f32, -0.025994, 0.088451, -0.025555, -0.012143, 0.099966]),
        ("groups", [-0.04544, -0.023339, 0.092111, -0.028724, -0.010003, 0.100874]),
    ] {
        let (network, expected) = (smooth(0.8, after), Tensor::from_slice(&expected).view([2, 3]));
        assert!(off(&logits_of(&*network, &images(2, 8)), &expected) < 1e-4, "{after}");
        assert!(off(&network.freeze().unwrap().forward(&images(2, 8)).unwrap(), &expected) < 1e-4, "{after}, frozen");
    }
    let plain = filled(json!({"arch": "resnet", "width": 4, "blocks": [1, 2]}), 3);
    let hardly = logits_of(&*smooth(0.01, "groups"), &images(2, 8));
    assert!(off(&hardly, &logits_of(&*plain, &images(2, 8))) < 1e-6, "so narrow a blur is none");
    let wide = json!({"arch": "resnet18", "stem": "cifar", "width": 2, "smooth": {"sigma": 17, "after": "stem"}});
    let refused = networks::build_blank(&net(wide), 3, 3, Device::Cpu).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("at most 16"), "{refused}");
}

#[test]
fn gradients_and_a_step_of_training_are_those_of_pytorch() {
    // A training of another test may choose other kernels between two passes: here all have the same.
    let _kernels = atflow_worker::system::without_onednn();
    for (label, description, classes, side, tolerance) in every() {
        let Some(tolerance) = tolerance else { continue };
        let network = filled(description, classes);
        let (images, labels) = (images(8, side), Tensor::from_slice(&[0i64, 1, 2, 3, 4, 0, 1, 2]));
        let sgd = OptimizerParams {
            lr: Real::new(0.01),
            momentum: Real::new(0.9),
            weight_decay: Real::new(5e-4),
            ..OptimizerParams::default()
        };
        let mut optimizer = Optimizer::new(&sgd, network.state().parameters()).unwrap();
        let entries = || network.state().entries().iter();
        let loss_in = |mode| {
            let logits = network.forward(&images, mode).unwrap();
            logits.cross_entropy_loss(&labels, None::<&Tensor>, Reduction::Mean, -100, 0.0)
        };
        let gradients = Tensor::run_backward(&[&loss_in(Mode::Eval)], &network.state().parameters(), false, false);
        let learnt = entries().filter(|entry| entry.role == Role::Parameter);
        let named = learnt.map(|entry| entry.name.as_str()).zip(gradients).collect();
        // An input of a relu that is 0 up to rounding passes its gradient on one side and not on the other.
        assert_checksums(&named, &format!("{label}/gradients"), 1e-3);

        let loss = loss_in(Mode::Train);
        assert!(off(&loss.view(1), &fixture(&format!("{label}/loss"))) < 1e-4, "{label}");
        optimizer.step(&loss, 0.01).unwrap();
        let named = entries().map(|entry| (entry.name.as_str(), entry.tensor.shallow_clone())).collect();
        assert_checksums(&named, &format!("{label}/step"), tolerance);
    }
}

/// As torchvision and the papers count them, running statistics left out.
#[test]
fn networks_have_as_many_parameters_as_published() {
    for (description, classes, expected) in [
        (json!({"arch": "resnet18", "stem": "imagenet"}), 1000, 11_689_512),
        (json!({"arch": "resnet34", "stem": "imagenet"}), 1000, 21_797_672),
        (json!({"arch": "resnet50", "stem": "imagenet"}), 1000, 25_557_032),
        (json!({"arch": "resnet18", "stem": "cifar"}), 10, 11_173_962),
        (json!({"arch": "wideresnet"}), 10, 36_479_194),
        (json!({"arch": "wideresnet", "depth": 34}), 10, 46_160_474),
        (json!({"arch": "wideresnet", "depth": 70, "widen": 1}), 10, 1_050_010),
        (json!({"arch": "dm_wide_resnet"}), 10, 36_479_194),
        (json!({"arch": "preact_resnet18"}), 10, 11_172_170),
        (json!({"arch": "vit", "side": 224, "patch": 16}), 1000, 5_717_416),
        (json!({"arch": "convnext"}), 1000, 28_589_128),
    ] {
        let network = networks::build_blank(&net(description.clone()), 3, classes, Device::Cpu).unwrap();
        let count: i64 = network.state().parameters().iter().map(|tensor| tensor.size().iter().product::<i64>()).sum();
        assert_eq!(count, expected, "{description}");
    }
}

/// Prices count layers from descriptions alone, and must count those that are built.
#[test]
fn the_size_that_prices_count_is_that_of_the_network_that_is_built() {
    for (name, description, classes, side, _) in every() {
        let network = networks::build_blank(&net(description.clone()), 3, classes, Device::Cpu).unwrap();
        let built: i64 = network.state().parameters().iter().map(|tensor| tensor.size().iter().product::<i64>()).sum();
        let side = side as u32;
        let counted = net(description).size([3, side, side], classes as u32).unwrap();
        assert_eq!(counted.parameters, built as f64, "{name}");
        // Each convolution's weight counts once for each pixel of its output: at least once.
        assert!(counted.multiply_adds > counted.parameters, "{name}");
    }
}

#[test]
fn initial_weights_of_the_published_architectures_have_the_spread_of_their_code() {
    for (description, head) in [
        (json!({"arch": "resnet18", "stem": "imagenet", "width": 16}), "fc"),
        (json!({"arch": "wideresnet", "depth": 16, "widen": 4}), "fc"),
    ] {
        let is_wide = description["arch"] == "wideresnet";
        let network = networks::build(&net(description), 3, 10, Rng::new(3), Device::Cpu).unwrap();
        for entry in network.state().entries() {
            let (name, shape) = (&entry.name, entry.tensor.size());
            let (mean, std) =
                (entry.tensor.mean(Kind::Float).double_value(&[]), entry.tensor.std(false).double_value(&[]));
            if shape.len() == 4 {
                let expected = (2.0 / (shape[0] * shape[2] * shape[3]) as f64).sqrt();
                // The standard error of a deviation is 1/√(2 n): five of them.
                let slack = 5.0 / (2.0 * shape.iter().product::<i64>() as f64).sqrt();
                assert!((std / expected - 1.0).abs() < slack && mean.abs() < expected * slack * 2.0, "{name}: {std}");
            } else if *name == format!("{head}.weight") {
                let bound = 1.0 / (shape[1] as f64).sqrt();
                assert!(entry.tensor.abs().max().double_value(&[]) <= bound && std > 0.5 * bound, "{name}");
            } else if *name == format!("{head}.bias") {
                assert_eq!(std == 0.0, is_wide, "{name}");
            }
        }
    }
}

/// timm's `trunc_normal_(std=0.02)`, which cuts nothing off, and the exceptions to it.
#[test]
fn initial_weights_without_batch_norm_are_those_of_timm() {
    for description in [
        json!({"arch": "vit", "side": 32, "patch": 4, "dim": 48, "depth": 1}),
        json!({"arch": "convnext", "width": 16, "blocks": [1, 1]}),
    ] {
        let network = networks::build(&net(description), 3, 10, Rng::new(3), Device::Cpu).unwrap();
        for entry in network.state().entries() {
            let (name, shape) = (entry.name.as_str(), entry.tensor.size());
            let count = shape.iter().product::<i64>() as f64;
            let (mean, std) =
                (entry.tensor.mean(Kind::Float).double_value(&[]), entry.tensor.std(false).double_value(&[]));
            let slack = 5.0 / (2.0 * count).sqrt();
            match name {
                "cls_token" => assert!((std / 1e-6 - 1.0).abs() < slack, "{name}: {std}"),
                "patch_embed.proj.weight" | "patch_embed.proj.bias" => {
                    let bound = 1.0 / (3.0 * 16.0f64).sqrt();
                    assert!(entry.tensor.abs().max().double_value(&[]) <= bound && std > 0.5 * bound, "{name}");
                }
                _ if name.ends_with("gamma") => assert!(std == 0.0 && (mean - 1e-6).abs() < 1e-12, "{name}"),
                _ if name.ends_with("bias") => assert!(std == 0.0 && mean == 0.0, "{name}"),
                _ if shape.len() == 1 => assert!(std == 0.0 && mean == 1.0, "{name}"),
                _ => assert!((std / 0.02 - 1.0).abs() < slack && mean.abs() < 0.04 * slack, "{name}: {mean} {std}"),
            }
        }
    }
}

#[test]
fn networks_that_cannot_be_are_told_apart() {
    for (description, classes, problem) in [
        (json!({"arch": "wideresnet", "depth": 17}), 10, "`net.depth` must be 10, 16, 22, 28"),
        (json!({"arch": "wideresnet", "widen": 0}), 10, "`net.widen` must be between"),
        (json!({"arch": "dm_wide_resnet", "depth": 17}), 10, "`net.depth` must be 10, 16, 22, 28"),
        (json!({"arch": "preact_resnet18", "width": 0}), 10, "`net.width` must be between"),
        (json!({"arch": "vit", "side": 32, "patch": 5}), 10, "`net.patch` of 5 does not divide `side`, 32"),
        (json!({"arch": "vit", "side": 32, "patch": 4, "heads": 5}), 10, "`net.heads` is 5, which does not divide"),
        (json!({"arch": "convnext", "blocks": []}), 10, "`net.blocks` needs 1 to 8 stages"),
        (json!({"arch": "resnet18", "stem": "cifar", "width": 0}), 10, "`net.width` must be at least 1"),
        (json!({"arch": "resnet18", "stem": "cifar", "classes": 9}), 10, "`net.classes` is 9, but the images have 10"),
        (json!({"arch": "resnet18", "stem": "cifar", "mean": [0.5], "std": [0.5]}), 10, "`net.mean` has 1 numbers"),
    ] {
        let error = networks::build_blank(&net(description), 3, classes, Device::Cpu).err().unwrap().to_string();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn every_form_of_file_gives_the_same_tensors() {
    let expected = weights::read(weights_file!("plain.safetensors")).unwrap();
    assert_eq!(expected.len(), 9);
    let base: Vec<f32> = uniform("files", 24).into_iter().map(|u| u as f32).collect();
    let base = Tensor::from_slice(&base).view([4, 6]);
    assert_eq!(expected["0.weight"], base.narrow(1, 0, 3));
    assert_eq!(expected["0.bias"], base.get(1).narrow(0, 2, 3));
    assert_eq!(expected["2.weight"], base.tr());
    for (name, file) in [
        ("zip", weights_file!("zip.pth")),
        ("legacy", weights_file!("legacy.pth")),
        ("nested", weights_file!("nested.pth")),
    ] {
        let found = weights::read(file).unwrap_or_else(|error| panic!("{name}: {error}"));
        let prefix = if name == "nested" { "state_dict.module." } else { "" };
        let bare = |key: &String| key.strip_prefix(prefix).unwrap().to_owned();
        assert!(found.keys().map(bare).eq(expected.keys().cloned()), "{name}: {:?}", found.keys());
        for (key, tensor) in found.iter().map(|(key, tensor)| (bare(key), tensor)) {
            let key = &key;
            assert_eq!(tensor.kind(), expected[key].kind(), "{name}: {key}");
            assert!(tensor.is_contiguous() && *tensor == expected[key], "{name}: {key}");
        }
    }
    // What PyTorch wrote before 0.4, as the oldest published weights are.
    let ancient = weights::read(weights_file!("ancient.pth")).unwrap();
    assert_eq!(ancient.len(), 2);
    assert!(ancient.values().all(|tensor| *tensor == base));
}

#[test]
fn a_file_that_asks_for_more_than_tensors_is_refused_by_name_and_nothing_of_it_is_run() {
    for file in [weights_file!("hostile.pth"), weights_file!("hostile-legacy.pth")] {
        let error = weights::read(file).unwrap_err().to_string();
        assert!(error.contains("`posix.system`") && error.contains("nothing of it was run"), "{error}");
    }
    assert!(!std::path::Path::new("/tmp/this-file-must-never-appear").exists());
}

#[test]
fn damaged_files_are_errors_and_never_more() {
    for file in [
        weights_file!("zip.pth"),
        weights_file!("legacy.pth"),
        weights_file!("ancient.pth"),
        weights_file!("plain.safetensors"),
    ] {
        for len in 0..file.len() {
            // Behind the last storage of a stream there is nothing that a shorter file would lack.
            assert!(weights::read(&file[..len]).is_err(), "{len} of {} bytes", file.len());
        }
        let whole = weights::read(file).unwrap();
        for at in 0..file.len() {
            for bit in [0x01, 0x80] {
                let mut changed = file.to_vec();
                changed[at] ^= bit;
                // It may be read as other numbers, or refused; it may not reach beyond its storages.
                if let Ok(tensors) = weights::read(&changed) {
                    assert!(tensors.len() <= whole.len());
                }
            }
        }
    }
}

/// A stream of the older form around a pickle of a state dict.
fn stream(pickle: &[u8]) -> Vec<u8> {
    let magic: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.";
    [magic, b"\x80\x02", pickle, b"\x80\x02]U\x01aa.", &2u64.to_le_bytes(), &[0; 8]].concat()
}

#[test]
fn hostile_shapes_and_nesting_cost_nothing() {
    let storage = b"((U\x07storagectorch\nFloatStorage\nU\x01aU\x03cpuK\x02tQ";
    let tensor =
        |part: &[u8]| [b"}U\x01xctorch._utils\n_rebuild_tensor_v2\n".as_slice(), storage, part, b"tRs."].concat();
    assert_eq!(weights::read(&stream(&tensor(b"K\x01K\x01\x85K\x01\x85"))).unwrap()["x"].size(), [1]);
    for (part, problem) in [
        (b"K\x01K\x02\x85K\x01\x85".as_slice(), "reaches beyond its storage"),
        (b"K\x00K\x02\x85K\x02\x85", "reaches beyond its storage"),
        (b"K\x00J\xff\xff\xff\x7f\x85K\x00\x85", "reaches beyond its storage"),
        (
            b"K\x00J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x87K\x00K\x00K\x00\x87",
            "reaches beyond its storage",
        ),
        (b"K\x00J\xff\xff\xff\xff\x85K\x01\x85", "reaches beyond its storage"),
        (b"K\x00K\x01\x85K\x01K\x01\x86", "reaches beyond its storage"),
    ] {
        let error = weights::read(&stream(&tensor(part))).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    // A million tuples in each other, and a list in itself.
    let nested = [b")".as_slice(), &[0x85; 1_000_000], b"."].concat();
    assert!(weights::read(&stream(&nested)).unwrap_err().to_string().contains("holds no dictionary"));
    assert!(weights::read(&stream(b"]q\x00h\x00a.")).unwrap_err().to_string().contains("holds no dictionary"));
}

/// `fixtures/make_standardised.py` made the numbers with TensorFlow.
#[test]
fn images_are_standardised_one_by_one_as_in_tensorflow_and_gradients_go_through() {
    let file = SafeTensors::deserialize(include_bytes!("fixtures/standardised.safetensors")).unwrap();
    let tensor = |name: &str| {
        let view = file.tensor(name).unwrap();
        let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
        Tensor::from_data_size(view.data(), &shape, Kind::Float)
    };
    let close = |found: &Tensor, name: &str| {
        let expected = tensor(name);
        let worst = ((found - &expected).abs() / expected.abs().clamp_min(1.0)).max().double_value(&[]);
        assert!(worst < 1e-5, "{name} is off by {worst}");
    };
    for net in [
        json!({"arch": "resnet", "width": 4, "blocks": [1], "standardise": true}),
        json!({"arch": "vit", "side": 8, "patch": 4, "dim": 12, "depth": 1, "standardise": true}),
    ] {
        let net: Net = serde_json::from_value(net).unwrap();
        let network = networks::build(&net, 3, 2, Rng::new(1), Device::Cpu).unwrap();
        let images = tensor("images").set_requires_grad(true);
        let found = network.normalise(&images).unwrap();
        close(&found, "standardised");
        close(&network.freeze().unwrap().normalise(&images).unwrap(), "standardised");
        let loss = (&found * tensor("weights")).sum(Kind::Float);
        close(&Tensor::run_backward(&[loss], &[&images], false, false)[0], "gradient");
        // An image of one colour has a deviation of 0, and a gradient all the same.
        let plain = Tensor::full([1, 3, 6, 5], 0.25, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let loss = (network.normalise(&plain).unwrap() * tensor("weights").narrow(0, 0, 1)).sum(Kind::Float);
        let gradient = &Tensor::run_backward(&[loss], &[&plain], false, false)[0];
        assert!(gradient.isfinite().all().int64_value(&[]) == 1 && gradient.abs().max().double_value(&[]) > 0.1);
    }
}

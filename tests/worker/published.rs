//! Weights as they are published: files with the names and the nesting of public code, which PyTorch wrote, and the
//! logits that PyTorch computed with them. `fixtures/make_networks.py` made both, and names the code.

use atflow::protocol::Input;
use atflow::stage_kinds::StageKind;
use atflow_worker::checkpoint::Checkpoint;
use atflow_worker::networks::{self, Network};
use atflow_worker::rng::Rng;
use atflow_worker::weights::{self, File, Head, Installed};
use serde_json::{Value, json};
use tch::Device;

use crate::networks::{fixture, images, logits_of, net, off};
use crate::support::Engine;

macro_rules! published {
    ($name:literal) => {
        include_bytes!(concat!("fixtures/weights/published/", $name)).as_slice()
    };
}

const SHARDS: [&[u8]; 2] =
    [published!("model-00001-of-00002.safetensors"), published!("model-00002-of-00002.safetensors")];

/// What the authors of most networks for CIFAR-10 subtract and divide by, as a pipeline has it.
const LINE: &str = "mean: [0.4914, 0.4822, 0.4465], std: [0.2471, 0.2435, 0.2616]";

fn normalised(mut net: Value) -> Value {
    net["mean"] = json!([0.4914, 0.4822, 0.4465]);
    net["std"] = json!([0.2471, 0.2435, 0.2616]);
    net
}

fn network(description: &Value) -> Box<dyn Network> {
    networks::build(&net(description.clone()), 3, 10, Rng::new(1), Device::Cpu).unwrap()
}

/// Installs the weights of one file or of the shards of one.
fn install(network: &dyn Network, parts: &[&[u8]]) -> Result<Installed, String> {
    let mut files: Vec<File<'_>> = parts.iter().map(|part| File::open(part).unwrap()).collect();
    let file = if files.len() == 1 { files.remove(0) } else { File::join(files).unwrap() };
    weights::install(network, &file, Head::Keep, None).map_err(|error| error.to_string())
}

/// The networks whose files say how images are normalised: label, files, description, prefix.
fn with_normalisation() -> [(&'static str, Vec<&'static [u8]>, Value, &'static str); 4] {
    let madry = json!({"arch": "resnet", "width": 2, "blocks": [1, 1, 1, 1]});
    let vit = json!({"arch": "vit", "side": 32, "patch": 16, "dim": 12, "depth": 1});
    [
        ("madry", vec![published!("madry.pt")], madry, "model.module.attacker.model."),
        ("modas", vec![published!("modas.pt")], json!({"arch": "resnet18", "stem": "cifar", "width": 1}), ""),
        ("gowal", vec![published!("gowal.pt")], json!({"arch": "dm_wide_resnet", "depth": 10, "widen": 1}), ""),
        ("shards", SHARDS.to_vec(), vit, "model."),
    ]
}

#[test]
fn published_weights_give_the_logits_that_pytorch_gives() {
    let mut all: Vec<_> =
        with_normalisation().map(|(label, files, net, at)| (label, files, normalised(net), at)).into();
    let preact = json!({"arch": "preact_resnet18", "width": 1});
    let wide = json!({"arch": "wideresnet", "depth": 10, "widen": 1});
    all.push(("rice", vec![published!("rice.pth")], normalised(preact), "state_dict.module."));
    all.push(("carmon", vec![published!("carmon.pt")], wide, "state_dict.module."));
    for (label, files, description, prefix) in all {
        let network = network(&description);
        let installed = install(&*network, &files).unwrap_or_else(|error| panic!("{label}: {error}"));
        assert_eq!(installed.prefix, prefix, "{label}");
        assert_eq!(installed.is_normalised, !["rice", "carmon"].contains(&label), "{label}");
        let expected = fixture(&format!("published/{label}/logits"));
        assert!(off(&logits_of(&*network, &images(2, 32)), &expected) < 1e-4, "{label}");
    }
}

#[test]
fn another_normalisation_than_that_of_the_file_is_told_with_the_line_to_write() {
    for (label, files, description, _) in with_normalisation() {
        let mut other = normalised(description.clone());
        other["std"] = json!([0.2023, 0.1994, 0.2010]);
        for description in [description, other] {
            let network = network(&description);
            let before = network.state().entries()[0].tensor.detach().copy();
            let error = install(&*network, &files).unwrap_err();
            assert!(error.contains(&format!("write `{LINE}` in `net`")), "{label}: {error}");
            assert!(network.state().entries()[0].tensor.detach() == before, "{label}: nothing is half-filled");
        }
    }
    let error = install(&*network(&with_normalisation()[1].2), &[published!("modas.pt")]).unwrap_err();
    assert!(error.contains("by its `mu` and `sigma`"), "{error}");
}

#[test]
fn the_names_of_another_architecture_are_recognised() {
    for (description, file, arch) in [
        (json!({"arch": "wideresnet", "depth": 10, "widen": 1}), published!("gowal.pt"), "arch: dm_wide_resnet"),
        (json!({"arch": "dm_wide_resnet", "depth": 10, "widen": 1}), published!("carmon.pt"), "arch: wideresnet"),
        (json!({"arch": "convnext"}), SHARDS[0], "arch: vit"),
        (json!({"arch": "resnet18", "stem": "cifar", "width": 1}), published!("rice.pth"), "build: rice"),
        (
            json!({"arch": "preact_resnet18", "width": 1, "build": "wong"}),
            published!("rice.pth"),
            "arch: preact_resnet18, build: rice",
        ),
    ] {
        let error = install(&*network(&description), &[file]).unwrap_err();
        assert!(error.contains("its names are those of `") && error.contains(arch), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_training_takes_the_shards_of_one_file_and_no_two_files_with_the_same_tensors() {
    let mut engine = Engine::ready();
    let vit = json!({"arch": "vit", "side": 32, "patch": 16, "dim": 12, "depth": 1, "classes": 10});
    let params = |net: Value| json!({"net": net, "epochs": 1, "batch_size": 4, "optimizer": {"lr": 0.01}});
    let set = crate::support::sized_shapes(8, 3, 32).to_bytes().unwrap();
    let inputs = |engine: &Engine, files: &[&[u8]]| -> Vec<Input> {
        let weights = files.iter().map(|file| engine.input("weights", file));
        std::iter::once(engine.input("data", &set)).chain(weights).collect()
    };
    let shards = inputs(&engine, &SHARDS);
    let outputs = ["checkpoint", "metrics"];
    engine.run(StageKind::Train, params(normalised(vit.clone())), shards.clone(), outputs);
    let theirs = json!({"net": normalised(vit.clone())});
    let ([checkpoint], _) = engine.run(StageKind::Pretrained, theirs, shards.clone(), ["checkpoint"]);
    let model = Checkpoint::from_bytes(&checkpoint, Device::Cpu).unwrap();
    assert!(off(&logits_of(&*model.network, &images(2, 32)), &fixture("published/shards/logits")) < 1e-4);
    let failure = engine.fail(StageKind::Train, params(vit.clone()), shards);
    assert!(failure.causes[0].contains(LINE), "{failure:?}");
    for (files, words) in [
        ([SHARDS[0], SHARDS[0]], "is in two of the files"),
        ([SHARDS[0], br#"{"weight_map": {}}"#], "name those in `weights`, and leave the list out"),
        ([SHARDS[0], b"{}"], "it is no file of weights"),
    ] {
        let inputs = inputs(&engine, &files);
        let failure = engine.fail(StageKind::Train, params(normalised(vit.clone())), inputs);
        assert!(failure.causes[0].contains(words), "{failure:?}");
    }
}

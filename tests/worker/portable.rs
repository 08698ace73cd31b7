//! Portable numerics: the same bytes on every x86-64 processor with AVX2, whatever the environment says. The digests
//! below hold on any such machine. To hold them on an emulated processor of another maker, at some hundred times the
//! time: `ATFLOW_EMULATOR="qemu-x86_64 -cpu EPYC" cargo test --release -p atflow-worker --test worker
//! portable` (Debian: `qemu-user`).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

use atflow::digest::Digest;
use atflow::numerics::{Arithmetic, Numerics};
use atflow::protocol::Event;
use atflow::stage_kinds::StageKind;
use serde_json::{Value, json};

use crate::support::{Engine, shapes};

/// Emulated processors take their time.
const EMULATED: Duration = Duration::from_secs(1200);

/// The digest of each result, made on an Intel Xeon with AMX; an emulated EPYC gave the same. Those of `gaussian_noise`
/// and from `glass_blur` to `jpeg_compression` were made on an AMD EPYC.
const GOLDEN: [(&str, &str); 27] = [
    ("dm_wide_resnet", "732cf5d3ca19a978384cd723e848bd78a03a04e5cf81ef0c0180078225259823"),
    ("vit", "c9057fe7b69bb57fe18b90425aee5521b03702b30c16688d596dbd614b9c01db"),
    ("convnext", "4c039b369ee553665dde9080eab0dac50d8004cfe32880e4a41172536d79b936"),
    ("bf16 model", "7e8bfe0d1fe14cb20d5a9e17aea78b880b31a32df01c55cc0a35e7a6d2759c0b"),
    ("apgd", "d35636341596d8cebdcf66ed31c51e9f1688001bb7c470146ab9e725de636e64"),
    ("autoattack", "7b240f1bf398034ec129e7676c94c652965a95262dd88de4a293472cfcef5b08"),
    ("model", "f9725c42327c2a21b2b6652ef5d36404b85887e41485bf51f6c4bdfafb221793"),
    ("pgd model", "1b442fba7de6f0d74674870bdf46a78a3bc505163bc7aa6386d59edec4ff99a6"),
    ("pgd", "d65ef4751d1bd436435d1faf73abdbff2e082bc0f0f8bfada24c52b136b855b1"),
    ("pgd in L2", "7c1a5496bcc817bfbd80db8c60da2609841d038674defb9bd0a1368ac1627ac2"),
    ("cw", "ea55febf037e60102b8da3c5a6423a77335cdf0d9542e6458b117d83bfd9ac51"),
    ("fourier", "c3dfdebdffa7438d60713490c35d70a6ca046a50820e01136b962a4feac44adb"),
    ("saturate", "2cb8507eea83eaa74a8bb3d32fca607e7ede3437e5bdda707103ec9493e4c01e"),
    ("shot_noise", "4b402bf62d250086998d6f63cb6877e886440692aef7c74bbf95aeb054bae934"),
    ("defocus_blur", "280b82e74bd5183f0845f34987101837ee1cd969053517ba9d7ccc2665cb10c6"),
    ("gaussian_noise", "ecd189d7240c1627f0ce0d0f8e3dcbceefbfc089f726bbec74237a1da2f480de"),
    ("glass_blur", "fb363096efb5ff76a36797ae5aef38e72ef1c40f415205dd22febde7c76e8c46"),
    ("motion_blur", "beac297a7ac928bf912ae85ed6ce8df77c01e021e2f991182c321478beaa4e77"),
    ("zoom_blur", "d609abd1d6b16ca0297e4c50b7ff1ce37d08076b473008ce913a9739eb110a6e"),
    ("snow", "f6b5638d07fa200811fe38efa5cc87753a4f9499bf5139421631e7ed7bce5584"),
    ("fog", "fc8b1cbfdd0e643749c1178b59f4cc210bdfc64c95c3d0a6fe6682e1e4d9a6f7"),
    ("elastic_transform", "4272fb2ac8f527ac3fe72e74aa615d09e6df27c343a696ee15aeeef7f6ffe440"),
    ("jpeg_compression", "57075b84825b49b2c1af4b0c9cda2d24d51983cf5d5299722443776c95af699a"),
    ("patch_shuffle", "806046e3f2e59d24a6de04e16dd0221f10c137d99a973ef72a9d5c5cd868f958"),
    ("smoothgrad", "67e9e2c44d6856ecbf2ea36d2fb7b36027e3a5757401c62132b6914fdff44e42"),
    ("grad_cam", "595bdff38c3d455f33b07af6271c2f61ab1c86e634b745b8d504c24c9f2d15cc"),
    ("square", "e997f87034a4677f8e9748624bd09838829b79f852db1c1d12246b33a95526b6"),
];

/// Like the quickstart's training, whose network has 16 channels.
fn training(width: u32, adversary: Value) -> Value {
    json!({
        "net": {"arch": "resnet", "width": width, "blocks": [1, 1, 1]},
        "epochs": 1, "batch_size": 24, "optimizer": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}, "adversary": adversary,
    })
}

/// What a worker makes of small jobs of every kind, by name.
fn results(mut engine: Engine) -> BTreeMap<&'static str, String> {
    let Event::Hello { numerics, .. } = engine.hear() else { panic!("no hello") };
    assert_eq!(numerics, Numerics::Portable);
    let mut digests = BTreeMap::new();
    let mut keep = |name, bytes: &[u8]| _ = digests.insert(name, Digest::of(bytes).to_string());
    let data = engine.input("data", &shapes(48, 3, 1).to_bytes().unwrap());
    let images = shapes(6, 3, 2).to_bytes().unwrap();
    let linf = |more: Value| {
        let mut attack = json!({"eps": 0.06});
        attack.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        attack
    };
    let pgd = linf(json!({"attack": "pgd", "step": 0.02, "steps": 3}));
    let mut models = Vec::new();
    // 24 channels fill blocks of 8, but none of 16, which native kernels have on many processors.
    let of = |width, adversary: &Value, precision| {
        let mut params = training(width, adversary.clone());
        params["precision"] = json!(precision);
        params
    };
    let none = json!({"attack": "none"});
    for (name, params) in
        [("model", of(24, &none, "fp32")), ("bf16 model", of(16, &none, "bf16")), ("pgd model", of(16, &pgd, "fp32"))]
    {
        let ([checkpoint, _], _) = engine.run(StageKind::Train, params, vec![data.clone()], ["checkpoint", "metrics"]);
        keep(name, &checkpoint);
        models.push(checkpoint);
    }
    for (name, net) in [
        ("dm_wide_resnet", json!({"arch": "dm_wide_resnet", "depth": 10, "widen": 1})),
        ("vit", json!({"arch": "vit", "side": 8, "patch": 2, "dim": 24, "depth": 1})),
        ("convnext", json!({"arch": "convnext", "patch": 1, "width": 8, "blocks": [1, 1]})),
    ] {
        let mut params = of(16, &pgd, "fp32");
        params["net"] = net;
        let ([checkpoint, _], _) = engine.run(StageKind::Train, params, vec![data.clone()], ["checkpoint", "metrics"]);
        keep(name, &checkpoint);
    }
    let inputs = [engine.input("model", &models[2]), engine.input("set", &images)];
    let attacks = [
        ("pgd", pgd),
        ("pgd in L2", json!({"attack": "pgd", "norm": "l2", "eps": 0.8, "step": 0.2, "steps": 3})),
        ("apgd", linf(json!({"attack": "apgd", "steps": 4}))),
        ("square", json!({"attack": "square", "norm": "l2", "eps": 0.8, "queries": 12})),
        ("cw", json!({"attack": "cw", "eps": 0.8, "c": 1, "search_steps": 2, "steps": 4, "lr": 0.05})),
        ("autoattack", linf(json!({"attack": "autoattack", "attacks": ["apgd_ce", "fab_t"], "steps": 3}))),
    ];
    for (name, attack) in attacks {
        let params = json!({"attack": attack});
        let ([predictions], _) = engine.run(StageKind::Evaluate, params, inputs.to_vec(), ["predictions"]);
        keep(name, &predictions);
    }
    let transforms = [
        ("saturate", json!({"op": "saturate", "level": 8})),
        ("patch_shuffle", json!({"op": "patch_shuffle", "k": 2})),
        ("shot_noise", json!({"op": "corrupt", "kind": "shot_noise", "severity": 3})),
        ("gaussian_noise", json!({"op": "corrupt", "kind": "gaussian_noise", "severity": 3})),
        ("defocus_blur", json!({"op": "corrupt", "kind": "defocus_blur", "severity": 2})),
        ("glass_blur", json!({"op": "corrupt", "kind": "glass_blur", "severity": 5})),
        ("motion_blur", json!({"op": "corrupt", "kind": "motion_blur", "severity": 5})),
        ("zoom_blur", json!({"op": "corrupt", "kind": "zoom_blur", "severity": 5})),
        ("snow", json!({"op": "corrupt", "kind": "snow", "severity": 5})),
        ("fog", json!({"op": "corrupt", "kind": "fog", "severity": 5})),
        ("elastic_transform", json!({"op": "corrupt", "kind": "elastic_transform", "severity": 5})),
        ("jpeg_compression", json!({"op": "corrupt", "kind": "jpeg_compression", "severity": 5})),
        ("fourier", json!({"op": "fourier", "filter": "low_pass", "radius": 2.5})),
    ];
    for (name, params) in transforms {
        let set = engine.input("data", &images);
        let ([images], _) = engine.run(StageKind::Transform, params, vec![set], ["images"]);
        keep(name, &images);
    }
    for (name, method) in [
        ("smoothgrad", json!({"name": "smoothgrad", "samples": 3, "spread": 0.1})),
        ("grad_cam", json!({"name": "grad_cam"})),
    ] {
        let models = engine.input("models", &models[2]);
        let inputs = vec![models, engine.input("set", &images)];
        let params = json!({"method": method, "images": [0, 1]});
        let outputs = ["maps", "grid", "numbers", "csv", "markdown"];
        let ([maps, ..], _) = engine.run(StageKind::Saliency, params, inputs, outputs);
        keep(name, &maps);
    }
    digests
}

fn worker(variables: &[(&str, &str)]) -> Engine {
    let variables: Vec<(&str, &OsStr)> = variables.iter().map(|(name, value)| (*name, OsStr::new(value))).collect();
    Engine::start_as(&["--device", "cpu"], &variables)
}

#[test]
fn results_have_the_same_bytes_on_every_processor() {
    let engine = match std::env::var("ATFLOW_EMULATOR") {
        Err(_) => worker(&[]),
        Ok(emulator) => {
            let mut words = emulator.split_whitespace();
            let mut command = Command::new(words.next().expect("an emulator"));
            command.args(words).args([env!("CARGO_BIN_EXE_atflow-worker"), "--device", "cpu"]).env_clear();
            let mut engine = Engine::spawn(command.envs(Numerics::Portable.environment(std::env::vars_os())));
            engine.patience = EMULATED;
            engine
        }
    };
    let golden: BTreeMap<&str, String> = GOLDEN.map(|(name, digest)| (name, digest.to_owned())).into();
    let found = results(engine);
    assert_eq!(
        found,
        golden,
        "{}",
        found.iter().map(|(name, digest)| format!("    ({name:?}, {digest:?}),\n")).collect::<String>()
    );
}

/// Each of these changed the bytes of a training when workers had their environment from whoever started them.
#[test]
fn switches_of_the_environment_change_nothing() {
    let variables = [
        ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16"),
        ("DNNL_MAX_CPU_ISA", "SSE41"),
        ("ONEDNN_MAX_CPU_ISA", "SSE41"),
        ("ATEN_CPU_CAPABILITY", "default"),
        ("MKL_CBWR", "AVX"),
        ("MKL_ENABLE_INSTRUCTIONS", "SSE4_2"),
        ("OMP_THREAD_LIMIT", "1"),
        ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-FMA,-AVX2"),
    ];
    let golden: BTreeMap<&str, String> = GOLDEN.map(|(name, digest)| (name, digest.to_owned())).into();
    assert_eq!(results(worker(&variables)), golden);
}

#[test]
fn a_worker_tells_what_its_arithmetic_comes_to() {
    let hello = |arguments: &[&str]| match Engine::start_as(arguments, &[]).hear() {
        Event::Hello { numerics, arithmetic, .. } => (numerics, arithmetic),
        other => panic!("{other:?}"),
    };
    let (numerics, portable) = hello(&["--device", "cpu"]);
    assert_eq!((numerics, portable.isa.as_str(), portable.aten.as_str()), (Numerics::Portable, "avx2", "AVX2"));
    let (numerics, native) = hello(&["--device", "cpu", "--numerics", "native"]);
    assert_eq!(numerics, Numerics::Native);
    let libraries = |found: &Arithmetic| (found.onednn.clone(), found.mkl.clone(), found.libc.clone());
    assert_eq!(libraries(&native), libraries(&portable));
    assert!(portable.onednn.starts_with("3.") && portable.mkl.starts_with("20"), "{portable:?}");
    // Where the processor has more, native numerics take it.
    assert_eq!(native.isa == "avx2", native.aten == "AVX2", "{native:?}");
}

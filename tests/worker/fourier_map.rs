//! Fourier heat maps: waves against numpy's FFT, and the stage's counts against passes of the network one by one.
//! `fixtures/make_waves.py` made the waves.

use atflow::formats::ImageSet;
use atflow::protocol::{FailureCode, Input};
use atflow::stage_kinds::StageKind;
use atflow_worker::checkpoint::Checkpoint;
use atflow_worker::executors::fourier_map::waves;
use atflow_worker::rng::Rng;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::support::{Engine, shapes, training};

#[test]
fn waves_are_those_of_numpys_fft() {
    let file = SafeTensors::deserialize(include_bytes!("fixtures/waves.safetensors")).unwrap();
    for (name, expected) in file.iter() {
        let [_, height, width] = expected.shape()[..] else { panic!("{name}") };
        let every = if height == 28 { 23 } else { 1 };
        let half = (0..height).flat_map(|row| (0..=width / 2).map(move |column| [row, column]));
        let found: Vec<f32> =
            half.step_by(every).flat_map(|frequency| waves::wave([height, width], frequency)).collect();
        let (values, _) = expected.data().as_chunks::<4>();
        assert_eq!(values.len(), found.len());
        let off = found.iter().zip(values).map(|(found, &value)| (found - f32::from_le_bytes(value)).abs());
        let worst = off.fold(0.0, f32::max);
        assert!(worst < 1e-7, "{name} is off by {worst}");
    }
}

#[test]
fn each_wave_of_an_image_is_listed_once() {
    for size in [[4, 5], [6, 6], [7, 4], [1, 1], [28, 28]] {
        let frequencies = waves::frequencies(size);
        // A real image of n pixels has n free numbers; a frequency that is its own mirror image stands for one of
        // them, the others for two.
        let own = |&&[row, column]: &&[usize; 2]| (2 * row) % size[0] == 0 && (2 * column) % size[1] == 0;
        let own = frequencies.iter().filter(own).count();
        assert_eq!(2 * frequencies.len() - own, size[0] * size[1], "{size:?}");
    }
}

const OUTPUTS: [&str; 6] = ["json", "csv", "markdown", "svg", "png", "pdf"];

/// Trains a small network; returns its checkpoint.
fn trained(engine: &mut Engine, set: &ImageSet) -> Vec<u8> {
    let data = engine.input("data", &set.to_bytes().unwrap());
    let ([checkpoint, _], _) =
        engine.run(StageKind::Train, training(json!({"epochs": 3})), vec![data], ["checkpoint", "metrics"]);
    checkpoint
}

#[test]
fn errors_are_those_of_the_network_on_images_with_the_wave() {
    let mut engine = Engine::ready();
    let set = shapes(40, 3, 1);
    let checkpoint = trained(&mut engine, &set);
    let model = Input { label: "a".to_owned(), ..engine.input("models", &checkpoint) };
    let inputs = vec![model, engine.input("set", &set.to_bytes().unwrap())];
    engine.seed = 9;
    let mut map = |params: Value| {
        let ([json, csv, markdown, svg, png, pdf], summary) =
            engine.run(StageKind::FourierMap, params, inputs.clone(), OUTPUTS);
        assert_eq!(summary, "34 frequencies, 30 images, 1 models");
        assert!(svg.starts_with(b"<svg") && png.starts_with(b"\x89PNG") && pdf.starts_with(b"%PDF"));
        let (csv, markdown) = (String::from_utf8(csv).unwrap(), String::from_utf8(markdown).unwrap());
        assert_eq!(csv.lines().count(), 35);
        assert!(markdown.contains("n = 30 images, waves of 2-norm"), "{markdown}");
        serde_json::from_slice::<Value>(&json).unwrap()
    };
    let found = map(json!({"norm": 2.5, "limit": 30}));
    assert_eq!(found["size"], json!([8, 8]));

    let network = Checkpoint::from_bytes(&checkpoint, Device::Cpu).unwrap().network.freeze().unwrap();
    let bytes = Tensor::from_slice(&set.pixels[..30 * 3 * 64]).view([30, 3, 8, 8]);
    let (images, labels) = (bytes.to_kind(Kind::Float) / 255.0, Tensor::from_slice(&set.labels[..30]));
    let frequencies = waves::frequencies([8, 8]);
    let signs = waves::signs(Rng::new(9), &(0..30).collect::<Vec<u64>>(), frequencies.len(), 3);
    let share = |images: &Tensor| {
        let wrong = network.forward(images).unwrap().argmax(1, false).ne_tensor(&labels).sum(Kind::Int64);
        wrong.int64_value(&[]) as f64 / 30.0
    };
    assert_eq!(found["models"][0]["clean"], json!(share(&images)));
    let mut different = 0;
    for (&frequency, signs) in frequencies.iter().zip(&signs) {
        let wave = Tensor::from_slice(&waves::wave([8, 8], frequency)).view([1, 1, 8, 8]);
        let added = Tensor::from_slice(signs).view([30, 3, 1, 1]) * 2.5 * wave;
        let expected = share(&(&images + added).clamp(0.0, 1.0));
        let [row, column] = frequency.map(|cycles| (cycles + 4) % 8);
        assert_eq!(found["models"][0]["errors"][row][column], json!(expected), "{frequency:?}");
        different += usize::from(json!(expected) != found["models"][0]["clean"]);
    }
    assert!(different > 0, "waves make errors");
    assert_eq!(found, map(json!({"norm": 2.5, "limit": 30, "batch_size": 7})), "batches change nothing");
    let tiny = map(json!({"norm": 1e-9, "limit": 30}));
    let clean = &tiny["models"][0]["clean"];
    let rows = tiny["models"][0]["errors"].as_array().unwrap();
    assert!(rows.iter().flat_map(|row| row.as_array().unwrap()).all(|error| error == clean));
}

#[test]
fn a_wrong_norm_and_a_set_without_images_are_errors() {
    let mut engine = Engine::ready();
    let set = shapes(12, 1, 1);
    let checkpoint = trained(&mut engine, &set);
    let inputs = vec![engine.input("models", &checkpoint), engine.input("set", &set.to_bytes().unwrap())];
    for params in [json!({"norm": 0}), json!({"norm": 1, "batch_size": 0}), json!({"norm": 1, "limit": 0})] {
        assert_eq!(engine.fail(StageKind::FourierMap, params, inputs.clone()).code, FailureCode::Invalid);
    }
}

//! Common corruptions: pixels against OpenCV, scikit-image and Pillow where nothing is drawn, moments where something
//! is. `fixtures/make_corruptions.py` made the pixels.

use atflow::formats::ImageSet;
use atflow::protocol::FailureCode;
use atflow::stage_kinds::{Corruption, SeverityTable, StageKind};
use atflow_worker::executors::transform::corruptions::Corrupter;
use atflow_worker::rng::{Rng, Stream};
use safetensors::SafeTensors;
use serde_json::json;

use crate::support::{Engine, shapes};

static FIXTURES: &[u8] = include_bytes!("fixtures/corruptions.safetensors");
const SHAPE: [usize; 3] = [3, 14, 18];

fn named<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_value(json!(name)).unwrap()
}

fn stream() -> Stream {
    Rng::new(5).stream("corrupt", &[0])
}

#[test]
fn pixels_are_those_of_opencv_scikit_image_and_pillow() {
    let file = SafeTensors::deserialize(FIXTURES).unwrap();
    let image = file.tensor("image").unwrap();
    let mut compared = 0;
    for (name, expected) in file.iter().filter(|(name, _)| *name != "image") {
        let [table, kind, severity] = name.split('/').collect::<Vec<_>>()[..] else { panic!("{name}") };
        let corrupter = Corrupter::new(named(kind), named(table), severity.parse().unwrap()).unwrap();
        let found = corrupter.apply(image.data(), SHAPE, &mut stream());
        assert_ne!(found, image.data(), "{name} changes the image");
        let (values, _) = expected.data().as_chunks::<4>();
        let off = |(&byte, &value): (&u8, &[u8; 4])| (f32::from(byte) - f32::from_le_bytes(value)).abs();
        let worst = found.iter().zip(values).map(off).fold(0.0, f32::max);
        // A byte is the value, rounded; OpenCV smooths the disc in f32. Pillow's values are bytes.
        let most = if kind == "pixelate" { 1e-4 } else { 0.501 };
        assert!(worst <= most && values.len() == found.len(), "{name} is off by {worst}");
        compared += 1;
    }
    assert_eq!(compared, 40);
}

/// Mean and variance, in units of white, of what a corruption makes of 30,000 pixels of one grey.
fn moments(kind: Corruption, table: SeverityTable, severity: u8, grey: u8) -> (f64, f64) {
    let corrupter = Corrupter::new(kind, table, severity).unwrap();
    let found = corrupter.apply(&[grey; 30_000], [3, 100, 100], &mut stream());
    let values = || found.iter().map(|&byte| f64::from(byte) / 255.0);
    let mean = values().sum::<f64>() / 30_000.0;
    (mean, values().map(|value| (value - mean).powi(2)).sum::<f64>() / 30_000.0)
}

#[test]
fn noise_has_the_moments_of_its_distribution() {
    let grey = 102.0 / 255.0;
    let close = |(mean, variance): (f64, f64), expected_mean: f64, expected: f64| {
        // Four standard errors of a mean; the variance of 30,000 draws is known to about 3 %, of rare ones to 10 %.
        assert!((mean - expected_mean).abs() < 4.0 * (expected / 30_000.0).sqrt(), "{mean}, not {expected_mean}");
        assert!((variance / expected - 1.0).abs() < 0.1, "{variance}, not {expected}");
    };
    for (severity, deviation) in [(1, 0.04), (5, 0.1)] {
        let found = moments(Corruption::GaussianNoise, SeverityTable::Cifar, severity, 102);
        close(found, grey, deviation * deviation);
    }
    for (severity, white) in [(1, 500.0), (5, 50.0)] {
        close(moments(Corruption::ShotNoise, SeverityTable::Cifar, severity, 102), grey, grey / white);
    }
    assert_eq!(moments(Corruption::ShotNoise, SeverityTable::Imagenet, 5, 0), (0.0, 0.0), "black has no photons");
    for (severity, probability) in [(1, 0.03), (5, 0.27)] {
        let mean = (1.0 - probability) * grey + probability / 2.0;
        let square = (1.0 - probability) * grey * grey + probability / 2.0;
        close(moments(Corruption::ImpulseNoise, SeverityTable::Imagenet, severity, 102), mean, square - mean * mean);
    }
}

#[test]
fn a_set_is_corrupted_by_the_table_of_its_size_and_by_its_seed() {
    let mut engine = Engine::ready();
    let set = shapes(6, 1, 1);
    let data = engine.input("data", &set.to_bytes().unwrap());
    let mut corrupt = |seed: u64, params: serde_json::Value| {
        engine.seed = seed;
        let ([bytes], _) = engine.run(StageKind::Transform, params, vec![data.clone()], ["images"]);
        ImageSet::from_bytes(&bytes).unwrap()
    };
    let noise = |table: Option<&str>| {
        let mut params = json!({"op": "corrupt", "kind": "gaussian_noise", "severity": 3});
        if let Some(table) = table {
            params["table"] = json!(table);
        }
        params
    };
    let small = corrupt(1, noise(None));
    assert_eq!(small.labels, set.labels);
    assert_eq!(small, corrupt(1, noise(Some("cifar"))));
    assert_ne!(small.pixels, corrupt(1, noise(Some("imagenet"))).pixels);
    assert_ne!(small.pixels, corrupt(2, noise(None)).pixels);
    assert_ne!(small.pixels, set.pixels);
    let wrong = json!({"op": "corrupt", "kind": "contrast", "severity": 6});
    assert_eq!(engine.fail(StageKind::Transform, wrong, vec![data]).code, FailureCode::Invalid);
}

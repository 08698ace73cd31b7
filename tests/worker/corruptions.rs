//! Common corruptions: pixels against OpenCV, scikit-image and Pillow where nothing is drawn, against the authors' code
//! with the same draws where something is, and moments of noise. `fixtures/make_corruptions.py` and
//! `fixtures/make_drawn_corruptions.py` made the pixels.

use atflow::formats::ImageSet;
use atflow::protocol::FailureCode;
use atflow::stage_kinds::{Corruption, SeverityTable, StageKind};
use atflow_worker::executors::transform::corruptions::Corrupter;
use atflow_worker::rng::{Rng, Stream};
use safetensors::SafeTensors;
use serde_json::json;

use crate::support::{Engine, shapes};

static FIXTURES: &[u8] = include_bytes!("fixtures/corruptions.safetensors");
static DRAWN: &[u8] = include_bytes!("fixtures/drawn_corruptions.safetensors");
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

/// The picture of `fixtures/make_drawn_corruptions.py`.
fn picture(side: usize) -> Vec<u8> {
    let pixel = |channel: usize, y: usize, x: usize| {
        let smooth = match channel {
            0 => (3 * x + 2 * y) * 96 / side,
            1 => x.abs_diff(y).pow(2) * 200 / side.pow(2),
            _ => (y * y + side * x) * 120 / side.pow(2),
        };
        let period = side / 4;
        ((smooth + (x / period + y / period) % 2 * 70 + x * y % 11) % 256) as u8
    };
    let channel = |channel| (0..side * side).map(move |at| pixel(channel, at / side, at % side));
    (0..3).flat_map(channel).collect()
}

/// Part of an image of square channels.
fn cut(image: &[u8], side: usize, rows: &[usize], columns: &[usize]) -> Vec<u8> {
    let places = || rows.iter().flat_map(|y| columns.iter().map(move |x| y * side + x));
    image.chunks(side * side).flat_map(|plane| places().map(|at| plane[at])).collect()
}

#[test]
fn pixels_are_those_of_the_authors_code_with_the_same_draws() {
    let file = SafeTensors::deserialize(DRAWN).unwrap();
    let mut compared = 0;
    for (name, expected) in file.iter().filter(|(name, _)| !name.starts_with("jpeg/")) {
        let [table, kind, severity] = name.split('/').collect::<Vec<_>>()[..] else { panic!("{name}") };
        let (side, every) = if table == "cifar" { (32, 1) } else { (224, 13) };
        let corrupter = Corrupter::new(named(kind), named(table), severity.parse().unwrap()).unwrap();
        let image = picture(side);
        let found = corrupter.apply(&image, [3, side, side], &mut stream());
        assert_ne!(found, image, "{name} changes the image");
        let kept: Vec<usize> = (0..side).step_by(every).collect();
        let found = cut(&found, side, &kept, &kept);
        let (values, _) = expected.data().as_chunks::<2>();
        let off =
            |(&byte, &value): (&u8, &[u8; 2])| (f64::from(byte) - f64::from(u16::from_le_bytes(value)) / 128.0).abs();
        let worst = found.iter().zip(values).map(off).fold(0.0, f64::max);
        // A byte is the value, rounded, and values are kept in units of 1/128. A JPEG file has bytes.
        let most = if kind == "jpeg_compression" { 0.0 } else { 0.505 };
        assert!(worst <= most && values.len() == found.len(), "{name} is off by {worst}");
        compared += 1;
    }
    assert_eq!(compared, 70);
}

#[test]
fn jpeg_compression_is_pillows_for_images_of_odd_sides_and_grey_ones() {
    let file = SafeTensors::deserialize(DRAWN).unwrap();
    let mut compared = 0;
    for (name, expected) in file.iter().filter(|(name, _)| name.starts_with("jpeg/")) {
        let quality = name.rsplit('/').next().unwrap().parse().unwrap();
        let [channels, height, width] = expected.shape()[..] else { panic!("{name}") };
        let rows: Vec<usize> = (0..height).collect();
        let columns: Vec<usize> = (0..width).collect();
        let mut image = cut(&picture(32), 32, &rows, &columns);
        if channels == 1 {
            image = image[height * width..2 * height * width].to_vec();
        }
        let found = Corrupter::Jpeg(quality).apply(&image, [channels, height, width], &mut stream());
        assert!(found == expected.data(), "{name}");
        compared += 1;
    }
    assert_eq!(compared, 9);
}

/// Every corruption but those whose draws are one for each value.
const CHANNELS_ALIKE: [&str; 11] = [
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
];

#[test]
fn grey_images_of_any_size_are_corrupted_as_if_they_had_colours() {
    for (height, width) in [(28, 28), (17, 40), (5, 3), (1, 1)] {
        let grey = &picture(40)[..height * width];
        for (kind, severity) in CHANNELS_ALIKE.iter().flat_map(|kind| (1..=5).map(move |severity| (kind, severity))) {
            let corrupter = Corrupter::new(named(kind), SeverityTable::Cifar, severity).unwrap();
            let found = corrupter.apply(grey, [1, height, width], &mut stream());
            let coloured = corrupter.apply(&grey.repeat(3), [3, height, width], &mut stream());
            let off = |(one, other): (&u8, &u8)| one.abs_diff(*other);
            let worst = found.repeat(3).iter().zip(&coloured).map(off).max().unwrap();
            // The luma of a grey pixel is its value up to the last digit, which decides where half a level goes.
            assert!(worst <= 1 && found.len() == height * width, "{kind} {severity} {height} × {width}: {worst}");
        }
    }
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

//! Fourier filters, stylized sets and cue conflicts: numbers against numpy and PyTorch, and what the stages make of
//! whole sets. `fixtures/make_transforms.py` made the numbers, and is the specification.

use std::collections::BTreeMap;
use std::io::Read;

use atflow::formats::{self, ImageHead, ImageReader, ImageSet, ImageWriter, Sizes, View};
use atflow::number::Real;
use atflow::protocol::{FailureCode, Input};
use atflow::stage_kinds::{Filter, Fourier, Mask, StageKind};
use atflow_worker::executors::transform::adain::{self, Adain, Statistics};
use atflow_worker::executors::transform::fourier::{self, Filtering};
use atflow_worker::rng::{DrawTensor, Rng};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::support::{Engine, shapes};

static FIXTURES: &[u8] = include_bytes!("fixtures/transforms.safetensors");

pub(crate) fn fixture(name: &str) -> Tensor {
    let file = SafeTensors::deserialize(FIXTURES).unwrap();
    let view = file.tensor(name).unwrap();
    let kind = match view.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::U8 => Kind::Uint8,
        other => panic!("{other:?}"),
    };
    let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
    Tensor::from_data_size(view.data(), &shape, kind)
}

pub(crate) fn assert_close(found: &Tensor, name: &str, tolerance: f64) {
    let expected = fixture(name);
    assert_eq!(found.size(), expected.size(), "{name}");
    let worst = (found.detach() - &expected).abs().max().double_value(&[]);
    assert!(worst <= tolerance, "{name} is off by {worst}, more than {tolerance}");
}

/// The tensors of the encoder or the decoder.
fn weights(network: &str) -> BTreeMap<String, Tensor> {
    let file = SafeTensors::deserialize(FIXTURES).unwrap();
    let prefix = format!("{network}/");
    let names = file.names().into_iter().filter_map(|name| name.strip_prefix(&prefix));
    names.map(|name| (name.to_owned(), fixture(&format!("{prefix}{name}")))).collect()
}

/// The same as a file; `change` may rename tensors or leave some out.
fn weights_file(network: &str, change: impl Fn(&str) -> Option<String>) -> Vec<u8> {
    let file = SafeTensors::deserialize(FIXTURES).unwrap();
    let prefix = format!("{network}/");
    let tensors: Vec<(String, TensorView<'_>)> =
        file.iter().filter_map(|(name, view)| Some((change(name.strip_prefix(&prefix)?)?, view))).collect();
    formats::write(tensors, &json!({})).unwrap()
}

fn fourier(filter: Filter, mask: Mask, radius: Option<f64>, p: Option<f64>) -> Fourier {
    Fourier { filter, mask, radius: radius.map(Real::new), p: p.map(Real::new) }
}

fn filtered(params: &Fourier, images: &Tensor) -> Tensor {
    let size = images.size();
    let filter = Filtering::new(params, [size[2], size[3]], Device::Cpu).unwrap();
    let indices: Vec<u64> = (0..size[0] as u64).collect();
    filter.apply(images, Rng::new(3), &indices).unwrap()
}

#[test]
fn fourier_filters_are_those_of_numpy() {
    for size in ["even", "odd"] {
        let images = fixture(&format!("fourier/{size}/images"));
        for (name, filter) in [("low_pass", Filter::LowPass), ("high_pass", Filter::HighPass)] {
            let authors = filtered(&fourier(filter, Mask::Authors, Some(5.0), None), &images);
            assert_close(&authors, &format!("fourier/{size}/authors/{name}"), 1e-6);
            let centred = filtered(&fourier(filter, Mask::Centred, Some(3.0), None), &images);
            assert_close(&centred, &format!("fourier/{size}/centred/{name}"), 1e-6);
        }
        let masked = fourier::masked(&images, &fixture(&format!("fourier/{size}/mask")), true).unwrap();
        assert_close(&masked, &format!("fourier/{size}/masked"), 1e-6);
    }
}

#[test]
fn low_and_high_frequencies_together_are_the_image() {
    for size in ["even", "odd"] {
        let images = fixture(&format!("fourier/{size}/images"));
        // No distance of a mode from the authors' centre is 2.1.
        for (mask, radius) in [(Mask::Authors, 2.1), (Mask::Centred, 2.0)] {
            let part = |filter| filtered(&fourier(filter, mask, Some(radius), None), &images);
            let (low, high) = (part(Filter::LowPass), part(Filter::HighPass));
            assert!((&low + &high - &images).abs().max().double_value(&[]) < 1e-6);
            assert!((&low - &images).abs().max().double_value(&[]) > 0.05, "something was removed");
        }
    }
}

#[test]
fn random_filters_drop_a_share_of_the_modes_and_a_symmetric_one_loses_exactly_them() {
    let images = fixture("fourier/even/images");
    let energy = |images: &Tensor| images.square().sum(Kind::Double).double_value(&[]);
    for mask in [Mask::Authors, Mask::Centred] {
        let keep_all = filtered(&fourier(Filter::Random, mask, None, Some(0.0)), &images);
        assert!((&keep_all - &images).abs().max().double_value(&[]) < 1e-6);
        assert_eq!(energy(&filtered(&fourier(Filter::Random, mask, None, Some(1.0)), &images)), 0.0);
        assert_ne!(filtered(&fourier(Filter::Random, mask, None, None), &images), images, "0.1 by default");
    }
    // What a symmetric mask leaves, it leaves again: it is a projection, which a mask of the half spectrum is not in
    // its own columns.
    let filter =
        Filtering::new(&fourier(Filter::Random, Mask::Centred, None, Some(0.4)), [12, 10], Device::Cpu).unwrap();
    let apply = |images: &Tensor, indices: &[u64]| filter.apply(images, Rng::new(5), indices).unwrap();
    let once = apply(&images, &[7, 2]);
    assert!((&apply(&once, &[7, 2]) - &once).abs().max().double_value(&[]) < 1e-6);
    assert!(energy(&once) < energy(&images));
    // The draw belongs to the image, wherever it stands in a batch, and is another one for each.
    assert!((apply(&images.flip([0]), &[2, 7]).flip([0]) - &once).abs().max().double_value(&[]) < 1e-6);
    assert_ne!(apply(&images, &[2, 7]), once);
}

#[test]
fn filtered_sets_are_sets_of_the_same_images() {
    let mut engine = Engine::ready();
    let set = shapes(20, 3, 1);
    let data = engine.input("data", &set.to_bytes().unwrap());
    let mut transform = |params: Value| {
        let ([bytes], summary) = engine.run(StageKind::Transform, params, vec![data.clone()], ["images"]);
        (ImageSet::from_bytes(&bytes).unwrap(), summary)
    };
    let all = json!({"op": "fourier", "filter": "high_pass", "radius": 200});
    let (unchanged, summary) = transform(all);
    assert!(unchanged == set, "a filter that keeps everything changes nothing");
    assert_eq!(summary, "20 images high-pass filtered, radius 200");
    let (low, _) = transform(json!({"op": "fourier", "filter": "low_pass", "mask": "centred", "radius": 0}));
    for (before, after) in set.pixels.chunks(64).zip(low.pixels.chunks(64)) {
        let mean = before.iter().map(|&pixel| f64::from(pixel)).sum::<f64>() / 64.0;
        assert!(after.iter().all(|&pixel| (f64::from(pixel) - mean).abs() <= 0.51), "frequency 0 is the mean");
    }
    let random = || json!({"op": "fourier", "filter": "random", "p": 0.5});
    let (some, _) = transform(random());
    assert_eq!(some, transform(random()).0);
    assert_eq!((&some.labels, &some.classes, some.shape), (&set.labels, &set.classes, set.shape));
    assert_ne!(some.pixels, set.pixels);
    for (params, words) in [
        (json!({"op": "fourier", "filter": "low_pass"}), "`filter` needs a `radius`"),
        (json!({"op": "fourier", "filter": "random", "p": 1.5}), "`p` must be between 0 and 1"),
        (json!({"op": "fourier", "filter": "random", "radius": 3}), "`radius` belongs to `low_pass` and `high_pass`"),
    ] {
        let failure = engine.fail(StageKind::Transform, params, vec![data.clone()]);
        assert_eq!(failure.code, FailureCode::Invalid);
        assert!(failure.message.contains(words), "{failure:?}");
    }
}

#[test]
fn pieces_laid_along_columns_are_the_same_pieces() {
    let mut engine = Engine::ready();
    let set = shapes(6, 1, 1);
    let data = engine.input("data", &set.to_bytes().unwrap());
    let mut shuffle = |assembly: &str| {
        let params = json!({"op": "patch_shuffle", "k": 2, "assembly": assembly});
        let ([bytes], _) = engine.run(StageKind::Transform, params, vec![data.clone()], ["images"]);
        ImageSet::from_bytes(&bytes).unwrap()
    };
    let (rows, columns) = (shuffle("rows"), shuffle("columns"));
    for (rows, columns) in rows.pixels.chunks(64).zip(columns.pixels.chunks(64)) {
        // The piece right of the upper left one in one is below it in the other.
        assert_eq!(
            (0..4).map(|y| &rows[8 * y + 4..8 * y + 8]).collect::<Vec<_>>(),
            (4..8).map(|y| &columns[8 * y..8 * y + 4]).collect::<Vec<_>>()
        );
        assert_eq!(rows[..4], columns[..4]);
    }
}

/// A published test set is stored class by class: its first images are all of one class.
#[test]
fn a_draw_is_of_all_classes_and_of_the_seed() {
    let mut engine = Engine::ready();
    let mut set = shapes(300, 3, 1);
    set.labels = (0..300).map(|index| index / 100).collect();
    let data = engine.input("data", &set.to_bytes().unwrap());
    let mut draw = |seed: u64, count: u32| {
        engine.seed = seed;
        let params = json!({"op": "sample", "count": count});
        let ([bytes], summary) = engine.run(StageKind::Transform, params, vec![data.clone()], ["images"]);
        assert_eq!(summary, format!("{count} of 300 images"));
        bytes
    };
    let bytes = draw(1, 60);
    assert!(bytes == draw(1, 60), "the same seed gives the same bytes");
    let image = |set: &ImageSet, index: usize| (set.pixels[192 * index..][..192].to_vec(), set.labels[index]);
    let all: Vec<_> = (0..300).map(|index| image(&set, index)).collect();
    let places = |bytes: &[u8]| -> Vec<usize> {
        let part = ImageSet::from_bytes(bytes).unwrap();
        assert_eq!(part.classes, set.classes);
        (0..part.len()).map(|index| all.iter().position(|of| *of == image(&part, index)).unwrap()).collect()
    };
    let drawn = places(&bytes);
    assert_eq!(drawn.len(), 60);
    assert!(drawn.windows(2).all(|pair| pair[0] < pair[1]), "none twice, in the set's order: {drawn:?}");
    for class in 0..3 {
        let of_class = drawn.iter().filter(|&&place| place / 100 == class).count();
        assert!((8..=32).contains(&of_class), "{of_class} of class {class}, about 20 expected");
    }
    assert_ne!(places(&draw(2, 60)), drawn, "another seed gives other images");
    assert!(places(&draw(1, 20)).iter().all(|place| drawn.contains(place)), "a smaller draw is part of a larger one");
    assert!(draw(1, 300) == set.to_bytes().unwrap(), "all images are the set");
    for (count, words) in [(301, "`count` is 301, and the set has only 300 images"), (0, "`count` must be at least 1")]
    {
        let failure = engine.fail(StageKind::Transform, json!({"op": "sample", "count": count}), vec![data.clone()]);
        assert_eq!(failure.code, FailureCode::Invalid);
        assert!(failure.message.contains(words), "{failure:?}");
    }
}

#[test]
fn drawn_images_are_stored_and_seen_as_in_the_set() {
    let mut engine = Engine::ready();
    let views = [
        (None, Some(View::CenterCrop(4))),
        (Some([5, 6]), Some(View::CenterCrop(4))),
        (Some([5, 6]), Some(View::Resize([10, 12]))),
    ];
    for (size, view) in views {
        // Images of sizes of their own where they may have them; each tells its index by its grey, and wears the
        // texture of the other class.
        let size_of = |index: usize| size.unwrap_or([4 + index % 3, 5 + index % 4]);
        let head = ImageHead {
            labels: (0..20).map(|index| index / 10).collect(),
            texture: Some((0..20).map(|index| 1 - index / 10).collect()),
            classes: vec!["cat".to_owned(), "dog".to_owned()],
            channels: 3,
            sizes: size.map_or_else(|| Sizes::Each((0..20).map(size_of).collect()), Sizes::One),
            view,
        };
        let path = engine.path("set");
        let mut writer = ImageWriter::with_head(&path, head.clone()).unwrap();
        for index in 0..20 {
            let [height, width] = size_of(index);
            writer.push(&vec![index as u8; 3 * height * width], [height, width], head.labels[index]).unwrap();
        }
        writer.finish().unwrap();
        let data = engine.input("data", &std::fs::read(&path).unwrap());
        let ([bytes], _) =
            engine.run(StageKind::Transform, json!({"op": "sample", "count": 7}), vec![data], ["images"]);
        let mut part = ImageReader::new(&bytes[..], bytes.len() as u64).unwrap();
        let found = part.head.clone();
        assert_eq!((found.len(), &found.classes, found.view, found.seen()), (7, &head.classes, head.view, head.seen()));
        for at in 0..7 {
            let [height, width] = found.size(at);
            let mut pixels = vec![0; 3 * height * width];
            part.read_exact(&mut pixels).unwrap();
            let index = usize::from(pixels[0]);
            assert!(pixels.iter().all(|&pixel| usize::from(pixel) == index), "one image is whole");
            assert_eq!([height, width], size_of(index));
            assert_eq!(found.labels[at], head.labels[index]);
            assert_eq!(found.texture.as_ref().map(|of| of[at]), head.texture.as_ref().map(|of| of[index]));
        }
    }
}

#[test]
fn adain_is_that_of_pytorch() {
    let _guard = tch::no_grad_guard();
    let networks = Adain::new(&weights("encoder"), &weights("decoder"), Device::Cpu).unwrap();
    let (content, style) = (fixture("adain/content"), fixture("adain/style"));
    let features = networks.encode(&content).unwrap();
    assert_close(&features, "adain/features", 1e-4);
    let style = Statistics::of(&networks.encode(&style).unwrap()).unwrap();
    let target = adain::normalised(&features, &style).unwrap();
    assert_close(&target, "adain/target", 1e-4);
    assert_close(&networks.decode(&target).unwrap(), "adain/decoded", 1e-4);
    for alpha in [1.0, 0.6] {
        let painted = networks.repaint(&content, &style, alpha).unwrap().clamp(0.0, 1.0) * 255.0;
        let expected = fixture(&format!("adain/painted/{alpha:?}")).to_kind(Kind::Float);
        assert!((painted.round() - expected).abs().max().double_value(&[]) <= 1.0, "alpha {alpha}");
    }
}

fn set_of(images: &Tensor, labels: Vec<i32>, classes: usize) -> ImageSet {
    let shape: Vec<usize> = images.size().iter().map(|&side| side as usize).collect();
    let pixels = Vec::try_from((images * 255.0).round().to_kind(Kind::Uint8).contiguous().view(-1)).unwrap();
    let classes = (0..classes).map(|class| format!("class {class}")).collect();
    ImageSet { pixels, shape: shape.try_into().unwrap(), labels, texture: None, classes }
}

/// Images of 16 × 12 in some classes, with noise.
fn content(count: usize, channels: i64, classes: usize) -> ImageSet {
    let draws: Vec<u64> = (0..count as u64).collect();
    let noise =
        Rng::new(2).tensor("test content", &[], &draws, &[channels, 16, 12], Device::Cpu, |s| s.unit()).unwrap();
    set_of(&noise, (0..count).map(|index| (index % classes) as i32).collect(), classes)
}

fn with_networks(engine: &Engine, mut inputs: Vec<Input>) -> Vec<Input> {
    for network in ["encoder", "decoder"] {
        inputs.push(engine.input(network, &weights_file(network, |name| Some(name.to_owned()))));
    }
    inputs
}

#[test]
fn stylized_images_are_those_of_pytorch_to_the_pixel() {
    let mut engine = Engine::ready();
    let first = |name: &str, slot: &str| {
        engine.input(slot, &set_of(&fixture(name).narrow(0, 0, 1), vec![0], 1).to_bytes().unwrap())
    };
    let inputs = with_networks(&engine, vec![first("adain/content", "data"), first("adain/style", "style")]);
    for alpha in [1.0, 0.6] {
        let params = json!({"op": "stylize", "alpha": alpha});
        let ([bytes], summary) = engine.run(StageKind::Transform, params, inputs.clone(), ["images"]);
        assert_eq!(summary, "1 images stylized after 1 paintings");
        let expected: Vec<u8> =
            Vec::try_from(fixture(&format!("adain/painted/{alpha:?}")).narrow(0, 0, 1).contiguous().view(-1)).unwrap();
        let found = ImageSet::from_bytes(&bytes).unwrap();
        assert!(found.pixels.iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) <= 1), "alpha {alpha}");
    }
}

#[test]
fn paintings_are_drawn_by_image_and_grey_sets_stay_grey() {
    let mut engine = Engine::ready();
    let (colour, grey) = (content(30, 3, 3), content(30, 1, 3));
    let paintings = engine.input("style", &content(5, 3, 1).to_bytes().unwrap());
    let mut stylize = |set: &ImageSet| {
        let data = engine.input("data", &set.to_bytes().unwrap());
        let inputs = with_networks(&engine, vec![data, paintings.clone()]);
        let ([bytes], _) = engine.run(StageKind::Transform, json!({"op": "stylize"}), inputs, ["images"]);
        ImageSet::from_bytes(&bytes).unwrap()
    };
    let all = stylize(&colour);
    assert_eq!(all, stylize(&colour));
    assert_eq!((all.shape, &all.labels, &all.texture), (colour.shape, &colour.labels, &None));
    assert_eq!(stylize(&grey).shape, grey.shape);
    // An image's painting does not depend on how many others there are.
    let mut some = colour.clone();
    some.labels.truncate(7);
    (some.shape[0], some.pixels) = (7, some.pixels[..7 * 576].to_vec());
    let close = |(a, b): (&u8, &u8)| a.abs_diff(*b) <= 1;
    assert!(stylize(&some).pixels.iter().zip(&all.pixels).all(close));
    // The same image looks different in each painting's style: five paintings, five pictures.
    let mut same = colour.clone();
    same.pixels = colour.pixels[..576].repeat(30);
    let pictures: std::collections::BTreeSet<Vec<u8>> = stylize(&same).pixels.chunks(576).map(<[u8]>::to_vec).collect();
    assert_eq!(pictures.len(), 5);
}

#[test]
fn cue_conflicts_wear_the_texture_of_another_class_and_say_which() {
    let mut engine = Engine::ready();
    let set = content(40, 3, 4);
    let data = engine.input("data", &set.to_bytes().unwrap());
    let inputs = with_networks(&engine, vec![data]);
    let mut conflict = || {
        let ([bytes], _) = engine.run(StageKind::Transform, json!({"op": "cue_conflict"}), inputs.clone(), ["images"]);
        ImageSet::from_bytes(&bytes).unwrap()
    };
    let found = conflict();
    assert_eq!(found, conflict());
    let texture = found.texture.as_ref().unwrap();
    assert_eq!(found.labels, set.labels);
    assert!(texture.iter().zip(&set.labels).all(|(texture, label)| texture != label), "{texture:?}");
    for class in 0..4 {
        let worn: std::collections::BTreeSet<_> =
            texture.iter().zip(&set.labels).filter(|(_, label)| **label == class).map(|(texture, _)| texture).collect();
        assert_eq!(worn.len(), 3, "class {class} wears every other texture: {worn:?}");
    }
    // Other transforms of such a set keep what it says; repainting it does not.
    let input = engine.input("data", &found.to_bytes().unwrap());
    let ([bytes], _) =
        engine.run(StageKind::Transform, json!({"op": "saturate", "level": 8}), vec![input.clone()], ["images"]);
    assert_eq!(ImageSet::from_bytes(&bytes).unwrap().texture, found.texture);
    let painting = engine.input("style", &content(2, 3, 1).to_bytes().unwrap());
    let inputs = with_networks(&engine, vec![input, painting]);
    let ([bytes], _) = engine.run(StageKind::Transform, json!({"op": "stylize"}), inputs, ["images"]);
    assert_eq!(ImageSet::from_bytes(&bytes).unwrap().texture, None);
}

#[test]
fn what_cannot_be_repainted_is_told() {
    let mut engine = Engine::ready();
    let data = |engine: &Engine, set: ImageSet| engine.input("data", &set.to_bytes().unwrap());
    let style = engine.input("style", &content(2, 3, 1).to_bytes().unwrap());
    let good = data(&engine, content(4, 3, 2));
    let networks = with_networks(&engine, Vec::new());
    let other = |network: &str, bytes: &[u8]| -> Vec<Input> {
        let replaced = |input: &Input| match input.slot == network {
            true => engine.input(network, bytes),
            false => input.clone(),
        };
        networks.iter().map(replaced).collect()
    };
    let without = weights_file("encoder", |name| (name != "16.bias").then(|| name.to_owned()));
    let swapped = weights_file("decoder", |name| match name {
        "1.weight" => Some("25.weight".to_owned()),
        "25.weight" => Some("1.weight".to_owned()),
        name => Some(name.to_owned()),
    });
    let (tiny, two) = (data(&engine, shapes(4, 3, 1)), data(&engine, content(4, 2, 2)));
    let cases = [
        (
            good.clone(),
            other("encoder", &without),
            "`encoder` does not hold the weights that it should: it has no tensor `16.bias`: the file is no encoder of AdaIN",
        ),
        (
            good.clone(),
            other("decoder", &swapped),
            "`decoder` does not hold the weights that it should: its tensor `1.bias` has the shape [6], not [4]",
        ),
        (good.clone(), other("decoder", b"no weights"), "it is no file of weights"),
        (tiny, networks.clone(), "are 8 × 8; AdaIN needs at least 9 pixels a side"),
        (two, networks.clone(), "have 2 channels"),
        (good.clone(), Vec::new(), "expected one input as `encoder`, found 0"),
    ];
    for (data, networks, words) in cases {
        let inputs = [vec![data, style.clone()], networks].concat();
        let failure = engine.fail(StageKind::Transform, json!({"op": "stylize"}), inputs);
        assert_eq!(failure.code, FailureCode::Invalid, "{failure:?}");
        let text = [vec![failure.message], failure.causes].concat().join(": ");
        assert!(text.contains(words), "`{text}` should say `{words}`");
    }
    let alone = data(&engine, content(4, 3, 1));
    let failure = engine.fail(
        StageKind::Transform,
        json!({"op": "cue_conflict"}),
        [vec![alone], with_networks(&engine, Vec::new())].concat(),
    );
    assert!(failure.message.contains("all of one class"), "{failure:?}");
}

/// The networks that `pipelines/tiny/make_adain.py` writes down: near enough to the identity that pictures of a small
/// profile look like something.
#[test]
fn the_tiny_networks_give_back_what_they_see_and_take_on_a_styles_colours() {
    let mut engine = Engine::ready();
    let [encoder, decoder] = [
        &include_bytes!("../../pipelines/tiny/encoder.safetensors")[..],
        &include_bytes!("../../pipelines/tiny/decoder.safetensors")[..],
    ];
    // A bright spot on a dark slope, 48 × 40, and a style of two reds.
    let side = |count: i64| Tensor::arange(count, (Kind::Float, Device::Cpu)) / count as f64 - 0.5;
    let (y, x) = (side(48).view([48, 1]), side(40).view([1, 40]));
    let spot = ((y.square() + x.square()) * -12.0).exp() * 0.5 + (&y + &x) * 0.1 + 0.25;
    let set = set_of(&spot.view([1, 1, 48, 40]).expand([1, 3, 48, 40], false), vec![0], 1);
    let stripes = side(32).view([1, 1, 1, 32]).lt(0.0).to_kind(Kind::Float) * 0.3 + 0.5;
    let red = Tensor::from_slice(&[1.0f32, 0.2, 0.2]).view([1, 3, 1, 1]);
    let style = set_of(&(stripes * red).expand([1, 3, 32, 32], false), vec![0], 1);
    let mut stylize = |alpha: f64| {
        let inputs = [("data", set.to_bytes().unwrap()), ("style", style.to_bytes().unwrap())];
        let mut inputs: Vec<Input> = inputs.iter().map(|(slot, bytes)| engine.input(slot, bytes)).collect();
        inputs.extend([engine.input("encoder", encoder), engine.input("decoder", decoder)]);
        let ([bytes], _) =
            engine.run(StageKind::Transform, json!({"op": "stylize", "alpha": alpha}), inputs, ["images"]);
        ImageSet::from_bytes(&bytes).unwrap().pixels
    };
    let mean = |values: &[u8]| values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len() as f64;
    let plain = stylize(0.0);
    let difference: Vec<u8> = plain.iter().zip(&set.pixels).map(|(a, b)| a.abs_diff(*b)).collect();
    assert!(mean(&difference) < 8.0, "off by {} of 255", mean(&difference));
    let painted = stylize(1.0);
    let [red, green, blue] = [0, 1, 2].map(|plane| mean(&painted[plane * 1920..][..1920]));
    assert!((red - 165.0).abs() < 15.0 && green < 60.0 && blue < 60.0, "{red} {green} {blue}");
    // The spot is still there.
    assert!(painted[24 * 40 + 20].abs_diff(painted[40 + 1]) > 30);
}

//! Saliency maps: numbers against Captum and scipy, and the stage's pictures, maps and measures.

use std::collections::BTreeMap;

use atflow::protocol::{FailureCode, Input};
use atflow::stage_kinds::StageKind;
use atflow_worker::executors::saliency::{maps, numbers, similarity};
use atflow_worker::networks::Mode;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::parity;
use crate::support::{Engine, shapes, sized_shapes, training};
use crate::transforms::{assert_close, fixture};

/// What a method gives for each image of the fixtures, stacked.
fn each(method: impl Fn(&Tensor, &Tensor) -> Tensor) -> Tensor {
    let (images, labels) = (parity::fixture("images"), parity::fixture("labels"));
    let all: Vec<Tensor> =
        (0..images.size()[0]).map(|at| method(&images.narrow(0, at, 1), &labels.narrow(0, at, 1))).collect();
    Tensor::stack(&all, 0)
}

#[test]
fn maps_are_those_of_captum() {
    let network = parity::model().network.freeze().unwrap();
    let grad = each(|image, label| maps::gradient_sum(&*network, image, label, &image.zeros_like(), 0.0).unwrap());
    assert_close(&grad, "saliency/grad", 1e-5);
    let (image, label) = (parity::fixture("images").narrow(0, 0, 1), parity::fixture("labels").narrow(0, 0, 1));
    let smooth = maps::gradient_sum(&*network, &image, &label, &parity::fixture("noise"), 0.1).unwrap() / 5.0;
    assert_close(&smooth, "saliency/smoothgrad", 1e-5);
    let along: Vec<f64> = (0..8).map(|step| (f64::from(step) + 0.5) / 8.0).collect();
    let integrated = each(|image, label| {
        let mean = maps::path_gradient_sum(&*network, image, label, &along).unwrap() / 8.0;
        maps::attributions(&*network, image, &mean).unwrap()
    });
    assert_close(&integrated, "saliency/integrated_gradients", 1e-5);
    let cam = each(|image, label| maps::grad_cam(&*network, image, label).unwrap());
    assert_close(&cam, "saliency/grad_cam", 1e-5);
}

/// Sundararajan et al. 2017, proposition 1.
#[test]
fn integrated_gradients_sum_to_what_the_image_adds_to_black() {
    let model = parity::model();
    let network = model.network.freeze().unwrap();
    let log_p = |image: &Tensor, label: &Tensor| {
        let logits = model.network.forward(image, Mode::Eval).unwrap();
        logits.log_softmax(1, Kind::Float).gather(1, &label.view([1, 1]), false).detach().view(-1)
    };
    let added = each(|image, label| log_p(image, label) - log_p(&image.zeros_like(), label));
    let along: Vec<f64> = (0..500).map(|step| (f64::from(step) + 0.5) / 500.0).collect();
    let summed = each(|image, label| {
        let mean = maps::path_gradient_sum(&*network, image, label, &along).unwrap() / 500.0;
        maps::attributions(&*network, image, &mean).unwrap().sum(Kind::Float).view(-1)
    });
    assert!(added.abs().max().double_value(&[]) > 0.03, "{added}");
    assert!((&added - &summed).abs().max().double_value(&[]) < 2e-4, "{added} {summed}");
}

#[test]
fn measures_are_those_of_scipy() {
    let bytes: Vec<u8> = Vec::try_from(fixture("measures/picture").view(-1)).unwrap();
    let edges = numbers::sobel(&bytes, [9, 11]);
    assert_close(&Tensor::from_slice(&edges).view([9, 11]), "measures/edges", 1e-3);
    let map: Vec<f32> = Vec::try_from(fixture("measures/map").view(-1)).unwrap();
    let correlation = numbers::rank_correlation(&map, &edges).unwrap();
    assert_close(&Tensor::from_slice(&[correlation as f32]), "measures/rank_correlation", 1e-6);
}

/// `fixtures/make_similarity.py` made the numbers.
#[test]
fn similarities_are_those_of_scikit_image_and_scipy() {
    let file = SafeTensors::deserialize(include_bytes!("fixtures/similarity.safetensors")).unwrap();
    for name in ["near", "far", "one"] {
        let values = |key: &str| -> Vec<f32> {
            let view = file.tensor(&format!("{name}/{key}")).unwrap();
            view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
        };
        let shape = file.tensor(&format!("{name}/first")).unwrap().shape().to_vec();
        let (first, second) = (values("first"), values("second"));
        let ssim = similarity::ssim(&first, &second, [shape[0], shape[1]]).unwrap();
        let correlation = numbers::rank_correlation(&first, &second).unwrap();
        for (found, expected) in [(ssim, values("ssim")[0]), (correlation, values("rank_correlation")[0])] {
            assert!((found - f64::from(expected)).abs() < 1e-6, "{name}: {found} and {expected}");
        }
    }
}

#[test]
fn saliency_maps_of_several_models_are_numbers_and_a_picture() {
    let mut engine = Engine::ready();
    let bytes = shapes(30, 1, 1).to_bytes().unwrap();
    let mut models = Vec::new();
    for (label, epochs) in [("short", 1), ("long", 3)] {
        let data = engine.input("data", &bytes);
        let params = training(json!({"epochs": epochs}));
        let ([checkpoint, _], _) = engine.run(StageKind::Train, params, vec![data], ["checkpoint", "metrics"]);
        models.push(Input { label: label.to_owned(), ..engine.input("models", &checkpoint) });
    }
    let mut draw = |params: Value, models: &[Input]| {
        let inputs = [models, &[engine.input("set", &bytes)]].concat();
        let ([maps, grid, ..], _) =
            engine.run(StageKind::Saliency, params, inputs, ["maps", "grid", "numbers", "csv", "markdown"]);
        assert!(grid.starts_with(b"\x89PNG"));
        let file = SafeTensors::deserialize(&maps).unwrap();
        let view = file.tensor("maps").unwrap();
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        (view.shape().to_vec(), values.collect::<Vec<f32>>())
    };
    let smooth = |images: &[u32]| json!({"images": images, "method": {"name": "smoothgrad", "samples": 60}});
    let (shape, both) = draw(smooth(&[4, 7, 2]), &models);
    assert_eq!(shape, [2, 1, 3, 8, 8]);
    assert!(both.iter().all(|value| value.is_finite() && *value >= 0.0) && both.iter().any(|value| *value > 0.0));
    // A map depends on its model and image, not on what else is drawn.
    let (_, one) = draw(smooth(&[7]), &models[1..]);
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5 * a.abs().max(1e-3));
    assert!(close(&one, &both[4 * 64..5 * 64]) && !close(&one, &both[64..2 * 64]));
    let (_, plain) = draw(json!({"images": [7], "method": {"name": "grad"}}), &models[1..]);
    let still = json!({"images": [7], "method": {"name": "smoothgrad", "samples": 1, "spread": 0}});
    assert_eq!(plain, draw(still, &models[1..]).1);
    assert!(!close(&plain, &one), "noise changes a map");
}

/// Two models and two sets, the second a darker version of the first.
fn gallery(engine: &mut Engine) -> (Vec<Input>, Vec<Input>) {
    let plain = shapes(30, 1, 1);
    let mut dark = plain.clone();
    dark.pixels.iter_mut().for_each(|pixel| *pixel /= 2);
    let bytes = plain.to_bytes().unwrap();
    let mut models = Vec::new();
    for (label, epochs) in [("short", 1), ("long", 3)] {
        let data = engine.input("data", &bytes);
        let params = training(json!({"epochs": epochs}));
        let ([checkpoint, _], _) = engine.run(StageKind::Train, params, vec![data], ["checkpoint", "metrics"]);
        models.push(Input { label: label.to_owned(), ..engine.input("models", &checkpoint) });
    }
    let set = |label: &str, bytes: &[u8]| Input { label: label.to_owned(), ..engine.input("set", bytes) };
    let sets = vec![set("plain", &bytes), set("dark", &dark.to_bytes().unwrap())];
    (models, sets)
}

#[test]
fn several_sets_are_rows_of_one_picture_and_every_number_has_its_count() {
    let mut engine = Engine::ready();
    let (models, sets) = gallery(&mut engine);
    let mut draw = |params: Value, sets: &[Input]| {
        let inputs = [&models[..], sets].concat();
        engine.run(StageKind::Saliency, params, inputs, ["maps", "numbers", "csv", "markdown", "grid"])
    };
    for method in ["grad", "integrated_gradients", "grad_cam"] {
        let params = json!({"images": {"first": 12}, "show": 2, "method": {"name": method}});
        let ([maps, numbers, csv, markdown, grid], summary) = draw(params.clone(), &sets);
        assert_eq!(summary, "12 images of 2 sets, 2 models");
        let file = SafeTensors::deserialize(&maps).unwrap();
        assert_eq!(file.tensor("maps").unwrap().shape(), [2, 2, 2, 8, 8], "{method}");
        let metadata: Value = atflow::formats::read_metadata("maps", &maps).unwrap();
        assert_eq!(metadata["sets"], json!(["plain", "dark"]));
        let numbers: Value = serde_json::from_slice(&numbers).unwrap();
        assert_eq!(numbers["images"].as_array().unwrap().len(), 12);
        let csv = String::from_utf8(csv).unwrap();
        // For each set three measures of each model, and two distances: of each model from the others, and of the pair.
        let lines: Vec<&str> = csv.lines().skip(1).collect();
        assert_eq!(lines.len(), 2 * (2 * 3 + 2 * 3), "{csv}");
        let full = lines.iter().filter(|line| line.ends_with(",12")).count();
        // A map that is 0 everywhere has neither a Gini index nor a correlation; Grad-CAM gives such maps.
        assert!(full == lines.len() || (method == "grad_cam" && full >= 16), "{method}:\n{csv}");
        let markdown = String::from_utf8(markdown).unwrap();
        assert!(markdown.contains("n = 12 images") && markdown.contains("## dark"), "{markdown}");
        let picture = image_size(&grid);
        assert!(picture.1 > 4 * 112 && picture.0 > 3 * 112, "{picture:?}: four rows, three columns");
        // The maps of a set do not depend on the others.
        let ([alone, ..], _) = draw(params, &sets[1..]);
        let values = |maps: &[u8]| SafeTensors::deserialize(maps).unwrap().tensor("maps").unwrap().data().to_vec();
        let (both, alone) = (values(&maps), values(&alone));
        assert!(both[2 * 64 * 4..4 * 64 * 4] == alone[..2 * 64 * 4], "{method}");
    }
}

/// Width and height of a PNG.
fn image_size(png: &[u8]) -> (u32, u32) {
    let word = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    (word(16), word(20))
}

#[test]
fn images_are_listed_the_first_ones_or_drawn_by_their_own_seed() {
    let mut engine = Engine::ready();
    let (models, sets) = gallery(&mut engine);
    let mut indices = |images: Value, show: Value| {
        let mut params = json!({"images": images, "method": {"name": "grad"}});
        if !show.is_null() {
            params["show"] = show;
        }
        let inputs = vec![models[0].clone(), sets[0].clone()];
        let ([numbers, maps, ..], _) =
            engine.run(StageKind::Saliency, params, inputs, ["numbers", "maps", "csv", "grid", "markdown"]);
        let numbers: Value = serde_json::from_slice(&numbers).unwrap();
        let shown = SafeTensors::deserialize(&maps).unwrap().tensor("images").unwrap().shape()[0];
        (numbers["images"].clone(), shown)
    };
    assert_eq!(indices(json!([9, 3, 4, 5, 6, 7, 8, 0, 1]), Value::Null), (json!([9, 3, 4, 5, 6, 7, 8, 0, 1]), 9));
    assert_eq!(indices(json!({"first": 3}), Value::Null), (json!([0, 1, 2]), 3));
    assert_eq!(indices(json!({"first": 100}), json!(5)).1, 5);
    let (drawn, shown) = indices(json!({"count": 10, "seed": 4}), Value::Null);
    assert_eq!((drawn.as_array().unwrap().len(), shown), (10, 8));
    assert_eq!(indices(json!({"count": 10, "seed": 4}), Value::Null).0, drawn);
    assert_ne!(indices(json!({"count": 10, "seed": 5}), Value::Null).0, drawn);
    let ascending: Vec<u64> = serde_json::from_value(drawn).unwrap();
    assert!(ascending.is_sorted() && *ascending.last().unwrap() > 10, "{ascending:?}");
    for (images, words) in [
        (json!([]), "must name at least one image"),
        (json!({"first": 3, "count": 2}), "`{first: N}`, `{count: N, seed: S}`, or `{each_class: N}`"),
        (json!({"seed": 2}), "`{first: N}`, `{count: N, seed: S}`, or `{each_class: N}`"),
        (json!({"first": 0}), "at least one image"),
    ] {
        let inputs = vec![models[0].clone(), sets[0].clone()];
        let failure = engine.fail(StageKind::Saliency, json!({"images": images}), inputs);
        assert_eq!(failure.code, FailureCode::Invalid);
        assert!(failure.message.contains(words), "{failure:?}");
    }
    let larger = engine.input("set", &shapes(3, 3, 1).to_bytes().unwrap());
    let failure =
        engine.fail(StageKind::Saliency, json!({"images": [0]}), vec![models[0].clone(), sets[0].clone(), larger]);
    assert!(failure.message.contains("sets of one size"), "{failure:?}");
}

#[test]
fn a_vision_transformer_has_gradients_of_its_own_size_and_nothing_for_grad_cam() {
    let mut engine = Engine::ready();
    let bytes = shapes(30, 1, 1).to_bytes().unwrap();
    let data = engine.input("data", &bytes);
    let mut params = training(json!({"epochs": 1}));
    params["net"] = json!({"arch": "vit", "side": 8, "patch": 2, "dim": 12, "depth": 1});
    let ([checkpoint, _], _) = engine.run(StageKind::Train, params.clone(), vec![data], ["checkpoint", "metrics"]);
    let inputs = vec![engine.input("models", &checkpoint), engine.input("set", &bytes)];
    let saliency = |method: &str| json!({"images": [0, 1], "method": {"name": method}});
    let outputs = ["numbers", "maps", "csv", "grid", "markdown"];
    let ([_, maps, ..], _) = engine.run(StageKind::Saliency, saliency("grad"), inputs.clone(), outputs);
    assert_eq!(SafeTensors::deserialize(&maps).unwrap().tensor("maps").unwrap().shape()[3..], [8, 8]);
    let failure = engine.fail(StageKind::Saliency, saliency("grad_cam"), inputs);
    assert!(failure.message.contains("Grad-CAM weighs feature maps"), "{failure:?}");
    params["net"]["side"] = json!(16);
    let data = engine.input("data", &bytes);
    let failure = engine.fail(StageKind::Train, params, vec![data]);
    assert!(failure.message.contains("8 × 8 pixels, and the network takes 16 × 16"), "{failure:?}");
}

#[test]
fn stability_is_measured_where_it_is_asked_for() {
    let mut engine = Engine::ready();
    let (models, sets) = gallery(&mut engine);
    let mut numbers = |stability: Value, models: &[Input]| {
        let mut params = json!({"images": {"first": 4}, "method": {"name": "grad"}});
        if !stability.is_null() {
            params["stability"] = stability;
        }
        let outputs = ["csv", "markdown", "numbers", "maps", "grid"];
        let ([csv, markdown, ..], _) = engine.run(StageKind::Saliency, params, [models, &sets[..1]].concat(), outputs);
        (String::from_utf8(csv).unwrap(), String::from_utf8(markdown).unwrap())
    };
    let (without, text) = numbers(Value::Null, &models);
    assert!(!without.contains("stability") && !text.contains("instability"), "{without}{text}");
    let (with, text) = numbers(json!({"radius": 0.001, "draws": 3}), &models);
    assert!(with.starts_with(&without), "the other measures stay as they are:\n{without}{with}");
    assert!(text.contains("| input instability | output instability | label kept |"), "{text}");
    let value = |csv: &str, measure: &str, model: &str| -> f64 {
        let line = csv.lines().find(|line| line.starts_with(&format!("{measure},plain,{model},,")));
        line.unwrap_or_else(|| panic!("{measure} of {model} in\n{csv}")).split(',').nth(4).unwrap().parse().unwrap()
    };
    for model in ["short", "long"] {
        assert_eq!(value(&with, "label_kept", model), 1.0, "so near, no label changes");
        assert!(value(&with, "relative_input_stability", model) > 0.0, "{with}");
        assert!(value(&with, "relative_output_stability", model) > 0.0, "{with}");
    }
    // More draws have no smaller maximum, and a model's numbers do not depend on the others.
    let (more, _) = numbers(json!({"radius": 0.001, "draws": 9}), &models[1..]);
    let of = |csv: &str| value(csv, "relative_input_stability", "long");
    assert!(of(&more) >= of(&with), "{more}{with}");
    assert_eq!(numbers(json!({"radius": 0.001, "draws": 3}), &models[1..]).0.lines().last(), with.lines().last());
    for (asked, words) in [(json!({"draws": 0}), "at least 1"), (json!({"radius": 2}), "above 0 and at most 1")] {
        let params = json!({"images": [0], "stability": asked});
        let failure = engine.fail(StageKind::Saliency, params, vec![models[0].clone(), sets[0].clone()]);
        assert!(failure.message.contains(words), "{failure:?}");
    }
}

/// The F32 tensors of a checkpoint by name.
fn tensors(checkpoint: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let file = SafeTensors::deserialize(checkpoint).unwrap();
    file.iter().map(|(name, view)| (name.to_owned(), view.data().to_vec())).collect()
}

#[test]
fn upper_layers_are_random_again_and_lower_ones_stay() {
    let mut engine = Engine::ready();
    let bytes = shapes(60, 1, 1).to_bytes().unwrap();
    let data = engine.input("data", &bytes);
    let params = training(json!({"epochs": 3}));
    let ([trained, _], _) = engine.run(StageKind::Train, params, vec![data], ["checkpoint", "metrics"]);
    let model = engine.input("model", &trained);
    let randomise = |engine: &mut Engine, down_to: &str| {
        let params = json!({"down_to": down_to});
        engine.run(StageKind::Randomised, params, vec![model.clone()], ["checkpoint"])
    };
    let before = tensors(&trained);
    for (down_to, random) in [
        ("linear", &["linear"][..]),
        ("layer2", &["layer2", "linear"]),
        ("layer1.0.conv2", &["layer1.0.conv2", "layer1.0.bn2", "layer2", "linear"]),
        ("conv1", &["conv1", "bn1", "layer", "linear"]),
    ] {
        let ([made], summary) = randomise(&mut engine, down_to);
        assert!(summary.ends_with("parameters random"), "{summary}");
        for (name, values) in tensors(&made) {
            // Running statistics are no parameters: the authors' code initialises trainable variables alone.
            let should_change = random.iter().any(|layer| name.starts_with(layer)) && !name.contains("running");
            // An untrained shift is 0 as the trained one may be; weights differ for sure.
            let is_weight = name.ends_with("weight");
            assert!(values == before[&name] || should_change, "{down_to}: {name} stays");
            assert!(values != before[&name] || !should_change || !is_weight, "{down_to}: {name} changes");
        }
        assert_eq!(randomise(&mut engine, down_to).0[0], made, "one seed gives one network");
    }
    let first = randomise(&mut engine, "linear").0;
    engine.seed += 1;
    assert_ne!(randomise(&mut engine, "linear").0, first, "another seed gives another");
    let failure = engine.fail(StageKind::Randomised, json!({"down_to": "layer9"}), vec![model]);
    assert_eq!(failure.code, FailureCode::Invalid);
    let words = "`layer9`, and the network's layers are `conv1`, `bn1`, `layer1`, `layer2`, `linear`";
    assert!(failure.message.contains(words), "{failure:?}");
}

#[test]
fn similarity_is_measured_where_it_is_asked_for() {
    let mut engine = Engine::ready();
    let set = sized_shapes(24, 1, 12).to_bytes().unwrap();
    let data = engine.input("data", &set);
    let ([trained, _], _) =
        engine.run(StageKind::Train, training(json!({"epochs": 1})), vec![data], ["checkpoint", "metrics"]);
    let model =
        |label: &str, bytes: &[u8], engine: &Engine| Input { label: label.to_owned(), ..engine.input("models", bytes) };
    let ([random], _) = engine.run(
        StageKind::Randomised,
        json!({"down_to": "conv1"}),
        vec![engine.input("model", &trained)],
        ["checkpoint"],
    );
    let (a, b) = (model("trained", &trained, &engine), model("again", &trained, &engine));
    let models = [a, b, model("random", &random, &engine)];
    let set = engine.input("set", &set);
    let mut draw = |similarity: bool| {
        let params = json!({"images": {"first": 4}, "method": {"name": "grad"}, "similarity": similarity});
        let inputs = [&models[..], std::slice::from_ref(&set)].concat();
        let outputs = ["csv", "markdown", "numbers", "maps", "grid"];
        let ([csv, markdown, ..], _) = engine.run(StageKind::Saliency, params, inputs, outputs);
        (String::from_utf8(csv).unwrap(), String::from_utf8(markdown).unwrap())
    };
    let (without, text) = draw(false);
    assert!(!without.contains("ssim") && !text.contains("SSIM"), "{without}{text}");
    let (with, text) = draw(true);
    assert!(with.starts_with(&without), "the other measures stay as they are:\n{without}{with}");
    for measure in ["rank_correlation", "ssim"] {
        assert!(with.contains(&format!("{measure},,trained,again,1.000000,0.000000,4\n")), "{with}");
        let of_random = with.lines().find(|line| line.starts_with(&format!("{measure},,trained,random,"))).unwrap();
        let mean: f64 = of_random.split(',').nth(4).unwrap().parse().unwrap();
        assert!(mean < 0.99, "{of_random}");
    }
    assert!(text.contains("Similarity to the maps of trained:\n\n| model | rank correlation | SSIM |\n"), "{text}");
    assert!(text.contains("| again | 1.000 ± 0.000 | 1.000 ± 0.000 |\n| random |"), "{text}");
    let params = json!({"images": [0], "similarity": true});
    let failure = engine.fail(StageKind::Saliency, params, vec![models[0].clone(), set]);
    assert!(failure.message.contains("two models or more"), "{failure:?}");
}

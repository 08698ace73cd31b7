//! Conversations between an engine and the real binary.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use atflow::digest::Digest;
use atflow::formats::{self, Predictions};
use atflow::protocol::{Event, FailureCode, PROTOCOL_VERSION, Request};
use atflow::stage_kinds::StageKind;
use atflow_worker::checkpoint::Checkpoint;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::support::{Engine, shapes, training};

/// Cancelled and abandoned jobs end within this time.
const SOON: Duration = Duration::from_secs(2);

fn endless() -> Value {
    training(json!({"epochs": 1_000_000}))
}

#[test]
fn a_worker_serves_one_job_after_another_and_leaves_when_its_input_ends() {
    let mut engine = Engine::start("cpu");
    let Event::Hello { protocol, libtorch, device, device_name, .. } = engine.hear() else { panic!("no hello") };
    assert_eq!((protocol, device.as_str()), (PROTOCOL_VERSION, "cpu"));
    assert!(libtorch.starts_with("2.") && !device_name.is_empty(), "{libtorch} {device_name}");

    let data = engine.input("data", &shapes(60, 1, 1).to_bytes().unwrap());
    let id = engine.send(StageKind::Train, training(json!({})), vec![data.clone()], &["checkpoint", "metrics"]);
    let (outcome, heard) = engine.finish(id);
    assert!(outcome.unwrap().starts_with("epoch 4/4  loss "));
    let last = heard.iter().rev().find_map(|event| match event {
        Event::Progress { done, total, message, .. } => Some((*done, *total, message.clone())),
        _ => None,
    });
    let (done, total, message) = last.expect("progress was told");
    assert_eq!((done, total), (16, 16));
    assert!(message.starts_with("epoch 4/4  batch 4/4  loss ") && !message.contains("NaN"), "{message}");
    let logged = |event: &&Event| matches!(event, Event::Log { .. });
    assert_eq!(heard.iter().filter(logged).count(), 4, "a line for each epoch");

    let failure = engine.fail(StageKind::Train, training(json!({"epochs": 0})), vec![data]);
    assert_eq!((failure.code, failure.message.as_str()), (FailureCode::Invalid, "`epochs` must be at least 1"));

    let model = engine.input("model", &fs::read(engine.path(&format!("{id}-checkpoint"))).unwrap());
    let set = engine.input("set", &shapes(30, 1, 2).to_bytes().unwrap());
    let (_, summary) = engine.run(StageKind::Evaluate, json!({}), vec![model, set], ["predictions"]);
    assert!(summary.starts_with("accuracy ") && summary.ends_with(" (n = 30)"), "{summary}");
    assert_eq!(engine.leave().0, Some(0));
}

#[test]
fn a_cancelled_training_ends_at_once_and_the_worker_goes_on() {
    let mut engine = Engine::ready();
    let data = engine.input("data", &shapes(60, 1, 1).to_bytes().unwrap());
    let id = engine.send(StageKind::Train, endless(), vec![data.clone()], &["checkpoint", "metrics"]);
    while !matches!(engine.hear(), Event::Progress { done: 1.., .. }) {}
    let queued = engine.send(StageKind::Train, endless(), vec![data.clone()], &["checkpoint", "metrics"]);
    let start = Instant::now();
    for id in [queued, id] {
        engine.say(&serde_json::to_string(&Request::Cancel { id }).unwrap());
    }
    for id in [id, queued] {
        assert_eq!(engine.finish(id).0.unwrap_err().code, FailureCode::Cancelled);
    }
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    engine.run(StageKind::Transform, json!({"op": "saturate", "level": 4}), vec![data], ["images"]);
}

#[test]
fn a_worker_whose_engine_is_gone_leaves_at_once() {
    let mut engine = Engine::ready();
    let data = engine.input("data", &shapes(60, 1, 1).to_bytes().unwrap());
    engine.send(StageKind::Train, endless(), vec![data], &["checkpoint", "metrics"]);
    while !matches!(engine.hear(), Event::Progress { done: 1.., .. }) {}
    let (code, time) = engine.leave();
    assert_eq!(code, Some(0));
    assert!(time < SOON, "{time:?}");
}

#[test]
fn ctrl_c_is_left_to_the_engine() {
    let mut engine = Engine::ready();
    assert!(Command::new("kill").args(["-INT", &engine.pid().to_string()]).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(50));
    let data = engine.input("data", &shapes(6, 1, 1).to_bytes().unwrap());
    engine.run(StageKind::Transform, json!({"op": "saturate", "level": 4}), vec![data], ["images"]);
}

#[test]
fn each_failure_has_its_code_and_a_sentence() {
    let mut engine = Engine::ready();
    let data = engine.input("data", &shapes(30, 1, 1).to_bytes().unwrap());
    let [checkpoint, _] =
        engine.run(StageKind::Train, training(json!({"epochs": 1})), vec![data.clone()], ["checkpoint", "metrics"]).0;
    let set = engine.input("set", &shapes(9, 1, 2).to_bytes().unwrap());
    let model = engine.input("model", &checkpoint);

    let mut corrupt = engine.input("data", &shapes(30, 1, 5).to_bytes().unwrap());
    fs::write(&corrupt.path, b"rot").unwrap();
    let failure = engine.fail(StageKind::Train, training(json!({})), vec![corrupt.clone()]);
    assert_eq!(failure.code, FailureCode::CorruptInput { digest: corrupt.digest });
    corrupt.path = engine.path("nowhere");
    corrupt.digest = Digest::of(b"nothing");
    let gone = corrupt;
    let failure = engine.fail(StageKind::Train, training(json!({})), vec![gone.clone()]);
    assert_eq!(failure.code, FailureCode::CorruptInput { digest: gone.digest }, "it can be made again");

    let mut invalid = |kind, params, inputs: &[_], words: &str| {
        let failure = engine.fail(kind, params, inputs.to_vec());
        let text = [vec![failure.message.clone()], failure.causes.clone()].concat().join(": ");
        assert_eq!(failure.code, FailureCode::Invalid, "{text}");
        assert!(text.contains(words), "`{text}` should say `{words}`");
        failure
    };
    let train = std::slice::from_ref(&data);
    invalid(
        StageKind::Train,
        training(json!({"stop_at_accuracy": 0.9})),
        train,
        "`stop_at_accuracy` needs a `validation`",
    );
    invalid(StageKind::Train, training(json!({"speed": 9})), train, "unknown field `speed`");
    invalid(StageKind::Train, training(json!({"optimizer": {"lr": 0}})), train, "`optimizer.lr` must be above 0");
    invalid(StageKind::Train, training(json!({"adversary": {"attack": "fgsm", "eps": 8}})), train, "`adversary.eps`");
    let wide = json!({"net": {"arch": "resnet", "width": 5000, "blocks": [1, 1]}});
    invalid(StageKind::Train, training(wide), train, "`net.width` grows beyond 8192 channels");
    let normalised = json!({"net": {"arch": "resnet", "width": 4, "blocks": [1], "mean": [0.5, 0.5]}});
    invalid(StageKind::Train, training(normalised), train, "`net.mean` has 2 numbers, but the images have 1 channels");
    invalid(StageKind::Train, training(json!({})), &[], "expected one input as `data`, found 0");
    invalid(StageKind::Transform, json!({"op": "patch_shuffle", "k": 3}), train, "8 × 8");
    invalid(StageKind::Table, json!({}), &[], "`table`");
    invalid(StageKind::Evaluate, json!({}), &[model.clone(), model.clone()], "one input as `model`, found 2");
    let saliency = [atflow::protocol::Input { slot: "models".into(), ..model.clone() }, set.clone()];
    invalid(StageKind::Saliency, json!({"images": [9]}), &saliency, "names image 9, but the set has 9 images");
}

/// A checkpoint's file after a change to its tensors.
fn changed<'a>(
    file: &SafeTensors<'a>,
    metadata: &Value,
    change: impl FnOnce(&mut Vec<(String, TensorView<'a>)>),
) -> Vec<u8> {
    let mut tensors = file.iter().map(|(name, view)| (name.to_owned(), view)).collect();
    change(&mut tensors);
    formats::write(tensors, metadata).unwrap()
}

#[test]
fn inputs_that_do_not_fit_are_told_apart() {
    let mut engine = Engine::ready();
    let data = engine.input("data", &shapes(30, 1, 1).to_bytes().unwrap());
    let [checkpoint, _] =
        engine.run(StageKind::Train, training(json!({"epochs": 1})), vec![data.clone()], ["checkpoint", "metrics"]).0;
    let set = engine.input("set", &shapes(9, 1, 2).to_bytes().unwrap());
    let colour = engine.input("set", &shapes(9, 3, 2).to_bytes().unwrap());
    let mut renamed = shapes(9, 1, 2);
    renamed.classes[1] = "bottom".to_owned();
    let renamed = engine.input("set", &renamed.to_bytes().unwrap());

    // The checkpoint with a tensor more, a tensor less, one of another shape.
    let file = SafeTensors::deserialize(&checkpoint).unwrap();
    let metadata: Value = formats::read_metadata("checkpoint", &checkpoint).unwrap();
    let bias = file.tensor("linear.bias").unwrap();
    let more = changed(&file, &metadata, |tensors| tensors.push(("layer9.weight".to_owned(), bias.clone())));
    let less = changed(&file, &metadata, |tensors| tensors.retain(|(name, _)| name != "bn1.running_var"));
    let other = changed(&file, &metadata, |tensors| {
        tensors.iter_mut().filter(|(name, _)| name == "bn1.bias").for_each(|t| t.1 = bias.clone())
    });
    let again = Checkpoint::from_bytes(&checkpoint, tch::Device::Cpu).unwrap().to_bytes().unwrap();
    assert!(again == checkpoint, "the same weights have one encoding");

    let cases = [
        (&checkpoint, &colour, "the model takes images of 1 channels, the set has 3"),
        (&checkpoint, &renamed, "class 1 is `top` and `bottom`"),
        (&more, &set, "unknown: layer9.weight"),
        (&less, &set, "missing: bn1.running_var"),
        (&other, &set, "`bn1.bias` is F32 [3], not F32 [4]"),
        (&shapes(3, 1, 1).to_bytes().unwrap(), &set, "checkpoint"),
    ];
    for (model, set, words) in cases {
        let model = engine.input("model", model);
        let failure = engine.fail(StageKind::Evaluate, json!({}), vec![model, set.clone()]);
        let text = [vec![failure.message], failure.causes].concat().join(": ");
        assert_eq!(failure.code, FailureCode::Invalid, "{text}");
        assert!(text.contains(words), "`{text}` should say `{words}`");
    }
    let validation = atflow::protocol::Input { slot: "validation".into(), ..colour };
    let failure = engine.fail(StageKind::Train, training(json!({})), vec![data, validation]);
    assert_eq!(failure.code, FailureCode::Invalid);
}

#[test]
fn a_training_that_diverges_says_what_to_try() {
    let mut engine = Engine::ready();
    let data = engine.input("data", &shapes(60, 1, 1).to_bytes().unwrap());
    let params = training(json!({"optimizer": {"lr": 1e30}, "schedule": {"shape": "constant"}}));
    let failure = engine.fail(StageKind::Train, params, vec![data]);
    assert_eq!(failure.code, FailureCode::Broken);
    assert!(failure.message.contains("diverged") && failure.message.contains("`optimizer.lr`"), "{failure:?}");
}

#[test]
fn requests_that_cannot_be_read_are_answered_where_their_job_is_known() {
    let mut engine = Engine::ready();
    engine.say(r#"{"request": "run", "id": 77, "kind": "dance"}"#);
    let (outcome, _) = engine.finish(77);
    assert_eq!(outcome.unwrap_err().code, FailureCode::Broken);
    engine.say("hello?");
    let (code, _) = engine.leave();
    assert_eq!(code, Some(1));
}

#[test]
fn cuda_that_is_not_there_is_told_with_its_reason() {
    let libtorch = atflow_worker::system::libtorch_folder().unwrap();
    if libtorch.join("libtorch_cuda.so").exists() {
        return; // This libtorch has CUDA; whether it can be used depends on the machine.
    }
    let engine = Engine::start("cuda:0");
    let Event::Unusable { message } = engine.hear() else { panic!("CUDA without CUDA") };
    assert!(message.contains("cuda:0") && message.contains("for the CPU only"), "{message}");
    assert_eq!(engine.leave().0, Some(2));
}

/// A libtorch whose CUDA half is a file that no linker takes.
fn libtorch_with_broken_cuda() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for library in fs::read_dir(atflow_worker::system::libtorch_folder().unwrap()).unwrap() {
        let library = library.unwrap();
        std::os::unix::fs::symlink(library.path(), folder.path().join(library.file_name())).unwrap();
    }
    let cuda = folder.path().join("libtorch_cuda.so");
    let _ = fs::remove_file(&cuda);
    fs::write(&cuda, "not a library").unwrap();
    folder
}

#[test]
fn a_cuda_library_that_cannot_be_loaded_is_not_passed_over_in_silence() {
    let libtorch = libtorch_with_broken_cuda();
    let variables = [("LD_LIBRARY_PATH", libtorch.path())];
    let engine = Engine::start_with("cuda:0", &variables);
    let Event::Unusable { message } = engine.hear() else { panic!("CUDA without CUDA") };
    assert!(message.contains("libtorch_cuda.so is there but cannot be loaded: "), "{message}");

    let mut engine = Engine::start_with("auto", &variables);
    assert!(matches!(engine.hear(), Event::Hello { device, .. } if device == "cpu"));
    let data = engine.input("data", &shapes(6, 1, 1).to_bytes().unwrap());
    let id = engine.send(StageKind::Transform, json!({"op": "saturate", "level": 4}), vec![data], &["images"]);
    let (outcome, heard) = engine.finish(id);
    assert!(outcome.is_ok());
    let Some(Event::Log { line, .. }) = heard.first() else { panic!("no warning in the log: {heard:?}") };
    assert!(line.starts_with("computing on the CPU: ") && line.contains("cannot be loaded"), "{line}");
}

#[test]
fn ranks_of_both_classes_are_kept_where_they_are_asked_for() {
    let mut engine = Engine::ready();
    let mut set = shapes(30, 1, 1);
    set.texture = Some(set.labels.iter().map(|label| (label + 1) % 3).collect());
    let plain = shapes(30, 1, 1).to_bytes().unwrap();
    let data = engine.input("data", &plain);
    let ([checkpoint, _], _) =
        engine.run(StageKind::Train, training(json!({"epochs": 1})), vec![data], ["checkpoint", "metrics"]);
    let mut evaluate = |set: &[u8], params: Value| {
        let inputs = vec![engine.input("model", &checkpoint), engine.input("set", set)];
        let ([bytes], _) = engine.run(StageKind::Evaluate, params, inputs, ["predictions"]);
        Predictions::from_bytes(&bytes).unwrap()
    };
    let conflict = set.to_bytes().unwrap();
    let without = evaluate(&conflict, json!({}));
    assert_eq!((&without.label_rank, &without.texture_rank), (&None, &None));
    for attack in [json!({"attack": "none"}), json!({"attack": "apgd", "eps": 0.1, "steps": 3})] {
        let with = evaluate(&conflict, json!({"attack": attack, "ranks": true, "batch_size": 7}));
        let (label, texture) = (with.label_rank.clone().unwrap(), with.texture_rank.clone().unwrap());
        for at in 0..with.len() {
            assert_eq!(label[at] == 1, with.correct(at), "{attack}: image {at}");
            assert_eq!(texture[at] == 1, with.predicted[at] == set.texture.as_ref().unwrap()[at]);
            assert!(label[at] != texture[at] && (1..=3).contains(&label[at]) && (1..=3).contains(&texture[at]));
        }
    }
    let of_plain = evaluate(&plain, json!({"ranks": true}));
    assert!(of_plain.label_rank.is_some() && of_plain.texture_rank.is_none());
}

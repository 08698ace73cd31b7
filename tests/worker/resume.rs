//! A training that is broken off and goes on ends with the same bytes as one that was left alone.

use std::fs;
use std::path::{Path, PathBuf};

use atflow::protocol::{Event, Input, Request};
use atflow::stage_kinds::StageKind;
use serde_json::{Value, json};

use crate::support::{Engine, pgd, shapes, training};

const OUTPUTS: [&str; 2] = ["checkpoint", "metrics"];

/// An adversarial training with everything that has a memory: momentum, running statistics, validation.
fn params(epochs: u32, schedule: Value) -> Value {
    training(json!({
        "epochs": epochs, "schedule": schedule, "adversary": pgd(8.0 / 255.0, 2, "random"),
        "augmentation": {"flip": true, "pad_crop": 1},
    }))
}

fn triangle() -> Value {
    json!({"shape": "triangle", "warmup": 0.25})
}

fn inputs(engine: &Engine) -> Vec<Input> {
    let mut validation = engine.input("validation", &shapes(30, 1, 2).to_bytes().unwrap());
    validation.slot = "validation".to_owned();
    vec![engine.input("data", &shapes(90, 1, 1).to_bytes().unwrap()), validation]
}

/// What comes out of a training that is left alone.
pub(crate) fn undisturbed(params: Value) -> [Vec<u8>; 2] {
    let mut engine = Engine::ready();
    let inputs = inputs(&engine);
    engine.run(StageKind::Train, params, inputs, OUTPUTS).0
}

fn state(folder: &Path) -> PathBuf {
    folder.join("training.safetensors")
}

/// Starts a training and breaks it off once so many epochs are kept.
fn break_off(engine: &mut Engine, params: &Value, after: usize, how: impl FnOnce(&mut Engine, u64)) {
    let inputs = inputs(engine);
    let id = engine.send(StageKind::Train, params.clone(), inputs, &OUTPUTS);
    let mut logged = 0;
    while logged < after {
        // The line comes just before the epoch is kept; the one after the next comes after that.
        logged += usize::from(matches!(engine.hear(), Event::Log { .. }));
    }
    how(engine, id);
}

fn log_of(events: &[Event]) -> String {
    let line = |event: &Event| match event {
        Event::Log { line, .. } | Event::Warning { message: line, .. } => Some(format!("{line}\n")),
        _ => None,
    };
    events.iter().filter_map(line).collect()
}

/// Goes on with a training in a new worker; gives what came out and its log.
fn go_on(engine: &mut Engine, params: Value) -> ([Vec<u8>; 2], String) {
    let inputs = inputs(engine);
    let id = engine.send(StageKind::Train, params, inputs, &OUTPUTS);
    let (outcome, heard) = engine.finish(id);
    outcome.unwrap();
    (OUTPUTS.map(|name| fs::read(engine.path(&format!("{id}-{name}"))).unwrap()), log_of(&heard))
}

/// What comes out of a training whose worker is killed after so many epochs, and which another worker ends.
pub(crate) fn broken_off(params: Value, after: usize) -> [Vec<u8>; 2] {
    let mut engine = Engine::ready();
    engine.partial = Some(engine.path("partial/own"));
    let folder = engine.partial.clone().unwrap();
    break_off(&mut engine, &params, after, |engine, _| engine.kill());
    let mut second = Engine::ready();
    second.partial = Some(folder);
    let (outputs, log) = go_on(&mut second, params);
    assert!(log.contains("\nresumed after epoch "), "{log}");
    outputs
}

#[test]
fn a_training_that_is_killed_or_cancelled_ends_with_the_same_bytes() {
    let params = params(6, triangle());
    let expected = undisturbed(params.clone());
    let mut engine = Engine::ready();
    engine.partial = Some(engine.path("partial/own"));
    let folder = engine.partial.clone().unwrap();
    break_off(&mut engine, &params, 2, |engine, id| {
        engine.say(&serde_json::to_string(&Request::Cancel { id }).unwrap());
        assert!(engine.finish(id).0.is_err());
    });
    assert!(state(&folder).exists(), "a cancelled training leaves its progress");
    // The same worker, killed further on.
    break_off(&mut engine, &params, 3, |engine, _| engine.kill());
    let mut second = Engine::ready();
    second.partial = Some(folder);
    let (outputs, log) = go_on(&mut second, params);
    assert!(log.starts_with("epoch 1/") && log.contains("\nresumed after epoch "), "{log}");
    assert!(outputs == expected, "the end is another one");
}

/// The time of a training is that of all the runs that it took.
#[test]
fn a_training_that_goes_on_knows_how_long_it_took_before() {
    let steps = json!({"shape": "steps", "drop_at": [3, 5]});
    let mut engine = Engine::ready();
    engine.continuation = Some(engine.path("onward"));
    let mut earlier = |epochs| {
        let inputs = inputs(&engine);
        let started = std::time::Instant::now();
        let id = engine.send(StageKind::Train, params(epochs, steps.clone()), inputs, &OUTPUTS);
        loop {
            match engine.hear() {
                Event::Finished { id: done, earlier_seconds, .. } if done == id => {
                    return (earlier_seconds, started.elapsed().as_secs_f64());
                }
                Event::Failed { failure, .. } => panic!("{failure:?}"),
                _ => {}
            }
        }
    };
    let (before, first) = earlier(2);
    assert_eq!(before, 0.0);
    let (before, second) = earlier(4);
    assert!(before > 0.0 && before < first, "{before} of {first}");
    let (sum, _) = earlier(6);
    assert!(sum > before && sum < first + second, "{sum} of {first} + {second}");
}

#[test]
fn a_longer_training_goes_on_where_the_shorter_one_ended() {
    let steps = json!({"shape": "steps", "drop_at": [3, 5]});
    let expected = undisturbed(params(6, steps.clone()));
    let mut engine = Engine::ready();
    engine.continuation = Some(engine.path("onward"));
    let shorter = params(3, steps.clone());
    assert!(go_on(&mut engine, shorter.clone()).0 == undisturbed(shorter.clone()));
    let (outputs, log) = go_on(&mut engine, params(6, steps.clone()));
    assert!(log.starts_with("epoch 1/6") && log.contains("\nresumed after epoch 3\nepoch 4/6"), "{log}");
    assert!(outputs == expected, "the end is another one");
    // A shorter one cannot use what is there, and leaves it there.
    let (outputs, log) = go_on(&mut engine, shorter.clone());
    assert!(!log.contains("resumed") && outputs == undisturbed(shorter), "{log}");
    let (outputs, log) = go_on(&mut engine, params(6, steps));
    assert!(log.ends_with("\nresumed after epoch 6\n") && outputs == expected, "{log}");
}

#[test]
fn a_training_that_stopped_early_stops_where_it_did_when_it_may_go_on_longer() {
    let easy = |epochs| {
        training(json!({"epochs": epochs, "schedule": {"shape": "constant"}, "stop_at_accuracy": 0.2, "limit": 60}))
    };
    let mut engine = Engine::ready();
    engine.continuation = Some(engine.path("onward"));
    let first = go_on(&mut engine, easy(10)).0;
    let (second, log) = go_on(&mut engine, easy(20));
    let (_, after) = log.split_once("resumed after epoch ").unwrap_or_else(|| panic!("{log}"));
    assert!(after.contains("is enough") && !after.contains("/20"), "{log}");
    assert!(first == second);
}

#[test]
fn progress_of_another_training_or_with_other_bytes_is_not_used() {
    let kept = params(6, triangle());
    let mut engine = Engine::ready();
    engine.partial = Some(engine.path("partial"));
    let file = state(&engine.path("partial"));
    break_off(&mut engine, &kept, 3, |engine, id| {
        engine.say(&serde_json::to_string(&Request::Cancel { id }).unwrap());
        assert!(engine.finish(id).0.is_err());
    });
    let good = fs::read(&file).unwrap();
    let other = params(5, triangle());
    let expected = undisturbed(other.clone());
    let (outputs, log) = go_on(&mut engine, other);
    assert!(log.contains("is of no use: it is of a training with another `params`"), "{log}");
    assert!(outputs == expected);

    let expected = undisturbed(kept.clone());
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let newer = String::from_utf8_lossy(&good[..good.len().min(400)]).contains("training/1");
    assert!(newer, "the format is told at the start");
    let mut versioned = good.clone();
    let at = versioned.windows(10).position(|window| window == b"training/1").unwrap();
    versioned[at + 9] = b'9';
    for (bytes, reason) in [
        (good[..good.len() / 2].to_vec(), "not a safetensors file"),
        (flipped, "its bytes are not those that were written"),
        (versioned, "its format is `training/9`"),
    ] {
        fs::write(&file, bytes).unwrap();
        let (outputs, log) = go_on(&mut engine, kept.clone());
        assert!(log.contains(reason) && !log.contains("resumed"), "{log}");
        assert!(outputs == expected, "{reason}");
    }
    fs::write(&file, good).unwrap();
    assert!(go_on(&mut engine, kept).1.contains("\nresumed after epoch "));
}

#[test]
fn progress_that_cannot_be_kept_does_not_end_a_training() {
    let mut engine = Engine::ready();
    fs::write(engine.path("a-file"), "").unwrap();
    engine.partial = Some(engine.path("a-file"));
    let inputs = inputs(&engine);
    let id = engine.send(StageKind::Train, params(3, triangle()), inputs, &OUTPUTS);
    let (outcome, heard) = engine.finish(id);
    outcome.unwrap();
    let log = log_of(&heard);
    assert!(log.contains("the progress after epoch 2 could not be kept: "), "{log}");
    let warned: Vec<&Event> = heard.iter().filter(|event| matches!(event, Event::Warning { .. })).collect();
    let [Event::Warning { message, .. }] = &warned[..] else { panic!("one warning, not {warned:?}") };
    assert!(message.starts_with("the progress after epoch 1 could not be kept: "), "{message}");
    let outputs = OUTPUTS.map(|name| fs::read(engine.path(&format!("{id}-{name}"))).unwrap());
    assert!(outputs == undisturbed(params(3, triangle())));
}

#[test]
fn a_method_with_a_memory_of_its_own_goes_on_with_it() {
    let mut params = params(6, triangle());
    params["adversary"] = json!({"attack": "none"});
    params["method"] = json!({"name": "free", "replays": 2, "eps": 0.05});
    params["holdout"] = json!({"share": 0.2, "attack": pgd(0.1, 2, "zero")});
    let expected = undisturbed(params.clone());
    let mut engine = Engine::ready();
    engine.partial = Some(engine.path("partial"));
    break_off(&mut engine, &params, 3, |engine, _| engine.kill());
    let mut second = Engine::ready();
    second.partial = Some(engine.path("partial"));
    let (outputs, log) = go_on(&mut second, params);
    assert!(log.starts_with("epoch 1/") && log.contains("\nresumed after epoch "), "{log}");
    assert!(outputs == expected, "the end is another one");
}

//! What a plan costs before a first run: counted passes times the rates of this machine, which `doctor --bench`
//! measures. Rates here are fixed, so that prices can be computed by hand.

use std::os::unix::fs::PermissionsExt;

use atflow::cache::{Cache, FileRates, MachineRates, PassRate};
use atflow::numerics::Numerics;
use atflow::protocol::PROTOCOL_VERSION;
use atflow::stage_kinds::{Pass, Precision};
use serde_json::Value as Json;

use crate::depth;
use crate::support::{Ran, Space};

const PIPELINE: &str = r#"
params: {eps: 8/255, epochs: 3, steps: 20, limit: 50}
stages:
  digits:
    kind: dataset
    with:
      format: idx
      train: {images: {path: images}, labels: {path: labels}}
      test: {images: {path: images}, labels: {path: labels}}
      classes: [a, b, c, d, e, f, g, h, i, j]
  bright: {kind: transform, needs: {data: digits.test}, with: {op: saturate, level: 4}}
  model:
    kind: train
    matrix: {adversary: {pgd: 3}}
    needs: {data: digits.train}
    with:
      net: {arch: resnet, width: 16, blocks: [1]}
      epochs: "${epochs}"
      adversary: {attack: pgd, eps: "${eps}", step: 2/255, steps: "${adversary}"}
  tested:
    kind: evaluate
    matrix: {model: {each: model}}
    needs: {set: bright}
    with: {attack: {attack: pgd, eps: "${eps}", step: 2/255, steps: "${steps}"}, limit: "${limit}"}
  maps:
    kind: saliency
    needs: {models: model, set: digits.test}
    with: {images: [0, 1, 2, 3], method: {name: smoothgrad, samples: 10}}
  table:
    kind: table
    needs: {results: tested}
    with: {title: One, rows: model.adversary, columns: [{label: all, where: {stage: tested}}]}
"#;

/// Billions of multiply-adds of a pass forward over an image of 28 × 28: 28² · 9 · 16 of the first convolution, twice
/// 28² · 9 · 16² in the block, and 16 · 10.
const PASS: f64 = 0.003_725_728;

/// Images of the data set, for training and for testing.
const IMAGES: usize = 100;

fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    let header = [0, 0, 8, 3, 0, 0, 0, IMAGES as u8, 0, 0, 0, 28, 0, 0, 0, 28];
    space.write("images", [&header[..], &vec![7; IMAGES * 28 * 28]].concat());
    space.write("labels", [&[0, 0, 8, 1, 0, 0, 0, IMAGES as u8][..], &[3; IMAGES]].concat());
    space
}

/// Rates of this machine: a pass forward takes 1 s for each 10⁹ multiply-adds, a gradient 2 s, an update 4 s, all of
/// them half of that in 16 bits. Files take no time.
fn rates() -> MachineRates {
    let mut passes = Vec::new();
    for (pass, seconds) in [(Pass::Forward, 1.0), (Pass::Gradient, 2.0), (Pass::Update, 4.0)] {
        for (precision, share) in [(Precision::Fp32, 1.0), (Precision::Bf16, 0.5)] {
            let images_per_second = 1.0 / (seconds * share);
            let (threads, network) = (1, "any".to_owned());
            let (multiply_adds, activations) = (1e9, 1e7);
            passes.push(PassRate { pass, precision, threads, network, multiply_adds, activations, images_per_second });
        }
    }
    MachineRates {
        processor: atflow::host::cpu_name(),
        device: "cpu".to_owned(),
        device_name: "a CPU".to_owned(),
        libtorch: "2.11.0".to_owned(),
        numerics: Numerics::Portable,
        measured: "2026-11-29T12:00:00Z".to_owned(),
        passes,
        files: FileRates { write: 1e15, sync: 1e-9, read: 1e15, hash: 1e15 },
    }
}

fn keep(space: &Space, rates: MachineRates) {
    Cache::open(&space.path().join("cache")).unwrap().keep_rates(rates).unwrap();
}

fn plan(space: &Space, args: &[&str]) -> Json {
    let ran = space.run(&[&["plan", "p.yaml", "--json"], args].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    serde_json::from_str(&ran.stdout).unwrap()
}

fn stage<'a>(plan: &'a Json, name: &str) -> &'a Json {
    plan["stages"].as_array().unwrap().iter().find(|stage| stage["name"] == name).unwrap()
}

/// The seconds of a stage, in passes forward.
fn passes(plan: &Json, name: &str) -> f64 {
    let seconds = stage(plan, name)["seconds"].as_f64().unwrap_or(f64::NAN);
    (seconds / PASS * 100.0).round() / 100.0
}

#[test]
fn before_a_first_run_a_price_comes_from_counted_passes() {
    let space = space();
    keep(&space, rates());
    let price = |args: &[&str]| {
        let plan = plan(&space, args);
        ["model/pgd", "tested/pgd", "maps"].map(|name| passes(&plan, name))
    };
    // Of each image in each epoch an update (4) and three steps of the adversary (2 each); of 50 images a verdict (1)
    // and 20 steps (2 each); of 4 images ten gradients (2 each).
    let model = 100.0 * 3.0 * (4.0 + 3.0 * 2.0);
    assert_eq!(price(&[]), [model, 50.0 * 41.0, 80.0]);
    assert_eq!(price(&["--set", "eps=1/255"]), [model, 50.0 * 41.0, 80.0], "ε costs nothing");
    assert_eq!(price(&["--set", "steps=40"]), [model, 50.0 * 81.0, 80.0]);
    assert_eq!(price(&["--set", "epochs=6"]), [2.0 * model, 50.0 * 41.0, 80.0]);
    assert_eq!(price(&["--set", "limit=1000"])[1], 100.0 * 41.0, "there are no more images");

    let plan = plan(&space, &["--jobs", "1"]);
    let (stages, price) = (plan["stages"].as_array().unwrap(), &plan["price"]);
    assert!(stages.iter().all(|stage| stage["counted"] == true && stage["estimated"] == true), "{plan}");
    assert_eq!((&price["counted"], &price["never_ran"]), (&6.into(), &0.into()));
    let work = price["work"].as_f64().unwrap() / PASS;
    assert!((work - (model + 50.0 * 41.0 + 80.0)).abs() < 0.1, "the other stages cost next to nothing: {work}");

    insta::assert_snapshot!(space.run(&["plan", "p.yaml", "--jobs", "1"]).stdout);
}

#[test]
fn a_search_in_16_bits_costs_what_was_measured_for_it() {
    let space = space();
    keep(&space, rates());
    let text = space.read("p.yaml").replace("limit: \"${limit}\"}", "limit: \"${limit}\", search: bf16}");
    space.write("p.yaml", text);
    assert_eq!(passes(&plan(&space, &[]), "tested/pgd"), 50.0 * (1.0 + 20.0), "the verdict is in 32 bits");
    let without = MachineRates {
        passes: rates().passes.into_iter().filter(|rate| rate.precision == Precision::Fp32).collect(),
        ..rates()
    };
    keep(&space, without);
    let plan = plan(&space, &[]);
    assert!(stage(&plan, "tested/pgd").get("seconds").is_none(), "nothing was measured in 16 bits");
    assert_eq!(plan["price"]["never_ran"], 1);
}

#[test]
fn what_has_no_price_makes_the_sum_a_least_one() {
    let space = space();
    let more = "  fetch: {kind: command, with: {run: 'echo 1 > ${out.n}', outputs: {n: n}}}\n";
    space.write("p.yaml", space.read("p.yaml") + more);
    let unpriced = plan(&space, &[]);
    assert_eq!((&unpriced["price"]["counted"], &unpriced["price"]["never_ran"]), (&0.into(), &7.into()));
    let words = |space: &Space| space.run(&["plan", "p.yaml", "--jobs", "1"]).stdout;
    assert!(words(&space).ends_with("`atflow doctor --bench` measures this machine, for prices before a first run\n"));
    // Those of another machine, and a file that is none, count as nothing.
    keep(&space, MachineRates { processor: "another".to_owned(), ..rates() });
    assert_eq!(plan(&space, &[]), unpriced);
    for file in space.cached_files("rates") {
        std::fs::write(file, "{}").unwrap();
    }
    assert_eq!(plan(&space, &[]), unpriced);

    keep(&space, rates());
    let words = words(&space);
    let sum = "at least about 19 s of work by counted passes and the rates of this machine; \
               the cost of 1 stage is unknown: it never ran like this\n";
    assert!(words.ends_with(sum), "{words}");
    assert!(!words.contains("--bench"), "{words}");
    let command = words.lines().find(|line| line.contains(" fetch ")).unwrap();
    assert!(command.ends_with("never run"), "it has no price: {words}");
}

#[test]
fn a_set_that_is_not_here_is_as_large_as_it_is_known_to_be() {
    let space = space();
    keep(&space, rates());
    let pipeline = r#"
stages:
  cifar:
    kind: dataset
    with: {format: cifar10, archive: {url: 'https://example.org/c.tar.gz', sha256: 'DIGEST'}, limit_per_class: 20}
  folder:
    kind: dataset
    with: {format: parquet, train: [{url: 'https://example.org/a', sha256: 'DIGEST'}], test: [{path: p.yaml}]}
  model:
    kind: train
    matrix: {data: {each: [cifar.train, folder.train]}}
    with: {net: {arch: resnet, width: 16, blocks: [1]}, epochs: 1}
"#;
    space.write("p.yaml", pipeline.replace("DIGEST", &"0".repeat(64)));
    let plan = plan(&space, &[]);
    // 32² · 27 · 16, twice 32² · 9 · 16², and 160.
    let each = (442_368.0 + 4_718_592.0 + 160.0) / 1e9;
    let seconds = stage(&plan, "model/cifar.train")["seconds"].as_f64().unwrap();
    assert!((seconds - 200.0 * 4.0 * each).abs() < 1e-6, "{seconds}");
    for unknown in ["model/folder.train", "cifar", "folder"] {
        assert!(stage(&plan, unknown).get("seconds").is_none(), "{unknown}");
    }
}

#[test]
fn a_run_is_worth_more_than_a_count() {
    let space = depth::space();
    keep(&space, rates());
    // Every stage of the worker takes 100 seconds and next to nothing.
    let worker = space.read("worker").replace("peak_memory=1)", "peak_memory=1, earlier_seconds=100)");
    space.write("worker", worker);
    let pipeline = space.read("p.yaml").replace(
        "    needs: {set: digits.test}\n",
        "    needs: {set: digits.test}\n    \
         with: {attack: {attack: pgd, eps: \"${eps}\", step: 2/255, steps: \"${steps}\"}, limit: \"${limit}\"}\n",
    );
    space.write("p.yaml", format!("params: {{eps: 8/255, steps: 20, limit: 2}}\n{pipeline}"));
    let tested = |plan: &Json| stage(plan, "tested/a").clone();
    let before = tested(&plan(&space, &[]));
    assert_eq!((&before["counted"], &before["estimated"]), (&true.into(), &true.into()), "{before}");
    let ran = space.command(&["run", "p.yaml"]).env("ATFLOW_WORKER", space.path().join("worker")).output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{}", Ran::of(ran).seen());

    let about = |set: &str| {
        let stage = tested(&plan(&space, &["--set", set]));
        assert_eq!(stage.get("counted"), None, "{stage}");
        stage["seconds"].as_f64().unwrap()
    };
    let known = about("eps=4/255");
    assert!((100.0..160.0).contains(&known), "ε costs nothing: {known}");
    // A verdict and 40 steps of two passes each, beside a verdict and 20.
    assert!((about("steps=40") / known - 81.0 / 41.0).abs() < 1e-9);
    assert!((about("steps=10") / known - 21.0 / 41.0).abs() < 1e-9);
    assert!((about("limit=1") / known - 0.5).abs() < 1e-9);
    // Beyond ten times the work no run is near, and passes are counted again.
    let far = tested(&plan(&space, &["--set", "steps=2000"]));
    assert_eq!(far["counted"], true, "{far}");
    let words = space.run(&["plan", "p.yaml", "--set", "steps=2000", "--jobs", "1"]).stdout;
    assert!(words.contains("of work by the durations of earlier runs and, for 2 stages, by counted passes"), "{words}");
}

const MEASURING: &str = r#"#!/usr/bin/env python3
import json, sys
def say(**event): print(json.dumps(event), flush=True)
if sys.argv[2] != "auto":
    say(event="unusable", message="no GPU here")
    sys.exit()
say(event="hello", protocol=PROTOCOL, version="0.1.0", libtorch="2.11.0", device="cpu", device_name="a CPU")
for line in sys.stdin:
    asked = json.loads(line)
    assert asked["request"] == "measure"
    # A pass forward takes 1 s for each image, a gradient 2, an update 4.
    seconds = {"forward": 1, "gradient": 2, "update": 4}[asked["pass"]] * asked["batch_size"]
    say(event="measured", id=asked["id"], images=asked["batch_size"], seconds=seconds)
"#;

#[test]
fn a_bench_measures_this_machine_once_for_all_plans() {
    let space = space();
    let worker = space.write("worker", MEASURING.replace("PROTOCOL", &PROTOCOL_VERSION.to_string()));
    std::fs::set_permissions(&worker, std::fs::Permissions::from_mode(0o755)).unwrap();
    let doctor = |args: &[&str]| {
        let args = [&["doctor"], args].concat();
        let ran = Ran::of(space.command(&args).env("ATFLOW_WORKER", &worker).output().unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.seen());
        ran.stdout
    };
    let checked: Json = serde_json::from_str(&doctor(&["--json"])).unwrap();
    assert!(checked.get("rates").is_none(), "it measures where it is asked to");
    assert_eq!(plan(&space, &[])["price"]["counted"], 0);

    let words = doctor(&["--bench"]);
    let (_, table) = words.split_once("a CPU, libtorch 2.11.0, portable\n").expect(&words);
    let row = |title: &str| {
        let line = table.lines().find(|line| line.starts_with(title)).unwrap_or_else(|| panic!("{title}: {table}"));
        line.split_whitespace().rev().take(2).map(str::to_owned).collect::<Vec<String>>()
    };
    assert_eq!(row("evaluation"), ["1.00", "1.00"]);
    assert_eq!(row("attack, each step, 16 bits"), ["0.500", "0.500"]);
    assert_eq!(row("training "), ["0.250", "0.250"]);
    assert!(table.contains("files: write "), "{table}");
    assert_eq!(space.cached_files("tmp").len(), 0, "it leaves nothing");

    // Every image takes as long, so the price of a stage hangs on its multiply-adds alone.
    let before = plan(&space, &[]);
    assert_eq!(before["price"]["counted"], 6);
    let json: Json = serde_json::from_str(&doctor(&["--bench", "--json"])).unwrap();
    let rates = &json["rates"];
    assert_eq!(
        (&rates["device"], &rates["libtorch"], &rates["numerics"]),
        (&"cpu".into(), &"2.11.0".into(), &"portable".into())
    );
    let first = &rates["passes"][0];
    assert_eq!((&first["pass"], &first["images_per_second"]), (&"forward".into(), &1.0.into()));
    let kept = space.cached_files("rates");
    assert_eq!(kept.len(), 1);
    let kept: Json = serde_json::from_slice(&std::fs::read(&kept[0]).unwrap()).unwrap();
    assert_eq!(kept["rates"], serde_json::json!([rates]), "measured again, they take the place of the old");
}

#[test]
fn a_worker_that_cannot_measure_leaves_no_rates() {
    let space = space();
    let answer = r#"say(event="failed", id=asked["id"], failure={"code": "broken", "message": "out of memory"})"#;
    let script = MEASURING.replace("PROTOCOL", &PROTOCOL_VERSION.to_string());
    let (start, _) = script.split_once("    # A pass").unwrap();
    let worker = space.write("worker", format!("{start}    {answer}\n"));
    std::fs::set_permissions(&worker, std::fs::Permissions::from_mode(0o755)).unwrap();
    let bench = || Ran::of(space.command(&["doctor", "--bench"]).env("ATFLOW_WORKER", &worker).output().unwrap());
    let ran = bench();
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("could not measure evaluation in 32 bits: out of memory"), "{}", ran.seen());
    space.write("worker", format!("{start}    sys.exit()\n"));
    let ran = bench();
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("the worker ended while it measured evaluation in 32 bits"), "{}", ran.seen());
    assert_eq!(space.cached_files("rates").len(), 0);
}

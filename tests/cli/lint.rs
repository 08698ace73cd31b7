//! Warnings: what is most likely a mistake is told with its place, stops nothing, and can be allowed.

use crate::support::Space;

const PIPELINE: &str = r#"params: {eps: 8/255, steps: 5, left_over: 3}
stages:
  data: {kind: command, with: {run: "echo", outputs: {train: t, test: u}}}
  model:
    kind: train
    needs: {data: data.train, validation: data.test}
    with:
      net: {arch: resnet, width: 8, blocks: [1]}
      epochs: 2
      stop_at_accuracy: 0.9
      adversary: {attack: pgd, eps: "${eps}", step: 2/255, steps: "${steps}"}
  attacked:
    kind: evaluate
    needs: {model: model, set: data.test}
    with: {attack: {attack: pgd, eps: 4/255, step: 1/255, steps: "${steps}"}}
  in-l2:
    kind: evaluate
    needs: {model: model, set: data.test}
    with: {attack: {attack: pgd, norm: l2, eps: "${eps}", step: 1/255, steps: "${steps}"}}
"#;

#[test]
fn each_warning_has_a_place_and_advice() {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    let plan = space.run(&["plan", "p.yaml"]);
    assert_eq!(plan.code, Some(0), "{}", plan.seen());
    insta::assert_snapshot!(plan.stderr);
    let json: serde_json::Value = serde_json::from_str(&space.run(&["plan", "p.yaml", "--json"]).stdout).unwrap();
    let warnings = json["warnings"].as_array().unwrap();
    let told: Vec<String> = warnings.iter().map(|warning| format!("{} {}", warning["name"], warning["at"])).collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn a_file_or_a_stage_allows_what_it_means() {
    let space = Space::new();
    let stage = "  model:\n    kind: train\n";
    let allowed = PIPELINE.replace(stage, &format!("{stage}    allow: [eps-differs, norm-differs, test-selects]\n"));
    space.write("p.yaml", format!("allow: [unused-param]\n{allowed}"));
    assert_eq!(space.run(&["plan", "p.yaml"]).stderr, "");
    space.write("p.yaml", format!("allow: [unused-parm]\n{PIPELINE}"));
    insta::assert_snapshot!(space.run(&["plan", "p.yaml"]).seen());
}

#[test]
fn what_an_author_may_have_meant_is_not_told() {
    let space = Space::new();
    let quiet = |text: String| {
        space.write("p.yaml", text);
        let told = space.run(&["plan", "p.yaml"]).stderr;
        assert!(!told.contains("attacks within"), "{told}");
    };
    // Radii that the author lists, and a radius beside that of the training.
    let listed = "matrix: {radius: [2/255, 4/255]}\n    with: {attack: {attack: pgd, eps: \"${radius}\"";
    quiet(PIPELINE.replace("with: {attack: {attack: pgd, eps: 4/255", listed).replace("norm: l2", "norm: inf"));
    quiet(PIPELINE.replace("norm: l2", "norm: inf"));
    // Two parameters are two decisions.
    let two = PIPELINE.replace("{eps: 8/255", "{eps: 8/255, radius: 4/255").replace("eps: 4/255", "eps: \"${radius}\"");
    quiet(two.replace("norm: l2", "norm: inf").replace("eps: \"${eps}\", step: 1/255", "eps: 8/255, step: 1/255"));
}

const FOLDER: &str = r#"stages:
  photos: {kind: dataset, with: {format: image_folder, folder: photos, test_share: 0.5}}
  mixed: {kind: transform, needs: {data: photos.test}, with: {op: sample, count: 10}}
  model:
    kind: train
    needs: {data: photos.train}
    with: {net: {arch: resnet, width: 8, blocks: [1]}, epochs: 2, limit: 100}
  tested: {kind: evaluate, needs: {model: model, set: mixed}, with: {limit: 5}}
"#;

#[test]
fn the_first_images_of_a_folder_of_classes_are_told() {
    let space = Space::new();
    for class in ["ant", "bee"] {
        let image = image::GrayImage::new(4, 4);
        for index in 0..4 {
            let file = space.path().join(format!("photos/{class}/{index}.png"));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            image.save(file).unwrap();
        }
    }
    space.write("p.yaml", FOLDER);
    insta::assert_snapshot!(space.run(&["plan", "p.yaml"]).stderr);
    let lines = space.run(&["run", "p.yaml", "photos", "--json"]).stdout;
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((&first["event"], &first["name"]), (&"warning".into(), &"sorted-limit".into()), "{lines}");
    assert!(first["at"].as_str().unwrap().starts_with("p.yaml:7:"), "{first}");
    space.write("p.yaml", format!("allow: [sorted-limit]\n{FOLDER}"));
    assert_eq!(space.run(&["plan", "p.yaml"]).stderr, "");
}

#[test]
fn a_run_tells_warnings_once_and_the_pipelines_here_have_none() {
    let space = Space::new();
    space.write(
        "p.yaml",
        "params: {unused: 1}\nstages:\n  a: {kind: command, with: {run: 'echo > o', outputs: {o: o}}}\n",
    );
    let ran = space.run(&["run", "p.yaml"]);
    assert_eq!(ran.stderr.matches("nothing uses the parameter `unused`").count(), 1, "{}", ran.seen());
    assert!(!space.run(&["run", "p.yaml", "-q"]).stderr.contains("unused"));
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines");
    for name in ["quickstart", "fashion", "paper", "beyond"] {
        let plan = space.run(&["plan", &format!("{here}/{name}.yaml"), "--json"]);
        let json: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
        assert_eq!(json["warnings"].to_string(), "[]", "{name}");
    }
}

const SEEDED: &str = r#"params: {seed: 0}
seeds: 2
stages:
  photos: {kind: command, with: {run: "echo", outputs: {train: t, test: u}}}
  model:
    kind: train
    needs: {data: photos.train}
    with: {net: {arch: resnet, width: 8, blocks: [1]}, epochs: 2}
    seed: "${seed}"
  saturated: {kind: transform, needs: {data: photos.test}, seed: 3, with: {op: saturate, level: 64}}
  attacked:
    kind: evaluate
    needs: {model: model, set: saturated}
    matrix: {steps: [1, 5]}
    seed: "${seed}"
    with: {attack: {attack: pgd, eps: 8/255, step: 1/255, steps: "${steps}", start: zero}}
"#;

#[test]
fn a_seed_where_nothing_is_drawn_is_refused_once_a_stage() {
    let space = Space::new();
    space.write("p.yaml", SEEDED);
    let plan = space.run(&["plan", "p.yaml"]);
    assert_eq!(plan.code, Some(2), "{}", plan.seen());
    for told in ["`saturated` draws nothing", "`attacked` draws nothing", "p.yaml:10:", "p.yaml:15:", "remove `seed`"] {
        assert!(plan.stderr.contains(told), "{told}: {}", plan.stderr);
    }
    assert_eq!(plan.stderr.matches("draws nothing").count(), 2, "{}", plan.stderr);
    space.write("p.yaml", format!("allow: [idle-seed]\n{SEEDED}"));
    assert_eq!(space.run(&["plan", "p.yaml"]).stderr, "");
}

#[test]
fn a_seed_that_another_parameter_may_give_a_use_is_told() {
    let space = Space::new();
    let sometimes = SEEDED.replace("seed: 0}", "seed: 0, from: zero}").replace("start: zero", "start: \"${from}\"");
    space.write("p.yaml", sometimes.replace("seed: 3, ", ""));
    let plan = space.run(&["plan", "p.yaml"]);
    assert_eq!(plan.code, Some(0), "{}", plan.seen());
    assert!(plan.stderr.contains("`attacked` draws nothing at random with these parameters"), "{}", plan.stderr);
    let plan = space.run(&["plan", "p.yaml", "--set", "from=random"]);
    assert!(!plan.stderr.contains("draws nothing"), "{}", plan.seen());
}

#[test]
fn a_seed_that_one_instance_draws_by_is_not_told() {
    let space = Space::new();
    let drawn = SEEDED.replace("steps: [1, 5]", "from: [zero, random]").replace("start: zero", "start: \"${from}\"");
    let drawn = drawn
        .replace("\"${steps}\"", "5")
        .replace("seed: 3, with: {op: saturate, level: 64}", "seed: 3, with: {op: sample, count: 5}");
    space.write("p.yaml", drawn);
    let plan = space.run(&["plan", "p.yaml"]);
    assert_eq!((plan.code, plan.stderr.as_str()), (Some(0), ""), "{}", plan.seen());
}

#[test]
fn a_search_in_16_bits_that_is_emulated_is_told() {
    // A machine with a GPU computes it there.
    if std::path::Path::new("/proc/driver/nvidia/version").exists() {
        return;
    }
    let space = Space::new();
    let searching = SEEDED.replace("    seed: \"${seed}\"\n    with: {attack", "    with: {search: bf16, attack");
    let searching = searching.replace("seed: 3, ", "");
    space.write("p.yaml", &searching);
    let plan = space.run(&["plan", "p.yaml"]);
    assert_eq!(plan.stderr.matches("searches in 16 bits").count(), 1, "once a stage: {}", plan.seen());
    assert!(plan.stderr.contains("write `numerics: native`"), "{}", plan.stderr);
    space.write("p.yaml", format!("allow: [slow-search]\n{searching}"));
    assert_eq!(space.run(&["plan", "p.yaml"]).stderr, "");
    space.write("p.yaml", format!("numerics: native\n{searching}"));
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let has_them = cpus.contains(" avx512_bf16") || cpus.contains(" amx_bf16");
    let plan = space.run(&["plan", "p.yaml"]);
    assert_eq!(plan.stderr.contains("this processor has no instructions"), !has_them, "{}", plan.seen());
}

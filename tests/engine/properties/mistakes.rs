//! One mistake is told once: whichever key of a pipeline is misspelt, nothing is told that only follows from it. And
//! two mistakes are told together.

use atflow::spec::{Overrides, PipelineSpec, Problem, Problems, expand};
use serde_yaml::{Mapping, Value};

/// Kinds and options that the quickstart does without.
const MORE: &str = r#"
pipeline: more
params: {r: 4, deep: {rate: 1e-3}}
profiles: {small: {r: 2}}
defaults: {evaluate: {limit: 10}}
stages:
  data:
    kind: dataset
    with: {format: image_folder, train: {archive: {path: a.zip}}, test_share: 0.5, resize: 64, center_crop: 56, filter: lanczos}
  art: {kind: file, with: {source: {url: "https://example.org/a", sha256: "0000000000000000000000000000000000000000000000000000000000000000"}}}
  model:
    kind: train
    about: a network
    matrix: {seed: [0, 1], size: {small: 8, large: 16}}
    exclude: [{seed: 1, size: large}]
    include: [{seed: 2, size: small}]
    needs: {data: data, validation: data.test, weights: art}
    seed: "${seed}"
    threads: 2
    time_limit: 2 h
    with:
      net: {arch: resnet, width: "${size}", blocks: [1, 1]}
      epochs: 2
      optimizer: {lr: "${deep.rate}", momentum: 0.9}
      adversary: {attack: pgd, eps: 8/255, step: 2/255, steps: 3}
      stop_at_accuracy: 0.9
  low: {kind: transform, matrix: {cut: {two: 2, more: "${r}"}}, needs: {data: data}, with: {op: fourier, filter: low_pass, radius: "${cut}"}}
  painted: {kind: transform, needs: {data: data, encoder: art, decoder: art}, with: {op: cue_conflict, alpha: 0.5}}
  tested: {kind: evaluate, matrix: {model: {each: model}, set: {each: [low, painted, data.test]}}, with: {batch_size: 10}}
  masked: {kind: masking, needs: {model: model/0/small, set: data}, with: {eps: 2/255, limit: 5}}
  shown: {kind: saliency, needs: {models: [model/0/*], set: data}, with: {method: {name: grad}, images: {first: 2}}}
  table:
    kind: table
    needs: {results: tested}
    with:
      rows: model.size
      columns: [{label: low, where: {low.cut: two}, cell: accuracy}, {label: painted, where: {tested.set: painted}}]
      over: model.seed
  copy: {kind: command, needs: {t: table.csv}, with: {run: [cp, "${in.t}", "${out.n}"], env: {A: "${r}"}, outputs: {n: n.csv}}}
"#;

fn problems(text: &str) -> Vec<Problem> {
    match PipelineSpec::from_text("p.yaml", text, &Overrides::default()).and_then(|spec| expand(&spec)) {
        Ok(_) => Vec::new(),
        Err(Problems(problems)) => problems,
    }
}

/// The ways to all keys of a value.
fn keys(value: &Value, way: &mut Vec<usize>, out: &mut Vec<Vec<usize>>) {
    let children: Vec<&Value> = match value {
        Value::Mapping(map) => map.values().collect(),
        Value::Sequence(items) => items.iter().collect(),
        _ => return,
    };
    for (at, child) in children.into_iter().enumerate() {
        way.push(at);
        if value.is_mapping() {
            out.push(way.clone());
        }
        keys(child, way, out);
        way.pop();
    }
}

/// The same value with the key that a way leads to written otherwise, and that key.
fn misspelt(value: &Value, way: &[usize]) -> (Value, String) {
    let mut value = value.clone();
    let (last, before) = way.split_last().unwrap();
    let mut at = &mut value;
    for step in before {
        at = match at {
            Value::Mapping(map) => map.values_mut().nth(*step).unwrap(),
            Value::Sequence(items) => &mut items[*step],
            _ => unreachable!(),
        };
    }
    let map = at.as_mapping_mut().unwrap();
    let key = map.keys().nth(*last).unwrap().as_str().unwrap().to_owned();
    let wrong = |(position, (key, value)): (usize, (Value, Value))| {
        let doubled = |key: &str| Value::from(format!("{key}{}", key.chars().last().unwrap_or('x')));
        (if position == *last { doubled(key.as_str().unwrap()) } else { key }, value)
    };
    *map = std::mem::take(map).into_iter().enumerate().map(wrong).collect::<Mapping>();
    (value, key)
}

fn quickstart() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/quickstart.yaml");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn one_misspelt_key_is_one_mistake() {
    let (mut found, mut several) = (0, Vec::new());
    for text in [quickstart(), MORE.to_owned()] {
        assert!(problems(&text).is_empty(), "{:?}", problems(&text));
        let value: Value = serde_yaml::from_str(&text).unwrap();
        let mut ways = Vec::new();
        keys(&value, &mut Vec::new(), &mut ways);
        for way in ways {
            let (value, key) = misspelt(&value, &way);
            let text = serde_yaml::to_string(&value).unwrap();
            let problems = problems(&text);
            found += problems.len();
            // A name that its author chose is wrong where it is used, and that may be at several places.
            let of_name = |problem: &Problem| {
                ["`", "{", ".", "/"].iter().any(|before| problem.message.contains(&format!("{before}{key}")))
            };
            let told: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
            if problems.len() > 1 && !problems.iter().all(of_name) {
                several.push(format!("`{key}` misspelt: {told:#?}"));
            }
        }
    }
    assert!(several.is_empty(), "{}", several.join("\n"));
    assert!(found > 120, "{found}");
}

#[test]
fn two_misspelt_keys_of_two_stages_are_both_told() {
    let value: Value = serde_yaml::from_str(MORE).unwrap();
    let stages: Vec<String> =
        value["stages"].as_mapping().unwrap().keys().map(|key| key.as_str().unwrap().to_owned()).collect();
    let told = |wrong: &[&str]| {
        let mut value = value.clone();
        for stage in wrong {
            let with = value["stages"][*stage]["with"].as_mapping_mut().unwrap();
            with.insert("nonsense".into(), true.into());
        }
        let text = serde_yaml::to_string(&value).unwrap();
        let problems = problems(&text);
        let line = |problem: &Problem| problem.place.as_ref().unwrap().to_string();
        problems.iter().filter(|problem| problem.message.ends_with("`nonsense`")).map(line).collect::<Vec<_>>()
    };
    for first in &stages {
        for second in stages.iter().filter(|second| *second != first) {
            assert_eq!(told(&[first, second]).len(), 2, "{first} {second}");
        }
    }
    let all: Vec<&str> = stages.iter().map(String::as_str).collect();
    assert_eq!(told(&all).len(), all.len());
}

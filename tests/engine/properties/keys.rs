//! What a key depends on: all that reaches a stage, and nothing else.

use std::collections::{BTreeMap, HashMap};

use atflow::action::ActionKey;
use atflow::cache::Blob;
use atflow::digest::Digest;
use atflow::graph::{Graph, Outputs};
use atflow::spec::{InstanceId, Overrides, PipelineSpec, expand};
use proptest::prelude::*;

use crate::model::{pipeline, yaml};

/// The key of each instance if every stage made other bytes for every key.
fn keys(text: &str) -> BTreeMap<String, ActionKey> {
    let spec = PipelineSpec::from_text("p.yaml", text, &Overrides::default())
        .unwrap_or_else(|error| panic!("{text}\n{error:?}"));
    let graph = Graph::new(expand(&spec).unwrap_or_else(|error| panic!("{text}\n{error:?}")));
    let mut made: HashMap<InstanceId, Outputs> = HashMap::new();
    let mut keys = BTreeMap::new();
    for id in graph.ids() {
        let key = graph.record(id, |producer| &made[&producer], |_| String::new()).key();
        let instance = graph.instance(id);
        let blob = |name: &String| Blob { digest: Digest::of(format!("{key} {name}").as_bytes()), size: 1 };
        made.insert(id, instance.outputs.iter().map(|output| (output.name.clone(), blob(&output.name))).collect());
        keys.insert(instance.name.clone(), key);
    }
    keys
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn order_comments_and_white_space_change_no_key(
        pipeline in pipeline(),
        styles in prop::collection::vec(any::<u32>(), 1..8),
    ) {
        let (plain, styled) = (yaml(&pipeline, &[]), yaml(&pipeline, &styles));
        prop_assert_eq!(keys(&plain), keys(&styled), "{}\n{}", plain, styled);
    }

    #[test]
    fn a_change_reaches_what_hangs_on_it_and_nothing_else(pipeline in pipeline(), which in any::<prop::sample::Index>()) {
        let before = keys(&yaml(&pipeline, &[]));
        let changed = which.index(pipeline.len());
        let mut edited = pipeline.clone();
        edited[changed].constant += 10;
        let after = keys(&yaml(&edited, &[]));
        let mut reached = vec![false; pipeline.len()];
        for (at, stage) in pipeline.iter().enumerate() {
            reached[at] = at == changed || stage.needs.iter().any(|need| reached[*need]);
            prop_assert_eq!(before[&stage.name] != after[&stage.name], reached[at], "{}", stage.name);
        }
    }
}

/// A pipeline that uses every place in which a value can stand.
const EVERYTHING: &str = r#"
params: {eps: 8/255, unused: 1, word: a}
defaults:
  command: {env: {WORD: "${word}"}}
stages:
  one: {kind: command, matrix: {x: [1, 2], y: {p: 3, q: "${eps}"}}, exclude: [{x: 2, y: q}], include: [{x: 5, y: p}], with: {run: "echo ${x} ${y}", outputs: {n: n}}}
  two: {kind: command, matrix: {of: {each: one/*/p}}, needs: {of: "${of}"}, time_limit: 5 min, with: {run: "echo ${in.of}", outputs: {n: n}}}
  all: {kind: command, needs: {x: [one, two]}, threads: 2, with: {run: [cat, "${in.x}"], outputs: {n: n}}}
"#;

#[test]
fn what_does_not_reach_a_stage_is_no_part_of_its_key() {
    let before = keys(EVERYTHING);
    assert_eq!(
        before.keys().map(String::as_str).collect::<Vec<_>>(),
        ["all", "one/1/p", "one/1/q", "one/2/p", "one/5/p", "two/1-p", "two/2-p", "two/5-p"]
    );
    for (from, to) in [
        ("unused: 1", "unused: 2"),
        ("5 min", "6 min"),
        ("threads: 2", "threads: 3"),
        ("word", "other"),
        ("{p: 3, q", "{p: \"3\", q"),
        ("${eps}", "8/255"),
        ("env: {WORD: \"${word}\"}", "env: {WORD: a}"),
    ] {
        assert_eq!(keys(&EVERYTHING.replace(from, to)), before, "{from}");
    }
    for (from, to, reached) in [
        ("eps: 8/255", "eps: 4/255", vec!["all", "one/1/q"]),
        ("word: a", "word: b", before.keys().map(String::as_str).collect()),
        ("{p: 3, ", "{p: 4, ", vec!["all", "one/1/p", "one/2/p", "one/5/p", "two/1-p", "two/2-p", "two/5-p"]),
        ("echo ${in.of}", "cat ${in.of}", vec!["all", "two/1-p", "two/2-p", "two/5-p"]),
        ("[one, two]", "[two, one]", vec!["all"]),
    ] {
        let after = keys(&EVERYTHING.replace(from, to));
        let changed: Vec<&str> =
            before.iter().filter(|(name, key)| after[*name] != **key).map(|(name, _)| name.as_str()).collect();
        assert_eq!(changed, reached, "{from}");
    }
}

//! After any edit exactly the stages run that a naive model says: those whose command or input values were never seen
//! before.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use crate::model::{Computation, Pipeline, pipeline, simulate, yaml};

#[derive(Debug, Clone)]
enum Edit {
    Constant(prop::sample::Index, u32),
    Divisor(prop::sample::Index, u32),
    Need(prop::sample::Index, prop::sample::Index),
    Rename(prop::sample::Index),
    RemoveLast,
    Add(u32),
    /// Written otherwise, with the same sense.
    Restyle(Vec<u32>),
}

fn edit() -> impl Strategy<Value = Edit> {
    let which = any::<prop::sample::Index>;
    prop_oneof![
        (which(), 0_u32..6).prop_map(|(at, value)| Edit::Constant(at, value)),
        (which(), 1_u32..5).prop_map(|(at, value)| Edit::Divisor(at, value)),
        (which(), which()).prop_map(|(at, need)| Edit::Need(at, need)),
        which().prop_map(Edit::Rename),
        Just(Edit::RemoveLast),
        (0_u32..4).prop_map(Edit::Add),
        prop::collection::vec(any::<u32>(), 1..6).prop_map(Edit::Restyle),
    ]
}

fn apply(pipeline: &mut Pipeline, styles: &mut Vec<u32>, edit: &Edit) {
    let count = pipeline.len();
    match edit {
        Edit::Constant(at, value) => pipeline[at.index(count)].constant = *value,
        Edit::Divisor(at, value) => pipeline[at.index(count)].divisor = *value,
        Edit::Need(at, need) => {
            let at = at.index(count);
            if at > 0 {
                let need = need.index(at);
                let needs = &mut pipeline[at].needs;
                if !needs.remove(&need) {
                    needs.insert(need);
                }
            }
        }
        Edit::Rename(at) => pipeline[at.index(count)].name.push('x'),
        Edit::RemoveLast if count > 1 => drop(pipeline.pop()),
        Edit::RemoveLast => {}
        Edit::Add(constant) => {
            let mut stage = pipeline[count - 1].clone();
            (stage.name, stage.constant) = (format!("added{count}"), *constant);
            pipeline.push(stage);
        }
        Edit::Restyle(with) => styles.clone_from(with),
    }
}

/// Runs the pipeline and gives the names of the stages that ran.
fn run(folder: &Path, text: &str) -> BTreeSet<String> {
    std::fs::write(folder.join("p.yaml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_atflow"));
    command.args(["run", "p.yaml", "--json"]).current_dir(folder).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let event = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let ran = stdout.lines().map(event).filter(|event| event["event"] == "stage_finished" && event["status"] == "ran");
    ran.map(|event| event["stage"].as_str().unwrap().to_owned()).collect()
}

proptest! {
    // Each case starts the program several times.
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exactly_what_an_edit_reaches_runs(first in pipeline(), edits in prop::collection::vec(edit(), 1..5)) {
        let folder = tempfile::tempdir().unwrap();
        let mut seen: BTreeSet<Computation> = BTreeSet::new();
        let (mut pipeline, mut styles) = (first, Vec::new());
        for step in 0..=edits.len() {
            if step > 0 {
                apply(&mut pipeline, &mut styles, &edits[step - 1]);
            }
            let text = yaml(&pipeline, &styles);
            let ran = run(folder.path(), &text);
            let computed = simulate(&pipeline);
            // Two names of one computation run once, whichever of them comes first.
            let new: BTreeSet<&Computation> =
                computed.iter().map(|(computation, _)| computation).filter(|it| !seen.contains(*it)).collect();
            let did: Vec<&Computation> = pipeline
                .iter()
                .zip(&computed)
                .filter(|(stage, _)| ran.contains(&stage.name))
                .map(|(_, (computation, _))| computation)
                .collect();
            prop_assert_eq!(did.len(), ran.len());
            prop_assert_eq!(did.len(), new.len(), "ran {:?}\n{}", ran, text);
            prop_assert_eq!(did.into_iter().collect::<BTreeSet<_>>(), new, "ran {:?}\n{}", ran, text);
            seen.extend(computed.into_iter().map(|(computation, _)| computation));
        }
    }
}

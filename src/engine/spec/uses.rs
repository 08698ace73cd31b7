//! Which parameters of the pipeline the text of each stage refers to.

use std::collections::{BTreeMap, BTreeSet};

use serde_yaml::Value;

use super::pipeline::PipelineSpec;
use super::stage::{AxisValues, StageSpec};
use super::template::{Token, tokens};
use super::watch::is_part;

impl PipelineSpec {
    /// Returns the parameters that each stage refers to, directly or through other parameters; by stage, and by the
    /// names that [`PipelineSpec::parameters`] has. A stage without references has an empty entry.
    pub fn parameter_uses(&self) -> BTreeMap<String, BTreeSet<String>> {
        let all = self.parameters();
        let mut through = BTreeMap::new();
        for (name, value) in &self.params {
            let mut names = BTreeSet::new();
            references(value, &mut names);
            through.insert(name.as_str().unwrap_or_default().to_owned(), names);
        }
        let used = |stage: &StageSpec| {
            let mut open: Vec<String> = stage_references(stage).into_iter().collect();
            let mut seen = BTreeSet::new();
            let mut used = BTreeSet::new();
            while let Some(name) = open.pop() {
                if !seen.insert(name.clone()) {
                    continue;
                }
                used.extend(all.keys().filter(|parameter| is_part(parameter, &name)).cloned());
                let top = name.split('.').next().unwrap_or_default();
                open.extend(through.get(top).into_iter().flatten().filter(|name| !seen.contains(*name)).cloned());
            }
            used
        };
        self.stages.iter().map(|stage| (stage.name.clone(), used(stage))).collect()
    }
}

/// Returns the names that a stage refers to, without those of its axes.
fn stage_references(stage: &StageSpec) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let settings = [&stage.seed, &stage.threads, &stage.gpu, &stage.time_limit];
    let numerics = stage.numerics.iter().map(|(value, _)| value);
    let values = settings.into_iter().flatten().chain(numerics).chain([&stage.with]);
    let values = values.chain(stage.defaults.as_deref()).chain(&stage.include).chain(&stage.exclude);
    values.chain(stage.needs.iter().map(|(_, value)| value)).for_each(|value| references(value, &mut names));
    for axis in &stage.matrix {
        match &axis.values {
            AxisValues::Listed(listed) => listed.iter().for_each(|(_, value)| references(value, &mut names)),
            AxisValues::Substituted(value) | AxisValues::Each(value) => references(value, &mut names),
            AxisValues::Unknown => {}
        }
    }
    let is_axis = |name: &String| {
        let top = name.split('.').next().unwrap_or_default();
        stage.matrix.iter().any(|axis| axis.name == top)
    };
    names.retain(|name| !is_axis(name));
    names
}

fn references(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => names.extend(tokens(text).filter_map(|token| match token {
            Token::Reference { name, .. } => Some(name.to_owned()),
            Token::Text(_) | Token::Open(_) => None,
        })),
        Value::Sequence(items) => items.iter().for_each(|item| references(item, names)),
        Value::Mapping(map) => map.iter().for_each(|(key, value)| {
            references(key, names);
            references(value, names);
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Overrides;

    #[test]
    fn a_stage_uses_the_parameters_that_its_text_names() {
        let text = "params: {eps: 8/255, net: {width: 16, depth: 2}, unused: 1, n: 3}\n\
            stages:\n\
            \x20 a: {kind: command, matrix: {variant: {x: {e: \"${eps}\"}}}, with: {run: \"echo ${variant.e} ${net.width} > ${out.n}\", outputs: {n: n}}}\n\
            \x20 b: {kind: command, needs: {x: a}, with: {run: \"echo $${n} > ${out.n}\", outputs: {n: n}}}\n";
        let spec = PipelineSpec::from_text("p", text, &Overrides::default()).unwrap();
        let uses = spec.parameter_uses();
        let names = |stage: &str| uses[stage].iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(names("a"), ["eps", "net.width"]);
        assert_eq!(names("b"), [""; 0]);
    }
}

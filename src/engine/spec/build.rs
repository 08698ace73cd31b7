//! The instances of one stage: its matrix multiplied out, `${…}` replaced, parameters checked, needs resolved.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_yaml::{Mapping, Value};

use super::check::describe;
use super::command;
use super::defaults::{Origin, merge};
use super::expand::{Expander, MAX_PROBLEMS, Stop};
use super::grid;
use super::headings;
use super::instance::{Instance, OutputSpec, SourceNeed};
use super::matrix::{Matrix, Stand};
use super::params::{self, Params};
use super::problem::Problem;
use super::source::{Part, Place, Step, YamlPath};
use super::stage::{StageSpec, duration};
use super::substitute::Scope;
use super::transform;
use crate::kinds::Kind;

/// The coordinate that every instance has: the name of its stage.
const STAGE_COORDINATE: &str = "stage";

/// The parameters that were read last, and from what: most points of a matrix share them.
type LastParams = Option<(Value, Params)>;

impl Expander<'_> {
    /// The instances of a stage, once all that it refers to are there.
    pub(super) fn stage(&self, stage: &StageSpec) -> Result<Vec<Instance>, Stop> {
        let Matrix { axes, points } = self.matrix(stage)?;
        let mut instances = Vec::with_capacity(points.len());
        let mut problems = Vec::new();
        let mut missing = Vec::new();
        let mut last = None;
        for point in points {
            let stands: Vec<&Stand> = axes.iter().zip(&point).map(|(axis, at)| &axis[*at]).collect();
            match self.at(stage, &stands, &mut last) {
                Ok(instance) if missing.is_empty() => instances.push(instance),
                Ok(_) => {}
                Err(Stop::Problems(found)) => problems.extend(found),
                // All that is missing is asked for at once: a stage is expanded again only after it has come.
                Err(Stop::Missing(names)) => missing.extend(names),
            }
            if problems.len() > MAX_PROBLEMS {
                break;
            }
        }
        match (problems.is_empty(), missing.is_empty()) {
            (_, false) => Err(Stop::Missing(missing)),
            (true, true) => Ok(instances),
            (false, true) => Err(Stop::Problems(problems)),
        }
    }

    fn at(&self, stage: &StageSpec, stands: &[&Stand], last: &mut LastParams) -> Result<Instance, Stop> {
        let mut axes = Mapping::new();
        let mut name = stage.name.clone();
        let mut coordinates = BTreeMap::from([(STAGE_COORDINATE.to_owned(), stage.name.clone())]);
        for (axis, stand) in stage.matrix.iter().zip(stands) {
            axes.insert(axis.name.clone().into(), stand.value.clone());
            name.push('/');
            name.push_str(&stand.label);
            coordinates.insert(format!("{}.{}", stage.name, axis.name), stand.label.clone());
        }
        // Needs come first: where a stage is missing, the rest is done when it is there.
        let needs = self.needs(stage, stands, &axes)?;
        let reserved = if stage.kind == Kind::Command { command::RESERVED } else { &[] };
        let with_path = || stage.path.key("with");
        let own = self.substitute(stage, &stage.with, &axes, &with_path, reserved)?;
        let defaults = match &stage.defaults {
            None => None,
            Some(defaults) => {
                let path = YamlPath::of(&["defaults", stage.kind.name()]);
                Some((self.substitute(stage, defaults, &axes, &|| path.clone(), reserved)?, path))
            }
        };
        let with = match &defaults {
            None => Cow::Borrowed(own.as_ref()),
            Some((defaults, _)) => Cow::Owned(merge(stage.kind, defaults, &own)),
        };
        let origin = Origin {
            file: &stage.file,
            own: &own,
            path: &with_path,
            defaults: defaults.as_ref().map(|(defaults, path)| (defaults.as_ref(), path.clone())),
        };
        let params = match last {
            Some((from, params)) if *from == *with => params.clone(),
            _ => {
                let params = params::read(stage.kind, &with, &origin).map_err(Stop::Problems)?;
                if !stage.matrix.is_empty() {
                    *last = Some((with.clone().into_owned(), params.clone()));
                }
                params
            }
        };
        if !params.texts.is_empty() {
            let inputs = stage.needs.iter().map(|(need, _)| format!("in.{need}"));
            let axes = needs.iter().map(|need| format!("in.{}", need.slot));
            let files = params.sources.iter().map(|(slot, ..)| slot.replacen("file:", "file.", 1));
            let outputs = params.declared_outputs.keys().map(|output| format!("out.{output}"));
            let mut known: Vec<String> = inputs.chain(axes).chain(files).chain(outputs).collect();
            known.dedup();
            let problems = command::unknown_names(&params.texts, &known, &origin);
            if !problems.is_empty() {
                return Err(Stop::Problems(problems));
            }
        }
        let outputs = if stage.kind == Kind::Command {
            let result = |name: &String| OutputSpec { name: name.clone(), result: None };
            params.declared_outputs.keys().map(result).collect()
        } else {
            let result = |ending| format!("{}.{ending}", name.replace('/', "-"));
            let output = |output: &crate::kinds::Output| OutputSpec {
                name: output.name.into(),
                result: output.result.map(result),
            };
            stage.kind.outputs().iter().map(output).collect()
        };
        let source = |(slot, source, path)| SourceNeed { slot, source, path };
        let mut instance = Instance {
            stage: stage.name.clone(),
            kind: stage.kind,
            params: params.json,
            seed: self.whole_number(stage, "seed", stage.seed.as_ref(), &axes, 0)?,
            is_seeded: stage.seed.is_some(),
            threads: self.whole_number(stage, "threads", stage.threads.as_ref(), &axes, 1)?.clamp(1, 1024) as usize,
            time_limit: self.time_limit(stage, &axes)?,
            needs,
            sources: params.sources.into_iter().map(source).collect(),
            outputs,
            coordinates,
            axes,
            path: stage.path.clone(),
            file: stage.file.clone(),
            name,
        };
        self.inherit_coordinates(&mut instance);
        if matches!(stage.kind, Kind::Table | Kind::Figure) {
            grid::resolve(self, &mut instance).map_err(Stop::Problems)?;
        }
        if instance.params.get("stop_at_accuracy").is_some() && instance.need("validation").is_none() {
            let place = origin.place(&[Step::Key("stop_at_accuracy".to_owned())], Part::Value);
            let problem = Problem::at(place, "`stop_at_accuracy` needs images to measure it on", "needs `validation`");
            let help = "add `validation: STAGE.test` to the stage's needs";
            return Err(Stop::Problems(vec![problem.help(help)]));
        }
        if stage.kind == Kind::Saliency {
            headings::check_canonical(&instance).map_err(|problem| Stop::Problems(vec![problem]))?;
        }
        let problems = transform::check(&instance, &origin);
        if !problems.is_empty() {
            return Err(Stop::Problems(problems));
        }
        Ok(instance)
    }

    /// An instance stands where its inputs stand; where two of them differ, the coordinate says nothing of it.
    fn inherit_coordinates(&self, instance: &mut Instance) {
        let mut inherited: BTreeMap<&String, Option<&String>> = BTreeMap::new();
        for need in instance.needs.iter().filter(|need| need.label.is_empty()) {
            for (name, label) in &self.instance(need.from).coordinates {
                inherited
                    .entry(name)
                    .and_modify(|known| *known = known.filter(|known| *known == label))
                    .or_insert(Some(label));
            }
        }
        for (name, label) in inherited {
            if let Some(label) = label {
                instance.coordinates.entry(name.clone()).or_insert_with(|| label.clone());
            }
        }
    }

    fn whole_number(
        &self,
        stage: &StageSpec,
        key: &str,
        value: Option<&Value>,
        axes: &Mapping,
        default: u64,
    ) -> Result<u64, Stop> {
        let Some(value) = value else { return Ok(default) };
        let path = || stage.path.key(key);
        let value = self.substitute(stage, value, axes, &path, &[])?;
        value.as_u64().ok_or_else(|| {
            let message = format!("`{key}` must be a whole number, 0 or more; this is {}", describe(&value));
            Stop::Problems(vec![Problem::at(Place::value(&stage.file, path()), message, "expected a whole number")])
        })
    }

    fn time_limit(&self, stage: &StageSpec, axes: &Mapping) -> Result<Option<std::time::Duration>, Stop> {
        let Some(value) = &stage.time_limit else { return Ok(None) };
        let path = || stage.path.key("time_limit");
        let value = self.substitute(stage, value, axes, &path, &[])?;
        if value.is_null() {
            return Ok(None);
        }
        value.as_str().and_then(duration).map(Some).ok_or_else(|| {
            let message = format!("`time_limit` must be a number above 0 and its unit; this is {}", describe(&value));
            let problem = Problem::at(Place::value(&stage.file, path()), message, "expected a time");
            Stop::Problems(vec![problem.help("write it as `90 s`, `10 min`, `2 h` or `1 d`")])
        })
    }

    /// A value with every `${…}` in it replaced; `path` leads to the value.
    pub(super) fn substitute<'v>(
        &self,
        stage: &StageSpec,
        value: &'v Value,
        axes: &Mapping,
        path: &dyn Fn() -> YamlPath,
        reserved: &[&str],
    ) -> Result<Cow<'v, Value>, Stop> {
        let scope = Scope { axes, params: &self.spec.params, reserved };
        scope.apply(value).map_err(|(trail, error)| {
            let mut path = path();
            path.0.extend(trail);
            let mut problem = Problem::at(Place::value(&stage.file, path), error.message, "here");
            problem.help = error.help;
            Stop::Problems(vec![problem])
        })
    }
}

//! Builds the instances of one stage: expands its matrix, substitutes `${…}`, checks parameters and resolves needs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_yaml::{Mapping, Value};

use super::command;
use super::coordinates::Coordinates;
use super::defaults::merge;
use super::describe::describe;
use super::diagnostics::Diagnostics;
use super::expand::Expander;
use super::fits;
use super::grid;
use super::headings;
use super::instance::{ExternalInput, Instance, OutputSpec};
use super::matrix::{Matrix, Stand};
use super::origin::Origin;
use super::params::{self, Params};
use super::poison::{has_unknown, is_unknown};
use super::problem::Problem;
use super::schema_check::beyond_whole_numbers;
use super::source::{Part, Place, YamlPath};
use super::stage::{StageSpec, duration};
use super::substitute::{Failure, Scope};
use super::transform;
use super::validate;
use crate::number::Real;
use crate::numerics::Numerics;
use crate::stage_kinds::StageKind;

/// Upper limit of `threads`; no machine has more.
const MOST_THREADS: u64 = 1024;

/// Coordinate that every instance has: the name of its stage.
const STAGE_COORDINATE: &str = "stage";

/// The parameters read last and the value they were read from; most points of a matrix share them.
type LastParams = Option<(Value, Option<Params>)>;

/// Data shared by all instances of a stage.
struct Shared {
    path: Arc<YamlPath>,
    /// The names of the stage's axes.
    axes: Arc<[String]>,
    /// The names of the axes' coordinates.
    coordinates: Vec<Arc<str>>,
    /// The stage coordinate and its label.
    stage: (Arc<str>, Arc<str>),
}

impl Shared {
    fn of(stage: &StageSpec) -> Self {
        Shared {
            path: Arc::new(stage.path.clone()),
            axes: stage.matrix.iter().map(|axis| axis.name.clone()).collect(),
            coordinates: stage.matrix.iter().map(|axis| format!("{}.{}", stage.name, axis.name).into()).collect(),
            stage: (STAGE_COORDINATE.into(), stage.name.as_str().into()),
        }
    }
}

impl Expander<'_> {
    /// Returns the instances of a stage, or `None` if a dependency is not expanded yet or the matrix is unknown.
    ///
    /// Problems go to `notes`. Invalid instances are still returned, as far as they are known, so dependents can be
    /// checked.
    pub(super) fn stage(&self, stage: &StageSpec, notes: &mut Diagnostics) -> Option<Vec<Instance>> {
        let Matrix { axes, points, is_known } = self.matrix(stage, notes);
        if !notes.missing.is_empty() {
            return None;
        }
        // Collect all missing dependencies at once: the stage is expanded again only after they arrive.
        let mut instances = Vec::with_capacity(points.len());
        let mut last = None;
        let shared = Shared::of(stage);
        for point in points {
            let stands: Vec<&Stand> = axes.iter().zip(&point).map(|(axis, at)| &axis[*at]).collect();
            instances.push(self.at(stage, &shared, &stands, &mut last, notes));
            // Further points of a large matrix would repeat the same problems.
            if notes.is_full() {
                break;
            }
        }
        is_known.then_some(instances)
    }

    fn at(
        &self,
        stage: &StageSpec,
        shared: &Shared,
        stands: &[&Stand],
        last: &mut LastParams,
        notes: &mut Diagnostics,
    ) -> Instance {
        let mut axes = Mapping::new();
        let mut name = stage.name.clone();
        let mut coordinates = Coordinates::default();
        let (coordinate, stage_name) = shared.stage.clone();
        coordinates.add(coordinate, stage_name);
        for ((axis, coordinate), stand) in stage.matrix.iter().zip(&shared.coordinates).zip(stands) {
            axes.insert(axis.name.clone().into(), (*stand.value).clone());
            name.push('/');
            name.push_str(&stand.label);
            coordinates.add(coordinate.clone(), stand.label.clone());
        }
        let needs = self.needs(stage, stands, &axes, notes);
        let reserved = if stage.names_own_needs() { command::RESERVED } else { &[] };
        let with_path = || stage.path.key("with");
        let own = self.substitute(stage, &stage.with, &axes, &with_path, reserved, notes);
        let defaults = stage.kind.zip(stage.defaults.as_deref()).map(|(kind, defaults)| {
            let path = YamlPath::of(&["defaults", kind.name()]);
            (self.substitute(stage, defaults, &axes, &|| path.clone(), reserved, notes), path)
        });
        let with = match (&defaults, stage.kind) {
            (Some((defaults, _)), Some(kind)) => Cow::Owned(merge(kind, defaults, &own)),
            _ => Cow::Borrowed(own.as_ref()),
        };
        let origin = Origin {
            file: &stage.file,
            own: &own,
            path: &with_path,
            defaults: defaults.as_ref().map(|(defaults, path)| (defaults.as_ref(), path.clone())),
            lost: &stage.lost,
        };
        let params = match (last.as_ref(), stage.kind) {
            (_, None) => None,
            (Some((from, params)), _) if *from == *with => params.clone(),
            (_, Some(kind)) => {
                let params = params::read(kind, &with, &origin, notes);
                if !stage.matrix.is_empty() {
                    *last = Some((with.clone().into_owned(), params.clone()));
                }
                params
            }
        };
        let knows_params = params.is_some();
        let Params { json, sources, mut declared_outputs } = params.unwrap_or_default();
        // The declared outputs suffice to check dependents, even if other parameters are invalid.
        if !knows_params && stage.kind == Some(StageKind::Command) {
            declared_outputs = validate::part(&with, &["outputs"]).unwrap_or_default();
        }
        let kind = stage.kind.unwrap_or(StageKind::Command);
        let outputs = if kind == StageKind::Command {
            declared_outputs.into_keys().map(|name| OutputSpec { name, result: None }).collect()
        } else {
            let result = |ending| format!("{}.{ending}", name.replace('/', "-"));
            let output = |output: &crate::stage_kinds::Output| OutputSpec {
                name: output.name.into(),
                result: output.result.map(result),
            };
            kind.outputs().iter().map(output).collect()
        };
        let source = |(slot, source, path)| ExternalInput { slot, source, path };
        let mut instance = Instance {
            stage: stage.name.clone(),
            kind,
            params: json,
            seed: self.whole_number(stage, "seed", stage.seed.as_ref(), &axes, 0, notes),
            is_seeded: stage.seed.is_some(),
            numerics: self.numerics(stage, &axes, notes),
            threads: self.threads(stage, &axes, notes),
            gpu: self.gpu(stage, &axes, notes),
            time_limit: self.time_limit(stage, &axes, notes),
            needs: needs.needs,
            sources: sources.into_iter().map(source).collect(),
            outputs,
            coordinates,
            axes: (shared.axes.clone(), stands.iter().map(|stand| stand.value.clone()).collect()),
            knows_needs: needs.is_whole,
            knows_params,
            path: shared.path.clone(),
            file: stage.file.clone(),
            name,
        };
        self.check_together(stage, stands, &mut instance, &with, &origin, notes);
        instance
    }

    /// Checks needs and parameters against each other.
    fn check_together(
        &self,
        stage: &StageSpec,
        stands: &[&Stand],
        instance: &mut Instance,
        with: &Value,
        origin: &Origin,
        notes: &mut Diagnostics,
    ) {
        let of_instances = |stand: &Stand| stand.reference.is_some() || is_unknown(&stand.value);
        let by_axis = stage.matrix.iter().zip(stands).filter(|(_, stand)| of_instances(stand));
        let by_axis: Vec<&str> = by_axis.map(|(axis, _)| axis.name.as_str()).collect();
        let is_filled = |slot: &str| stage.needs.iter().any(|(name, _)| name == slot) || by_axis.contains(&slot);
        if stage.kind == Some(StageKind::Command) {
            let mut used = command::used(with);
            // If other parts of a text failed to substitute, only the author's original is left.
            if has_unknown(with) {
                used.extend(command::used(&stage.with));
            }
            // An axis over instances is an input of each command that reads it.
            for (axis, stand) in stage.matrix.iter().zip(stands) {
                let is_need = stage.needs.iter().any(|(name, _)| *name == axis.name);
                if let Some(reference) = stand.reference.as_ref().filter(|_| !is_need)
                    && command::reads(&used, &axis.name)
                {
                    instance.needs.push(reference.clone().fills(&axis.name, false));
                }
            }
            command::check(stage, &by_axis, &used, with, origin, notes);
        }
        if with.get("stop_at_accuracy").is_some_and(|wanted| !wanted.is_null())
            && stage.kind == Some(StageKind::Train)
            && !is_filled("validation")
            && !stage.may_have_meant("validation")
        {
            let place = origin.place(&[validate::key("stop_at_accuracy")], Part::Value);
            let help = "add `validation: STAGE.test` to the stage's needs".to_owned();
            notes.tell_at(place, "`stop_at_accuracy` needs images to measure it on", "needs `validation`", Some(help));
        }
        if with.get("pretrained").is_some_and(|wanted| !wanted.is_null())
            && stage.kind == Some(StageKind::Train)
            && !is_filled("weights")
            && !stage.may_have_meant("weights")
        {
            let place = origin.place(&[validate::key("pretrained")], Part::Value);
            let help = "add `weights: STAGE`, a stage of kind `file`, to the stage's needs".to_owned();
            notes.tell_at(
                place,
                "`pretrained` says what is taken of weights, and there are none",
                "needs `weights`",
                Some(help),
            );
        }
        transform::check(stage, &by_axis, with, origin, notes);
        instance.knows_needs &= instance.needs.iter().all(|need| self.instance(need.from).knows_needs);
        self.inherit_coordinates(instance);
        if !instance.knows_needs || !instance.knows_params {
            return;
        }
        fits::check(self, stage, instance, origin, notes);
        match instance.kind {
            StageKind::Table | StageKind::Figure => grid::resolve(self, instance, notes),
            StageKind::Saliency => {
                headings::check_canonical(instance).into_iter().for_each(|problem| notes.tell(problem))
            }
            _ => {}
        }
    }

    /// Inherits the coordinates of the inputs; a coordinate on which two inputs differ is dropped.
    fn inherit_coordinates(&self, instance: &mut Instance) {
        let mut inherited: BTreeMap<&Arc<str>, Option<&Arc<str>>> = BTreeMap::new();
        for need in instance.needs.iter().filter(|need| need.label.is_empty()) {
            for (name, label) in self.instance(need.from).coordinates.shared() {
                inherited
                    .entry(name)
                    .and_modify(|known| *known = known.filter(|known| *known == label))
                    .or_insert(Some(label));
            }
        }
        for (name, label) in inherited {
            if let Some(label) = label {
                instance.coordinates.add(name.clone(), label.clone());
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
        notes: &mut Diagnostics,
    ) -> u64 {
        let Some(value) = value else { return default };
        let path = || stage.path.key(key);
        let value = self.substitute(stage, value, axes, &path, &[], notes);
        if beyond_whole_numbers(&value) {
            let message = format!("`{key}` is too large: at most {}", u64::MAX);
            notes.tell_at(Place::value(&stage.file, path()), message, "too large", None);
        } else if value.as_u64().is_none() && !is_unknown(&value) {
            let message = format!("`{key}` must be a whole number, 0 or more; this is {}", describe(&value));
            notes.tell_at(Place::value(&stage.file, path()), message, "expected a whole number", None);
        }
        value.as_u64().unwrap_or(default)
    }

    /// Returns the stage's own numerics, else the file's, else the default.
    fn numerics(&self, stage: &StageSpec, axes: &Mapping, notes: &mut Diagnostics) -> Numerics {
        let Some((value, path)) = &stage.numerics else { return Numerics::default() };
        let value = self.substitute(stage, value, axes, &|| path.clone(), &[], notes);
        let numerics = value.as_str().and_then(Numerics::from_name);
        if numerics.is_none() && !is_unknown(&value) {
            let names = Numerics::ALL.map(Numerics::name);
            let message = format!("`numerics` is one of {}; this is {}", names.join(" and "), describe(&value));
            let place = Place::value(&stage.file, path.clone());
            let problem = Problem::at(place, message, "unknown numerics");
            notes.tell(match value.as_str() {
                Some(word) => problem.suggest(word, names),
                None => problem,
            });
        }
        numerics.unwrap_or_default()
    }

    fn threads(&self, stage: &StageSpec, axes: &Mapping, notes: &mut Diagnostics) -> usize {
        let threads = self.whole_number(stage, "threads", stage.threads.as_ref(), axes, 1, notes);
        if !(1..=MOST_THREADS).contains(&threads) {
            let message = format!("`threads` is {threads}; it must be from 1 to {MOST_THREADS}");
            let place = Place::value(&stage.file, stage.path.key("threads"));
            notes.tell_at(place, message, "no such number of threads", None);
        }
        threads.clamp(1, MOST_THREADS) as usize
    }

    fn gpu(&self, stage: &StageSpec, axes: &Mapping, notes: &mut Diagnostics) -> f64 {
        let Some(value) = &stage.gpu else { return 1.0 };
        let path = || stage.path.key("gpu");
        let value = self.substitute(stage, value, axes, &path, &[], notes);
        // Read like a parameter: numbers may be fractions.
        let share = serde_yaml::from_value(value.clone().into_owned()).map(Real::get);
        let share = share.ok().filter(|&share| share > 0.0 && share <= 1.0);
        if share.is_none() && !is_unknown(&value) {
            let message = format!("`gpu` must be above 0 and at most 1; this is {}", describe(&value));
            let help = Some("`gpu: 1/4` lets four such stages share a GPU".to_owned());
            notes.tell_at(Place::value(&stage.file, path()), message, "expected a share of a GPU", help);
        }
        share.unwrap_or(1.0)
    }

    fn time_limit(&self, stage: &StageSpec, axes: &Mapping, notes: &mut Diagnostics) -> Option<std::time::Duration> {
        let path = || stage.path.key("time_limit");
        let value = self.substitute(stage, stage.time_limit.as_ref()?, axes, &path, &[], notes);
        if value.is_null() || is_unknown(&value) {
            return None;
        }
        let limit = value.as_str().and_then(duration);
        if limit.is_none() {
            let message = format!("`time_limit` must be a number above 0 and its unit; this is {}", describe(&value));
            let help = Some("write it as `90 s`, `10 min`, `2 h` or `1 d`".to_owned());
            notes.tell_at(Place::value(&stage.file, path()), message, "expected a time", help);
        }
        limit
    }

    /// Replaces every `${…}` in a value; `path` leads to the value.
    ///
    /// Reports each reference that cannot be replaced and puts an unknown value in its place.
    pub(super) fn substitute<'v>(
        &self,
        stage: &StageSpec,
        value: &'v Value,
        axes: &Mapping,
        path: &dyn Fn() -> YamlPath,
        reserved: &[&str],
        notes: &mut Diagnostics,
    ) -> Cow<'v, Value> {
        let (params, lost) = (&self.spec.params, &self.spec.lost);
        // Only command parameters reach a shell, and only they have reserved names.
        let is_command = stage.kind == Some(StageKind::Command) && !reserved.is_empty();
        let scope = Scope { axes, params, reserved, lost, are_axes_lost: stage.lost.matrix, is_command };
        let (value, failures) = scope.apply(value);
        for Failure { trail, error, within } in failures {
            let mut path = path();
            path.0.extend(trail);
            let mut problem = Problem::at(Place::value(&stage.file, path), error.message, "here");
            problem.help = error.help;
            problem.is_shared = within.is_some();
            notes.tell(problem);
        }
        value
    }
}

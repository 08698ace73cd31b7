//! Builds the instances of one stage: expands its matrix, substitutes `${…}`, checks parameters and resolves needs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;
use serde_yaml::{Mapping, Value};

use super::command::{self, Used};
use super::coordinates::Coordinates;
use super::defaults::merge;
use super::diagnostics::Diagnostics;
use super::expand::Expander;
use super::fits;
use super::grid;
use super::headings;
use super::instance::{ExternalInput, Instance, Need, OutputSpec};
use super::matrix::{Matrix, Stand};
use super::mockup;
use super::network;
use super::origin::Origin;
use super::params::{self, Params};
use super::poison::{has_unknown, is_unknown};
use super::problem::Problem;
use super::source::{Part, Place, YamlPath};
use super::stage::StageSpec;
use super::substitute::{Failure, Scope};
use super::transform;
use super::validate;
use crate::stage_kinds::{CommandOutput, Output, Radius, StageKind};

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

/// One point of a stage's matrix.
struct Point<'a> {
    stage: &'a StageSpec,
    /// The value on each axis.
    stands: &'a [&'a Stand],
    /// The same values by the names of the axes.
    axes: Mapping,
    /// The name of the instance.
    name: String,
    /// Its coordinates, without those of its needs.
    coordinates: Coordinates,
}

impl<'a> Point<'a> {
    fn of(stage: &'a StageSpec, shared: &Shared, stands: &'a [&'a Stand]) -> Self {
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
        Point { stage, stands, axes, name, coordinates }
    }
}

/// The parameters of an instance without `${…}`: its stage's own, and the defaults of its kind with the path to them.
struct SubstitutedParams<'s> {
    own: Cow<'s, Value>,
    defaults: Option<(Cow<'s, Value>, YamlPath)>,
}

impl SubstitutedParams<'_> {
    /// Returns the stage's own parameters, and the defaults where it has none.
    fn merged(&self, kind: Option<StageKind>) -> Cow<'_, Value> {
        match (&self.defaults, kind) {
            (Some((defaults, _)), Some(kind)) => Cow::Owned(merge(kind, defaults, &self.own)),
            _ => Cow::Borrowed(self.own.as_ref()),
        }
    }

    /// Returns where they are written; `path` leads to the stage's own.
    fn origin<'o>(&'o self, stage: &'o StageSpec, path: &'o dyn Fn() -> YamlPath) -> Origin<'o> {
        let defaults = self.defaults.as_ref().map(|(defaults, path)| (defaults.as_ref(), path.clone()));
        Origin { file: &stage.file, own: &self.own, path, defaults, lost: &stage.lost }
    }
}

impl Expander<'_> {
    /// Returns the instances of a stage, or `None` if a dependency is not expanded yet or the matrix is unknown.
    ///
    /// Problems go to `notes`. Invalid instances are still returned, as far as they are known, so dependents can be
    /// checked.
    pub(super) fn stage(&self, stage: &StageSpec, notes: &mut Diagnostics) -> Option<Vec<Instance>> {
        self.watch.take();
        let Matrix { axes, points, is_known } = self.matrix(stage, notes);
        let read_by_matrix = self.watch.take();
        if !notes.missing.is_empty() {
            return None;
        }
        // Collect all missing dependencies at once: the stage is expanded again only after they arrive.
        let mut instances = Vec::with_capacity(points.len());
        let mut last = None;
        let shared = Shared::of(stage);
        for point in points {
            let stands: Vec<&Stand> = axes.iter().zip(&point).map(|(axis, at)| &axis[*at]).collect();
            let mut instance = self.instance_at(Point::of(stage, &shared, &stands), &shared, &mut last, notes);
            self.place_on_sweep(&mut instance, &self.watch.take() | &read_by_matrix);
            instances.push(instance);
            // Further points of a large matrix would repeat the same problems.
            if notes.is_full() {
                break;
            }
        }
        is_known.then_some(instances)
    }

    /// Returns the instance at one point of a stage's matrix; `last` saves reading the same parameters again.
    fn instance_at(
        &self,
        point: Point<'_>,
        shared: &Shared,
        last: &mut LastParams,
        notes: &mut Diagnostics,
    ) -> Instance {
        let Point { stage, stands, .. } = point;
        let axes = &point.axes;
        let needs = self.needs(stage, stands, axes, notes);
        let with_path = || stage.path.key("with");
        let substituted = self.substituted_params(&point, &with_path, notes);
        let with = substituted.merged(stage.kind);
        let origin = substituted.origin(stage, &with_path);
        let params = read_params(stage, &with, &origin, last, notes);
        let knows_params = params.is_some();
        let Params { json, sources, declared_outputs } = params.unwrap_or_default();
        let declared_outputs = match stage.kind {
            // The declared outputs suffice to check dependents, even if other parameters are invalid.
            Some(StageKind::Command) if !knows_params => validate::part(&with, &["outputs"]).unwrap_or_default(),
            _ => declared_outputs,
        };
        let kind = stage.kind.unwrap_or(StageKind::Command);
        let source = |(slot, source, path)| ExternalInput { slot, source, path };
        let radii = if kind == StageKind::Evaluate { Radius::list(&json) } else { Vec::new() };
        let outputs = outputs(kind, &point.name, declared_outputs, knows_params.then_some(&*json), &radii);
        let mut instance = Instance {
            stage: stage.name.clone(),
            kind,
            params: json,
            seed: self.whole_number(stage, "seed", stage.seed.as_ref(), axes, 0, notes),
            is_seeded: stage.seed.is_some(),
            numerics: self.numerics(stage, axes, notes),
            threads: self.threads(stage, axes, notes),
            gpu: self.gpu(stage, axes, notes),
            time_limit: self.time_limit(stage, axes, notes),
            needs: needs.needs,
            sources: sources.into_iter().map(source).collect(),
            outputs,
            coordinates: point.coordinates,
            sweep: Vec::new(),
            axes: (shared.axes.clone(), stands.iter().map(|stand| stand.value.clone()).collect()),
            knows_needs: needs.is_whole,
            knows_params,
            path: shared.path.clone(),
            file: stage.file.clone(),
            name: point.name,
        };
        if self.spec.is_mockup {
            mockup::mark_title(&mut instance);
        }
        self.check_together(stage, stands, &mut instance, &with, &origin, notes);
        instance
    }

    /// Replaces every `${…}` in the parameters of a stage and in the defaults of its kind.
    fn substituted_params<'s>(
        &self,
        point: &Point<'s>,
        with_path: &dyn Fn() -> YamlPath,
        notes: &mut Diagnostics,
    ) -> SubstitutedParams<'s> {
        let (stage, axes) = (point.stage, &point.axes);
        let reserved = if stage.names_own_needs() { command::RESERVED } else { &[] };
        let own = self.substitute(stage, &stage.with, axes, with_path, reserved, notes);
        let defaults = stage.kind.zip(stage.defaults.as_deref()).map(|(kind, defaults)| {
            let path = YamlPath::of(&["defaults", kind.name()]);
            (self.substitute(stage, defaults, axes, &|| path.clone(), reserved, notes), path)
        });
        SubstitutedParams { own, defaults }
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
        match stage.kind {
            Some(StageKind::Command) => {
                let used = used_names(stage, with);
                add_axes_as_needs(stage, stands, &used, instance);
                command::check(stage, &by_axis, &used, with, origin, notes);
            }
            Some(StageKind::Train) => {
                check_needs_of_training(stage, &by_axis, with, origin, notes);
                network::check(stage, &by_axis, with, origin, notes);
            }
            Some(StageKind::Pretrained) => network::check(stage, &by_axis, with, origin, notes),
            _ => {}
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

    /// Inherits the coordinates of the inputs; a coordinate on which two inputs differ is dropped. Where a slot takes
    /// several inputs they are many results in one picture or table, but for a worst case, which is one result. An
    /// evaluation is one of its model: the network that an attack is made on gives it nothing.
    fn inherit_coordinates(&self, instance: &mut Instance) {
        let mut inherited: BTreeMap<&Arc<str>, Option<&Arc<str>>> = BTreeMap::new();
        let is_one = instance.kind == StageKind::WorstCase;
        let is_source = |need: &Need| instance.kind == StageKind::Evaluate && need.slot == "source";
        for need in instance.needs.iter().filter(|need| (need.label.is_empty() || is_one) && !is_source(need)) {
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
        let (params, lost, watch) = (self.params(), &self.spec.lost, Some(&self.watch));
        // Only command parameters reach a shell, and only they have reserved names.
        let is_command = stage.kind == Some(StageKind::Command) && !reserved.is_empty();
        let scope = Scope { axes, params, reserved, lost, are_axes_lost: stage.lost.matrix, is_command, watch };
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

/// Reads the parameters of a stage; returns those read last if the value is the same.
fn read_params(
    stage: &StageSpec,
    with: &Value,
    origin: &Origin,
    last: &mut LastParams,
    notes: &mut Diagnostics,
) -> Option<Params> {
    let kind = stage.kind?;
    if let Some((from, params)) = last
        && from == with
    {
        return params.clone();
    }
    let params = params::read(kind, with, origin, notes);
    if !stage.matrix.is_empty() {
        *last = Some((with.clone(), params.clone()));
    }
    params
}

/// Returns the outputs of the instance `name`: of a command those that the author declares, else those of the kind that
/// its parameters ask for, and of an evaluation at several radii one for each. Without parameters, which are wrong
/// then, it has all of the kind.
fn outputs(
    kind: StageKind,
    name: &str,
    declared: BTreeMap<String, CommandOutput>,
    params: Option<&Json>,
    radii: &[Radius],
) -> Vec<OutputSpec> {
    if kind == StageKind::Command {
        let output = |(name, output): (String, CommandOutput)| OutputSpec { name, result: output.shown() };
        return declared.into_iter().map(output).collect();
    }
    if !radii.is_empty() {
        return radii.iter().map(|radius| OutputSpec { name: radius.output.clone(), result: None }).collect();
    }
    let result = |ending| format!("{}.{ending}", name.replace('/', "-"));
    let output = |output: &Output| OutputSpec { name: output.name.into(), result: output.result.map(result) };
    let is_made = |output: &&Output| params.is_none_or(|params| kind.makes(output.name, params));
    kind.outputs().iter().filter(is_made).map(output).collect()
}

/// Returns the names that a command uses.
fn used_names<'v>(stage: &'v StageSpec, with: &'v Value) -> Vec<Used<'v>> {
    let mut used = command::used(with);
    // If other parts of a text failed to substitute, only the author's original is left.
    if has_unknown(with) {
        used.extend(command::used(&stage.with));
    }
    used
}

/// Adds each axis over instances that a command reads to its needs, unless the author did.
fn add_axes_as_needs(stage: &StageSpec, stands: &[&Stand], used: &[Used], instance: &mut Instance) {
    for (axis, stand) in stage.matrix.iter().zip(stands) {
        let is_need = stage.needs.iter().any(|(name, _)| *name == axis.name);
        if let Some(reference) = stand.reference.as_ref().filter(|_| !is_need)
            && command::reads(used, &axis.name)
        {
            instance.needs.push(reference.clone().fills(&axis.name, false));
        }
    }
}

/// Checks that a training has the needs that its parameters are about; `by_axis` are the slots that the matrix fills.
fn check_needs_of_training(
    stage: &StageSpec,
    by_axis: &[&str],
    with: &Value,
    origin: &Origin,
    notes: &mut Diagnostics,
) {
    let is_filled = |slot: &str| stage.needs.iter().any(|(name, _)| name == slot) || by_axis.contains(&slot);
    let lacks = |parameter: &str, slot: &str| {
        with.get(parameter).is_some_and(|wanted| !wanted.is_null()) && !is_filled(slot) && !stage.may_have_meant(slot)
    };
    if lacks("stop_at_accuracy", "validation") {
        let place = origin.place(&[validate::key("stop_at_accuracy")], Part::Value);
        let help = "add `validation: STAGE.test` to the stage's needs".to_owned();
        notes.tell_at(place, "`stop_at_accuracy` needs images to measure it on", "needs `validation`", Some(help));
    }
    if lacks("pretrained", "weights") {
        let place = origin.place(&[validate::key("pretrained")], Part::Value);
        let help = "add `weights: STAGE`, a stage of kind `file`, to the stage's needs".to_owned();
        let message = "`pretrained` says what is taken of weights, and there are none";
        notes.tell_at(place, message, "needs `weights`", Some(help));
    }
}

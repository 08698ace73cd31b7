//! Warnings: what a valid pipeline has most likely by mistake. Each has a place and advice, and `allow` silences it.
//!
//! A warning that is often wrong is soon not read: these hold their tongue wherever an author may have meant it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value as Json;

use super::allow::{Lint, advised};
use super::idle_seed;
use super::instance::{Instance, Need};
use super::pipeline::PipelineSpec;
use super::problem::Problem;
use super::provenance::{At, Written, written};
use super::settings::Overrides;
use super::source::Place;
use crate::dense_map::DenseId;
use crate::host;
use crate::numerics::Numerics;
use crate::stage_kinds::{StageKind, draws};

/// A warning.
#[derive(Debug, Clone)]
pub struct Warning {
    /// What it is called in `allow`.
    pub lint: Lint,
    /// What is doubtful, where, and what to do.
    pub problem: Problem,
}

/// Returns the warnings of a pipeline, by place. `instances` are all of it, in their order.
pub fn warnings(spec: &PipelineSpec, overrides: &Overrides, instances: &[Instance]) -> Vec<Warning> {
    let search = Search { spec, overrides, instances };
    let found = [
        search.unused(),
        search.reaches(),
        search.selections(),
        search.first_classes(),
        search.idle_seeds(),
        search.slow_searches(),
    ]
    .concat();
    let is_told = |found: &Found| !spec.allows(found.lint, found.problem.place.as_ref(), &found.stages);
    let told: Vec<Found> = found.into_iter().filter(is_told).collect();
    let in_order = spec.in_order(told.iter().map(|found| found.problem.clone()).collect());
    let lint_of = |problem: &Problem| told.iter().find(|found| found.problem == *problem).map(|found| found.lint);
    in_order.into_iter().filter_map(|problem| Some(Warning { lint: lint_of(&problem)?, problem })).collect()
}

/// A warning, and the stages that may allow it.
#[derive(Clone)]
struct Found {
    lint: Lint,
    problem: Problem,
    stages: Vec<String>,
}

struct Search<'a> {
    spec: &'a PipelineSpec,
    overrides: &'a Overrides,
    instances: &'a [Instance],
}

/// The radius that an adversary moves in.
struct Reach<'a> {
    of: &'a Instance,
    /// The parameter with the adversary.
    key: &'static str,
    eps: f64,
    norm: &'a str,
}

impl<'a> Reach<'a> {
    fn of(instance: &'a Instance) -> Option<Self> {
        let key = match instance.kind {
            StageKind::Train => "adversary",
            StageKind::Evaluate => "attack",
            _ => return None,
        };
        let adversary = instance.params.get(key)?;
        let eps = adversary.get("eps").and_then(Json::as_f64)?;
        let norm = adversary.get("norm").and_then(Json::as_str).unwrap_or("inf");
        Some(Reach { of: instance, key, eps, norm })
    }

    fn is_same(&self, other: &Reach) -> bool {
        self.norm == other.norm && self.eps == other.eps
    }

    fn path(&self) -> String {
        format!("{}.eps", self.key)
    }
}

impl<'a> Search<'a> {
    fn input(&self, need: &Need) -> &'a Instance {
        &self.instances[need.from.position()]
    }

    /// Parameters of the requested file that no stage uses. Those of included files may be there for others.
    fn unused(&self) -> Vec<Found> {
        let uses = self.spec.parameter_uses();
        let top = |name: &String| name.split('.').next().unwrap_or_default().to_owned();
        let used: BTreeSet<String> = uses.values().flatten().map(top).collect();
        let names = self.spec.params.keys().filter_map(serde_yaml::Value::as_str).filter(|name| !used.contains(*name));
        let found = names.filter_map(|name| {
            let place = self.spec.param_place(name).filter(|place| Arc::ptr_eq(&place.file, &self.spec.file))?;
            let problem = Problem::at(place.clone(), format!("nothing uses the parameter `{name}`"), "unused");
            let help = format!("remove it, or write `${{{name}}}` where its value belongs");
            Some(Found {
                lint: Lint::UnusedParam,
                problem: advised(problem, &help, Lint::UnusedParam),
                stages: Vec::new(),
            })
        });
        found.collect()
    }

    /// Attacks whose radius or norm is not that of the training that they are to break.
    fn reaches(&self) -> Vec<Found> {
        let mut attacks: BTreeMap<&str, Vec<(Reach, Reach)>> = BTreeMap::new();
        // The author of a list of radii means them.
        let is_of_one = |one: &&Instance| one.kind == StageKind::Evaluate && one.params.get("eps").is_none();
        for attack in self.instances.iter().filter(is_of_one) {
            let Some(model) = attack.need("model").map(|need| self.input(need)) else { continue };
            if let Some((training, attack)) = Reach::of(model).zip(Reach::of(attack)) {
                attacks.entry(&model.name).or_default().push((training, attack));
            }
        }
        // Somebody who attacks within the radius of the training, too, means the other radii.
        attacks.retain(|_, pairs| pairs.iter().all(|(training, attack)| !training.is_same(attack)));
        let mut seen = BTreeSet::new();
        let pairs = attacks.into_values().flatten();
        let new = pairs.filter(|(training, attack)| seen.insert((&training.of.stage, &attack.of.stage)));
        new.filter_map(|(training, attack)| self.differing(&training, &attack)).collect()
    }

    fn differing(&self, training: &Reach, attack: &Reach) -> Option<Found> {
        let (of_training, of_attack) = (self.param_of(training), self.param_of(attack));
        let stages = vec![training.of.stage.clone(), attack.of.stage.clone()];
        let (trained, attacked) = (&training.of.name, &attack.of.name);
        if training.norm != attack.norm {
            let name = of_training.filter(|name| Some(name) == of_attack.as_ref())?;
            let message = format!(
                "`{attacked}` attacks within `{name}` in norm {}, and `{trained}` is trained within `{name}` in norm {}",
                attack.norm, training.norm
            );
            let problem = Problem::at(attack.of.place(), message, "another norm");
            let problem =
                advised(problem, "a radius means something else in each norm: give each its own", Lint::NormDiffers);
            return Some(Found { lint: Lint::NormDiffers, problem, stages });
        }
        let (literal, name) = match (of_training, of_attack) {
            (Some(name), None) => (attack, name),
            (None, Some(name)) => (training, name),
            _ => return None,
        };
        if self.varies(training) || self.varies(attack) {
            return None;
        }
        let place = self.places(literal).pop().and_then(|written| file_place(&written))?;
        let text = place.file.text.get(place.span()).unwrap_or_default().trim().to_owned();
        let of_name = format!("the parameter `{name}`");
        let (trained_in, attacked_in) = if literal.key == "attack" { (&of_name, &text) } else { (&text, &of_name) };
        let message =
            format!("`{attacked}` attacks within {attacked_in}, and `{trained}` is trained within {trained_in}");
        let problem = Problem::at(place, message, "another radius");
        let problem = advised(problem, &format!("write `${{{name}}}` if both mean the same radius"), Lint::EpsDiffers);
        Some(Found { lint: Lint::EpsDiffers, problem, stages })
    }

    /// Whether the instances of a stage have several radii in one norm: then its author lists them.
    fn varies(&self, reach: &Reach) -> bool {
        let others = self.instances.iter().filter(|other| other.stage == reach.of.stage).filter_map(Reach::of);
        others.filter(|other| other.norm == reach.norm).any(|other| other.eps != reach.eps)
    }

    fn places(&self, reach: &Reach) -> Vec<Written> {
        written(self.spec, self.overrides, reach.of, &reach.path(), None)
    }

    /// Returns the parameter that a radius comes from; `None` if it is written in a stage.
    fn param_of(&self, reach: &Reach) -> Option<String> {
        let last = self.places(reach).pop()?;
        if let At::Set(key) = last.at {
            return Some(key);
        }
        let name = last.name?;
        let first = name.split('.').next().unwrap_or_default();
        let is_axis = reach.of.axes().contains_key(first);
        (!is_axis && self.spec.params.contains_key(first)).then_some(name)
    }

    /// Trainings that stop by their accuracy on images that an evaluation of them reads.
    fn selections(&self) -> Vec<Found> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for tested in self.instances.iter().filter(|instance| instance.kind == StageKind::Evaluate) {
            let (Some(model), Some(set)) = (tested.need("model"), tested.need("set")) else { continue };
            let training = self.input(model);
            let stops = training.params.get("stop_at_accuracy").is_some_and(|share| !share.is_null());
            let validation = training.need("validation").filter(|_| stops && training.kind == StageKind::Train);
            let is_same = validation.is_some_and(|need| (need.from, &need.output) == (set.from, &set.output));
            if is_same && seen.insert(&training.stage) {
                found.push(selection(training, tested, &format!("{}.{}", self.input(set).name, set.output)));
            }
        }
        found
    }

    /// Stages that take the first images of a folder of classes. A sample of it is in the same order.
    fn first_classes(&self) -> Vec<Found> {
        let mut seen = BTreeSet::new();
        let limited = self.instances.iter().filter(|instance| instance.params.get("limit").is_some_and(Json::is_u64));
        let found = limited.filter_map(|instance| {
            let need = ["data", "set"].iter().find_map(|slot| instance.need(slot))?;
            let folder = self.folder_of(need)?;
            seen.insert(&instance.stage).then(|| first_class(instance, &folder.name))
        });
        found.collect()
    }

    /// Seeds of stages of which no instance draws anything.
    fn idle_seeds(&self) -> Vec<Found> {
        let draws = |instance: &&Instance| draws(instance.kind, &instance.params);
        let drawing: BTreeSet<&str> = self.instances.iter().filter(draws).map(|one| one.stage.as_str()).collect();
        let mut seen = BTreeSet::new();
        let seeded = self.instances.iter().filter(|instance| instance.is_seeded);
        let idle = seeded.filter(|one| !drawing.contains(one.stage.as_str()) && seen.insert(&one.stage));
        idle.map(idle_seed).collect()
    }

    /// Searches in 16 bits that a processor would emulate. A machine with a GPU computes them there.
    fn slow_searches(&self) -> Vec<Found> {
        let mut seen = BTreeSet::new();
        let in_16_bits = |one: &&Instance| one.params.get("search").and_then(Json::as_str) == Some("bf16");
        let searches = self.instances.iter().filter(in_16_bits).filter(|one| seen.insert(&one.stage));
        let searches: Vec<&Instance> = searches.collect();
        if searches.is_empty() || host::has_gpu() {
            return Vec::new();
        }
        let slow = |one: &&Instance| one.numerics == Numerics::Portable || !host::computes_in_16_bits();
        searches.into_iter().filter(slow).map(slow_search).collect()
    }

    /// Returns the folder or archive with a folder for each class from which the images of an input come; `None` if
    /// they come from elsewhere.
    fn folder_of(&self, need: &Need) -> Option<&'a Instance> {
        let from = self.input(need);
        match from.kind {
            StageKind::Dataset => (from.params.get("format")?.as_str()? == "image_folder").then_some(from),
            StageKind::Transform => self.folder_of(from.need("data")?),
            _ => None,
        }
    }
}

fn slow_search(instance: &Instance) -> Found {
    let place = Place::value(&instance.file, instance.path.key("with").key("search"));
    let (why, help) = match instance.numerics {
        Numerics::Portable => (
            "`numerics: portable` keeps it from the instructions for them",
            "write `numerics: native` at the top of the file",
        ),
        Numerics::Native => ("this processor has no instructions for them", "run it on another machine"),
    };
    let message = format!("`{}` searches in 16 bits, which are slower than 32 here: {why}", instance.name);
    let problem = advised(Problem::at(place, message, "slower"), help, Lint::SlowSearch);
    Found { lint: Lint::SlowSearch, problem, stages: vec![instance.stage.clone()] }
}

fn first_class(instance: &Instance, folder: &str) -> Found {
    let place = Place::value(&instance.file, instance.path.key("with").key("limit"));
    let message = format!(
        "`{}` takes the first images of `{folder}`, which come class by class: the last classes may be missing",
        instance.name
    );
    let problem = Problem::at(place, message, "the first classes");
    let help = "draw images of all classes with a transform `op: sample`, or set `limit_per_class` at the data set";
    let stages = vec![instance.stage.clone()];
    Found { lint: Lint::SortedLimit, problem: advised(problem, help, Lint::SortedLimit), stages }
}

fn idle_seed(instance: &Instance) -> Found {
    let place = Place::key(&instance.file, instance.path.key("seed"));
    let problem = idle_seed::problem(&instance.stage, place, " with these parameters");
    Found { lint: Lint::IdleSeed, problem, stages: vec![instance.stage.clone()] }
}

fn selection(training: &Instance, tested: &Instance, set: &str) -> Found {
    let place = Place::value(&training.file, training.path.key("needs").key("validation"));
    let message = format!(
        "`{}` stops by its accuracy on `{set}`, and `{}` measures it on the same images",
        training.name, tested.name
    );
    let problem = Problem::at(place, message, "chosen on test images");
    let help = "take images for `validation` that no evaluation reads: such a number is better than on new images";
    let stages = vec![training.stage.clone(), tested.stage.clone()];
    Found { lint: Lint::TestSelects, problem: advised(problem, help, Lint::TestSelects), stages }
}

fn file_place(written: &Written) -> Option<Place> {
    match &written.at {
        At::File(place) => Some(place.clone()),
        At::Set(_) => None,
    }
}

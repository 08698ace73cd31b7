//! References to other stages: `model`, `model/pgd-*`, `fashion.test`, `saturated/64.images`.
//!
//! A bare stage name means all its instances.

use std::collections::HashSet;

use super::expand::Expander;
use super::instance::{Instance, InstanceId, Need};
use super::pattern::{Pattern, is_pattern};
use super::problem::suggestion;
use super::stage::StageSpec;
use super::view::View;
use crate::stage_kinds::{ArtifactType, Slot, StageKind};

/// A referenced instance and, optionally, one of its outputs.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    pub instance: InstanceId,
    pub output: Option<String>,
    /// Distinguishes it from the others found with it.
    pub label: String,
}

/// Why a reference resolves to nothing.
pub(super) enum Missing {
    /// The stage does not exist or is not expanded yet.
    Stage(String),
    /// The stage's instances are unknown, which is already reported; holds the stage and the named output.
    Told(String, Option<String>),
    /// The stage exists, but no instance matches.
    Instance { message: String, help: Option<String> },
}

impl Expander<'_> {
    /// Returns the instances that a reference means, in their order.
    pub(super) fn find(&self, from: &StageSpec, text: &str) -> Result<Vec<Reference>, Missing> {
        let mut found: Vec<Reference> = Vec::new();
        let mut known = HashSet::new();
        for view in self.views() {
            // The points of a sweep share the instances that read none of its parameters.
            let here = self.find_in(view, from, text)?;
            found.extend(here.into_iter().filter(|reference| known.insert(reference.instance)));
        }
        Ok(found)
    }

    fn find_in(&self, view: &View, from: &StageSpec, text: &str) -> Result<Vec<Reference>, Missing> {
        let instances = |stage: &str, output: Option<&str>| match view.of_stage(stage) {
            _ if self.is_told(from, stage) => Err(Missing::Told(stage.to_owned(), output.map(str::to_owned))),
            None => Err(Missing::Stage(stage.to_owned())),
            Some(all) => Ok(all),
        };
        let reference = |instance, output: Option<&str>| Reference {
            instance,
            output: output.map(str::to_owned),
            label: String::new(),
        };
        let Some((stage, tail)) = text.split_once('/') else {
            let (stage, output) = text.split_once('.').map_or((text, None), |(stage, output)| (stage, Some(output)));
            let all = instances(stage, output)?;
            return Ok(all.iter().map(|id| reference(*id, output)).collect());
        };
        let all = instances(stage, None)?;
        // Each position of an axis over instances has a full name: look it up directly, without comparing all names.
        let exact = |tail: &str| view.named(&format!("{stage}/{tail}"));
        if let (None, Some((tail, output))) = (exact(tail), tail.rsplit_once('.'))
            && let Some(id) = exact(tail)
        {
            return Ok(vec![reference(id, Some(output))]);
        }
        let matching = |tail: &str| -> Vec<InstanceId> {
            if let Some(id) = exact(tail) {
                return vec![id];
            }
            let pattern = Pattern::new(tail);
            let fits =
                |id: &InstanceId| self.instance(*id).name.split_once('/').is_some_and(|(_, tail)| pattern.fits(tail));
            all.iter().copied().filter(fits).collect()
        };
        let mut found: Vec<Reference> = matching(tail).into_iter().map(|id| reference(id, None)).collect();
        if found.is_empty()
            && let Some((tail, output)) = tail.rsplit_once('.')
        {
            found = matching(tail).into_iter().map(|id| reference(id, Some(output))).collect();
        }
        if found.is_empty() {
            let names = || all.iter().map(|id| self.instance(*id).name.as_str());
            let (message, help) = if is_pattern(text) {
                let first: Vec<String> = names().take(4).map(|name| format!("`{name}`")).collect();
                let more = if all.len() > first.len() { ", …" } else { "" };
                let help = format!("its instances are {}{more}", first.join(", "));
                (format!("no instance of stage `{stage}` fits `{text}`"), Some(help))
            } else {
                (format!("no instance of stage `{stage}` is called `{text}`"), suggestion(text, names()))
            };
            return Err(Missing::Instance { message, help });
        }
        Ok(found)
    }

    /// Labels the found instances: by axes alone if all belong to one stage, else with the stage name in front.
    pub(super) fn label(&self, found: &mut [Reference]) {
        let stage = |reference: &Reference| self.instance(reference.instance).stage.as_str();
        let one_stage = found.iter().all(|reference| stage(reference) == stage(&found[0]));
        for reference in found {
            let instance = self.instance(reference.instance);
            let tail = instance.tail().replace('/', "-");
            // A training may have two checkpoints, whose labels must differ.
            let is_last = reference.output.as_deref() == Some("last");
            let tail = if is_last { format!("{tail}.last") } else { tail };
            let has_axes = instance.name.contains('/');
            reference.label = match (&reference.output, one_stage && has_axes, has_axes) {
                (_, true, _) => tail,
                (Some(output), _, false) => format!("{}.{output}", instance.stage),
                (None, _, false) => instance.stage.clone(),
                (_, _, true) => format!("{}-{tail}", instance.stage),
            };
        }
    }
}

impl Reference {
    /// Returns the reference as an author would write it.
    pub(super) fn text(&self, instance: &Instance) -> String {
        match &self.output {
            Some(output) => format!("{}.{output}", instance.name),
            None => instance.name.clone(),
        }
    }

    /// Converts the reference into the input of a slot, after its output is chosen.
    pub(super) fn fills(self, slot: &str, many: bool) -> Need {
        let label = if many { self.label } else { String::new() };
        Need { slot: slot.to_owned(), label, from: self.instance, output: self.output.unwrap_or_default() }
    }
}

/// The producer of an output: a stage of some kind, and its outputs.
pub(super) struct Maker<'a> {
    pub stage: &'a str,
    pub kind: StageKind,
    outputs: Vec<(&'a str, ArtifactType)>,
}

impl<'a> Maker<'a> {
    /// Creates a producer from an instance; `None` if its outputs are unknown.
    pub(super) fn of(instance: &'a Instance) -> Option<Self> {
        let is = match instance.kind {
            StageKind::Command => ArtifactType::File,
            // One for each radius.
            StageKind::Evaluate => ArtifactType::Predictions,
            kind => {
                let is_made = |name: &str| instance.outputs.iter().any(|output| output.name == name);
                let mut maker = Maker::of_kind(&instance.stage, kind)?;
                maker.outputs.retain(|(name, _)| is_made(name));
                return Some(maker);
            }
        };
        let outputs = instance.outputs.iter().map(|output| (output.name.as_str(), is)).collect();
        (!instance.outputs.is_empty()).then_some(Maker { stage: &instance.stage, kind: instance.kind, outputs })
    }

    /// Creates a producer from a kind; `None` for commands, whose parameters name their outputs.
    pub(super) fn of_kind(stage: &'a str, kind: StageKind) -> Option<Self> {
        let outputs = kind.outputs().iter().map(|output| (output.name, output.is)).collect();
        (kind != StageKind::Command).then_some(Maker { stage, kind, outputs })
    }

    /// Chooses the named output, or the one that fits the slot. An error is a message and advice.
    pub(super) fn choose(&self, wanted: Option<&str>, slot: Option<&Slot>) -> Result<String, (String, Option<String>)> {
        let Maker { stage, kind, outputs } = self;
        // A program's output has no type of its own: it takes the type of its use.
        let fits = |is: ArtifactType| slot.is_none_or(|slot| slot.takes == is) || *kind == StageKind::Command;
        let names = || outputs.iter().map(|(name, _)| *name);
        if let Some(wanted) = wanted {
            return match outputs.iter().find(|(name, _)| *name == wanted) {
                None => {
                    let is_of_kind = kind.outputs().iter().any(|output| output.name == wanted);
                    // Only trainings have an output that their parameters ask for.
                    let help = is_of_kind.then(|| "a training makes it with `holdout: {keep: both}`".to_owned());
                    Err((format!("`{stage}` has no output `{wanted}`"), help.or_else(|| suggestion(wanted, names()))))
                }
                Some((_, is)) if fits(*is) => Ok(wanted.to_owned()),
                Some((_, is)) => {
                    let expected = slot.map_or("a file", |slot| slot.takes.name());
                    Err((format!("`{stage}.{wanted}` is {}; expected {expected}", is.name()), None))
                }
            };
        }
        let fitting: Vec<&str> = outputs.iter().filter(|(_, is)| fits(*is)).map(|(name, _)| *name).collect();
        match fitting.as_slice() {
            [only] => Ok((*only).to_owned()),
            [] => {
                let wanted = slot.map_or("a file", |slot| slot.takes.name());
                let makes: Vec<String> =
                    outputs.iter().map(|(name, is)| format!("`{stage}.{name}`, {}", is.name())).collect();
                let message = format!("`{stage}`, of kind `{kind}`, does not make {wanted}");
                Err((message, Some(format!("it makes {}", makes.join("; ")))))
            }
            several => match slot.and_then(|slot| several.iter().find(|name| **name == slot.prefers)) {
                Some(preferred) => Ok((*preferred).to_owned()),
                None => {
                    let choices = several.iter().map(|name| format!("`{stage}.{name}`")).collect::<Vec<_>>();
                    let help = format!("name one: {}", choices.join(", "));
                    Err((format!("`{stage}` has several outputs"), Some(help)))
                }
            },
        }
    }
}

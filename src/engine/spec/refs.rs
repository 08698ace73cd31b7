//! References to other stages: `model`, `model/pgd-*`, `fashion.test`, `saturated/64.images`. A bare stage means all
//! its instances.

use super::expand::Expander;
use super::instance::{Instance, InstanceId, Need};
use super::pattern::{Pattern, is_pattern};
use super::problem::suggestion;
use super::stage::StageSpec;
use crate::stage_kinds::{ArtifactType, Slot, StageKind};

/// An instance that was referred to, and perhaps one of its outputs.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    pub instance: InstanceId,
    pub output: Option<String>,
    /// Tells it from the others that were found with it.
    pub label: String,
}

/// Why nothing was found.
pub(super) enum Missing {
    /// No such stage, or it is not expanded yet.
    Stage(String),
    /// Nobody knows the stage's instances, for reasons that are told; the stage, and the output that is named.
    Told(String, Option<String>),
    /// The stage is there, but no instance fits.
    Instance { message: String, help: Option<String> },
}

impl Expander<'_> {
    /// The instances that a reference means, in their order.
    pub(super) fn find(&self, from: &StageSpec, text: &str) -> Result<Vec<Reference>, Missing> {
        let instances = |stage: &str, output: Option<&str>| match self.of_stage(stage) {
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
        // An axis that stands at instances has one full name after the other: those are not compared with all others.
        let exact = |tail: &str| self.named(&format!("{stage}/{tail}"));
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

    /// Labels what was found: by the axes alone if all are of one stage, with the stage before them otherwise.
    pub(super) fn label(&self, found: &mut [Reference]) {
        let stage = |reference: &Reference| self.instance(reference.instance).stage.as_str();
        let one_stage = found.iter().all(|reference| stage(reference) == stage(&found[0]));
        for reference in found {
            let instance = self.instance(reference.instance);
            let tail = instance.tail().replace('/', "-");
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
    /// The reference as an author would write it.
    pub(super) fn text(&self, instance: &Instance) -> String {
        match &self.output {
            Some(output) => format!("{}.{output}", instance.name),
            None => instance.name.clone(),
        }
    }

    /// The input that it is to a slot, once its output is chosen.
    pub(super) fn fills(self, slot: &str, many: bool) -> Need {
        let label = if many { self.label } else { String::new() };
        Need { slot: slot.to_owned(), label, from: self.instance, output: self.output.unwrap_or_default() }
    }
}

/// What makes an output: a stage of some kind, and what it makes.
pub(super) struct Maker<'a> {
    pub stage: &'a str,
    pub kind: StageKind,
    outputs: Vec<(&'a str, ArtifactType)>,
}

impl<'a> Maker<'a> {
    /// An instance; none if nobody knows what it makes.
    pub(super) fn of(instance: &'a Instance) -> Option<Self> {
        if instance.kind != StageKind::Command {
            return Maker::of_kind(&instance.stage, instance.kind);
        }
        let outputs = instance.outputs.iter().map(|output| (output.name.as_str(), ArtifactType::File)).collect();
        (!instance.outputs.is_empty()).then_some(Maker { stage: &instance.stage, kind: instance.kind, outputs })
    }

    /// A stage of a kind; none for commands, whose outputs their parameters name.
    pub(super) fn of_kind(stage: &'a str, kind: StageKind) -> Option<Self> {
        let outputs = kind.outputs().iter().map(|output| (output.name, output.is)).collect();
        (kind != StageKind::Command).then_some(Maker { stage, kind, outputs })
    }

    /// The output that is meant: the one named, or the one that fits the slot. Errors are a message and advice.
    pub(super) fn choose(&self, wanted: Option<&str>, slot: Option<&Slot>) -> Result<String, (String, Option<String>)> {
        let Maker { stage, kind, outputs } = self;
        // What a program writes has no type of its own: it is what it is used as.
        let fits = |is: ArtifactType| slot.is_none_or(|slot| slot.takes == is) || *kind == StageKind::Command;
        let names = || outputs.iter().map(|(name, _)| *name);
        if let Some(wanted) = wanted {
            return match outputs.iter().find(|(name, _)| *name == wanted) {
                None => Err((format!("`{stage}` has no output `{wanted}`"), suggestion(wanted, names()))),
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

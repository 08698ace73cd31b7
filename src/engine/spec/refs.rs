//! References to other stages: `model`, `model/pgd-*`, `fashion.test`, `saturated/64.images`. A bare stage means all its instances.

use globset::GlobBuilder;

use super::expand::Expander;
use super::instance::{Instance, InstanceId};
use super::problem::suggestion;
use crate::kinds::{ArtifactType, Kind, Slot};

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
    /// The stage is there, but no instance fits.
    Instance { message: String, help: Option<String> },
}

impl Expander<'_> {
    /// The instances that a reference means, in their order.
    pub(super) fn find(&self, text: &str) -> Result<Vec<Reference>, Missing> {
        let reference = |instance, output: Option<&str>| Reference {
            instance,
            output: output.map(str::to_owned),
            label: String::new(),
        };
        let Some((stage, tail)) = text.split_once('/') else {
            let (stage, output) = text.split_once('.').map_or((text, None), |(stage, output)| (stage, Some(output)));
            let all = self.of_stage(stage).ok_or_else(|| Missing::Stage(stage.to_owned()))?;
            return Ok(all.iter().map(|id| reference(*id, output)).collect());
        };
        let all = self.of_stage(stage).ok_or_else(|| Missing::Stage(stage.to_owned()))?;
        let matching = |tail: &str| -> Vec<InstanceId> {
            if let Some(id) = self.named(&format!("{stage}/{tail}")) {
                return vec![id];
            }
            match GlobBuilder::new(tail).literal_separator(true).build() {
                Ok(glob) => {
                    let glob = glob.compile_matcher();
                    all.iter().copied().filter(|id| glob.is_match(self.instance(*id).tail())).collect()
                }
                Err(_) => Vec::new(),
            }
        };
        let mut found: Vec<Reference> = matching(tail).into_iter().map(|id| reference(id, None)).collect();
        if found.is_empty()
            && let Some((tail, output)) = tail.rsplit_once('.')
        {
            found = matching(tail).into_iter().map(|id| reference(id, Some(output))).collect();
        }
        if found.is_empty() {
            let names = || all.iter().map(|id| self.instance(*id).name.as_str());
            let (message, help) = if text.contains(['*', '?', '[', '{']) {
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

    /// The output that is meant: the one named, or the one that fits the slot. Errors are a message and advice.
    pub(super) fn choose_output(
        &self,
        instance: &Instance,
        slot: Option<&Slot>,
    ) -> Result<String, (String, Option<String>)> {
        let outputs: Vec<(&str, ArtifactType)> = if instance.kind == Kind::Command {
            instance.outputs.iter().map(|output| (output.name.as_str(), ArtifactType::File)).collect()
        } else {
            instance.kind.outputs().iter().map(|output| (output.name, output.is)).collect()
        };
        // What a program writes has no type of its own: it is what it is used as.
        let fits = |is: ArtifactType| slot.is_none_or(|slot| slot.takes == is) || instance.kind == Kind::Command;
        let names = || outputs.iter().map(|(name, _)| *name);
        if let Some(wanted) = &self.output {
            return match outputs.iter().find(|(name, _)| name == wanted) {
                None => Err((format!("`{}` has no output `{wanted}`", instance.stage), suggestion(wanted, names()))),
                Some((_, is)) if fits(*is) => Ok(wanted.clone()),
                Some((_, is)) => Err((
                    format!(
                        "`{}.{wanted}` is {}; expected {}",
                        instance.stage,
                        is.name(),
                        slot.map_or("a file", |slot| slot.takes.name())
                    ),
                    None,
                )),
            };
        }
        let fitting: Vec<&str> = outputs.iter().filter(|(_, is)| fits(*is)).map(|(name, _)| *name).collect();
        match fitting.as_slice() {
            [only] => Ok((*only).to_owned()),
            [] => {
                let wanted = slot.map_or("a file", |slot| slot.takes.name());
                let makes: Vec<String> =
                    outputs.iter().map(|(name, is)| format!("`{}.{name}`, {}", instance.stage, is.name())).collect();
                let message = format!("`{}`, of kind `{}`, does not make {wanted}", instance.stage, instance.kind);
                Err((message, Some(format!("it makes {}", makes.join("; ")))))
            }
            several => match slot.and_then(|slot| several.iter().find(|name| **name == slot.prefers)) {
                Some(preferred) => Ok((*preferred).to_owned()),
                None => {
                    let choices = several.iter().map(|name| format!("`{}.{name}`", instance.stage)).collect::<Vec<_>>();
                    Err((
                        format!("`{}` has several outputs", instance.stage),
                        Some(format!("name one: {}", choices.join(", "))),
                    ))
                }
            },
        }
    }
}

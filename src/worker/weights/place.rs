//! Locates a network's tensors in a file: the dictionary and the prefix (`state_dict.module.`).
//!
//! One rule serves every file format, by names and shapes alone. Knows neither file formats nor networks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::{ListedTensor, normalisation};

/// A tensor to find.
#[derive(Debug, Clone)]
pub struct WantedTensor {
    /// Its name.
    pub name: String,
    /// Its shape, if known.
    pub shape: Option<Vec<i64>>,
    /// Whether it holds whole numbers, such as positions; else it holds floats.
    pub is_whole: bool,
}

/// Tensors allowed beside the wanted ones, in the same dictionary and under the same prefix.
#[derive(Debug, Clone, Copy)]
pub(super) enum Neighbours<'a> {
    /// Anything.
    All,
    /// Numbers, training states, and the layer of this name, if any.
    Layer(Option<&'a str>),
}

/// A place that holds all wanted tensors.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) prefix: String,
    /// For each wanted tensor, in order, its index in the file.
    pub(super) numbers: Vec<usize>,
}

/// How a file's tensors differ from the wanted ones, at the best-matching place.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Misfit {
    wanted: usize,
    fit: usize,
    prefix: String,
    /// The first one, and the total number.
    missing: Option<(String, usize)>,
    nearest: Option<String>,
    other: Option<(String, usize)>,
    unknown: Option<(String, usize)>,
    /// The common prefix of all names in the file, and the first name.
    common: String,
    first: Option<String>,
    first_wanted: String,
    /// Only the last layer has another shape.
    only_head: bool,
    /// The architecture whose names the file has, if it is another one.
    seems: Option<&'static str>,
}

/// Name parts that wrappers insert at any position.
const WRAPPERS: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// Entries that trainings save beside the weights.
const TRAINING: [&str; 20] = [
    "optimizer",
    "optimizers",
    "optimizer_state_dict",
    "optimizer_states",
    "optim",
    "opt",
    "scheduler",
    "schedulers",
    "lr_scheduler",
    "lr_schedulers",
    "scaler",
    "amp",
    "ema",
    "model_ema",
    "ema_model",
    "state_dict_ema",
    "swa",
    "epoch",
    "rng_state",
    "callbacks",
];

/// Modules that public code saves with a network and never uses in it: a second copy of the first group (TRADES and its
/// copies), and a probe of the first layers that shares their tensors (Andriushchenko and Flammarion 2020).
const UNUSED: [&str; 2] = ["sub_block1", "model_preact_hl1"];

/// A tensor of each architecture that no other has, and how a pipeline writes it.
const SIGNS: [(&str, &str); 8] = [
    ("init_conv.weight", "arch: dm_wide_resnet"),
    ("block1.layer.0.conv1.weight", "arch: wideresnet"),
    ("patch_embed.proj.weight", "arch: vit"),
    ("stages.0.blocks.0.conv_dw.weight", "arch: convnext"),
    ("layer2.0.downsample.0.weight", "a ResNet with stem: imagenet"),
    ("layer2.0.shortcut.1.weight", "a ResNet with stem: cifar"),
    ("bn.weight", "arch: preact_resnet18, build: rice"),
    ("layer2.0.shortcut.0.weight", "arch: preact_resnet18"),
];

/// Returns the names of a file without wrapper parts, each with its index.
pub(super) fn names(listed: &[ListedTensor]) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for (number, listed) in listed.iter().enumerate() {
        let bare: Vec<&str> = listed.name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
        let bare = bare.join(".");
        let name = if names.contains_key(&bare) { listed.name.clone() } else { bare };
        names.insert(name, number);
    }
    names
}

/// Returns every place with all wanted tensors and no disallowed neighbours, or else how the best place differs.
///
/// `entry` limits the search to names under it.
pub(super) fn find(
    listed: &[ListedTensor],
    wanted: &[WantedTensor],
    beside: Neighbours<'_>,
    entry: Option<&str>,
) -> Result<Vec<Place>, Box<Misfit>> {
    let mut names = names(listed);
    if let Some(entry) = entry {
        let under = format!("{}.", entry.trim_end_matches('.'));
        names.retain(|name, _| name.starts_with(&under));
    }
    let tallies = tallies(&names, listed, wanted);
    let full = tallies.iter().filter(|(_, tally)| tally.fit == wanted.len()).map(|(prefix, _)| *prefix);
    let places: Vec<Place> = full
        .filter(|prefix| strangers(&names, listed, wanted, prefix, beside).next().is_none())
        .map(|prefix| {
            let numbers = wanted.iter().filter_map(|wanted| names.get(&format!("{prefix}{}", wanted.name)).copied());
            Place { prefix: prefix.to_owned(), numbers: numbers.collect() }
        })
        .collect();
    if places.is_empty() { Err(Box::new(misfit(&names, listed, wanted, &tallies, beside))) } else { Ok(places) }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Tally {
    fit: usize,
    named: usize,
}

fn fits(listed: &ListedTensor, wanted: &WantedTensor) -> bool {
    listed.kind.is_some_and(|kind| super::is_floating(kind) != wanted.is_whole)
        && wanted.shape.as_ref().is_none_or(|shape| *shape == listed.shape)
}

/// Counts, for each prefix, the wanted names under it and those that fit.
fn tallies<'a>(
    names: &'a BTreeMap<String, usize>,
    listed: &[ListedTensor],
    wanted: &[WantedTensor],
) -> BTreeMap<&'a str, Tally> {
    let by_name: HashMap<&str, &WantedTensor> = wanted.iter().map(|wanted| (wanted.name.as_str(), wanted)).collect();
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for (name, &number) in names {
        for start in std::iter::once(0).chain(name.match_indices('.').map(|(at, _)| at + 1)) {
            if let Some(wanted) = by_name.get(&name[start..]) {
                let tally = tallies.entry(&name[..start]).or_default();
                tally.named += 1;
                tally.fit += usize::from(fits(&listed[number], wanted));
            }
        }
    }
    tallies
}

/// Returns the disallowed neighbours at a place, without the prefix.
fn strangers<'a>(
    names: &'a BTreeMap<String, usize>,
    listed: &'a [ListedTensor],
    wanted: &'a [WantedTensor],
    prefix: &'a str,
    beside: Neighbours<'a>,
) -> impl Iterator<Item = &'a str> {
    let known: BTreeSet<&str> = wanted.iter().map(|wanted| wanted.name.as_str()).collect();
    let under = names
        .range(prefix.to_owned()..)
        .map(|(name, &number)| (name, number))
        .take_while(move |(name, _)| name.starts_with(prefix))
        .map(move |(name, number)| (&name[prefix.len()..], number));
    let dictionaries: BTreeSet<usize> = wanted
        .iter()
        .filter_map(|wanted| names.get(&format!("{prefix}{}", wanted.name)))
        .map(|&number| listed[number].dictionary)
        .collect();
    under
        .filter(move |(name, number)| {
            let listed = &listed[*number];
            let is_layer =
                |layer: &str| name.strip_prefix(layer).is_some_and(|rest| matches!(rest, ".weight" | ".bias"));
            let is_number =
                listed.shape.is_empty() || (!name.contains('.') && listed.shape.iter().product::<i64>() == 1);
            let may_stand = match beside {
                Neighbours::All => true,
                Neighbours::Layer(layer) => {
                    layer.is_some_and(is_layer)
                        || is_number
                        || name.ends_with("num_batches_tracked")
                        || !dictionaries.contains(&listed.dictionary)
                        || TRAINING.contains(&name.split('.').next().unwrap_or_default())
                        || UNUSED.contains(&name.split('.').next().unwrap_or_default())
                        || normalisation::is_part(name)
                }
            };
            !known.contains(name) && !may_stand
        })
        .map(|(name, _)| name)
}

fn misfit(
    names: &BTreeMap<String, usize>,
    listed: &[ListedTensor],
    wanted: &[WantedTensor],
    tallies: &BTreeMap<&str, Tally>,
    beside: Neighbours<'_>,
) -> Misfit {
    let best = tallies.iter().max_by_key(|(prefix, tally)| (**tally, std::cmp::Reverse(prefix.len())));
    let (prefix, fit) = best.map_or(("", 0), |(prefix, tally)| (*prefix, tally.fit));
    let at = |wanted: &WantedTensor| names.get(&format!("{prefix}{}", wanted.name)).map(|&number| &listed[number]);
    let counted = |mut items: Vec<String>| {
        let count = items.len();
        (count > 0).then(|| (items.swap_remove(0), count))
    };
    let missing: Vec<&WantedTensor> = wanted.iter().filter(|wanted| at(wanted).is_none()).collect();
    let nearest = missing.first().and_then(|missing| nearest(missing, names, listed));
    let other: Vec<(&WantedTensor, &ListedTensor)> = wanted
        .iter()
        .filter_map(|wanted| Some((wanted, at(wanted)?)))
        .filter(|(wanted, found)| !fits(found, wanted))
        .collect();
    let told = |(wanted, found): &(&WantedTensor, &ListedTensor)| match (&wanted.shape, found.kind) {
        (Some(shape), Some(kind)) if super::is_floating(kind) != wanted.is_whole => {
            format!("`{}` is {:?} in the file and {shape:?} in the network", wanted.name, found.shape)
        }
        (_, Some(kind)) if wanted.is_whole => format!("`{}` is of type {kind:?}, not whole numbers", wanted.name),
        (_, Some(kind)) => format!("`{}` is of type {kind:?}, not a floating one", wanted.name),
        (_, None) => format!("`{}` is of a type that is not read", wanted.name),
    };
    let unknown: Vec<String> = strangers(names, listed, wanted, prefix, beside).map(str::to_owned).collect();
    let heads: BTreeSet<&str> =
        other.iter().filter_map(|(wanted, _)| wanted.name.rsplit_once('.')).map(|(layer, _)| layer).collect();
    Misfit {
        wanted: wanted.len(),
        fit,
        prefix: prefix.to_owned(),
        nearest,
        only_head: missing.is_empty() && unknown.is_empty() && heads.len() == 1 && wanted.len() > 2,
        missing: counted(missing.iter().map(|wanted| wanted.name.clone()).collect()),
        other: counted(other.iter().map(told).collect()),
        unknown: counted(unknown),
        common: common(names),
        first: names.keys().next().cloned(),
        first_wanted: wanted.first().map(|wanted| wanted.name.clone()).unwrap_or_default(),
        seems: seems(names, wanted),
    }
}

/// Returns the name in the file closest to a missing one: same shape, and the most matching name parts at the end.
fn nearest(missing: &WantedTensor, names: &BTreeMap<String, usize>, listed: &[ListedTensor]) -> Option<String> {
    let alike = |name: &str| {
        let ends = name.rsplit('.').zip(missing.name.rsplit('.')).take_while(|(a, b)| a == b).count();
        let starts = name.bytes().zip(missing.name.bytes()).take_while(|(a, b)| a == b).count();
        (ends, starts)
    };
    let same_shape = |number: usize| missing.shape.as_ref().is_none_or(|shape| *shape == listed[number].shape);
    let candidates = names.iter().filter(|(_, number)| same_shape(**number));
    candidates
        .map(|(name, _)| (alike(name), name))
        .filter(|((ends, _), _)| *ends > 0)
        .max()
        .map(|(_, name)| name.clone())
}

/// Returns the architecture whose names a file has, if the wanted names are not of that one.
fn seems(names: &BTreeMap<String, usize>, wanted: &[WantedTensor]) -> Option<&'static str> {
    let ends_in =
        |name: &str, sign: &str| name.strip_suffix(sign).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let found = SIGNS.iter().find(|(sign, _)| names.keys().any(|name| ends_in(name, sign)))?;
    wanted.iter().all(|wanted| wanted.name != found.0).then_some(found.1)
}

/// Returns the longest common prefix of all names that ends in a dot, or an empty text.
fn common(names: &BTreeMap<String, usize>) -> String {
    let (Some((first, _)), Some((last, _))) = (names.first_key_value(), names.last_key_value()) else {
        return String::new();
    };
    let length = first.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
    first.get(..length).and_then(|same| same.rfind('.')).map(|end| first[..=end].to_owned()).unwrap_or_default()
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} tensors of the network fit", self.fit, self.wanted)?;
        if !self.prefix.is_empty() {
            write!(f, ", under `{}`", self.prefix)?;
        }
        if let Some((name, count)) = &self.missing {
            write!(f, "; {count} are missing, the first is `{name}`")?;
            match (&self.nearest, &self.first) {
                (Some(nearest), _) => write!(f, " (nearest in the file: `{nearest}`)")?,
                (None, Some(first)) => write!(f, " (the first in the file is `{first}`)")?,
                (None, None) => write!(f, " (the file has no tensors there)")?,
            }
        }
        if let Some((told, count)) = &self.other {
            write!(f, "; {count} are otherwise: {told}")?;
        }
        if let Some((name, count)) = &self.unknown {
            write!(f, "; {count} of the file are not in the network, the first is `{name}`")?;
        }
        if self.prefix.is_empty() && !self.common.is_empty() {
            write!(f, "; the file's names start with `{}`, the network's with `{}`", self.common, self.first_wanted)?;
        }
        if let Some(arch) = self.seems {
            write!(f, "; its names are those of `{arch}`")?;
        }
        if self.only_head {
            write!(f, "; `pretrained: {{head: replace}}` takes all but the last layer")?;
        }
        Ok(())
    }
}

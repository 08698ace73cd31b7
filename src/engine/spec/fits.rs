//! Checks a stage's parameters and needs against the images, networks and classes of its inputs.
//!
//! Uses only what the pipeline itself states. If a data set's classes are in the file, an attack that needs more fails
//! before training. Facts that only an archive holds are checked when the stage runs.

use serde::Deserialize;
use serde_json::Value as Json;

use super::diagnostics::Diagnostics;
use super::expand::Expander;
use super::instance::{Instance, Need};
use super::origin::Origin;
use super::source::{Part, Place, Step};
use super::stage::StageSpec;
use super::validate::key;
use crate::stage_kinds::{Attack, Demand, ImageSide, Member, Net, Radius, StageKind};

/// Minimum side in pixels that AdaIN's networks accept.
const LEAST_SIDE_OF_STYLE: u64 = 9;

/// The most classes that any attack needs.
const MOST_CLASSES_NEEDED: u64 = Member::ApgdT.needs_classes() as u64;

/// Facts about a set's images that are known before anything runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Set {
    channels: Option<u64>,
    classes: Option<u64>,
    /// Height and width as every reader sees them.
    seen: Option<[u64; 2]>,
    /// The shorter side as stored; random crops take their windows from it.
    shortest: Option<u64>,
    /// Whether the data set's split leaves this part empty.
    is_empty: bool,
}

/// Facts about a model that are known before anything runs.
#[derive(Debug, Clone, Copy, Default)]
struct Model {
    channels: Option<u64>,
    classes: Option<u64>,
    /// The number of logits, which may exceed the number of classes.
    logits: Option<u64>,
}

/// Checks an instance against the known facts about its inputs.
pub(super) fn check(
    expander: &Expander,
    stage: &StageSpec,
    instance: &Instance,
    origin: &Origin,
    notes: &mut Diagnostics,
) {
    let mut checker = Checker { expander, stage, instance, origin, notes };
    match instance.kind {
        StageKind::Train => checker.training(),
        StageKind::Evaluate => {
            checker.models_see_sets("model", "set");
            checker.models_see_sets("source", "set");
            let attacked = if instance.need("source").is_some() { "source" } else { "model" };
            checker.attack(&["attack"], checker.logits(attacked), attacked);
            checker.transfer();
            checker.radii();
        }
        StageKind::Masking => {
            checker.models_see_sets("model", "set");
            checker.classes_for_square();
        }
        StageKind::Saliency => {
            checker.models_see_sets("models", "set");
            checker.feature_maps();
            checker.similarity();
        }
        StageKind::FourierMap => checker.models_see_sets("models", "set"),
        StageKind::WorstCase => checker.worst_case(),
        StageKind::Pretrained => checker.network(),
        StageKind::Randomised => checker.layers(),
        StageKind::Transform => checker.transform(),
        _ => {}
    }
}

impl Expander<'_> {
    /// Returns the known facts about the images of a need. A command may produce any images.
    fn set(&self, need: &Need) -> Set {
        let mut need = need;
        let mut is_changed = false;
        loop {
            let made = self.instance(need.from);
            match made.kind {
                StageKind::Dataset => {
                    let set = dataset(&made.params, &need.output);
                    // A transformed set stores its images as readers see them.
                    let shortest =
                        if is_changed { set.seen.map(|[height, width]| height.min(width)) } else { set.shortest };
                    return Set { shortest, ..set };
                }
                StageKind::Transform => {
                    is_changed |= text(&made.params, "op") != Some("sample");
                    match made.need("data") {
                        Some(data) => need = data,
                        None => return Set::default(),
                    }
                }
                _ => return Set::default(),
            }
        }
    }

    /// Returns the instance that made the model of a need; of a randomised one that which made the model it is from.
    fn maker(&self, need: &Need) -> &Instance {
        let mut made = self.instance(need.from);
        while made.kind == StageKind::Randomised
            && let Some(model) = made.need("model")
        {
            made = self.instance(model.from);
        }
        made
    }

    /// Returns the known facts about the model of a need.
    fn model(&self, need: &Need) -> Model {
        let made = self.maker(need);
        let makes_model = matches!(made.kind, StageKind::Train | StageKind::Pretrained);
        let Some(data) = made.need("data").filter(|_| makes_model) else { return Model::default() };
        let set = self.set(data);
        let own = made.params.pointer("/net/classes").and_then(Json::as_u64);
        Model { channels: set.channels, classes: set.classes, logits: own.or(set.classes) }
    }
}

/// Reads the image facts from a data set's canonical parameters.
///
/// Inspects the JSON without deserializing it: large matrices call this for every instance.
fn dataset(params: &Json, output: &str) -> Set {
    let number = |name: &str| params.get(name).and_then(Json::as_u64);
    let square = |side: Option<u64>| side.map(|side| [side, side]);
    let share = params.get("test_share").and_then(Json::as_f64);
    let is_empty = share == Some(if output == "train" { 1.0 } else { 0.0 });
    let three = Set { channels: Some(3), is_empty, ..Set::default() };
    match text(params, "format") {
        Some("idx") => {
            let classes = params.get("classes").and_then(Json::as_array).map(|names| names.len() as u64);
            Set { channels: Some(1), classes, ..Set::default() }
        }
        Some("npz" | "npy") => {
            let classes = params.get("classes").and_then(Json::as_array).map(|names| names.len() as u64);
            Set { classes, ..Set::default() }
        }
        Some("parquet") => {
            let classes = params.get("classes").and_then(Json::as_array).map(|names| names.len() as u64);
            let (resize, crop) = (number("resize"), number("center_crop"));
            Set { classes, seen: square(crop), shortest: crop.or(resize), ..three }
        }
        Some("cifar10") => Set { classes: Some(10), seen: Some([32, 32]), shortest: Some(32), ..three },
        Some("tiny_imagenet") => Set { seen: square(number("resize")), ..three },
        Some("caltech256") => {
            let (resize, crop) = (number("resize"), number("center_crop"));
            Set { seen: square(crop), shortest: if output == "train" { resize } else { crop }, ..three }
        }
        Some("image_folder") => {
            let flag = |name: &str| params.get(name).and_then(Json::as_bool).unwrap_or(false);
            let (resize, crop) = (number("resize"), number("center_crop"));
            let is_whole = flag("whole") && output == "train";
            let classes = (text(params, "classes") == Some("none")).then_some(1);
            let seen = square(crop.or(resize.filter(|_| flag("square"))));
            Set { classes, seen, shortest: if is_whole { resize } else { crop.or(resize) }, ..three }
        }
        _ => Set::default(),
    }
}

fn text<'a>(params: &'a Json, name: &str) -> Option<&'a str> {
    params.get(name).and_then(Json::as_str)
}

/// Returns the network of a training that takes only images of some sizes or has no feature maps.
fn net(params: &Json) -> Option<Net> {
    let net = params.get("net")?;
    matches!(text(net, "arch"), Some("vit" | "convnext" | "torchscript")).then(|| Net::deserialize(net).ok()).flatten()
}

/// Says how the images that a network sees differ from those that it takes.
fn side_clash(net: &Net, [height, width]: [u64; 2]) -> Option<String> {
    let wanted = match net.image_side()? {
        ImageSide::Exactly(side) if [height, width] != [u64::from(side); 2] => format!("{side} × {side}"),
        ImageSide::AtLeast(side) if height.min(width) < u64::from(side) => format!("at least {side} × {side}"),
        _ => return None,
    };
    Some(format!("{height} × {width} pixels, and the network takes {wanted}"))
}

struct Checker<'a, 'n> {
    expander: &'a Expander<'a>,
    stage: &'a StageSpec,
    instance: &'a Instance,
    origin: &'a Origin<'a>,
    notes: &'n mut Diagnostics,
}

impl Checker<'_, '_> {
    /// The radii of an evaluation are a coordinate, and so are its axes.
    fn radii(&mut self) {
        let has_list = self.instance.params.get("eps").is_some();
        if has_list && self.stage.matrix.iter().any(|axis| axis.name == Radius::COORDINATE) {
            let message =
                "`eps` lists radii, which are the coordinate `eps` of this stage, and so is an axis of its matrix";
            self.tell(&["eps"], message.to_owned(), "two of one name", Some("give the axis another name"));
        }
    }

    /// Several evaluations, and of one model.
    fn worst_case(&mut self) {
        let needs = &self.instance.needs;
        if needs.len() == 1 {
            let message = format!("a worst case is of several evaluations, and {} is one", self.shown(&needs[0]));
            self.tell_at(self.need_place("results"), message, "only one", Some("name others beside it"));
        }
        let model = |need: &Need| {
            let model = self.expander.instance(need.from).need("model")?;
            Some((model.from, model.output.clone()))
        };
        let models: Vec<(&Need, _)> = needs.iter().filter_map(|need| Some((need, model(need)?))).collect();
        let Some((first, of)) = models.first() else { return };
        if let Some((other, _)) = models.iter().find(|(_, model)| model != of) {
            let message = format!("{} and {} are of different models", self.shown(first), self.shown(other));
            let help = "a worst case is of one model: make it an axis, and name its evaluations by `${model.label}`";
            self.tell_at(self.need_place("results"), message, "of several models", Some(help));
        }
    }

    fn training(&mut self) {
        let Some(data) = self.instance.need("data").cloned() else { return };
        let (set, shown) = (self.expander.set(&data), self.shown(&data));
        let params = &self.instance.params;
        if set.is_empty {
            let message = format!("{shown} has no images to train on: all of them are for testing");
            self.tell_at(self.need_place("data"), message, "empty", Some("lower the `test_share` of the data set"));
        }
        self.network();
        let own = params.pointer("/net/classes").and_then(Json::as_u64);
        let crop = params.pointer("/augmentation/random_crop").and_then(Json::as_u64).unwrap_or(0);
        let seen = if crop > 0 { Some([crop, crop]) } else { set.seen };
        if let Some(clash) = net(params).zip(seen).and_then(|(net, seen)| side_clash(&net, seen)) {
            let whose = if crop > 0 { "`augmentation.random_crop` makes images of" } else { "images have" };
            self.tell(&["net"], format!("{whose} {clash}"), "another size", None);
        }
        if let Some(shortest) = set.shortest.filter(|shortest| crop > *shortest) {
            let message =
                format!("`augmentation.random_crop` takes {crop} pixels a side, and images of {shown} have {shortest}");
            self.tell(&["augmentation", "random_crop"], message, "larger than the images", None);
        }
        if let Some(validation) = self.instance.need("validation").cloned() {
            let other = self.expander.set(&validation);
            if other.is_empty {
                let message = format!("{} has no images to measure an accuracy on", self.shown(&validation));
                self.tell_at(
                    self.need_place("validation"),
                    message,
                    "empty",
                    Some("raise the `test_share` of the data set"),
                );
            }
            if let Some(clash) = clash((set.channels, set.classes), (other.channels, other.classes)) {
                let told = format!("{shown}, which it is trained on,");
                self.clash(clash, &told, &self.shown(&validation), "validation");
            }
        }
        let logits = own.or(set.classes);
        for trail in [&["adversary"][..], &["overfitting_check", "attack"], &["holdout", "attack"]] {
            self.attack(trail, logits, "network");
        }
    }

    /// Checks that the network has a mean and a deviation for each channel of the images, and a logit for each class.
    fn network(&mut self) {
        let Some(data) = self.instance.need("data").cloned() else { return };
        let (set, shown) = (self.expander.set(&data), self.shown(&data));
        let params = &self.instance.params;
        for name in ["mean", "std"] {
            let numbers = params.pointer(&format!("/net/{name}")).and_then(Json::as_array).map_or(0, Vec::len) as u64;
            if let Some(channels) = set.channels.filter(|channels| numbers > 0 && numbers != *channels) {
                let message = format!(
                    "`net.{name}` has {}, and {shown} has {}",
                    count(numbers, "number"),
                    count(channels, "channel")
                );
                self.tell(
                    &["net", name],
                    message,
                    "does not fit the images",
                    Some("write one number for every channel"),
                );
            }
        }
        let own = params.pointer("/net/classes").and_then(Json::as_u64);
        if let Some((own, classes)) = own.zip(set.classes).filter(|(own, classes)| own < classes) {
            let message = format!("`net.classes` is {own}, and {shown} has {}", count(classes, "class"));
            self.tell(&["net", "classes"], message, "too few", Some("remove it, or raise it"));
        }
    }

    fn transform(&mut self) {
        let Some(data) = self.instance.need("data").cloned() else { return };
        let (set, shown) = (self.expander.set(&data), self.shown(&data));
        let params = &self.instance.params;
        let k = params.get("k").and_then(Json::as_u64).filter(|k| *k > 0);
        if let Some((k, [height, width])) = k.zip(set.seen)
            && (height % k > 0 || width % k > 0)
        {
            let message = format!(
                "`k` must divide the height and the width of the images: {k} does not divide \
                 {height} × {width} of {shown}"
            );
            self.tell(&["k"], message, "leaves a rest", None);
        }
        let op = text(params, "op").unwrap_or_default();
        if ["stylize", "cue_conflict"].contains(&op) {
            for need in [Some(data), self.instance.need("style").cloned()].into_iter().flatten() {
                let side = self.expander.set(&need).seen.map(|[height, width]| height.min(width));
                if let Some(side) = side.filter(|side| *side < LEAST_SIDE_OF_STYLE) {
                    let shown = self.shown(&need);
                    let message = format!(
                        "images of {shown} have {side} pixels a side; `{op}` needs at least {LEAST_SIDE_OF_STYLE}"
                    );
                    self.tell(&["op"], message, "images too small", None);
                }
            }
            if op == "cue_conflict" && set.classes == Some(1) {
                let message =
                    format!("the images of {shown} are all of one class, so none can wear the texture of another");
                self.tell(&["op"], message, "needs two classes", None);
            }
        }
    }

    /// Checks that the model has as many logits as the attack compares.
    fn attack(&mut self, trail: &[&str], logits: Option<u64>, whose: &str) {
        // Most networks have enough for any attack.
        let Some(logits) = logits.filter(|logits| *logits < MOST_CLASSES_NEEDED) else { return };
        let Some(attack) = trail.iter().try_fold(&*self.instance.params, |params, name| params.get(name)) else {
            return;
        };
        let Ok(attack) = Attack::deserialize(attack) else { return };
        let Some(Demand { attack, classes: needed, parameter }) = attack.most_demanding() else { return };
        if logits >= u64::from(needed) {
            return;
        }
        let trail: Vec<&str> = trail.iter().copied().chain([parameter]).collect();
        let message = format!("the attack `{attack}` needs {needed} classes, and the {whose} has {logits}");
        self.tell(&trail, message, "too few classes", Some("choose an attack or a loss that needs fewer"));
    }

    /// Checks that there is an attack to make on the network of `source`.
    fn transfer(&mut self) {
        let is_attacked = text(&self.instance.params["attack"], "attack") != Some("none");
        if self.instance.need("source").is_some() && !is_attacked {
            let message = "`source` is the network that an attack is made on, and there is no attack";
            let help = "add an `attack`, or remove `source`";
            self.tell_at(self.need_place("source"), message.to_owned(), "without an attack", Some(help));
        }
    }

    /// Checks the classes for the gradient-free attack of the gradient-masking checks.
    fn classes_for_square(&mut self) {
        let needed = u64::from(Member::Square.needs_classes());
        if let Some(logits) = self.logits("model").filter(|logits| *logits < needed) {
            let message = format!("a check for masked gradients needs {needed} classes, and the model has {logits}");
            self.tell_at(self.need_place("model"), message, "too few classes", None);
        }
    }

    fn logits(&self, slot: &str) -> Option<u64> {
        self.instance.need(slot).and_then(|need| self.expander.model(need).logits)
    }

    /// Checks that every model accepts the images of every set and has its number of classes.
    fn models_see_sets(&mut self, models: &str, sets: &str) {
        let mut found = None;
        for model in self.instance.needs.iter().filter(|need| need.slot == models) {
            let known = self.expander.model(model);
            for need in self.instance.needs.iter().filter(|need| need.slot == sets) {
                let set = self.expander.set(need);
                let clash = clash((known.channels, known.classes), (set.channels, set.classes));
                found = found.or(clash.map(|clash| (clash, model, need)));
            }
        }
        self.sides(models, sets);
        if let Some((clash, model, need)) = found {
            let told = format!("`{}`", self.expander.instance(model.from).name);
            self.clash(clash, &told, &self.shown(need), sets);
        }
    }

    /// Checks the size of the images that every model sees.
    fn sides(&mut self, models: &str, sets: &str) {
        let instance = self.instance;
        for model in instance.needs.iter().filter(|need| need.slot == models) {
            let Some(net) = net(&self.expander.maker(model).params) else { continue };
            for need in instance.needs.iter().filter(|need| need.slot == sets) {
                if let Some(clash) = self.expander.set(need).seen.and_then(|seen| side_clash(&net, seen)) {
                    let message = format!("images of {} have {clash}", self.shown(need));
                    self.tell_at(self.need_place(sets), message, "another size", None);
                }
            }
        }
    }

    /// Checks that the layers to randomise are those of a network of this program.
    fn layers(&mut self) {
        let Some(need) = self.instance.need("model") else { return };
        let made = self.expander.maker(need);
        if net(&made.params).is_some_and(|net| net.is_script()) {
            let message = format!("the network of `{}` is a TorchScript file, which has no initial weights", made.name);
            self.tell_at(self.need_place("model"), message, "cannot be randomised", None);
        }
    }

    /// Checks that there are two models whose maps can be alike.
    fn similarity(&mut self) {
        let models = self.instance.needs.iter().filter(|need| need.slot == "models").count();
        if models < 2 && self.instance.params.get("similarity").and_then(Json::as_bool) == Some(true) {
            let message = "`similarity` compares maps of two models or more, and there is one".to_owned();
            self.tell(&["similarity"], message, "nothing to compare", Some("remove it, or name other `models`"));
        }
    }

    /// Checks that Grad-CAM has feature maps to weigh.
    fn feature_maps(&mut self) {
        let instance = self.instance;
        if instance.params.pointer("/method/name").and_then(Json::as_str) != Some("grad_cam") {
            return;
        }
        for need in instance.needs.iter().filter(|need| need.slot == "models") {
            let model = self.expander.instance(need.from);
            if net(&self.expander.maker(need).params).is_some_and(|net| !net.has_feature_maps()) {
                let message = format!("Grad-CAM weighs feature maps, and the network of `{}` has none", model.name);
                let help = "choose another method: grad, smoothgrad, integrated_gradients";
                self.tell(&["method"], message, "needs feature maps", Some(help));
            }
        }
    }

    fn clash(&mut self, clash: Clash, one: &str, other: &str, slot: &str) {
        let (a, b, of, label) = match clash {
            Clash::Channels(a, b) => (a, b, "channel", "other channels"),
            Clash::Classes(a, b) => (a, b, "class", "other classes"),
        };
        let message = format!("{one} has {}, and {other} has {}", count(a, of), count(b, of));
        self.tell_at(self.need_place(slot), message, label, None);
    }

    /// Returns the name of a set for messages.
    fn shown(&self, need: &Need) -> String {
        let made = self.expander.instance(need.from);
        let output = if made.outputs.len() > 1 { format!(".{}", need.output) } else { String::new() };
        format!("`{}{output}`", made.name)
    }

    /// Returns where a need is written: under `needs`, or at the axis that fills it.
    fn need_place(&self, slot: &str) -> Place {
        let path = if self.stage.needs.iter().any(|(name, _)| name == slot) {
            self.stage.path.key("needs").key(slot)
        } else {
            self.stage.path.key("matrix").key(slot)
        };
        Place::value(&self.stage.file, path)
    }

    fn tell(&mut self, trail: &[&str], message: String, label: &str, help: Option<&str>) {
        let trail: Vec<Step> = trail.iter().map(|name| key(name)).collect();
        self.tell_at(self.origin.place(&trail, Part::Value), message, label, help);
    }

    /// Reports once per place and label: the other instances of the matrix would repeat it.
    fn tell_at(&mut self, place: Place, message: String, label: &str, help: Option<&str>) {
        let is_told = |known: &super::problem::Problem| known.label == label && known.place.as_ref() == Some(&place);
        if !self.notes.problems.iter().any(is_told) {
            self.notes.tell_at(place, message, label, help.map(str::to_owned));
        }
    }
}

/// Two numbers that should be equal.
#[derive(Clone, Copy)]
enum Clash {
    Channels(u64, u64),
    Classes(u64, u64),
}

/// Returns the first mismatch between two (channels, classes) pairs, as far as they are known.
fn clash(one: (Option<u64>, Option<u64>), other: (Option<u64>, Option<u64>)) -> Option<Clash> {
    let differ = |(a, b): (u64, u64)| (a != b).then_some((a, b));
    let channels = one.0.zip(other.0).and_then(differ).map(|(a, b)| Clash::Channels(a, b));
    channels.or_else(|| one.1.zip(other.1).and_then(differ).map(|(a, b)| Clash::Classes(a, b)))
}

fn count(number: u64, of: &str) -> String {
    match (number, of) {
        (1, _) => format!("1 {of}"),
        (_, "class") => format!("{number} classes"),
        _ => format!("{number} {of}s"),
    }
}

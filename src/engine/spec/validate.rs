//! Checks parameters beyond the schema: combinations, the form of digests and file names.
//!
//! If some of a stage's parameters are already invalid, the others are checked one by one.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_yaml::Value;

use super::origin::Origin;
use super::poison::has_unknown;
use super::problem::Problem;
use super::shown;
use super::source::{Part, Step, YamlPath};
use crate::address::Address;
use crate::fetch::{self, FetchError};
use crate::number::Real;
use crate::stage_kinds::{
    Attack, Augmentation, Classes, CommandOutput, DatasetParams, EvaluateParams, Fgsm, Folder, Fourier, HeadWeights,
    Images, Mask, MaskingParams, Net, NetProblem, PretrainedParams, RadiiProblem, Run, Source, StageKind, Text,
    TrainParams, TrainingMethod,
};

/// Collects the problems of a stage's parameters.
pub(super) struct Validator<'a> {
    origin: &'a Origin<'a>,
    pub problems: Vec<Problem>,
}

/// Returns the path step to a key.
pub(super) fn key(name: &str) -> Step {
    Step::Key(name.to_owned())
}

/// Paths to the sources of data sets, for all formats.
const SOURCES: [&[&str]; 7] = [
    &["archive"],
    &["train", "images"],
    &["train", "labels"],
    &["train", "archive"],
    &["test", "images"],
    &["test", "labels"],
    &["test", "archive"],
];

/// Reads a part of the parameters, if it is present and valid.
pub(super) fn part<T: DeserializeOwned>(value: &Value, names: &[&str]) -> Option<T> {
    let value = names.iter().try_fold(value, |value, name| value.get(name))?;
    if has_unknown(value) { None } else { T::deserialize(value).ok() }
}

impl<'a> Validator<'a> {
    pub(super) fn new(origin: &'a Origin<'a>) -> Self {
        Validator { origin, problems: Vec::new() }
    }

    pub(super) fn problem(&mut self, trail: &[Step], message: impl Into<String>, help: Option<&str>) {
        let mut problem = Problem::at(self.origin.place(trail, Part::Value), message, "here");
        problem.help = help.map(str::to_owned);
        self.problems.push(problem);
    }

    /// Checks the valid parts of parameters that are invalid as a whole.
    pub(super) fn of_parts(&mut self, kind: StageKind, value: &Value) {
        match kind {
            StageKind::Dataset => {
                for names in SOURCES {
                    if let Some(source) = part(value, names) {
                        self.check_source(&source, &names.iter().map(|name| key(name)).collect::<Vec<_>>());
                    }
                }
                self.check_crop(part(value, &["resize"]), part(value, &["center_crop"]));
            }
            StageKind::File => _ = part(value, &["source"]).map(|source| self.check_source(&source, &[key("source")])),
            StageKind::Transform => {
                let there = |name: &str| value.get(name).is_some().then(|| Real::new(0.0));
                if let Some(filter) = part(value, &["filter"]) {
                    let (radius, p) = (there("radius"), there("p"));
                    self.check_fourier(&Fourier { filter, mask: Mask::default(), radius, p });
                }
            }
            StageKind::Train => {
                _ = part(value, &["net"]).map(|net| self.check_net(&net));
                let adversary: Option<Attack> = part(value, &["adversary"]);
                if let Some(adversary) = &adversary {
                    self.check_attack("adversary", adversary);
                }
                for names in [["overfitting_check", "attack"], ["holdout", "attack"]] {
                    _ = part(value, &names).map(|attack| self.check_attack(&names.join("."), &attack));
                }
                _ = part(value, &["augmentation"]).map(|augmentation| self.check_augmentation(&augmentation));
                if let (Some(method), Some(adversary)) = (part(value, &["method"]), &adversary) {
                    self.check_method(&method, adversary);
                }
            }
            StageKind::Pretrained => _ = part(value, &["net"]).map(|net| self.check_net(&net)),
            StageKind::Evaluate => {
                if let Some(attack) = part(value, &["attack"]) {
                    self.check_attack("attack", &attack);
                    self.check_reach(&attack);
                }
            }
            StageKind::Saliency => _ = part(value, &["images"]).map(|images| self.check_images(&images)),
            StageKind::Command => {
                _ = part(value, &["outputs"]).map(|outputs| self.check_outputs(&outputs));
                _ = part(value, &["run"]).map(|run| self.check_run(&run));
            }
            StageKind::Masking => _ = part(value, &[]).map(|params| self.check_masking(&params)),
            StageKind::Randomised
            | StageKind::WorstCase
            | StageKind::FourierMap
            | StageKind::Table
            | StageKind::Figure => {}
        }
    }

    pub(super) fn check_source(&mut self, source: &Source, trail: &[Step]) {
        if source.is_folder {
            return;
        }
        let has_digest = source.published().is_some();
        let at = |name: &str| [trail, &[key(name)]].concat();
        match (&source.path, &source.url) {
            (Some(_), Some(_)) => {
                self.problem(trail, "a source has a `path` or a `url`, not both", Some("remove one"));
            }
            (None, None) => {
                self.problem(trail, "a source needs a `path` or a `url`", Some("add `path: FILE`"));
            }
            (Some(_), None) if !source.mirrors.is_empty() => {
                self.problem(
                    &at("mirrors"),
                    "`mirrors` are further places of a `url`, and there is none",
                    Some("remove them"),
                );
            }
            (None, Some(_)) if source.by_hand.is_some() => {
                let help = "write `path:`, where the file is to be put, in place of `url:`";
                self.problem(
                    &at("by_hand"),
                    "a source that is fetched `by_hand` has a `path`, not a `url`",
                    Some(help),
                );
            }
            (None, Some(_)) if !has_digest => {
                let help = "add `sha256:` (or `md5:`) as its publisher gives it, so that other bytes are refused";
                self.problem(trail, "a source that is fetched needs a digest", Some(help));
            }
            _ => {}
        }
        let mirrors = source.mirrors.iter().enumerate().map(|(at, url)| (vec![key("mirrors"), Step::Index(at)], url));
        for (step, url) in source.url.iter().map(|url| (vec![key("url")], url)).chain(mirrors) {
            if let Err(FetchError::Url { reason, .. }) = fetch::check_url(url) {
                let help =
                    "a file elsewhere has an address such as https://server/folder/file; one that is here has a `path`";
                let url = Address::new(url);
                self.problem(&[trail, &step].concat(), format!("`{url}` cannot be fetched: {reason}"), Some(help));
            }
        }
        for (name, digest, length) in [("sha256", &source.sha256, 64), ("md5", &source.md5, 32)] {
            let Some(text) = digest else { continue };
            let what = if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                "this has other characters".to_owned()
            } else if text.len() != length {
                format!("this has {}", text.len())
            } else {
                continue;
            };
            let help = "copy it from its publisher, or from the output of `sha256sum` or `md5sum`";
            let message = format!("`{name}` must be {length} hexadecimal digits; {what}");
            self.problem(&at(name), message, Some(help));
        }
    }

    pub(super) fn check_dataset(&mut self, params: &DatasetParams) {
        match params {
            DatasetParams::Caltech256 { resize, center_crop, .. } => {
                self.check_crop(Some(*resize), Some(*center_crop));
            }
            DatasetParams::ImageFolder {
                folder,
                archive,
                train,
                resize,
                center_crop,
                test,
                test_share,
                whole,
                classes,
                ..
            } => {
                self.check_crop(*resize, *center_crop);
                let ways = [("folder", folder.is_some()), ("archive", archive.is_some()), ("train", train.is_some())];
                self.check_one_of(&[], ways, "a data set of images");
                for (name, part) in [("train", train), ("test", test)] {
                    let Some(Folder { folder, archive, .. }) = part else { continue };
                    let ways = [("folder", folder.is_some()), ("archive", archive.is_some())];
                    self.check_one_of(&[key(name)], ways, &format!("`{name}`"));
                }
                if train.is_none() && test.is_some() {
                    let help = "write `train:` beside it; a `folder` or an `archive` of all images has both in it";
                    self.problem(&[key("test")], "a data set that has a `test` needs a `train`", Some(help));
                }
                if *whole && center_crop.is_none() {
                    let help = "add `center_crop:`, the side of what is seen of them";
                    self.problem(&[key("whole")], "images that are kept `whole` need a `center_crop`", Some(help));
                }
                if test.is_some() && test_share.is_some() {
                    let message = "a data set that has a `test` needs no `test_share`";
                    self.problem(&[key("test_share")], message, Some("remove one"));
                }
                if train.is_some() && test.is_none() && test_share.is_none() && *classes != Classes::None {
                    let help = "add `test_share: 0.2`, or the `test` images, or `test_share: 0` for a set without any";
                    self.problem(&[], "a data set of classes needs a `test` or a `test_share`", Some(help));
                }
            }
            DatasetParams::Parquet { resize, center_crop, .. } => self.check_crop(*resize, *center_crop),
            DatasetParams::Idx { .. }
            | DatasetParams::Npz { .. }
            | DatasetParams::Npy { .. }
            | DatasetParams::Cifar10 { .. }
            | DatasetParams::TinyImagenet { .. } => {}
        }
    }

    /// Checks that exactly one of several keys is there.
    fn check_one_of<const N: usize>(&mut self, trail: &[Step], ways: [(&str, bool); N], what: &str) {
        let names = ways.map(|(name, _)| format!("`{name}`")).join(", ");
        let mut there = ways.iter().filter(|(_, is_there)| *is_there).map(|(name, _)| *name);
        match (there.next(), there.next()) {
            (None, _) => {
                let help = "add `folder: PATH` for images in a folder beside the pipeline file";
                self.problem(trail, format!("{what} needs one of {names}"), Some(help));
            }
            (_, Some(second)) => {
                let trail = [trail, &[key(second)]].concat();
                self.problem(&trail, format!("{what} has one of {names}, not several"), Some("remove one"));
            }
            (Some(_), None) => {}
        }
    }

    fn check_crop(&mut self, resize: Option<u32>, center_crop: Option<u32>) {
        if let (Some(resize), Some(center_crop)) = (resize, center_crop)
            && center_crop > resize
        {
            let message = format!("`center_crop` takes {center_crop} pixels of images whose shorter side has {resize}");
            self.problem(&[key("center_crop")], message, Some("raise `resize`, or lower `center_crop`"));
        }
    }

    pub(super) fn check_images(&mut self, images: &Images) {
        if let Some(problem) = images.problem() {
            self.problem(&[key("images")], format!("`images` {problem}"), None);
        }
    }

    pub(super) fn check_fourier(&mut self, fourier: &Fourier) {
        if let Some((name, problem)) = fourier.problem() {
            self.problem(&[key(name)], format!("`{name}` {problem}"), None);
        }
    }

    pub(super) fn check_net(&mut self, net: &Net) {
        for NetProblem { name, index, problem, help } in net.problems() {
            let at: Vec<Step> = [key("net"), key(name)].into_iter().chain(index.map(Step::Index)).collect();
            self.problem(&at, format!("`{}` {problem}", YamlPath(at.clone())), help);
        }
    }

    /// Checks the parameters of a checkpoint that was made elsewhere against each other.
    pub(super) fn check_pretrained(&mut self, params: &PretrainedParams) {
        self.check_net(&params.net);
        self.check_head(&params.net, params.head, &[key("head")]);
    }

    /// Checks that the last layer of a network can be told from its others, if it is replaced.
    fn check_head(&mut self, net: &Net, head: HeadWeights, trail: &[Step]) {
        if net.is_script() && head == HeadWeights::Replace {
            let help = "give it a new last layer in Python, before `torch.jit.script`";
            self.problem(trail, "which layer of a TorchScript network is its last one is not known", Some(help));
        }
    }

    /// Checks the parameters of a training against each other.
    pub(super) fn check_training(&mut self, params: &TrainParams) {
        self.check_net(&params.net);
        if let Some(pretrained) = &params.pretrained {
            self.check_head(&params.net, pretrained.head, &[key("pretrained"), key("head")]);
        }
        if params.net.is_script() && !params.precision.is_fp32() {
            let message = "a TorchScript network computes in the types of its own weights, 32-bit floats";
            self.problem(&[key("precision")], message, Some("remove `precision`"));
        }
        self.check_attack("adversary", &params.adversary);
        if let Some(check) = &params.overfitting_check {
            self.check_attack("overfitting_check.attack", &check.attack);
        }
        if let Some(holdout) = &params.holdout {
            self.check_attack("holdout.attack", &holdout.attack);
        }
        self.check_method(&params.method, &params.adversary);
        if params.weight_perturbation.is_some() && matches!(params.method, TrainingMethod::Free(_)) {
            let message = "the method `free` has one gradient for weights and images, and no step uphill before it";
            self.problem(&[key("weight_perturbation")], message, Some("remove it, or choose another `method`"));
        }
        self.check_augmentation(&params.augmentation);
    }

    fn check_augmentation(&mut self, augmentation: &Augmentation) {
        if augmentation.random_crop > 0 && augmentation.pad_crop > 0 {
            let message =
                "`augmentation.pad_crop` cuts out of padded images and `random_crop` out of images as they are";
            self.problem(&[key("augmentation"), key("pad_crop")], message, Some("remove one of the two"));
        }
    }

    pub(super) fn check_masking(&mut self, params: &MaskingParams) {
        if let Some((name, problem)) = params.problem() {
            self.problem(&[key(name)], format!("`{name}` {problem}"), Some("write 8/255 for 8 of 255 levels"));
        }
    }

    pub(super) fn check_attack(&mut self, name: &str, attack: &Attack) {
        if let Err(problem) = attack.check() {
            let trail: Vec<Step> = name.split('.').chain(problem.name.split('.')).map(key).collect();
            self.problem(&trail, format!("`{}` {}", problem.name, problem.problem), None);
        }
    }

    /// Checks that the images of an evaluation stay within the radius that it tells.
    pub(super) fn check_reach(&mut self, attack: &Attack) {
        if matches!(attack, Attack::Fgsm(Fgsm { noise: Some(_), .. })) {
            let trail = [key("attack"), key("noise")];
            let message = "`noise` leaves the ball of radius `eps`: it is for the adversary of a training";
            self.problem(&trail, message, Some("remove it, or attack with `start: random`"));
        }
    }

    /// Checks the radii that an evaluation attacks at.
    pub(super) fn check_radii(&mut self, params: &EvaluateParams) {
        let Err(RadiiProblem { at, problem }) = params.check_radii() else { return };
        let trail: Vec<Step> = [key("eps")].into_iter().chain(at.map(Step::Index)).collect();
        let help = "list radii from small to large, the last one that of the attack: `eps: [0, 4/255, 8/255]`";
        self.problem(&trail, format!("`eps` {problem}"), Some(help));
    }

    pub(super) fn check_method(&mut self, method: &TrainingMethod, adversary: &Attack) {
        if !method.is_standard() && !matches!(adversary, Attack::None(_)) {
            let help = "remove `adversary`, or remove `method` to train on what `adversary` makes";
            self.problem(&[key("adversary")], "this `method` brings its own adversary", Some(help));
        }
    }

    pub(super) fn check_outputs(&mut self, outputs: &BTreeMap<String, CommandOutput>) {
        let trail = [key("outputs")];
        if outputs.is_empty() {
            let help = "name what it writes: `outputs: {numbers: numbers.csv}`";
            self.problem(&trail, "a command needs at least one output", Some(help));
        }
        let mut files: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, output) in outputs {
            let file = output.path();
            let trail = match output {
                CommandOutput::File(_) => vec![key("outputs"), key(name)],
                CommandOutput::Shown(_) => vec![key("outputs"), key(name), key("path")],
            };
            let plain = !file.is_empty()
                && !file.starts_with('/')
                && !file.split('/').any(|part| [".", "..", ""].contains(&part));
            if !plain {
                let message =
                    format!("output `{name}` must be a relative path inside the program's folder, not `{file}`");
                let help = "a program runs in an empty folder of its own; name a file in it, such as `numbers.csv`";
                self.problem(&trail, message, Some(help));
            }
            if let Some(first) = files.insert(file, name) {
                let message = format!("outputs `{first}` and `{name}` are the same file, `{file}`");
                self.problem(&trail, message, Some("each output is a file of its own"));
            }
            if let Some(problem) = output.shown().as_deref().and_then(shown::problem_of) {
                let message = format!("output `{name}` cannot be shown under this name: {problem}");
                let help = "name a file of the results folder, such as `my-analysis.csv`";
                self.problem(&[key("outputs"), key(name), key("show")], message, Some(help));
            }
        }
    }

    pub(super) fn check_environment(&mut self, own: &BTreeMap<String, Text>, passed: &[String]) {
        let is_name = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
        for name in own.keys().filter(|name| !is_name(name)) {
            let help = "a name is not empty and has no `=`";
            self.problem(&[key("env"), key(name)], format!("`{name}` cannot name a variable"), Some(help));
        }
        for (at, name) in passed.iter().enumerate() {
            let trail = [key("pass_env"), Step::Index(at)];
            if !is_name(name) {
                let help = "list names alone; `env` gives a variable a value: `env: {NAME: VALUE}`";
                self.problem(&trail, format!("`{name}` cannot name a variable"), Some(help));
            } else if own.contains_key(name) {
                let message = format!("`{name}` has a value in `env`, and is to be passed as it is as well");
                self.problem(&trail, message, Some("remove one of the two"));
            }
        }
    }

    pub(super) fn check_run(&mut self, run: &Run) {
        let is_empty = match run {
            Run::Program(words) => words.first().is_none_or(|word| word.is_empty()),
            Run::Shell(line) => line.trim().is_empty(),
        };
        if is_empty {
            let help = "write a line for the shell, or a program and its arguments as a list";
            self.problem(&[key("run")], "`run` names no program", Some(help));
        }
    }
}

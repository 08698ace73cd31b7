//! Counts the passes that a stage takes over images, for a price before its first run. Knows no rates.

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::passes::{Pass, Passes};
use super::{
    AdversarialBatches, Attack, EvaluateParams, FourierMapParams, Images, MaskingParams, Method, Precision,
    SaliencyParams, StageKind, TrainParams, TrainingMethod,
};

/// Shape of the images of a set, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SetShape {
    /// Number of images.
    pub images: f64,
    /// Colours of a pixel.
    pub channels: u32,
    /// Height as networks see it.
    pub height: u32,
    /// Width as networks see it.
    pub width: u32,
    /// Number of classes.
    pub classes: u32,
}

/// Passes of one sort that a stage takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PassCount {
    /// What each computes.
    pub pass: Pass,
    /// What it computes in.
    pub precision: Precision,
    /// Number of images that pass, each as often as it does.
    pub images: f64,
    /// Whether the passes search for adversarial images: they are of the network that is attacked.
    pub is_search: bool,
}

/// Passes of a training over each of its images in an epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct EpochPasses {
    /// Those that move the weights.
    pub own: Passes,
    /// Those of the adversary.
    pub searched: Passes,
}

/// The passes of each step of a training, without what it measures after an epoch.
pub(super) fn epoch_passes(params: &TrainParams) -> EpochPasses {
    let attacked = match params.adversarial_batches {
        AdversarialBatches::All => 1.0,
        AdversarialBatches::Alternate => 0.5,
    };
    // The gradient is taken twice.
    let updates = if params.weight_perturbation.is_some() { 2.0 } else { 1.0 };
    let (updates, searched) = match &params.method {
        TrainingMethod::Standard => (updates, params.adversary.params().passes().times(attacked)),
        TrainingMethod::Free(free) => (f64::from(free.replays), Passes::default()),
        TrainingMethod::Trades(trades) | TrainingMethod::Mart(trades) => {
            (2.0 * updates, Passes::gradient(f64::from(trades.steps)))
        }
    };
    EpochPasses { own: Passes::update(updates), searched }
}

/// The passes of an evaluation over one image: the verdict, and the attack at each radius.
pub(super) fn evaluation_passes(params: &EvaluateParams) -> EpochPasses {
    let times = params.eps.iter().filter(|eps| eps.get() > 0.0).count().max(1) as f64;
    EpochPasses { own: Passes::forward(1.0), searched: params.attack.params().passes().times(times) }
}

/// The passes of the checks for masked gradients over one image: about ten attacks of so many steps, one of five times
/// as many, the restarts, and the attack without gradients.
pub(super) fn masking_passes(params: &MaskingParams) -> Passes {
    let gradients = f64::from(params.steps) * (15.0 + f64::from(params.restarts));
    Passes::gradient(gradients) + Passes::forward(f64::from(params.queries))
}

/// The passes of saliency maps over one image.
pub(super) fn saliency_passes(params: &SaliencyParams) -> Passes {
    let gradients = match &params.method {
        Method::Grad | Method::GradCam => 1.0,
        Method::Smoothgrad { samples, spread: _ } => f64::from(*samples),
        Method::IntegratedGradients { steps } => f64::from(*steps),
    };
    let maps = 1.0 + params.stability.as_ref().map_or(0.0, |stability| f64::from(stability.draws));
    Passes::gradient(gradients * maps)
}

/// Counts the passes that a stage of canonical parameters takes over one set with one model, or over its training and
/// its validation images. `None` for kinds that pass no images through networks.
///
/// It counts what runs if no image leaves an attack early and no training stops early. Passes in 32 bits by which a
/// search in 16 settles who leaves are not counted.
pub fn count_passes(
    kind: StageKind,
    params: &Json,
    set: &SetShape,
    validation: Option<&SetShape>,
) -> Option<Vec<PassCount>> {
    let mut counts = Counts::default();
    match kind {
        StageKind::Train => counts.training(&read(params)?, set, validation),
        StageKind::Evaluate => {
            let params: EvaluateParams = read(params)?;
            let (images, passes) = (limited(set.images, params.limit), evaluation_passes(&params));
            counts.add(passes.own, Precision::Fp32, images, false);
            counts.add(passes.searched, params.search, images, true);
        }
        StageKind::Masking => {
            let params: MaskingParams = read(params)?;
            counts.add(masking_passes(&params), Precision::Fp32, limited(set.images, params.limit), false);
        }
        StageKind::Saliency => {
            let params: SaliencyParams = read(params)?;
            let images = match &params.images {
                Images::Listed(list) => list.len() as f64,
                Images::Chosen(chosen) => {
                    let each_class = chosen.each_class.map(|count| f64::from(count) * f64::from(set.classes));
                    chosen.count.or(chosen.first).map(f64::from).or(each_class).unwrap_or(set.images).min(set.images)
                }
            };
            counts.add(saliency_passes(&params), Precision::Fp32, images, false);
        }
        StageKind::FourierMap => {
            let params: FourierMapParams = read(params)?;
            // Real images of H × W pixels have half as many frequencies, and there is a pass without a wave.
            let frequencies = (f64::from(set.height) * f64::from(set.width) / 2.0).floor() + 1.0;
            let images = limited(set.images, params.limit);
            counts.add(Passes::forward(frequencies + 1.0), Precision::Fp32, images, false);
        }
        StageKind::Dataset
        | StageKind::File
        | StageKind::Transform
        | StageKind::Pretrained
        | StageKind::Randomised
        | StageKind::WorstCase
        | StageKind::Table
        | StageKind::Figure
        | StageKind::Command => return None,
    }
    Some(counts.0)
}

fn read<T: DeserializeOwned>(params: &Json) -> Option<T> {
    T::deserialize(params).ok()
}

fn limited(images: f64, limit: Option<u32>) -> f64 {
    limit.map_or(images, |limit| images.min(f64::from(limit)))
}

#[derive(Default)]
struct Counts(Vec<PassCount>);

impl Counts {
    /// Adds passes over each of some images.
    fn add(&mut self, passes: Passes, precision: Precision, images: f64, is_search: bool) {
        for pass in Pass::ALL {
            let images = passes.of(pass) * images;
            if images > 0.0 {
                self.0.push(PassCount { pass, precision, images, is_search });
            }
        }
    }

    fn training(&mut self, params: &TrainParams, set: &SetShape, validation: Option<&SetShape>) {
        let epochs = f64::from(params.epochs);
        let all = limited(set.images, params.limit);
        let share = params.holdout.as_ref().map_or(0.0, |holdout| holdout.share.get());
        let (trained, held) = (all * (1.0 - share), all * share);
        let EpochPasses { own, searched } = epoch_passes(params);
        let search = if params.precision.is_fp32() { params.search } else { params.precision };
        self.add(own, params.precision, trained * epochs, false);
        self.add(searched, search, trained * epochs, true);
        self.add(Passes::forward(1.0), Precision::Fp32, validation.map_or(0.0, |set| set.images * epochs), false);
        if let Some(holdout) = &params.holdout {
            self.measured(&holdout.attack, held * epochs);
        }
        if let Some(check) = &params.overfitting_check {
            let checks = f64::from(params.epochs / check.every.max(1));
            self.measured(&check.attack, f64::from(check.images).min(trained) * checks);
        }
    }

    /// Adds a verdict on each of some images under an attack.
    fn measured(&mut self, attack: &Attack, images: f64) {
        self.add(attack.params().passes() + Passes::forward(1.0), Precision::Fp32, images, false);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SET: SetShape = SetShape { images: 1000.0, channels: 1, height: 28, width: 28, classes: 10 };

    /// Images that pass, by the sort of pass and by precision.
    fn counted(kind: StageKind, params: &Json, validation: Option<&SetShape>) -> Vec<(Pass, Precision, f64)> {
        let counts = count_passes(kind, params, &SET, validation).unwrap();
        counts.into_iter().map(|count| (count.pass, count.precision, count.images)).collect()
    }

    fn training() -> Json {
        json!({
            "net": {"arch": "resnet", "width": 16, "blocks": [1, 1, 1]}, "epochs": 4,
            "adversary": {"attack": "pgd", "eps": 0.03, "step": 0.01, "steps": 3}, "limit": 500,
        })
    }

    #[test]
    fn a_training_passes_its_images_in_every_epoch_with_each_step_of_its_adversary() {
        let validation = SetShape { images: 200.0, ..SET };
        let (fp32, bf16) = (Precision::Fp32, Precision::Bf16);
        let epochs = 4.0 * 500.0;
        let expected = vec![
            (Pass::Update, fp32, epochs),
            (Pass::Gradient, fp32, 3.0 * epochs),
            (Pass::Forward, fp32, 4.0 * 200.0),
        ];
        assert_eq!(counted(StageKind::Train, &training(), Some(&validation)), expected);
        let with = |name: &str, value: Json| {
            let mut other = training();
            other[name] = value;
            counted(StageKind::Train, &other, None)
        };
        assert_eq!(with("search", json!("bf16"))[1], (Pass::Gradient, bf16, 3.0 * epochs));
        let all = with("precision", json!("bf16"));
        assert_eq!(all, [(Pass::Update, bf16, epochs), (Pass::Gradient, bf16, 3.0 * epochs)]);
        assert_eq!(with("adversarial_batches", json!("alternate"))[1].2, 1.5 * epochs);
        // A quarter is left out of the training, and each of its images is attacked once an epoch by five steps.
        let held = json!({"share": 0.25, "attack": {"attack": "pgd", "eps": 0.03, "step": 0.01, "steps": 5}});
        let held = with("holdout", held);
        assert_eq!(held[0].2, 0.75 * epochs);
        assert_eq!(held[2..], [(Pass::Forward, fp32, 0.25 * epochs), (Pass::Gradient, fp32, 5.0 * 0.25 * epochs)]);
        let check = json!({"every": 3, "images": 64, "attack": {"attack": "fgsm", "eps": 0.03}});
        assert_eq!(with("overfitting_check", check)[2..], [(Pass::Forward, fp32, 64.0), (Pass::Gradient, fp32, 64.0)]);
    }

    #[test]
    fn every_method_of_training_has_its_own_passes() {
        let method = |method: Json| {
            let mut other = training();
            other["method"] = method;
            other.as_object_mut().unwrap().remove("adversary");
            counted(StageKind::Train, &other, None)
        };
        let (fp32, epochs) = (Precision::Fp32, 4.0 * 500.0);
        let free = method(json!({"name": "free", "replays": 8, "eps": 0.03}));
        assert_eq!(free, [(Pass::Update, fp32, 8.0 * epochs)]);
        let trades = json!({"name": "trades", "beta": 6, "eps": 0.03, "step": 0.01, "steps": 10});
        assert_eq!(method(trades), [(Pass::Update, fp32, 2.0 * epochs), (Pass::Gradient, fp32, 10.0 * epochs)]);
    }

    #[test]
    fn an_evaluation_is_a_verdict_and_the_steps_and_restarts_of_its_attack() {
        let attack = json!({"attack": "pgd", "eps": 0.1, "step": 0.01, "steps": 20, "start": "random", "restarts": 5});
        let fp32 = Precision::Fp32;
        let found = counted(StageKind::Evaluate, &json!({"attack": attack, "limit": 100}), None);
        assert_eq!(found, [(Pass::Forward, fp32, 100.0), (Pass::Gradient, fp32, 100.0 * 20.0 * 5.0)]);
        let found = counted(StageKind::Evaluate, &json!({"attack": attack, "search": "bf16"}), None);
        assert_eq!(found[1], (Pass::Gradient, Precision::Bf16, 1000.0 * 20.0 * 5.0));
        assert_eq!(counted(StageKind::Evaluate, &json!({}), None), [(Pass::Forward, fp32, 1000.0)]);
        let radii = json!({"attack": {"attack": "fgsm", "eps": 0.3}, "eps": [0, 0.1, 0.3]});
        assert_eq!(counted(StageKind::Evaluate, &radii, None)[1].2, 2.0 * 1000.0, "radius 0 is no attack");
        let square = json!({"attack": {"attack": "square", "eps": 0.1, "queries": 99}});
        assert_eq!(counted(StageKind::Evaluate, &square, None)[1], (Pass::Forward, fp32, 99.0 * 1000.0));
    }

    #[test]
    fn maps_pass_each_image_as_often_as_they_draw_noise() {
        let smooth = json!({"name": "smoothgrad", "samples": 50, "spread": 0.1});
        let maps = |images: Json| counted(StageKind::Saliency, &json!({"images": images, "method": smooth}), None)[0].2;
        assert_eq!(maps(json!([3, 5])), 2.0 * 50.0);
        assert_eq!(maps(json!({"first": 7})), 7.0 * 50.0);
        assert_eq!(maps(json!({"each_class": 3})), 3.0 * 10.0 * 50.0);
        assert_eq!(maps(json!({"count": 5000})), 1000.0 * 50.0, "no more than there are");
        let stable = json!({"images": [0], "method": smooth, "stability": {"draws": 9}});
        assert_eq!(counted(StageKind::Saliency, &stable, None)[0].2, 10.0 * 50.0);
        // 28 × 28 / 2 + 1 frequencies, and the images as they are.
        let waves = counted(StageKind::FourierMap, &json!({"norm": 4, "limit": 10}), None);
        assert_eq!(waves, [(Pass::Forward, Precision::Fp32, 10.0 * 394.0)]);
        assert_eq!(count_passes(StageKind::Command, &json!({"run": "x"}), &SET, None), None);
    }
}

//! How much work a stage's parameters ask for, so that the duration of one run tells that of another: twice the epochs
//! take twice as long, another ε takes as long as before. Each type of parameters is taken apart by the names of its
//! fields, so that a new parameter does not compile before somebody has said whether it is work. Commands are not known
//! from within.

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::count::{EpochPasses, epoch_passes, evaluation_passes, masking_passes, saliency_passes};
use super::{
    Augmentation, Convnext, DatasetParams, DmWideResnet, EvaluateParams, FourierMapParams, Holdout, Images,
    MaskingParams, Method, Net, OverfittingCheck, PreactResnet18, PretrainedParams, RandomisedParams, SaliencyParams,
    StageKind, StandardResnet, Torchscript, TrainParams, TrainingMethod, TransformParams, Vit, WideResnet,
};

/// The work that parameters ask for, in units that only those share which are `like` one another.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// What two stages must have in common for the rest to be comparable.
    pub like: String,
    /// Work for one image.
    pub per_image: f64,
    /// How many images it is done for; all of the stage's inputs where the parameters say nothing.
    pub images: Option<f64>,
    /// Pixels that the images have which the stage makes or cuts out; those of its inputs where the parameters say
    /// nothing.
    pub pixels: Option<f64>,
    /// Work of one pass of the network that the stage makes.
    pub pass: f64,
}

impl Work {
    fn new(like: impl Into<String>, per_image: f64, images: Option<u32>) -> Self {
        Work { like: like.into(), per_image, images: images.map(f64::from), pixels: None, pass: 1.0 }
    }
}

/// The work that canonical parameters of a kind ask for; nothing where that cannot be said.
pub fn work(kind: StageKind, params: &Json) -> Option<Work> {
    Some(match kind {
        StageKind::Dataset => of_dataset(&read(params)?),
        StageKind::File => Work::new("", 1.0, None),
        StageKind::Transform => of_transform(&read(params)?),
        StageKind::Train => of_training(&read(params)?),
        StageKind::Pretrained => {
            let PretrainedParams { net, head: _, entry: _ } = read(params)?;
            Work::new(of_net(&net).0, 1.0, Some(1))
        }
        StageKind::Randomised => {
            let RandomisedParams { down_to: _ } = read(params)?;
            Work::new("", 1.0, Some(1))
        }
        StageKind::Evaluate => {
            let params: EvaluateParams = read(params)?;
            let EpochPasses { own, searched } = evaluation_passes(&params);
            let EvaluateParams { attack, eps: _, batch_size: _, limit, search, ranks: _ } = params;
            let family = attack.params().family();
            let like = if search.is_fp32() { family } else { format!("{family} {search:?}") };
            // Each image is attacked once a radius at most.
            Work::new(like, (own + searched).in_forward(), limit)
        }
        StageKind::Masking => of_masking(&read(params)?),
        StageKind::Saliency => of_saliency(&read(params)?),
        StageKind::FourierMap => {
            // How many frequencies there are depends on the images.
            let FourierMapParams { title: _, norm: _, batch_size: _, limit } = read(params)?;
            Work::new("", 1.0, limit)
        }
        StageKind::WorstCase | StageKind::Table | StageKind::Figure | StageKind::Command => return None,
    })
}

fn read<T: DeserializeOwned>(params: &Json) -> Option<T> {
    T::deserialize(params).ok()
}

fn of_dataset(params: &DatasetParams) -> Work {
    let square = |side: Option<u32>| side.map(|side| f64::from(side) * f64::from(side));
    match params {
        DatasetParams::Idx { train: _, test: _, classes: _ } => Work::new("idx", 1.0, None),
        DatasetParams::Npz { archive: _, train: _, test: _, classes: _, limit_per_class } => {
            Work::new("npz", 1.0, *limit_per_class)
        }
        DatasetParams::Npy { train: _, test: _, classes: _, limit_per_class } => {
            Work::new("npy", 1.0, *limit_per_class)
        }
        DatasetParams::Parquet {
            train,
            test,
            image: _,
            label: _,
            classes: _,
            resize,
            filter: _,
            center_crop,
            limit_per_class,
            broken: _,
        } => Work {
            pixels: square(center_crop.or(*resize)),
            ..Work::new(format!("parquet {} {}", train.len(), test.len()), 1.0, *limit_per_class)
        },
        DatasetParams::Cifar10 { archive: _, limit_per_class } => Work::new("cifar10", 1.0, *limit_per_class),
        DatasetParams::TinyImagenet { archive: _, resize, limit_per_class, broken: _ } => {
            Work { pixels: square(*resize), ..Work::new("tiny_imagenet", 1.0, *limit_per_class) }
        }
        DatasetParams::Caltech256 {
            archive: _,
            test_share,
            seed: _,
            resize: _,
            center_crop,
            limit_per_class,
            broken: _,
        } => Work {
            pixels: square(Some(*center_crop)),
            ..Work::new(format!("caltech256 {test_share}"), 1.0, *limit_per_class)
        },
        DatasetParams::ImageFolder {
            folder: _,
            archive: _,
            train,
            test,
            test_share,
            seed: _,
            classes,
            min_side,
            square: is_square,
            resize,
            filter: _,
            center_crop,
            whole,
            pick,
            limit_per_class,
            broken: _,
        } => {
            let roots = [train, test].map(|part| part.as_ref().map(|part| &part.root));
            let chosen = (classes, min_side, is_square, whole, pick.is_some(), limit_per_class.is_some());
            // Images of a class are as many as before where only the number that is picked changes, and the other way
            // round.
            let images = f64::from(pick.unwrap_or(1)) * f64::from(limit_per_class.unwrap_or(1));
            Work {
                images: (pick.is_some() || limit_per_class.is_some()).then_some(images),
                pixels: square(center_crop.or(*resize)),
                ..Work::new(format!("image_folder {roots:?} {test_share:?} {chosen:?}"), 1.0, None)
            }
        }
    }
}

fn of_transform(params: &TransformParams) -> Work {
    // What the operations are told changes which pixels come out, and not how long that takes.
    match params {
        TransformParams::Sample(sample) => Work::new(params.name(), 1.0, Some(sample.count)),
        TransformParams::Saturate(_)
        | TransformParams::PatchShuffle(_)
        | TransformParams::Corrupt(_)
        | TransformParams::Fourier(_)
        | TransformParams::Stylize(_)
        | TransformParams::CueConflict(_) => Work::new(params.name(), 1.0, None),
    }
}

fn of_training(params: &TrainParams) -> Work {
    let TrainParams {
        net,
        epochs,
        batch_size: _,
        pretrained: _,
        method,
        precision,
        search,
        optimizer: _,
        schedule: _,
        label_smoothing: _,
        average: _,
        weight_perturbation: _,
        adversary,
        adversarial_batches: _,
        augmentation,
        stop_at_accuracy,
        overfitting_check,
        holdout,
        limit,
    } = params;
    let EpochPasses { own, searched } = epoch_passes(params);
    let step = (own + searched).in_forward();
    let how = match method {
        TrainingMethod::Standard => "standard",
        TrainingMethod::Free(_) => "free",
        TrainingMethod::Trades(_) => "trades",
        TrainingMethod::Mart(_) => "mart",
    };
    // These are work of their own beside the epochs, and nobody knows how much of it: another one is another training.
    let checked = overfitting_check.as_ref().map(|OverfittingCheck { every, images, attack }| {
        (*every, *images, attack.params().family(), attack.params().passes())
    });
    let held = holdout
        .as_ref()
        .map(|Holdout { share, attack, keep: _ }| (share, attack.params().family(), attack.params().passes()));
    let (build, pass) = of_net(net);
    let who = adversary.params().family();
    let like = format!("{build} {how} {who} {precision:?} {search:?} {stop_at_accuracy:?} {checked:?} {held:?}");
    let Augmentation { flip: _, pad_crop: _, random_crop } = augmentation;
    let pixels = (*random_crop > 0).then(|| f64::from(*random_crop) * f64::from(*random_crop));
    Work { pixels, pass, ..Work::new(like, f64::from(*epochs) * step * pass, *limit) }
}

/// How a network is built, and the work of one pass: that of its blocks, which grows with the square of their channels.
fn of_net(net: &Net) -> (String, f64) {
    let standard =
        |name: &str, StandardResnet { stem, width, classes: _, mean: _, std: _, standardise: _, smooth: _ }: &StandardResnet| {
            (format!("{name} {stem:?}"), f64::from(*width) * f64::from(*width))
        };
    let wide = |depth: u32, widen: u32| f64::from(widen) * f64::from(widen) * f64::from(depth.saturating_sub(4));
    match net {
        Net::Resnet { width, blocks, mean: _, std: _, standardise: _, smooth: _ } => {
            // From group to group channels double and resolution halves: every block is as much work.
            let blocks: f64 = blocks.iter().map(|&count| f64::from(count)).sum();
            ("resnet".to_owned(), f64::from(*width) * f64::from(*width) * blocks)
        }
        Net::Resnet18(net) => standard("resnet18", net),
        Net::Resnet34(net) => standard("resnet34", net),
        Net::Resnet50(net) => standard("resnet50", net),
        Net::Wideresnet(WideResnet { depth, widen, classes: _, mean: _, std: _, standardise: _ }) => {
            ("wideresnet".to_owned(), wide(*depth, *widen))
        }
        Net::DmWideResnet(DmWideResnet { depth, widen, activation, classes: _, mean: _, std: _, standardise: _ }) => {
            (format!("dm_wide_resnet {activation:?}"), wide(*depth, *widen))
        }
        Net::PreactResnet18(PreactResnet18 { build: _, width, classes: _, mean: _, std: _, standardise: _ }) => {
            ("preact_resnet18".to_owned(), f64::from(*width) * f64::from(*width))
        }
        Net::Vit(net) => ("vit".to_owned(), of_vit(net)),
        Net::Convnext(Convnext { patch, width, blocks, classes: _, mean: _, std: _, standardise: _ }) => {
            let blocks: f64 = blocks.iter().map(|&count| f64::from(count)).sum();
            let width = f64::from(*width) / f64::from(*patch);
            ("convnext".to_owned(), width * width * blocks)
        }
        // The file knows how much work its layers are.
        Net::Torchscript(Torchscript { classes: _, mean: _, std: _, standardise: _ }) => {
            ("torchscript".to_owned(), 1.0)
        }
    }
}

/// The multiplications of a vision transformer for each pixel: those of its linear layers, and those of attention.
fn of_vit(net: &Vit) -> f64 {
    let Vit { side, patch, dim, depth, heads: _, mlp, classes: _, mean: _, std: _, standardise: _ } = net;
    let [side, patch, dim, depth, mlp] = [side, patch, dim, depth, mlp].map(|&number| f64::from(number));
    let tokens = (side / patch) * (side / patch);
    depth * (dim * dim * (4.0 + 2.0 * mlp) + 2.0 * tokens * dim) / (patch * patch)
}

fn of_masking(params: &MaskingParams) -> Work {
    let MaskingParams {
        norm: _,
        eps: _,
        steps: _,
        restarts: _,
        queries: _,
        tolerance: _,
        batch_size: _,
        limit,
        title: _,
        eps_written: _,
    } = params;
    Work::new("", masking_passes(params).in_forward(), *limit)
}

fn of_saliency(params: &SaliencyParams) -> Work {
    let SaliencyParams { title: _, headings: _, method, images, show: _, similarity: _, stability: _ } = params;
    let name = match method {
        Method::Grad => "grad",
        Method::Smoothgrad { .. } => "smoothgrad",
        Method::IntegratedGradients { .. } => "integrated_gradients",
        Method::GradCam => "grad_cam",
    };
    let images = match images {
        Images::Listed(list) => u32::try_from(list.len()).ok(),
        Images::Chosen(chosen) => chosen.count.or(chosen.first),
    };
    Work::new(name, saliency_passes(params).in_forward(), images)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// How many times as long the second takes, for as many images.
    fn factor(kind: StageKind, before: &Json, now: &Json) -> Option<f64> {
        let (before, now) = (work(kind, before).unwrap(), work(kind, now).unwrap());
        (before.like == now.like).then_some(now.per_image / before.per_image)
    }

    fn training() -> Json {
        json!({
            "net": {"arch": "resnet", "width": 16, "blocks": [1, 1, 1]}, "epochs": 4,
            "adversary": {"attack": "pgd", "eps": 0.03, "step": 0.01, "steps": 3}, "limit": 1000,
        })
    }

    #[test]
    fn what_is_no_work_costs_nothing_and_what_is_costs_in_proportion() {
        let train = |path: &str, value: Json| {
            let mut other = training();
            *other.pointer_mut(path).unwrap() = value;
            factor(StageKind::Train, &training(), &other)
        };
        assert_eq!(train("/adversary/eps", json!(0.3)), Some(1.0));
        assert_eq!(train("/adversary/step", json!(0.1)), Some(1.0));
        assert_eq!(train("/epochs", json!(12)), Some(3.0));
        // A step of training is three passes, one of the attack two.
        assert_eq!(train("/adversary/steps", json!(6)), Some((3.0 + 12.0) / (3.0 + 6.0)));
        assert_eq!(train("/net/width", json!(32)), Some(4.0));
        assert_eq!(train("/net/blocks", json!([2, 2, 2])), Some(2.0));
        assert_eq!(train("/net", json!({"arch": "resnet18", "stem": "cifar"})), None, "another network");
        assert_eq!(train("/adversary", json!({"attack": "spatial"})), None, "another attack");
        let (before, mut other) = (work(StageKind::Train, &training()).unwrap(), training());
        other["limit"] = json!(2000);
        other["optimizer"] = json!({"lr": 5.0, "momentum": 0.1, "weight_decay": 1.0});
        other["schedule"] = json!({"shape": "steps", "drop_at": [1, 2, 3]});
        let now = work(StageKind::Train, &other).unwrap();
        assert_eq!((now.images, before.images), (Some(2000.0), Some(1000.0)));
        assert_eq!(now, Work { images: now.images, ..before });
    }

    #[test]
    fn attacks_are_as_much_work_as_their_steps() {
        let attack = |attack: Json| json!({"attack": attack});
        let pgd = |eps: f64, steps: u32, restarts: u32| {
            let mut pgd = json!({"attack": "pgd", "eps": eps, "step": 0.01, "steps": steps});
            (pgd["restarts"], pgd["start"]) = (json!(restarts), json!("random"));
            attack(pgd)
        };
        assert_eq!(factor(StageKind::Evaluate, &pgd(0.1, 20, 1), &pgd(0.2, 20, 1)), Some(1.0));
        assert_eq!(factor(StageKind::Evaluate, &pgd(0.1, 20, 1), &pgd(0.1, 10, 5)), Some(101.0 / 41.0));
        let square = |queries: u32| attack(json!({"attack": "square", "eps": 0.1, "queries": queries}));
        assert_eq!(factor(StageKind::Evaluate, &square(99), &square(199)), Some(2.0));
        assert_eq!(factor(StageKind::Evaluate, &pgd(0.1, 20, 1), &square(100)), None);
        let saturate = |level: f64| json!({"op": "saturate", "level": level});
        assert_eq!(factor(StageKind::Transform, &saturate(0.5), &saturate(1024.0)), Some(1.0));
        let smooth = |samples: u32, spread: f64| {
            let method = json!({"name": "smoothgrad", "samples": samples, "spread": spread});
            json!({"images": {"first": 3}, "method": method})
        };
        assert_eq!(factor(StageKind::Saliency, &smooth(10, 0.1), &smooth(30, 0.9)), Some(3.0));
        let masking = |eps: f64, steps: u32| json!({"eps": eps, "steps": steps, "queries": 1});
        assert_eq!(factor(StageKind::Masking, &masking(0.1, 40), &masking(0.2, 40)), Some(1.0));
        assert_eq!(work(StageKind::Command, &json!({"run": "x"})), None);
    }

    #[test]
    fn a_data_set_is_as_much_work_as_its_images() {
        let of = |limit: u32| {
            work(StageKind::Dataset, &json!({"format": "cifar10", "archive": {}, "limit_per_class": limit}))
        };
        assert_eq!((of(10).unwrap().images, of(20).unwrap().images), (Some(10.0), Some(20.0)));
        let caltech = json!({"format": "caltech256", "archive": {}, "center_crop": 112});
        assert_eq!(work(StageKind::Dataset, &caltech).unwrap().pixels, Some(112.0 * 112.0));
    }
}

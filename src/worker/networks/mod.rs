//! Networks: the interface for training and attacks, the named tensors, and construction from a description.
//!
//! Knows nothing about training, attacks or files.

mod blur;
mod convnext;
mod layers;
mod preact;
mod preact_resnet;
mod probe;
mod resnet;
mod state;
mod statistics;
mod tokens;
mod torchscript;
mod vit;
mod wideresnet;

use atflow::stage_kinds::{ImageSide, Net, NetProblem, StandardResnet, Stem};
use tch::{Device, Kind, TchError, Tensor};

use crate::error::StageError;
use crate::rng::Rng;

pub use layers::Normalisation;
pub use probe::{Trial, Use, probe};
pub use state::{ConvInit, Entry, Role, State};
pub use statistics::Statistics;

/// Maximum number of image channels; memory is allocated by this number, so a larger one is an error.
const MOST_CHANNELS: usize = 1 << 12;
/// Maximum number of classes, for the same reason.
const MOST_CLASSES: usize = 1 << 16;

/// Statistics that batch norm uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, which also update the running ones: for training steps.
    Train,
    /// Running statistics, unchanged: for evaluation and attacks.
    Eval,
}

/// A network that classifies images. It includes its normalisation, so callers pass pixels in [0, 1].
pub trait Network {
    /// Normalises images: N × C × H × W, f32, in [0, 1].
    ///
    /// # Errors
    /// Returns the error from libtorch.
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError>;

    /// Returns the normalisation of images, if it is known.
    fn normalisation(&self) -> Option<&Normalisation> {
        None
    }

    /// Computes logits (N × classes, f32) of normalised images.
    ///
    /// Convolutions and linear layers compute in the type of the images, such as bf16, on weights cast to it; gradients
    /// reach the weights as f32.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    fn classify(&self, normalised: &Tensor, mode: Mode) -> Result<Tensor, TchError>;

    /// Computes logits (N × classes) of images in [0, 1].
    ///
    /// # Errors
    /// Returns the error from libtorch.
    fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        self.classify(&self.normalise(images)?, mode)
    }

    /// Returns a copy of the current network in evaluation mode, optimised for repeated use.
    ///
    /// None of its tensors requires a gradient. It equals `forward(…, Mode::Eval)` up to rounding. Later changes of the
    /// network do not affect it.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    fn freeze(&self) -> Result<Box<dyn Frozen>, TchError> {
        self.freeze_as(Kind::Float)
    }

    /// Freezes the network to compute in another type, such as bf16; logits remain f32.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    fn freeze_as(&self, kind: Kind) -> Result<Box<dyn Frozen>, TchError>;

    /// Returns every tensor of the network under its PyTorch-style name.
    fn state(&self) -> &State;

    /// Returns the TorchScript file that the network comes from, if it is not built from a description alone.
    fn program(&self) -> Option<&[u8]> {
        None
    }
}

/// An immutable network ([`Network::freeze`]).
pub trait Frozen {
    /// Normalises images, as [`Network::normalise`].
    ///
    /// # Errors
    /// Returns the error from libtorch.
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError>;

    /// Computes the last feature maps of normalised images: N × channels × height × width, in the network's compute
    /// type.
    ///
    /// They are averaged over space and passed to the linear layer, in some networks through a norm. A network without
    /// maps ([`Net::has_feature_maps`]) returns what its linear layer takes, as maps of one pixel.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    fn features(&self, normalised: &Tensor) -> Result<Tensor, TchError>;

    /// Computes logits (N × classes, f32) from the last feature maps.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    fn head(&self, features: &Tensor) -> Result<Tensor, TchError>;

    /// Computes logits (N × classes, f32) of normalised images.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    fn classify(&self, normalised: &Tensor) -> Result<Tensor, TchError> {
        self.head(&self.features(normalised)?)
    }

    /// Computes logits (N × classes) of images in [0, 1].
    ///
    /// # Errors
    /// Returns the error from libtorch.
    fn forward(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.classify(&self.normalise(images)?)
    }
}

/// Creates a network with initial weights drawn from `rng`.
///
/// # Errors
/// [`StageError::Setting`] if the description is not a valid network or does not fit the number of channels or classes;
/// [`StageError::Torch`].
pub fn build(
    net: &Net,
    channels: usize,
    classes: usize,
    rng: Rng,
    device: Device,
) -> Result<Box<dyn Network>, StageError> {
    make(net, channels, classes, Some(rng), device)
}

/// Creates a network with all weights 0, to be filled in later.
///
/// # Errors
/// As [`build`].
pub fn build_blank(net: &Net, channels: usize, classes: usize, device: Device) -> Result<Box<dyn Network>, StageError> {
    make(net, channels, classes, None, device)
}

/// Creates a network from the bytes of a TorchScript file, with the weights that it holds.
///
/// # Errors
/// [`StageError::Script`] if the file cannot be used, and those of [`build`].
pub fn build_script(
    net: &Net,
    program: Vec<u8>,
    channels: usize,
    classes: usize,
    device: Device,
) -> Result<Box<dyn Network>, StageError> {
    if !net.is_script() {
        return Err(StageError::setting("net", "is built in and has no use for a TorchScript file"));
    }
    let normalisation = sized(net, channels, classes, device)?.0;
    Ok(Box::new(torchscript::Torchscript::new(program, normalisation, device)?))
}

/// Returns the name of a network's last layer, whose tensors are `NAME.weight` and `NAME.bias`.
///
/// It is empty if the name is not known.
pub const fn head_name(net: &Net) -> &'static str {
    match net {
        Net::Resnet { .. } => resnet::Shape::head(Stem::Cifar),
        Net::Resnet18(net) | Net::Resnet34(net) | Net::Resnet50(net) => resnet::Shape::head(net.stem),
        Net::Wideresnet(_) => wideresnet::NAMES.head,
        Net::DmWideResnet(_) => wideresnet::DM_NAMES.head,
        Net::PreactResnet18(_) => preact_resnet::NAMES.head,
        Net::Vit(_) => vit::HEAD,
        Net::Convnext(_) => convnext::HEAD,
        Net::Torchscript(_) => "",
    }
}

fn make(
    net: &Net,
    channels: usize,
    classes: usize,
    rng: Option<Rng>,
    device: Device,
) -> Result<Box<dyn Network>, StageError> {
    let (normalisation, logits) = sized(net, channels, classes, device)?;
    let standard = |net: &StandardResnet, blocks: [u32; 4], inside| {
        let shape = resnet::Shape::new((net.width, &blocks), inside, net.stem, channels, logits)?;
        shape.smoothed(net.smooth.as_ref())
    };
    let preact = |plan: preact::Plan, normalisation| -> Result<Box<dyn Network>, StageError> {
        Ok(Box::new(preact::PreactResnet::new(&plan, normalisation, rng, device)?))
    };
    let shape = match net {
        Net::Resnet { width, blocks, smooth, .. } => {
            let shape = resnet::Shape::new((*width, blocks), resnet::Inside::Basic, Stem::Cifar, channels, logits)?;
            shape.smoothed(smooth.as_ref())?
        }
        Net::Resnet18(net) => standard(net, [2, 2, 2, 2], resnet::Inside::Basic)?,
        Net::Resnet34(net) => standard(net, [3, 4, 6, 3], resnet::Inside::Basic)?,
        Net::Resnet50(net) => standard(net, [3, 4, 6, 3], resnet::Inside::Bottleneck)?,
        Net::Wideresnet(net) => return preact(wideresnet::plan(net, channels, logits)?, normalisation),
        Net::DmWideResnet(net) => return preact(wideresnet::dm_plan(net, channels, logits)?, normalisation),
        Net::PreactResnet18(net) => return preact(preact_resnet::plan(net, channels, logits)?, normalisation),
        Net::Vit(net) => {
            check(net.problem())?;
            return Ok(Box::new(vit::Vit::new(net, [channels, logits], normalisation, rng, device)?));
        }
        Net::Convnext(net) => {
            check(net.problem())?;
            return Ok(Box::new(convnext::Convnext::new(net, [channels, logits], normalisation, rng, device)?));
        }
        Net::Torchscript(_) => {
            return Err(StageError::setting("net.arch", "is `torchscript`, and there is no `network` input, its file"));
        }
    };
    Ok(Box::new(resnet::Resnet::new(&shape, normalisation, rng, device)?))
}

/// Checks that a network takes images of this height and width, in pixels.
///
/// # Errors
/// [`StageError::Mismatch`].
pub fn check_side(net: &Net, [height, width]: [i64; 2]) -> Result<(), StageError> {
    let wanted = match net.image_side() {
        Some(ImageSide::Exactly(side)) if [height, width] != [i64::from(side); 2] => format!("{side} × {side}"),
        Some(ImageSide::AtLeast(side)) if height.min(width) < i64::from(side) => format!("at least {side} × {side}"),
        _ => return Ok(()),
    };
    let text = format!("the images have {height} × {width} pixels, and the network takes {wanted}");
    Err(StageError::Mismatch(text))
}

/// Passes on what is wrong with the sizes of a description.
fn check(problem: Option<NetProblem>) -> Result<(), StageError> {
    match problem {
        Some(NetProblem { name, problem, .. }) => Err(StageError::setting(format!("net.{name}"), problem)),
        None => Ok(()),
    }
}

/// Returns a network's normalisation and number of logits, if it can have such images and classes at all.
fn sized(
    net: &Net,
    channels: usize,
    classes: usize,
    device: Device,
) -> Result<(layers::Normalisation, usize), StageError> {
    let logits = logits(net, classes)?;
    if !(1..=MOST_CHANNELS).contains(&channels) || !(1..=MOST_CLASSES).contains(&logits) {
        let problem = format!("cannot be made for {channels} channels and {logits} classes");
        return Err(StageError::setting("net", problem));
    }
    let normalisation = layers::Normalisation::new(net, channels, device)?;
    Ok((normalisation, logits))
}

/// Returns a network's number of logits for data with `classes` classes.
fn logits(net: &Net, classes: usize) -> Result<usize, StageError> {
    match net.classes() {
        Some(own) if (own as usize) < classes => {
            let problem = format!("is {own}, but the images have {classes} classes");
            Err(StageError::setting("net.classes", problem))
        }
        Some(own) => Ok(own as usize),
        None => Ok(classes),
    }
}

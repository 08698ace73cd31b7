//! Networks: what a trained or attacked network can do, its named tensors, and how one is made from its description.
//! Knows nothing of training, attacks or files.

mod layers;
mod resnet;
mod state;
mod wideresnet;

use atflow::stage_kinds::{Net, StandardResnet, Stem};
use tch::{Device, Kind, TchError, Tensor};

use crate::error::StageError;
use crate::rng::Rng;

pub use state::{ConvInit, Entry, Role, State};

/// Channels of images beyond which something is wrong with them: memory is asked for by these numbers.
const MOST_CHANNELS: usize = 1 << 12;
/// Classes beyond which the same holds.
const MOST_CLASSES: usize = 1 << 16;

/// Which statistics batch norm uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Those of the batch, which also move the running ones: training steps.
    Train,
    /// The running ones, left as they are: evaluation and attacks.
    Eval,
}

/// A network that classifies images. It owns its normalisation, so that everything outside works on pixels in [0, 1].
pub trait Network {
    /// Normalises images: N × C × H × W, f32, [0, 1] in.
    ///
    /// # Errors
    /// What libtorch says.
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError>;

    /// Logits (N × classes, f32) of normalised images. Convolutions and linear layers compute in the type of the
    /// images, bf16 say, on weights cast to it; gradients reach the weights as f32.
    ///
    /// # Errors
    /// What libtorch says.
    fn classify(&self, normalised: &Tensor, mode: Mode) -> Result<Tensor, TchError>;

    /// Logits (N × classes) of images in [0, 1].
    ///
    /// # Errors
    /// What libtorch says.
    fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        self.classify(&self.normalise(images)?, mode)
    }

    /// The network as it is now, in evaluation mode, made for being run many times: no tensor of it requires a
    /// gradient, and it computes the same as `forward(…, Mode::Eval)` up to rounding. Later changes of the network do
    /// not reach it.
    ///
    /// # Errors
    /// What libtorch says.
    fn freeze(&self) -> Result<Box<dyn Frozen>, TchError> {
        self.freeze_as(Kind::Float)
    }

    /// The same, computing in another type, bf16 say; logits are f32 all the same.
    ///
    /// # Errors
    /// What libtorch says.
    fn freeze_as(&self, kind: Kind) -> Result<Box<dyn Frozen>, TchError>;

    /// Every tensor of the network by its name in PyTorch's style.
    fn state(&self) -> &State;
}

/// A network that does not change any more ([`Network::freeze`]).
pub trait Frozen {
    /// Normalises images, as [`Network::normalise`].
    ///
    /// # Errors
    /// What libtorch says.
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError>;

    /// The last feature maps (N × channels × height × width, of whatever type the network computes in) of normalised
    /// images: what is averaged over space and given to the linear layer.
    ///
    /// # Errors
    /// What libtorch says.
    fn features(&self, normalised: &Tensor) -> Result<Tensor, TchError>;

    /// Logits (N × classes, f32) of the last feature maps.
    ///
    /// # Errors
    /// What libtorch says.
    fn head(&self, features: &Tensor) -> Result<Tensor, TchError>;

    /// Logits (N × classes, f32) of normalised images.
    ///
    /// # Errors
    /// What libtorch says.
    fn classify(&self, normalised: &Tensor) -> Result<Tensor, TchError> {
        self.head(&self.features(normalised)?)
    }

    /// Logits (N × classes) of images in [0, 1].
    ///
    /// # Errors
    /// What libtorch says.
    fn forward(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.classify(&self.normalise(images)?)
    }
}

/// Makes a network with its initial weights, drawn from `rng`.
///
/// # Errors
/// [`StageError::Setting`] if the description makes no network or does not fit the number of channels or classes;
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

/// Makes a network whose weights will be filled in: they are 0.
///
/// # Errors
/// As [`build`].
pub fn build_blank(net: &Net, channels: usize, classes: usize, device: Device) -> Result<Box<dyn Network>, StageError> {
    make(net, channels, classes, None, device)
}

/// The name of a network's last layer: that of the tensors `NAME.weight` and `NAME.bias`.
pub const fn head_name(net: &Net) -> &'static str {
    match net {
        Net::Resnet { .. } => resnet::Shape::head(Stem::Cifar),
        Net::Resnet18(net) | Net::Resnet34(net) | Net::Resnet50(net) => resnet::Shape::head(net.stem),
        Net::Wideresnet(_) => wideresnet::HEAD,
    }
}

fn make(
    net: &Net,
    channels: usize,
    classes: usize,
    rng: Option<Rng>,
    device: Device,
) -> Result<Box<dyn Network>, StageError> {
    let logits = logits(net, classes)?;
    if !(1..=MOST_CHANNELS).contains(&channels) || !(1..=MOST_CLASSES).contains(&logits) {
        let problem = format!("cannot be made for {channels} channels and {logits} classes");
        return Err(StageError::setting("net", problem));
    }
    let (mean, std) = net.normalisation();
    let normalisation = layers::Normalisation::new(mean, std, channels, device)?;
    let standard = |net: &StandardResnet, blocks: [u32; 4], inside| {
        resnet::Shape::new((net.width, &blocks), inside, net.stem, channels, logits)
    };
    let shape = match net {
        Net::Resnet { width, blocks, .. } => {
            resnet::Shape::new((*width, blocks), resnet::Inside::Basic, Stem::Cifar, channels, logits)?
        }
        Net::Resnet18(net) => standard(net, [2, 2, 2, 2], resnet::Inside::Basic)?,
        Net::Resnet34(net) => standard(net, [3, 4, 6, 3], resnet::Inside::Basic)?,
        Net::Resnet50(net) => standard(net, [3, 4, 6, 3], resnet::Inside::Bottleneck)?,
        Net::Wideresnet(net) => {
            let shape = wideresnet::Shape::new(net, channels, logits)?;
            return Ok(Box::new(wideresnet::WideResnet::new(&shape, normalisation, rng, device)?));
        }
    };
    Ok(Box::new(resnet::Resnet::new(&shape, normalisation, rng, device)?))
}

/// How many logits a network has for data of so many classes.
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

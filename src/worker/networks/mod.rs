//! Networks: what a trained or attacked network can do, its named tensors, and how one is made from its description.
//! Knows nothing of training, attacks or files.

mod layers;
mod resnet;
mod state;

use atflow::kinds::Net;
use tch::{Device, TchError, Tensor};

use crate::error::StageError;
use crate::rng::Rng;

pub use state::{Entry, Role, State};

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

    /// Logits (N × classes) of normalised images.
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

    /// The network as it is now, in evaluation mode, made for being run many times: no tensor of it requires a gradient, and it computes
    /// the same as `forward(…, Mode::Eval)` up to rounding. Later changes of the network do not reach it.
    ///
    /// # Errors
    /// What libtorch says.
    fn freeze(&self) -> Result<Box<dyn Frozen>, TchError>;

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

    /// Logits (N × classes) of normalised images.
    ///
    /// # Errors
    /// What libtorch says.
    fn classify(&self, normalised: &Tensor) -> Result<Tensor, TchError>;

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
/// [`StageError::Setting`] if the description makes no network or does not fit the number of channels; [`StageError::Torch`].
pub fn build(
    net: &Net,
    channels: usize,
    classes: usize,
    rng: Rng,
    device: Device,
) -> Result<Box<dyn Network>, StageError> {
    if !(1..=MOST_CHANNELS).contains(&channels) || !(1..=MOST_CLASSES).contains(&classes) {
        let problem = format!("cannot be made for {channels} channels and {classes} classes");
        return Err(StageError::setting("net", problem));
    }
    match net {
        Net::Resnet { width, blocks, mean, std } => {
            let normalisation = layers::Normalisation::new(mean, std, channels, device)?;
            let shape = resnet::Shape::new(*width, blocks, channels, classes)?;
            Ok(Box::new(resnet::Resnet::new(&shape, normalisation, rng, device)?))
        }
    }
}

//! The named tensors of a network, and their initial values as PyTorch draws them.

use tch::{Device, TchError, Tensor};

use crate::rng::{DrawTensor, Rng, Stream};

/// What a tensor of a network is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Learnt by the optimiser.
    Parameter,
    /// Kept by the network itself: running statistics.
    Buffer,
}

/// One tensor of a network.
#[derive(Debug)]
pub struct Entry {
    /// Its name, such as `layer1.0.bn1.running_mean`.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its values, f32; layers hold the same storage.
    pub tensor: Tensor,
}

/// How the weights of convolutions start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvInit {
    /// PyTorch's default, `kaiming_uniform_(a=√5)`: Uniform(−1/√fan_in, 1/√fan_in).
    Default,
    /// `kaiming_normal_(mode="fan_out", nonlinearity="relu")`: Normal(0, 2/fan_out), fan_out = channels out × kernel².
    FanOut,
}

/// The tensors of a network, in the order in which its layers were made.
#[derive(Debug)]
pub struct State {
    entries: Vec<Entry>,
    init: ConvInit,
    rng: Option<Rng>,
    device: Device,
}

impl State {
    /// No tensors yet; initial weights will be drawn from `rng`, each from a stream of its own name. Without `rng` they
    /// are 0.
    pub fn new(init: ConvInit, rng: Option<Rng>, device: Device) -> Self {
        State { entries: Vec::new(), init, rng, device }
    }

    /// Every tensor.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The learnt tensors, in order.
    pub fn parameters(&self) -> Vec<Tensor> {
        let learnt = self.entries.iter().filter(|entry| entry.role == Role::Parameter);
        learnt.map(|entry| entry.tensor.shallow_clone()).collect()
    }

    /// Adds the weights of a convolution: channels out × channels in × height × width of the kernel.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn convolution(&mut self, name: String, shape: &[i64; 4]) -> Result<Tensor, TchError> {
        let [to, from, height, width] = shape;
        match self.init {
            ConvInit::Default => self.uniform(name, shape, from * height * width),
            ConvInit::FanOut => {
                let deviation = (2.0 / (to * height * width) as f32).sqrt();
                self.drawn(name, shape, |stream| deviation * stream.normal())
            }
        }
    }

    /// Adds a parameter drawn from Uniform(−1/√`fan_in`, 1/√`fan_in`): the default of PyTorch's convolutions and linear
    /// layers (`kaiming_uniform_(a=√5)` for weights). Those of tch differ.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn uniform(&mut self, name: String, shape: &[i64], fan_in: i64) -> Result<Tensor, TchError> {
        let bound = 1.0 / (fan_in as f32).sqrt();
        self.drawn(name, shape, |stream| stream.uniform(-bound, bound))
    }

    fn drawn(&mut self, name: String, shape: &[i64], draw: impl FnMut(&mut Stream) -> f32) -> Result<Tensor, TchError> {
        let Some(rng) = self.rng else { return self.constant(name, Role::Parameter, shape, 0.0) };
        let tensor = rng.tensor(&format!("weights {name}"), &[], &[0], shape, self.device, draw)?;
        self.add(name, Role::Parameter, tensor.f_squeeze_dim(0)?)
    }

    /// Adds a tensor that starts as one value everywhere.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn constant(&mut self, name: String, role: Role, shape: &[i64], value: f64) -> Result<Tensor, TchError> {
        let tensor = Tensor::f_full(shape, value, (tch::Kind::Float, self.device))?;
        self.add(name, role, tensor)
    }

    fn add(&mut self, name: String, role: Role, tensor: Tensor) -> Result<Tensor, TchError> {
        // Channels last is the layout in which convolutions are fastest, on the CPU as well as on a GPU.
        let tensor = channels_last(&tensor)?.f_set_requires_grad(role == Role::Parameter)?;
        let own = tensor.shallow_clone();
        self.entries.push(Entry { name, role, tensor });
        Ok(own)
    }
}

/// The same values laid out with the channels of each pixel side by side, where the tensor has four axes; tch has no
/// argument for that.
///
/// # Errors
/// What libtorch says.
pub(super) fn channels_last(tensor: &Tensor) -> Result<Tensor, TchError> {
    if tensor.dim() != 4 {
        return Ok(tensor.shallow_clone());
    }
    tensor.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])
}

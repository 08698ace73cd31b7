//! Named tensors of a network, initialised like PyTorch.

use tch::{Device, TchError, Tensor};

use crate::rng::{DrawTensor, Rng, Stream};

/// Role of a tensor in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Learned by the optimiser.
    Parameter,
    /// Maintained by the network itself: running statistics.
    Buffer,
}

/// One tensor of a network.
#[derive(Debug)]
pub struct Entry {
    /// Its name, such as `layer1.0.bn1.running_mean`.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its values; the layer shares the same storage. They are f32, except in some buffers of TorchScript networks.
    pub tensor: Tensor,
}

/// Initialisation of convolution weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvInit {
    /// PyTorch's default, `kaiming_uniform_(a=√5)`: Uniform(−1/√fan_in, 1/√fan_in).
    Default,
    /// `kaiming_normal_(mode="fan_out", nonlinearity="relu")`: Normal(0, 2/fan_out), fan_out = output channels ×
    /// kernel².
    FanOut,
}

/// The tensors of a network, in the order in which its layers are created.
#[derive(Debug)]
pub struct State {
    entries: Vec<Entry>,
    init: ConvInit,
    rng: Option<Rng>,
    device: Device,
}

impl State {
    /// Creates an empty state.
    ///
    /// Initial weights are drawn from `rng`, each tensor from a stream of its own name. Without `rng` they are 0.
    pub fn new(init: ConvInit, rng: Option<Rng>, device: Device) -> Self {
        State { entries: Vec::new(), init, rng, device }
    }

    /// Wraps the tensors of a network that has made them itself.
    pub fn of(entries: Vec<Entry>, device: Device) -> Self {
        State { entries, init: ConvInit::Default, rng: None, device }
    }

    /// Returns every tensor.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the learned tensors, in order.
    pub fn parameters(&self) -> Vec<Tensor> {
        let learnt = self.entries.iter().filter(|entry| entry.role == Role::Parameter);
        learnt.map(|entry| entry.tensor.shallow_clone()).collect()
    }

    /// Adds the weights of a convolution: output channels × input channels × kernel height × kernel width.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn convolution(&mut self, name: String, shape: &[i64; 4]) -> Result<Tensor, TchError> {
        let [to, from, height, width] = shape;
        match self.init {
            ConvInit::Default => self.uniform(name, shape, from * height * width),
            ConvInit::FanOut => self.normal(name, shape, (2.0 / (to * height * width) as f32).sqrt()),
        }
    }

    /// Adds a parameter drawn from Uniform(−1/√`fan_in`, 1/√`fan_in`).
    ///
    /// This is the default of PyTorch's convolutions and linear layers (`kaiming_uniform_(a=√5)` for weights). The
    /// defaults of tch differ.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn uniform(&mut self, name: String, shape: &[i64], fan_in: i64) -> Result<Tensor, TchError> {
        let bound = 1.0 / (fan_in as f32).sqrt();
        self.drawn(name, shape, |stream| stream.uniform(-bound, bound))
    }

    /// Adds a parameter drawn from Normal(0, `deviation`²).
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn normal(&mut self, name: String, shape: &[i64], deviation: f32) -> Result<Tensor, TchError> {
        self.drawn(name, shape, |stream| deviation * stream.normal())
    }

    fn drawn(&mut self, name: String, shape: &[i64], draw: impl FnMut(&mut Stream) -> f32) -> Result<Tensor, TchError> {
        let Some(rng) = self.rng else { return self.constant(name, Role::Parameter, shape, 0.0) };
        let tensor = rng.tensor(&format!("weights {name}"), &[], &[0], shape, self.device, draw)?;
        self.add(name, Role::Parameter, tensor.f_squeeze_dim(0)?)
    }

    /// Adds a tensor filled with one value.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn constant(&mut self, name: String, role: Role, shape: &[i64], value: f64) -> Result<Tensor, TchError> {
        let tensor = Tensor::f_full(shape, value, (tch::Kind::Float, self.device))?;
        self.add(name, role, tensor)
    }

    fn add(&mut self, name: String, role: Role, tensor: Tensor) -> Result<Tensor, TchError> {
        // Convolutions are fastest in channels-last layout, on the CPU and on a GPU.
        let tensor = channels_last(&tensor)?.f_set_requires_grad(role == Role::Parameter)?;
        let own = tensor.shallow_clone();
        self.entries.push(Entry { name, role, tensor });
        Ok(own)
    }
}

/// Converts a 4-D tensor to channels-last layout; returns other tensors unchanged. tch has no argument for the layout.
///
/// # Errors
/// Returns the error from libtorch.
pub(super) fn channels_last(tensor: &Tensor) -> Result<Tensor, TchError> {
    if tensor.dim() != 4 {
        return Ok(tensor.shallow_clone());
    }
    tensor.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])
}

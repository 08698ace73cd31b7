//! Measures the statistics of batch norms anew, as `torch.optim.swa_utils.update_bn` does.

use tch::{TchError, Tensor};

use super::layers::MOMENTUM;
use super::{Mode, Network, Role};

/// Statistics that are being measured on a network of this program; its weights stay as they are.
pub struct Statistics {
    /// The running statistics of the network, which share their storage.
    buffers: Vec<Tensor>,
    /// The sums over batches of their statistics.
    sums: Vec<Tensor>,
    batches: u32,
}

impl Statistics {
    /// Begins without any batch.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn new(network: &dyn Network) -> Result<Self, TchError> {
        let entries = network.state().entries().iter().filter(|entry| entry.role == Role::Buffer);
        let buffers: Vec<Tensor> = entries.map(|entry| entry.tensor.shallow_clone()).collect();
        let sums = buffers.iter().map(Tensor::f_zeros_like).collect::<Result<_, _>>()?;
        Ok(Statistics { buffers, sums, batches: 0 })
    }

    /// Takes in a batch of normalised images: N × C × H × W.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn add(&mut self, network: &dyn Network, normalised: &Tensor) -> Result<(), TchError> {
        let _guard = tch::no_grad_guard();
        // From 0, a running statistic becomes that of the batch times the momentum.
        for buffer in &mut self.buffers {
            let _ = buffer.f_zero_()?;
        }
        let _ = network.classify(normalised, Mode::Train)?;
        for (sum, buffer) in self.sums.iter_mut().zip(&self.buffers) {
            let _ = sum.f_add_(&buffer.f_div_scalar(MOMENTUM)?)?;
        }
        self.batches += 1;
        Ok(())
    }

    /// Gives the network the mean over batches; every batch counts as much, the last, smaller one too.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn finish(self) -> Result<(), TchError> {
        let _guard = tch::no_grad_guard();
        for (mut buffer, sum) in self.buffers.into_iter().zip(&self.sums) {
            buffer.f_copy_(&sum.f_div_scalar(f64::from(self.batches.max(1)))?)?;
        }
        Ok(())
    }
}

//! Averages of the weights along a training.

use std::collections::BTreeMap;

use atflow::stage_kinds::{Average, SwaStatistics};
use tch::{Kind, TchError, Tensor};

use crate::networks::{Network, Role};

/// The average of a network's tensors, by name.
pub(super) struct WeightAverage {
    rule: Average,
    tensors: BTreeMap<String, Tensor>,
}

impl WeightAverage {
    /// Begins with the network as it is.
    pub(super) fn new(rule: Average, network: &dyn Network) -> Result<Self, TchError> {
        let mut tensors = BTreeMap::new();
        for entry in network.state().entries() {
            tensors.insert(entry.name.clone(), entry.tensor.f_detach()?.f_copy_own()?);
        }
        Ok(WeightAverage { rule, tensors })
    }

    /// Returns the state to save.
    pub(super) fn state(&self) -> impl Iterator<Item = (&String, &Tensor)> {
        self.tensors.iter()
    }

    /// Restores one tensor of [`WeightAverage::state`].
    pub(super) fn restore(&mut self, name: &str, value: &Tensor) -> Result<(), TchError> {
        self.tensors.get_mut(name).map_or(Ok(()), |tensor| tensor.f_copy_(value))
    }

    /// Takes in the weights after a step; `step` counts from 0 over the whole training.
    pub(super) fn after_step(&mut self, network: &dyn Network, step: u64) -> Result<(), TchError> {
        let Average::Ema { decay } = self.rule else { return Ok(()) };
        let kept = decay.get().min((1.0 + step as f64) / (10.0 + step as f64));
        self.mix(network, kept, false)
    }

    /// Takes in the weights after an epoch, counted from 1.
    pub(super) fn after_epoch(&mut self, network: &dyn Network, epoch: u32) -> Result<(), TchError> {
        let Average::Swa { from, .. } = self.rule else { return Ok(()) };
        let before = f64::from(epoch.saturating_sub(from));
        self.mix(network, before / (before + 1.0), true)
    }

    /// Returns whether the average after an epoch, counted from 1, needs statistics that are measured.
    pub(super) fn wants_statistics(&self, epoch: u32) -> bool {
        matches!(self.rule, Average::Swa { from, statistics: SwaStatistics::Measured } if epoch >= from)
    }

    /// Keeps a share of the average and adds the rest of the network. Statistics are mixed on request, and copied
    /// otherwise, as are tensors that are no floats.
    fn mix(&mut self, network: &dyn Network, kept: f64, with_statistics: bool) -> Result<(), TchError> {
        let _guard = tch::no_grad_guard();
        for entry in network.state().entries() {
            let Some(average) = self.tensors.get_mut(&entry.name) else { continue };
            let is_mixed = entry.tensor.kind() == Kind::Float && (with_statistics || entry.role == Role::Parameter);
            if is_mixed {
                let _ = average.f_mul_scalar_(kept)?.f_add_(&entry.tensor.f_mul_scalar(1.0 - kept)?)?;
            } else {
                average.f_copy_(&entry.tensor)?;
            }
        }
        Ok(())
    }

    /// Exchanges the network's tensors with the average.
    pub(super) fn swap(&mut self, network: &dyn Network) -> Result<(), TchError> {
        let _guard = tch::no_grad_guard();
        for entry in network.state().entries() {
            let Some(average) = self.tensors.get_mut(&entry.name) else { continue };
            let own = entry.tensor.f_detach()?.f_copy_own()?;
            entry.tensor.shallow_clone().f_copy_(average)?;
            average.f_copy_(&own)?;
        }
        Ok(())
    }
}

trait Copied: Sized {
    fn f_copy_own(&self) -> Result<Self, TchError>;
}

impl Copied for Tensor {
    /// Returns a tensor of its own storage.
    fn f_copy_own(&self) -> Result<Self, TchError> {
        let mut own = self.f_zeros_like()?;
        own.f_copy_(self)?;
        Ok(own)
    }
}

//! Random tensors from the generator of [`atflow::random`].

use tch::{Device, TchError, Tensor};

pub use atflow::random::{Rng, Stream};

/// Draws random tensors.
pub trait DrawTensor {
    /// Draws one tensor per sample, each from its own stream, and stacks them: shape (samples, …`shape`), f32.
    ///
    /// The key of a stream is `prefix` plus the sample's index.
    ///
    /// # Errors
    /// Returns the error from libtorch, such as one for lack of memory.
    fn tensor(
        &self,
        purpose: &str,
        prefix: &[u64],
        samples: &[u64],
        shape: &[i64],
        device: Device,
        draw: impl FnMut(&mut Stream) -> f32,
    ) -> Result<Tensor, TchError>;
}

impl DrawTensor for Rng {
    fn tensor(
        &self,
        purpose: &str,
        prefix: &[u64],
        samples: &[u64],
        shape: &[i64],
        device: Device,
        mut draw: impl FnMut(&mut Stream) -> f32,
    ) -> Result<Tensor, TchError> {
        let count = shape.iter().product::<i64>() as usize;
        let mut values = Vec::with_capacity(count * samples.len());
        let mut key = prefix.to_vec();
        for &sample in samples {
            key.push(sample);
            let mut stream = self.stream(purpose, &key);
            key.pop();
            values.extend((0..count).map(|_| draw(&mut stream)));
        }
        let size = [&[samples.len() as i64], shape].concat();
        Tensor::f_from_slice(&values)?.f_view(&size[..])?.f_to_device(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_samples_numbers_do_not_depend_on_its_batch() {
        let rng = Rng::new(3);
        let draw = |samples: &[u64]| rng.tensor("noise", &[9], samples, &[2, 5], Device::Cpu, Stream::normal).unwrap();
        let (all, some) = (draw(&[4, 5, 6]), draw(&[6, 4]));
        assert_eq!(all.size(), [3, 2, 5]);
        assert_eq!(all.get(2), some.get(0));
        assert_eq!(all.get(0), some.get(1));
        assert_ne!(all.get(0), all.get(1));
    }
}

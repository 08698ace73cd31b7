//! Measures how much a map changes when its image hardly does. Knows neither sets nor pictures.

use atflow::stage_kinds::{Method, Stability};
use tch::{Kind, TchError, Tensor};

use super::maps;
use crate::context::Context;
use crate::error::StageError;
use crate::networks::Frozen;
use crate::rng::{DrawTensor, Stream};

/// Names of the measures, in the order of [`Stabilities::values`].
pub(super) const MEASURES: [&str; 3] = ["relative_input_stability", "relative_output_stability", "label_kept"];

/// The least denominator, so that no ratio is infinite.
const LEAST: f64 = 1e-6;

/// An image of 1 × C × H × W in [0, 1], its class (I64, shape 1), and its index in its set.
pub(super) struct Subject<'a> {
    pub(super) image: &'a Tensor,
    pub(super) label: &'a Tensor,
    pub(super) index: u64,
}

/// What was measured on one image; the ratios are `None` if no draw kept the predicted class, or the map is 0.
pub(super) struct Stabilities {
    pub(super) input: Option<f64>,
    pub(super) output: Option<f64>,
    /// Share of draws with the predicted class of the image itself.
    pub(super) kept: f64,
}

impl Stabilities {
    /// The values in the order of [`MEASURES`].
    pub(super) fn values(&self) -> [Option<f64>; 3] {
        [self.input, self.output, Some(self.kept)]
    }
}

/// Measures the stability of one network's `map` of an image, after Agarwal et al. 2022.
///
/// Draws are uniform within the radius, cut at 0 and 1. All networks see the same draws of an image.
///
/// # Errors
/// Any [`StageError`].
pub(super) fn measure(
    context: &Context<'_>,
    (method, stability): (&Method, &Stability),
    network: &dyn Frozen,
    subject: &Subject<'_>,
    map: &[f32],
) -> Result<Stabilities, StageError> {
    let logits = |image: &Tensor| tch::no_grad(|| network.classify(&network.normalise(image)?));
    let (image, radius) = (subject.image, stability.radius.get());
    let (before, draws) = (logits(image)?, u64::from(stability.draws));
    let (mut input, mut output, mut kept) = (None, None, 0_u32);
    for draw in 0..draws {
        let shape = &image.size()[1..];
        let uniform = |stream: &mut Stream| stream.uniform(-1.0, 1.0);
        let moved = context.rng.tensor("stability", &[subject.index], &[draw], shape, context.device, uniform)?;
        let near = image.f_add(&moved.f_mul_scalar(radius)?)?.f_clamp(0.0, 1.0)?;
        let after = logits(&near)?;
        if after.f_argmax(1, false)? != before.f_argmax(1, false)? {
            continue;
        }
        kept += 1;
        let near_map = map_of(context, method, network, &Subject { image: &near, ..*subject })?;
        let change = relative(map, &near_map);
        let of_input = norm(&near.f_sub(image)?)? / norm(image)?.max(LEAST);
        let of_output = norm(&after.f_sub(&before)?)?;
        input = larger(input, change.map(|change| change / of_input.max(LEAST)));
        output = larger(output, change.map(|change| change / of_output.max(LEAST)));
    }
    Ok(Stabilities { input, output, kept: f64::from(kept) / draws as f64 })
}

/// Computes the map of one image, with the noise that its unchanged image has.
fn map_of(
    context: &Context<'_>,
    method: &Method,
    network: &dyn Frozen,
    subject: &Subject<'_>,
) -> Result<Vec<f32>, StageError> {
    let passes: Vec<u64> = (0..maps::passes(method) as u64).collect();
    let shape: [i64; 3] = [subject.image.size()[1], subject.image.size()[2], subject.image.size()[3]];
    let mut sum = Tensor::from(0.0_f32).f_to_device(context.device)?;
    for passes in passes.chunks(super::COPIES) {
        let noise = super::noise(context, method, subject.index, passes, &shape)?;
        let found = maps::contribution(method, network, subject.image, subject.label, passes, noise.as_ref())?;
        sum = found.f_add(&sum)?;
    }
    let map = maps::from_sum(method, network, subject.image, &sum)?;
    if map.iter().any(|value| !value.is_finite()) {
        return Err(StageError::NotFinite { index: subject.index as usize });
    }
    Ok(map)
}

fn norm(tensor: &Tensor) -> Result<f64, TchError> {
    tensor.f_to_kind(Kind::Double)?.f_norm()?.f_double_value(&[])
}

/// Returns |b − a| / |a| in the Euclidean norm; `None` if `a` is 0.
fn relative(a: &[f32], b: &[f32]) -> Option<f64> {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let size = square(&mut a.iter().map(|&a| f64::from(a)));
    let change = square(&mut a.iter().zip(b).map(|(&a, &b)| f64::from(b) - f64::from(a)));
    (size > 0.0).then(|| change / size)
}

fn larger(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.into_iter().chain(b).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_relative_to_the_map() {
        assert_eq!(relative(&[3.0, 4.0], &[3.0, 9.0]), Some(1.0));
        assert_eq!(relative(&[0.0, 0.0], &[1.0, 0.0]), None);
        assert_eq!(
            (larger(None, Some(1.0)), larger(Some(2.0), Some(1.0)), larger(None, None)),
            (Some(1.0), Some(2.0), None)
        );
    }
}

//! Makes changed test sets, batch by batch: labels and order stay, pixels become bytes again. Knows nothing of networks that classify.

pub mod adain;
pub mod fourier;
pub mod pixels;
mod style;

use std::rc::Rc;

use atflow::formats::ImageSet;
use atflow::kinds::{CueConflict, Fourier, PatchShuffle, Saturate, Stylize, TransformParams};
use tch::{Device, Kind, TchError, Tensor};

use super::grouped;
use crate::context::Context;
use crate::data::DeviceSet;
use crate::error::StageError;

/// A batch has about so many pixels (of one channel): 16 images of 224 × 224. What a network's layers need for a batch then stays below a gigabyte.
const BATCH_PIXELS: i64 = 16 * 224 * 224;
/// And no more images than this.
const LARGEST_BATCH: i64 = 256;

/// Runs a `transform` stage.
///
/// # Errors
/// Any [`StageError`].
pub fn run(context: &mut Context<'_>) -> Result<String, StageError> {
    let params: TransformParams = context.params()?;
    let input = context.input("data")?;
    let set = context.set(input)?;
    let [_, height, width] = set.shape;
    let mut texture = set.texture.clone();
    let (pixels, done) = match params {
        TransformParams::Saturate(Saturate { level }) => {
            if level.get() <= 0.0 {
                return Err(StageError::setting("level", "must be above 0"));
            }
            let table = pixels::saturation(level.get());
            let pixels = each_batch(context, &set, |_, images, _| {
                let mut pixels = bytes(&images)?;
                pixels.iter_mut().for_each(|pixel| *pixel = table[usize::from(*pixel)]);
                Ok(pixels)
            })?;
            (pixels, format!("saturated to level {level}"))
        }
        TransformParams::PatchShuffle(PatchShuffle { k, assembly }) => {
            if k == 0 || height % i64::from(k) != 0 || width % i64::from(k) != 0 {
                let problem =
                    format!("must divide the images' height and width ({height} × {width}), and {k} does not");
                return Err(StageError::setting("k", problem));
            }
            let pieces = k as usize;
            let shape = set.shape.map(|side| side as usize);
            let pixels = each_batch(context, &set, |context, images, indices| {
                let source = bytes(&images)?;
                let mut target = vec![0; source.len()];
                let size = shape.iter().product();
                for ((source, target), &index) in source.chunks(size).zip(target.chunks_mut(size)).zip(indices) {
                    let order = context.rng.stream("patch shuffle", &[index]).permutation(pieces * pieces);
                    let order = pixels::assembled(&order, pieces, assembly);
                    pixels::shuffle_patches(source, target, shape, pieces, &order);
                }
                Ok(target)
            })?;
            (pixels, format!("shuffled in {k} × {k} pieces"))
        }
        TransformParams::Fourier(params) => {
            let filter = fourier::Filtering::new(&params, [height, width], context.device)?;
            let pixels = each_batch(context, &set, |context, images, indices| {
                bytes(&filter.apply(&images, context.rng, indices)?)
            })?;
            (pixels, filtered(&params))
        }
        TransformParams::Stylize(Stylize { alpha }) => {
            let paintings = context.input("style")?;
            let paintings = context.set(paintings)?;
            let count = paintings.len() as u64;
            if count == 0 {
                return Err(StageError::Mismatch("`style` has no image to take the style of".to_owned()));
            }
            let rng = context.rng;
            // A painting stands for no class of the set.
            texture = None;
            let choose = |index| rng.stream("style", &[index]).below(count);
            let pixels = style::repaint(context, &set, &paintings, alpha.get(), choose)?;
            (pixels, format!("stylized after {} paintings", grouped(count)))
        }
        TransformParams::CueConflict(CueConflict { alpha }) => {
            let donors = style::Donors::new(&set)?;
            let rng = context.rng;
            let choose = |index| donors.choose(rng, set.host_labels[index as usize], index);
            texture = Some((0..set.len() as u64).map(|index| set.host_labels[choose(index) as usize]).collect());
            let pixels = style::repaint(context, &set, &set, alpha.get(), choose)?;
            (pixels, "in the texture of another class".to_owned())
        }
    };
    let shape = [set.len() as i64, set.shape[0], height, width].map(|side| side as usize);
    let (labels, classes) = (set.host_labels.clone(), set.classes.clone());
    let changed = ImageSet { pixels, shape, labels, texture, classes };
    let bytes = changed.to_bytes().map_err(|error| StageError::Encode { output: "images", source: error.into() })?;
    context.write("images", &bytes)?;
    Ok(format!("{} images {done}", grouped(set.len() as u64)))
}

fn filtered(Fourier { filter, radius, .. }: &Fourier) -> String {
    use atflow::kinds::Filter;
    match (filter, radius) {
        (Filter::LowPass, Some(radius)) => format!("low-pass filtered, radius {radius}"),
        (Filter::HighPass, Some(radius)) => format!("high-pass filtered, radius {radius}"),
        _ => "filtered at random frequencies".to_owned(),
    }
}

/// The bytes of a whole set after `change`, which gets the images of a batch (f32, [0, 1], N × C × H × W) with their indices and gives their new bytes.
fn each_batch(
    context: &mut Context<'_>,
    set: &Rc<DeviceSet>,
    mut change: impl FnMut(&mut Context<'_>, Tensor, &[u64]) -> Result<Vec<u8>, StageError>,
) -> Result<Vec<u8>, StageError> {
    let _guard = tch::no_grad_guard();
    let [channels, height, width] = set.shape;
    let batch = (BATCH_PIXELS / (height * width).max(1)).clamp(1, LARGEST_BATCH) as usize;
    let total = set.len() as u64;
    let mut pixels = Vec::with_capacity(set.len() * (channels * height * width) as usize);
    let indices: Vec<u64> = (0..total).collect();
    for indices in indices.chunks(batch) {
        let (images, _) = set.batch(indices)?;
        pixels.extend(change(context, images, indices)?);
        let done = indices[0] + indices.len() as u64;
        context.reporter.progress(done, total, || format!("image {}", grouped(done)))?;
    }
    Ok(pixels)
}

/// Images in [0, 1] as bytes, clamped and rounded to the nearest: what `ImageSet` keeps.
fn bytes(images: &Tensor) -> Result<Vec<u8>, StageError> {
    Ok(to_bytes(images)?)
}

fn to_bytes(images: &Tensor) -> Result<Vec<u8>, TchError> {
    let scaled = images.f_clamp(0.0, 1.0)?.f_mul_scalar_(255.0)?.f_round_()?.f_to_kind(Kind::Uint8)?;
    Vec::try_from(scaled.f_to_device(Device::Cpu)?.f_contiguous()?.f_view(-1)?)
}

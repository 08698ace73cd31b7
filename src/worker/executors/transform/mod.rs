//! Transforms test sets batch by batch, or draws a sample of one.
//!
//! Transforms keep labels and order, and convert pixels back to bytes. Knows nothing about classifiers.

pub mod adain;
pub mod corruptions;
pub mod fourier;
pub mod pixels;
mod sample;
mod style;

use std::path::Path;
use std::rc::Rc;

use atflow::formats::{ImageHead, ImageWriter, Sizes, WriteError};
use atflow::stage_kinds::{Corrupt, CueConflict, Fourier, PatchShuffle, Sample, Saturate, Stylize, TransformParams};
use tch::{Device, Kind, TchError, Tensor};

use super::grouped;
use crate::context::Context;
use crate::data::DeviceSet;
use crate::error::StageError;

/// Approximate pixels per batch (of one channel): 16 images of 224 × 224. This keeps a network's layers below a
/// gigabyte per batch.
const BATCH_PIXELS: usize = 16 * 224 * 224;
/// Maximum number of images per batch.
const LARGEST_BATCH: usize = 256;

/// Runs a `transform` stage.
///
/// # Errors
/// Any [`StageError`].
pub fn run(context: &mut Context<'_>) -> Result<String, StageError> {
    let params: TransformParams = context.params()?;
    let input = context.input("data")?;
    let set = context.set(input)?;
    let done = match params {
        TransformParams::Saturate(params) => saturate(context, &set, &params)?,
        TransformParams::PatchShuffle(params) => shuffle_patches(context, &set, &params)?,
        TransformParams::Fourier(params) => filter(context, &set, &params)?,
        TransformParams::Stylize(params) => stylize(context, &set, &params)?,
        TransformParams::CueConflict(params) => cue_conflict(context, &set, &params)?,
        TransformParams::Corrupt(params) => corrupt(context, &set, &params)?,
        TransformParams::Sample(Sample { count }) => return sample::draw(context, &set, count),
    };
    Ok(format!("{} images {done}", grouped(set.len() as u64)))
}

// Each of these writes the new set, and returns what it did in the words of the summary.

fn saturate(context: &mut Context<'_>, set: &Rc<DeviceSet>, params: &Saturate) -> Result<String, StageError> {
    let level = params.level;
    if level.get() <= 0.0 {
        return Err(StageError::setting("level", "must be above 0"));
    }
    let table = pixels::saturation(level.get());
    each_batch(context, set, set.texture.clone(), |_, images, _| {
        let mut pixels = bytes(&images)?;
        pixels.iter_mut().for_each(|pixel| *pixel = table[usize::from(*pixel)]);
        Ok(pixels)
    })?;
    Ok(format!("saturated to level {level}"))
}

fn shuffle_patches(
    context: &mut Context<'_>,
    set: &Rc<DeviceSet>,
    &PatchShuffle { k, assembly }: &PatchShuffle,
) -> Result<String, StageError> {
    let [_, height, width] = set.shape;
    if k == 0 || height % i64::from(k) != 0 || width % i64::from(k) != 0 {
        let problem = format!("must divide the images' height and width ({height} × {width}), and {k} does not");
        return Err(StageError::setting("k", problem));
    }
    let pieces = k as usize;
    let shape = set.shape.map(|side| side as usize);
    each_batch(context, set, set.texture.clone(), |context, images, indices| {
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
    Ok(format!("shuffled in {k} × {k} pieces"))
}

fn corrupt(context: &mut Context<'_>, set: &Rc<DeviceSet>, params: &Corrupt) -> Result<String, StageError> {
    let [channels, height, width] = set.shape.map(|side| side as usize);
    let table = params.table(height, width);
    let Some(corrupter) = corruptions::Corrupter::new(params.kind, table, params.severity) else {
        return Err(StageError::setting("severity", "must be from 1 to 5"));
    };
    each_batch(context, set, set.texture.clone(), |context, images, indices| {
        let source = bytes(&images)?;
        let images = source.chunks(channels * height * width).zip(indices);
        let corrupted = images.flat_map(|(image, &index)| {
            corrupter.apply(image, [channels, height, width], &mut context.rng.stream("corrupt", &[index]))
        });
        Ok(corrupted.collect())
    })?;
    Ok(format!("corrupted with severity {}", params.severity))
}

fn filter(context: &mut Context<'_>, set: &Rc<DeviceSet>, params: &Fourier) -> Result<String, StageError> {
    let [_, height, width] = set.shape;
    let filter = fourier::Filtering::new(params, [height, width], context.device)?;
    each_batch(context, set, set.texture.clone(), |context, images, indices| {
        bytes(&filter.apply(&images, context.rng, indices)?)
    })?;
    Ok(filtered(params))
}

fn stylize(context: &mut Context<'_>, set: &Rc<DeviceSet>, params: &Stylize) -> Result<String, StageError> {
    let paintings = context.input("style")?;
    let paintings = context.set(paintings)?;
    let count = paintings.len() as u64;
    if count == 0 {
        return Err(StageError::Mismatch("`style` has no image to take the style of".to_owned()));
    }
    let rng = context.rng;
    let choose = |index| rng.stream("style", &[index]).below(count);
    // A painting has no class of the set.
    style::repaint(context, set, None, &paintings, params.alpha.get(), choose)?;
    Ok(format!("stylized after {} paintings", grouped(count)))
}

fn cue_conflict(context: &mut Context<'_>, set: &Rc<DeviceSet>, params: &CueConflict) -> Result<String, StageError> {
    let donors = style::Donors::new(set)?;
    let rng = context.rng;
    let choose = |index| donors.choose(rng, set.host_labels[index as usize], index);
    let texture = Some((0..set.len() as u64).map(|index| set.host_labels[choose(index) as usize]).collect());
    style::repaint(context, set, texture, set, params.alpha.get(), choose)?;
    Ok("in the texture of another class".to_owned())
}

fn filtered(Fourier { filter, radius, .. }: &Fourier) -> String {
    use atflow::stage_kinds::Filter;
    match (filter, radius) {
        (Filter::LowPass, Some(radius)) => format!("low-pass filtered, radius {radius}"),
        (Filter::HighPass, Some(radius)) => format!("high-pass filtered, radius {radius}"),
        _ => "filtered at random frequencies".to_owned(),
    }
}

/// Writes the set that `change` produces from another, batch by batch, to hold only one batch in memory.
///
/// `change` gets images (f32, [0, 1], N × C × H × W) with their indices and returns their new bytes. Labels and classes
/// stay; `texture` belongs to the new set.
fn each_batch(
    context: &mut Context<'_>,
    set: &Rc<DeviceSet>,
    texture: Option<Vec<i32>>,
    mut change: impl FnMut(&mut Context<'_>, Tensor, &[u64]) -> Result<Vec<u8>, StageError>,
) -> Result<(), StageError> {
    let _guard = tch::no_grad_guard();
    let [channels, height, width] = set.shape.map(|side| side as usize);
    let path = context.output("images")?;
    let failed = |error| write_failed(path, error);
    let head = ImageHead {
        labels: set.host_labels.clone(),
        texture,
        classes: set.classes.clone(),
        channels,
        sizes: Sizes::One([height, width]),
        view: None,
    };
    let mut writer = ImageWriter::with_head(path, head).map_err(failed)?;
    let total = set.len() as u64;
    let batch = (BATCH_PIXELS / (height * width).max(1)).clamp(1, LARGEST_BATCH);
    let indices: Vec<u64> = (0..total).collect();
    for indices in indices.chunks(batch) {
        let (images, _) = set.batch(indices)?;
        let pixels = change(context, images, indices)?;
        for (image, &index) in pixels.chunks(channels * height * width).zip(indices) {
            writer.push(image, [height, width], set.host_labels[index as usize]).map_err(failed)?;
        }
        let done = indices[0] + indices.len() as u64;
        context.reporter.count_images(indices.len());
        context.reporter.progress(done, total, || format!("image {}", grouped(done)))?;
    }
    writer.finish().map_err(failed)?;
    Ok(())
}

/// Converts a failed write of an image set into a stage error.
fn write_failed(path: &Path, error: WriteError) -> StageError {
    match error {
        WriteError::Io(source) => StageError::Write { path: path.to_owned(), source },
        error => StageError::Encode { output: "images", source: error.into() },
    }
}

/// Converts images in [0, 1] to bytes, clamped and rounded to the nearest, as image sets store them.
fn bytes(images: &Tensor) -> Result<Vec<u8>, StageError> {
    Ok(to_bytes(images)?)
}

fn to_bytes(images: &Tensor) -> Result<Vec<u8>, TchError> {
    let scaled = images.f_clamp(0.0, 1.0)?.f_mul_scalar_(255.0)?.f_round_()?.f_to_kind(Kind::Uint8)?;
    Vec::try_from(scaled.f_to_device(Device::Cpu)?.f_contiguous()?.f_view(-1)?)
}

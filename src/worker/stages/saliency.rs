//! Saliency maps of several models on the same images: the numbers, and a sheet of pictures.
//!
//! As in the authors' code the gradient is taken with respect to the *normalised* image, and the noise is added to that. All models see
//! the same noise on the same image, so their maps can be compared.

use std::rc::Rc;

use atflow::formats::{self, FormatError};
use atflow::kinds::{Method, SaliencyParams};
use atflow::picture::{Sheet, Tile, sheet_png};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Serialize;
use tch::{TchError, Tensor};

use super::{check_fit, grouped};
use crate::attacks::input_gradient;
use crate::checkpoint::Checkpoint;
use crate::context::Context;
use crate::data::DeviceSet;
use crate::error::StageError;
use crate::networks::Frozen;
use crate::rng::Stream;

/// Noisy copies computed at a time.
const COPIES: usize = 50;
/// Tiles are enlarged by a whole factor to about this side, in pixels.
const SIDE: i64 = 112;
/// The share of a map's pixels that are below its white (authors' code).
const WHITE: f64 = 0.99;

/// What stands in the file of the output `maps`, beside the tensors `maps` (F32, models × images × H × W) and `images` (I32, the
/// images' indices in the set).
#[derive(Debug, Serialize)]
struct Metadata<'a> {
    format: &'static str,
    method: &'a Method,
    models: &'a [String],
}

/// Runs a `saliency` stage.
///
/// # Errors
/// Any [`StageError`].
pub fn run(context: &mut Context<'_>) -> Result<String, StageError> {
    let params: SaliencyParams = context.params()?;
    let (samples, spread) = match params.method {
        Method::Grad => (1, 0.0),
        Method::Smoothgrad { samples, spread } => (samples as usize, spread.get()),
    };
    if samples == 0 {
        return Err(StageError::setting("method.samples", "must be at least 1"));
    }
    if spread < 0.0 {
        return Err(StageError::setting("method.spread", "must not be below 0"));
    }
    let set = context.input("set")?;
    let set = context.set(set)?;
    if params.images.is_empty() {
        return Err(StageError::setting("images", "must name at least one image"));
    }
    if let Some(index) = params.images.iter().find(|&&index| index as usize >= set.len()) {
        let problem =
            format!("names image {index}, but the set has {} images, counted from 0", grouped(set.len() as u64));
        return Err(StageError::setting("images", problem));
    }
    let inputs = context.inputs("models");
    if inputs.is_empty() {
        return Err(StageError::Slot { slot: "models", expected: "one or more inputs", found: 0 });
    }
    let mut models: Vec<Rc<Checkpoint>> = Vec::new();
    for &input in &inputs {
        let model = context.checkpoint(input)?;
        check_fit(&model, &set)?;
        models.push(model);
    }
    let names: Vec<String> = inputs.iter().map(|input| input.label.clone()).collect();

    let total = (models.len() * params.images.len() * samples) as u64;
    let mut done = 0;
    let mut maps = Vec::with_capacity(models.len());
    for (model, name) in models.iter().zip(&names) {
        let network = model.network.freeze()?;
        let mut of_model = Vec::with_capacity(params.images.len());
        for &index in &params.images {
            let index = u64::from(index);
            let (image, label) = set.batch(&[index])?;
            let mut sum: Option<Tensor> = None;
            let numbers: Vec<u64> = (0..samples as u64).collect();
            for copies in numbers.chunks(COPIES) {
                let noise = match spread {
                    0.0 => Tensor::f_zeros(
                        [&[copies.len() as i64], &set.shape[..]].concat(),
                        (tch::Kind::Float, context.device),
                    )?,
                    _ => context.rng.tensor(
                        "smoothgrad",
                        &[index],
                        copies,
                        &set.shape,
                        context.device,
                        Stream::normal,
                    )?,
                };
                let part = gradient_sum(&*network, &image, &label, &noise, spread)?;
                sum = Some(match sum {
                    Some(sum) => sum.f_add(&part)?,
                    None => part,
                });
                done += copies.len() as u64;
                context.reporter.progress(done, total, || format!("{name}  image {index}"))?;
            }
            if let Some(sum) = sum {
                of_model.push(magnitude(&sum.f_div_scalar(samples as f64)?)?);
            }
        }
        maps.push(of_model);
    }
    context.write("maps", &encode_maps(&params, &names, &maps, &set)?)?;
    let grid = sheet_png(&sheet(&params, names, &maps, &set)?)
        .map_err(|error| StageError::Encode { output: "grid", source: error.into() })?;
    context.write("grid", &grid)?;
    Ok(format!("{} images, {} models", params.images.len(), models.len()))
}

/// The gradient of log p(true class) with respect to the normalised image, summed over noisy copies: C × H × W.
///
/// `image` is 1 × C × H × W in [0, 1], `label` its class (I64, shape 1), `noise` standard normal (copies × C × H × W): it is multiplied by
/// `spread` times the range of the normalised image (Smilkov et al. 2017, section 3).
///
/// # Errors
/// What libtorch says.
pub fn gradient_sum(
    network: &dyn Frozen,
    image: &Tensor,
    label: &Tensor,
    noise: &Tensor,
    spread: f64,
) -> Result<Tensor, TchError> {
    let image = network.normalise(image)?;
    let deviation = image.f_max()?.f_sub(&image.f_min()?)?.f_mul_scalar(spread)?;
    let copies = image.f_add(&noise.f_mul(&deviation)?)?;
    let labels = label.f_expand([copies.size()[0]], false)?;
    // log p is the negated cross-entropy.
    let gradient = input_gradient(&copies, &labels, |copies| network.classify(copies))?.f_neg()?;
    gradient.f_sum_dim_intlist([0i64].as_slice(), false, None)
}

/// The absolute values of a gradient (C × H × W), summed over channels: H × W numbers in rows.
fn magnitude(gradient: &Tensor) -> Result<Vec<f32>, TchError> {
    let map = gradient.f_abs()?.f_sum_dim_intlist([0i64].as_slice(), false, None)?;
    Vec::try_from(map.f_to_device(tch::Device::Cpu)?.f_contiguous()?.f_view(-1)?)
}

fn encode_maps(
    params: &SaliencyParams,
    names: &[String],
    maps: &[Vec<Vec<f32>>],
    set: &DeviceSet,
) -> Result<Vec<u8>, StageError> {
    let values: Vec<u8> = maps.iter().flatten().flatten().flat_map(|value| value.to_le_bytes()).collect();
    let images: Vec<u8> = params.images.iter().flat_map(|index| index.to_le_bytes()).collect();
    let shape = vec![maps.len(), params.images.len(), set.shape[1] as usize, set.shape[2] as usize];
    let metadata = Metadata { format: "saliency/1", method: &params.method, models: names };
    let write = || {
        let tensors = [
            ("maps", TensorView::new(Dtype::F32, shape, &values)?),
            ("images", TensorView::new(Dtype::I32, vec![params.images.len()], &images)?),
        ];
        formats::write(tensors, &metadata)
    };
    write().map_err(|error: FormatError| StageError::Encode { output: "maps", source: error.into() })
}

/// A row for each image, headed by its true class: the image, then each model's map.
fn sheet(
    params: &SaliencyParams,
    names: Vec<String>,
    maps: &[Vec<Vec<f32>>],
    set: &DeviceSet,
) -> Result<Sheet, StageError> {
    let [_, height, width] = set.shape;
    let tile = |rgb: Vec<u8>| Tile { width: width as u32, height: height as u32, rgb };
    let mut sheet = Sheet {
        title: None,
        columns: [vec!["image".to_owned()], names].concat(),
        rows: Vec::new(),
        tiles: Vec::new(),
        scale: (SIDE / height.max(width).max(1)).max(1) as u32,
    };
    for (row, &index) in params.images.iter().enumerate() {
        sheet.rows.push(set.classes[set.host_labels[index as usize] as usize].clone());
        let mut tiles = vec![tile(colours(&set.pixels(index as usize)?, set.channels()))];
        tiles.extend(maps.iter().map(|of_model| tile(grey(&of_model[row]))));
        sheet.tiles.push(tiles);
    }
    Ok(sheet)
}

/// The three colours of each pixel, from planes. Images of other than three channels are drawn in grey by their first.
fn colours(planes: &[u8], channels: usize) -> Vec<u8> {
    let size = planes.len() / channels;
    let plane = |colour: usize| if channels == 3 { colour } else { 0 };
    (0..size).flat_map(|at| [0, 1, 2].map(|colour| planes[plane(colour) * size + at])).collect()
}

/// A map as grey pixels: over its 99th percentile, clipped at 1, times 255 and cut off (authors' code). A map of zeros is black.
fn grey(map: &[f32]) -> Vec<u8> {
    let white = percentile(map, WHITE);
    let shade = |value: f32| if white > 0.0 { (255.0 * (f64::from(value) / white).min(1.0)) as u8 } else { 0 };
    map.iter().flat_map(|&value| [shade(value); 3]).collect()
}

/// The value below which a share of the values lies, between neighbours by linear interpolation, as `numpy.percentile` has it.
/// `values` is not empty.
fn percentile(values: &[f32], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let rank = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    f64::from(low) + (f64::from(high) - f64::from(low)) * rank.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_drawn_up_to_its_99th_percentile() {
        // numpy.percentile(range(201), 99) is 198.
        let map: Vec<f32> = (0..=200).map(|value| value as f32).collect();
        assert_eq!(percentile(&map, 0.99), 198.0);
        assert_eq!(percentile(&[1.0, 2.0], 0.99), 1.99);
        let drawn = grey(&map);
        assert_eq!([drawn[0], drawn[3 * 99], drawn[3 * 198], drawn[3 * 200]], [0, 127, 255, 255]);
        assert_eq!(grey(&[0.0; 4]), [0; 12]);
    }

    #[test]
    fn planes_become_colours() {
        assert_eq!(colours(&[1, 2, 3, 4, 5, 6], 3), [1, 3, 5, 2, 4, 6]);
        assert_eq!(colours(&[7, 8], 1), [7, 7, 7, 8, 8, 8]);
    }
}

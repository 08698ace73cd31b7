//! Fourier heat maps: how often models err when a wave of one frequency is added to the images (Yin et al. 2019).
//!
//! All models see the same waves with the same signs. `waves` computes them, `report` writes the numbers.

mod report;
pub mod waves;

use std::rc::Rc;

use atflow::picture::{Sheet, Tile, heat_tile, sheet_drawing};
use atflow::stage_kinds::FourierMapParams;
use tch::{Kind, Tensor};

use self::report::{Errors, Report};
use super::{check_fit, grouped, limited};
use crate::context::Context;
use crate::data::DeviceSet;
use crate::error::StageError;
use crate::networks::Frozen;

/// Approximate side of an enlarged map, in pixels; the scale is an integer.
const SIDE: usize = 168;

/// Runs a `fourier_map` stage.
///
/// # Errors
/// Any [`StageError`].
pub fn run(context: &mut Context<'_>) -> Result<String, StageError> {
    let params: FourierMapParams = context.params()?;
    if params.norm.get() <= 0.0 {
        return Err(StageError::setting("norm", "must be above 0"));
    }
    if params.batch_size == 0 {
        return Err(StageError::setting("batch_size", "must be at least 1"));
    }
    let set = context.input("set")?;
    let set = context.set(set)?;
    let (names, networks) = models(context, &set)?;
    let count = limited(set.len(), params.limit)?;
    if count == 0 {
        return Err(StageError::Mismatch("the set has no images to classify".to_owned()));
    }
    let [_, height, width] = set.shape.map(|side| side as usize);
    let frequencies = waves::frequencies([height, width]);
    let measured = measure(context, &params, &set, &networks, count, &frequencies)?;
    let report =
        Report { params: &params, size: [height, width], names: &names, frequencies: &frequencies, measured, count };
    write(context, &report)?;
    let frequencies = grouped(frequencies.len() as u64);
    Ok(format!("{frequencies} frequencies, {} images, {} models", grouped(count as u64), names.len()))
}

/// The models' names, and their networks.
type Models = (Vec<String>, Vec<Box<dyn Frozen>>);

/// Loads the models; each fits the set.
fn models(context: &mut Context<'_>, set: &Rc<DeviceSet>) -> Result<Models, StageError> {
    let inputs = context.inputs("models");
    if inputs.is_empty() {
        return Err(StageError::Slot { slot: "models", expected: "one or more inputs", found: 0 });
    }
    let mut networks = Vec::with_capacity(inputs.len());
    for input in &inputs {
        let model = context.checkpoint(input)?;
        check_fit(&model, set)?;
        networks.push(model.network.freeze()?);
    }
    Ok((inputs.iter().map(|input| input.label.clone()).collect(), networks))
}

/// Counts the errors of each model, without a wave and with each.
fn measure(
    context: &mut Context<'_>,
    params: &FourierMapParams,
    set: &DeviceSet,
    networks: &[Box<dyn Frozen>],
    count: usize,
    frequencies: &[[usize; 2]],
) -> Result<Vec<Errors>, StageError> {
    let _guard = tch::no_grad_guard();
    let [channels, height, width] = set.shape;
    let sides = [height as usize, width as usize];
    let waves: Vec<Tensor> = frequencies
        .iter()
        .map(|&frequency| {
            let wave = Tensor::f_from_slice(&waves::wave(sides, frequency))?;
            wave.f_view([1, 1, height, width])?.f_to_device(context.device)
        })
        .collect::<Result<_, _>>()?;
    let mut found: Vec<Errors> =
        networks.iter().map(|_| Errors { clean: 0, by_frequency: vec![0; frequencies.len()] }).collect();
    let total = (count * networks.len() * (frequencies.len() + 1)) as u64;
    let mut done = 0;
    let indices: Vec<u64> = (0..count as u64).collect();
    for indices in indices.chunks(params.batch_size as usize) {
        let (images, labels) = set.batch(indices)?;
        let signs = waves::signs(context.rng, indices, frequencies.len(), channels as usize);
        for at in 0..=frequencies.len() {
            let seen = match at.checked_sub(1) {
                None => images.shallow_clone(),
                Some(at) => {
                    let signs = Tensor::f_from_slice(&signs[at])?.f_to_device(context.device)?;
                    let signs = signs.f_view([indices.len() as i64, channels, 1, 1])?;
                    let added = signs.f_mul_scalar(params.norm.get())?.f_mul(&waves[at])?;
                    images.f_add(&added)?.f_clamp(0.0, 1.0)?
                }
            };
            for (network, errors) in networks.iter().zip(&mut found) {
                let wrong = wrong(&**network, &seen, &labels, indices)?;
                match at.checked_sub(1) {
                    None => errors.clean += wrong,
                    Some(at) => errors.by_frequency[at] += wrong,
                }
                done += indices.len() as u64;
                context.reporter.progress(done, total, || format!("frequency {at}/{}", frequencies.len()))?;
            }
        }
        context.reporter.count_images(indices.len());
    }
    Ok(found)
}

/// Counts the images that a network takes for another class.
fn wrong(network: &dyn Frozen, images: &Tensor, labels: &Tensor, indices: &[u64]) -> Result<u64, StageError> {
    let logits = network.forward(images)?;
    let finite = Vec::<bool>::try_from(logits.f_isfinite()?.f_all_dim(1, false)?)?;
    if let Some(at) = finite.iter().position(|finite| !finite) {
        return Err(StageError::NotFinite { index: indices[at] as usize });
    }
    let wrong = logits.f_argmax(1, false)?.f_ne_tensor(labels)?.f_sum(Kind::Int64)?;
    Ok(i64::try_from(wrong)? as u64)
}

/// Writes all outputs.
fn write(context: &Context<'_>, report: &Report<'_>) -> Result<(), StageError> {
    let json = report.json().map_err(|error| StageError::Encode { output: "json", source: error.into() })?;
    context.write("json", &json)?;
    context.write("csv", report.csv().as_bytes())?;
    context.write("markdown", report.markdown().as_bytes())?;
    let failed = |error| StageError::Encode { output: "png", source: Box::new(error) };
    let drawing = sheet_drawing(&sheet(report), usize::MAX, None).map_err(failed)?;
    context.write("png", &drawing.small_png().map_err(failed)?)?;
    context.write("svg", drawing.svg().map_err(failed)?.as_bytes())?;
    context.write("pdf", &drawing.pdf().map_err(failed)?)
}

/// The maps side by side, and their scale.
fn sheet(report: &Report<'_>) -> Sheet {
    let [height, width] = report.size;
    let most = report.most();
    let map = |model| heat_tile(&report.map(model), [height as u32, width as u32], most);
    let mut columns: Vec<String> = report.names.to_vec();
    columns.push(format!("errors 0–{:.0} %", 100.0 * most));
    let tiles = (0..report.names.len()).map(map).chain([scale(height)]).collect();
    Sheet {
        title: report.params.title.clone(),
        columns,
        rows: vec![String::new()],
        tiles: vec![tiles],
        scale: (SIDE / height.max(width).max(1)).max(1) as u32,
    }
}

/// The colours of the maps as a strip of this height: no errors below, the most above.
fn scale(height: usize) -> Tile {
    // Wide enough for its heading.
    let width = (height / 3).max(1);
    let share = |y: usize| 1.0 - y as f64 / (height.max(2) - 1) as f64;
    let shares: Vec<f64> = (0..height).flat_map(|y| (0..width).map(move |_| share(y))).collect();
    heat_tile(&shares, [height as u32, width as u32], 1.0)
}

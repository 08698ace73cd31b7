//! Saliency maps of several models on the same images of several sets: pictures, numbers, and the maps themselves.
//!
//! All models see the same noise on the same image, so their maps are comparable. The submodules compute, draw and
//! measure maps.

mod drawing;
pub mod maps;
pub mod numbers;
mod report;

use std::rc::Rc;

use atflow::formats::{self, FormatError};
use atflow::picture::grouped_sheet_png;
use atflow::stage_kinds::{Images, Method, SaliencyParams};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Serialize;
use tch::Tensor;

use super::{check_fit, grouped};
use crate::context::Context;
use crate::data::DeviceSet;
use crate::error::StageError;
use crate::networks::Frozen;
use crate::rng::{DrawTensor, Stream};

/// Noisy copies computed at once.
const COPIES: usize = 50;

/// Metadata of the output file `maps`.
///
/// Its tensors are `maps` (F32, models × sets × images × H × W) and `images` (I32, the images' indices in their sets).
#[derive(Debug, Serialize)]
struct Metadata<'a> {
    format: &'static str,
    method: &'a Method,
    models: &'a [String],
    sets: &'a [String],
}

/// Runs a `saliency` stage.
///
/// # Errors
/// Any [`StageError`].
pub fn run(context: &mut Context<'_>) -> Result<String, StageError> {
    let params: SaliencyParams = context.params()?;
    check(&params.method)?;
    let (set_names, sets) = sets(context)?;
    let Models { names, networks } = models(context, &sets)?;
    let [_, height, width] = sets[0].shape.map(|side| side as usize);
    let images = chosen(&params.images, &sets)?;
    let shown = params.shown(images.len());

    let passes: Vec<u64> = (0..maps::passes(&params.method) as u64).collect();
    let total = (networks.len() * sets.len() * images.len() * passes.len()) as u64;
    let mut done = 0;
    let mut measurements = numbers::Measurements::new(&names, &set_names);
    let mut rows = Vec::new();
    for (position, &index) in images.iter().enumerate() {
        let seen: Vec<(Tensor, Tensor)> = sets.iter().map(|set| set.batch(&[index])).collect::<Result<_, _>>()?;
        // Sums over passes, by set and model.
        let mut sums: Vec<Option<Tensor>> = (0..sets.len() * networks.len()).map(|_| None).collect();
        for passes in passes.chunks(COPIES) {
            let noise = noise(context, &params.method, index, passes, &sets[0].shape)?;
            for (at, sum) in sums.iter_mut().enumerate() {
                let ((image, label), model) = (&seen[at / networks.len()], at % networks.len());
                let part = maps::contribution(&params.method, &*networks[model], image, label, passes, noise.as_ref())?;
                *sum = Some(match sum.take() {
                    Some(sum) => sum.f_add(&part)?,
                    None => part,
                });
                done += passes.len() as u64;
                context.reporter.progress(done, total, || format!("{}  image {index}", names[model]))?;
            }
        }
        let mut sums = sums.into_iter().flatten();
        for (place, set) in sets.iter().enumerate() {
            let mut of_image = Vec::with_capacity(networks.len());
            for (network, sum) in networks.iter().zip(&mut sums) {
                of_image.push(maps::from_sum(&params.method, &**network, &seen[place].0, &sum)?);
            }
            if of_image.iter().flatten().any(|value| !value.is_finite()) {
                return Err(StageError::NotFinite { index: index as usize });
            }
            let planes = set.pixels(index as usize)?;
            measurements.add_image(place, &of_image, &numbers::sobel(&planes, [height, width]));
            if position < shown {
                let class = &set.classes[set.host_labels[index as usize] as usize];
                let heading = match set_names.len() {
                    1 => class.clone(),
                    _ => format!("{class}\n{}", params.headings.of(&set_names[place])),
                };
                rows.push(drawing::Row { heading, planes, maps: of_image });
            }
        }
    }
    let failed = |output, source: Box<dyn std::error::Error + Send + Sync>| StageError::Encode { output, source };
    let metadata = Metadata { format: "saliency/2", method: &params.method, models: &names, sets: &set_names };
    let maps = encode_maps(&metadata, &rows, &images[..shown], [height, width]);
    context.write("maps", &maps.map_err(|error| failed("maps", error.into()))?)?;
    let json = measurements.json(&params.method, &images).map_err(|error| failed("numbers", error.into()))?;
    context.write("numbers", &json)?;
    context.write("csv", measurements.csv().as_bytes())?;
    let about = report::About {
        title: params.title.as_deref(),
        method: &params.method,
        models: &names,
        sets: &set_names,
        images: images.len(),
    };
    let report = report::markdown(&about, &measurements.summary(), |set| params.headings.of(set).to_owned());
    context.write("markdown", report.as_bytes())?;
    // The versions of an image form a group.
    let together = if sets.len() > 1 { sets.len() } else { usize::MAX };
    let grid = grouped_sheet_png(&drawing::sheet(params.title.clone(), &names, &rows, [height, width]), together);
    context.write("grid", &grid.map_err(|error| failed("grid", error.into()))?)?;
    let of_sets = if sets.len() > 1 { format!(" of {} sets", sets.len()) } else { String::new() };
    Ok(format!("{} images{of_sets}, {} models", grouped(images.len() as u64), names.len()))
}

fn check(method: &Method) -> Result<(), StageError> {
    match method {
        Method::Smoothgrad { samples: 0, .. } => Err(StageError::setting("method.samples", "must be at least 1")),
        Method::Smoothgrad { spread, .. } if spread.get() < 0.0 => {
            Err(StageError::setting("method.spread", "must not be below 0"))
        }
        Method::IntegratedGradients { steps: 0 } => Err(StageError::setting("method.steps", "must be at least 1")),
        _ => Ok(()),
    }
}

/// Loads the sets and their names; all images have one size.
fn sets(context: &mut Context<'_>) -> Result<(Vec<String>, Vec<Rc<DeviceSet>>), StageError> {
    let inputs = context.inputs("set");
    let sets: Vec<Rc<DeviceSet>> = inputs.iter().map(|input| context.set(input)).collect::<Result<_, _>>()?;
    let names: Vec<String> = inputs.iter().map(|input| input.label.clone()).collect();
    let Some(first) = sets.first() else {
        return Err(StageError::Slot { slot: "set", expected: "one or more inputs", found: 0 });
    };
    if let Some(at) = sets.iter().position(|set| set.shape != first.shape) {
        let ([_, h, w], [_, other_h, other_w]) = (first.shape, sets[at].shape);
        let problem = format!(
            "the images of `{}` are {h} × {w}, those of `{}` {other_h} × {other_w}; maps are compared on sets of one size and as many channels",
            names[0], names[at]
        );
        return Err(StageError::Mismatch(problem));
    }
    Ok((names, sets))
}

/// The models to compare.
struct Models {
    names: Vec<String>,
    networks: Vec<Box<dyn Frozen>>,
}

/// Loads the models; each fits every set.
fn models(context: &mut Context<'_>, sets: &[Rc<DeviceSet>]) -> Result<Models, StageError> {
    let inputs = context.inputs("models");
    if inputs.is_empty() {
        return Err(StageError::Slot { slot: "models", expected: "one or more inputs", found: 0 });
    }
    let mut networks = Vec::with_capacity(inputs.len());
    for input in &inputs {
        let model = context.checkpoint(input)?;
        sets.iter().try_for_each(|set| check_fit(&model, set))?;
        networks.push(model.network.freeze()?);
    }
    Ok(Models { names: inputs.iter().map(|input| input.label.clone()).collect(), networks })
}

/// Returns the indices of the selected images, by the labels of the first set; every set has them.
fn chosen(images: &Images, sets: &[Rc<DeviceSet>]) -> Result<Vec<u64>, StageError> {
    let first = &sets[0];
    let common = sets.iter().map(|set| set.len()).min().unwrap_or(0);
    let labels = &first.host_labels[..common];
    let indices = images.among(labels, &first.classes);
    let indices = indices.map_err(|problem| StageError::setting("images", problem.to_string()))?;
    Ok(indices.into_iter().map(|index| index as u64).collect())
}

/// Draws standard normal noise for some SmoothGrad passes; `None` for methods without noise.
fn noise(
    context: &Context<'_>,
    method: &Method,
    index: u64,
    passes: &[u64],
    shape: &[i64],
) -> Result<Option<Tensor>, StageError> {
    match method {
        Method::Smoothgrad { spread, .. } if spread.get() > 0.0 => {
            let (rng, device) = (context.rng, context.device);
            Ok(Some(rng.tensor("smoothgrad", &[index], passes, shape, device, Stream::normal)?))
        }
        _ => Ok(None),
    }
}

/// Encodes the maps of the drawn rows, which are ordered by image, with one row per set.
fn encode_maps(
    metadata: &Metadata<'_>,
    rows: &[drawing::Row],
    images: &[u64],
    [height, width]: [usize; 2],
) -> Result<Vec<u8>, FormatError> {
    let (models, sets) = (metadata.models.len(), metadata.sets.len());
    let mut values = Vec::with_capacity(models * rows.len() * height * width * 4);
    for model in 0..models {
        for set in 0..sets {
            let of_set = rows.iter().skip(set).step_by(sets);
            values.extend(of_set.flat_map(|row| &row.maps[model]).flat_map(|value| value.to_le_bytes()));
        }
    }
    let indices: Vec<u8> = images.iter().flat_map(|&index| (index as i32).to_le_bytes()).collect();
    let shape = vec![models, sets, images.len(), height, width];
    let tensors = [
        ("maps", TensorView::new(Dtype::F32, shape, &values)?),
        ("images", TensorView::new(Dtype::I32, vec![images.len()], &indices)?),
    ];
    formats::write(tensors, metadata)
}

//! Saliency maps of several models on the same images of several sets: pictures, numbers, and the maps themselves.
//!
//! All models see the same noise on the same image, so their maps are comparable. The submodules compute, draw and
//! measure maps.

mod drawing;
pub mod maps;
pub mod numbers;
mod report;
pub mod similarity;
mod stability;

use std::rc::Rc;

use atflow::formats::{self, FormatError};
use atflow::picture::grouped_sheet_png;
use atflow::stage_kinds::{Images, Method, SaliencyParams, Stability};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Serialize;
use tch::Tensor;

use self::numbers::Measurements;
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
    let comparison = Comparison::read(context)?;
    let images = chosen(&comparison.params.images, &comparison.sets)?;
    let shown = comparison.params.shown(images.len());
    let similarity = comparison.params.similarity.then(|| comparison.size());
    let further = comparison.further();
    let mut measurements = Measurements::new(&comparison.model_names, &comparison.set_names, similarity, further);
    let mut rows = Vec::new();
    for (position, &index) in images.iter().enumerate() {
        let maps = comparison.maps(context, index, [position, images.len()])?;
        for (set, maps) in maps.into_iter().enumerate() {
            let planes = comparison.sets[set].pixels(index as usize)?;
            let stabilities = comparison.stabilities(context, set, index, &maps)?;
            measurements.add_image(set, &maps, &numbers::sobel(&planes, comparison.size()), &stabilities);
            if position < shown {
                rows.push(drawing::Row { heading: comparison.heading(set, index as usize), planes, maps });
            }
        }
    }
    comparison.write_maps(context, &rows, &images[..shown])?;
    comparison.write_measurements(context, &measurements, &images)?;
    comparison.write_sheet(context, &rows)?;
    let sets = comparison.sets.len();
    let of_sets = if sets > 1 { format!(" of {sets} sets") } else { String::new() };
    Ok(format!("{} images{of_sets}, {} models", grouped(images.len() as u64), comparison.networks.len()))
}

/// The models and sets to compare.
struct Comparison {
    params: SaliencyParams,
    set_names: Vec<String>,
    /// At least one; all images have one size.
    sets: Vec<Rc<DeviceSet>>,
    model_names: Vec<String>,
    networks: Vec<Box<dyn Frozen>>,
}

impl Comparison {
    /// Reads and checks the parameters and inputs.
    fn read(context: &mut Context<'_>) -> Result<Self, StageError> {
        let params: SaliencyParams = context.params()?;
        check(&params.method)?;
        params.stability.as_ref().map_or(Ok(()), check_stability)?;
        let (set_names, sets) = sets(context)?;
        let (model_names, networks) = models(context, &params.method, &sets)?;
        if params.similarity && networks.len() < 2 {
            return Err(StageError::setting("similarity", "compares maps of two models or more, and there is one"));
        }
        Ok(Comparison { params, set_names, sets, model_names, networks })
    }

    /// Returns the height and width of all images.
    fn size(&self) -> [usize; 2] {
        let [_, height, width] = self.sets[0].shape.map(|side| side as usize);
        [height, width]
    }

    /// Computes the maps of one image by set and model, each H × W numbers row by row.
    ///
    /// `position` counts the images before this one, of `count`.
    fn maps(
        &self,
        context: &mut Context<'_>,
        index: u64,
        [position, count]: [usize; 2],
    ) -> Result<Vec<Vec<Vec<f32>>>, StageError> {
        let (method, models) = (&self.params.method, self.networks.len());
        let passes: Vec<u64> = (0..maps::passes(method) as u64).collect();
        let of_image = models * self.sets.len() * passes.len();
        let (mut done, total) = ((position * of_image) as u64, (count * of_image) as u64);
        let seen: Vec<(Tensor, Tensor)> = self.sets.iter().map(|set| set.batch(&[index])).collect::<Result<_, _>>()?;
        // Sums over passes, by set and model.
        let mut sums: Vec<Option<Tensor>> = (0..self.sets.len() * models).map(|_| None).collect();
        for passes in passes.chunks(COPIES) {
            let noise = noise(context, method, index, passes, &self.sets[0].shape)?;
            for (at, sum) in sums.iter_mut().enumerate() {
                let ((image, label), model) = (&seen[at / models], at % models);
                let found = maps::contribution(method, &*self.networks[model], image, label, passes, noise.as_ref())?;
                *sum = Some(match sum.take() {
                    Some(sum) => sum.f_add(&found)?,
                    None => found,
                });
                done += passes.len() as u64;
                context.reporter.progress(done, total, || format!("{}  image {index}", self.model_names[model]))?;
            }
        }
        let mut sums = sums.into_iter().flatten();
        let mut maps = Vec::with_capacity(self.sets.len());
        for (image, _) in &seen {
            let mut of_set = Vec::with_capacity(models);
            for (network, sum) in self.networks.iter().zip(&mut sums) {
                of_set.push(maps::from_sum(method, &**network, image, &sum)?);
            }
            if of_set.iter().flatten().any(|value| !value.is_finite()) {
                return Err(StageError::NotFinite { index: index as usize });
            }
            maps.push(of_set);
        }
        Ok(maps)
    }

    /// Returns the measures of each model beyond those of every stage.
    fn further(&self) -> &'static [&'static str] {
        if self.params.stability.is_some() { &stability::MEASURES } else { &[] }
    }

    /// Measures the stability of the maps of one image: the values of [`Self::further`] by model.
    fn stabilities(
        &self,
        context: &Context<'_>,
        set: usize,
        index: u64,
        maps: &[Vec<f32>],
    ) -> Result<Vec<Option<f64>>, StageError> {
        let Some(asked) = &self.params.stability else { return Ok(Vec::new()) };
        let (image, label) = self.sets[set].batch(&[index])?;
        let subject = stability::Subject { image: &image, label: &label, index };
        let mut values = Vec::new();
        for (network, map) in self.networks.iter().zip(maps) {
            let how = (&self.params.method, asked);
            values.extend(stability::measure(context, how, &**network, &subject, map)?.values());
        }
        Ok(values)
    }

    /// Returns the heading of an image's row: its class, and its set if there are several.
    fn heading(&self, set: usize, index: usize) -> String {
        let of = &self.sets[set];
        let class = &of.classes[of.host_labels[index] as usize];
        match self.set_names.len() {
            1 => class.clone(),
            _ => format!("{class}\n{}", self.params.headings.of(&self.set_names[set])),
        }
    }

    /// Writes the maps of the drawn rows, which are of these images.
    fn write_maps(&self, context: &Context<'_>, rows: &[drawing::Row], images: &[u64]) -> Result<(), StageError> {
        let metadata = Metadata {
            format: "saliency/2",
            method: &self.params.method,
            models: &self.model_names,
            sets: &self.set_names,
        };
        let maps = encode_maps(&metadata, rows, images, self.size());
        context.write("maps", &maps.map_err(|error| StageError::Encode { output: "maps", source: error.into() })?)
    }

    /// Writes the measurements as JSON, CSV and Markdown.
    fn write_measurements(
        &self,
        context: &Context<'_>,
        measurements: &Measurements<'_>,
        images: &[u64],
    ) -> Result<(), StageError> {
        let json = measurements.json(&self.params.method, images);
        let json = json.map_err(|error| StageError::Encode { output: "numbers", source: error.into() })?;
        context.write("numbers", &json)?;
        context.write("csv", measurements.csv().as_bytes())?;
        let about = report::About {
            title: self.params.title.as_deref(),
            method: &self.params.method,
            models: &self.model_names,
            sets: &self.set_names,
            images: images.len(),
        };
        let heading = |set: &str| self.params.headings.of(set).to_owned();
        context.write("markdown", report::markdown(&about, &measurements.summary(), heading).as_bytes())
    }

    /// Writes the picture of all rows.
    fn write_sheet(&self, context: &Context<'_>, rows: &[drawing::Row]) -> Result<(), StageError> {
        // The versions of an image form a group.
        let together = if self.sets.len() > 1 { self.sets.len() } else { usize::MAX };
        let sheet = drawing::sheet(self.params.title.clone(), &self.model_names, rows, self.size());
        let png = grouped_sheet_png(&sheet, together);
        context.write("grid", &png.map_err(|error| StageError::Encode { output: "grid", source: error.into() })?)
    }
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

fn check_stability(stability: &Stability) -> Result<(), StageError> {
    match stability {
        Stability { draws: 0, .. } => Err(StageError::setting("stability.draws", "must be at least 1")),
        Stability { radius, .. } if !(radius.get() > 0.0 && radius.get() <= 1.0) => {
            Err(StageError::setting("stability.radius", "must be above 0 and at most 1"))
        }
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

/// The models' names, and their networks.
type Models = (Vec<String>, Vec<Box<dyn Frozen>>);

/// Loads the models; each fits every set.
fn models(context: &mut Context<'_>, method: &Method, sets: &[Rc<DeviceSet>]) -> Result<Models, StageError> {
    let inputs = context.inputs("models");
    if inputs.is_empty() {
        return Err(StageError::Slot { slot: "models", expected: "one or more inputs", found: 0 });
    }
    let mut networks = Vec::with_capacity(inputs.len());
    for input in &inputs {
        let model = context.checkpoint(input)?;
        if matches!(method, Method::GradCam) && !model.net.has_feature_maps() {
            let text = format!("Grad-CAM weighs feature maps, and the network of `{}` has none", input.label);
            return Err(StageError::Mismatch(text));
        }
        sets.iter().try_for_each(|set| check_fit(&model, set))?;
        networks.push(model.network.freeze()?);
    }
    Ok((inputs.iter().map(|input| input.label.clone()).collect(), networks))
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

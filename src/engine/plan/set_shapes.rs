//! Shapes of image sets that need not exist yet, as far as files, parameters and well-known data sets tell them.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value as Json;

use super::PlanContext;
use super::state::{CacheStatus, CacheStatuses};
use crate::executors;
use crate::formats::ImageReader;
use crate::spec::{Instance, InstanceId, Need};
use crate::stage_kinds::{DatasetParams, SetShape, StageKind, TransformParams};

/// Images of Caltech-256 and its classes, `clutter` among them (Griffin et al. 2007, section 1).
const CALTECH: (f64, u32) = (30_607.0, 257);

/// Shapes of the sets of a plan, each found when it is first asked for.
pub(super) struct SetShapes<'a> {
    context: PlanContext<'a>,
    status_of: &'a CacheStatuses,
    known: HashMap<(InstanceId, String), Option<SetShape>>,
}

impl<'a> SetShapes<'a> {
    pub(super) fn new(context: PlanContext<'a>, status_of: &'a CacheStatuses) -> Self {
        SetShapes { context, status_of, known: HashMap::new() }
    }

    /// Returns the shape of a need's images; `None` if it is not known before a stage has run.
    pub(super) fn of_need(&mut self, need: &Need) -> Option<SetShape> {
        self.of(need.from, &need.output)
    }

    /// Returns the shape of the images of an output.
    pub(super) fn of(&mut self, from: InstanceId, output: &str) -> Option<SetShape> {
        let key = (from, output.to_owned());
        if let Some(shape) = self.known.get(&key) {
            return *shape;
        }
        let shape = self.find(from, output);
        self.known.insert(key, shape);
        shape
    }

    fn find(&mut self, from: InstanceId, output: &str) -> Option<SetShape> {
        if let Some(CacheStatus::Fresh(_, manifest)) = &self.status_of[from] {
            let blob = manifest.outputs.get(output)?;
            // A set that is only in a remote cache is as its parameters say.
            if self.context.cache.has(*blob) {
                return of_file(&self.context.cache.object_path(blob.digest));
            }
        }
        let made = self.context.graph.instance(from);
        match made.kind {
            StageKind::Dataset => self.of_dataset(from, made, output),
            StageKind::Transform => {
                let data = self.of_need(made.need("data")?)?;
                let images = match TransformParams::deserialize(&*made.params).ok()? {
                    TransformParams::Sample(sample) => f64::from(sample.count),
                    _ => data.images,
                };
                Some(SetShape { images, ..data })
            }
            _ => None,
        }
    }

    fn of_dataset(&self, id: InstanceId, made: &Instance, output: &str) -> Option<SetShape> {
        let is_training = output == "train";
        let square = |side: u32, images: f64, classes: u32| {
            Some(SetShape { images, channels: 3, height: side, width: side, classes })
        };
        let per_class = |limit: &Option<u32>, all: f64| limit.map_or(all, |limit| all.min(f64::from(limit)));
        match DatasetParams::deserialize(&*made.params).ok()? {
            DatasetParams::Idx { classes, .. } => {
                let slot = format!("{output}.images");
                let source = made.sources.iter().find(|source| source.slot == slot)?;
                let (file, _) = self.context.sources.get(id, source).local()?;
                let [images, height, width] = executors::shape_of_idx(file)?;
                let (images, classes) = (f64::from(images), classes.len() as u32);
                Some(SetShape { images, channels: 1, height, width, classes })
            }
            DatasetParams::Cifar10 { limit_per_class, .. } => {
                let all = if is_training { 5000.0 } else { 1000.0 };
                square(32, 10.0 * per_class(&limit_per_class, all), 10)
            }
            DatasetParams::TinyImagenet { resize, limit_per_class, .. } => {
                let all = if is_training { 500.0 } else { 50.0 };
                square(resize.unwrap_or(64), 200.0 * per_class(&limit_per_class, all), 200)
            }
            DatasetParams::Caltech256 { test_share, center_crop, limit_per_class, .. } => {
                let (images, classes) = CALTECH;
                let all = per_class(&limit_per_class, images / f64::from(classes)) * f64::from(classes);
                let share = if is_training { 1.0 - test_share.get() } else { test_share.get() };
                square(center_crop, (all * share).round(), classes)
            }
            // How many images there are, or how large they are, is in the files.
            DatasetParams::Npz { .. }
            | DatasetParams::Npy { .. }
            | DatasetParams::Parquet { .. }
            | DatasetParams::ImageFolder { .. } => None,
        }
    }
}

/// Returns the shape of a set's images as a network sees them in a training: random crops have their own size.
pub(super) fn cropped(set: SetShape, params: &Json) -> SetShape {
    let crop = params.pointer("/augmentation/random_crop").and_then(Json::as_u64).unwrap_or(0);
    match u32::try_from(crop) {
        Ok(side @ 1..) => SetShape { height: side, width: side, ..set },
        _ => set,
    }
}

fn of_file(path: &std::path::Path) -> Option<SetShape> {
    let head = ImageReader::open(path).ok()?.head;
    let [height, width] = head.seen().map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    let (images, classes) = (head.len() as f64, head.classes.len() as u32);
    Some(SetShape { images, channels: head.channels as u32, height, width, classes })
}

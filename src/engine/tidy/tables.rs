//! The five tables while they are written: which of them a result has rows in.

use std::collections::HashMap;
use std::path::Path;

use super::cell::{Cell, Column, ColumnType};
use super::coordinates::{Axes, Written};
use super::frame::{Finished, Frame};
use super::metrics::Reference;
use super::predicted::{OUTPUT, Reader, holders, references};
use super::{TABLES, TidyError, TidyFormat, TidySource, epochs, images, metrics, saliency, stages, subject};
use crate::cache::{Blob, Manifest};
use crate::formats::{SaliencyNumbers, TrainingMetrics};
use crate::plan::CacheStatus;
use crate::spec::{Instance, InstanceId, PerInstance};
use crate::stage_kinds::{Radius, StageKind};

/// The output of a training with its numbers by epoch.
const EPOCHS: &str = "metrics";

/// An output that has rows in a table beside `stages`.
pub(super) struct WithRows {
    /// Its name.
    pub(super) name: String,
    /// Its radius, if it is of an evaluation at several.
    radius: Option<Radius>,
}

pub(super) struct Tables<'a> {
    source: TidySource<'a>,
    has_predictions: PerInstance<bool>,
    references: HashMap<InstanceId, InstanceId>,
    /// Coordinates of the evaluations, of the trainings, of the saliency maps, and of all instances.
    evaluated: Axes,
    trained: Axes,
    drawn: Axes,
    all: Axes,
    metrics: Frame,
    images: Frame,
    epochs: Frame,
    saliency: Frame,
    stages: Frame,
}

impl<'a> Tables<'a> {
    /// Begins the files of all tables.
    pub(super) fn create(source: TidySource<'a>, folder: &Path, formats: &[TidyFormat]) -> Result<Self, TidyError> {
        let TidySource { graph, status_of, .. } = source;
        let (written, has_predictions) = (Written::of(graph), holders(graph));
        let is_of = |kind: StageKind| move |id: &InstanceId| graph.instance(*id).kind == kind;
        let wanted = || graph.ids().filter(|id| status_of[*id].is_some());
        let evaluated = Axes::of(graph, &written, wanted().filter(|id| has_predictions[*id]));
        let trained = Axes::of(graph, &written, wanted().filter(is_of(StageKind::Train)));
        let drawn = Axes::of(graph, &written, wanted().filter(is_of(StageKind::Saliency)));
        let all = Axes::of(graph, &written, wanted());
        let of_evaluation = [names(&evaluated), subject::columns()].concat();
        let columns = [
            [of_evaluation.clone(), metrics::columns()].concat(),
            [of_evaluation, images::columns()].concat(),
            [names(&trained), epochs::columns()].concat(),
            [names(&drawn), saliency::columns()].concat(),
            [names(&all), stages::columns()].concat(),
        ];
        let mut frames = Vec::new();
        for (name, columns) in TABLES.into_iter().zip(columns) {
            frames.push(Frame::create(folder, name, columns, formats)?);
        }
        let Ok([metrics, images, epochs, saliency, stages]) = <[Frame; 5]>::try_from(frames) else {
            unreachable!("there are as many frames as tables");
        };
        let references = references(graph);
        Ok(Tables {
            source,
            has_predictions,
            references,
            evaluated,
            trained,
            drawn,
            all,
            metrics,
            images,
            epochs,
            saliency,
            stages,
        })
    }

    /// Adds an instance to `stages`.
    pub(super) fn stage(&mut self, id: InstanceId, status: &CacheStatus) -> Result<(), TidyError> {
        let instance = self.source.graph.instance(id);
        self.stages.row(lead(instance, &self.all).into_iter().chain(stages::cells(instance, status)));
        self.stages.end_stage()
    }

    /// Returns the outputs of an instance that have rows in a table beside `stages`.
    pub(super) fn outputs_with_rows(&self, id: InstanceId) -> Vec<WithRows> {
        let instance = self.source.graph.instance(id);
        let one = |name: &str| vec![WithRows { name: name.to_owned(), radius: None }];
        let radii = if instance.kind == StageKind::Evaluate { Radius::list(&instance.params) } else { Vec::new() };
        match (self.has_predictions[id], instance.kind) {
            (true, _) if radii.is_empty() => one(OUTPUT),
            (true, _) => {
                let of = |radius: Radius| WithRows { name: radius.output.clone(), radius: Some(radius) };
                radii.into_iter().map(of).collect()
            }
            (false, StageKind::Train) => one(EPOCHS),
            (false, StageKind::Saliency) => one(saliency::OUTPUT),
            (false, _) => Vec::new(),
        }
    }

    /// Adds the rows of that output. Returns why its file cannot be read, if it cannot.
    pub(super) fn rows(
        &mut self,
        (id, output): (InstanceId, &WithRows),
        manifest: &Manifest,
        blob: Blob,
        reader: &mut Reader<'_>,
    ) -> Result<Option<String>, TidyError> {
        let added = match self.has_predictions[id] {
            true => self.evaluation((id, output), manifest, blob, reader),
            false if output.name == saliency::OUTPUT => self.maps(id, manifest, blob, reader),
            false => self.training(id, manifest, blob, reader),
        };
        match added {
            Ok(()) => {
                self.metrics.end_stage()?;
                self.images.end_stage()?;
                self.epochs.end_stage()?;
                self.saliency.end_stage()?;
                Ok(None)
            }
            Err(reason) => Ok(Some(reason)),
        }
    }

    fn evaluation(
        &mut self,
        (id, output): (InstanceId, &WithRows),
        manifest: &Manifest,
        blob: Blob,
        reader: &mut Reader<'_>,
    ) -> Result<(), String> {
        let predictions = reader.predictions(blob)?;
        let instance = self.source.graph.instance(id);
        let lead =
            [lead(instance, &self.evaluated), subject::cells(self.source, instance, output.radius.as_ref())].concat();
        let reference = self.reference(id, blob, reader);
        for row in metrics::rows(manifest, &predictions, reference.as_ref()) {
            self.metrics.row(lead.iter().cloned().chain(row));
        }
        for row in images::rows(&predictions) {
            self.images.row(lead.iter().cloned().chain(row));
        }
        Ok(())
    }

    /// Finds the predictions of the untransformed images by the same model, if a table compares with them.
    fn reference(&self, id: InstanceId, own: Blob, reader: &mut Reader<'_>) -> Option<Reference> {
        let Some(CacheStatus::Fresh(_, manifest)) = &self.source.status_of[*self.references.get(&id)?] else {
            return None;
        };
        let blob = *manifest.outputs.get(OUTPUT)?;
        Some(Reference { predictions: reader.reference(blob)?, is_itself: blob.digest == own.digest })
    }

    fn training(&mut self, id: InstanceId, manifest: &Manifest, blob: Blob, reader: &Reader<'_>) -> Result<(), String> {
        let numbers = TrainingMetrics::from_bytes(&reader.bytes(blob)?).map_err(|error| error.to_string())?;
        let lead = lead(self.source.graph.instance(id), &self.trained);
        for row in epochs::rows(manifest, &numbers) {
            self.epochs.row(lead.iter().cloned().chain(row));
        }
        Ok(())
    }

    fn maps(&mut self, id: InstanceId, manifest: &Manifest, blob: Blob, reader: &Reader<'_>) -> Result<(), String> {
        let numbers = SaliencyNumbers::from_bytes(&reader.bytes(blob)?).map_err(|error| error.to_string())?;
        let lead = lead(self.source.graph.instance(id), &self.drawn);
        for row in saliency::rows(manifest, &numbers) {
            self.saliency.row(lead.iter().cloned().chain(row));
        }
        Ok(())
    }

    /// Returns the complete files.
    pub(super) fn finish(self) -> Result<Vec<Finished>, TidyError> {
        let mut files = Vec::new();
        for frame in [self.metrics, self.images, self.epochs, self.saliency, self.stages] {
            files.extend(frame.finish()?);
        }
        Ok(files)
    }
}

/// The columns that every table begins with.
fn names(axes: &Axes) -> Vec<Column> {
    let names = ["stage", "name", "kind"].map(|name| Column::new(name, ColumnType::Text));
    names.into_iter().chain(axes.columns()).collect()
}

/// The cells of an instance in these columns.
fn lead(instance: &Instance, axes: &Axes) -> Vec<Cell> {
    let names = [&instance.stage, &instance.name, instance.kind.name()].map(Cell::from);
    names.into_iter().chain(axes.cells(instance)).collect()
}

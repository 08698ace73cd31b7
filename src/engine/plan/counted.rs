//! Prices of stages that never ran at their size: the passes that their parameters ask for, times the rates of this
//! machine.
//!
//! A stage whose work is not known from within has no price: a command, a data set to fetch or to decode, a network
//! from a file.

use serde::Deserialize;

use super::PlanContext;
use super::planned_stage::PlannedStage;
use super::set_shapes::{SetShapes, cropped};
use super::state::{CacheStatus, CacheStatuses};
use crate::cache::MachineRates;
use crate::protocol;
use crate::spec::{Instance, InstanceId, Need};
use crate::stage_kinds::{DatasetParams, Net, NetSize, PassCount, SetShape, StageKind, TransformParams, count_passes};

/// Small files that are written and synced for a stage: its outputs, its log and its manifest.
const FILES_OF_STAGE: f64 = 4.0;

/// Prices the stages of a plan that no earlier run prices. `stages` must be those of [`super::plan`] for this survey.
pub fn price_by_passes(
    context: PlanContext<'_>,
    status_of: &CacheStatuses,
    rates: &MachineRates,
    stages: &mut [PlannedStage],
) {
    let mut prices = Prices { context, rates, shapes: SetShapes::new(context, status_of) };
    let looked_at = context.graph.ids().filter(|id| status_of[*id].is_some());
    for (id, stage) in looked_at.zip(stages) {
        if stage.seconds.is_some() || matches!(status_of[id], Some(CacheStatus::Fresh(..))) {
            continue;
        }
        if let Some(seconds) = prices.of(id) {
            stage.seconds = Some(seconds * stage.goes_on.map_or(1.0, |goes_on| goes_on.share_left()));
            (stage.estimated, stage.counted) = (true, true);
            stage.on_gpu = stage.kind.needs_worker() && protocol::is_gpu(&rates.device);
        }
    }
}

struct Prices<'a> {
    context: PlanContext<'a>,
    rates: &'a MachineRates,
    shapes: SetShapes<'a>,
}

impl Prices<'_> {
    /// Returns the seconds of an instance.
    fn of(&mut self, id: InstanceId) -> Option<f64> {
        let instance = self.context.graph.instance(id);
        let work = match instance.kind {
            StageKind::Dataset => self.decoding(id, instance)?,
            StageKind::File => self.copying(id, instance)?,
            StageKind::Transform => self.transform(instance)?,
            StageKind::Train => self.training(instance)?,
            StageKind::Evaluate | StageKind::Masking => self.passes(instance, "model", "set")?,
            StageKind::Saliency | StageKind::FourierMap => self.passes(instance, "models", "set")?,
            // Next to nothing beside writing what comes out.
            StageKind::WorstCase
            | StageKind::Table
            | StageKind::Figure
            | StageKind::Randomised
            | StageKind::Pretrained => 0.0,
            StageKind::Command => return None,
        };
        Some(work + FILES_OF_STAGE * self.rates.files.sync)
    }

    /// Returns the seconds of decoding local files whose pixels are stored as they are.
    fn decoding(&mut self, id: InstanceId, instance: &Instance) -> Option<f64> {
        let params = DatasetParams::deserialize(&*instance.params).ok()?;
        if !matches!(params, DatasetParams::Idx { .. }) {
            return None;
        }
        let sets = instance.outputs.iter().map(|output| self.shapes.of(id, &output.name));
        let sets = sets.collect::<Option<Vec<SetShape>>>()?;
        Some(sets.iter().map(|set| self.written(bytes(set))).sum())
    }

    /// Returns the seconds of taking in a file that is here.
    fn copying(&self, id: InstanceId, instance: &Instance) -> Option<f64> {
        let (path, _) = self.context.sources.get(id, instance.sources.first()?).local()?;
        let size = std::fs::metadata(path).ok()?.len() as f64;
        Some(self.read(size) + self.written(size))
    }

    /// Returns the seconds of a change of pixels that takes no longer than reading and writing them.
    fn transform(&mut self, instance: &Instance) -> Option<f64> {
        let params = TransformParams::deserialize(&*instance.params).ok()?;
        let data = self.shapes.of_need(instance.need("data")?)?;
        let made = match params {
            TransformParams::Saturate(_) | TransformParams::PatchShuffle(_) => data,
            TransformParams::Sample(sample) => SetShape { images: f64::from(sample.count), ..data },
            TransformParams::Corrupt(_)
            | TransformParams::Fourier(_)
            | TransformParams::Stylize(_)
            | TransformParams::CueConflict(_) => return None,
        };
        Some(self.read(bytes(&data)) + self.written(bytes(&made)))
    }

    /// Returns the seconds of reading and checking so many bytes.
    fn read(&self, bytes: f64) -> f64 {
        bytes / self.rates.files.read + bytes / self.rates.files.hash
    }

    /// Returns the seconds of hashing and writing so many bytes.
    fn written(&self, bytes: f64) -> f64 {
        bytes / self.rates.files.write + bytes / self.rates.files.hash
    }

    fn training(&mut self, instance: &Instance) -> Option<f64> {
        let net = Net::deserialize(instance.params.get("net")?).ok()?;
        let set = self.shapes.of_need(instance.need("data")?)?;
        let validation = match instance.need("validation") {
            Some(need) => Some(self.shapes.of_need(need)?),
            None => None,
        };
        let counts = count_passes(StageKind::Train, &instance.params, &set, validation.as_ref())?;
        let size = size(&net, &cropped(set, &instance.params))?;
        self.seconds(instance, &counts, [size, size])
    }

    /// Returns the seconds of a stage that passes every set through every model.
    fn passes(&mut self, instance: &Instance, models: &str, sets: &str) -> Option<f64> {
        let mut seconds = 0.0;
        for model in instance.needs.iter().filter(|need| need.slot == models) {
            let net = self.net(model)?;
            let attacked = match instance.need("source") {
                Some(source) => self.net(source)?,
                None => net.clone(),
            };
            for set in instance.needs.iter().filter(|need| need.slot == sets) {
                let set = self.shapes.of_need(set)?;
                let counts = count_passes(instance.kind, &instance.params, &set, None)?;
                seconds += self.seconds(instance, &counts, [size(&net, &set)?, size(&attacked, &set)?])?;
            }
        }
        Some(seconds)
    }

    /// Returns the network of a model; of a randomised one that of the model it is from.
    fn net(&self, model: &Need) -> Option<Net> {
        let mut made = self.context.graph.instance(model.from);
        while made.kind == StageKind::Randomised {
            made = self.context.graph.instance(made.need("model")?.from);
        }
        Net::deserialize(made.params.get("net")?).ok()
    }

    /// Returns the seconds of passes, of the network itself and of the one that attacks search on.
    fn seconds(&self, instance: &Instance, counts: &[PassCount], [own, attacked]: [NetSize; 2]) -> Option<f64> {
        let of = |count: &PassCount| {
            let size = if count.is_search { attacked } else { own };
            let each = self.rates.seconds_per_image(count.pass, count.precision, size, instance.threads)?;
            Some(each * count.images)
        };
        counts.iter().map(of).sum()
    }
}

fn size(net: &Net, set: &SetShape) -> Option<NetSize> {
    net.size([set.channels, set.height, set.width], set.classes)
}

/// Bytes of the pixels of a set.
fn bytes(set: &SetShape) -> f64 {
    set.images * f64::from(set.channels) * f64::from(set.height) * f64::from(set.width)
}

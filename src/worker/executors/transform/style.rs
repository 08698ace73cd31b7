//! Repaints images in the style of others: assigns styles and runs the batches. The networks are in `adain`.

use std::collections::BTreeMap;
use std::rc::Rc;

use tch::{TchError, Tensor};

use super::adain::{Adain, SHORTEST_SIDE, Statistics};
use super::{BATCH_PIXELS, bytes, each_batch};
use crate::context::Context;
use crate::data::{self, DeviceSet};
use crate::error::StageError;
use crate::rng::Rng;
use crate::weights;

/// Luma weights (ITU-R BT.601), as Pillow converts pictures to grey.
const GREY: [f32; 3] = [0.299, 0.587, 0.114];

/// Writes a set whose images each take the style of the image of `styles` that `choose` names; `texture` labels these.
pub(super) fn repaint(
    context: &mut Context<'_>,
    set: &Rc<DeviceSet>,
    texture: Option<Vec<i32>>,
    styles: &DeviceSet,
    alpha: f64,
    choose: impl Fn(u64) -> u64,
) -> Result<(), StageError> {
    if !(0.0..=1.0).contains(&alpha) {
        return Err(StageError::setting("alpha", format!("must be between 0 and 1, not {alpha}")));
    }
    for (slot, set) in [("data", &**set), ("style", styles)] {
        let [channels, height, width] = set.shape;
        if ![1, 3].contains(&channels) {
            let problem = format!(
                "the images of `{slot}` have {channels} channels; only grey ones (1) and coloured ones (3) have a style"
            );
            return Err(StageError::Mismatch(problem));
        }
        if height.min(width) < SHORTEST_SIDE {
            let problem = format!(
                "the images of `{slot}` are {height} × {width}; AdaIN needs at least {SHORTEST_SIDE} pixels a side"
            );
            return Err(StageError::Mismatch(problem));
        }
    }
    let adain = networks(context)?;
    let grey = Tensor::f_from_slice(&GREY)?.f_view([1, 3, 1, 1])?.f_to_device(context.device)?;
    let mut known = StyleCache { adain: &adain, styles, statistics: BTreeMap::new() };
    each_batch(context, set, texture, |_, images, indices| {
        let chosen: Vec<u64> = indices.iter().map(|&index| choose(index)).collect();
        let style = known.statistics(&chosen)?;
        let painted = adain.repaint(&coloured(&images)?, &style, alpha)?;
        match images.size4()?.1 {
            1 => bytes(&painted.f_mul(&grey)?.f_sum_dim_intlist([1i64].as_slice(), true, None)?),
            _ => bytes(&painted),
        }
    })
}

fn networks(context: &Context<'_>) -> Result<Adain, StageError> {
    let weights = |slot: &'static str, names: &[String]| -> Result<BTreeMap<String, Tensor>, StageError> {
        let bytes = data::read(context.input(slot)?)?;
        let wrong = |source| StageError::Weights { slot: slot.to_owned(), source };
        let file = weights::File::open(&bytes).map_err(|error| wrong(error.into()))?;
        weights::select(&file, names).map_err(|error| wrong(error.into()))
    };
    let [of_encoder, of_decoder] = Adain::names();
    let (encoder, decoder) = (weights("encoder", &of_encoder)?, weights("decoder", &of_decoder)?);
    Adain::new(&encoder, &decoder, context.device)
        .map_err(|(slot, error)| StageError::Weights { slot: slot.to_owned(), source: error.into() })
}

/// Converts grey images to colour; returns colour images unchanged.
fn coloured(images: &Tensor) -> Result<Tensor, TchError> {
    let (count, channels, height, width) = images.size4()?;
    if channels == 3 { Ok(images.shallow_clone()) } else { images.f_expand([count, 3, height, width], false) }
}

/// Cache of style statistics: each painting is encoded once.
struct StyleCache<'a> {
    adain: &'a Adain,
    styles: &'a DeviceSet,
    statistics: BTreeMap<u64, (Tensor, Tensor)>,
}

impl StyleCache<'_> {
    /// Returns the statistics of some styles, stacked in their order.
    fn statistics(&mut self, chosen: &[u64]) -> Result<Statistics, StageError> {
        let mut missing: Vec<u64> = chosen.iter().copied().filter(|at| !self.statistics.contains_key(at)).collect();
        missing.sort_unstable();
        missing.dedup();
        let [_, height, width] = self.styles.shape;
        let batch = (BATCH_PIXELS / (height * width).max(1) as usize).max(1);
        for some in missing.chunks(batch) {
            let (images, _) = self.styles.batch(some)?;
            let Statistics { mean, deviation } = Statistics::of(&self.adain.encode(&coloured(&images)?)?)?;
            for (row, &at) in some.iter().enumerate() {
                // Copies: a view would keep the whole batch alive.
                let own = |tensor: &Tensor| {
                    let row = tensor.f_select(0, row as i64)?;
                    let mut own = row.f_empty_like()?;
                    own.f_copy_(&row).map(|()| own)
                };
                self.statistics.insert(at, (own(&mean)?, own(&deviation)?));
            }
        }
        let stacked = |part: fn(&(Tensor, Tensor)) -> &Tensor| {
            let tensors: Vec<&Tensor> = chosen.iter().filter_map(|at| self.statistics.get(at)).map(part).collect();
            Tensor::f_stack(&tensors, 0)
        };
        Ok(Statistics { mean: stacked(|(mean, _)| mean)?, deviation: stacked(|(_, deviation)| deviation)? })
    }
}

/// A set's images by class, as texture sources for images of other classes.
pub(super) struct Donors {
    /// The classes that have images, with those images.
    classes: Vec<(i32, Vec<u64>)>,
}

impl Donors {
    /// Groups the images of a set.
    pub(super) fn new(set: &DeviceSet) -> Result<Self, StageError> {
        let mut classes: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
        for (index, &label) in set.host_labels.iter().enumerate() {
            classes.entry(label).or_default().push(index as u64);
        }
        if classes.len() < 2 {
            let problem = "the images of `data` are all of one class, so none can wear the texture of another";
            return Err(StageError::Mismatch(problem.to_owned()));
        }
        Ok(Donors { classes: classes.into_iter().collect() })
    }

    /// Returns the image whose texture image `index` of class `label` takes.
    pub(super) fn choose(&self, rng: Rng, label: i32, index: u64) -> u64 {
        let mut stream = rng.stream("cue conflict", &[index]);
        // Draw among the other classes: positions from the class's own on shift by one.
        let own = self.classes.iter().position(|(class, _)| *class == label).unwrap_or(self.classes.len());
        let drawn = stream.below(self.classes.len() as u64 - 1) as usize;
        let (_, images) = &self.classes[if drawn >= own { drawn + 1 } else { drawn }];
        images[stream.below(images.len() as u64) as usize]
    }
}

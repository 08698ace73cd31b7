//! Draws a sample of a set's images, kept as stored. Knows nothing about how images are displayed to readers.

use atflow::formats::ImageWriter;

use super::{grouped, write_failed};
use crate::context::Context;
use crate::data::DeviceSet;
use crate::error::StageError;

/// Writes `count` images of the set, drawn without replacement and kept in set order; returns a summary line.
///
/// # Errors
/// [`StageError::Setting`] unless `count` is from 1 to the number of images; [`StageError`] if the file cannot be
/// written or the stage is cancelled.
pub(super) fn draw(context: &mut Context<'_>, set: &DeviceSet, count: u32) -> Result<String, StageError> {
    let (total, wanted) = (set.len(), count as usize);
    if count == 0 {
        return Err(StageError::setting("count", "must be at least 1"));
    }
    if wanted > total {
        let problem = format!("is {}, and the set has only {} images", grouped(count.into()), grouped(total as u64));
        return Err(StageError::setting("count", problem));
    }
    // A prefix of one permutation of the set for any count, so a smaller draw is part of a larger one.
    let mut drawn = context.rng.stream("sample", &[]).permutation(total);
    drawn.truncate(wanted);
    drawn.sort_unstable();
    let path = context.output("images")?;
    let mut writer = ImageWriter::with_head(path, set.head_of(&drawn)).map_err(|error| write_failed(path, error))?;
    for (done, &index) in (1..).zip(&drawn) {
        let (pixels, size) = set.stored(index)?;
        writer.push(&pixels, size, set.host_labels[index]).map_err(|error| write_failed(path, error))?;
        context.reporter.count_images(1);
        context.reporter.progress(done, count.into(), || format!("image {}", grouped(done)))?;
    }
    writer.finish().map_err(|error| write_failed(path, error))?;
    Ok(format!("{} of {} images", grouped(count.into()), grouped(total as u64)))
}

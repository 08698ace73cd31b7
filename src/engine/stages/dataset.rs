//! The `dataset` stage: decodes files that were already fetched and checked into image sets.

use super::error::StageError;
use super::{Reporter, go_on, idx, params, read, write};
use crate::formats::ImageSet;
use crate::kinds::{DatasetParams, IdxFiles, Source};
use crate::protocol::{Input, Job};

/// Slots `train.images`, `train.labels`, `test.images`, `test.labels`; outputs `train` and `test`.
pub(super) fn run(job: &Job, reporter: &dyn Reporter) -> Result<String, StageError> {
    let DatasetParams::Idx { train, test, classes } = params(job)?;
    let mut told = vec![];
    for (done, (output, files)) in [("train", &train), ("test", &test)].into_iter().enumerate() {
        go_on(reporter)?;
        reporter.progress(done as u64, 2, &format!("decoding {output}"));
        let set = decode(job, output, files, &classes)?;
        let [count, _, height, width] = set.shape;
        reporter.log(&format!("{output}: {count} images of {height} × {width}, {} classes", classes.len()));
        told.push(format!("{count} {output}"));
        let bytes = set.to_bytes().map_err(|source| StageError::Encode { output, source })?;
        write(job, output, &bytes)?;
    }
    reporter.progress(2, 2, "decoded");
    Ok(format!("{} images, {} classes", told.join(" + "), classes.len()))
}

fn decode(job: &Job, set: &str, files: &IdxFiles, classes: &[String]) -> Result<ImageSet, StageError> {
    let (images_input, images_file) = input(job, &format!("{set}.images"), &files.images)?;
    let (labels_input, labels_file) = input(job, &format!("{set}.labels"), &files.labels)?;
    let in_file = |file: &str| {
        let file = file.to_owned();
        move |source| StageError::Idx { file, source }
    };
    let labels = idx::decode::<1>(&read(labels_input)?).map_err(in_file(&labels_file))?;
    let images = idx::decode::<3>(&read(images_input)?).map_err(in_file(&images_file))?;
    let [count, height, width] = images.shape;
    if labels.bytes.len() != count {
        return Err(StageError::LabelCount { labels_file, labels: labels.bytes.len(), images_file, images: count });
    }
    if let Some(index) = labels.bytes.iter().position(|&label| usize::from(label) >= classes.len()) {
        let label = labels.bytes[index];
        return Err(StageError::Label { file: labels_file, index, label, classes: classes.len() });
    }
    Ok(ImageSet {
        pixels: images.bytes,
        shape: [count, 1, height, width],
        labels: labels.bytes.into_iter().map(i32::from).collect(),
        texture: None,
        classes: classes.to_vec(),
    })
}

/// The one input of a slot, and the file as the author knows it.
fn input<'a>(job: &'a Job, slot: &str, source: &Source) -> Result<(&'a Input, String), StageError> {
    let mut inputs = job.inputs.iter().filter(|input| input.slot == slot);
    let input = inputs.next().ok_or_else(|| StageError::NoInput { slot: slot.to_owned() })?;
    match inputs.count() {
        0 => {
            let origin = source.path.as_ref().or(source.url.as_ref());
            Ok((input, origin.map_or(slot.to_owned(), |origin| format!("{slot} ({origin})"))))
        }
        more => Err(StageError::ManyInputs { slot: slot.to_owned(), count: more + 1 }),
    }
}

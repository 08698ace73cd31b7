//! A data set of IDX files: training and test images and their labels.

use super::error::DatasetError;
use super::{class_names, idx, input};
use crate::executors::error::StageError;
use crate::executors::{Reporter, check_cancelled, read, write};
use crate::formats::ImageSet;
use crate::protocol::Job;
use crate::stage_kinds::IdxFiles;

pub(super) fn run(
    job: &Job,
    reporter: &dyn Reporter,
    train: &IdxFiles,
    test: &IdxFiles,
    classes: &[String],
) -> Result<String, StageError> {
    let mut told = vec![];
    let (first, second) = (input(job, "train.images", &train.images)?, input(job, "test.images", &test.images)?);
    let mut warnings = class_names::check("classes", classes)?;
    if first.0.digest == second.0.digest {
        warnings.push(format!("{} and {} are the same file: every test image is a training image", first.1, second.1));
    }
    warnings.iter().for_each(|warning| reporter.warn(warning));
    for (done, (output, files)) in [("train", train), ("test", test)].into_iter().enumerate() {
        check_cancelled(reporter)?;
        reporter.progress(done as u64, 2, &format!("decoding {output}"));
        let set = decode(job, output, files, classes)?;
        let [count, _, height, width] = set.shape;
        reporter.log(&format!("{output}: {count} images of {height} × {width}, {} classes", classes.len()));
        told.push(format!("{count} {output}"));
        let bytes = set.to_bytes().map_err(|source| StageError::Encode { output, source })?;
        write(job, output, &bytes)?;
    }
    reporter.progress(2, 2, "decoded");
    let warned = if warnings.is_empty() { String::new() } else { format!(", {} warnings in the log", warnings.len()) };
    Ok(format!("{} images, {} classes{warned}", told.join(" + "), classes.len()))
}

fn decode(job: &Job, set: &str, files: &IdxFiles, classes: &[String]) -> Result<ImageSet, StageError> {
    let (images_input, images_file) = input(job, &format!("{set}.images"), &files.images)?;
    let (labels_input, labels_file) = input(job, &format!("{set}.labels"), &files.labels)?;
    let in_file = |file: &str| {
        let file = file.to_owned();
        move |source| DatasetError::Idx { file, source }
    };
    let labels = idx::decode::<1>(&read(labels_input)?).map_err(in_file(&labels_file))?;
    let images = idx::decode::<3>(&read(images_input)?).map_err(in_file(&images_file))?;
    let [count, height, width] = images.shape;
    if labels.bytes.len() != count {
        let labels = labels.bytes.len();
        return Err(DatasetError::LabelCount { labels_file, labels, images_file, images: count }.into());
    }
    if let Some(index) = labels.bytes.iter().position(|&label| usize::from(label) >= classes.len()) {
        let label = labels.bytes[index];
        return Err(DatasetError::Label { file: labels_file, index, label, classes: classes.len() }.into());
    }
    Ok(ImageSet {
        pixels: images.bytes,
        shape: [count, 1, height, width],
        labels: labels.bytes.into_iter().map(i32::from).collect(),
        texture: None,
        classes: classes.to_vec(),
    })
}

//! Fills image sets: decodes the files that were planned, many at a time, and writes them in their order. Memory holds
//! one piece of them, whatever the size of the set. Broken images are left out or end the stage, in either case by
//! name.

use std::collections::HashMap;
use std::path::PathBuf;

use rayon::prelude::*;

use super::archive::{Archive, ArchiveError};
use super::error::DatasetError;
use super::picture::{self, Recipe, Rgb};
use crate::executors::error::StageError;
use crate::executors::{Reporter, check_cancelled};
use crate::formats::{ImageWriter, Layout, View};
use crate::protocol::Job;
use crate::stage_kinds::Broken;

/// Bytes of decoded images that are in memory at a time, and how few and how many images that may be: as many as keep
/// all cores busy.
const PIECE: usize = 128 << 20;
const FEWEST: usize = 16;
const MOST: usize = 512;
/// Images of both sets that the log names.
const NAMED: usize = 20;

/// An image that a set is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    /// Its number in the archive.
    pub(super) entry: usize,
    pub(super) label: i32,
}

/// A set as it was planned.
pub(super) struct Plan<'a> {
    pub(super) output: &'static str,
    pub(super) archive: &'a Archive,
    pub(super) images: Vec<Planned>,
    pub(super) classes: &'a [String],
    pub(super) recipe: Recipe,
    /// How its images are seen, where not as they are stored.
    pub(super) view: Option<View>,
    pub(super) broken: Broken,
}

/// What came of a set.
#[derive(Debug, Default)]
pub(super) struct Filled {
    pub(super) images: usize,
    pub(super) broken: usize,
    /// What each image's file holds, and its number in the archive.
    files: Vec<(Fingerprint, usize)>,
}

/// Enough of a file's digest to tell it from any other.
pub(super) type Fingerprint = [u8; 16];

/// What else the line on both sets tells.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Aside {
    pub(super) passed_over: usize,
    pub(super) left_out: usize,
    pub(super) warnings: usize,
}

/// Where a job's output goes.
pub(super) fn output(job: &Job, output: &'static str) -> Result<PathBuf, StageError> {
    job.outputs.get(output).cloned().ok_or_else(|| StageError::NoOutput { output: output.to_owned() })
}

/// Decodes and writes a set.
pub(super) fn fill(job: &Job, plan: &Plan<'_>, reporter: &dyn Reporter) -> Result<Filled, StageError> {
    let path = output(job, plan.output)?;
    let in_archive = |source| DatasetError::Archive { file: plan.archive.shown.clone(), source };
    let unwritten = |source| StageError::WriteSet { output: plan.output, source };
    let name = |image: &Planned| plan.archive.entries[image.entry].name.as_str();
    let own_sizes = matches!(plan.view, Some(View::CenterCrop(_)));
    let layout = |size: Option<[usize; 2]>| Layout {
        classes: plan.classes.to_vec(),
        channels: 3,
        size,
        view: plan.view,
        most: plan.images.len(),
    };
    let mut writer: Option<(ImageWriter, [usize; 2])> = None;
    let mut broken: Vec<(&str, String)> = Vec::new();
    let mut files = Vec::new();
    let (mut start, mut count) = (0, FEWEST);
    while start < plan.images.len() {
        check_cancelled(reporter)?;
        reporter.progress(start as u64, plan.images.len() as u64, &format!("decoding {}", plan.output));
        let images = &plan.images[start..plan.images.len().min(start + count)];
        start += images.len();
        let decode = |image: &Planned| match plan.archive.read(image.entry) {
            Ok(bytes) => Ok(stored(&bytes, plan).map(|image| (image, fingerprint(&bytes)))),
            Err(ArchiveError::Damaged { reason }) => Ok(Err(reason)),
            Err(error) => Err(error),
        };
        let decoded: Vec<Result<Decoded, ArchiveError>> = images.par_iter().map(decode).collect();
        let bytes: usize = decoded.iter().flatten().flatten().map(|((pixels, _), _)| pixels.len()).sum();
        count = (PIECE / (bytes / images.len()).max(1)).clamp(FEWEST, MOST);
        for (image, decoded) in images.iter().zip(decoded) {
            let ((pixels, size), fingerprint) = match decoded.map_err(in_archive)? {
                Ok(good) => good,
                Err(reason) => {
                    reporter.log(&format!("{} is broken: {reason}", name(image)));
                    broken.push((name(image), reason));
                    continue;
                }
            };
            if writer.is_none() {
                let writes = ImageWriter::create(&path, layout((!own_sizes).then_some(size))).map_err(unwritten)?;
                writer = Some((writes, size));
            }
            let Some((writes, first)) = &mut writer else { continue };
            if !own_sizes && size != *first {
                let (name, expected) = (name(image).to_owned(), *first);
                return Err(DatasetError::Sizes { name, found: size, expected }.into());
            }
            writes.push(&pixels, size, image.label).map_err(unwritten)?;
            files.push((fingerprint, image.entry));
        }
    }
    if !broken.is_empty() && plan.broken == Broken::Fail {
        return Err(DatasetError::broken(&plan.archive.shown, &broken).into());
    }
    let writes = match writer {
        Some((writes, _)) => writes,
        None => {
            let side = plan.recipe.crop.or(plan.recipe.resize).unwrap_or(0);
            ImageWriter::create(&path, layout(Some([side, side]))).map_err(unwritten)?
        }
    };
    let images = writes.finish().map_err(unwritten)?;
    let told = if broken.is_empty() { String::new() } else { format!(", {} broken ones left out", broken.len()) };
    reporter.log(&format!("{}: {images} images, {} classes{told}", plan.output, plan.classes.len()));
    Ok(Filled { images, broken: broken.len(), files })
}

/// An image as it is stored, each colour by itself, and its height and width.
type Stored = (Vec<u8>, [usize; 2]);

/// An image and what tells its file from others, or what is wrong with it.
type Decoded = Result<(Stored, Fingerprint), String>;

fn stored(file: &[u8], plan: &Plan<'_>) -> Result<Stored, String> {
    let image: Rgb = plan.recipe.apply(picture::decode(file)?)?;
    if let Some(View::CenterCrop(side)) = plan.view
        && side > image.height.min(image.width)
    {
        let (height, width) = (image.height, image.width);
        return Err(format!("it has {height} × {width} pixels, too few to show {side} × {side}"));
    }
    Ok((image.planes(), [image.height, image.width]))
}

pub(super) fn fingerprint(file: &[u8]) -> Fingerprint {
    let mut fingerprint = Fingerprint::default();
    let length = fingerprint.len();
    fingerprint.copy_from_slice(&blake3::hash(file).as_bytes()[..length]);
    fingerprint
}

/// A line on both sets. Images that stand in both, byte by byte, are counted and named in the log; it is an error if
/// all test images do.
pub(super) fn summary(
    (train, train_archive): (&Filled, &Archive),
    (test, test_archive): (&Filled, &Archive),
    classes: usize,
    aside: Aside,
    reporter: &dyn Reporter,
) -> Result<String, DatasetError> {
    let known: HashMap<Fingerprint, usize> = train.files.iter().copied().collect();
    let shared: Vec<(usize, usize)> =
        test.files.iter().filter_map(|(fingerprint, at)| known.get(fingerprint).map(|&other| (*at, other))).collect();
    let pair = |&(test, train): &(usize, usize)| {
        let (test, train) = (&test_archive.entries[test].name, &train_archive.entries[train].name);
        format!("the test image {test} is the training image {train}")
    };
    if let Some(first) = shared.first().filter(|_| shared.len() == test.images) {
        return Err(DatasetError::SameParts { images: test.images, example: pair(first) });
    }
    if let Some(first) = shared.first() {
        reporter.warn(&format!(
            "{} of {} test images stand in the training set, too, byte by byte: {}; the network knows them, so take \
             them out of one of the two (the log names them)",
            shared.len(),
            test.images,
            pair(first)
        ));
    }
    for shared in shared.iter().take(NAMED) {
        reporter.log(&format!("{}, byte by byte", pair(shared)));
    }
    if shared.len() > NAMED {
        reporter.log(&format!("{} more test images are training images", shared.len() - NAMED));
    }
    let mut text = format!("{} train + {} test images, {classes} classes", train.images, test.images);
    for (count, what) in [
        (train.broken + test.broken, "broken ones left out"),
        (aside.passed_over, "other files passed over"),
        (aside.left_out, "entries of the archive left out"),
        (shared.len(), "test images that are training images too"),
        (aside.warnings, "warnings in the log"),
    ] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    Ok(text)
}

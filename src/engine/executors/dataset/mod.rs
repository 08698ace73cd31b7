//! The `dataset` stage: decodes files that were already fetched and checked into image sets. A module for each format
//! knows its layout; `archive` and `fill` know how files are read and sets are written.

mod archive;
mod arrays;
mod caltech256;
mod cifar10;
mod cifar_pickle;
mod class_names;
mod error;
mod fill;
#[cfg(fuzzing)]
pub mod fuzzing;
mod idx;
mod idx_files;
mod image_folder;
mod layout;
mod npy;
mod parquet;
mod picture;
mod survey;
mod tiny_imagenet;

use std::ops::ControlFlow;

use super::error::StageError;
use super::{Reporter, params, read_error};
use crate::address::Address;
use crate::digest::verify;
use crate::folder::Folder;
use crate::protocol::{Input, Job};
use crate::stage_kinds::{DatasetParams, Source};
use archive::Archive;
pub(in crate::executors) use error::DatasetError;
pub(in crate::executors) use idx::shape_of_images;
pub(in crate::executors) use survey::survey;
pub use survey::{ClassCount, ImageSurvey};

/// Entries that are left out and named in the log.
const NAMED: usize = 100;

/// Slots as the sources' names have them (`archive`, `train.images`); outputs `train` and `test`.
pub(super) fn run(job: &Job, reporter: &dyn Reporter) -> Result<String, StageError> {
    let params: DatasetParams = params(job)?;
    match &params {
        DatasetParams::Idx { train, test, classes } => idx_files::run(job, reporter, train, test, classes),
        DatasetParams::Cifar10 { archive, limit_per_class } => {
            cifar10::run(job, reporter, &open(job, "archive", archive, reporter)?, *limit_per_class)
        }
        DatasetParams::TinyImagenet { archive, resize, limit_per_class, broken } => {
            let archive = open(job, "archive", archive, reporter)?;
            tiny_imagenet::run(job, reporter, &archive, *resize, *limit_per_class, *broken)
        }
        DatasetParams::Caltech256 { archive, .. } => {
            caltech256::run(job, reporter, &open(job, "archive", archive, reporter)?, &params)
        }
        DatasetParams::Npz { .. } | DatasetParams::Npy { .. } => arrays::run(job, reporter, &params),
        DatasetParams::Parquet { .. } => parquet::run(job, reporter, &params),
        DatasetParams::ImageFolder { .. } => image_folder::run(job, reporter, &params),
    }
}

/// The one input of a slot, and the file as the author knows it.
fn input<'a>(job: &'a Job, slot: &str, source: &Source) -> Result<(&'a Input, String), StageError> {
    let mut inputs = job.inputs.iter().filter(|input| input.slot == slot);
    let input = inputs.next().ok_or_else(|| StageError::NoInput { slot: slot.to_owned() })?;
    match inputs.count() {
        0 => {
            let url = source.url.as_ref().map(|url| Address::new(url).to_string());
            let origin = source.path.clone().or(url);
            Ok((input, origin.map_or(slot.to_owned(), |origin| format!("{slot} ({origin})"))))
        }
        more => Err(StageError::ManyInputs { slot: slot.to_owned(), count: more + 1 }),
    }
}

/// Opens the archive of a slot, once its bytes were found to be those of its digest.
fn open(job: &Job, slot: &str, source: &Source, reporter: &dyn Reporter) -> Result<Archive, StageError> {
    let (input, shown) = input(job, slot, source)?;
    reporter.progress(0, 0, &format!("checking {slot}"));
    verify(&input.path, input.digest).map_err(|source| read_error(input, source))?;
    let go_on = |bytes: u64| {
        reporter.progress(0, 0, &format!("unfolding {slot}: {} MB", bytes / 1_000_000));
        if reporter.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    // Outputs lie in a folder of the run's own, which goes with it.
    let scratch = fill::output(job, "train")?;
    let scratch = scratch.parent().unwrap_or(std::path::Path::new("."));
    let archive = Archive::open(&input.path, &shown, scratch, &go_on)
        .map_err(|source| DatasetError::Archive { file: shown, source })?;
    tell_left_out(slot, &archive, reporter);
    Ok(archive)
}

/// Lists the folder of a slot, once its files were found to be those of its digest.
fn open_folder(job: &Job, slot: &str, reporter: &dyn Reporter) -> Result<Archive, StageError> {
    let (input, _) = input(job, slot, &Source::default())?;
    reporter.progress(0, 0, &format!("checking {slot}"));
    let folder = Folder::list(&input.path).map_err(DatasetError::from)?;
    if folder.read_digest().map_err(DatasetError::from)? != input.digest {
        return Err(DatasetError::Changed { folder: input.path.display().to_string() }.into());
    }
    if let Some(first) = folder.left_out.first() {
        let (folder, count) = (folder.path.display(), folder.left_out.len());
        reporter.warn(&format!("{folder}: {first} ({count} such); copy what it leads to into the folder"));
    }
    let archive = Archive::of_folder(folder);
    tell_left_out(slot, &archive, reporter);
    Ok(archive)
}

fn tell_left_out(slot: &str, archive: &Archive, reporter: &dyn Reporter) {
    for line in archive.left_out.iter().take(NAMED) {
        reporter.log(&format!("{slot}: left out: {line}"));
    }
    if archive.left_out.len() > NAMED {
        reporter.log(&format!("{slot}: left out: {} more entries", archive.left_out.len() - NAMED));
    }
}

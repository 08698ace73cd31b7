//! Caltech-256 as its authors publish it (<https://data.caltech.edu/records/nyy15-4j048>): a folder for each of 256
//! categories and one of clutter, `NNN.name`, whose JPEG files stand right in it. Two strays are known,
//! `198.spider/RENAME2` and the folder `056.dog/greg`: they are passed over, as in the readers of others.

use super::archive::Archive;
use super::error::DatasetError;
use super::fill::{Aside, Plan, Planned, fill, summary};
use super::image_folder::{divide, list};
use super::picture::Recipe;
use crate::executors::Reporter;
use crate::executors::error::StageError;
use crate::folder::is_leftover;
use crate::formats::View;
use crate::protocol::Job;
use crate::resample::Filter;
use crate::stage_kinds::DatasetParams;

const ROOT: &str = "256_ObjectCategories/";

pub(super) fn run(
    job: &Job,
    reporter: &dyn Reporter,
    archive: &Archive,
    params: &DatasetParams,
) -> Result<String, StageError> {
    let DatasetParams::Caltech256 { test_share, seed, resize, center_crop, limit_per_class, broken, .. } = params
    else {
        return Err(StageError::Kind { kind: job.kind });
    };
    // Somebody may have packed the folder within another one.
    let root = |name: &str| name.find(ROOT).map(|at| name[..at + ROOT.len()].to_owned());
    let roots = archive.entries.iter().filter_map(|entry| root(&entry.name)).filter(|root| !is_leftover(root));
    let Some(root) = roots.min_by_key(String::len) else {
        let (file, name) = (archive.shown.clone(), ROOT.to_owned());
        return Err(DatasetError::Missing { file, name, expected: "it should be 256_ObjectCategories.tar" }.into());
    };
    let listing = list(archive, &root, reporter, |path| match path.split_once('/') {
        Some((class, file)) if !file.contains('/') && number(class).is_some() => Some(class),
        _ => None,
    })?;
    let name = |folder: &String| folder.split_once('.').map_or(folder.clone(), |(_, name)| name.to_owned());
    let classes: Vec<String> = listing.classes.keys().map(name).collect();
    let (mut trained, mut tested) = (Vec::new(), Vec::new());
    for (label, (class, mut files)) in listing.classes.into_iter().enumerate() {
        files.truncate(limit_per_class.map_or(usize::MAX, |limit| limit as usize));
        let (test, train) = divide(&class, files, test_share.get(), *seed);
        let planned = |entry| Planned { entry, label: label as i32 };
        tested.extend(test.into_iter().map(planned));
        trained.extend(train.into_iter().map(planned));
    }
    let crop = *center_crop as usize;
    let recipe = Recipe { square: false, resize: Some(*resize as usize), filter: Filter::Bilinear, crop: None };
    let (classes, broken, view) = (classes.as_slice(), *broken, Some(View::CenterCrop(crop)));
    let train =
        fill(job, &Plan { output: "train", archive, images: trained, classes, recipe, view, broken }, reporter)?;
    let recipe = Recipe { crop: Some(crop), ..recipe };
    let test =
        fill(job, &Plan { output: "test", archive, images: tested, classes, recipe, view: None, broken }, reporter)?;
    let aside = Aside { passed_over: listing.passed_over, left_out: archive.left_out.len(), warnings: 0 };
    Ok(summary((&train, archive), (&test, archive), classes.len(), aside, reporter)?)
}

/// The number of a category's folder.
fn number(folder: &str) -> Option<u32> {
    let (number, name) = folder.split_once('.')?;
    if name.is_empty() { None } else { number.parse().ok() }
}

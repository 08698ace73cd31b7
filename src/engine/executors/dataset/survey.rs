//! What a folder or an archive of images holds, before there is a pipeline that reads it: parts, classes, sizes,
//! colours. Finds them as a stage of the format `image_folder` would.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;

use rayon::prelude::*;

use super::archive::Archive;
use super::class_names;
use super::error::DatasetError;
use super::image_folder::{Choice, Listing, Place, check_several};
use super::picture::{self, Recipe, Rgb};
use crate::executors::Silent;
use crate::executors::error::StageError;
use crate::folder::Folder;
use crate::stage_kinds::Classes;

/// Images whose size is looked up, evenly spread over the classes.
const SIZED: usize = 2000;
/// Images that are decoded, for their colours.
const DECODED: usize = 64;
/// The shorter side in pixels at which colours are averaged.
const SIDE: usize = 64;

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageSurvey {
    /// Folders of the training and of the test set in it, each with a `/` at its end; nothing if there are not both.
    pub parts: Option<[String; 2]>,
    /// Its classes, in alphabetical order.
    pub classes: Vec<ClassCount>,
    /// Files that are no images of a class.
    pub passed_over: usize,
    /// Links that are not followed, and entries of the archive that give no file.
    pub left_out: usize,
    /// How many images were looked at for their size.
    pub looked_at: usize,
    /// Shortest, median and longest of their shorter sides, in pixels.
    pub short_sides: [usize; 3],
    /// Height and width, if all of them have the same.
    pub size: Option<[usize; 2]>,
    /// Whether none of the decoded images has colours.
    pub is_grey: bool,
    /// How many images were decoded.
    pub decoded: usize,
    /// Mean of each colour over the decoded images, 0 to 1.
    pub mean: [f64; 3],
    /// Standard deviation of each colour.
    pub std: [f64; 3],
    /// Images that cannot be read, a line each.
    pub broken: Vec<String>,
}

/// A class and its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassCount {
    /// Its name.
    pub name: String,
    /// Images of the training set; all images where the set is not divided.
    pub train: usize,
    /// Images of the test set; 0 where the set is not divided.
    pub test: usize,
}

pub(in crate::executors) fn survey(path: &Path, scratch: &Path) -> Result<ImageSurvey, StageError> {
    let archive = Rc::new(open(path, scratch)?);
    let parts = super::layout::parts(&archive, &Silent);
    let choice = Choice { by: &Classes::Folders, min_side: None, pick: None, seed: 0, limit: usize::MAX };
    let list = |root: &str, known: &[String]| {
        choice.list(&Place { archive: Rc::clone(&archive), root: root.to_owned() }, known, &Silent)
    };
    let [train_root, test_root] = parts.clone().unwrap_or_default();
    let train = list(&train_root, &[])?;
    let names: Vec<String> = train.classes.keys().cloned().collect();
    check_several(&archive, &names)?;
    class_names::check(&archive.shown, &names)?;
    let test = if parts.is_some() { list(&test_root, &names)? } else { Listing::default() };
    if let Some(class) = test.classes.keys().find(|class| !train.classes.contains_key(*class)) {
        let (hint, class) = (class_names::stranger(class, &names), class.clone());
        return Err(DatasetError::Class { hint, class }.into());
    }
    let all: Vec<usize> = train.classes.values().flatten().copied().collect();
    let looks = Looks::at(&archive, &all)?;
    Ok(ImageSurvey {
        classes: counts(&train.classes, &test.classes),
        passed_over: train.passed_over + test.passed_over,
        left_out: archive.left_out.len(),
        parts,
        looked_at: looks.sizes.len(),
        short_sides: looks.short_sides(),
        size: looks.one_size(),
        is_grey: looks.is_grey,
        decoded: looks.decoded,
        mean: looks.mean,
        std: looks.std,
        broken: looks.broken,
    })
}

fn open(path: &Path, scratch: &Path) -> Result<Archive, DatasetError> {
    if path.is_dir() {
        return Ok(Archive::of_folder(Folder::list(path)?));
    }
    let shown = path.display().to_string();
    Archive::open(path, &shown, scratch, &|_| ControlFlow::Continue(()))
        .map_err(|source| DatasetError::Archive { file: shown, source })
}

fn counts(train: &BTreeMap<String, Vec<usize>>, test: &BTreeMap<String, Vec<usize>>) -> Vec<ClassCount> {
    let count = |(name, files): (&String, &Vec<usize>)| ClassCount {
        name: name.clone(),
        train: files.len(),
        test: test.get(name).map_or(0, Vec::len),
    };
    train.iter().map(count).collect()
}

/// What a sample of the images looks like.
#[derive(Default)]
struct Looks {
    sizes: Vec<[usize; 2]>,
    is_grey: bool,
    decoded: usize,
    mean: [f64; 3],
    std: [f64; 3],
    broken: Vec<String>,
}

impl Looks {
    fn at(archive: &Archive, images: &[usize]) -> Result<Self, DatasetError> {
        let read = |&entry: &usize| {
            let bytes = archive.read(entry);
            bytes.map_err(|source| DatasetError::Archive { file: archive.shown.clone(), source })
        };
        let mut looks = Looks::default();
        let size = |entry: &usize| read(entry).map(|bytes| (*entry, picture::size(&bytes)));
        for found in spread(images, SIZED).par_iter().map(size).collect::<Vec<_>>() {
            match found? {
                (_, Ok(size)) => looks.sizes.push(size),
                (entry, Err(reason)) => looks.broken.push(format!("{}: {reason}", archive.entries[entry].name)),
            }
        }
        let decode = |entry: &usize| read(entry).map(|bytes| small(&bytes).ok());
        let decoded = spread(images, DECODED).par_iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        looks.colours(&decoded.into_iter().flatten().collect::<Vec<_>>());
        looks.sizes.sort_unstable_by_key(|size| size[0].min(size[1]));
        Ok(looks)
    }

    fn colours(&mut self, images: &[Rgb]) {
        self.decoded = images.len();
        self.is_grey =
            images.iter().flat_map(|image| image.pixels.chunks_exact(3)).all(|p| p[0] == p[1] && p[1] == p[2]);
        let count = images.iter().map(|image| image.pixels.len() / 3).sum::<usize>().max(1) as f64;
        for colour in 0..3 {
            let values = images.iter().flat_map(|image| image.pixels[colour..].iter().step_by(3));
            let values = values.map(|&byte| f64::from(byte) / 255.0);
            let (sum, squares) =
                values.fold((0.0, 0.0), |(sum, squares), value| (sum + value, squares + value * value));
            self.mean[colour] = sum / count;
            self.std[colour] = (squares / count - self.mean[colour].powi(2)).max(0.0).sqrt();
        }
    }

    fn short_sides(&self) -> [usize; 3] {
        let side = |at: usize| self.sizes.get(at).map_or(0, |size| size[0].min(size[1]));
        [side(0), side(self.sizes.len() / 2), side(self.sizes.len().saturating_sub(1))]
    }

    fn one_size(&self) -> Option<[usize; 2]> {
        let first = *self.sizes.first()?;
        self.sizes.iter().all(|size| *size == first).then_some(first)
    }
}

fn small(file: &[u8]) -> Result<Rgb, String> {
    let image = picture::decode(file)?;
    let side = image.height.min(image.width).min(SIDE);
    Recipe { resize: Some(side), ..Recipe::default() }.apply(image)
}

/// At most so many of a list, evenly spread over it.
fn spread(all: &[usize], most: usize) -> Vec<usize> {
    let count = all.len().min(most);
    (0..count).map(|at| all[at * all.len() / count]).collect()
}

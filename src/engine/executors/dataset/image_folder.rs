//! Folders of images on disk and within archives: which files are images and of which class, and how they are divided.
//! Images are in the order of their classes and names, whatever the order in the archive.

use std::collections::BTreeMap;
use std::rc::Rc;

use rayon::prelude::*;

use super::archive::{Archive, ArchiveError};
use super::error::DatasetError;
use super::fill::{Aside, Filled, Plan, Planned, fill, summary};
use super::{class_names, layout, open, open_folder, picture};
use crate::digest::Digest;
use crate::executors::error::StageError;
use crate::executors::{Reporter, check_cancelled};
use crate::formats::View;
use crate::protocol::Job;
use crate::random::permutation;
use crate::stage_kinds::{Classes, DatasetParams, Folder};

/// Passed-over files that the log names.
const NAMED: usize = 20;
/// Images whose size is looked up at a time.
const PIECE: usize = 128;

/// The files of each class, by name, both in alphabetical order; and what is no image of any.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) classes: BTreeMap<String, Vec<usize>>,
    pub(super) passed_over: usize,
}

/// Lists the images under a folder of an archive (`""` or with a `/` at its end). `class` names the class of a path
/// within the folder, or says that it has none.
pub(super) fn list(
    archive: &Archive,
    root: &str,
    reporter: &dyn Reporter,
    class: impl Fn(&str) -> Option<&str>,
) -> Result<Listing, DatasetError> {
    let mut listing = Listing::default();
    let mut others: Vec<&str> = Vec::new();
    for (index, entry) in archive.entries.iter().enumerate() {
        let Some(path) = entry.name.strip_prefix(root) else { continue };
        match class(path).filter(|_| layout::is_image(path)) {
            Some(class) => listing.classes.entry(class.to_owned()).or_default().push(index),
            None => others.push(&entry.name),
        }
    }
    for files in listing.classes.values_mut() {
        files.sort_unstable_by_key(|&index| archive.entries[index].name.as_str());
    }
    if listing.classes.is_empty() {
        let place = if root.is_empty() { "in folders of classes".to_owned() } else { format!("under `{root}`") };
        return Err(DatasetError::NoImages { file: archive.shown.clone(), place });
    }
    listing.passed_over = others.len();
    for name in others.iter().take(NAMED) {
        reporter.log(&format!("passed over: {name} {}", layout::unread(name)));
    }
    if others.len() > NAMED {
        reporter.log(&format!("passed over: {} more files", others.len() - NAMED));
    }
    Ok(listing)
}

/// The part of a class that is for testing, and the rest, each in the order given: the first of a permutation drawn by
/// seed and the class's name.
pub(super) fn divide(class: &str, files: Vec<usize>, share: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let tested = (share * files.len() as f64) as usize;
    let mut is_tested = vec![false; files.len()];
    for at in
        permutation(seed, "division into training and test set", &[word(class)], files.len()).into_iter().take(tested)
    {
        is_tested[at] = true;
    }
    let (test, train): (Vec<_>, Vec<_>) = files.into_iter().zip(is_tested).partition(|(_, is_tested)| *is_tested);
    let files = |of: Vec<(usize, bool)>| of.into_iter().map(|(file, _)| file).collect();
    (files(test), files(train))
}

/// A number that stands for a name in the key of a draw.
fn word(name: &str) -> u64 {
    let text = Digest::of(name.as_bytes()).to_string();
    u64::from_str_radix(&text[..16], 16).unwrap_or_default()
}

/// Where the images of each set are; without `test`, those of `train` are divided.
struct Places {
    train: Place,
    test: Option<Place>,
}

/// A folder in an archive or on disk.
pub(super) struct Place {
    pub(super) archive: Rc<Archive>,
    /// `""`, or with a `/` at its end.
    pub(super) root: String,
}

impl Place {
    fn of(job: &Job, part: &str, folder: &Folder, reporter: &dyn Reporter) -> Result<Self, StageError> {
        let archive = match &folder.archive {
            Some(source) => open(job, &format!("{part}.archive"), source, reporter)?,
            None => open_folder(job, &format!("{part}.folder"), reporter)?,
        };
        let root = layout::find_root(&archive, &folder.root)?;
        Ok(Place { archive: Rc::new(archive), root })
    }
}

/// Opens what holds the images, and finds the sets in it.
fn places(job: &Job, params: &DatasetParams, reporter: &dyn Reporter) -> Result<Places, StageError> {
    let DatasetParams::ImageFolder { archive, train, test, test_share, classes, .. } = params else {
        return Err(StageError::Kind { kind: job.kind });
    };
    if let Some(train) = train {
        let train = Place::of(job, "train", train, reporter)?;
        let test = test.as_ref().map(|test| Place::of(job, "test", test, reporter)).transpose()?;
        return Ok(Places { train, test });
    }
    let archive = Rc::new(match archive {
        Some(source) => open(job, "archive", source, reporter)?,
        None => open_folder(job, "folder", reporter)?,
    });
    let place = |root: String| Place { archive: Rc::clone(&archive), root };
    let parts = if test_share.is_none() { layout::parts(&archive, reporter) } else { None };
    match parts {
        Some([train, test]) => Ok(Places { train: place(train), test: Some(place(test)) }),
        None if test_share.is_some() || *classes == Classes::None => {
            Ok(Places { train: place(String::new()), test: None })
        }
        None => Err(DatasetError::NoParts { file: archive.shown.clone(), there: layout::tops_shown(&archive) }.into()),
    }
}

pub(super) fn run(job: &Job, reporter: &dyn Reporter, params: &DatasetParams) -> Result<String, StageError> {
    let DatasetParams::ImageFolder {
        folder: _,
        archive: _,
        train: _,
        test: _,
        test_share,
        seed,
        classes: by,
        min_side,
        square,
        resize,
        filter,
        center_crop,
        whole,
        pick,
        limit_per_class,
        broken,
    } = params
    else {
        return Err(StageError::Kind { kind: job.kind });
    };
    let side = |side: Option<u32>| side.map(|side| side as usize);
    let recipe = picture::Recipe { square: *square, resize: side(*resize), filter: *filter, crop: side(*center_crop) };
    let limit = limit_per_class.map_or(usize::MAX, |limit| limit as usize);
    let choice = Choice { by, min_side: *min_side, pick: *pick, seed: *seed, limit };

    let places = places(job, params, reporter)?;
    let train_archive = &*places.train.archive;
    let listing = choice.list(&places.train, &[], reporter)?;
    let classes: Vec<String> = listing.classes.keys().cloned().collect();
    let mut warnings = class_names::check(&train_archive.shown, &classes)?;
    if *by == Classes::Folders {
        check_several(train_archive, &classes)?;
    }
    let mut aside =
        Aside { passed_over: listing.passed_over, left_out: train_archive.left_out.len(), ..Aside::default() };
    let share = if places.test.is_some() { 0.0 } else { test_share.map_or(0.0, |share| share.get()) };
    let [mut tested, trained] = divided(listing, share, *seed);
    if let Some(test) = &places.test {
        let listing = choice.list(test, &classes, reporter)?;
        aside.passed_over += listing.passed_over;
        if !Rc::ptr_eq(&test.archive, &places.train.archive) {
            aside.left_out += test.archive.left_out.len();
        }
        let missing = classes.iter().filter(|class| !listing.classes.contains_key(*class));
        warnings.extend(missing.map(|class| format!("the test set has no images of the class `{class}`")));
        tested = labelled(listing, &classes)?;
    }

    let view = if *whole { recipe.crop.map(View::CenterCrop) } else { None };
    let stored = if *whole { picture::Recipe { crop: None, ..recipe } } else { recipe };
    let (classes, broken) = (classes.as_slice(), *broken);
    let plan = Plan { output: "train", archive: train_archive, images: trained, classes, recipe: stored, view, broken };
    let train: Filled = fill(job, &plan, reporter)?;
    let archive = places.test.as_ref().map_or(train_archive, |test| &test.archive);
    let plan = Plan { output: "test", archive, images: tested, classes, recipe, view: None, broken };
    let test = fill(job, &plan, reporter)?;
    warnings.iter().for_each(|warning| reporter.warn(warning));
    aside.warnings = warnings.len();
    Ok(summary((&train, train_archive), (&test, archive), classes.len(), aside, reporter)?)
}

/// A network needs two classes to tell apart.
pub(super) fn check_several(archive: &Archive, classes: &[String]) -> Result<(), DatasetError> {
    match classes {
        [class] => Err(DatasetError::OneClass { file: archive.shown.clone(), class: class.clone() }),
        _ => Ok(()),
    }
}

/// Which images of a folder are taken.
pub(super) struct Choice<'a> {
    pub(super) by: &'a Classes,
    /// The shortest side of an image, in pixels.
    pub(super) min_side: Option<u32>,
    /// How many images are picked from all classes together.
    pub(super) pick: Option<u32>,
    pub(super) seed: u64,
    /// Images per class, at most.
    pub(super) limit: usize,
}

impl Choice<'_> {
    /// Lists the images of a place that are taken. `known` are classes that it may have.
    pub(super) fn list(&self, place: &Place, known: &[String], reporter: &dyn Reporter) -> Result<Listing, StageError> {
        let archive = &*place.archive;
        let mut root = place.root.clone();
        if *self.by == Classes::Folders {
            root = layout::unwrap(archive, root, known, reporter);
        }
        let mut listing = list(archive, &root, reporter, |path| match self.by {
            Classes::None => Some("image"),
            Classes::Folders => path.split_once('/').map(|(class, _)| class),
        })?;
        if *self.by == Classes::Folders {
            let classes: Vec<String> = listing.classes.keys().cloned().collect();
            layout::check(archive, &root, &classes)?;
        }
        self.take(archive, &mut listing, reporter)?;
        Ok(listing)
    }

    /// Leaves only the images that are taken.
    fn take(&self, archive: &Archive, listing: &mut Listing, reporter: &dyn Reporter) -> Result<(), StageError> {
        if let Some(min_side) = self.min_side {
            large_enough(archive, listing, min_side as usize, self.pick, self.seed, reporter)?;
        } else if let Some(pick) = self.pick {
            let all: usize = listing.classes.values().map(Vec::len).sum();
            let mut chosen = permutation(self.seed, "pick", &[], all);
            chosen.truncate(pick as usize);
            keep(listing, &chosen);
        }
        listing.classes.values_mut().for_each(|files| files.truncate(self.limit));
        Ok(())
    }
}

/// Divides the images of each class by a share into those for testing and those to train on, labelled in the order of
/// the classes.
fn divided(listing: Listing, share: f64, seed: u64) -> [Vec<Planned>; 2] {
    let mut divided: [Vec<Planned>; 2] = Default::default();
    for (label, (class, files)) in listing.classes.into_iter().enumerate() {
        for (set, files) in divided.iter_mut().zip(<[_; 2]>::from(divide(&class, files, share, seed))) {
            set.extend(files.into_iter().map(|entry| Planned { entry, label: label as i32 }));
        }
    }
    divided
}

/// Labels the images of a test set by the classes of the training set, in alphabetical order.
fn labelled(listing: Listing, classes: &[String]) -> Result<Vec<Planned>, DatasetError> {
    let mut images = Vec::new();
    for (class, files) in listing.classes {
        let label = classes
            .binary_search(&class)
            .map_err(|_| DatasetError::Class { hint: class_names::stranger(&class, classes), class })?;
        images.extend(files.into_iter().map(|entry| Planned { entry, label: label as i32 }));
    }
    Ok(images)
}

/// Leaves only images whose sides are long enough, and of those only as many as are picked: the first of a permutation,
/// so that only as many are looked at as it takes.
fn large_enough(
    archive: &Archive,
    listing: &mut Listing,
    min_side: usize,
    pick: Option<u32>,
    seed: u64,
    reporter: &dyn Reporter,
) -> Result<(), StageError> {
    let all: Vec<usize> = listing.classes.values().flatten().copied().collect();
    let wanted = pick.map_or(usize::MAX, |pick| pick as usize);
    let order = if pick.is_some() { permutation(seed, "pick", &[], all.len()) } else { (0..all.len()).collect() };
    let (mut chosen, mut small) = (Vec::new(), 0);
    for piece in order.chunks(PIECE) {
        check_cancelled(reporter)?;
        reporter.progress(
            chosen.len().min(wanted) as u64,
            all.len().min(wanted) as u64,
            "looking for images that are large enough",
        );
        // One that cannot be read is chosen, so that it is told when it is decoded.
        let fits = |&at: &usize| -> Result<bool, ArchiveError> {
            match archive.read(all[at]) {
                Ok(bytes) => Ok(picture::size(&bytes).map_or(true, |size| size.iter().all(|&side| side >= min_side))),
                Err(ArchiveError::Damaged { .. }) => Ok(true),
                Err(error) => Err(error),
            }
        };
        let fit: Vec<Result<bool, _>> = piece.par_iter().map(fits).collect();
        for (&at, fits) in piece.iter().zip(fit) {
            if !fits.map_err(|source| DatasetError::Archive { file: archive.shown.clone(), source })? {
                small += 1;
            } else if chosen.len() < wanted {
                chosen.push(at);
            }
        }
        if chosen.len() >= wanted {
            break;
        }
    }
    reporter.log(&format!("{small} images with a side shorter than {min_side} left out"));
    keep(listing, &chosen);
    Ok(())
}

/// Leaves only the chosen images, by their numbers in the order of the listing.
fn keep(listing: &mut Listing, chosen: &[usize]) {
    let mut is_chosen = vec![false; listing.classes.values().map(Vec::len).sum()];
    chosen.iter().for_each(|&at| is_chosen[at] = true);
    let mut flags = is_chosen.into_iter();
    for files in listing.classes.values_mut() {
        files.retain(|_| flags.next().unwrap_or(false));
    }
}

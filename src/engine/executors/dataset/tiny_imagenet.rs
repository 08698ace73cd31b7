//! Tiny ImageNet as Stanford's course CS231n publishes it: `wnids.txt` names the classes, `words.txt` tells their
//! words, training images stand in `train/WNID/images`, and `val/val_annotations.txt` says the class of each image of
//! `val/images`. Classes are labelled in the order of their WordNet numbers, and images ordered by class and name, as
//! readers of folders do.

use std::collections::{BTreeMap, HashMap};

use super::archive::Archive;
use super::error::DatasetError;
use super::fill::{Aside, Plan, Planned, fill, summary};
use super::picture::Recipe;
use crate::executors::Reporter;
use crate::executors::error::StageError;
use crate::formats::View;
use crate::protocol::Job;
use crate::stage_kinds::Broken;

pub(super) fn run(
    job: &Job,
    reporter: &dyn Reporter,
    archive: &Archive,
    resize: Option<u32>,
    limit_per_class: Option<u32>,
    broken: Broken,
) -> Result<String, StageError> {
    let root = archive.folder_of("wnids.txt").unwrap_or_default().to_owned();
    let wnids = text(archive, &format!("{root}wnids.txt"))?;
    let mut wnids: Vec<&str> = wnids.split_whitespace().collect();
    wnids.sort_unstable();
    wnids.dedup();
    let words = match archive.find(&format!("{root}words.txt")) {
        Some(_) => text(archive, &format!("{root}words.txt"))?,
        None => String::new(),
    };
    let classes = names(&wnids, &words);
    let limit = limit_per_class.map_or(usize::MAX, |limit| limit as usize);
    let folder = Folder { archive, root: &root, wnids: &wnids, limit };
    let (trained, passed_over) = folder.trained()?;
    let tested = folder.tested()?;

    let view = resize.map(|side| View::Resize([side as usize; 2]));
    let (classes, recipe) = (classes.as_slice(), Recipe::default());
    let train =
        fill(job, &Plan { output: "train", archive, images: trained, classes, recipe, view, broken }, reporter)?;
    let test = fill(job, &Plan { output: "test", archive, images: tested, classes, recipe, view, broken }, reporter)?;
    let aside = Aside { passed_over, left_out: archive.left_out.len(), warnings: 0 };
    Ok(summary((&train, archive), (&test, archive), classes.len(), aside, reporter)?)
}

/// The folder that holds the set.
struct Folder<'a> {
    archive: &'a Archive,
    /// Its name with a `/` at its end, or `""`.
    root: &'a str,
    /// The WordNet numbers of the classes, in order.
    wnids: &'a [&'a str],
    /// Images per class and set, at most.
    limit: usize,
}

impl Folder<'_> {
    /// The images to train on, and how many other files stand among them.
    fn trained(&self) -> Result<(Vec<Planned>, usize), DatasetError> {
        let folder = format!("{}train/", self.root);
        let mut passed_over = 0;
        let mut by_class: BTreeMap<&str, Vec<(&str, usize)>> = BTreeMap::new();
        for (index, entry) in self.archive.entries.iter().enumerate() {
            let Some(path) = entry.name.strip_prefix(&folder) else { continue };
            match path.split_once("/images/") {
                Some((wnid, _)) if self.wnids.binary_search(&wnid).is_ok() && is_jpeg(path) => {
                    by_class.entry(wnid).or_default().push((entry.name.as_str(), index));
                }
                // The boxes round the objects are not read and not missed.
                _ if path.ends_with("_boxes.txt") => {}
                _ => passed_over += 1,
            }
        }
        let mut of_class = Vec::with_capacity(self.wnids.len());
        for wnid in self.wnids {
            let Some(files) = by_class.remove(wnid) else {
                let (file, place) = (self.archive.shown.clone(), format!("under `{folder}{wnid}/images`"));
                return Err(DatasetError::NoImages { file, place });
            };
            of_class.push(files);
        }
        Ok((self.planned(of_class), passed_over))
    }

    /// The images to test on, as `val_annotations.txt` lists them.
    fn tested(&self) -> Result<Vec<Planned>, DatasetError> {
        let entries = self.archive.entries.iter().enumerate();
        let by_name: HashMap<&str, usize> = entries.map(|(index, entry)| (entry.name.as_str(), index)).collect();
        let annotations = format!("{}val/val_annotations.txt", self.root);
        let content = text(self.archive, &annotations)?;
        let wrong = |line: usize, reason: String| DatasetError::Content {
            file: self.archive.shown.clone(),
            name: annotations.clone(),
            reason: format!("line {}: {reason}", line + 1),
        };
        let mut of_class: Vec<Vec<(&str, usize)>> = vec![Vec::new(); self.wnids.len()];
        for (line, row) in content.lines().enumerate().filter(|(_, row)| !row.trim().is_empty()) {
            let mut columns = row.split('\t');
            let (Some(name), Some(wnid)) = (columns.next(), columns.next()) else {
                return Err(wrong(line, "expected an image and its class, divided by a tab".to_owned()));
            };
            let wnid = wnid.trim();
            let label =
                self.wnids.binary_search(&wnid).map_err(|_| wrong(line, format!("`{wnid}` is not in wnids.txt")))?;
            let path = format!("{}val/images/{name}", self.root);
            let &entry =
                by_name.get(path.as_str()).ok_or_else(|| wrong(line, format!("there is no image `{path}`")))?;
            of_class[label].push((name, entry));
        }
        Ok(self.planned(of_class))
    }

    /// The first images of each class by name, labelled in the order of the classes.
    fn planned(&self, of_class: Vec<Vec<(&str, usize)>>) -> Vec<Planned> {
        let mut planned = Vec::new();
        for (label, mut files) in of_class.into_iter().enumerate() {
            files.sort_unstable();
            let images = files.into_iter().take(self.limit);
            planned.extend(images.map(|(_, entry)| Planned { entry, label: label as i32 }));
        }
        planned
    }
}

fn is_jpeg(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    lower.ends_with(".jpeg") || lower.ends_with(".jpg")
}

fn text(archive: &Archive, name: &str) -> Result<String, DatasetError> {
    let file = || archive.shown.clone();
    let index = archive.find(name).ok_or_else(|| DatasetError::Missing {
        file: file(),
        name: name.to_owned(),
        expected: "it should be tiny-imagenet-200.zip",
    })?;
    let bytes = archive.read(index).map_err(|source| DatasetError::Archive { file: file(), source })?;
    let reason = "is no text".to_owned();
    String::from_utf8(bytes).map_err(|_| DatasetError::Content { file: file(), name: name.to_owned(), reason })
}

/// The first word for each class, followed by its number where two classes share it; the number alone where there is no
/// word.
fn names(wnids: &[&str], words: &str) -> Vec<String> {
    let known: HashMap<&str, &str> = words.lines().filter_map(|line| line.split_once('\t')).collect();
    let mut names: Vec<&str> = Vec::new();
    for wnid in wnids {
        let words = known.get(wnid).and_then(|words| words.split(',').next());
        names.push(words.map_or(*wnid, str::trim));
    }
    let shared = |name: &str| names.iter().filter(|other| **other == name).count() > 1;
    let full =
        |(name, wnid): (&&str, &&str)| if shared(name) { format!("{name} ({wnid})") } else { (*name).to_owned() };
    names.iter().zip(wnids).map(full).collect()
}

//! Why a data set cannot be made of the files that were given.

use super::archive::ArchiveError;
use super::idx::IdxError;
use super::npy::NpyError;
use crate::folder::FolderError;
use crate::pickle::PickleError;

/// Broken images that a message names.
const NAMED: usize = 12;

/// Facts about files that are not the data set they should be.
#[derive(Debug, thiserror::Error)]
pub(in crate::executors) enum DatasetError {
    #[error("{file}: {source}")]
    Idx { file: String, source: IdxError },
    #[error("{labels_file} has {labels} labels, {images_file} has {images} images")]
    LabelCount { labels_file: String, labels: usize, images_file: String, images: usize },
    #[error("{file}: image {index} has label {label}, but the pipeline names {classes} classes, 0 to {}", classes.saturating_sub(1))]
    Label { file: String, index: usize, label: u8, classes: usize },

    #[error("{file}: {source}")]
    Archive { file: String, source: ArchiveError },
    #[error("{file} has no `{name}`; {expected}")]
    Missing { file: String, name: String, expected: &'static str },
    #[error("{file}: `{name}`, {reason}")]
    Content { file: String, name: String, reason: String },
    #[error("{file}: `{name}` cannot be read: {source}")]
    Pickle { file: String, name: String, source: PickleError },
    #[error("{file}: {source}")]
    Npy { file: String, source: NpyError },
    #[error("{file} does not have the arrays {wanted}; it has {there}: name them with `train` and `test`")]
    NoArrays { file: String, wanted: String, there: String },
    #[error("{file}: {reason}")]
    Unfit { file: String, reason: String },
    #[error("{file} has no images {place}")]
    NoImages { file: String, place: String },
    #[error("the test set has the class `{class}`, which the training set has not{hint}")]
    Class { class: String, hint: String },
    #[error(
        "{file} has folders that divide a data set, not classes: {}; set `train.root` to one of them and `test` to \
         the same archive with `root` of the other, or give the data set `archive` or `folder` in place of `train`, without \
         `test_share`: both are then found", parts.join(" and ")
    )]
    Parts { file: String, parts: Vec<String> },
    #[error(
        "{file} has no folders `train` and `test` (or `val`), but {there}: add `test_share: 0.2` to draw the test images, \
         or name both folders with `train` and `test`"
    )]
    NoParts { file: String, there: String },
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("{folder} changed while it was read, so nothing was recorded; run again")]
    Changed { folder: String },
    #[error(
        "{file} has one class, `{class}`, and a network has nothing to tell apart: give each class a folder and name the \
         folder above them as `root`, or set `classes: none` where classes do not matter"
    )]
    OneClass { file: String, class: String },
    #[error(
        "{file} has the folder `{folder}` without an image that is read (its files: {files}): as a class it would vanish \
         and the labels behind it move; convert its images to PNG, or move that folder elsewhere"
    )]
    Vanished { file: String, folder: String, files: String },
    #[error(
        "{file} has two classes that look alike, `{first}` and `{second}`: they differ in {difference}; give them one \
         folder, or names that differ visibly"
    )]
    Alike { file: String, first: String, second: String, difference: String },
    #[error(
        "all {images} test images are training images too, byte by byte ({example}): give `test` another folder or archive"
    )]
    SameParts { images: usize, example: String },
    #[error(
        "{name} has {} × {} pixels, images before it have {} × {}: add `center_crop`, and `resize` before it",
        found[0], found[1], expected[0], expected[1]
    )]
    Sizes { name: String, found: [usize; 2], expected: [usize; 2] },
    #[error("{count} images of {file} cannot be decoded: {named}; `broken: skip` leaves them out")]
    Broken { file: String, count: usize, named: String },
}

impl DatasetError {
    pub(super) fn broken(file: &str, broken: &[(&str, String)]) -> Self {
        let mut named: Vec<String> =
            broken.iter().take(NAMED).map(|(name, reason)| format!("{name} ({reason})")).collect();
        if broken.len() > NAMED {
            named.push(format!("and {} more, all in the log", broken.len() - NAMED));
        }
        DatasetError::Broken { file: file.to_owned(), count: broken.len(), named: named.join(", ") }
    }

    /// Whether another try may succeed, on a machine that reads what this one could not.
    pub(in crate::executors) const fn is_passing(&self) -> bool {
        let is_unread = matches!(self, DatasetError::Archive { source: ArchiveError::Io(_), .. });
        is_unread || matches!(self, DatasetError::Folder(_) | DatasetError::Changed { .. })
    }

    pub(in crate::executors) const fn is_stop(&self) -> bool {
        matches!(self, DatasetError::Archive { source: ArchiveError::Stopped, .. })
    }
}

//! Data sets of NumPy arrays: one `.npz` file with the arrays of both parts, as MedMNIST and Keras publish them, or a
//! `.npy` file for each array. Memory holds one image at a time, and the labels.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read};

use zip::ZipArchive;
use zip::result::ZipError;

use super::archive::{MAX_RATIO, MUCH};
use super::error::DatasetError;
use super::fill::{Fingerprint, fingerprint, output};
use super::npy::{Images, NpyError, labels};
use super::{class_names, input};
use crate::digest::verify;
use crate::executors::error::StageError;
use crate::executors::{Reporter, check_cancelled, read_error};
use crate::formats::{ImageWriter, Layout};
use crate::protocol::Job;
use crate::regular::open_regular;
use crate::stage_kinds::{ArrayFiles, ArrayNames, DatasetParams, Source};

/// Most classes of a set whose classes have no names.
const MAX_CLASSES: i64 = 65_536;
/// Images between two looks at whether the stage is to go on.
const PIECE: u64 = 256;

/// Names that arrays of images and labels have, in the order in which they are looked for: those of MedMNIST and those
/// of Keras.
const TRAIN: [[&str; 2]; 2] = [["train_images", "train_labels"], ["x_train", "y_train"]];
const TEST: [[&str; 2]; 3] = [["test_images", "test_labels"], ["x_test", "y_test"], ["val_images", "val_labels"]];

/// One of the two arrays of a part.
#[derive(Clone, Copy)]
enum Array {
    Images,
    Labels,
}

/// Where the arrays are.
enum Arrays<'a> {
    /// Members of a zip archive, by part and array.
    Npz { zip: ZipArchive<BufReader<File>>, shown: String, packed: u64, names: [[String; 2]; 2] },
    /// A file for each.
    Npy { job: &'a Job, files: [&'a ArrayFiles; 2] },
}

pub(super) fn run(job: &Job, reporter: &dyn Reporter, params: &DatasetParams) -> Result<String, StageError> {
    let (mut arrays, classes, limit) = match params {
        DatasetParams::Npz { archive, train, test, classes, limit_per_class } => {
            (Arrays::of_npz(job, archive, [train.as_ref(), test.as_ref()])?, classes, limit_per_class)
        }
        DatasetParams::Npy { train, test, classes, limit_per_class } => {
            (Arrays::of_npy(job, [train, test])?, classes, limit_per_class)
        }
        _ => return Err(StageError::Kind { kind: job.kind }),
    };
    let labels = [arrays.labels(0)?, arrays.labels(1)?];
    let classes = match classes {
        Some(names) => names.clone(),
        None => numbered(&arrays.shown(0, Array::Labels), &labels[0])?,
    };
    for warning in class_names::check("classes", &classes)? {
        reporter.warn(&warning);
    }
    let limit = limit.map_or(usize::MAX, |limit| limit as usize);
    let (mut told, mut known, mut shared) = (Vec::new(), HashSet::new(), 0);
    for (part, (set, labels)) in ["train", "test"].into_iter().zip(&labels).enumerate() {
        let pieces = Pieces { job, reporter, set, labels, classes: &classes, limit };
        let found = arrays.write(part, &pieces)?;
        told.push(format!("{} {set}", found.len()));
        if part == 0 {
            known.extend(found);
        } else {
            shared = found.iter().filter(|image| known.contains(*image)).count();
        }
    }
    let summary = format!("{} images, {} classes", told.join(" + "), classes.len());
    if shared == 0 {
        return Ok(summary);
    }
    reporter
        .warn(&format!("{shared} test images stand in the training set, too, pixel by pixel: the network knows them"));
    Ok(format!("{summary}, {shared} test images that are training images too"))
}

/// Names of classes that have none: their numbers.
pub(super) fn numbered(file: &str, labels: &[i64]) -> Result<Vec<String>, DatasetError> {
    let most = labels.iter().copied().max().unwrap_or(0);
    let reason = match most {
        ..1 => "there are not two classes in its labels, and a network has nothing to tell apart".to_owned(),
        MAX_CLASSES.. => format!("its labels go up to {most}, and there are at most {MAX_CLASSES} classes"),
        _ => return Ok((0..=most).map(|label| label.to_string()).collect()),
    };
    Err(DatasetError::Unfit { file: file.to_owned(), reason })
}

impl<'a> Arrays<'a> {
    fn of_npz(job: &Job, source: &Source, names: [Option<&ArrayNames>; 2]) -> Result<Self, StageError> {
        let (input, shown) = input(job, "archive", source)?;
        verify(&input.path, input.digest).map_err(|source| read_error(input, source))?;
        let unread = |reason: String| DatasetError::Unfit { file: shown.clone(), reason };
        let file = open_regular(&input.path).map_err(|error| unread(error.to_string()))?;
        let packed = file.metadata().map_err(|error| unread(error.to_string()))?.len();
        let zip = ZipArchive::new(BufReader::new(file))
            .map_err(|error| unread(format!("it is no file of `numpy.savez`, is damaged or cut off: {error}")))?;
        let array = |name: Result<Cow<'_, str>, ZipError>| Some(name.ok()?.strip_suffix(".npy")?.to_owned());
        let mut there: Vec<String> = zip.file_names().filter_map(array).collect();
        there.sort();
        let find = |wanted: Option<&ArrayNames>, usual: &[[&str; 2]]| -> Result<[String; 2], DatasetError> {
            let is_there = |names: &[&str; 2]| names.iter().all(|name| there.iter().any(|other| other == name));
            let found = match wanted {
                Some(ArrayNames { images, labels }) => Some([images.as_str(), labels]).filter(is_there),
                None => usual.iter().copied().find(is_there),
            };
            found.map(|names| names.map(str::to_owned)).ok_or_else(|| DatasetError::NoArrays {
                file: shown.clone(),
                wanted: wanted
                    .map_or_else(|| usual.concat().join(", "), |names| format!("{}, {}", names.images, names.labels)),
                there: there.join(", "),
            })
        };
        let names = [find(names[0], &TRAIN)?, find(names[1], &TEST)?];
        Ok(Arrays::Npz { zip, shown, packed, names })
    }

    fn of_npy(job: &'a Job, files: [&'a ArrayFiles; 2]) -> Result<Self, StageError> {
        let arrays = Arrays::Npy { job, files };
        for (part, array) in [(0, Array::Images), (0, Array::Labels), (1, Array::Images), (1, Array::Labels)] {
            let (input, _) = arrays.file(part, array)?;
            verify(&input.path, input.digest).map_err(|source| read_error(input, source))?;
        }
        Ok(arrays)
    }

    /// The file of an array, and its name for messages.
    fn file(&self, part: usize, array: Array) -> Result<(&'a crate::protocol::Input, String), StageError> {
        let Arrays::Npy { job, files } = self else { return Err(StageError::NoInput { slot: "archive".to_owned() }) };
        let (slot, source) = match array {
            Array::Images => ("images", &files[part].images),
            Array::Labels => ("labels", &files[part].labels),
        };
        input(job, &format!("{}.{slot}", ["train", "test"][part]), source)
    }

    /// An array as messages name it.
    fn shown(&self, part: usize, array: Array) -> String {
        match self {
            Arrays::Npz { shown, names, .. } => format!("{shown}: `{}`", names[part][array as usize]),
            Arrays::Npy { .. } => self.file(part, array).map(|(_, shown)| shown).unwrap_or_default(),
        }
    }

    /// Reads an array; `read` is told how many bytes it may have at most.
    fn with<T>(
        &mut self,
        part: usize,
        array: Array,
        read: impl FnOnce(&mut dyn Read, u64) -> Result<T, Wrong>,
    ) -> Result<T, StageError> {
        let shown = self.shown(part, array);
        let failed = |source: NpyError| DatasetError::Npy { file: shown.clone(), source };
        let read = match self {
            Arrays::Npz { zip, packed, names, .. } => {
                let unread = |error: ZipError| failed(NpyError::Io(error.into()));
                let mut member = zip.by_name(&format!("{}.npy", names[part][array as usize])).map_err(unread)?;
                let result = read(&mut member, MUCH.max(packed.saturating_mul(MAX_RATIO)));
                // Reading on to the end is what makes the sum be checked.
                result.and_then(|result| match member.read(&mut [0]) {
                    Ok(0) => Ok(result),
                    Ok(_) => Err(NpyError::Header("it is longer than it says".to_owned()).into()),
                    Err(error) => Err(NpyError::Io(error).into()),
                })
            }
            Arrays::Npy { .. } => {
                let file = open_regular(&self.file(part, array)?.0.path).map_err(|error| failed(error.into()))?;
                read(&mut BufReader::new(file), u64::MAX)
            }
        };
        read.map_err(|wrong| match wrong {
            Wrong::Array(error) => failed(error).into(),
            Wrong::Stage(error) => error,
        })
    }

    fn labels(&mut self, part: usize) -> Result<Vec<i64>, StageError> {
        self.with(part, Array::Labels, |reader, _| Ok(labels(BufReader::new(reader))?))
    }

    /// Writes a set; returns what its images hold.
    fn write(&mut self, part: usize, pieces: &Pieces<'_>) -> Result<Vec<Fingerprint>, StageError> {
        let (images_file, labels_file) = (self.shown(part, Array::Images), self.shown(part, Array::Labels));
        if let Some(index) = pieces.labels.iter().position(|&label| pieces.class(label).is_none()) {
            let (label, classes) = (pieces.labels[index], pieces.classes.len());
            let reason = format!("image {index} has label {label}, and classes are 0 to {}", classes.saturating_sub(1));
            return Err(DatasetError::Unfit { file: labels_file, reason }.into());
        }
        self.with(part, Array::Images, |reader, most| {
            let images = Images::open(BufReader::new(reader))?;
            if images.count != pieces.labels.len() as u64 {
                let (labels, images) = (pieces.labels.len(), images.count as usize);
                return Err(Wrong::Stage(DatasetError::LabelCount { labels_file, labels, images_file, images }.into()));
            }
            if images.bytes() > most {
                return Err(NpyError::Header("it unfolds to far more than the file has bytes".to_owned()).into());
            }
            pieces.write(images)
        })
    }
}

/// Why an array was not taken.
enum Wrong {
    Array(NpyError),
    Stage(StageError),
}

impl From<NpyError> for Wrong {
    fn from(error: NpyError) -> Self {
        Wrong::Array(error)
    }
}

impl From<StageError> for Wrong {
    fn from(error: StageError) -> Self {
        Wrong::Stage(error)
    }
}

/// What is needed to write a set.
struct Pieces<'a> {
    job: &'a Job,
    reporter: &'a dyn Reporter,
    set: &'static str,
    labels: &'a [i64],
    classes: &'a [String],
    /// Images per class, at most.
    limit: usize,
}

impl Pieces<'_> {
    /// The number of the class of a label.
    fn class(&self, label: i64) -> Option<usize> {
        usize::try_from(label).ok().filter(|class| *class < self.classes.len())
    }

    fn write(&self, mut images: Images<impl Read>) -> Result<Vec<Fingerprint>, Wrong> {
        let unwritten = |source| StageError::WriteSet { output: self.set, source };
        let (size, most) = (images.size, self.labels.len());
        let classes = self.classes.to_vec();
        let layout = Layout { classes, channels: images.channels, size: Some(size), view: None, most };
        let mut writer = ImageWriter::create(&output(self.job, self.set)?, layout).map_err(unwritten)?;
        let (mut kept, mut found) = (vec![0; self.classes.len()], Vec::new());
        for (index, &label) in (0..).zip(self.labels) {
            if index % PIECE == 0 {
                check_cancelled(self.reporter)?;
                self.reporter.progress(index, most as u64, &format!("reading {}", self.set));
            }
            let pixels = images.read()?;
            let Some(class) = self.class(label).filter(|class| kept[*class] < self.limit) else { continue };
            kept[class] += 1;
            found.push(fingerprint(&pixels));
            writer.push(&pixels, size, class as i32).map_err(unwritten)?;
        }
        let count = writer.finish().map_err(unwritten)?;
        let [height, width] = size;
        self.reporter.log(&format!("{}: {count} images of {height} × {width}", self.set));
        for (_, name) in kept.iter().zip(self.classes).filter(|(kept, _)| **kept == 0) {
            self.reporter.warn(&format!("the {} set has no images of the class `{name}`", self.set));
        }
        Ok(found)
    }
}

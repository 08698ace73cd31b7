//! CIFAR-10 as its authors publish it (<https://www.cs.toronto.edu/~kriz/cifar.html>): five batches for training and
//! one for testing, either binary records of a label and 3 × 32 × 32 bytes, or Python pickles of the same.

use super::archive::Archive;
use super::cifar_pickle::{self, PickledBatch};
use super::error::DatasetError;
use super::fill::output;
use crate::executors::error::StageError;
use crate::executors::{Reporter, check_cancelled};
use crate::formats::{ImageWriter, Layout};
use crate::protocol::Job;

const CLASSES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;

/// Labels and pixels of one batch.
struct Batch {
    labels: Vec<u8>,
    pixels: Vec<u8>,
}

pub(super) fn run(
    job: &Job,
    reporter: &dyn Reporter,
    archive: &Archive,
    limit_per_class: Option<u32>,
) -> Result<String, StageError> {
    let is_binary = archive.folder_of("test_batch.bin").is_some();
    let ending = if is_binary { ".bin" } else { "" };
    let folder = archive.folder_of(&format!("test_batch{ending}")).unwrap_or_default().to_owned();
    let classes: Vec<String> = CLASSES.map(str::to_owned).into();
    let train: Vec<String> = (1..=5).map(|batch| format!("data_batch_{batch}")).collect();
    let mut told = Vec::new();
    for (set, batches) in [("train", train), ("test", vec!["test_batch".to_owned()])] {
        let unwritten = |source| StageError::WriteSet { output: set, source };
        let mut loaded = Vec::new();
        for batch in &batches {
            check_cancelled(reporter)?;
            reporter.progress(loaded.len() as u64, batches.len() as u64, &format!("decoding {set}"));
            loaded.push(load(archive, &format!("{folder}{batch}{ending}"), is_binary)?);
        }
        let mut kept = [0; CLASSES.len()];
        let mut images: Vec<(&[u8], i32)> = Vec::new();
        for batch in &loaded {
            for (&label, pixels) in batch.labels.iter().zip(batch.pixels.chunks_exact(PIXELS)) {
                let kept = &mut kept[usize::from(label)];
                if limit_per_class.is_none_or(|limit| *kept < limit) {
                    *kept += 1;
                    images.push((pixels, i32::from(label)));
                }
            }
        }
        let size = Some([SIDE, SIDE]);
        let layout = Layout { classes: classes.clone(), channels: 3, size, view: None, most: images.len() };
        let mut writer = ImageWriter::create(&output(job, set)?, layout).map_err(unwritten)?;
        for (pixels, label) in images {
            writer.push(pixels, [SIDE, SIDE], label).map_err(unwritten)?;
        }
        let count = writer.finish().map_err(unwritten)?;
        reporter.log(&format!("{set}: {count} images of {SIDE} × {SIDE}, {} classes", classes.len()));
        told.push(format!("{count} {set}"));
    }
    let left_out = match archive.left_out.len() {
        0 => String::new(),
        count => format!(", {count} entries of the archive left out"),
    };
    Ok(format!("{} images, {} classes{left_out}", told.join(" + "), classes.len()))
}

fn load(archive: &Archive, name: &str, is_binary: bool) -> Result<Batch, DatasetError> {
    let file = || archive.shown.clone();
    let index = archive.find(name).ok_or_else(|| DatasetError::Missing {
        file: file(),
        name: name.to_owned(),
        expected: "it should be cifar-10-binary.tar.gz or cifar-10-python.tar.gz, with five training batches and a test batch",
    })?;
    let bytes = archive.read(index).map_err(|source| DatasetError::Archive { file: file(), source })?;
    let wrong = |reason: String| DatasetError::Content { file: file(), name: name.to_owned(), reason };
    let batch = if is_binary {
        let record = 1 + PIXELS;
        if bytes.is_empty() || bytes.len() % record != 0 {
            let length = bytes.len();
            return Err(wrong(format!(
                "has {length} bytes, which are no whole records of {record}: it is cut off or no batch"
            )));
        }
        let (labels, pixels) =
            bytes.chunks_exact(record).map(|record| (record[0], &record[1..])).collect::<(Vec<u8>, Vec<&[u8]>)>();
        Batch { labels, pixels: pixels.concat() }
    } else {
        let pickled = |source| DatasetError::Pickle { file: file(), name: name.to_owned(), source };
        let batch = cifar_pickle::read(&bytes).map_err(pickled)?;
        let Some(PickledBatch { labels, shape, pixels }) = batch else {
            return Err(wrong("is a pickle without a list of `labels` and an array `data`".to_owned()));
        };
        if shape != [labels.len() as i64, PIXELS as i64] || pixels.len() != labels.len() * PIXELS {
            let (count, bytes) = (labels.len(), pixels.len());
            return Err(wrong(format!("has {count} labels and {bytes} bytes of pixels in the shape {shape:?}")));
        }
        Batch { labels, pixels: pixels.to_vec() }
    };
    match batch.labels.iter().position(|&label| usize::from(label) >= CLASSES.len()) {
        Some(at) => Err(wrong(format!("image {at} has label {}, and labels are 0 to 9", batch.labels[at]))),
        None => Ok(batch),
    }
}

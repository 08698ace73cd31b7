//! Readers of files as fuzzing calls them: on any bytes. Compiled for it alone.

use std::io::Write;
use std::ops::ControlFlow;

use super::archive::Archive;
use super::{cifar_pickle, idx, npy, parquet};

/// Lists an archive and reads its files.
pub fn archive(bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").expect("a file in memory");
    file.write_all(bytes).expect("room in memory");
    let scratch = std::path::Path::new("/dev/shm");
    let Ok(archive) = Archive::open(file.path(), "archive", scratch, &|_| ControlFlow::Continue(())) else { return };
    for index in 0..archive.entries.len().min(64) {
        _ = archive.read(index);
    }
}

/// Reads labels and images.
pub fn idx(bytes: &[u8]) {
    _ = idx::decode::<1>(bytes);
    _ = idx::decode::<3>(bytes);
}

/// Reads a batch of CIFAR-10.
pub fn cifar_pickle(bytes: &[u8]) {
    if let Ok(Some(batch)) = cifar_pickle::read(bytes) {
        assert!(batch.pixels.len() <= bytes.len() && batch.labels.len() <= bytes.len());
    }
}

/// Reads an array of NumPy as images and as labels.
pub fn npy(bytes: &[u8]) {
    _ = npy::labels(bytes);
    let Ok(mut images) = npy::Images::open(bytes) else { return };
    for _ in 0..images.count.min(4) {
        if images.read().is_err() {
            return;
        }
    }
}

/// Reads a Parquet file of images.
pub fn parquet(bytes: &[u8]) {
    let mut file = tempfile::tempfile_in("/dev/shm").expect("a file in memory");
    file.write_all(bytes).expect("room in memory");
    _ = parquet::read(file);
}

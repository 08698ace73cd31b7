//! Archives and image files, made on the spot.

use std::io::{Cursor, Write};
use std::path::PathBuf;

use atflow::stage_kinds::StageKind;
use serde_json::{Value, json};
use zip::write::SimpleFileOptions;

use crate::support::Bench;

/// Files as an archive is to have them.
pub(crate) type Files = Vec<(String, Vec<u8>)>;

pub(crate) fn tar(files: &Files) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // By hand, because the crate makes no archive with a name that leads out of it.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zip(files: &Files) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(name.as_str(), SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A JPEG file of one colour with a brighter corner.
pub(crate) fn jpeg(width: u32, height: u32, colour: [u8; 3]) -> Vec<u8> {
    let image = image::RgbImage::from_fn(width, height, |x, y| {
        image::Rgb(if x < width / 2 && y < height / 2 { colour.map(|c| c.saturating_add(60)) } else { colour })
    });
    let mut out = Cursor::new(Vec::new());
    image.write_to(&mut out, image::ImageFormat::Jpeg).unwrap();
    out.into_inner()
}

/// A stage with one archive.
pub(crate) fn bench(archive: &[u8], params: Value) -> Bench {
    let mut bench = Bench::new(StageKind::Dataset, params, &["train", "test"]);
    bench.input("archive", "", archive);
    bench
}

pub(crate) fn folder(archive: &[u8], more: Value) -> Bench {
    let mut params = json!({"format": "image_folder", "train": {"archive": {"path": "images.tar"}}});
    for (name, value) in more.as_object().unwrap() {
        params[name] = value.clone();
    }
    let mut bench = Bench::new(StageKind::Dataset, params, &["train", "test"]);
    bench.input("train.archive", "", archive);
    bench
}

/// One of the archives that ship with the pipelines.
pub(crate) fn tiny(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("pipelines/tiny").join(name)).unwrap()
}

pub(crate) fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/engine/datasets/fixtures").join(name)).unwrap()
}

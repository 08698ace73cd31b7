//! Folders of classes that are not where, or not what, they seem to be.

use atflow::folder::Folder;
use atflow::protocol::{FailureCode, Input};
use atflow::stage_kinds::StageKind;
use serde_json::{Value, json};

use super::pack::{Files, folder, jpeg, tar, zip};
use crate::support::Bench;

fn image(n: u8) -> Vec<u8> {
    jpeg(8, 8, [n.wrapping_mul(40), 90, 200 - n])
}

/// An archive of these images, each another one.
fn archive(names: &[&str]) -> Vec<u8> {
    let files = names.iter().enumerate().map(|(n, name)| ((*name).to_owned(), image(n as u8)));
    zip(&files.collect::<Files>())
}

fn failure(archive: &[u8], more: Value) -> String {
    let failure = folder(archive, more).failure();
    [vec![failure.message], failure.causes].concat().join("\n  ")
}

/// What one archive becomes, or why not.
fn whole(names: &[&str]) -> Result<(String, Vec<String>), String> {
    let bench = folder(&archive(names), json!({"test_share": 0}));
    match bench.run() {
        Ok(summary) => Ok((summary, atflow::formats::ImageSet::from_bytes(&bench.output("train")).unwrap().classes)),
        Err(failure) => Err(failure.message),
    }
}

#[test]
fn folders_that_wrap_the_classes_are_unwrapped() {
    let plain = whole(&["cat/1.jpg", "dog/2.jpg"]).unwrap();
    assert_eq!(plain, ("2 train + 0 test images, 2 classes".into(), vec!["cat".into(), "dog".into()]));
    for names in [&["data/cat/1.jpg", "data/dog/2.jpg"][..], &["a/b/train/cat/1.jpg", "a/b/train/dog/2.jpg"]] {
        assert_eq!(whole(names).unwrap(), plain);
    }
    let messy = [
        "data/cat/1.jpg",
        "data/dog/2.jpg",
        "__MACOSX/data/cat/._1.jpg",
        "data/.DS_Store",
        "data/dog/Thumbs.db",
        "README",
    ];
    assert_eq!(
        whole(&messy).unwrap(),
        ("2 train + 0 test images, 2 classes, 2 other files passed over".into(), plain.1)
    );
    // A class with folders of its own beside others is one class.
    assert_eq!(whole(&["cat/x/1.jpg", "cat/y/2.jpg", "dog/3.jpg"]).unwrap().1, ["cat", "dog"]);
}

#[test]
fn a_root_is_found_within_wrapping_folders_too() {
    let bytes = archive(&["w/train/cat/1.jpg", "w/train/dog/2.jpg", "w/val/cat/3.jpg", "w/val/dog/4.jpg"]);
    let root = |root: &str| json!({"archive": {"path": "x"}, "root": root});
    let mut bench = folder(&bytes, json!({"train": root("train"), "test": root("val")}));
    bench.input("test.archive", "", &bytes);
    assert_eq!(bench.run().unwrap(), "2 train + 2 test images, 2 classes");
    let told = failure(&bytes, json!({"train": root("training")}));
    assert!(told.contains("has no images under `training/`; it has `w/train`, `w/val`"), "{told}");
}

#[test]
fn what_is_no_set_of_classes_is_told_at_once() {
    for (names, message) in [
        (&["cat/1.jpg", "cat/2.jpg"][..], "has one class, `cat`, and a network has nothing to tell apart"),
        (&["data/cat/1.jpg"], "has one class, `cat`"),
        (
            &["d/train/a/1.jpg", "d/train/b/2.jpg", "d/val/a/3.jpg"],
            "not classes: `d/train` and `d/val`; set `train.root`",
        ),
        (&["a/1.jpg", "b/2.tiff", "c/3.jpg"], "has the folder `b` without an image that is read (its files: 1 .tiff)"),
        (&["a/1.jpg", "b/Thumbs.db", "c/3.jpg"], "has the folder `b` without an image that is read (its files: none)"),
        (&["a/1.jpg", "b/2", "c/3.jpg"], "(its files: 1 without an ending)"),
        (&["cafe\u{301}/1.jpg", "caf\u{e9}/2.jpg"], "they differ in U+0065 U+0301 and U+00E9"),
        (&["cat/1.jpg", "cat /2.jpg"], "two classes that look alike"),
    ] {
        let told = whole(names).unwrap_err();
        assert!(told.contains(message), "{names:?}: {told}");
    }
    // Notes beside the classes are no class, and no class of letters is refused.
    assert!(whole(&["a/1.jpg", "b/2.jpg", "notes/x.txt"]).unwrap().0.ends_with("2 classes, 1 other files passed over"));
    assert!(whole(&["a/1.jpg", "A/2.jpg"]).unwrap().0.ends_with("2 classes, 1 warnings in the log"));

    // An empty folder, which a tar archive has as an entry of its own.
    let mut builder =
        tar::Builder::new(tar(&vec![("a/1.jpg".into(), image(1)), ("c/2.jpg".into(), image(2))])[..3072].to_vec());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    builder.append_data(&mut header, "b/", &[][..]).unwrap();
    let bytes = builder.into_inner().unwrap();
    assert!(failure(&bytes, json!({"test_share": 0})).contains("has the folder `b`"), "{}", bytes.len());
}

#[test]
fn pictures_of_other_formats_count_for_their_class() {
    let bmp = {
        let mut out = std::io::Cursor::new(Vec::new());
        image::RgbImage::from_pixel(8, 8, image::Rgb([9, 8, 7])).write_to(&mut out, image::ImageFormat::Bmp).unwrap();
        out.into_inner()
    };
    let files: Files = vec![("a/1.jpg".into(), image(1)), ("b/2.bmp".into(), bmp), ("c/3.jpg".into(), image(3))];
    let bench = folder(&tar(&files), json!({"test_share": 0}));
    assert_eq!(bench.run().unwrap(), "3 train + 0 test images, 3 classes");
}

#[test]
fn test_images_and_their_classes_are_held_against_the_training_set() {
    let root = json!({"archive": {"path": "x"}});
    let run = |train: &[(&str, u8)], test: &[(&str, u8)]| {
        let pack = |files: &[(&str, u8)]| {
            zip(&files.iter().map(|(name, n)| ((*name).to_owned(), image(*n))).collect::<Files>())
        };
        let mut bench = folder(&pack(train), json!({"test": root}));
        bench.input("test.archive", "", &pack(test));
        let ended = bench.run().map_err(|failure| failure.message);
        (ended, bench.recorder.log())
    };
    let train = [("cafe\u{301}/1.jpg", 1), ("dog/2.jpg", 2)];
    let (ended, _) = run(&train, &[("caf\u{e9}/3.jpg", 3), ("dog/4.jpg", 4)]);
    assert!(ended.as_ref().unwrap_err().contains("the names differ in U+0065 U+0301 and U+00E9"), "{ended:?}");
    let (ended, _) = run(&train, &[("Dog/3.jpg", 3)]);
    assert!(
        ended.as_ref().unwrap_err().contains("it has `dog`, and the names differ in U+0064 and U+0044"),
        "{ended:?}"
    );

    let (ended, log) = run(&train, &[("dog/3.jpg", 2), ("dog/4.jpg", 4)]);
    let expected =
        "2 train + 2 test images, 2 classes, 1 test images that are training images too, 1 warnings in the log";
    assert_eq!(ended.unwrap(), expected);
    assert!(
        log.iter().any(|line| line.starts_with("warning: 1 of 2 test images stand in the training set, too")),
        "{log:#?}"
    );
    assert!(log.iter().any(|line| line.contains("no images of the class `cafe\u{301}`")), "{log:#?}");
    let (ended, _) = run(&train, &[("dog/3.jpg", 2)]);
    assert!(ended.as_ref().unwrap_err().contains("all 1 test images are training images too"), "{ended:?}");
}

#[test]
fn a_folder_on_disk_is_read_as_its_digest_says_or_not_at_all() {
    let disk = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = disk.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    for (n, name) in ["train/cat/1.jpg", "train/dog/2.jpg", "test/cat/3.jpg", "test/dog/4.jpg"].iter().enumerate() {
        write(name, &image(n as u8));
    }
    let mut bench = Bench::new(StageKind::Dataset, json!({"format": "image_folder", "folder": ""}), &["train", "test"]);
    let digest = Folder::list(disk.path()).unwrap().read_digest().unwrap();
    let (slot, label, path) = ("folder".to_owned(), String::new(), disk.path().to_owned());
    bench.job.inputs.push(Input { slot, label, path, digest });
    assert_eq!(bench.run().unwrap(), "2 train + 2 test images, 2 classes");
    write("test/dog/4.jpg", &image(9));
    let failure = bench.failure();
    assert!(failure.message.contains("changed while it was read, so nothing was recorded"), "{}", failure.message);
    assert_eq!(failure.code, FailureCode::Broken, "another try may succeed");
}

//! What broken and hostile archives get: never a panic, never a set, always what is wrong and where.

use atflow::protocol::FailureCode;
use serde_json::{Value, json};

use super::pack::{Files, bench, fixture, folder, gzip, jpeg, tar, tiny, zip};
use crate::support::Bench;

fn message(bench: Bench) -> String {
    let failure = bench.failure();
    assert_eq!(failure.code, FailureCode::Invalid, "{failure:?}");
    [vec![failure.message], failure.causes].concat().join("\n  ")
}

fn cifar() -> Value {
    json!({"format": "cifar10", "archive": {"path": "cifar.tar.gz"}})
}

fn batches(test: Vec<u8>) -> Files {
    let record = || [vec![3], vec![7; 3072]].concat();
    let mut files: Files = (1..=5).map(|batch| (format!("b/data_batch_{batch}.bin"), record())).collect();
    files.push(("b/test_batch.bin".into(), test));
    files
}

#[test]
fn archives_that_are_none_are_told_from_damaged_and_hostile_ones() {
    let whole = tar(&batches([vec![3], vec![7; 3072]].concat()));
    let packed = gzip(&whole);
    let damaged_zip = {
        let mut bytes = zip(&vec![("a/b.jpg".into(), jpeg(8, 8, [1, 2, 3]))]);
        let middle = bytes.len() / 3;
        bytes[middle] ^= 0xff;
        bytes
    };
    let cases = [
        (
            message(bench(b"<!DOCTYPE html><p>404", cifar())),
            "it is no zip, tar or gzip archive: it begins with the bytes 3c 21 44 4f",
        ),
        (message(bench(b"", cifar())), "it is no zip, tar or gzip archive"),
        (message(bench(&packed[..packed.len() / 2], cifar())), "it is damaged or cut off: after "),
        (message(bench(&whole[..whole.len() - 2000], cifar())), "goes on behind its end"),
        (message(bench(&zip(&batches(vec![]))[..300], cifar())), "it is damaged or cut off"),
        (
            message(bench(&tar(&vec![("../../etc/passwd".into(), vec![1])]), cifar())),
            "its entry `../../etc/passwd` leads out of the archive",
        ),
        (
            message(bench(&tar(&vec![("/etc/passwd".into(), vec![1])]), cifar())),
            "its entry `/etc/passwd` leads out of the archive",
        ),
        (
            message(bench(&zip(&vec![("a/../../x".into(), vec![1])]), cifar())),
            "its entry `a/../../x` leads out of the archive",
        ),
        (message(bench(&gzip(&vec![0; 80 << 20]), cifar())), "unfold to more than 100 times as many"),
        (
            message(bench(&zip(&vec![("zeros".into(), vec![0; 80 << 20])]), cifar())),
            "unfold to more than 100 times as many",
        ),
        (message(folder(&damaged_zip, json!({"test_share": 0, "classes": "none"}))), "a/b.jpg ("),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "expected `{expected}` in: {found}");
        assert!(found.contains("archive"), "the archive is named: {found}");
    }
}

#[test]
fn what_cifar_10_lacks_is_named() {
    let record = |label: u8| [vec![label], vec![7; 3072]].concat();
    let mut four = batches(record(3));
    four.remove(2);
    let python = |name: &str, content: &[u8]| -> Files {
        let batches = (1..=5).map(|batch| (format!("p/data_batch_{batch}"), content.to_vec()));
        batches.chain([(name.to_owned(), content.to_vec())]).collect()
    };
    let hostile = b"\x80\x02cposix\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03.";
    let cases = [
        (
            batches(record(10)),
            "archive (cifar.tar.gz): `b/test_batch.bin`, image 0 has label 10, and labels are 0 to 9",
        ),
        (batches(record(9)[..3000].to_vec()), "has 3000 bytes, which are no whole records of 3073"),
        (four, "archive (cifar.tar.gz) has no `b/data_batch_3.bin`; it should be cifar-10-binary.tar.gz or"),
        (vec![("x".into(), vec![])], "archive (cifar.tar.gz) has no `data_batch_1`"),
        (
            python("p/test_batch", b"\x80\x02}q\x00."),
            "`p/data_batch_1`, is a pickle without a list of `labels` and an array `data`",
        ),
        (
            python("p/test_batch", b"\x80\x02}q"),
            "`p/data_batch_1` cannot be read: its pickle is cut or damaged at byte 4",
        ),
        (
            python("p/test_batch", hostile),
            "its pickle asks for `posix.system`, which is not in batches of CIFAR-10: it is refused, and nothing of it was run",
        ),
    ];
    for (files, expected) in cases {
        let found = message(bench(&gzip(&tar(&files)), cifar()));
        assert!(found.contains(expected), "expected `{expected}` in: {found}");
    }
}

/// The files of the archive that ships, to be changed.
fn imagenet() -> Files {
    let bytes = tiny("tiny-imagenet-200.zip");
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
    let mut files = Files::new();
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut content).unwrap();
        files.push((file.name().unwrap().into_owned(), content));
    }
    files
}

#[test]
fn what_tiny_imagenet_lacks_is_named() {
    let files = imagenet();
    let at = |name: &str| files.iter().position(|(file, _)| file.ends_with(name)).unwrap();
    let without = |name: &str| {
        let mut files = files.clone();
        files.remove(at(name));
        files
    };
    let with = |name: &str, content: &[u8]| {
        let mut files = files.clone();
        files[at(name)].1 = content.to_vec();
        files
    };
    let cases = [
        (without("wnids.txt"), "has no `wnids.txt`; it should be tiny-imagenet-200.zip"),
        (with("val_annotations.txt", b"val_0.JPEG\tn00000001\t0\n"), "line 1: `n00000001` is not in wnids.txt"),
        (with("val_annotations.txt", b"val_0.JPEG\n"), "line 1: expected an image and its class"),
        (
            with("val_annotations.txt", b"val_77.JPEG\tn02124075\n"),
            "line 1: there is no image `tiny-imagenet-200/val/images/val_77.JPEG`",
        ),
        (
            with("wnids.txt", b"n02124075\nn99999999\n"),
            "has no images under `tiny-imagenet-200/train/n99999999/images`",
        ),
    ];
    let params = json!({"format": "tiny_imagenet", "archive": {"path": "tiny.zip"}});
    for (files, expected) in cases {
        let found = message(bench(&zip(&files), params.clone()));
        assert!(found.contains(expected), "expected `{expected}` in: {found}");
    }
    let found = message(bench(&zip(&without("val/images/val_0.JPEG")), params));
    assert!(found.contains("there is no image"), "{found}");
}

#[test]
fn broken_images_end_the_stage_by_name_or_are_left_out_by_name() {
    let good = jpeg(40, 30, [80, 90, 100]);
    let files: Files = vec![
        ("cat/1.jpg".into(), good.clone()),
        ("cat/2.jpg".into(), good[..good.len() / 2].to_vec()),
        ("cat/3.png".into(), b"\x89PNG\r\n\x1a\nnot much more".to_vec()),
        ("cat/4.jpg".into(), b"<html>".to_vec()),
        ("dog/5.jpg".into(), fixture("cmyk.jpg")),
        ("dog/6.jpg".into(), fixture("grey.jpg")),
    ];
    let params = json!({"test_share": 0, "resize": 24, "center_crop": 24});
    let found = message(folder(&tar(&files), params.clone()));
    assert!(
        found.starts_with("3 images of train.archive (images.tar) cannot be decoded: cat/2.jpg (it is cut off"),
        "{found}"
    );
    assert!(
        found.contains("cat/3.png (") && found.contains("cat/4.jpg (it is neither a JPEG nor a PNG, BMP or WebP file)"),
        "{found}"
    );

    let mut skipping = params;
    skipping["broken"] = "skip".into();
    let bench = folder(&tar(&files), skipping);
    assert_eq!(bench.run().unwrap(), "3 train + 0 test images, 2 classes, 3 broken ones left out");
    let set = atflow::formats::ImageSet::from_bytes(&bench.output("train")).unwrap();
    assert_eq!((set.labels, set.shape), (vec![0, 1, 1], [3, 3, 24, 24]));
    assert!(bench.recorder.log().iter().any(|line| line.starts_with("cat/2.jpg is broken: it is cut off")));
}

#[test]
fn images_that_do_not_fit_together_say_what_to_do() {
    let files: Files = vec![("a/1.jpg".into(), jpeg(40, 30, [9; 3])), ("b/2.jpg".into(), jpeg(30, 40, [9; 3]))];
    let found = message(folder(&tar(&files), json!({"test_share": 0})));
    assert!(found.contains("b/2.jpg has 40 × 30 pixels, images before it have 30 × 40: add `center_crop`"), "{found}");
    let found = message(folder(&tar(&files), json!({"test_share": 0, "center_crop": 35})));
    assert!(found.contains("it has 30 × 40 pixels, too few to cut out 35 × 35"), "{found}");
    let found = message(folder(&tar(&vec![("readme".into(), vec![])]), json!({"test_share": 0})));
    assert!(found.contains("has no images in folders of classes"), "{found}");
    let found = message(bench(&tar(&files), json!({"format": "caltech256", "archive": {"path": "x"}})));
    assert!(found.contains("has no `256_ObjectCategories/`"), "{found}");
}

#[test]
fn a_stage_that_is_given_up_ends_as_such() {
    let bench = bench(&tiny("256_ObjectCategories.tar"), json!({"format": "caltech256", "archive": {"path": "x"}}));
    bench.recorder.cancel.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(bench.failure().code, FailureCode::Cancelled);
}

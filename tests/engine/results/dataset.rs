//! Data sets decoded from IDX files, good and broken.

use atflow::formats::ImageSet;
use atflow::protocol::FailureCode;
use atflow::stage_kinds::StageKind;
use serde_json::json;

use crate::support::Bench;

fn images(count: u32, pixels: &[u8]) -> Vec<u8> {
    let shape = [count, 2, 2].into_iter().flat_map(u32::to_be_bytes);
    [0, 0, 8, 3].into_iter().chain(shape).chain(pixels.iter().copied()).collect()
}

fn labels(labels: &[u8]) -> Vec<u8> {
    let count = (labels.len() as u32).to_be_bytes();
    [0, 0, 8, 1].into_iter().chain(count).chain(labels.iter().copied()).collect()
}

fn bench(train_images: &[u8], train_labels: &[u8]) -> Bench {
    let source = |file: &str| json!({"url": format!("https://example.org/{file}")});
    let files =
        |set: &str| json!({"images": source(&format!("{set}-images")), "labels": source(&format!("{set}-labels"))});
    let params = json!({"format": "idx", "train": files("train"), "test": files("test"), "classes": ["shirt", "boot"]});
    let mut bench = Bench::new(StageKind::Dataset, params, &["train", "test"]);
    bench.input("test.labels", "", &labels(&[1]));
    bench.input("test.images", "", &images(1, &[9; 4]));
    bench.input("train.images", "", train_images);
    bench.input("train.labels", "", train_labels);
    bench
}

#[test]
fn files_become_image_sets() {
    let bench = bench(&images(2, &[0, 1, 2, 3, 4, 5, 6, 255]), &labels(&[1, 0]));
    assert_eq!(bench.run().unwrap(), "2 train + 1 test images, 2 classes");
    let classes = vec!["shirt".to_owned(), "boot".to_owned()];
    let train = ImageSet {
        pixels: vec![0, 1, 2, 3, 4, 5, 6, 255],
        shape: [2, 1, 2, 2],
        labels: vec![1, 0],
        texture: None,
        classes: classes.clone(),
    };
    assert_eq!(ImageSet::from_bytes(&bench.output("train")).unwrap(), train);
    let test = ImageSet { pixels: vec![9; 4], shape: [1, 1, 2, 2], labels: vec![1], texture: None, classes };
    assert_eq!(ImageSet::from_bytes(&bench.output("test")).unwrap(), test);
}

#[test]
fn broken_files_are_named_with_what_was_found_and_expected() {
    let cases = [
        bench(&images(2, &[0; 7]), &labels(&[1, 0])),
        bench(&images(2, &[0; 8]), &labels(&[1, 0, 1])),
        bench(&images(2, &[0; 8]), &labels(&[1, 2])),
        bench(&labels(&[1, 0]), &labels(&[1, 0])),
        bench(&images(2, &[0; 8]), b"Not found"),
    ];
    let messages = cases.map(|bench| {
        let failure = bench.failure();
        assert_eq!(failure.code, FailureCode::Invalid);
        [vec![failure.message], failure.causes].concat().join("\n  ")
    });
    insta::assert_snapshot!(messages.join("\n"), @r#"
    train.images (https://example.org/train-images): it is truncated: its header declares 8 bytes of elements, 7 are there
    train.labels (https://example.org/train-labels) has 3 labels, train.images (https://example.org/train-images) has 2 images
    train.labels (https://example.org/train-labels): image 1 has label 2, but the pipeline names 2 classes, 0 to 1
    train.images (https://example.org/train-images): it has 1 dimensions (as labels have), expected 3 (as images have)
    train.labels (https://example.org/train-labels): not an IDX file: it begins with the bytes 4e 6f 74 20, expected 00 00 08 01
    "#);
}

#[test]
fn an_input_with_other_bytes_than_its_digest_is_corrupt_and_one_that_is_not_there_is_missing() {
    let mut corrupt = bench(&images(2, &[0; 8]), &labels(&[1, 0]));
    let broken = corrupt.job.inputs[2].clone();
    std::fs::write(&broken.path, images(2, &[1; 8])).unwrap();
    assert_eq!(corrupt.failure().code, FailureCode::CorruptInput { digest: broken.digest });
    corrupt.job.inputs.retain(|input| input.slot != "train.labels");
    assert_eq!(corrupt.failure().message, "the stage was given no input train.labels");
}

#[test]
fn parameters_that_do_not_fit_are_named_by_their_place() {
    let mut bench = bench(&images(2, &[0; 8]), &labels(&[1, 0]));
    bench.job.params["train"]["images"]["url"] = json!(5);
    let failure = bench.failure();
    assert_eq!(failure.code, FailureCode::Invalid);
    assert!(failure.message.contains("parameters of this dataset stage"), "{}", failure.message);
}

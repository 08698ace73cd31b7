//! Arrays of NumPy and Parquet files of the Hugging Face hub, written by the libraries of others (`make_hub.py`).

use atflow::formats::ImageSet;
use atflow::protocol::FailureCode;
use atflow::stage_kinds::StageKind;
use serde_json::{Value, json};
use sha2::Digest;

use super::pack::{Files, fixture, zip};
use crate::support::Bench;

fn hub(name: &str) -> Vec<u8> {
    fixture(&format!("hub/{name}"))
}

fn bench(params: Value, inputs: &[(&str, &[u8])]) -> Bench {
    let mut bench = Bench::new(StageKind::Dataset, params, &["train", "test"]);
    for (slot, bytes) in inputs {
        bench.input(slot, "", bytes);
    }
    bench
}

fn npz(bytes: &[u8], more: Value) -> Bench {
    let mut params = json!({"format": "npz", "archive": {}});
    for (name, value) in more.as_object().unwrap() {
        params[name] = value.clone();
    }
    bench(params, &[("archive", bytes)])
}

/// A set, and the sum of its pixels in the form of `digests.json`.
fn set(bench: &Bench, output: &str) -> (ImageSet, String) {
    let set = ImageSet::from_bytes(&bench.output(output)).unwrap();
    let sum = sha2::Sha256::digest(&set.pixels).iter().map(|byte| format!("{byte:02x}")).collect();
    (set, sum)
}

fn expected(name: &str) -> Value {
    let digests: Value = serde_json::from_slice(&hub("digests.json")).unwrap();
    digests[name].clone()
}

#[test]
fn arrays_are_read_as_numpy_wrote_them() {
    let medmnist = npz(&hub("medmnist.npz"), json!({"classes": ["a", "b", "c"]}));
    assert_eq!(medmnist.run().unwrap(), "6 train + 3 test images, 3 classes");
    let ((train, sum), (test, test_sum)) = (set(&medmnist, "train"), set(&medmnist, "test"));
    assert_eq!((train.shape, &train.labels[..]), ([6, 3, 8, 9], &[0, 1, 2, 2, 1, 0][..]));
    assert_eq!((test.labels, train.classes), (vec![2, 0, 1], vec!["a".into(), "b".into(), "c".into()]));
    assert_eq!(json!([sum, test_sum]), json!([expected("medmnist")[0], expected("medmnist")[1]]));

    let val = json!({"test": {"images": "val_images", "labels": "val_labels"}, "limit_per_class": 1});
    let val = npz(&hub("medmnist.npz"), val);
    assert_eq!(val.run().unwrap(), "3 train + 1 test images, 3 classes");
    assert!(val.recorder.log().contains(&"warning: the test set has no images of the class `0`".to_owned()));

    // Doubles and singles from 0 to 1, one channel, other names.
    let keras = npz(&hub("keras.npz"), json!({}));
    assert_eq!(keras.run().unwrap(), "4 train + 2 test images, 2 classes");
    let ((train, sum), (_, test_sum)) = (set(&keras, "train"), set(&keras, "test"));
    assert_eq!((train.shape, train.classes), ([4, 1, 8, 9], vec!["0".to_owned(), "1".to_owned()]));
    assert_eq!(json!([sum, test_sum]), expected("keras"));
}

#[test]
fn arrays_in_files_of_their_own_are_read_too() {
    let (images, labels) = (hub("images.npy"), hub("labels.npy"));
    let files = json!({"images": {}, "labels": {}});
    let npy = |images: &[u8], labels: &[u8]| {
        let params = json!({"format": "npy", "train": files, "test": files});
        let inputs =
            [("train.images", images), ("train.labels", labels), ("test.images", images), ("test.labels", labels)];
        bench(params, &inputs)
    };
    let good = npy(&images, &labels);
    let told = "4 train + 4 test images, 2 classes, 4 test images that are training images too";
    assert_eq!(good.run().unwrap(), told);
    assert_eq!(json!(set(&good, "train").1), expected("keras")[0]);
    let message = |images: &[u8], labels: &[u8]| npy(images, labels).failure().message;
    assert!(message(&hub("fortran.npy"), &labels).contains("numpy.ascontiguousarray"));
    assert!(message(&images[..images.len() - 1], &labels).contains("train.images: it is cut off"));
    assert!(message(&labels, &labels).contains("has the shape [4]; images have N × height × width"));
    assert!(message(&images, &images).contains("labels have N or N × 1"));
}

#[test]
fn arrays_that_are_no_data_set_say_why() {
    let whole = hub("medmnist.npz");
    let failed = |bytes: &[u8], more: Value| npz(bytes, more).failure();
    let objects = failed(&hub("objects.npz"), json!({}));
    assert!(objects.message.contains("`x_train`: it is an array of Python objects, which are pickles"), "{objects:?}");
    assert_eq!(objects.code, FailureCode::Invalid);
    for (bytes, more, words) in [
        (&whole[..], json!({"classes": ["a", "b"]}), "image 2 has label 2, and classes are 0 to 1"),
        (&whole, json!({"train": {"images": "x", "labels": "y"}}), "does not have the arrays x, y; it has test_images"),
        (&whole[..whole.len() / 2], json!({}), "it is no file of `numpy.savez`, is damaged or cut off"),
        (b"notes", json!({}), "it is no file of `numpy.savez`"),
    ] {
        let message = failed(bytes, more).message;
        assert!(message.contains(words), "{words}: {message}");
    }
    // More labels than images.
    let files: Files = vec![
        ("x_train.npy".into(), hub("images.npy")),
        ("y_train.npy".into(), hub("labels.npy")),
        ("x_test.npy".into(), hub("images.npy")),
        ("y_test.npy".into(), {
            let mut labels = hub("labels.npy");
            let at = labels.windows(4).position(|text| text == b"(4,)").unwrap();
            labels[at + 1] = b'2';
            labels
        }),
    ];
    let message = failed(&zip(&files), json!({})).message;
    assert!(message.contains("`y_test` has 2 labels") && message.contains("`x_test` has 4 images"), "{message}");
}

fn parquet(params: Value, train: &[&str], test: &[&str]) -> Bench {
    let shards = |count: usize| vec![json!({}); count];
    let mut all = json!({"format": "parquet", "train": shards(train.len()), "test": shards(test.len())});
    for (name, value) in params.as_object().unwrap() {
        all[name] = value.clone();
    }
    let mut bench = Bench::new(StageKind::Dataset, all, &["train", "test"]);
    for (part, names) in [("train", train), ("test", test)] {
        for (at, name) in names.iter().enumerate() {
            bench.input(&format!("{part}.{at}"), "", &hub(name));
        }
    }
    bench
}

#[test]
fn parquet_files_of_the_hub_are_read_in_their_shards() {
    let bench = parquet(json!({}), &["train-0.parquet", "train-1.parquet"], &["test.parquet"]);
    assert_eq!(bench.run().unwrap(), "6 train + 2 test images, 2 classes");
    let ((train, sum), (test, test_sum)) = (set(&bench, "train"), set(&bench, "test"));
    assert_eq!((train.labels, train.classes), (vec![0, 1, 1, 0, 1, 0], vec!["cat".to_owned(), "dog".to_owned()]));
    assert_eq!((json!([sum, test_sum]), test.labels), (expected("hub"), vec![0, 1]));
    assert_eq!(bench.left(), ["test", "train"], "the copies are gone");

    // Other names, no metadata, another compression; images that stand in both parts.
    let plain = parquet(json!({"label": "fine"}), &["plain.parquet"], &["plain.parquet"]);
    assert!(plain.failure().message.contains("all 4 test images are training images too"));
    let plain = parquet(
        json!({"label": "fine", "image": "img", "classes": ["x", "y", "z"], "limit_per_class": 1, "resize": 4, "center_crop": 4}),
        &["plain.parquet"],
        &["plain.parquet"],
    );
    assert!(plain.failure().message.contains("all 3 test images"), "one of each class");
}

#[test]
fn parquet_files_that_are_no_data_set_say_why() {
    for (params, train, words) in [
        (json!({}), "plain.parquet", "it has no column `label`, but `img`, `fine`: name one as `label`"),
        (
            json!({"label": "fine", "image": "picture"}),
            "plain.parquet",
            "does not have `picture` as a column of encoded",
        ),
        (json!({"label": "fine"}), "gzip.parquet", "it is compressed by gzip, which is not read"),
        (json!({}), "paths.parquet", "row 0 has no image in its file: `bytes` is empty"),
        (json!({"classes": ["cat"]}), "train-0.parquet", "`train.0 row 1`, has label 1, and classes are 0 to 0"),
        (json!({}), "keras.npz", "it is no Parquet file"),
        // Found by fuzzing: the length of a column is below zero, on which the library panics.
        (json!({}), "misplaced.parquet", "a column stands outside of the file"),
    ] {
        let failure = parquet(params.clone(), &[train], &["test.parquet"]).failure();
        assert!(failure.message.contains(words), "{params} {train}: {failure:?}");
    }
    let mut cut = parquet(json!({}), &[], &["test.parquet"]);
    cut.job.params["train"] = json!([{}]);
    let whole = hub("train-0.parquet");
    cut.input("train.0", "", &[&whole[..200], &whole[300..]].concat());
    assert_eq!(cut.failure().code, FailureCode::Invalid);
}

//! What good archives become.

use std::io::Read;

use atflow::formats::{ImageHead, ImageReader, ImageSet, Sizes, View};
use atflow::resample::{Filter, Interleaved};
use serde_json::json;

use super::pack::{Files, bench, fixture, folder, gzip, jpeg, tar, tiny, zip};
use crate::support::Bench;

fn set(bench: &Bench, output: &str) -> ImageSet {
    ImageSet::from_bytes(&bench.output(output)).unwrap()
}

fn parts(bench: &Bench, output: &str) -> (ImageHead, Vec<u8>) {
    let bytes = bench.output(output);
    let mut reader = ImageReader::new(&bytes[..], bytes.len() as u64).unwrap();
    let mut pixels = Vec::new();
    reader.read_to_end(&mut pixels).unwrap();
    (reader.head, pixels)
}

fn cifar(limit: Option<u32>) -> serde_json::Value {
    let mut params = json!({"format": "cifar10", "archive": {"path": "cifar.tar.gz"}});
    if let Some(limit) = limit {
        params["limit_per_class"] = limit.into();
    }
    params
}

#[test]
fn cifar_10_comes_out_of_both_of_its_archives() {
    let binary = bench(&tiny("cifar-10-binary.tar.gz"), cifar(None));
    assert_eq!(binary.run().unwrap(), "200 train + 40 test images, 10 classes");
    let train = set(&binary, "train");
    assert_eq!((train.shape, &*train.classes[0], &*train.classes[9]), ([200, 3, 32, 32], "airplane", "truck"));
    assert_eq!(
        (0..10).map(|class| train.labels.iter().filter(|&&label| label == class).count()).collect::<Vec<_>>(),
        [20; 10]
    );
    // Class 0 is a red disc: red is the strongest colour in the middle of each.
    let red = train.labels.iter().zip(train.pixels.chunks(3072)).filter(|(label, _)| **label == 0);
    assert!(red.clone().all(|(_, image)| image[16 * 32 + 16] > image[1024 + 16 * 32 + 16]), "{}", red.count());
    let few = bench(&tiny("cifar-10-binary.tar.gz"), cifar(Some(2)));
    assert_eq!(few.run().unwrap(), "20 train + 20 test images, 10 classes");

    // Four records a batch; batch b (0 to 5) has the labels b, b + 3, … and images of one grey level, 10 b + index.
    let python = bench(&fixture("cifar-10-python.tar.gz"), cifar(None));
    assert_eq!(python.run().unwrap(), "20 train + 4 test images, 10 classes");
    let (train, test) = (set(&python, "train"), set(&python, "test"));
    assert_eq!(train.labels[..6], [0, 3, 6, 9, 1, 4]);
    assert_eq!(test.labels, [5, 8, 1, 4]);
    assert!(
        train.pixels.chunks(3072).enumerate().all(|(index, image)| image == [(index / 4 * 10 + index % 4) as u8; 3072])
    );
}

#[test]
fn tiny_imagenet_is_stored_small_and_seen_large() {
    let params = json!({"format": "tiny_imagenet", "archive": {"path": "tiny.zip"}});
    let plain = bench(&tiny("tiny-imagenet-200.zip"), params.clone());
    assert_eq!(plain.run().unwrap(), "40 train + 10 test images, 5 classes");
    let (train, test) = (set(&plain, "train"), set(&plain, "test"));
    assert_eq!((train.shape, test.shape), ([40, 3, 64, 64], [10, 3, 64, 64]));
    // By WordNet number, not in the order of wnids.txt.
    assert_eq!(train.classes, ["goldfish", "Egyptian cat", "go-kart", "reel", "lemon"]);
    assert_eq!(train.labels, (0..5).flat_map(|label| [label; 8]).collect::<Vec<_>>());
    assert_eq!(test.labels, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
    // The last cat is grey: three equal colours.
    let cat = &train.pixels[15 * 3 * 4096..][..3 * 4096];
    assert_eq!(cat[..4096], cat[4096..8192]);

    let mut large = params;
    large["resize"] = 224.into();
    large["limit_per_class"] = 3.into();
    let large = bench(&tiny("tiny-imagenet-200.zip"), large);
    assert_eq!(large.run().unwrap(), "15 train + 10 test images, 5 classes");
    let (head, pixels) = parts(&large, "train");
    assert_eq!((head.seen(), head.size(0), head.view), ([224, 224], [64, 64], Some(View::Resize([224, 224]))));
    assert_eq!(pixels[..3 * 3 * 4096], train.pixels[..3 * 3 * 4096]);
}

#[test]
fn caltech_256_is_divided_by_seed_and_keeps_training_images_whole() {
    let params = |seed: u64| json!({"format": "caltech256", "archive": {"path": "c.tar"}, "seed": seed, "resize": 64, "center_crop": 56});
    let run = |seed| {
        let bench = bench(&tiny("256_ObjectCategories.tar"), params(seed));
        assert_eq!(bench.run().unwrap(), "40 train + 10 test images, 5 classes, 1 other files passed over");
        bench
    };
    let first = run(0);
    let log = first.recorder.log();
    assert!(log.iter().any(|line| line.contains("198.spider/RENAME2")), "{log:?}");
    let (head, pixels) = parts(&first, "train");
    assert_eq!(head.classes, ["ak47", "dog", "leopards-101", "spider", "clutter"]);
    assert_eq!(head.labels, (0..5).flat_map(|label| [label; 8]).collect::<Vec<_>>());
    let Sizes::Each(sizes) = &head.sizes else { panic!("one size") };
    assert!(sizes.iter().all(|size| size.iter().min() == Some(&64)), "{sizes:?}");
    assert!(sizes.iter().any(|size| size[0] > 64) && sizes.iter().any(|size| size[1] > 64), "upright and lying");
    assert_eq!((head.seen(), pixels.len()), ([56, 56], head.stored_bytes()));
    let test = set(&first, "test");
    assert_eq!((test.shape, &test.labels), ([10, 3, 56, 56], &vec![0, 0, 1, 1, 2, 2, 3, 3, 4, 4]));

    assert_eq!(run(0).output("train"), first.output("train"));
    let other = run(1);
    assert_ne!(set(&other, "test").pixels, test.pixels);
}

#[test]
fn paintings_have_no_classes_and_those_that_are_too_small_stay_out() {
    let params = json!({
        "train": {"archive": {"path": "paintings.zip"}, "root": "train"}, "classes": "none",
        "min_side": 72, "square": true, "resize": 48, "filter": "lanczos", "center_crop": 48
    });
    let all = folder(&tiny("paintings.zip"), params.clone());
    assert_eq!(all.run().unwrap(), "12 train + 0 test images, 1 classes");
    let train = set(&all, "train");
    assert_eq!((train.shape, &*train.classes), ([12, 3, 48, 48], &["image".to_owned()][..]));
    assert_eq!(set(&all, "test").shape, [0, 3, 48, 48]);

    let mut some = params;
    some["pick"] = 5.into();
    let picked = folder(&tiny("paintings.zip"), some.clone());
    assert_eq!(picked.run().unwrap(), "5 train + 0 test images, 1 classes");
    let size = 3 * 48 * 48;
    let places: Vec<usize> = set(&picked, "train")
        .pixels
        .chunks(size)
        .map(|image| train.pixels.chunks(size).position(|other| other == image).expect("one of all"))
        .collect();
    assert!(places.is_sorted() && places.len() == 5, "{places:?}");
    some["seed"] = 1.into();
    let others = folder(&tiny("paintings.zip"), some);
    others.run().unwrap();
    assert_ne!(set(&others, "train"), set(&picked, "train"));
}

#[test]
fn folders_of_classes_come_from_any_archive_in_alphabetical_order() {
    let image = |colour: [u8; 3]| jpeg(20, 16, colour);
    let files: Files = vec![
        ("./data/train/dog/2.jpg".into(), image([10, 10, 150])),
        ("./data/train/cat/b.JPG".into(), image([150, 10, 10])),
        ("./data/train/dog/1.jpeg".into(), image([10, 150, 10])),
        ("./data/train/cat/.DS_Store".into(), b"x".to_vec()),
        ("./data/train/readme.txt".into(), b"x".to_vec()),
        ("./data/val/dog/9.jpg".into(), image([90, 90, 90])),
    ];
    let roots = |archive: &str| json!({"archive": {"path": archive}, "root": "data/train/"});
    let bytes = [tar(&files), gzip(&tar(&files)), zip(&files)].map(|archive| {
        let test = json!({"archive": {"path": "x"}, "root": "data/val"});
        let mut bench = folder(&archive, json!({"train": roots("x"), "test": test}));
        bench.input("test.archive", "", &archive);
        assert_eq!(
            bench.run().unwrap(),
            "3 train + 1 test images, 2 classes, 2 other files passed over, 1 warnings in the log"
        );
        assert_eq!(
            (set(&bench, "train").classes, set(&bench, "train").labels),
            (vec!["cat".into(), "dog".into()], vec![0, 1, 1])
        );
        assert_eq!(set(&bench, "test").labels, [1]);
        // Nothing that an archive named was written, and the unfolded one is gone.
        assert_eq!(bench.left(), ["test", "train"]);
        bench.output("train")
    });
    assert!(bytes[0] == bytes[1] && bytes[1] == bytes[2]);
    let train = ImageSet::from_bytes(&bytes[0]).unwrap();
    let corner = |image: usize| [0, 1, 2].map(|plane| train.pixels[(image * 3 + plane) * 16 * 20 + 320 - 1]);
    assert!(corner(0)[0] > 120 && corner(1)[1] > 120 && corner(2)[2] > 120, "{:?}", [0, 1, 2].map(corner));
}

/// The images that make_fixtures.py had Pillow resize: [height, width, channels, new height, new width, filter,
/// sha256].
#[test]
fn images_are_resized_as_pillow_does_it_to_the_bit() {
    use sha2::Digest;
    fn resized<const C: usize>(from: [usize; 2], to: [usize; 2], filter: Filter) -> String {
        let colour = |x: usize, y: usize, c: usize| {
            (x * 7 + y * 13 + c * 50 + (x * y) % 31 * 5 + (x / 9 + y / 7) % 2 * 90) as u8
        };
        let [height, width] = from;
        let places = (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..C).map(move |c| (x, y, c))));
        let pixels = places.map(|(x, y, c)| (colour as fn(usize, usize, usize) -> u8)(x, y, c)).collect();
        let out = Interleaved::<C> { pixels, height, width }.resized(to, filter);
        assert_eq!([out.height, out.width], to);
        sha2::Sha256::digest(&out.pixels).iter().map(|byte| format!("{byte:02x}")).collect()
    }
    type Row = (usize, usize, usize, usize, usize, Filter, String);
    let rows: Vec<Row> = serde_json::from_slice(&fixture("resized.json")).unwrap();
    assert_eq!(rows.len(), 40);
    for (height, width, channels, to_height, to_width, filter, sha256) in rows {
        let (from, to) = ([height, width], [to_height, to_width]);
        let found = if channels == 1 { resized::<1>(from, to, filter) } else { resized::<3>(from, to, filter) };
        assert_eq!(found, sha256, "{from:?} to {to:?}, {channels} channels, {filter:?}");
    }
    // int(side * long / short) in Python.
    use atflow::resample::short_side;
    assert_eq!(
        [short_side([300, 400], 256), short_side([97, 61], 224), short_side([224, 224], 224)],
        [[256, 341], [356, 224], [224, 224]]
    );
}

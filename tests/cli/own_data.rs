//! Images of a person's own: folders on disk as data sets, through the program.

use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use crate::support::Space;

/// A PNG file with stripes, `n` of its own.
pub(crate) fn picture(n: usize) -> Vec<u8> {
    let image = image::RgbImage::from_fn(40, 36, |x, y| {
        let stripe = if (x as usize / (2 + n % 5) + y as usize * (n % 2)).is_multiple_of(2) { 200 } else { 40 };
        image::Rgb([stripe, (n * 37 % 256) as u8, (y * 7) as u8])
    });
    let mut out = Cursor::new(Vec::new());
    image.write_to(&mut out, image::ImageFormat::Png).unwrap();
    out.into_inner()
}

/// Puts images of two classes into a folder, numbered on from `first`.
pub(crate) fn photographs(space: &Space, folder: &str, first: usize, each: usize) {
    for (at, class) in ["cat", "dog"].into_iter().enumerate() {
        for n in 0..each {
            space.write(&format!("{folder}/{class}/{n:03}.png"), picture(first + at * each + n));
        }
    }
}

const PIPELINE: &str = "
pipeline: story
params: {photos: photos}
stages:
  pets:
    kind: dataset
    with: {format: image_folder, folder: \"${photos}\", resize: 16, center_crop: 16}
";

/// A folder with a training and a test set, and a pipeline that reads it.
fn space() -> Space {
    let space = Space::new();
    photographs(&space, "photos/train", 0, 4);
    photographs(&space, "photos/val", 100, 2);
    space.write("p.yaml", PIPELINE);
    space
}

fn touch(path: &Path) {
    let now = std::time::SystemTime::now() + Duration::from_secs(5);
    std::fs::File::options().append(true).open(path).unwrap().set_modified(now).unwrap();
}

#[test]
fn a_folder_of_photographs_is_a_data_set_and_its_names_and_contents_are_its_key() {
    let space = space();
    assert_eq!(space.ran(&[]), ["pets"]);
    let shown = space.run(&["show", "pets"]);
    assert!(shown.stdout.contains("8 train + 4 test images, 2 classes"), "{}", shown.seen());
    assert_eq!(space.ran(&[]), [""; 0]);

    // Another place, another date, and what systems leave behind are no other data.
    std::fs::rename(space.path().join("photos"), space.path().join("moved")).unwrap();
    touch(&space.path().join("moved/train/cat/001.png"));
    for name in [".DS_Store", "train/Thumbs.db", "__MACOSX/train/cat/._001.png", ".git/config"] {
        space.write(&format!("moved/{name}"), "left behind");
    }
    assert_eq!(space.ran(&["--set", "photos=moved"]), [""; 0]);

    let image = |name: &str| space.path().join("moved/train/cat").join(name);
    std::fs::rename(image("001.png"), image("009.png")).unwrap();
    assert_eq!(space.ran(&["--set", "photos=moved"]), ["pets"], "another name");
    space.write("moved/train/cat/010.png", picture(77));
    assert_eq!(space.ran(&["--set", "photos=moved"]), ["pets"], "another image");
    let why = space.run(&["why", "p.yaml", "pets", "--set", "photos=photos2"]);
    assert!(why.stderr.contains("there is no folder photos2"), "{}", why.seen());
}

#[test]
fn an_unchanged_folder_is_not_read_again() {
    let space = space();
    // Only files that are older than two seconds are remembered.
    std::thread::sleep(Duration::from_millis(2200));
    assert_eq!(space.ran(&[]), ["pets"]);
    let memo = space.cached_files("stat").into_iter().find(|path| path.to_string_lossy().ends_with(".folders.json"));
    let memo = memo.expect("what was read is remembered");
    let text = std::fs::read_to_string(&memo).unwrap();
    let digest = blake3::hash(&picture(0)).to_string();
    assert!(text.contains(&digest), "{text}");
    // A memo that is wrong is believed, so nothing was read.
    std::fs::write(&memo, text.replace(&digest, &digest.chars().rev().collect::<String>())).unwrap();
    let plan = space.run(&["plan", "p.yaml"]);
    assert!(plan.stdout.contains("stale    pets  input folder changed"), "{}", plan.seen());
    std::fs::remove_file(&memo).unwrap();
    let plan = space.run(&["plan", "p.yaml"]);
    assert!(plan.stdout.contains("nothing to do"), "{}", plan.seen());
}

#[test]
fn what_a_person_should_look_at_is_told_at_once() {
    let space = space();
    space.write("photos/val/dog/again.png", picture(0));
    let elsewhere = space.write("elsewhere.png", picture(500));
    std::os::unix::fs::symlink(elsewhere, space.path().join("photos/train/cat/link.png")).unwrap();
    let ran = space.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    for words in [
        "warning: pets: photos: `train/cat/link.png` is a link that leads out of the folder, and is not followed",
        "warning: pets: 1 of 5 test images stand in the training set, too, byte by byte: the test image \
         val/dog/again.png is the training image train/cat/000.png",
    ] {
        assert!(ran.stderr.contains(words), "{words}\n{}", ran.stderr);
    }
    let log = space.run(&["log", "pets"]);
    assert!(log.stdout.contains("warning: 1 of 5 test images"), "{}", log.seen());
}

#[test]
fn folders_that_are_no_data_set_say_what_to_change() {
    for (change, words) in [
        ("folder: gone", "there is no folder gone"),
        ("folder: p.yaml", "a file is an `archive: {path: …}`"),
        ("archive: {path: photos}", "`folder: PATH`"),
        ("folder: photos, archive: {path: photos}", "has one of `folder`, `archive`, `train`, not several"),
        ("test_share: 0.2", "needs one of `folder`, `archive`, `train`"),
        ("folder: photos, test: {folder: photos/val}", "needs a `train`"),
        ("folder: photos, test_share: 0.2", "folders that divide a data set, not classes: `train` and `val`"),
        (
            "folder: photos/train",
            "has no folders `train` and `test` (or `val`), but `cat`, `dog`: add `test_share: 0.2`",
        ),
        ("folder: mixed, test_share: 0.2", "has the folder `dog` without an image that is read (its files: 1 .tiff)"),
        ("train: {folder: photos/train/cat}, test_share: 0", "has no images in folders of classes"),
    ] {
        let space = space();
        space.write("mixed/cat/1.png", picture(1));
        space.write("mixed/dog/1.tiff", "II");
        space.write("p.yaml", PIPELINE.replace("folder: \"${photos}\"", change));
        let ran = space.run(&["run", "p.yaml"]);
        assert_ne!(ran.code, Some(0), "{change}");
        // Lines are wrapped.
        let told = ran.stderr.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        assert!(told.contains(words), "{change}: {}", ran.stderr);
    }
}

#[test]
fn parts_may_be_folders_and_archives_and_a_test_set_without_labels_is_passed_over() {
    let space = space();
    space.write(
        "p.yaml",
        PIPELINE.replace("folder: \"${photos}\"", "train: {folder: photos/train}, test: {folder: photos/val}"),
    );
    assert_eq!(space.ran(&[]), ["pets"]);
    space.write("photos/test/images/1.png", picture(300));
    space.write("p.yaml", PIPELINE);
    assert_eq!(space.ran(&[]), ["pets"]);
    let log = space.run(&["log", "pets"]).stdout;
    assert!(log.contains("the test set is `val/`, and `test/` is not used"), "{log}");

    // An archive of the same, in a folder that wraps it.
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all("pets-2024", space.path().join("photos")).unwrap();
    space.write("photos.tar", builder.into_inner().unwrap());
    space.write("p.yaml", PIPELINE.replace("folder: \"${photos}\"", "archive: {path: photos.tar}"));
    assert_eq!(space.ran(&[]), ["pets"]);
    let shown = space.run(&["show", "pets"]);
    assert!(shown.stdout.contains("8 train + 4 test images, 2 classes"), "{}", shown.seen());
}

#[test]
fn a_bundle_holds_the_folder_and_a_reader_makes_the_data_set_from_it() {
    let space = space();
    space.write("photos/.DS_Store", "left behind");
    let pipeline = format!(
        "{PIPELINE}  counted:\n    kind: command\n    needs: {{of: pets.train}}\n    \
         with: {{run: \"wc -c < ${{in.of}} > ${{out.n}}\", outputs: {{n: n.txt}}}}\n"
    );
    space.write("p.yaml", pipeline);
    assert_eq!(space.ran(&[]), ["counted", "pets"]);
    let bundled = space.run(&["bundle", "p.yaml", "-o", "story.tar.zst"]);
    assert_eq!(bundled.code, Some(0), "{}", bundled.seen());
    let unpacked = space.run(&["bundle", "unpack", "story.tar.zst", "-o", "got"]);
    assert_eq!(unpacked.code, Some(0), "{}", unpacked.seen());
    assert!(space.path().join("got/pipeline/photos/val/dog/001.png").exists());
    assert!(!space.path().join("got/pipeline/photos/.DS_Store").exists());
    let about = space.read("got/ro-crate-metadata.json");
    assert!(about.contains("\"@id\": \"pipeline/photos/\""), "{about}");
    let plan = space.run(&["plan", "got/pipeline/p.yaml", "--remote", "got/published", "--cache", "empty"]);
    assert!(plan.stdout.contains("nothing to do"), "{}", plan.seen());
    let again = space.run(&["run", "got/pipeline/p.yaml", "--cache", "new"]);
    assert_eq!(again.code, Some(0), "{}", again.seen());
}

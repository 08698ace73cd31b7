//! `atflow init`: from nothing, or from a folder of photographs, to a pipeline that runs.

use crate::depth;
use crate::own_data::{photographs, picture};
use crate::support::{Ran, Space};

fn good(space: &Space, args: &[&str]) -> Ran {
    let ran = space.run(args);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    ran
}

#[test]
fn a_pipeline_to_start_from_is_written_once_and_plans() {
    let space = Space::new();
    let ran = good(&space, &["init"]);
    assert!(ran.stdout.contains("atflow run pipeline.yaml"), "{}", ran.stdout);
    insta::assert_snapshot!("init", space.read("pipeline.yaml"));
    assert_eq!(space.read(".gitignore"), "# What atflow makes, and makes again.\n/cache/\n/results/\n/export/\n");
    assert_eq!(space.read("pipeline.schema.json"), good(&space, &["schema"]).stdout);
    let plan = good(&space, &["plan", "pipeline.yaml"]);
    assert!(plan.stdout.contains("model/standard") && plan.stdout.contains("model/pgd"), "{}", plan.stdout);
    good(&space, &["plan", "pipeline.yaml", "--profile", "smoke"]);

    space.write("pipeline.yaml", "mine");
    std::fs::remove_file(space.path().join("pipeline.schema.json")).unwrap();
    let again = space.run(&["init"]);
    assert_eq!(again.code, Some(2));
    assert!(again.stderr.contains("pipeline.yaml is there already, and nothing is overwritten"), "{}", again.stderr);
    assert_eq!(space.read("pipeline.yaml"), "mine");
    assert!(!space.path().join("pipeline.schema.json").exists(), "nothing is written by halves");

    space.write("mine/.gitignore", "*.log\n");
    let ran = good(&space, &["init", "mine"]);
    assert!(ran.stdout.contains("kept mine/.gitignore: add /cache/, /results/ and /export/ to it"), "{}", ran.stdout);
    assert_eq!(space.read("mine/.gitignore"), "*.log\n");
}

#[test]
fn a_folder_of_photographs_becomes_a_pipeline_that_runs() {
    let space = depth::space();
    photographs(&space, "my photos/train", 0, 4);
    photographs(&space, "my photos/val", 100, 1);
    space.write("my photos/readme.txt", "who took them");
    let ran = good(&space, &["init", "exp", "--images", "my photos"]);
    insta::assert_snapshot!("init_images_seen", ran.stdout);
    insta::assert_snapshot!("init_images", space.read("exp/pipeline.yaml"));
    let mut command = space.command(&["run", "exp/pipeline.yaml", "robustness"]);
    let ran = Ran::of(command.env("ATFLOW_WORKER", space.path().join("worker")).output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert!(space.read("results/my-photos/robustness.csv").contains("standard"));
    assert!(ran.stderr.contains("8 train + 2 test images, 2 classes"), "{}", ran.stderr);
}

#[test]
fn a_set_whose_other_half_is_misspelt_is_told() {
    let space = Space::new();
    photographs(&space, "half/trein", 0, 4);
    photographs(&space, "half/val", 100, 1);
    let ran = good(&space, &["init", "--images", "half"]);
    assert!(ran.stdout.contains("warning: `val` is taken for a class"), "{}", ran.stdout);
    photographs(&space, "whole", 0, 4);
    let ran = good(&space, &["init", "other", "--images", "whole"]);
    assert!(!ran.stdout.contains("warning"), "{}", ran.stdout);
}

#[test]
fn an_archive_without_parts_is_divided_and_what_is_broken_is_left_out() {
    let space = Space::new();
    photographs(&space, "pets", 0, 6);
    space.write("pets/cat/cut.png", &picture(50)[..90]);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all("pets", space.path().join("pets")).unwrap();
    space.write("pets.tar", builder.into_inner().unwrap());
    let ran = good(&space, &["init", "--images", "pets.tar"]);
    assert!(ran.stdout.contains("no folders `train` and `test`: the test images are drawn"), "{}", ran.stdout);
    let text = space.read("pipeline.yaml");
    for line in ["archive: {path: pets.tar}", "test_share: 0.2", "center_crop: 32", "name: pets"] {
        assert!(text.contains(&line.replace("name", "pipeline")), "{line}: {text}");
    }
    good(&space, &["run", "pipeline.yaml", "images", "--set", "images_per_class=5"]);
}

#[test]
fn images_that_are_no_data_set_are_told_and_nothing_is_written() {
    for (images, words) in [
        ("gone", "gone"),
        ("one", "has one class, `cat`"),
        ("notes.txt", "it is no zip, tar or gzip archive"),
        ("cells.npz", "write `format: npz` yourself"),
        (".", "the pipeline would lie among the images"),
        ("other", "has no images in folders of classes"),
        ("vanished", "has the folder `dog` without an image that is read (its files: 1 .tiff)"),
    ] {
        let space = Space::new();
        space.write("one/cat/1.png", picture(1));
        space.write("two/cat/1.png", picture(1));
        space.write("other/1.png", picture(1));
        space.write("vanished/cat/1.png", picture(1));
        space.write("vanished/eel/1.png", picture(2));
        space.write("vanished/dog/1.tiff", "II");
        space.write("notes.txt", "notes that are no archive");
        let ran = space.run(&["init", "exp", "--images", images]);
        let ran = if images == "." { space.run(&["init", "--images", "."]) } else { ran };
        assert_eq!(ran.code, Some(2), "{images}: {}", ran.seen());
        let told = ran.stderr.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        assert!(told.contains(words), "{images}: {told}");
        assert!(!space.path().join("exp").exists() && !space.path().join("pipeline.yaml").exists(), "{images}");
    }
}

//! One pipeline for each mistake (`bad/*.yaml`), and one test for each: what a user sees of it, word for word. Read a
//! snapshot as the one who made the mistake: it is at the right line, and says what was expected and what to do.
//!
//! `cargo test --release --test cli bad::told::a_brace` runs those whose names begin so.

use std::path::{Path, PathBuf};

use rstest::rstest;

use crate::support::Space;

#[rstest]
fn told(#[files("tests/cli/bad/*.yaml")] file: PathBuf) {
    let corpus = file.parent().unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    let space = Space::new();
    space.write(name, std::fs::read(&file).unwrap());
    // Some of them include others, name tables of numbers, or take another for an image.
    let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
    for folder in ["", "parts"] {
        copy_files(&space, corpus, folder, &text);
    }
    let ran = space.run(&["plan", name]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stdout.is_empty(), "{}", ran.stdout);
    for folder in ["actions", "objects", "runs", "tmp"] {
        assert_eq!(space.cached_files(folder), [""; 0].map(PathBuf::from), "{folder}");
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("bad/seen");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name.trim_end_matches(".yaml"), ran.stderr));
}

/// Copies what is no wrong pipeline itself, and what the text names.
fn copy_files(space: &Space, corpus: &Path, folder: &str, text: &str) {
    for file in std::fs::read_dir(corpus.join(folder)).unwrap().map(|entry| entry.unwrap().path()) {
        let is_named = text.contains(file.file_name().unwrap().to_str().unwrap());
        let is_pipeline = folder.is_empty() && file.extension().is_some_and(|ending| ending == "yaml");
        if file.is_file() && (is_named || !is_pipeline) {
            space.write(file.strip_prefix(corpus).unwrap().to_str().unwrap(), std::fs::read(&file).unwrap());
        }
    }
}

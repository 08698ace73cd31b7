//! One pipeline for each mistake (`bad/*.yaml`): what a user sees of it, word for word. Read a snapshot as the one who made the mistake: it is at the right
//! line, and says what was expected and what to do.

use crate::support::Space;

#[test]
fn every_mistake_is_told_at_its_place_and_nothing_is_left_behind() {
    let space = Space::new();
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/bad");
    for folder in ["", "parts"] {
        for entry in std::fs::read_dir(corpus.join(folder)).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_file() {
                let name = entry.strip_prefix(&corpus).unwrap().to_str().unwrap();
                space.write(name, std::fs::read(&entry).unwrap());
            }
        }
    }
    insta::glob!("bad/*.yaml", |path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let ran = space.run(&["plan", name]);
        assert_eq!(ran.code, Some(2), "{name}: {}", ran.seen());
        assert!(ran.stdout.is_empty(), "{name}: {}", ran.stdout);
        for folder in ["actions", "objects", "runs", "tmp"] {
            assert_eq!(space.cached_files(folder), [""; 0].map(std::path::PathBuf::from), "{name}: {folder}");
        }
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("bad/seen");
        settings.set_prepend_module_to_snapshot(false);
        settings.remove_snapshot_suffix();
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name.trim_end_matches(".yaml"), ran.stderr));
    });
}

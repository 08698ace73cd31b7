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
    // Not by `insta::glob!`: while that runs, failures of snapshots in other threads' tests are lost.
    let mut wrong = Vec::new();
    let names = std::fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".yaml")).collect();
    names.sort();
    assert!(names.len() >= 60, "{}", names.len());
    for name in names {
        let ran = space.run(&["plan", &name]);
        assert_eq!(ran.code, Some(2), "{name}: {}", ran.seen());
        assert!(ran.stdout.is_empty(), "{name}: {}", ran.stdout);
        for folder in ["actions", "objects", "runs", "tmp"] {
            assert_eq!(space.cached_files(folder), [""; 0].map(std::path::PathBuf::from), "{name}: {folder}");
        }
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("bad/seen");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        let snapshot = name.trim_end_matches(".yaml");
        let compare = || settings.bind(|| insta::assert_snapshot!(snapshot, ran.stderr));
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(compare)).is_err() {
            wrong.push(name);
        }
    }
    assert_eq!(wrong, [""; 0], "these are seen otherwise than their snapshots");
}

//! Runs that have nothing to do again: they say the same from memory, and notice whatever changes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{Space, predictions};

const PIPELINE: &str = r#"
include: more.yaml
stages:
  text: {kind: file, with: {source: {path: text}}}
  copy:
    kind: command
    needs: {of: text}
    with: {run: "cp ${in.of} ${out.t}", outputs: {t: {path: t, show: copy.txt}}}
  table:
    kind: table
    needs: {results: tested}
    with: {rows: tested.n, columns: [{label: clean, where: {stage: tested}}]}
"#;

const MORE: &str = r#"
stages:
  tested:
    kind: command
    matrix: {n: [100, 150]}
    with: {run: "cp $HOME/${n}.predictions ${out.predictions}", outputs: {predictions: p}}
"#;

/// Longer than time stamps need to tell the next change.
const SETTLED: Duration = Duration::from_millis(2300);

fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space.write("more.yaml", MORE);
    space.write("text", "one\n");
    for right in [100, 150] {
        space.write(&format!("{right}.predictions"), predictions(right));
    }
    space.ran(&[]);
    space
}

fn memos(space: &Space) -> Vec<PathBuf> {
    space.cached_files("noop")
}

/// What a run says, without its seconds.
fn said(space: &Space, args: &[&str]) -> String {
    let ran = space.run(&[&["run", "p.yaml"], args].concat());
    let seconds = |line: &str| line.split(" up to date (").next().unwrap().to_owned();
    ran.seen().lines().map(seconds).collect::<Vec<_>>().join("\n")
}

fn the_only_file(folder: &Path) -> PathBuf {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.remove(0)
}

fn digest_of(space: &Space, stage: &str, output: &str) -> PathBuf {
    let shown: serde_json::Value = serde_json::from_str(&space.run(&["show", stage, "--json"]).stdout).unwrap();
    shown["outputs"][output]["path"].as_str().unwrap().into()
}

#[test]
fn a_run_with_nothing_to_do_is_remembered_and_says_the_same() {
    let space = space();
    assert!(memos(&space).is_empty(), "a run that made something is not remembered");
    std::thread::sleep(SETTLED);
    let first = said(&space, &[]);
    assert!(first.contains("nothing to do: 5 stages") && first.contains("table.{md,json,csv,tex} copy.txt"), "{first}");
    assert!(first.contains("| 100"), "the table is shown: {first}");
    let [memo] = &memos(&space)[..] else { panic!("one memo: {:?}", memos(&space)) };
    assert_eq!(said(&space, &[]), first);
    assert_eq!(said(&space, &["--check"]), first);
    // What it says comes from the memo, and --check notices one that is wrong.
    let text = fs::read_to_string(memo).unwrap();
    fs::write(memo, text.replace("tex} copy.txt", "tex} from-the-memo.txt")).unwrap();
    // One run in 64 checks by itself.
    let words = said(&space, &[]);
    assert!(words.contains("from-the-memo.txt") || words.contains("the memo of this command was wrong"), "{words}");
    fs::write(memo, text.replace("tex} copy.txt", "tex} from-the-memo.txt")).unwrap();
    let checked = space.run(&["run", "p.yaml", "--check"]);
    assert_eq!(checked.code, Some(3), "{}", checked.seen());
    assert!(checked.stderr.contains("the memo of this command was wrong"), "{}", checked.stderr);
    assert!(memos(&space).is_empty(), "it is removed");
    // Other arguments are another command, and events are told by a run that looks.
    said(&space, &["--quiet"]);
    assert!(space.ran(&[]).is_empty() && memos(&space).len() == 1);
    assert_eq!(said(&space, &["--quiet"]), "exit 0");
}

/// Writes other bytes of the same length, and sets the time that the file had.
fn rewrite(path: &Path, text: &str) {
    let before = fs::metadata(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    fs::write(path, text).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(before.modified().unwrap()).unwrap();
    fs::set_permissions(path, before.permissions()).unwrap();
    assert_eq!(fs::metadata(path).unwrap().len(), before.len());
}

/// Something that happens between two runs.
type Change = (&'static str, fn(&Space));

#[test]
fn whatever_changes_is_noticed() {
    let changes: Vec<Change> = vec![
        ("a source has other bytes", |space| _ = space.write("text", "two, longer\n")),
        ("a source of the same length and time", |space| rewrite(&space.path().join("text"), "two\n")),
        ("a source is a folder", |space| {
            fs::remove_file(space.path().join("text")).unwrap();
            fs::create_dir(space.path().join("text")).unwrap();
        }),
        ("a source is gone", |space| fs::remove_file(space.path().join("text")).unwrap()),
        ("a source is another file of the same bytes", |space| {
            space.write("other", "one\n");
            fs::rename(space.path().join("other"), space.path().join("text")).unwrap();
        }),
        ("the pipeline changes", |space| _ = space.write("p.yaml", PIPELINE.replace("cp $", "cp  $"))),
        ("an included file changes", |space| _ = space.write("more.yaml", MORE.replace("100, 150", "150, 100"))),
        ("an included file is touched", |space| _ = space.write("more.yaml", MORE)),
        ("a manifest is removed", |space| {
            let folders = fs::read_dir(space.path().join("cache/actions")).unwrap();
            fs::remove_file(the_only_file(&folders.last().unwrap().unwrap().path())).unwrap();
        }),
        ("all manifests are removed", |space| fs::remove_dir_all(space.path().join("cache/actions")).unwrap()),
        ("a result is lost", |space| fs::remove_file(digest_of(space, "copy", "t")).unwrap()),
        ("a result rots", |space| rewrite(&digest_of(space, "copy", "t"), "ono\n")),
        ("a laid out file is removed", |space| fs::remove_file(space.path().join("results/p/copy.txt")).unwrap()),
        ("a laid out file is edited", |space| rewrite(&space.path().join("results/p/copy.txt"), "ono\n")),
        ("the results are removed", |space| fs::remove_dir_all(space.path().join("results")).unwrap()),
        ("the manifest of the results is edited", |space| _ = space.write("results/p/results.json", "{}")),
        ("the cache is removed", |space| fs::remove_dir_all(space.path().join("cache/objects")).unwrap()),
        ("a collection", |space| {
            space.write("old.yaml", PIPELINE.replace("cp $", "cp   $"));
            space.run(&["run", "old.yaml"]);
            assert_eq!(space.run(&["gc", "p.yaml", "--yes"]).code, Some(0));
        }),
        ("another run with other parameters", |space| {
            space.write("other", "two\n");
            let text = PIPELINE.replace("path: text}", "path: other}");
            space.write("q.yaml", format!("pipeline: p\n{text}"));
            assert_eq!(space.run(&["run", "q.yaml"]).code, Some(0));
        }),
        ("nothing at all", |_| ()),
    ];
    let spaces: Vec<Space> = changes.iter().map(|_| space()).collect();
    std::thread::sleep(SETTLED);
    for (space, (what, _)) in spaces.iter().zip(&changes) {
        said(space, &[]);
        assert_eq!(memos(space).len(), 1, "before: {what}");
    }
    for (space, (what, change)) in spaces.iter().zip(&changes) {
        change(space);
        // The memo and the run itself are compared: 3 would be a memo that still believes that nothing has changed.
        let checked = space.run(&["run", "p.yaml", "--check"]);
        assert_ne!(checked.code, Some(3), "{what}: {}", checked.seen());
        let is_gone = what.contains("source is a folder") || what.contains("source is gone");
        assert_eq!(checked.code == Some(2), is_gone, "{what}: {}", checked.seen());
        assert!(is_gone || space.path().join("results/p/copy.txt").exists(), "{what}");
    }
}

#[test]
fn a_pipeline_that_lays_nothing_out_is_remembered_too() {
    let space = Space::new();
    space.write("p.yaml", "stages:\n  a: {kind: command, with: {run: 'echo > o', outputs: {o: o}}}\n");
    space.ran(&[]);
    std::thread::sleep(SETTLED);
    let first = said(&space, &[]);
    assert!(memos(&space).len() == 1 && first.contains("nothing to do: 1 stage"), "{first}");
    assert_eq!(said(&space, &["--check"]), first);
}

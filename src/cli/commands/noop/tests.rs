//! After any edit the memo of a run says what a full run would say, or nothing.
//!
//! `PROPTEST_CASES` sets the number of cases: 1,000 unless it says otherwise, 10,000 where there are minutes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atflow::cache::{Access, Cache, RunRecord};
use atflow::plan::CacheStatus;
use atflow::scheduler::{self, Interrupt, Options};
use clap::Parser;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::args::{Cli, Command};
use crate::commands::lay_out::lay_out;

const PIPELINE: &str = "
include: more.yaml
params: {word: hello}
stages:
  text: {kind: file, matrix: {n: [a, b]}, with: {source: {path: \"${n}.txt\"}}}
  copy:
    kind: command
    needs: {of: text}
    with: {run: \"cat ${in.of} > ${out.t}\", outputs: {t: {path: t, show: copy.txt}}}
";

const MORE: &str = "
stages:
  said: {kind: command, with: {run: \"echo ${word} > ${out.t}\", outputs: {t: {path: t, show: said.txt}}}}
";

/// Time in which a time stamp of the system goes on: stamps of changes are whole ticks.
const TICK: Duration = Duration::from_millis(12);

/// What can happen to the files between two runs.
#[derive(Debug, Clone)]
enum Edit {
    Touch(Index),
    /// Other bytes of the same length; the time of the last change is set back.
    Rewrite(Index, bool),
    /// The same bytes in another file of the name.
    Replace(Index),
    Append(Index),
    Remove(Index),
    FolderForFile(Index),
    /// A file of the cache is removed.
    Collect(Index),
    CollectAll,
    /// Another run has recorded something.
    OtherRun,
    /// A file that nobody reads.
    Unrelated,
    /// A file beside the results.
    BesideResults,
}

fn edit() -> impl Strategy<Value = Edit> {
    let which = any::<Index>;
    prop_oneof![
        which().prop_map(Edit::Touch),
        (which(), any::<bool>()).prop_map(|(which, is_set_back)| Edit::Rewrite(which, is_set_back)),
        which().prop_map(Edit::Replace),
        which().prop_map(Edit::Append),
        which().prop_map(Edit::Remove),
        which().prop_map(Edit::FolderForFile),
        which().prop_map(Edit::Collect),
        Just(Edit::CollectAll),
        Just(Edit::OtherRun),
        Just(Edit::Unrelated),
        Just(Edit::BesideResults),
    ]
}

/// A folder with a pipeline, its sources, its cache and its results.
struct Space {
    folder: tempfile::TempDir,
    /// All files after the first run.
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Space {
    fn new() -> Self {
        // In memory, if the system has such a place: thousands of cases write all files.
        let place = Path::new("/dev/shm");
        let folder = if place.is_dir() { tempfile::tempdir_in(place) } else { tempfile::tempdir() }.unwrap();
        let mut space = Space { folder, files: Vec::new() };
        for (name, text) in [("p.yaml", PIPELINE), ("more.yaml", MORE), ("a.txt", "one\n"), ("b.txt", "two\n")] {
            fs::write(space.path(name), text).unwrap();
        }
        let loaded = space.load().unwrap();
        let program = std::env::current_exe().unwrap();
        let keeper = program.ancestors().nth(2).unwrap().join("atflow");
        assert!(keeper.is_file(), "build first: cargo build --workspace");
        let options = Options {
            goals: loaded.goals.clone(),
            jobs: 2,
            device: "cpu".to_owned(),
            keep_going: false,
            worker: keeper.with_file_name("atflow-worker"),
            keeper,
            about: loaded.about(),
            part: None,
        };
        let ended = scheduler::run(loaded.context(), &options, &Interrupt::default(), &mut |_| ());
        assert!(ended.broken.is_none() && ended.summary.ran == 4, "{ended:?}");
        space.full_answer().expect("everything is there").unwrap();
        space.files = files_below(space.folder.path());
        space
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn args(&self) -> RunArgs {
        let file = |name: &str| self.path(name).display().to_string();
        let args = ["atflow", "run", &file("p.yaml"), "--cache", &file("cache"), "--out", &file("out")];
        match Cli::parse_from(args).command {
            Command::Run(args) => args,
            _ => panic!("it is `run`"),
        }
    }

    fn load(&self) -> Result<Loaded, CliError> {
        let args = self.args();
        Loaded::open(&self.path("p.yaml"), &[], &args.changes, Access::Write)?.from(None)
    }

    /// What a run without any memory says; `None` if it has something to do. An error is an answer of its own.
    fn full_answer(&self) -> Option<Result<(Answer, BTreeSet<PathBuf>), String>> {
        _ = fs::remove_dir_all(self.path("cache/stat"));
        let words = |error: CliError| error.words();
        let loaded = match self.load() {
            Ok(loaded) => loaded,
            Err(error) => return Some(Err(words(error))),
        };
        let statuses = match loaded.survey() {
            Ok(statuses) => statuses,
            Err(error) => return Some(Err(words(error))),
        };
        let mut summary = RunSummary::default();
        for (id, status) in statuses.into_iter().filter_map(|(id, status)| Some((id, status?))) {
            let CacheStatus::Fresh(key, _) = status else { return None };
            summary.cached += 1;
            summary.keys.insert(loaded.graph.instance(id).name.clone(), key);
        }
        let (laid_out, error) = lay_out(&loaded, &summary, Some(&self.path("out")), true);
        if let Some(error) = error {
            return Some(Err(words(error)));
        }
        let answer = Answer { cached: summary.cached, tables: laid_out.tables.clone(), words: laid_out.words() };
        Some(Ok((answer, looked_at(&loaded, &laid_out)?)))
    }

    /// Keeps the memo of a run now, as if all files had settled.
    fn keep(&self) {
        let (answer, looked_at) = self.full_answer().expect("nothing is to be done").unwrap();
        let cache = Cache::open(&self.path("cache")).unwrap();
        let text = serde_json::to_string(&answer).unwrap();
        self.memo().keep(&cache, looked_at, text);
    }

    fn memo(&self) -> NoOpMemo {
        NoOpMemo::new(&self.path("cache"), "the command", i128::MAX / 2)
    }

    /// Makes all files as they were after the first run.
    fn restore(&self) {
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        for (path, bytes) in &self.files {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    fn apply(&self, edit: &Edit) {
        let sources: Vec<PathBuf> = ["p.yaml", "more.yaml", "a.txt", "b.txt", "out/copy.txt", "out/said.txt"]
            .iter()
            .map(|name| self.path(name))
            .filter(|path| path.is_file())
            .collect();
        if sources.is_empty() {
            return;
        }
        let of = |which: &Index| sources[which.index(sources.len())].clone();
        match edit {
            Edit::Touch(which) => {
                fs::File::open(of(which)).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
            }
            Edit::Rewrite(which, is_set_back) => {
                let path = of(which);
                let (mut bytes, before) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
                // A letter of a text, or of a comment or name: the pipeline may be another or none at all.
                let at = which.index(bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = if *byte == b'x' { b'y' } else { b'x' };
                }
                fs::write(&path, bytes).unwrap();
                if *is_set_back {
                    fs::File::open(&path).unwrap().set_modified(before).unwrap();
                }
            }
            Edit::Replace(which) => {
                let path = of(which);
                let before = fs::metadata(&path).unwrap().modified().unwrap();
                let other = self.path("other");
                fs::copy(&path, &other).unwrap();
                fs::File::open(&other).unwrap().set_modified(before).unwrap();
                fs::rename(other, path).unwrap();
            }
            Edit::Append(which) => {
                let path = of(which);
                fs::write(&path, [fs::read(&path).unwrap(), b"# more\n".to_vec()].concat()).unwrap();
            }
            Edit::Remove(which) => fs::remove_file(of(which)).unwrap(),
            Edit::FolderForFile(which) => {
                fs::remove_file(of(which)).unwrap();
                fs::create_dir(of(which)).unwrap();
            }
            Edit::Collect(which) => {
                let mut files = files_below(&self.path("cache/actions"));
                files.extend(files_below(&self.path("cache/objects")));
                if !files.is_empty() {
                    fs::remove_file(&files[which.index(files.len())].0).unwrap();
                }
            }
            Edit::CollectAll => _ = fs::remove_dir_all(self.path("cache/actions")),
            Edit::OtherRun => {
                let cache = Cache::open(&self.path("cache")).unwrap();
                cache.put(b"of another run").unwrap();
                let about = RunRecord { pipeline: "other".to_owned(), ..RunRecord::default() };
                cache.remember(&about).unwrap();
            }
            Edit::Unrelated => fs::write(self.path("unrelated"), "text").unwrap(),
            Edit::BesideResults => {
                _ = fs::create_dir(self.path("out"));
                fs::write(self.path("out/beside"), "text").unwrap();
            }
        }
    }
}

/// Files below a folder with their bytes, sorted; the memo itself and digests of sources are no part of it.
fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.file_name().and_then(|name| name.to_str()) {
                Some("noop" | "stat" | "tmp" | "leases" | "live") if path.is_dir() => {}
                _ if path.is_dir() => open.push(path),
                _ => files.push((path.clone(), fs::read(&path).unwrap())),
            }
        }
    }
    files.sort();
    files
}

#[test]
fn after_any_edits_the_memo_says_what_a_full_run_says_or_nothing() {
    let space = Space::new();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1000);
    let config = ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 40, ..ProptestConfig::default() };
    let (mut answered, mut had_to_run) = (0, 0);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let answered_ref = std::cell::RefCell::new((&mut answered, &mut had_to_run));
    let outcome = runner.run(&prop::collection::vec(edit(), 1..3), |edits| {
        space.restore();
        space.keep();
        prop_assert!(space.memo().answer().is_some(), "nothing has changed");
        std::thread::sleep(TICK);
        edits.iter().for_each(|edit| space.apply(edit));
        let remembered = space.memo().answer();
        let before = files_below(&space.path("out"));
        let full = space.full_answer();
        let mut counts = answered_ref.borrow_mut();
        *counts.1 += usize::from(!matches!(full, Some(Ok(_))));
        if let Some(remembered) = remembered {
            *counts.0 += 1;
            let remembered: Answer = serde_json::from_str(&remembered).unwrap();
            prop_assert!(matches!(&full, Some(Ok((full, _))) if *full == remembered), "{edits:?}: {full:?}");
            prop_assert_eq!(before, files_below(&space.path("out")), "{:?}: results are laid out anew", edits);
        }
        Ok(())
    });
    outcome.unwrap();
    // Some edits change nothing, and most change something: both are tried.
    assert!(answered > 0 && had_to_run > 0, "{answered} and {had_to_run} of {cases}");
}

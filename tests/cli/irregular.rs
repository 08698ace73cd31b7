//! Files that are none: pipes, sockets, devices, folders, and files that are something else than a pipeline and may be
//! private.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Ran, Space};

const STAGE: &str = "stages: {a: {kind: command, with: {run: 'echo 1 > ${out.n}', outputs: {n: n}}}}\n";

fn pipe(space: &Space, name: &str) {
    let made = Command::new("mkfifo").arg(space.path().join(name)).status().unwrap();
    assert!(made.success());
}

/// Runs the program, which must neither hang nor fill the memory.
fn refused(space: &Space, args: &[&str]) -> Ran {
    let started = Instant::now();
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_atflow")]).args(args).current_dir(space.path()).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", space.path());
    let ran = Ran::of(command.output().unwrap());
    assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.seen());
    assert!(started.elapsed() < Duration::from_secs(30), "{args:?}: {:?}", started.elapsed());
    ran
}

/// A space with a pipe, a socket and a link to a device.
fn irregular() -> (Space, UnixListener) {
    let space = Space::new();
    pipe(&space, "pipe");
    let listener = UnixListener::bind(space.path().join("socket")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", space.path().join("device")).unwrap();
    (space, listener)
}

const SORTS: [(&str, &str); 3] = [("pipe", "a named pipe"), ("socket", "a socket"), ("device", "a device")];

#[test]
fn only_regular_files_are_read_wherever_one_is_named() {
    let (space, _listener) = irregular();
    space.write("good.csv", "model,p=4\n");
    for (name, what) in SORTS {
        let says = |ran: Ran| {
            let words = format!("it is {what}, and only regular files are read");
            let text = ran.stderr.replace("\n  |", "");
            assert!(text.contains(&words), "{name}: {}", ran.stderr);
        };
        says(refused(&space, &["plan", name]));
        says(refused(&space, &["run", "--plan", name]));
        space.write("include.yaml", format!("include: {name}\n{STAGE}"));
        says(refused(&space, &["plan", "include.yaml"]));
        for source in [
            format!("kind: file, with: {{source: {{path: {name}}}}}"),
            format!("kind: command, with: {{run: x, files: [{name}], outputs: {{n: n}}}}"),
            format!("kind: table, needs: {{results: []}}, with: {{rows: a.b, columns: a.c, published: {name}}}"),
        ] {
            space.write("source.yaml", format!("stages: {{a: {{{source}}}}}\n"));
            let ran = refused(&space, &["run", "source.yaml"]);
            assert!(source.contains("table") || ran.stderr.contains(what), "{}", ran.stderr);
        }
        // A file of this machine as a source to fetch: the run knows only when it fetches.
        let url = format!("file://{}", space.path().join(name).display());
        let digest = "0".repeat(64);
        space.write(
            "url.yaml",
            format!("stages: {{a: {{kind: file, with: {{source: {{url: '{url}', sha256: '{digest}'}}}}}}}}\n"),
        );
        let started = Instant::now();
        let ran = space.run(&["run", "url.yaml"]);
        assert!(ran.code == Some(1) && ran.stderr.contains(what), "{}", ran.seen());
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}

#[test]
fn what_is_no_file_in_a_cache_is_as_what_is_not_there() {
    let space = Space::new();
    space.write("p.yaml", STAGE);
    space.ran(&[]);
    for folder in ["actions", "objects", "runs", "stat"] {
        for file in space.cached_files(folder) {
            std::fs::remove_file(&file).unwrap();
            let made = Command::new("mkfifo").arg(&file).status().unwrap();
            assert!(made.success());
        }
    }
    std::fs::create_dir_all(space.path().join("cache/leases")).unwrap();
    pipe(&space, "cache/leases/x.run");
    let verify = space.run(&["verify"]);
    assert!(verify.code == Some(3) && verify.stdout.contains("cannot be read"), "{}", verify.seen());
    assert_eq!(space.ran(&[]), ["a"]);
}

/// Secrets that stand in files which somebody could be made to include.
const PRIVATE: [(&str, &str); 7] = [
    ("shadow", "root:$6$hunter2:19000:0:99999:7:::\ngames:*:19000:0:99999:7:::\n"),
    ("key", "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"),
    ("secrets.yaml", "password: hunter2\nusers: [hunter2]\n"),
    ("list.yaml", "- hunter2\n- kind\n"),
    ("text", "hunter2\n"),
    ("odd.yaml", "password: 'hunter2\n"),
    ("twice.yaml", "password: hunter2\npassword: hunter2\n"),
];

#[test]
fn no_line_is_shown_of_a_file_that_is_no_pipeline() {
    let space = Space::new();
    for (name, text) in PRIVATE {
        space.write(name, text);
        space.write("p.yaml", format!("include: [{name}]\n{STAGE}"));
        for args in [["plan", "p.yaml"], ["plan", name], ["run", "p.yaml"], ["graph", "p.yaml"]] {
            let ran = refused(&space, &args);
            assert!(!ran.seen().contains("hunter2"), "{name}: {}", ran.seen());
            assert!(ran.stderr.contains(&format!("{name} is no pipeline file: it")), "{name}: {}", ran.stderr);
        }
        let included = space.run(&["plan", "p.yaml"]);
        assert!(included.stderr.contains("include: ["), "the line that names it is shown: {}", included.stderr);
        // Nor where another sort of file is meant.
        let ran = refused(&space, &["run", "--plan", name]);
        assert!(!ran.seen().contains("hunter2"), "{name}: {}", ran.seen());
    }
    space.write("plan.json", r#"{"password": "hunter2", "format": 1, "pipeline": ["hunter2"], "stages": {}}"#);
    assert!(!refused(&space, &["run", "--plan", "plan.json"]).seen().contains("hunter2"));
    // The mistakes of a pipeline are shown in their lines.
    for text in ["stage:\n  a: 1\n", "stages:\n  a: [\n", "stages:\n\ta: 1\n", "a: {kind: command}\n"] {
        let path = space.write("p.yaml", text);
        let line = text.lines().find(|line| line.contains('a') && !line.starts_with("stages")).unwrap().trim();
        let ran = refused(&space, &["plan", "p.yaml"]);
        assert!(ran.stderr.contains(line) || ran.stderr.contains("stage:"), "{line}: {}", ran.stderr);
        assert!(Path::new(&path).exists());
    }
}

#[test]
fn a_pipeline_has_a_largest_size() {
    let space = Space::new();
    space.write("large.yaml", format!("{STAGE}{}", "# a comment\n".repeat(1 << 20)));
    space.write("p.yaml", format!("include: large.yaml\n{STAGE}"));
    for name in ["large.yaml", "p.yaml"] {
        let ran = refused(&space, &["plan", name]);
        assert!(ran.stderr.contains("large.yaml is larger than 8 MiB"), "{}", ran.stderr);
    }
}

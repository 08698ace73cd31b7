//! What a program hears that reads `--json` when something goes wrong before or beside the stages; and a worker that
//! does not start.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;

use crate::depth;
use crate::support::{Ran, Space};

const PIPELINE: &str = "stages:\n  a: {kind: command, with: {run: 'echo 1 > ${out.n}', outputs: {n: n}}}\n";

#[test]
fn a_run_ends_with_its_last_line_whatever_goes_wrong() {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space.write("wrong.yaml", "stages:\n  a: {kind: comand}\n  b: {kind: trian}\n");
    space.write("missing.yaml", "stages: {a: {kind: file, with: {source: {path: none}}}}\n");
    space.write("far/VERSION", "99\n");
    space.write("old/VERSION", "0\n");
    space.write("file", "");
    space.write("plan.json", "{}");
    for args in [
        &["wrong.yaml"][..],
        &["none.yaml"],
        &["missing.yaml"],
        &["p.yaml", "nothing"],
        &["p.yaml", "--set", "x=1"],
        &["p.yaml", "--profile", "none"],
        &["p.yaml", "--force", "none"],
        &["p.yaml", "--remote", "nowhere"],
        &["p.yaml", "--remote", "far"],
        &["p.yaml", "--remote", "gopher://x"],
        &["p.yaml", "--remote", "http://127.0.0.1:1", "--patience", "1"],
        &["p.yaml", "--cache", "old"],
        &["p.yaml", "--cache", "file/cache"],
        &["p.yaml", "--from", "predictions"],
        &["--plan", "plan.json"],
        &["--plan", "none.json"],
    ] {
        let ran = space.run(&[&["run", "--json"], args].concat());
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.seen());
        let last = ran.events().pop().unwrap_or_else(|| panic!("{args:?} says nothing"));
        assert_eq!((&last["event"], &last["outcome"]), (&"run_finished".into(), &"broken".into()), "{args:?}");
        assert!(last["error"].as_str().is_some_and(|error| !error.is_empty()), "{args:?}: {last}");
        assert!(["ran", "cached", "failed", "skipped"].iter().all(|count| last[count] == 0), "{args:?}: {last}");
        assert!(!ran.stderr.is_empty(), "{args:?}: people are told as well");
        let finished = |event: &&serde_json::Value| event["event"] == "run_finished";
        assert_eq!(ran.events().iter().filter(finished).count(), 1, "{args:?}");
    }
    // What breaks a run that has begun is told after its stages, once.
    let output = space.write("results/p", "");
    assert!(output.exists());
    let text = "stages:\n  d: {kind: command, with: {run: 'echo > o', outputs: {o: o}}}\n  f: {kind: transform, needs: {data: d}, with: {op: saturate, level: 4}}\n";
    space.write("worker.yaml", text);
    let mut command = space.command(&["run", "worker.yaml", "--json"]);
    let ran = Ran::of(command.env("ATFLOW_WORKER", "/nowhere/atflow-worker").output().unwrap());
    let last = ran.events().pop().unwrap();
    assert_eq!((ran.code, &last["event"]), (Some(2), &"run_finished".into()), "{}", ran.seen());
}

#[test]
fn other_commands_give_a_program_an_error_in_place_of_nothing() {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space.write("wrong.yaml", "stages:\n  a: {kind: comand}\n  b: {kind: trian}\n");
    space.write("old/VERSION", "0\n");
    space.ran(&[]);
    for args in [
        &["plan", "wrong.yaml", "--json"][..],
        &["run", "wrong.yaml", "--json", "--dry-run"],
        &["plan", "p.yaml", "--json", "--remote", "nowhere"],
        &["show", "nothing", "--json"],
        &["log", "nothing", "--json"],
        &["why", "p.yaml", "nothing", "--json"],
        &["verify", "wrong.yaml", "a", "--json"],
        &["verify", "--json", "--cache", "old"],
        &["gc", "--json", "--cache", "none"],
        &["table", "nothing", "--format", "json"],
    ] {
        let ran = space.run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.seen());
        let told: serde_json::Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}"));
        let (error, problems) = (told["error"].as_str().unwrap(), told["problems"].as_array().unwrap());
        assert!(!error.is_empty() && !problems.is_empty() && problems[0]["message"].is_string(), "{args:?}: {told}");
    }
    let told: serde_json::Value = serde_json::from_str(&space.run(&["plan", "wrong.yaml", "--json"]).stdout).unwrap();
    let places: Vec<_> = told["problems"].as_array().unwrap().iter().map(|problem| problem["at"].clone()).collect();
    assert_eq!(places, ["wrong.yaml:2:13", "wrong.yaml:3:13"]);
}

/// A space whose worker does something at each start before it greets: a line of Python that knows its number.
fn starting(line: &str) -> (Space, PathBuf) {
    let space = depth::space();
    let count =
        "open(os.environ['HOME'] + '/starts', 'a').write('.'); n = os.path.getsize(os.environ['HOME'] + '/starts')\n";
    let worker = space.read("worker").replace("def say", &format!("{count}{line}\ndef say"));
    let worker = space.write("worker", worker);
    std::fs::set_permissions(&worker, PermissionsExt::from_mode(0o755)).unwrap();
    (space, worker)
}

fn run(space: &Space, worker: &PathBuf) -> Ran {
    let output: Output =
        space.command(&["run", "p.yaml", "--jobs", "1"]).env("ATFLOW_WORKER", worker).output().unwrap();
    Ran::of(output)
}

#[test]
fn a_worker_that_is_killed_while_it_starts_is_started_again() {
    let (space, worker) = starting("if n in (1, 2, 3): os.kill(os.getpid(), 9)");
    let ran = run(&space, &worker);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    for start in 2..5 {
        let says =
            format!("a worker was killed by signal 9 while it started; it is started again (start {start} of 8)");
        assert!(ran.stderr.contains(&says), "{}", ran.stderr);
    }
}

#[test]
fn one_that_ends_by_itself_once_is_started_again_too_and_one_that_always_does_ends_the_run() {
    let (space, worker) = starting("if n == 1: sys.exit(3)");
    let ran = run(&space, &worker);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    let (space, worker) = starting("print('no libtorch', file=sys.stderr); sys.exit(3)");
    let ran = run(&space, &worker);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    for says in ["ended 3 times before it was ready", "no libtorch", "atflow-worker --version"] {
        assert!(ran.stderr.contains(says), "{}", ran.stderr);
    }
    assert_eq!(space.read("starts").len(), 3);
}

#[test]
fn one_that_is_always_killed_ends_the_run_in_the_end_and_memory_is_thought_of() {
    let (space, worker) = starting("os.kill(os.getpid(), 9)");
    let ran = run(&space, &worker);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("was killed 8 times while it started"), "{}", ran.stderr);
    assert!(ran.stderr.contains("short of memory") && !ran.stderr.contains("by hand"), "{}", ran.stderr);
    assert_eq!(space.read("starts").len(), 8);
}

/// Where some workers could be started, a run goes on with those.
#[test]
fn workers_that_do_not_start_beside_others_do_not_end_the_run() {
    let (space, worker) = starting("if n > 1: sys.exit(3)");
    let slow = space.read("worker").replace("    for name, path", "    time.sleep(1)\n    for name, path");
    space.write("worker", slow.replace("import json", "import time, json"));
    let output = space.command(&["run", "p.yaml", "--jobs", "2"]).env("ATFLOW_WORKER", &worker).output().unwrap();
    let ran = Ran::of(output);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert!(ran.stderr.contains("the run goes on with the 1 that there are"), "{}", ran.stderr);
}

#[test]
fn log_and_show_say_of_which_pipeline_they_are() {
    let space = Space::new();
    for name in ["one", "two"] {
        let run = format!("echo log of {name}; echo {name} > n");
        space.write(
            &format!("{name}.yaml"),
            format!("stages:\n  d: {{kind: command, with: {{run: '{run}', outputs: {{n: n}}}}}}\n"),
        );
        assert_eq!(space.run(&["run", &format!("{name}.yaml")]).code, Some(0));
    }
    let (show, log) = (space.run(&["show", "d"]), space.run(&["log", "d"]));
    assert!(show.stdout.contains("pipeline") && show.stdout.contains("  two\n"), "{}", show.stdout);
    assert_eq!(log.stdout, "log of two\n");
    assert!(log.stderr.starts_with("d of pipeline two\n"), "{}", log.stderr);
    for told in [&show, &log] {
        assert!(told.stderr.contains("pipeline one has a stage d, too: --pipeline one shows it"), "{}", told.stderr);
    }
    let log = space.run(&["log", "d", "--pipeline", "one"]);
    assert_eq!((log.stdout.as_str(), log.stderr.as_str()), ("log of one\n", "d of pipeline one\n"));
    let json: serde_json::Value = serde_json::from_str(&space.run(&["log", "d", "--json"]).stdout).unwrap();
    assert_eq!((&json["pipeline"], &json["log"]), (&"two".into(), &"log of two\n".into()));
    // A failure of one is no failure of the other.
    space.write("one.yaml", "stages:\n  d: {kind: command, with: {run: 'exit 1', outputs: {n: n}}}\n");
    assert_eq!(space.run(&["run", "one.yaml"]).code, Some(1));
    let show = space.run(&["show", "d"]);
    assert!(show.stdout.contains("failed") && !show.stdout.contains("  two\n"), "{}", show.stdout);
}

#[test]
fn an_error_of_a_pipeline_that_is_a_link_says_whose_folder_counts() {
    let space = Space::new();
    space.write("real/p.yaml", "stages: {a: {kind: file, with: {source: {path: data.bin}}}}\n");
    space.write("real/data.bin", "x");
    std::os::unix::fs::symlink("real/p.yaml", space.path().join("p.yaml")).unwrap();
    let ran = space.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("p.yaml is a link to"), "{}", ran.stderr);
    assert_eq!(space.run(&["run", "real/p.yaml"]).code, Some(0));
}

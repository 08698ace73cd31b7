//! Agents on machines that share no folder: they share a bucket, and each has a cache of its own.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use atflow::protocol::PROTOCOL_VERSION;

use crate::bucket::Store;
use crate::depth;
use crate::own_data::photographs;
use crate::support::{Ran, Space, wait_for};

/// Nothing here takes this long on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Says in `tries` that a stage was tried; `all` waits for the file `go`.
const PIPELINE: &str = r#"pipeline: far
stages:
  list: {kind: file, with: {source: {path: list.txt}}}
  part:
    kind: command
    matrix: {n: [1, 2, 3, 4]}
    needs: {of: list}
    with: {run: "echo part/${n} >> $HOME/tries; head -n ${n} ${in.of} > ${out.n}", outputs: {n: n}}
  all:
    kind: command
    needs: {of: part}
    with:
      run: "echo all >> $HOME/tries; while ! test -e $HOME/go; do sleep 0.05; done; cat ../in/of/* > ${out.n}"
      outputs: {n: n}
"#;

/// Starts each agent in an empty folder, as on another machine.
const CLUSTER: &str = r#"executor: command
submit: "mkdir $HOME/far-$$ && cd $HOME/far-$$ && {agent} >{logs}/$$.txt 2>&1 & echo job $!"
list: "ps -eo pid="
cancel: "kill {job}"
classes:
  first: {match: {stage: part}, time: 10 min, max_agents: 2, idle: 20 s}
  rest: {match: {}, time: 10 min, idle: 20 s}
"#;

/// Starts nothing: agents are started by hand.
const BY_HAND: &str = "executor: command\nsubmit: 'echo {agent} 1'\nclasses:\n  any: {match: {}, time: 10 min}\n";

fn space(cluster: &str) -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space.write("list.txt", "a\nb\nc\nd\n");
    space.write("cluster.yaml", cluster);
    space
}

/// Runs a command that needs no option to find the bucket.
fn asked(store: &Store, space: &Space, args: &[&str]) -> Ran {
    store.run_as(space, "secret", args)
}

fn submit(store: &Store, space: &Space, args: &[&str]) -> Ran {
    store.run(space, &[&["run", "p.yaml", "--executor", "command"], args].concat())
}

/// Submits the pipeline for agents by hand; returns the name of the run.
fn detached(store: &Store, space: &Space) -> String {
    let ran = submit(store, space, &["--detach"]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    only_run(store)
}

/// The name of the run that the bucket has.
fn only_run(store: &Store) -> String {
    let [run] = &std::fs::read_dir(store.object("cluster")).unwrap().collect::<Vec<_>>()[..] else { panic!("one run") };
    run.as_ref().unwrap().file_name().into_string().unwrap()
}

fn agent(store: &Store, space: &Space, run: &str, args: &[&str]) -> Child {
    store.spawn(space, &[&["agent", "--run", run, "--class", "any", "--jobs", "1"], args].concat())
}

fn end(child: Child) -> Ran {
    Ran::of(child.wait_with_output().unwrap())
}

/// How often each stage was tried on the machines of these spaces.
fn tries(spaces: &[&Space]) -> BTreeMap<String, usize> {
    let mut tries = BTreeMap::new();
    for space in spaces {
        for line in std::fs::read_to_string(space.path().join("tries")).unwrap_or_default().lines() {
            *tries.entry(line.to_owned()).or_default() += 1;
        }
    }
    tries
}

fn each_once() -> BTreeMap<String, usize> {
    ["all", "part/1", "part/2", "part/3", "part/4"].map(|stage| (stage.to_owned(), 1)).into()
}

/// The digest of the output of a stage.
fn digest(space: &Space, stage: &str) -> serde_json::Value {
    let show = space.run(&["show", stage, "--json"]);
    serde_json::from_str::<serde_json::Value>(&show.stdout).unwrap_or_else(|_| panic!("{}", show.seen()))["outputs"]["n"]["digest"]
        .clone()
}

/// What is left of leases in the bucket.
fn leases(store: &Store) -> usize {
    std::fs::read_dir(store.object("leases")).map_or(0, Iterator::count)
}

#[test]
fn a_run_is_submitted_and_watched_through_a_bucket() {
    let (store, alone, space) = (Store::start(), space(CLUSTER), space(CLUSTER));
    alone.write("go", "");
    alone.ran(&[]);
    space.write("go", "");
    let ran = submit(&store, &space, &["all"]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert!(ran.stderr.contains("6 ran"), "{}", ran.stderr);
    assert_eq!(tries(&[&space]), each_once());
    assert_eq!(digest(&space, "all"), digest(&alone, "all"));
    let shown = space.run(&["show", "all", "--json"]).stdout;
    assert!(shown.contains("cache/objects/"), "what the run is for was fetched: {shown}");
    assert_eq!(asked(&store, &space, &["verify"]).code, Some(0));
    assert!(space.cached_files("../far-").is_empty() && leases(&store) == 0);
    // Each agent had a cache of its own, and nothing of the submitter's.
    let far = std::fs::read_dir(space.path()).unwrap().flatten();
    let far: Vec<_> = far.filter(|entry| entry.file_name().to_string_lossy().starts_with("far-")).collect();
    assert!(far.len() >= 2 && far.iter().all(|folder| folder.path().join("cache/VERSION").is_file()), "{far:?}");
    let ran = submit(&store, &space, &[]);
    assert!(ran.code == Some(0) && ran.stderr.contains("nothing to do"), "{}", ran.seen());
}

#[test]
fn agents_need_neither_the_pipeline_nor_its_files() {
    let (store, space) = (Store::start(), space(BY_HAND));
    let run = detached(&store, &space);
    for file in ["p.yaml", "list.txt"] {
        std::fs::remove_file(space.path().join(file)).unwrap();
    }
    let machines = [Space::new(), Space::new()];
    let agents: Vec<Child> = machines.iter().map(|machine| agent(&store, machine, &run, &[])).collect();
    let [one, other] = &machines;
    wait_for(PATIENCE, "the last stage runs", || tries(&[one, other]).contains_key("all"));
    let status = asked(&store, &space, &["status"]);
    assert!(status.stdout.contains("5 of 6 stages done"), "{}", status.seen());
    assert!(status.stdout.contains("2 at work"), "{}", status.seen());
    for machine in &machines {
        machine.write("go", "");
    }
    for agent in agents {
        let ran = end(agent);
        assert_eq!(ran.code, Some(0), "{}", ran.seen());
        assert!(ran.stderr.contains("nothing is left that it could do"), "{}", ran.stderr);
    }
    assert_eq!((tries(&[one, other]), leases(&store)), (each_once(), 0));
    let status = asked(&store, &space, &["status"]);
    assert!(status.stdout.contains("6 of 6 stages done\n  it is over"), "{}", status.seen());
    let status = asked(&store, &space, &["status"]);
    assert!(status.stdout.contains("nothing runs"), "its end is noted: {}", status.seen());
    // Whoever comes late has nothing to do, and knows the run by its short name.
    let short = run.split('-').next().unwrap();
    let ran = end(agent(&store, &Space::new(), short, &[]));
    assert!(
        ran.code == Some(0) && ran.stderr.contains("the run was over") | ran.stderr.contains("0 stages ran"),
        "{}",
        ran.seen()
    );
}

#[test]
fn results_that_the_submitter_has_are_not_made_again() {
    let (store, space, machine) = (Store::start(), space(BY_HAND), Space::new());
    space.ran(&["part"]);
    machine.write("go", "");
    let run = detached(&store, &space);
    let ran = end(agent(&store, &machine, &run, &[]));
    assert!(ran.code == Some(0) && ran.stderr.contains("1 stage ran"), "{}", ran.seen());
    assert_eq!(tries(&[&machine]), BTreeMap::from([("all".to_owned(), 1)]));
    let ran = submit(&store, &space, &[]);
    assert!(ran.code == Some(0) && ran.stderr.contains("1 ran, 5 cached"), "{}", ran.seen());
}

#[test]
fn a_failure_is_told_with_its_log_and_tried_once() {
    let (store, space) = (Store::start(), space(CLUSTER));
    space.write("p.yaml", PIPELINE.replace("cat ../in/of/*", "echo because of this; exit 3; cat"));
    space.write("go", "");
    let ran = submit(&store, &space, &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.seen());
    assert!(ran.stderr.contains("5 ran, 1 failed"), "{}", ran.stderr);
    assert_eq!(tries(&[&space])["all"], 1);
    let log = space.run(&["log", "all"]);
    assert!(log.stdout.contains("because of this"), "{}", log.seen());
}

#[test]
fn agents_end_when_the_run_is_cancelled_from_where_it_was_submitted() {
    let (store, space, machine) = (Store::start(), space(BY_HAND), Space::new());
    let run = detached(&store, &space);
    let agent = agent(&store, &machine, &run, &[]);
    wait_for(PATIENCE, "the last stage runs", || tries(&[&machine]).contains_key("all"));
    let ran = asked(&store, &space, &["cancel"]);
    assert!(ran.code == Some(0) && ran.stderr.contains("is cancelled"), "{}", ran.seen());
    let ran = end(agent);
    assert!(ran.code == Some(0) && ran.stderr.contains("the run was cancelled"), "{}", ran.seen());
    assert_eq!(leases(&store), 0);
}

#[test]
fn what_a_bucket_cannot_do_is_told_before_anything_is_submitted() {
    let (store, space) = (Store::start(), space(BY_HAND));
    let ran = space.run(&["run", "p.yaml", "--executor", "command", "--remote", "folder"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("work is shared through a bucket"), "{}", ran.seen());
    let run = detached(&store, &space);
    let ran = end(agent(&store, &Space::new(), "nothing", &[]));
    assert!(ran.code == Some(2) && ran.stderr.contains("no run `nothing`"), "{}", ran.seen());
    let wrong = Space::new();
    let args = ["agent", "--run", &run, "--class", "any", "--remote", "s3://lab/shared/atflow"];
    let ran = store.run_as(&wrong, "wrong", &args);
    assert!(ran.code == Some(2) && ran.stderr.contains("Signature"), "{}", ran.seen());
}

#[test]
fn a_folder_of_images_is_sent_and_laid_out_again() {
    let (store, space, machine) = (Store::start(), space(BY_HAND), Space::new());
    space.write(
        "p.yaml",
        "stages:\n  all:\n    kind: dataset\n    with: {format: image_folder, folder: pets, resize: 16, center_crop: 16}\n",
    );
    photographs(&space, "pets/train", 0, 3);
    photographs(&space, "pets/val", 50, 2);
    let run = detached(&store, &space);
    let far = end(agent(&store, &machine, &run, &[]));
    assert!(far.code == Some(0) && far.stderr.contains("1 stage ran"), "{}", far.seen());
    let left: Vec<_> = std::fs::read_dir(machine.path().join("cache/tmp")).unwrap().flatten().collect();
    assert!(left.is_empty(), "the folder is gone after the stage: {left:?}");
    let ran = submit(&store, &space, &[]);
    assert!(ran.code == Some(0) && ran.stderr.contains("1 ran"), "{}", ran.seen());
    let outputs = |space: &Space| {
        let show = space.run(&["show", "all", "--json"]);
        serde_json::from_str::<serde_json::Value>(&show.stdout).unwrap_or_else(|_| panic!("{}", show.seen()))["outputs"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, output)| (name.clone(), output["digest"].clone()))
            .collect::<Vec<_>>()
    };
    let here = outputs(&space);
    space.ran(&["--force", "all"]);
    assert_eq!(outputs(&space), here, "the same as from the folder itself");
}

/// Keeps one epoch and waits; keeps another when it is asked to give up. Goes on with what it finds, and says so.
const WORKER: &str = r#"#!/usr/bin/env python3
import json, os, struct, sys
def say(**event): print(json.dumps(event), flush=True)
def keep(file, epochs):
    os.makedirs(os.path.dirname(file), exist_ok=True)
    head = json.dumps({"__metadata__": {"atflow": json.dumps({"format": "training/1", "epochs": [{}] * epochs})}}).encode()
    open(file + ".new", "wb").write(struct.pack("<Q", len(head)) + head)
    os.rename(file + ".new", file)
def kept(file):
    head = json.loads(open(file, "rb").read()[8:])
    return len(json.loads(head["__metadata__"]["atflow"])["epochs"])
say(event="hello", protocol=PROTOCOL, version="0.1.0", libtorch="2.11.0", device="cpu", device_name="a CPU")
for line in sys.stdin:
    job = json.loads(line)
    file = job["partial"] + "/training.safetensors"
    if os.path.exists(file):
        open(os.environ["HOME"] + "/tries", "a").write(f"went on after epoch {kept(file)}\n")
        for name, path in job["outputs"].items(): open(path, "w").write(job["stage"])
        say(event="finished", id=job["id"], summary="", peak_memory=1)
    else:
        keep(file, 1)
        sys.stdin.readline()
        keep(file, 2)
        say(event="failed", id=job["id"], failure={"code": "cancelled", "message": "stopped", "causes": []})
"#;

/// The machine of the first agent ends in the middle of a training.
#[test]
fn a_training_goes_on_with_what_another_machine_left() {
    let (store, space) = (Store::start(), depth::space());
    space.write("cluster.yaml", BY_HAND);
    let machines = [Space::new(), Space::new()];
    let begin = |machine: &Space, run: &str| {
        let worker = machine.write("worker", WORKER.replace("PROTOCOL", &PROTOCOL_VERSION.to_string()));
        std::fs::set_permissions(&worker, std::fs::Permissions::from_mode(0o755)).unwrap();
        let args = ["agent", "--run", run, "--class", "any", "--jobs", "1"];
        let mut command = store.command(machine, &args);
        command.env("ATFLOW_WORKER", worker).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let sent = || -> Vec<_> {
        let folders = std::fs::read_dir(store.object("partial")).into_iter().flatten().flatten();
        folders.map(|folder| folder.path().join("training.safetensors")).filter(|file| file.exists()).collect()
    };
    let ran = submit(&store, &space, &["--detach", "model/a"]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    let run = only_run(&store);
    let first = begin(&machines[0], &run);
    wait_for(PATIENCE, "an epoch has ended", || !machines[0].cached_files("partial").is_empty());
    assert!(Command::new("kill").args(["-TERM", &first.id().to_string()]).status().unwrap().success());
    let ran = end(first);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert_eq!((sent().len(), leases(&store)), (1, 0), "{}", ran.seen());
    let ran = end(begin(&machines[1], &run));
    assert!(ran.code == Some(0) && ran.stderr.contains("1 stage ran"), "{}", ran.seen());
    assert_eq!(tries(&[&machines[1]]), BTreeMap::from([("went on after epoch 2".to_owned(), 1)]));
    assert!(sent().is_empty(), "what is finished needs no progress");
}

//! Agents: several processes that finish one frozen plan, whatever happens to some of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use atflow::cache::{Cache, RunRecord, StatMemo};
use atflow::cluster::folder::{ExitNote, ExitReason, RunFolder};
use atflow::cluster::frozen_plan::FrozenPlan;
use atflow::external_inputs::ExternalInputs;
use atflow::graph::Graph;
use atflow::plan::{Goals, PlanContext};
use atflow::spec::{Instance, Overrides, PipelineSpec, expand};

use crate::support::{Ran, Space, predictions, wait_for};

/// Nothing here takes this long on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Says in `tries` that a stage was tried, and waits for the file `go` unless the stage is quick.
const PIPELINE: &str = r#"pipeline: story
params: {lines: 3}
stages:
  list: {kind: file, with: {source: {path: list.txt}}}
  part:
    kind: command
    matrix: {n: [1, 2, 3, 4, 5, 6, 7, 8]}
    needs: {of: list}
    with:
      run: "echo part/${n} >> $HOME/tries; sleep 0.1; head -n ${lines} ${in.of} > ${out.n}; echo ${n} >> ${out.n}"
      outputs: {n: n}
  slow:
    kind: command
    needs: {of: part/1}
    with:
      run: "echo slow >> $HOME/tries; while ! test -e $HOME/go; do sleep 0.05; done; cp ${in.of} ${out.n}"
      outputs: {n: n}
  tested:
    kind: command
    matrix: {model: [standard, pgd]}
    needs: {of: slow, also: part/2}
    with: {run: "echo tested >> $HOME/tries; cp $HOME/predictions ${out.predictions} # ${model}", outputs: {predictions: p}}
  table: {kind: table, needs: {results: tested}, with: {rows: tested.model, columns: [{label: all, where: {stage: tested}}]}}
"#;

fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space.write("list.txt", "a\nb\nc\nd\n");
    space.write("predictions", predictions(120));
    space
}

/// Freezes a plan of `p.yaml`, with a class and a price for each instance.
fn freeze(space: &Space, of: impl Fn(&Instance) -> (&'static str, Option<f64>)) -> RunFolder {
    let file = space.path().join("p.yaml");
    let graph = Graph::new(expand(&PipelineSpec::read(&file, &Overrides::default()).unwrap()).unwrap());
    let cache = Cache::open(&space.path().join("cache")).unwrap();
    let goals = Goals::all_known(&graph);
    let sources = ExternalInputs::check(&graph, &goals.wanted, &mut StatMemo::open(&cache)).unwrap();
    let context = PlanContext { graph: &graph, cache: &cache, sources: &sources };
    let classes = graph.ids().map(|id| of(graph.instance(id)).0.to_owned()).collect();
    let seconds = graph.ids().map(|id| of(graph.instance(id)).1).collect();
    let about = RunRecord { pipeline: "story".to_owned(), file, ..RunRecord::default() };
    let plan = FrozenPlan::new(context, &goals, about, &classes, &seconds).unwrap();
    let folder = RunFolder::of(&cache, &RunFolder::new_id());
    plan.write(&folder, context, &goals).unwrap();
    folder
}

/// The plan with `slow` and what follows it in one class, and all else in another.
fn freeze_in_two(space: &Space) -> RunFolder {
    freeze(space, |instance| {
        (if ["slow", "tested"].contains(&instance.stage.as_str()) { "big" } else { "small" }, None)
    })
}

/// An agent in the background; killed if a test ends before it.
struct Agent(Child);

impl Agent {
    fn command(space: &Space, folder: &RunFolder, class: &str, args: &[&str]) -> Command {
        let own = ["agent", "--run", &folder.id().0, "--class", class, "--jobs", "1"];
        let mut command = space.command(&[&own, args].concat());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(space: &Space, folder: &RunFolder, class: &str, args: &[&str]) -> Self {
        Agent(Self::command(space, folder, class, args).spawn().unwrap())
    }

    fn end(mut self) -> Ran {
        let started = Instant::now();
        while self.0.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < PATIENCE, "an agent did not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut this = std::mem::ManuallyDrop::new(self);
        // Taken out, because a value with a destructor cannot be taken apart.
        let child = std::mem::replace(&mut this.0, Command::new("true").spawn().unwrap());
        Ran::of(child.wait_with_output().unwrap())
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// How often each stage was tried.
fn tries(space: &Space) -> BTreeMap<String, usize> {
    let mut tries = BTreeMap::new();
    for line in std::fs::read_to_string(space.path().join("tries")).unwrap_or_default().lines() {
        *tries.entry(line.to_owned()).or_default() += 1;
    }
    tries
}

fn has_tried(space: &Space, stage: &str) -> bool {
    tries(space).contains_key(stage)
}

/// The digest of every output, by stage.
fn digests(space: &Space) -> BTreeMap<String, serde_json::Value> {
    let manifests = space.cached_files("actions").into_iter().map(|path| std::fs::read(path).unwrap());
    let manifests = manifests.map(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).unwrap());
    manifests
        .map(|manifest| (manifest["made"]["stage"].as_str().unwrap().to_owned(), manifest["outputs"].clone()))
        .collect()
}

/// The last words of the only agent that left some.
fn exit(folder: &RunFolder) -> ExitNote {
    let exits = folder.exits();
    assert_eq!(exits.len(), 1, "{exits:?}");
    exits[0].clone()
}

fn clear_exits(folder: &RunFolder) {
    std::fs::remove_dir_all(folder.path().join("exit")).unwrap();
}

#[test]
fn three_agents_finish_what_a_run_would_though_the_pipeline_is_gone() {
    let (alone, space) = (space(), space());
    alone.write("go", "");
    alone.ran(&[]);
    let folder = freeze(&space, |_| ("any", None));
    std::fs::remove_file(space.path().join("p.yaml")).unwrap();
    space.write("go", "");
    let mut agents: Vec<Agent> = (0..2).map(|_| Agent::start(&space, &folder, "all", &[])).collect();
    let mut third = Agent::command(&space, &folder, "any", &[]);
    third.env("SLURM_ARRAY_JOB_ID", "7").env("SLURM_ARRAY_TASK_ID", "2").env("SLURM_JOB_ID", "9");
    agents.push(Agent(third.spawn().unwrap()));
    for agent in agents {
        let ran = agent.end();
        assert_eq!(ran.code, Some(0), "{}", ran.seen());
        assert!(ran.stderr.contains("finished: nothing is left that it could do"), "{}", ran.stderr);
    }
    assert_eq!(digests(&space), digests(&alone));
    let exits = folder.exits();
    assert_eq!(exits.len(), 3);
    assert!(exits.iter().all(|exit| exit.reason == ExitReason::Finished && exit.code == 0 && exit.peak_memory > 0));
    // A lease is released after the manifest is there, so nothing ran twice.
    assert_eq!(exits.iter().map(|exit| exit.ran).sum::<usize>(), digests(&alone).len());
    assert!(tries(&space).iter().all(|(stage, tries)| *tries == if stage == "tested" { 2 } else { 1 }));
    let slurm = folder.exit_of("7_2").expect("named after its job");
    assert_eq!(slurm.job.as_deref(), Some("7_2"));
    assert_eq!(folder.agents().len(), 3);
    assert!(space.cached_files("runs").is_empty(), "an agent is no run of its own");
    assert!(space.cached_files("leases").iter().all(|path| path.ends_with("lock")));
}

#[test]
fn stages_may_run_in_a_folder_of_the_machine() {
    let (alone, space) = (space(), space());
    alone.write("go", "");
    alone.ran(&[]);
    let folder = freeze(&space, |_| ("any", None));
    // A file system of its own, where there is one.
    let other = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let scratch = other.path().join("of this/machine");
    let args = ["--scratch", scratch.to_str().unwrap()];
    let left = || std::fs::read_dir(&scratch).into_iter().flatten().count();
    let killed = Agent::start(&space, &folder, "any", &args);
    wait_for(PATIENCE, "the agent begins", || has_tried(&space, "slow"));
    killed.signal("-KILL");
    drop(killed);
    assert!(left() > 0, "its stages ran there");
    space.write("go", "");
    let ran = Agent::start(&space, &folder, "any", &args).end();
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert_eq!(digests(&space), digests(&alone));
    assert_eq!(left(), 0, "what a killed agent left is gone, too");
    let in_cache = |path: &std::path::PathBuf| path.to_string_lossy().contains("tmp/stage-");
    assert!(!space.cached_files("tmp").iter().any(in_cache));
    assert_eq!(space.run(&["verify"]).code, Some(0));
}

#[test]
fn another_agent_takes_over_from_one_that_was_killed() {
    let space = space();
    let folder = freeze(&space, |_| ("any", None));
    let killed = Agent::start(&space, &folder, "any", &[]);
    wait_for(PATIENCE, "the first agent begins", || has_tried(&space, "slow"));
    let other = Agent::start(&space, &folder, "any", &[]);
    wait_for(PATIENCE, "the second agent does the rest", || (1..=8).all(|n| has_tried(&space, &format!("part/{n}"))));
    killed.signal("-KILL");
    space.write("go", "");
    let ran = other.end();
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert_eq!(exit(&folder).reason, ExitReason::Finished);
    assert_eq!(tries(&space)["slow"], 2);
    assert!(digests(&space).contains_key("table"));
}

#[test]
fn an_agent_starts_its_class_only_and_waits_for_the_others() {
    let space = space();
    let folder = freeze_in_two(&space);
    let big = Agent::start(&space, &folder, "big", &["--idle", "1"]);
    let ran = big.end();
    assert_eq!((ran.code, exit(&folder).reason), (Some(0), ExitReason::Idle), "{}", ran.seen());
    assert!(tries(&space).is_empty(), "every stage of its class needs one of the other");
    clear_exits(&folder);
    let big = Agent::start(&space, &folder, "big", &[]);
    let ran = Agent::start(&space, &folder, "small", &["--idle", "600"]);
    wait_for(PATIENCE, "the first class is served", || has_tried(&space, "slow"));
    space.write("go", "");
    for agent in [big, ran] {
        let ran = agent.end();
        assert_eq!(ran.code, Some(0), "{}", ran.seen());
    }
    let of = |class: &str| folder.exits().into_iter().find(|exit| exit.class == class).unwrap();
    assert_eq!((of("small").reason, of("big").reason), (ExitReason::Finished, ExitReason::Finished));
    // The table is light: whoever is first assembles it. The agent that was idle had brought in the file for itself.
    let ran = [of("small").ran, of("big").ran];
    assert!([[8, 4], [9, 3]].contains(&ran), "{ran:?}");
    assert_eq!(digests(&space).len(), 13);
}

#[test]
fn an_agent_begins_nothing_that_does_not_end_in_time_and_stops_at_its_end() {
    let space = space();
    let folder = freeze(&space, |_| ("any", Some(1000.0)));
    let ran = Agent::start(&space, &folder, "any", &["--seconds", "600"]).end();
    assert_eq!((ran.code, exit(&folder).reason), (Some(0), ExitReason::Deadline), "{}", ran.seen());
    assert!(tries(&space).is_empty());
    // Nothing is known of these, so one of them runs when time is over.
    let folder = freeze(&space, |_| ("any", None));
    let ran = Agent::start(&space, &folder, "any", &["--seconds", "6"]).end();
    assert_eq!((ran.code, exit(&folder).reason), (Some(0), ExitReason::Deadline), "{}", ran.seen());
    assert!(!digests(&space).contains_key("slow") && has_tried(&space, "slow"));
    assert_eq!(folder.failures(), []);
}

#[test]
fn a_signal_or_a_cancellation_ends_an_agent_in_good_order() {
    let space = space();
    let folder = freeze(&space, |_| ("any", None));
    let agent = Agent::start(&space, &folder, "any", &[]);
    wait_for(PATIENCE, "the slow stage runs", || has_tried(&space, "slow"));
    agent.signal("-TERM");
    let ran = agent.end();
    assert_eq!((ran.code, exit(&folder).reason), (Some(0), ExitReason::Deadline), "{}", ran.seen());
    clear_exits(&folder);
    let agent = Agent::start(&space, &folder, "any", &[]);
    wait_for(PATIENCE, "the slow stage runs again", || tries(&space).get("slow") == Some(&2));
    // By hand, as in a shell.
    std::fs::write(folder.path().join("cancel"), "").unwrap();
    let ran = agent.end();
    assert_eq!((ran.code, exit(&folder).reason), (Some(0), ExitReason::Cancelled), "{}", ran.seen());
    clear_exits(&folder);
    let ran = Agent::start(&space, &folder, "any", &[]).end();
    assert_eq!((ran.code, exit(&folder).reason), (Some(0), ExitReason::Cancelled), "{}", ran.seen());
    assert_eq!(tries(&space)["slow"], 2, "it began nothing");
    assert_eq!(folder.failures(), [], "to be stopped is no failure");
}

#[test]
fn what_failed_on_one_agent_is_not_tried_by_another() {
    let space = space();
    let failing = PIPELINE.replace("while ! test -e $HOME/go; do sleep 0.05; done;", "echo because; exit 3;");
    space.write("p.yaml", failing);
    let folder = freeze_in_two(&space);
    let waiting = Agent::start(&space, &folder, "big", &[]);
    for agent in [Agent::start(&space, &folder, "small", &[]), waiting, Agent::start(&space, &folder, "all", &[])] {
        let ran = agent.end();
        assert_eq!(ran.code, Some(0), "a stage that fails is no failure of its agent: {}", ran.seen());
    }
    assert_eq!(tries(&space)["slow"], 1);
    let [note] = folder.failures().try_into().unwrap();
    assert_eq!((note.stage.as_str(), folder.failed_keys()), ("slow", vec![note.key]));
    let log = note.log.digest.to_string();
    assert!(space.read(&format!("cache/objects/{}/{log}", &log[..2])).contains("because"));
    // Who comes later learns of it from the note.
    let ran = Agent::start(&space, &folder, "all", &[]).end();
    assert_eq!((ran.code, tries(&space)["slow"]), (Some(0), 1), "{}", ran.seen());
    assert!(ran.stderr.contains("slow failed") && ran.stderr.contains(&note.agent), "{}", ran.stderr);
    assert!(folder.exits().iter().all(|exit| exit.reason == ExitReason::Finished));
}

#[test]
fn agents_that_hear_no_news_run_a_failing_stage_once_in_all() {
    let space = Space::new();
    // A stage each: what an agent does first is no matter of urgency.
    space.write(
        "p.yaml",
        r#"stages:
  bad: {kind: command, with: {run: "echo bad >> $HOME/tries; while ! test -e $HOME/go; do sleep 0.05; done; exit 3", outputs: {n: n}}}
  good: {kind: command, with: {run: "echo good >> $HOME/tries; echo good > ${out.n}", outputs: {n: n}}}
"#,
    );
    let folder = freeze(&space, |instance| (if instance.stage == "bad" { "bad" } else { "good" }, None));
    // Nothing can be told or heard here.
    space.write(&format!("cache/cluster/{}/news", folder.id().0), "");
    let first = Agent::start(&space, &folder, "bad", &[]);
    wait_for(PATIENCE, "`bad` was not tried", || has_tried(&space, "bad"));
    // It has read which stages failed, none, once it runs the one stage that is left to it.
    let second = Agent::start(&space, &folder, "all", &[]);
    wait_for(PATIENCE, "`good` was not tried", || has_tried(&space, "good"));
    space.write("go", "");
    let (first, second) = (first.end(), second.end());
    assert_eq!((first.code, second.code), (Some(0), Some(0)), "{} {}", first.seen(), second.seen());
    assert_eq!(tries(&space), [("bad".to_owned(), 1), ("good".to_owned(), 1)].into());
    let [note] = folder.failures().try_into().unwrap();
    assert!(second.stderr.contains("bad failed") && second.stderr.contains(&note.agent), "{}", second.stderr);
    assert!(folder.exits().iter().all(|exit| exit.reason == ExitReason::Finished));
    assert!(
        std::fs::read_dir(space.path().join("cache/leases")).unwrap().all(|lease| lease.unwrap().file_name() == "lock")
    );
}

/// A library that lets `fsync` fail, with the error number in the file `$HOME/fault`.
const FAULT: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
int fsync(int fd) {
    char path[4096];
    snprintf(path, sizeof path, "%s/fault", getenv("HOME"));
    FILE *file = fopen(path, "r");
    int number = 0;
    if (file) {
        if (fscanf(file, "%d", &number) != 1) number = 0;
        fclose(file);
    }
    if (number) { errno = number; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
"#;

#[test]
fn an_agent_whose_storage_fails_says_so_and_leaves_the_work_to_others() {
    let space = space();
    let source = space.write("fault.c", FAULT);
    let library = space.path().join("fault.so");
    let build = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").output();
    let build = build.expect("the linker of Rust programs is there");
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    space.write("go", "");
    let folder = freeze(&space, |_| ("any", None));
    let on = |library: &Path| {
        let mut command = Agent::command(&space, &folder, "any", &[]);
        Agent(command.env("LD_PRELOAD", library).spawn().unwrap()).end()
    };
    // No space left, a broken disk, a stale handle.
    for error in [28, 5, 116] {
        space.write("fault", error.to_string());
        let ran = on(&library);
        assert_eq!(ran.code, Some(75), "{error}: {}", ran.seen());
        assert!(ran.stderr.contains(&format!("(os error {error})")), "{}", ran.stderr);
        let note = exit(&folder);
        assert_eq!((note.reason, note.code, note.ran), (ExitReason::Storage, 75, 0));
        assert!(note.message.contains(&format!("(os error {error})")), "{note:?}");
        assert_eq!(folder.failures(), [], "the stage is not to blame");
        clear_exits(&folder);
    }
    std::fs::remove_file(space.path().join("fault")).unwrap();
    let ran = on(&library);
    assert_eq!((ran.code, exit(&folder).reason), (Some(0), ExitReason::Finished), "{}", ran.seen());
    assert!(digests(&space).contains_key("table"));
}

#[test]
fn what_an_agent_cannot_work_on_it_refuses_clearly() {
    let space = space();
    let ran = space.run(&["agent", "--run", "4f0c21aa", "--class", "gpu"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("there is no cache at"), "{}", ran.seen());
    let folder = freeze_in_two(&space);
    let short = folder.id().short();
    let said = |run: &str, class: &str| {
        let ran = space.run(&["agent", "--run", run, "--class", class]);
        assert_eq!(ran.code, Some(2), "{}", ran.seen());
        ran.stderr
    };
    let unknown = said("ffffffffff", "small");
    assert!(
        unknown.contains("has no run `ffffffffff` for agents") && unknown.contains(&format!("it has {short}")),
        "{unknown}"
    );
    let class = said(&short, "gpu");
    assert!(class.contains("the run has no class `gpu`") && class.contains("small, big, and `all`"), "{class}");
    assert_eq!(exit(&folder).reason, ExitReason::Failed);
    let own = env!("CARGO_PKG_VERSION");
    let plan = std::fs::read_to_string(folder.plan_path()).unwrap();
    let other = plan.replace(&format!("\"atflow\":\"{own}\""), "\"atflow\":\"99.0.0\"");
    std::fs::write(folder.plan_path(), other).unwrap();
    let version = said(&short, "small");
    assert!(
        version.contains("atflow 99.0.0 made the plan") && version.contains("start agents with atflow 99.0.0"),
        "{version}"
    );
    std::fs::write(folder.plan_path(), &plan[..plan.len() / 2]).unwrap();
    assert!(said(&short, "small").contains("is no plan for agents"));
    // A source that changed since the plan was frozen is not taken for what it was.
    std::fs::write(folder.plan_path(), plan).unwrap();
    space.write("list.txt", "other\n");
    let ran = Agent::start(&space, &folder, "all", &[]).end();
    assert!(ran.code == Some(0) && ran.stderr.contains("list.txt"), "{}", ran.seen());
    assert!(folder.failures().iter().any(|note| note.stage == "list") && digests(&space).is_empty());
}

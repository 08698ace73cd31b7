//! Measures agents: seconds and file operations per stage, what an idle agent does, and memory. Nothing is asserted but
//! that the work is done. `docs/scaling.md` has the figures and tells how to run it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use atflow::cache::{Cache, RunRecord, StatMemo};
use atflow::cluster::folder::{ExitReason, RunFolder};
use atflow::cluster::frozen_plan::FrozenPlan;
use atflow::external_inputs::ExternalInputs;
use atflow::graph::Graph;
use atflow::plan::{Goals, PlanContext};
use atflow::spec::{Overrides, PipelineSpec, expand};

use crate::support::Space;

/// A number from the environment.
fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[expect(clippy::print_stdout, reason = "what was measured is shown with --nocapture")]
fn tell(line: &str) {
    println!("{line}");
}

/// `first` has so many instances that each write a word; `second` has one instance for each of them.
fn freeze(space: &Space, count: usize) -> RunFolder {
    let numbers = (0..count).fold(String::new(), |mut text, n| {
        _ = write!(text, "{n},");
        text
    });
    space.write(
        "p.yaml",
        format!(
            "stages:\n  first: {{kind: command, matrix: {{n: [{numbers}]}}, with: {{run: 'echo ${{n}} > ${{out.o}}', \
             outputs: {{o: o}}}}}}\n  second: {{kind: command, matrix: {{i: {{each: first}}}}, \
             with: {{run: 'cp ${{in.i}} ${{out.o}}', outputs: {{o: o}}}}}}\n"
        ),
    );
    let file = space.path().join("p.yaml");
    let started = Instant::now();
    let graph = Graph::new(expand(&PipelineSpec::read(&file, &Overrides::default()).unwrap()).unwrap());
    let cache = Cache::open(&space.path().join("cache")).unwrap();
    let goals = Goals::all_known(&graph);
    let sources = ExternalInputs::check(&graph, &goals.wanted, &mut StatMemo::open(&cache)).unwrap();
    let context = PlanContext { graph: &graph, cache: &cache, sources: &sources };
    let classes = graph.ids().map(|id| graph.instance(id).stage.clone()).collect();
    let about = RunRecord { pipeline: "scaling".to_owned(), file, ..RunRecord::default() };
    let plan = FrozenPlan::new(context, &goals, about, &classes, &graph.per_instance(None)).unwrap();
    let folder = RunFolder::of(&cache, &RunFolder::new_id());
    plan.write(&folder, context, &goals).unwrap();
    let size = std::fs::metadata(folder.plan_path()).unwrap().len();
    tell(&format!(
        "plan of {} instances: {:.1} MB, {:.1} s",
        graph.len(),
        size as f64 / 1e6,
        started.elapsed().as_secs_f64()
    ));
    folder
}

fn agent(space: &Space, folder: &RunFolder, args: &[&str], trace: Option<&Path>) -> Command {
    let agent = space.command(&[&["agent", "--run", &folder.id().0], args].concat());
    let mut command = match trace {
        None => agent,
        Some(file) => {
            let mut strace = Command::new("strace");
            strace.args(["-f", "-ttt", "-e", "trace=%file,getdents64,fsync,fdatasync,utimensat", "-o"]).arg(file);
            strace.arg(agent.get_program()).args(agent.get_args()).current_dir(space.path());
            strace
        }
    };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The calls of a trace that name a file of the cache, or list or sync one: their times, in seconds, and names.
fn calls(trace: &Path, cache: &Path) -> Vec<(f64, String)> {
    let cache = cache.display().to_string();
    let text = std::fs::read_to_string(trace).unwrap();
    let call = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let (at, rest) = (words.nth(1)?.parse().ok()?, words.next()?.trim_start());
        let (name, _) = rest.split_once('(')?;
        let is_of_cache = rest.contains(&cache) || ["getdents64", "fsync", "fdatasync", "utimensat"].contains(&name);
        is_of_cache.then(|| (at, name.to_owned()))
    };
    text.lines().filter_map(call).collect()
}

#[test]
#[ignore = "it measures, and takes minutes"]
fn of_short_stages() {
    let count = number("ATFLOW_STAGES", 1000);
    for agents in [1, number("ATFLOW_AGENTS", 2)] {
        let space = Space::new();
        let folder = freeze(&space, count);
        let jobs = number("ATFLOW_JOBS", 1).to_string();
        let started = Instant::now();
        let spawn = || agent(&space, &folder, &["--class", "first", "--jobs", &jobs], None).spawn().unwrap();
        let mut herd: Vec<_> = (0..agents).map(|_| spawn()).collect();
        herd.iter_mut().for_each(|agent| assert!(agent.wait().unwrap().success()));
        let seconds = started.elapsed().as_secs_f64();
        let exits = folder.exits();
        assert_eq!(exits.iter().map(|exit| exit.ran).sum::<usize>(), count, "nothing ran twice");
        let memory = exits.iter().map(|exit| exit.peak_memory).max().unwrap_or_default();
        tell(&format!(
            "{count} stages, {agents} agents of {jobs} jobs: {seconds:.2} s, {:.2} ms each; {:.0} MB",
            1e3 * seconds / count as f64,
            memory as f64 / 1e6
        ));
    }
}

#[test]
#[ignore = "it measures, and needs strace"]
fn of_file_operations() {
    let count = number("ATFLOW_STAGES", 500);
    let space = Space::new();
    let folder = freeze(&space, count);
    let trace = |name: &str| -> PathBuf { space.path().join(name) };
    let first = agent(&space, &folder, &["--class", "first", "--jobs", "1"], Some(&trace("busy"))).status().unwrap();
    assert!(first.success());
    let busy = calls(&trace("busy"), &space.path().join("cache"));
    let mut by_name = std::collections::BTreeMap::<&str, usize>::new();
    busy.iter().for_each(|(_, name)| *by_name.entry(name).or_default() += 1);
    tell(&format!("busy: {:.1} operations a stage", busy.len() as f64 / count as f64));
    by_name.iter().for_each(|(name, calls)| tell(&format!("  {name} {:.2}", *calls as f64 / count as f64)));

    let space = Space::new();
    let folder = freeze(&space, count);
    let idle = number("ATFLOW_IDLE", 240);
    let args = ["--class", "second", "--jobs", "1", "--idle", &idle.to_string()];
    let trace = space.path().join("idle");
    assert!(agent(&space, &folder, &args, Some(&trace)).status().unwrap().success());
    assert_eq!(folder.exits()[0].reason, ExitReason::Idle);
    let calls = calls(&trace, &space.path().join("cache"));
    let end = calls.last().map_or(0.0, |(at, _)| *at);
    // The pause is longest after about 40 seconds. The last second writes the last words.
    let late: Vec<_> = calls.iter().filter(|(at, _)| *at > end - (idle as f64 - 45.0) && *at < end - 1.0).collect();
    tell(&format!("idle: {:.3} operations a second after 45 s", late.len() as f64 / (idle as f64 - 46.0)));
    late.iter().for_each(|(at, name)| tell(&format!("  {:.0} s before the end: {name}", end - at)));
}

#[test]
#[ignore = "it measures, and takes minutes"]
fn of_memory() {
    let count = number("ATFLOW_STAGES", 25_000);
    let space = Space::new();
    let folder = freeze(&space, count);
    let started = Instant::now();
    let args = ["--class", "second", "--jobs", "1", "--idle", "2"];
    assert!(agent(&space, &folder, &args, None).status().unwrap().success());
    let exit = folder.exits().remove(0);
    let began = started.elapsed().saturating_sub(Duration::from_secs(2)).as_secs_f64();
    tell(&format!("an agent: {:.0} MB, {began:.1} s from start to idle", exit.peak_memory as f64 / 1e6));
}

//! Measures agents: seconds and file operations per stage, what an idle agent does, and memory. Nothing is asserted but
//! that the work is done. `docs/scaling.md` has the figures and tells how to run it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use atflow::action::Action;
use atflow::cache::{Blob, Cache, Durability, MANIFEST_FORMAT, Made, Manifest, RunRecord, StatMemo};
use atflow::cluster::classes::ClusterFile;
use atflow::cluster::controller::{Ended, Pace, SharedRun, Wish, watch};
use atflow::cluster::folder::{AgentNote, ExitReason, RunFolder};
use atflow::cluster::frozen_plan::FrozenPlan;
use atflow::cluster::site::{JobState, Site, SiteError, SiteJob, Submission};
use atflow::cluster::thawed_plan::ThawedPlan;
use atflow::external_inputs::ExternalInputs;
use atflow::graph::{Graph, Outputs};
use atflow::plan::{Goals, PlanContext};
use atflow::scheduler::Interrupt;
use atflow::spec::{InstanceId, Overrides, PipelineSpec, expand};

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
            strace
                .args(["-f", "-ttt", "-y", "-e", "trace=%file,getdents64,fsync,fdatasync,utimensat,fchmod", "-o"])
                .arg(file);
            strace.arg(agent.get_program()).args(agent.get_args()).current_dir(space.path());
            strace
        }
    };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The calls of a trace that name a file of the cache, or list, sync or change an open one of it: their times, in
/// seconds, and names, with the folder of the cache that the file is in.
fn calls(trace: &Path, cache: &Path) -> Vec<(f64, String)> {
    let cache = format!("{}/", cache.display());
    let text = std::fs::read_to_string(trace).unwrap();
    let call = |line: &str| {
        // Short numbers of processes are padded.
        let (_, rest) = line.split_once(' ')?;
        let (at, rest) = rest.trim_start().split_once(' ')?;
        let (at, rest) = (at.parse().ok()?, rest.trim_start());
        let (name, _) = rest.split_once('(')?;
        // The folder that a process is in names no file.
        let parts = rest.split("AT_FDCWD<").enumerate();
        let rest: String =
            parts.map(|(at, part)| if at == 0 { part } else { part.split_once('>').unwrap_or_default().1 }).collect();
        // Of two names, the second is the new one.
        let (_, path) = rest.rsplit_once(&cache)?;
        let is_scratch = path.starts_with("tmp/stage-");
        let folder = if is_scratch { "tmp/stage" } else { path.split(['/', '"', '>']).next().unwrap_or_default() };
        // To ask about an open file names none.
        (!rest.contains(", \"\", ")).then(|| (at, format!("{name} {folder}")))
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
    for is_elsewhere in [false, true] {
        let (space, elsewhere) = (Space::new(), tempfile::tempdir().unwrap());
        let folder = freeze(&space, count);
        let trace: PathBuf = space.path().join("busy");
        let mut args = vec!["--class", "first", "--jobs", "1"];
        if is_elsewhere {
            args.extend(["--scratch", elsewhere.path().to_str().unwrap()]);
        }
        assert!(agent(&space, &folder, &args, Some(&trace)).status().unwrap().success());
        let busy = calls(&trace, &space.path().join("cache"));
        let mut by_name = std::collections::BTreeMap::<&str, usize>::new();
        busy.iter().for_each(|(_, name)| *by_name.entry(name).or_default() += 1);
        let each = |calls: usize| calls as f64 / count as f64;
        tell(&format!("busy, {}: {:.1} operations a stage", args.join(" "), each(busy.len())));
        by_name.iter().for_each(|(name, calls)| tell(&format!("  {name} {:.2}", each(*calls))));
    }

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

/// A site whose jobs all run at once. It counts what it is asked.
struct CountingSite {
    jobs: Arc<Mutex<Vec<SiteJob>>>,
    submissions: usize,
    lists: usize,
}

impl Site for CountingSite {
    fn submit(&mut self, submission: &Submission<'_>) -> Result<Vec<String>, SiteError> {
        self.submissions += 1;
        let names: Vec<String> = (0..submission.count).map(|task| format!("{}_{task}", self.submissions)).collect();
        let job = |id: &String| SiteJob {
            id: id.clone(),
            state: JobState::Running,
            reason: String::new(),
            node: "node".to_owned(),
            comment: String::new(),
        };
        self.jobs.lock().unwrap().extend(names.iter().map(job));
        Ok(names)
    }

    fn list(&mut self) -> Result<Option<Vec<SiteJob>>, SiteError> {
        self.lists += 1;
        Ok(Some(self.jobs.lock().unwrap().clone()))
    }

    fn cancel(&mut self, _: &[String]) -> Result<(), SiteError> {
        Ok(())
    }

    fn version(&mut self) -> Result<String, SiteError> {
        Ok("a site of a test".to_owned())
    }
}

/// Processor time of a task, in seconds: `self` or `thread-self`.
fn processor_time(task: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{task}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    // The 14th and 15th field, in hundredths of a second; the name is the second.
    fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() * 1024.0 / 1e6
}

/// Makes every result of a plan, so many a second, and writes the notes of the agents that were submitted. Returns the
/// processor time that this took.
fn do_all(plan: &ThawedPlan, cache: &Cache, folder: &RunFolder, jobs: &Mutex<Vec<SiteJob>>, pace: f64) -> f64 {
    let rate = number("ATFLOW_RATE", 50) as f64 / pace;
    let heartbeat = Duration::from_secs_f64(30.0 * pace);
    let context = PlanContext { graph: &plan.graph, cache, sources: &plan.sources };
    let blob: Blob = cache.put(b"a result").unwrap();
    let outputs: Outputs = [("o".to_owned(), blob)].into();
    let made: Made = serde_json::from_value(serde_json::json!({
        "stage": "s", "pipeline": "p", "at": "2100-01-01T00:00:00Z", "seconds": 20.0, "host": "node",
        "device": "engine", "threads": 1, "atflow": "0", "summary": "", "log": {"digest": blob.digest, "size": 8},
    }))
    .unwrap();
    let (started, mut noted) = (Instant::now(), None::<Instant>);
    let write_notes = || {
        for job in jobs.lock().unwrap().iter() {
            let at = jiff::Timestamp::now().to_string();
            let class = if job.id.starts_with("1_") { "first" } else { "second" }.to_owned();
            let note =
                AgentNote { name: job.id.clone(), class, started: at.clone(), at, jobs: 1, ..AgentNote::default() };
            folder.write_agent(&note).unwrap();
        }
    };
    for (number, id) in plan.graph.ids().enumerate() {
        if noted.is_none_or(|noted| noted.elapsed() > heartbeat) {
            noted = Some(Instant::now());
            write_notes();
        }
        let due = Duration::from_secs_f64(number as f64 / rate);
        std::thread::sleep(due.saturating_sub(started.elapsed()));
        let (record, _): (Action, _) = context.action(id, |_: InstanceId| &outputs);
        let (outputs, made) = (outputs.clone(), made.clone());
        let manifest = Manifest { format: MANIFEST_FORMAT, record, outputs, made, from: None };
        cache.result_files().commit(&manifest).unwrap();
    }
    processor_time("thread-self")
}

#[test]
#[ignore = "it measures, and takes minutes"]
fn of_a_controller() {
    let (count, agents) = (number("ATFLOW_STAGES", 25_000), number("ATFLOW_AGENTS", 1000));
    // All intervals are shorter by this factor, and the results come faster.
    let pace = 1.0 / number("ATFLOW_SPEED", 10) as f64;
    let space = Space::new();
    let folder = freeze(&space, count);
    let text = format!(
        "executor: slurm\nclasses:\n  first: {{match: {{stage: first}}, time: 1h, max_agents: {half}}}\n  \
         second: {{match: {{stage: second}}, time: 1h, max_agents: {half}}}\n",
        half = agents / 2
    );
    let cluster = ClusterFile::read(&space.write("cluster.yaml", text)).unwrap();
    let plan = FrozenPlan::read(&folder).unwrap();
    let (since, plan) = (plan.at.clone(), plan.thaw());
    let cache = Cache::open(&space.path().join("cache")).unwrap().with_durability(Durability::None);
    let run = SharedRun {
        context: PlanContext { graph: &plan.graph, cache: &cache, sources: &plan.sources },
        goals: &plan.goals,
        folder: &folder,
        about: plan.about.clone(),
        since: &since,
        classes: &plan.classes,
        class_of: &plan.class_of,
        seconds: &plan.seconds,
        cluster: &cluster,
        program: "atflow",
        env: &[],
        pace: Pace::default().scaled(pace),
    };
    let jobs = Arc::new(Mutex::new(Vec::new()));
    let mut site = CountingSite { jobs: Arc::clone(&jobs), submissions: 0, lists: 0 };
    let (before, processor, started) = (resident(), processor_time("self"), Instant::now());
    let (ended, of_agents) = std::thread::scope(|scope| {
        let others = scope.spawn(|| do_all(&plan, &cache, &folder, &jobs, pace));
        let ended = watch(&run, &mut site, &Interrupt::default(), &mut || Wish::Detach, &mut |_| ());
        (ended.unwrap(), others.join().unwrap())
    });
    let Ended::Over(summary, _) = ended else { panic!("{ended:?}") };
    assert_eq!(summary.ran, 2 * count);
    let (minutes, own) =
        (started.elapsed().as_secs_f64() / 60.0 / pace, processor_time("self") - processor - of_agents);
    let listed = jobs.lock().unwrap().len();
    tell(&format!(
        "a controller of {listed} agents and {} instances, {minutes:.0} minutes at 1/{:.0} of all intervals: \
         {own:.1} s of processor time, {:.0} MB more memory, {:.2} lists and {:.2} submissions a minute",
        2 * count,
        1.0 / pace,
        resident() - before,
        site.lists as f64 / minutes,
        site.submissions as f64 / minutes,
    ));
}

//! Measures a thousand agents in one process. `docs/scaling.md` has the figures and tells how to run it.
//!
//! Real: the scheduler of each agent, its leases, manifests, news and folders, on a file system. Simulated: the clock,
//! and the stages, which write their names and take 10 to 30 seconds by that clock. Agents have one machine and one
//! cached view of the file system, and share the memory of the plan.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::agent::{AgentOptions, Neighbourhood, Notes, scheduler_options};
use super::folder::{AgentNote, RunFolder};
use super::frozen_plan::FrozenPlan;
use super::thawed_plan::ThawedPlan;
use crate::action::ActionKey;
use crate::cache::{Cache, Durability, RunRecord, StatMemo};
use crate::clock;
use crate::digest::Digest;
use crate::event::{RunEvent, Status};
use crate::external_inputs::ExternalInputs;
use crate::graph::Graph;
use crate::host;
use crate::plan::{Goals, PlanContext};
use crate::protocol::{Failure, Job};
use crate::scheduler::simulation::SimulatedRun;
use crate::scheduler::{FailedInstance, Interrupt, Neighbours, News};
use crate::spec::{Overrides, PipelineSpec, expand};

/// Shortest and longest time of a stage, in seconds.
const STAGE_SECONDS: (f64, f64) = (10.0, 30.0);

/// All agents start within this time, as a site's scheduler starts them.
const START_TIME: Duration = Duration::from_secs(60);

/// A run with a job goes round so often.
const TURN: Duration = Duration::from_millis(50);

/// A number from the environment.
fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[expect(clippy::print_stdout, reason = "what was measured is shown with --nocapture")]
fn tell(line: &str) {
    println!("{line}");
}

/// Counts what an agent asks the others.
#[derive(Debug)]
struct Counted {
    own: Neighbourhood,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    looks: AtomicUsize,
    /// Results that the news told of.
    heard: AtomicUsize,
    /// Results of others that it read.
    read: AtomicUsize,
    /// Claims that met another agent's lease, once for each holder.
    collisions: AtomicUsize,
}

impl Neighbours for Counted {
    fn news(&self, is_rare: bool) -> News {
        let news = self.own.news(is_rare);
        self.counts.looks.fetch_add(1, Ordering::Relaxed);
        self.counts.heard.fetch_add(news.done.len(), Ordering::Relaxed);
        news
    }

    fn is_cancelled(&self) -> bool {
        self.own.is_cancelled()
    }

    fn failure_of(&self, key: ActionKey) -> Option<Failure> {
        self.own.failure_of(key)
    }

    fn note_done(&self, key: ActionKey) {
        self.own.note_done(key);
    }

    fn note_failure(&self, failed: &FailedInstance<'_>) {
        self.own.note_failure(failed);
    }

    fn note_worker(&self, device: &str, isa: &str) {
        self.own.note_worker(device, isa);
    }
}

/// Half of the instances write a word; the others copy it, in the next class.
fn pipeline(instances: usize) -> String {
    let numbers = (0..instances / 2).fold(String::new(), |mut text, n| {
        _ = write!(text, "{n},");
        text
    });
    format!(
        "stages:\n  first: {{kind: command, matrix: {{n: [{numbers}]}}, with: {{run: 'echo ${{n}} > ${{out.o}}', \
         outputs: {{o: o}}}}}}\n  second: {{kind: command, matrix: {{i: {{each: first}}}}, \
         with: {{run: 'cp ${{in.i}} ${{out.o}}', outputs: {{o: o}}}}}}\n"
    )
}

/// The class of an instance, by its name.
fn class_of(name: &str, classes: usize) -> usize {
    let number: usize = name.rsplit(['/', '-']).next().and_then(|word| word.parse().ok()).unwrap();
    (number + usize::from(name.starts_with("second"))) % classes
}

fn freeze(cache: &Cache, instances: usize, classes: usize) -> RunFolder {
    let file = cache.root().join("p.yaml");
    fs::write(&file, pipeline(instances)).unwrap();
    let graph = Graph::new(expand(&PipelineSpec::read(&file, &Overrides::default()).unwrap()).unwrap());
    let goals = Goals::all_known(&graph);
    let sources = ExternalInputs::check(&graph, &goals.wanted, &mut StatMemo::open(cache)).unwrap();
    let context = PlanContext { graph: &graph, cache, sources: &sources };
    let names = graph.ids().map(|id| class_of(&graph.instance(id).name, classes).to_string()).collect();
    let about = RunRecord { pipeline: "scaling".to_owned(), file, ..RunRecord::default() };
    let plan = FrozenPlan::new(context, &goals, about, &names, &graph.per_instance(None)).unwrap();
    let folder = RunFolder::of(cache, &RunFolder::new_id());
    plan.write(&folder, context, &goals).unwrap();
    folder
}

fn seconds_of(stage: &str) -> Duration {
    let (shortest, longest) = STAGE_SECONDS;
    let draw = u8::from_str_radix(&Digest::of(stage.as_bytes()).to_string()[..2], 16).map_or(0.0, f64::from) / 255.0;
    Duration::from_secs_f64(shortest + draw * (longest - shortest))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Start,
    Turn,
    StageEnd(u64),
}

/// An agent of the simulation.
#[derive(Default)]
struct Agent {
    run: Option<SimulatedRun<'static>>,
    running: HashMap<u64, Job>,
    turn: Option<Duration>,
    counts: Arc<Counts>,
    /// When it started its last stage, and its looks by then.
    last_start: (Duration, usize),
    ended: Option<Duration>,
}

fn start(plan: &'static ThawedPlan, cache: &'static Cache, folder: &RunFolder, index: usize, class: usize) -> Agent {
    let options = AgentOptions {
        name: format!("agent-{index}"),
        job: None,
        class: class.to_string(),
        until: None,
        idle: Duration::from_secs(300),
        jobs: 1,
        device: "cpu".to_owned(),
        worker: "none".into(),
        keeper: "none".into(),
        scratch: None,
    };
    let counts = Arc::new(Counts::default());
    let notes = Arc::new(Notes::new(folder, AgentNote { name: options.name.clone(), ..AgentNote::default() }));
    let neighbours = Counted { own: Neighbourhood::new(&notes), counts: Arc::clone(&counts) };
    let options = Box::leak(Box::new(scheduler_options(plan, &options, Arc::new(neighbours))));
    let context = PlanContext { graph: &plan.graph, cache, sources: &plan.sources };
    let counted = Arc::clone(&counts);
    let observer = Box::leak(Box::new(move |event: RunEvent| match event {
        RunEvent::StageWaiting { .. } => _ = counted.collisions.fetch_add(1, Ordering::Relaxed),
        RunEvent::StageFinished { status: Status::Cached, .. } => _ = counted.read.fetch_add(1, Ordering::Relaxed),
        _ => {}
    }));
    let interrupt = Box::leak(Box::new(Interrupt::default()));
    Agent { run: Some(SimulatedRun::start(context, options, interrupt, observer)), counts, ..Agent::default() }
}

#[test]
#[ignore = "it measures, and takes minutes"]
fn of_a_thousand_agents() {
    let (count, instances) = (number("ATFLOW_AGENTS", 1000), number("ATFLOW_STAGES", 50_000));
    let classes = number("ATFLOW_CLASSES", 20);
    let dir = tempfile::tempdir().unwrap();
    let began = Instant::now();
    // Nothing is asked of a disk here.
    let cache: &Cache =
        Box::leak(Box::new(Cache::open(dir.path()).unwrap().with_durability(Durability::None).listing()));
    let folder = freeze(cache, instances, classes);
    let plan: &ThawedPlan = Box::leak(Box::new(FrozenPlan::read(&folder).unwrap().thaw()));
    tell(&format!("plan of {instances} instances: {:.1} s", began.elapsed().as_secs_f64()));

    let began = Instant::now();
    let mut agents: Vec<Agent> = (0..count).map(|_| Agent::default()).collect();
    let mut events = BinaryHeap::new();
    (0..count).for_each(|index| {
        events.push(Reverse((START_TIME.mul_f64(index as f64 / count as f64), index, What::Start)));
    });
    let (mut ran, mut busy) = (0, Duration::ZERO);
    let mut last_of = vec![Duration::ZERO; classes];
    while let Some(Reverse((at, index, what))) = events.pop() {
        clock::set(at);
        let agent = &mut agents[index];
        match what {
            What::Start => *agent = start(plan, cache, &folder, index, index % classes),
            What::Turn if agent.turn != Some(at) => continue,
            What::Turn => {}
            What::StageEnd(job) => {
                let job = agent.running.remove(&job).unwrap();
                agent.run.as_mut().unwrap().end(&job);
                ran += 1;
                let last = &mut last_of[class_of(&job.stage, classes)];
                *last = at.max(*last);
            }
        }
        agent.turn = None;
        let Some((started, look)) = agent.run.as_mut().and_then(SimulatedRun::go_on) else {
            (agent.run, agent.ended) = (None, Some(at));
            continue;
        };
        for job in started {
            let seconds = seconds_of(&job.stage);
            busy += seconds;
            agent.last_start = (at, agent.counts.looks.load(Ordering::Relaxed));
            events.push(Reverse((at + seconds, index, What::StageEnd(job.id))));
            agent.running.insert(job.id, job);
        }
        let turn = clock::since_start(look).max(at + TURN);
        agent.turn = Some(turn);
        events.push(Reverse((turn, index, What::Turn)));
    }
    assert_eq!(ran, instances, "nothing ran twice");

    let last = last_of.iter().max().unwrap().as_secs_f64();
    tell(&format!(
        "{count} agents in {classes} classes ran {ran} stages of {:.0} s in {last:.0} s of their time; at best {:.0} s",
        busy.as_secs_f64() / ran as f64,
        busy.as_secs_f64() / count as f64
    ));
    let late = |index: usize| agents[index].ended.unwrap().saturating_sub(last_of[index % classes]).as_secs_f64();
    let mut lates: Vec<f64> = (0..count).map(late).collect();
    lates.sort_by(f64::total_cmp);
    tell(&format!(
        "after the last result of its class an agent ended within {:.1} s (median {:.1} s)",
        lates[count - 1],
        lates[count / 2]
    ));
    let minutes: f64 = agents.iter().map(|agent| agent.last_start.0.as_secs_f64() / 60.0).sum();
    let busy_looks: usize = agents.iter().map(|agent| agent.last_start.1).sum();
    let sum = |of: fn(&Counts) -> &AtomicUsize| -> usize {
        agents.iter().map(|agent| of(&agent.counts).load(Ordering::Relaxed)).sum()
    };
    let each = |count: usize| count as f64 / ran as f64;
    tell(&format!(
        "looks at news: {:.2} a minute and agent until its last stage started, {:.1} a stage in all",
        busy_looks as f64 / minutes,
        each(sum(|counts| &counts.looks))
    ));
    tell(&format!(
        "a stage, by all agents: {:.1} names of news heard, {:.1} manifests of others read, {:.2} claims that met a lease",
        each(sum(|counts| &counts.heard)),
        each(sum(|counts| &counts.read)),
        each(sum(|counts| &counts.collisions))
    ));
    tell(&format!(
        "the simulation took {:.0} s and {:.0} MB",
        began.elapsed().as_secs_f64(),
        host::peak_memory() as f64 / 1e6
    ));
}

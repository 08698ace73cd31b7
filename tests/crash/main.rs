//! Whatever is killed, whenever: what was finished stays, the next run goes on, and the end is the same bytes. Both
//! real programs.

mod space;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use atflow::cache::{Cache, RunRecord};
use atflow::event::{RunEvent, Status};
use atflow::external_inputs::ExternalInputs;
use atflow::graph::Graph;
use atflow::plan::{Goals, PlanContext};
use atflow::scheduler::{Interrupt, Options};
use atflow::spec::{Overrides, PipelineSpec, expand};

use serde_json::Value;
use space::{Draws, Engine, Space, log_of, processes_of, worker};

/// Killed so often unless `ATFLOW_KILLS` says otherwise: a minute's worth.
const KILLS: usize = 60;

/// The longest that a run is left alone, if it takes no more than twice as long.
const LIFE: Duration = Duration::from_millis(1400);

/// Stories with moments in them do not run beside each other.
static ALONE: Mutex<()> = Mutex::new(());

/// A story that failed does not keep the others from being told.
fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two trainings of some epochs, and stages without a worker before and behind them.
const PIPELINE: &str = r#"
stages:
  seeds: {kind: command, with: {run: "sleep 0.1; seq 1 9 > ${out.n}", outputs: {n: n}}}
  sum: {kind: command, needs: {of: seeds}, with: {run: "sleep 0.1; paste -sd+ ${in.of} > ${out.n}", outputs: {n: n}}}
  data:
    kind: dataset
    with:
      format: idx
      train: {images: {path: train.idx}, labels: {path: train.lab}}
      test: {images: {path: test.idx}, labels: {path: test.lab}}
      classes: [left, top, middle]
  model:
    kind: train
    matrix:
      variant:
        rising: {schedule: {shape: triangle, warmup: 0.3}, attack: {attack: none}}
        steps: {schedule: {shape: steps, drop_at: [4]}, attack: {attack: pgd, eps: 8/255, step: 2/255, steps: 3}}
    needs: {data: data.train, validation: data.test}
    with:
      net: {arch: resnet, width: 8, blocks: [1, 1]}
      epochs: 6
      batch_size: 16
      schedule: "${variant.schedule}"
      adversary: "${variant.attack}"
  tested: {kind: evaluate, matrix: {model: {each: model}}, needs: {set: data.test}}
  table:
    kind: table
    needs: {results: tested}
    with: {rows: model.variant, columns: [{label: clean, where: {stage: tested}}]}
"#;

#[test]
fn killed_at_any_moment_it_ends_with_the_same_bytes() {
    let _alone = alone();
    let kills = std::env::var("ATFLOW_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let undisturbed = Space::new(PIPELINE, 480);
    let started = Instant::now();
    undisturbed.finish();
    // On a busy machine the first epoch takes longer: runs live long enough for some to finish it.
    let life = LIFE.max(started.elapsed() / 2).as_millis() as u64;
    let expected = undisturbed.verified_digests();
    assert!(expected.len() >= 12, "{expected:?}");

    let mut draws = Draws(7);
    let (mut done, mut at_start, mut rounds, mut resumed) = (0, 0, 0, 0);
    let mut met = BTreeSet::new();
    while done < kills {
        let space = Space::new(PIPELINE, 480);
        let mut herd: Vec<Engine> = Vec::new();
        let is_complete = loop {
            // One run, or two that share the work.
            while herd.len() <= usize::from(draws.below(3) == 0) {
                herd.push(space.start());
            }
            let moment = Instant::now() + Duration::from_millis(draws.below(life));
            // Often the moment is one at which a worker starts.
            let waits_for_start = draws.below(3) == 0;
            let mut fresh = None;
            while Instant::now() < moment && fresh.is_none() && herd.iter_mut().all(|engine| engine.is_running()) {
                std::thread::sleep(Duration::from_millis(5));
                let started = workers_of(&herd).into_iter().filter(|pid| met.insert(*pid)).last();
                fresh = started.filter(|_| waits_for_start);
            }
            if fresh.is_some() {
                std::thread::sleep(Duration::from_millis(draws.below(200)));
            }
            if herd.iter_mut().any(|engine| engine.has_completed()) {
                break true;
            }
            herd.retain_mut(Engine::is_running);
            let victim = draws.below(herd.len() as u64 + 1) as usize % herd.len().max(1);
            let Some(engine) = herd.get(victim) else { continue };
            let owner = fresh.and_then(|pid| {
                herd.iter().position(|engine| processes_of(engine.pid(), "atflow-worker").contains(&pid)).zip(fresh)
            });
            match (owner, processes_of(engine.pid(), "atflow-worker").as_slice()) {
                (Some((owner, pid)), _) => at_start += usize::from(herd[owner].kill_worker(pid)),
                (None, workers @ [_, ..]) if draws.below(2) == 0 => {
                    let pid = workers[draws.below(workers.len() as u64) as usize];
                    at_start += usize::from(herd[victim].kill_worker(pid));
                }
                _ => herd.swap_remove(victim).kill(),
            }
            done += 1;
            if done >= kills {
                break false;
            }
        };
        // Those that are left share what is to be done with a run of its own; none may wait forever.
        if !is_complete {
            space.finish();
        }
        herd.into_iter().for_each(|engine| assert!(engine.end(), "a run was left behind"));
        assert_eq!(space.verified_digests(), expected, "round {rounds}, {done} kills");
        assert_eq!(space.run(&[]).1, [""; 0], "everything is there");
        assert_eq!(space.leases(), 0);
        assert_eq!(space.progress_left(), 1, "the training that may go on longer left its state, and no other did");
        resumed += ["model/rising", "model/steps"]
            .iter()
            .filter(|stage| log_of(&space, stage).contains("resumed after epoch"))
            .count();
        rounds += 1;
    }
    eprintln_summary(done, at_start, rounds, resumed);
    assert!(resumed > 0, "no training was resumed in {rounds} rounds");
}

/// Agents are killed so often unless `ATFLOW_KILLS` says otherwise.
const AGENT_KILLS: usize = 12;

#[test]
fn agents_that_are_killed_at_any_moment_end_with_the_same_bytes() {
    let _alone = alone();
    let kills = std::env::var("ATFLOW_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(AGENT_KILLS);
    let undisturbed = Space::new(PIPELINE, 480);
    let started = Instant::now();
    undisturbed.finish();
    let life = LIFE.max(started.elapsed() / 2).as_millis() as u64;
    let expected = undisturbed.verified_digests();
    let (mut draws, mut done, mut rounds, mut resumed) = (Draws(11), 0, 0, 0);
    while done < kills {
        let space = Space::new(PIPELINE, 480);
        let run = space.freeze();
        // The plan is all that agents need of it.
        let pipeline = std::fs::read(space.path().join("p.yaml")).unwrap();
        std::fs::remove_file(space.path().join("p.yaml")).unwrap();
        let mut herd: Vec<Engine> = Vec::new();
        while done < kills {
            while herd.len() < 3 {
                herd.push(space.start_agent(&run));
            }
            std::thread::sleep(Duration::from_millis(draws.below(life)));
            if herd.iter_mut().any(|agent| agent.has_completed()) {
                break;
            }
            herd.swap_remove(draws.below(3) as usize).kill();
            done += 1;
        }
        // The last of them finishes what the killed ones left.
        let mut last = space.start_agent(&run);
        space.wait_until("an agent ends by itself", || !last.is_running());
        assert!(last.has_completed());
        herd.into_iter().for_each(|agent| assert!(agent.end(), "an agent was left behind"));
        assert_eq!(space.verified_digests(), expected, "round {rounds}, {done} kills");
        assert_eq!(space.leases(), 0);
        resumed += ["model/rising", "model/steps"]
            .iter()
            .filter(|stage| log_of(&space, stage).contains("resumed after epoch"))
            .count();
        std::fs::write(space.path().join("p.yaml"), pipeline).unwrap();
        assert_eq!(space.run(&[]).1, [""; 0], "everything is there");
        rounds += 1;
    }
    eprintln_summary(done, 0, rounds, resumed);
}

#[expect(clippy::print_stderr, reason = "what was tried is shown with --nocapture")]
fn eprintln_summary(kills: usize, at_start: usize, rounds: usize, resumed: usize) {
    eprintln!(
        "{kills} kills in {rounds} rounds, {at_start} of them of workers that were starting; \
         {resumed} of {} trainings were resumed",
        2 * rounds
    );
}

fn workers_of(herd: &[Engine]) -> Vec<u32> {
    herd.iter().flat_map(|engine| processes_of(engine.pid(), "atflow-worker")).collect()
}

#[test]
fn a_worker_in_the_middle_of_an_attack_does_not_outlive_its_engine() {
    let _alone = alone();
    let space = Space::new(
        &PIPELINE.replace(
            "needs: {set: data.test}}",
            "needs: {set: data.test}, with: {attack: {attack: pgd, eps: 8/255, step: 2/255, steps: 1000000}}}",
        ),
        48,
    );
    let engine = space.start();
    space.wait_until("the attack is under way", || {
        space.manifests().iter().any(|manifest| manifest["made"]["stage"] == "model/rising")
            && space.manifests().iter().any(|manifest| manifest["made"]["stage"] == "model/steps")
    });
    std::thread::sleep(Duration::from_millis(500));
    let workers = processes_of(engine.pid(), "atflow-worker");
    assert!(!workers.is_empty());
    let killed = Instant::now();
    engine.kill();
    space.wait_until("the workers leave", || workers.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()));
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
}

#[test]
fn two_runs_share_the_trainings_and_one_that_is_killed_is_replaced_where_it_stood() {
    let _alone = alone();
    let space = Space::new(PIPELINE, 960);
    let (first, second) = (space.start(), space.start());
    space.wait_until("some progress", || space.progress_left() >= 1);
    first.kill();
    assert!(second.end(), "the other finishes");
    let manifests = space.manifests();
    assert_eq!(manifests.len(), 8, "each stage is recorded once");
    space.verified_digests();
}

#[test]
fn a_training_that_is_over_its_time_fails_and_goes_on_the_next_time() {
    let _alone = alone();
    let space = Space::new(PIPELINE, 480);
    let expected = {
        let undisturbed = Space::new(PIPELINE, 480);
        undisturbed.finish();
        undisturbed.verified_digests()
    };
    let mut failures = Vec::new();
    // The limit grows, so that a slow machine needs more turns and no other outcome.
    for turn in 1..40 {
        let limit = Duration::from_millis(300 * turn);
        let failed = run_limited(&space, limit);
        if failed.is_empty() {
            break;
        }
        failures.extend(failed);
    }
    let words = "took longer than its time limit of 0.3 s";
    assert!(failures.iter().any(|failure| failure == words), "{failures:?}");
    assert!(failures.iter().all(|failure| failure.starts_with("took longer than its time limit of ")), "{failures:?}");
    assert_eq!(space.verified_digests(), expected);
    assert!(log_of(&space, "model/steps").contains("resumed after epoch"));
}

#[test]
fn a_training_that_the_user_stops_says_where_it_goes_on_and_its_log_has_all_epochs() {
    let _alone = alone();
    let space = Space::new(PIPELINE, 2400);
    let engine = space.start();
    space.wait_until("some progress", || space.progress_left() >= 1);
    engine.interrupt();
    let told = |words: &str| words.contains("goes on after epoch ") && words.contains(" of 6");
    let training =
        ["model/steps", "model/rising"].into_iter().find(|stage| told(&space.says(&["plan", "p.yaml", stage])));
    let training = training.expect("a training has made progress");
    assert!(told(&space.says(&["why", "p.yaml", training])));
    let shown = space.says(&["show", training]);
    assert!(shown.contains("interrupted  ") && told(&shown), "{shown}");
    let shown: Value = serde_json::from_str(&space.says(&["show", training, "--json"])).unwrap();
    assert!(shown["interrupted"]["goes_on"]["epoch"].as_u64() >= Some(1), "{shown}");
    space.finish();
    let log = log_of(&space, training);
    assert!(log.starts_with("epoch 1/6  loss ") && log.contains("\nresumed after epoch "), "{log}");
    let epochs: Vec<&str> = log.lines().filter_map(|line| line.strip_prefix("epoch ")?.split('/').next()).collect();
    assert_eq!(epochs, ["1", "2", "3", "4", "5", "6"], "{log}");
    assert!(!told(&space.says(&["plan", "p.yaml", "--all"])));
}

/// Runs the pipeline with a limit for its trainings; gives how stages failed.
fn run_limited(space: &Space, limit: Duration) -> Vec<String> {
    let file = space.path().join("p.yaml");
    let spec = PipelineSpec::read(&file, &Overrides::default()).unwrap();
    let mut instances = expand(&spec).unwrap();
    for instance in instances.iter_mut().filter(|instance| instance.stage == "model") {
        instance.time_limit = Some(limit);
    }
    let graph = Graph::new(instances);
    let goals = Goals::all_known(&graph);
    let cache = Cache::open(&space.path().join("cache")).unwrap();
    let mut memo = atflow::cache::StatMemo::open(&cache);
    let sources = ExternalInputs::check(&graph, &goals.wanted, &mut memo).unwrap();
    let options = Options {
        goals,
        jobs: 2,
        device: "cpu".to_owned(),
        keep_going: true,
        worker: worker(),
        keeper: worker().with_file_name("atflow"),
        about: RunRecord { pipeline: "p".to_owned(), file, ..RunRecord::default() },
        part: None,
    };
    let mut failures = Vec::new();
    let mut observer = |event: RunEvent| {
        if let RunEvent::StageFinished { status: Status::Failed, failure: Some(failure), .. } = event {
            failures.push(failure.message);
        }
    };
    let context = PlanContext { graph: &graph, cache: &cache, sources: &sources };
    let ended = atflow::scheduler::run(context, &options, &Interrupt::default(), &mut observer);
    assert!(ended.broken.is_none(), "{:?}", ended.broken);
    failures
}

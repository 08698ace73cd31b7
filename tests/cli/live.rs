//! What runs now, as other terminals see it: `status`, the log of a running stage, and the lines of `run --json`.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::support::{Ran, Space};

/// `slow` says a line, waits for the file `go`, and says another.
const PIPELINE: &str = r#"pipeline: story
params: {note: first}
stages:
  quick: {kind: command, with: {run: "echo quick > $out", outputs: {out: o}}}
  slow:
    kind: command
    needs: {of: quick}
    with:
      run: "echo before; while ! test -e $HOME/go; do sleep 0.05; done; echo after; : ${note}; cp $of $out"
      outputs: {out: o}
  last: {kind: command, needs: {of: slow}, with: {run: "cp $of $out", outputs: {out: o}}}
"#;

fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE.replace("$out", "${out.out}").replace("$of", "${in.of}"));
    space
}

/// A run that goes on in the background; killed if a test ends before it.
struct Background(Child);

impl Background {
    fn start(space: &Space, args: &[&str]) -> Self {
        let mut command = space.command(args);
        Background(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn end(self) -> Ran {
        let mut this = std::mem::ManuallyDrop::new(self);
        // Taken out, because a value with a destructor cannot be taken apart.
        let child = std::mem::replace(&mut this.0, std::process::Command::new("true").spawn().unwrap());
        Ran::of(child.wait_with_output().unwrap())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn status(space: &Space) -> Vec<Json> {
    let ran = space.run(&["status", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    let status: Json = serde_json::from_str(&ran.stdout).unwrap();
    status["runs"].as_array().unwrap().clone()
}

fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// The state of a run in which `slow` has said its first line.
fn wait_for_slow(space: &Space) -> Json {
    let is_slow =
        |run: &Json| run["running"].as_array().is_some_and(|stages| stages.iter().any(|s| s["stage"] == "slow"));
    wait_until("`slow` runs and has a log", || {
        let run = status(space).into_iter().find(is_slow)?;
        space.run(&["log", "slow"]).stdout.contains("before").then_some(run)
    })
}

#[test]
fn a_run_is_seen_from_another_terminal_until_it_ends() {
    let space = space();
    let quiet = space.run(&["status"]);
    assert_eq!((quiet.code, quiet.stdout.as_str()), (Some(0), "nothing runs with the cache cache\n"));

    let run = Background::start(&space, &["run", "p.yaml", "last", "--set", "note=second"]);
    let state = wait_for_slow(&space);
    assert_eq!(
        (&state["pipeline"], &state["alive"], &state["stages"], &state["ran"]),
        (&json!("story"), &json!(true), &json!(3), &json!(1))
    );
    assert_eq!((&state["set"], &state["targets"]), (&json!([["note", "second"]]), &json!(["last"])));
    let words = space.run(&["status"]).stdout;
    assert!(words.starts_with("story last --set note=second: "), "{words}");
    assert!(words.contains("\n  1 of 3 stages done, 1 ran, 2 new\n    slow  "), "{words}");

    // What is made can be shown before the run ends.
    let quick = wait_until("the result of `quick` is told", || {
        let shown = space.run(&["show", "quick", "--json"]);
        (shown.code == Some(0)).then(|| serde_json::from_str::<Json>(&shown.stdout).unwrap())
    });
    assert_eq!(quick["made"]["stage"], "quick", "{quick}");
    assert_eq!(space.run(&["log", "quick"]).code, Some(0));
    assert_eq!(space.run(&["show", "last"]).code, Some(2));
    let not_yet = space.run(&["show", "slow"]);
    assert!(not_yet.stderr.contains("a run is making it now: `atflow log --follow slow`"), "{}", not_yet.stderr);

    // As far as it is, and then to its end.
    let so_far = space.run(&["log", "slow"]);
    assert_eq!(so_far.stdout, "before\n");
    assert!(so_far.stderr.ends_with("slow is still running; --follow goes on\n"), "{}", so_far.stderr);
    let followed = Background::start(&space, &["log", "--follow", "slow"]);
    let waiting = Background::start(&space, &["log", "-f", "last"]);
    std::thread::sleep(Duration::from_millis(700));
    space.write("go", "");
    let followed = followed.end();
    assert_eq!((followed.code, followed.stdout.as_str()), (Some(0), "before\nafter\n"), "{}", followed.stderr);
    let ran = run.end();
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    let waiting = waiting.end();
    assert!(
        waiting.stderr.starts_with("last is not running; waiting until it is, or until the run ends\n"),
        "{}",
        waiting.stderr
    );
    assert_eq!(waiting.code, Some(0), "{}", waiting.seen());

    assert_eq!(status(&space), [] as [Json; 0]);
    assert!(space.cached_files("live").is_empty(), "the run takes its state with it");
    let words = space.run(&["status"]).stdout;
    assert!(
        words.starts_with("nothing runs with the cache cache\nthe last run, ") && words.contains(": done\n"),
        "{words}"
    );
    assert_eq!(space.run(&["log", "slow"]).stdout, "before\nafter\n", "the stored log is the same");
}

#[test]
fn a_killed_run_is_told_and_the_next_one_clears_it_away() {
    let space = space();
    let mut run = Background::start(&space, &["run", "p.yaml"]);
    wait_for_slow(&space);
    run.0.kill().unwrap();
    run.0.wait().unwrap();
    let state = status(&space);
    assert_eq!((state.len(), &state[0]["alive"]), (1, &json!(false)));
    let words = space.run(&["status"]).stdout;
    assert!(words.contains("\n  killed after ") && words.contains("; run it again to go on\n"), "{words}");
    assert!(space.run(&["log", "-f", "slow"]).stderr.contains("no run in cache has made `slow`"));
    space.write("go", "");
    assert_eq!(space.run(&["run", "p.yaml"]).code, Some(0));
    assert_eq!(status(&space), [] as [Json; 0]);
}

#[test]
fn the_lines_for_programs_are_as_their_schema_says() {
    let space = space();
    space.write("go", "");
    let schema = space.run(&["schema", "run"]);
    let schema: Json = serde_json::from_str(&schema.stdout).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let failing = PIPELINE.replace("echo after", "false");
    for pipeline in [space.read("p.yaml"), failing.replace("$out", "${out.out}").replace("$of", "${in.of}")] {
        space.write("p.yaml", pipeline);
        let lines = space.run(&["run", "p.yaml", "--json", "--set", "note=x", "--force", "last"]).events();
        for line in &lines {
            let errors: Vec<String> = validator.iter_errors(line).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{line}: {errors:?}");
        }
        let times: Vec<&str> = lines.iter().map(|line| line["time"].as_str().unwrap()).collect();
        assert!(times.is_sorted() && times[0].ends_with('Z'), "{times:?}");
        let names: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
        let first = |event| names.iter().position(|name| *name == event);
        assert!(names[0] == "run_started" && first("run_estimated") < first("stage_started"), "{names:?}");
        assert_eq!(names.last(), Some(&"run_finished"));
    }
    assert!(!validator.is_valid(&json!({"event": "stage_started", "stage": 7, "time": "x"})), "it can say no");
    assert!(!validator.is_valid(&json!({"event": "unheard_of", "time": "x"})));
}

#[test]
fn the_estimate_of_a_run_counts_what_never_ran() {
    let space = space();
    space.write("go", "");
    let estimate = |args: &[&str]| {
        let lines = space.run(&[&["run", "p.yaml", "--json"], args].concat()).events();
        lines.into_iter().find(|line| line["event"] == "run_estimated")
    };
    let first = estimate(&[]).unwrap();
    assert_eq!((&first["never_ran"], &first["work"]), (&json!(3), &json!(0.0)));
    let again = estimate(&["--force", "slow"]).unwrap();
    assert_eq!(again["never_ran"], json!(0));
    assert!(again["work"].as_f64().unwrap() > 0.0 && again["wall"].as_f64() <= again["work"].as_f64(), "{again}");
    assert_eq!(estimate(&[]), None, "nothing runs, and nothing is estimated");
}

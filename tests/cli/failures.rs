//! What is lost when something goes wrong: nothing that was finished.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use crate::support::Space;

fn pipeline(middle: &str) -> String {
    format!(
        r#"
stages:
  good: {{kind: command, with: {{run: "echo 1 > ${{out.n}}", outputs: {{n: n}}}}}}
  bad:
    kind: command
    needs: {{of: good}}
    with: {{run: "{middle}", outputs: {{n: n}}}}
  above: {{kind: command, needs: {{of: bad}}, with: {{run: "cat ${{in.of}} > ${{out.n}}; echo above >> ${{out.n}}", outputs: {{n: n}}}}}}
  beside: {{kind: command, needs: {{of: good}}, with: {{run: "sleep 0.3; echo beside; cat ${{in.of}} > ${{out.n}}", outputs: {{n: n}}}}}}
  later: {{kind: command, needs: {{of: beside}}, with: {{run: "echo later; cat ${{in.of}} > ${{out.n}}", outputs: {{n: n}}}}}}
"#
    )
}

#[test]
fn a_failed_stage_stops_the_run_and_the_rest_is_kept() {
    let space = Space::new();
    space.write("p.yaml", pipeline("echo working; echo no such luck >&2; exit 7"));
    let ran = space.run(&["run", "p.yaml", "--json"]);
    assert_eq!(ran.code, Some(1));
    let stages = ran.stages();
    assert_eq!(
        (stages["good"].as_str(), stages["bad"].as_str(), stages["above"].as_str()),
        ("ran", "failed", "skipped")
    );
    assert!(ran.stderr.contains("bad failed") && ran.stderr.contains("no such luck"), "{}", ran.stderr);
    let log = space.run(&["log", "bad"]);
    assert!(log.stdout.contains("working") && log.stdout.contains("no such luck"), "{}", log.stdout);
    let plan = space.run(&["plan", "p.yaml"]).stdout;
    assert!(plan.contains("stale    bad    failed so far"), "{plan}");
    assert!(space.run(&["why", "p.yaml", "bad"]).stdout.contains("it has failed so far"));

    // What is known of the failure, by `show` and by `log`.
    let (show, log) = (space.run(&["show", "bad"]), space.run(&["log", "bad"]));
    let kept = log.stderr.lines().last().unwrap().strip_prefix("its log is in ").unwrap().to_owned();
    insta::with_settings!({filters => vec![(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC after .*?(\n|:)", "TIME$1"), (r"/\S*/objects/\S*", "FILE")]}, {
        insta::assert_snapshot!(format!("{}{}", show.seen(), log.seen()));
    });
    assert_eq!(std::fs::read_to_string(kept).unwrap(), log.stdout);
    let json: serde_json::Value = serde_json::from_str(&space.run(&["show", "bad", "--json"]).stdout).unwrap();
    assert!(json["failed"]["failure"]["message"].is_string() && json["failed"]["at"].is_string(), "{json}");

    space.write("p.yaml", pipeline("cat ${in.of} > ${out.n}"));
    let ran = space.ran(&[]);
    assert!(
        !ran.contains(&"good".to_owned()) && ran.contains(&"bad".to_owned()) && ran.contains(&"above".to_owned()),
        "{ran:?}"
    );
    assert!(!space.run(&["show", "bad"]).stdout.contains("failed"), "it went well since");

    // The command that shows the log of another cache names that cache.
    space.write("p.yaml", pipeline("echo working; exit 7"));
    let ran = space.run(&["run", "p.yaml", "--cache", "my cache"]);
    let told = ran.stderr.replace("\n  | ", "").split_whitespace().collect::<String>();
    assert!(told.contains("`atflowlogbad--cache'mycache'`"), "{}", ran.stderr);
    assert_eq!(space.run(&["log", "bad", "--cache", "my cache"]).stdout, "working\n");

    // A failure is newer than the result that stood before it; both are shown.
    space.write("p.yaml", pipeline("for i in $(seq 30); do echo line $i; done; exit 1"));
    assert_eq!(space.run(&["run", "p.yaml"]).code, Some(1));
    let show = space.run(&["show", "bad"]).stdout;
    assert!(
        show.contains("the last 20 of 30 lines") && show.contains("line 11\n") && !show.contains("line 10\n"),
        "{show}"
    );
    assert!(show.contains("before that it went well:\nstage") && show.contains("output n"), "{show}");
}

#[test]
fn keep_going_does_all_that_does_not_need_the_failed_stage() {
    let space = Space::new();
    space.write("p.yaml", pipeline("exit 1"));
    let ran = space.run(&["run", "p.yaml", "--json", "--keep-going"]);
    assert_eq!(ran.code, Some(1));
    let stages = ran.stages();
    let ends = ["good", "bad", "above", "beside", "later"].map(|name| stages[name].as_str());
    assert_eq!(ends, ["ran", "failed", "skipped", "ran", "ran"]);
}

#[test]
fn an_output_that_is_not_written_is_an_error_that_names_it() {
    let space = Space::new();
    space.write("p.yaml", pipeline("true"));
    let ran = space.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("`n`"), "{}", ran.stderr);
}

#[test]
fn a_corrupt_blob_is_found_put_aside_and_made_again() {
    let space = Space::new();
    space.write("p.yaml", pipeline("cat ${in.of} > ${out.n}"));
    space.ran(&["good"]);
    let blob = space.cached_files("objects").into_iter().find(|path| std::fs::read(path).unwrap() == b"1\n").unwrap();
    std::fs::set_permissions(&blob, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&blob, b"2\n").unwrap();
    let ran = space.run(&["run", "p.yaml", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stages()["good"], "ran");
    assert!(ran.stdout.contains("warning"), "the user is told: {}", ran.stdout);
    assert_eq!(std::fs::read(&blob).unwrap(), b"1\n", "the right bytes are back");
    assert_eq!(space.cached_files("quarantine").len(), 1);
}

#[test]
fn any_number_of_corrupt_inputs_of_a_stage_are_made_again_at_once() {
    let space = Space::new();
    space.write(
        "p.yaml",
        r#"
stages:
  part:
    matrix: {of: [1, 2, 3, 4]}
    kind: command
    with: {run: "echo ${of} > ${out.n}", outputs: {n: n}}
  whole: {kind: command, needs: {of: part}, with: {run: "cat ${in.of} > ${out.n}", outputs: {n: n}}}
"#,
    );
    space.ran(&["part"]);
    for blob in space.cached_files("objects").into_iter().filter(|path| std::fs::read(path).unwrap().len() == 2) {
        std::fs::set_permissions(&blob, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::write(&blob, b"0\n").unwrap();
    }
    let ran = space.run(&["run", "p.yaml", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stages().values().all(|how| how == "ran"), "{:?}", ran.stages());
    assert_eq!(space.cached_files("quarantine").len(), 4);
}

/// Two stages read one corrupt blob; the one that comes late finds it put aside, or made again already.
#[test]
fn a_stage_whose_input_is_put_aside_while_it_reads_waits_until_it_is_made_again() {
    let space = Space::new();
    let consumers: String = (0..12)
        .map(|number| {
            format!("  of{number}: {{kind: command, needs: {{of: good}}, with: {{run: \"cat ${{in.of}} > ${{out.n}}; echo {number} >> ${{out.n}}\", outputs: {{n: n}}}}}}\n")
        })
        .collect();
    space.write(
        "p.yaml",
        format!(
            "stages:\n  good: {{kind: command, with: {{run: \"head -c 4000000 /dev/zero > ${{out.n}}\", outputs: {{n: n}}}}}}\n{consumers}"
        ),
    );
    space.ran(&["good"]);
    let blob =
        space.cached_files("objects").into_iter().find(|path| path.metadata().unwrap().len() == 4_000_000).unwrap();
    std::fs::set_permissions(&blob, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&blob, vec![1; 4_000_000]).unwrap();
    let ran = space.run(&["run", "p.yaml", "--json", "--jobs", "12"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stages().values().all(|how| how == "ran"), "{:?}", ran.stages());
    assert_eq!(space.cached_files("quarantine").len(), 1);
}

#[test]
fn a_blob_that_is_gone_is_made_again_when_somebody_needs_it() {
    let space = Space::new();
    space.write("p.yaml", pipeline("cat ${in.of} > ${out.n}; echo bad >> ${out.n}"));
    space.ran(&["bad"]);
    for blob in space.cached_files("objects") {
        std::fs::remove_file(blob).unwrap();
    }
    // `above` is new and needs what `bad` made, which needs what `good` made: a plan says so, and can be kept.
    let plan = space.run(&["plan", "p.yaml", "above", "--save", "plan.json"]);
    let (stages, _price) = plan.stdout.split_once("3 to run").unwrap();
    let stages: Vec<&str> = stages.lines().map(|line| line.split("  [last time").next().unwrap()).collect();
    insta::assert_snapshot!(stages.join("\n"), @r"
    stale    good   its output `n` is gone from the cache
    stale    bad    its output `n` is gone from the cache
    stale    above  never run
    ");
    let ran = space.run(&["run", "--plan", "plan.json", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let ran: Vec<String> = ran.stages().into_iter().filter(|it| it.1 == "ran").map(|(stage, _)| stage).collect();
    assert_eq!(ran, ["above", "bad", "good"]);
    assert_eq!(space.ran(&[]), ["beside", "later"]);
}

/// `good` is found, `bad` turns out to need its bytes, and so `good` runs after all: whoever reads the events counts
/// what the last line counts.
#[test]
fn a_stage_that_was_done_and_is_made_again_is_taken_back_first() {
    let space = Space::new();
    space.write("p.yaml", pipeline("cat ${in.of} > ${out.n}"));
    space.ran(&["good"]);
    for blob in space.cached_files("objects") {
        std::fs::remove_file(blob).unwrap();
    }
    let ran = space.run(&["run", "p.yaml", "--json"]);
    let of_good =
        |event: &serde_json::Value| (event["stage"] == "good").then(|| event["event"].as_str().unwrap().to_owned());
    let told: Vec<String> = ran.events().iter().filter_map(of_good).collect();
    assert_eq!(told, ["stage_finished", "stage_reopened", "stage_started", "stage_finished"]);
    let last = ran.events().pop().unwrap();
    assert_eq!((&last["ran"], &last["cached"], &last["outcome"]), (&5.into(), &0.into(), &"done".into()), "{last}");
    let count = |event: &str| ran.events().iter().filter(|it| it["event"] == event).count();
    assert_eq!(count("stage_finished") - count("stage_reopened"), 5);
}

#[test]
fn a_broken_manifest_counts_as_not_there() {
    let space = Space::new();
    space.write("p.yaml", pipeline("cat ${in.of} > ${out.n}"));
    space.ran(&[]);
    for manifest in space.cached_files("actions") {
        let bytes = std::fs::read(&manifest).unwrap();
        std::fs::write(&manifest, &bytes[..bytes.len() / 2]).unwrap();
    }
    assert_eq!(space.ran(&[]).len(), 5);
    assert_eq!(space.ran(&[]).len(), 0);
}

#[test]
fn two_names_of_one_computation_run_once() {
    let space = Space::new();
    let stage = |name: &str| {
        format!("  {name}: {{kind: command, with: {{run: 'sleep 0.2; echo 1 > ${{out.n}}', outputs: {{n: n}}}}}}\n")
    };
    space.write("p.yaml", format!("stages:\n{}{}", stage("one"), stage("other")));
    let stages = space.stages(&["--jobs", "4"]);
    let mut ends: Vec<&str> = stages.values().map(String::as_str).collect();
    ends.sort_unstable();
    assert_eq!(ends, ["cached", "ran"]);
}

#[test]
fn ctrl_c_stops_at_once_and_the_next_run_goes_on() {
    let space = Space::new();
    space.write("p.yaml", pipeline("sleep 30; cat ${in.of} > ${out.n}"));
    let child = space.command(&["run", "p.yaml"]).spawn().unwrap();
    let started = Instant::now();
    while space.cached_files("actions").is_empty() && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.status.signal()), (Some(130), None));
    assert!(started.elapsed() < Duration::from_secs(20), "it did not wait for the sleeping stage");
    assert_eq!(space.cached_files("tmp").len(), 0, "nothing half done is left");
    space.write("p.yaml", pipeline("cat ${in.of} > ${out.n}"));
    assert!(!space.ran(&[]).contains(&"good".to_owned()));
}

#[test]
fn programs_do_not_outlive_an_engine_that_is_killed() {
    let space = Space::new();
    let pids = space.path().join("pids");
    // One that does not listen, and one that it left in the background.
    let run = format!("trap '' TERM INT HUP; sleep 300 & echo $$ $! > {0}.new; mv {0}.new {0}; wait", pids.display());
    space.write("p.yaml", pipeline(&run));
    let mut child = space.command(&["run", "p.yaml", "--quiet"]).spawn().unwrap();
    let started = Instant::now();
    while !pids.exists() && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let left: Vec<String> = space.read("pids").split_whitespace().map(str::to_owned).collect();
    assert_eq!(left.len(), 2);
    child.kill().unwrap();
    child.wait().unwrap();
    let is_alive = |pid: &String| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // One that nobody has buried yet is dead all the same.
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().next().is_some_and(|state| state != "Z")
    };
    let killed = Instant::now();
    while left.iter().any(is_alive) && killed.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!left.iter().any(is_alive), "{left:?} are still there");
    // What it was at is cleared by the next run, which does it.
    space.write("p.yaml", pipeline("cat ${in.of} > ${out.n}"));
    assert!(space.ran(&[]).contains(&"bad".to_owned()));
    assert_eq!(space.cached_files("tmp").len(), 0);
    let left: Vec<_> = space.cached_files("leases").into_iter().filter(|path| !path.ends_with("lock")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_program_that_is_over_its_time_fails_with_all_that_it_started() {
    let space = Space::new();
    let text = pipeline("echo begun; sleep 300 & sleep 300")
        .replace("    kind: command\n    needs", "    kind: command\n    time_limit: 0.3 s\n    needs");
    space.write("p.yaml", &text);
    let started = Instant::now();
    let ran = space.run(&["run", "p.yaml", "--json", "--keep-going"]);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(ran.code, Some(1), "{}", ran.seen());
    let stages = ran.stages();
    let ends = ["good", "bad", "above", "beside"].map(|name| stages[name].as_str());
    assert_eq!(ends, ["ran", "failed", "skipped", "ran"]);
    assert!(ran.stderr.contains("bad failed: took longer than its time limit of 0.3 s"), "{}", ran.stderr);
    assert_eq!(space.run(&["log", "bad"]).stdout, "begun\n");
    // The limit is no part of the key, and of what is done.
    space.write("p.yaml", text.replace("0.3 s", "1 h").replace("sleep 300 & sleep 300", "echo 1 > ${out.n}"));
    assert!(!space.ran(&[]).contains(&"good".to_owned()));
    space.write("p.yaml", text.replace("0.3 s", "2 h").replace("sleep 300 & sleep 300", "echo 1 > ${out.n}"));
    assert_eq!(space.ran(&[]), [""; 0]);
}

#[test]
fn without_a_worker_the_error_says_how_to_get_one() {
    let space = Space::new();
    space.write("zero.idx", [[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1].as_slice(), &[9]].concat());
    space.write("zero.lab", [0, 0, 8, 1, 0, 0, 0, 1, 0]);
    space.write(
        "p.yaml",
        r#"
stages:
  data:
    kind: dataset
    with:
      format: idx
      train: {images: {path: zero.idx}, labels: {path: zero.lab}}
      test: {images: {path: zero.idx}, labels: {path: zero.lab}}
      classes: [zero]
  dark: {kind: transform, needs: {data: data}, with: {op: saturate, level: 4}}
"#,
    );
    let output = space.command(&["run", "p.yaml"]).env("ATFLOW_WORKER", "/nowhere/atflow-worker").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = "the worker is missing, there is no /nowhere/atflow-worker";
    assert!(stderr.contains(said) && stderr.contains("make install"), "{stderr}");
    assert_eq!(space.ran(&["data"]), ["data"], "nothing was begun; what needs no worker runs without one");
}

#[test]
fn a_manifest_without_an_output_that_its_kind_has_is_told_and_replaced_by_the_next_run() {
    let space = Space::new();
    space.write(
        "p.yaml",
        "stages:\n  data: {kind: command, with: {run: 'echo 1 > n; echo 2 > m', outputs: {n: n, m: m}}}\n  user: {kind: command, needs: {x: data.m}, with: {run: 'cat ${in.x} > n', outputs: {n: n}}}\n",
    );
    space.ran(&[]);
    for path in space.cached_files("actions") {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
        manifest["outputs"].as_object_mut().unwrap().remove("m");
        std::fs::write(&path, manifest.to_string()).unwrap();
    }
    assert_eq!(space.ran(&[]), ["data"]);
    // A table's manifest is read by its name alone: there is no pipeline that says what it should have.
    let path = &space.cached_files("actions")[0];
    let mut manifest: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    manifest["record"]["kind"] = "table".into();
    let record: atflow::action::Action = serde_json::from_value(manifest["record"].clone()).unwrap();
    let key = record.key().to_string();
    space.write(&format!("cache/actions/{}/{key}.json", &key[..2]), manifest.to_string());
    let run = serde_json::json!({"pipeline": "p", "file": "p.yaml", "at": "", "keys": {"table4": key}});
    space.write("cache/runs/99999999999999999999-1.json", run.to_string());
    let ran = space.run(&["table", "table4"]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("has no output `json`"), "{}", ran.stderr);
}

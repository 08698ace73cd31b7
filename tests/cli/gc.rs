//! What `gc` frees: what neither a named pipeline nor a late run reaches, once it is old enough.

use std::time::{Duration, SystemTime};

use crate::support::Space;

const PIPELINE: &str = r#"pipeline: story
params: {a: 4}
stages:
  one: {kind: command, with: {run: "echo ${a} > ${out.n}", outputs: {n: n}}}
  two: {kind: command, needs: {of: one}, with: {run: "echo two; cat ${in.of} ${in.of} > ${out.n}", outputs: {n: n}}}
"#;

/// Everything in the cache is from so many hours ago.
fn age(space: &Space, hours: u64) {
    let then = SystemTime::now() - Duration::from_secs(3600 * hours);
    for path in space.cached_files("") {
        std::fs::File::open(path).unwrap().set_modified(then).unwrap();
    }
}

fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space.ran(&["--set", "a=5"]);
    space.ran(&[]);
    space
}

fn gc(space: &Space, args: &[&str]) -> String {
    let ran = space.run(&[&["gc"], args].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    ran.stdout
}

fn holds(space: &Space, bytes: &[u8]) -> bool {
    space.cached_files("objects").iter().any(|path| std::fs::read(path).unwrap() == bytes)
}

#[test]
fn what_is_reached_or_young_is_kept_and_the_rest_goes_when_asked() {
    let space = space();
    assert!(gc(&space, &["--keep-runs", "0"]).starts_with("nothing to free"), "all of it is young");
    age(&space, 2);
    assert!(gc(&space, &["p.yaml"]).starts_with("nothing to free"), "two runs are among the last ten");
    // Durations and names of hosts make manifests longer or shorter.
    insta::with_settings!({filters => vec![(r"\([\d.]+ kB\)", "(SIZE)")]}, {
        insta::assert_snapshot!(gc(&space, &["p.yaml", "--keep-runs", "0"]));
    });
    assert!(holds(&space, b"5\n"), "it was only shown");
    let said = gc(&space, &["p.yaml", "--keep-runs", "0", "--yes"]);
    assert!(said.contains("freed 4 files"), "{said}");
    assert!(!holds(&space, b"5\n") && holds(&space, b"4\n"));
    assert_eq!(space.ran(&[]), [""; 0]);
    assert_eq!(space.run(&["log", "two"]).stdout, "two\n", "logs are kept with their results");
    assert_eq!(space.run(&["verify"]).code, Some(0));
    assert_eq!(space.ran(&["--set", "a=5"]), ["one", "two"]);
}

/// What a pipeline reaches with a profile, or with an override, is kept by name; as it is, it always counts.
#[test]
fn what_a_profile_or_an_override_reaches_is_kept_when_it_is_named() {
    let space = Space::new();
    space.write("p.yaml", PIPELINE.replace("params: {a: 4}", "params: {a: 4}\nprofiles: {tiny: {a: 1}, huge: {a: 9}}"));
    space.write("other.yaml", "stages:\n  x: {kind: command, with: {run: 'echo x > ${out.n}', outputs: {n: n}}}\n");
    for args in [&["--set", "a=5"][..], &["--profile", "tiny"], &["--profile", "huge"], &[]] {
        space.ran(args);
    }
    assert_eq!(space.run(&["run", "other.yaml", "-q"]).code, Some(0));
    age(&space, 2);
    let all = ["p.yaml", "other.yaml", "--keep-runs", "0", "--profile", "tiny", "--profile", "huge", "--set", "a=5"];
    let said = gc(&space, &all);
    assert!(said.starts_with("nothing to free"), "{said}");
    let how =
        "reached from p.yaml, other.yaml (as they are, with --profile tiny, with --profile huge, each with --set a=5)";
    assert!(said.lines().any(|line| line == how), "{said}");
    gc(&space, &["p.yaml", "other.yaml", "--keep-runs", "0", "--profile", "tiny", "--yes"]);
    for (kept, bytes) in [(true, b"4\n"), (true, b"1\n"), (true, b"x\n"), (false, b"5\n"), (false, b"9\n")] {
        assert_eq!(holds(&space, bytes), kept, "{bytes:?}");
    }
    let ran = space.run(&["gc", "p.yaml", "--profile", "tinny"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("did you mean `tiny`?"), "{}", ran.seen());
    assert_eq!(space.run(&["gc", "--profile", "tiny"]).code, Some(2), "a profile of nothing");
}

#[test]
fn a_late_run_keeps_its_results_and_the_logs_of_its_failures() {
    let space = space();
    space.write("p.yaml", PIPELINE.replace("cat ${in.of} ${in.of}", "echo no luck; false"));
    assert_eq!(space.run(&["run", "p.yaml", "--set", "a=6"]).code, Some(1));
    age(&space, 2);
    gc(&space, &["--keep-runs", "1", "--yes"]);
    assert!(holds(&space, b"6\n") && !holds(&space, b"5\n") && !holds(&space, b"4\n"));
    assert!(space.run(&["log", "two"]).stdout.contains("no luck"));
}

#[test]
fn what_a_run_comes_upon_again_becomes_young() {
    let space = space();
    age(&space, 2);
    for manifest in space.cached_files("actions") {
        std::fs::remove_file(manifest).unwrap();
    }
    // The same bytes are made again and found there.
    space.ran(&[]);
    gc(&space, &["--keep-runs", "0", "--yes"]);
    assert!(holds(&space, b"4\n") && !holds(&space, b"5\n"));
}

#[test]
fn a_fetched_file_goes_with_the_last_record_that_names_it() {
    let space = Space::new();
    let image = [[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1].as_slice(), &[9]].concat();
    let label = [0, 0, 8, 1, 0, 0, 0, 1, 0];
    let source = |name: &str, bytes: &[u8]| {
        use sha2::Digest;
        space.write(name, bytes);
        let sum: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{{url: 'file://{}', sha256: '{sum}'}}", space.path().join(name).display())
    };
    let files = format!("{{images: {}, labels: {}}}", source("images", &image), source("labels", &label));
    let text = format!(
        "stages: {{data: {{kind: dataset, with: {{format: idx, train: {files}, test: {files}, classes: [x]}}}}}}\n"
    );
    space.write("p.yaml", text);
    space.ran(&[]);
    age(&space, 2);
    gc(&space, &["p.yaml", "--keep-runs", "0", "--yes"]);
    assert!(holds(&space, &image) && space.cached_files("fetched").len() == 2);
    gc(&space, &["--keep-runs", "0", "--yes"]);
    assert_eq!((space.cached_files("objects").len(), space.cached_files("fetched").len()), (0, 0));
}

#[test]
fn progress_that_no_pipeline_can_go_on_from_goes_when_it_is_old() {
    let space = crate::depth::space();
    let other = "ab".repeat(32);
    space.write(&format!("cache/partial/{other}/training.safetensors"), [1; 1000]);
    space.write("cache/VERSION", "1\n");
    age(&space, 24 * 31);
    assert!(
        !gc(&space, &["p.yaml"]).contains("progress                 1"),
        "no training's key is known before its data"
    );
    space.ran(&["digits"]);
    space.run(&["plan", "p.yaml", "--save", "plan.json"]);
    let plan: serde_json::Value = serde_json::from_str(&space.read("plan.json")).unwrap();
    let wanted = plan["stages"]["model/a"]["key"].as_str().unwrap();
    space.write(&format!("cache/partial/{wanted}/training.safetensors"), [1; 1000]);
    age(&space, 24 * 29);
    assert!(gc(&space, &["p.yaml"]).starts_with("nothing to free"), "not old enough");
    age(&space, 24 * 31);
    let said = gc(&space, &["p.yaml"]);
    let line = said.lines().find(|line| line.starts_with("progress")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["progress", "1", "(1.0", "kB)", "1", "(1.0", "kB)"]);
    gc(&space, &["p.yaml", "--yes"]);
    assert!(space.path().join(format!("cache/partial/{wanted}")).exists());
    assert!(!space.path().join(format!("cache/partial/{other}")).exists());
}

#[test]
fn what_a_run_in_progress_may_need_is_kept_however_old() {
    let space = Space::new();
    // What `top` was made from is known only when `gate` has run; `source` and `top` are old, and no run and no
    // pipeline is named.
    let text = r#"pipeline: story
params: {word: old}
stages:
  source: {kind: command, with: {run: "echo source > ${out.n}", outputs: {n: n}}}
  gate: {kind: command, with: {run: "echo > $HOME/at-it; until test -f $HOME/go; do sleep 0.02; done; echo 1 > ${out.n}", outputs: {n: n}}}
  top: {kind: command, needs: {a: gate}, with: {run: "echo top; cat ${in.a} > ${out.n}; echo top >> ${out.n}", outputs: {n: n}}}
  last: {kind: command, needs: {a: top, b: source}, with: {run: "cat ${in.a} ${in.b} > ${out.n}; echo ${word} >> ${out.n}", outputs: {n: n}}}
"#;
    space.write("p.yaml", text);
    space.write("go", "");
    space.ran(&["--set", "word=older"]);
    space.write("q.yaml", "stages: {other: {kind: command, with: {run: 'echo other > n', outputs: {n: n}}}}\n");
    assert_eq!(space.run(&["run", "q.yaml"]).code, Some(0));
    for manifest in space.cached_files("actions") {
        if std::fs::read_to_string(&manifest).unwrap().contains("\"gate\"") {
            std::fs::remove_file(manifest).unwrap();
        }
    }
    for name in ["go", "at-it"] {
        std::fs::remove_file(space.path().join(name)).unwrap();
    }
    age(&space, 24 * 40);
    let run = space.command(&["run", "p.yaml", "--json"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let started = std::time::Instant::now();
    while !space.path().join("at-it").exists() && started.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = gc(&space, &["--keep-runs", "0", "--yes"]);
    assert!(said.contains("1 run in progress: what they may need is kept"), "{said}");
    assert!(holds(&space, b"source\n") && holds(&space, b"1\ntop\n") && !holds(&space, b"other\n"), "{said}");
    space.write("go", "");
    let ran = crate::support::Ran::of(run.wait_with_output().unwrap());
    let ran: Vec<String> = ran.stages().into_iter().filter(|it| it.1 == "ran").map(|(stage, _)| stage).collect();
    assert_eq!(ran, ["gate", "last"], "all else was still there");
    age(&space, 24 * 40);
    gc(&space, &["--keep-runs", "0", "--yes"]);
    assert_eq!(space.cached_files("objects").len(), 0, "the run is over");
}

#[test]
fn runs_that_were_killed_keep_nothing_and_what_they_left_half_done_goes_in_time() {
    let space = space();
    for (name, bytes) in [("stage-elsewhere-7-x/out/0", 3000), ("fetch-sha256-ab/file.part", 2000)] {
        space.write(&format!("cache/tmp/{name}"), vec![0; bytes]);
    }
    assert!(gc(&space, &["--keep-runs", "0", "--yes"]).starts_with("nothing to free"));
    age(&space, 24 * 31);
    // A run of this machine that is gone, as its note says.
    let holder = r#"{"host":"h","pid":1,"machine":"MACHINE","started":1,"run":"1-1","number":1}"#;
    let machine = format!(
        "{} {}",
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim(),
        std::fs::read_link("/proc/self/ns/pid").unwrap().display()
    );
    let note = format!(r#"{{"holder":{},"wanted":{{"shapes":[],"fetched":[]}}}}"#, holder.replace("MACHINE", &machine));
    space.write("cache/leases/1-1.run", note);
    let said = gc(&space, &["--keep-runs", "0", "--yes"]);
    let line = said.lines().find(|line| line.starts_with("half done")).unwrap();
    assert!(line.contains("2 (5.0 kB)") && !said.contains("in progress"), "{said}");
    assert_eq!((space.cached_files("tmp").len(), space.cached_files("objects").len()), (0, 0));
    // Of a run of another version nobody can tell what it needs.
    space.ran(&[]);
    age(&space, 2);
    space.write("cache/leases/2-2.run", "{\"format\": 9}");
    let ran = space.run(&["gc", "--keep-runs", "0", "--yes"]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("of another version of atflow is at work"), "{}", ran.stderr);
    assert!(space.cached_files("objects").len() > 1);
}

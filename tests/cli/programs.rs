//! What programs of stages write, print, start and are given, as the one sees it who runs them.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::depth;
use crate::support::{Ran, Space};

/// A pipeline of one command.
fn one(run: &str) -> String {
    format!("stages:\n  a: {{kind: command, with: {{run: {}, outputs: {{o: o}}}}}}\n", serde_json::json!(run))
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_file_that_somebody_else_has_is_copied_and_not_taken() {
    let space = Space::new();
    let theirs = space.write("theirs.bin", "as it was\n");
    std::fs::set_permissions(&theirs, PermissionsExt::from_mode(0o640)).unwrap();
    space.write(
        "p.yaml",
        format!(
            "stages:\n  a: {{kind: command, with: {{run: 'ln {} o; echo 2 > p; ln p q', outputs: {{o: o, p: p, q: q}}}}}}\n",
            theirs.display()
        ),
    );
    space.ran(&[]);
    assert_eq!((mode(&theirs), theirs.metadata().unwrap().nlink()), (0o640, 1));
    std::fs::write(&theirs, "other bytes\n").unwrap();
    assert_eq!(space.run(&["verify"]).code, Some(0), "the cache has a file of its own");
    for blob in space.cached_files("objects") {
        assert_eq!(blob.metadata().unwrap().nlink(), 1, "{}", blob.display());
    }
}

#[test]
fn a_blob_has_no_mode_whatever_that_of_the_output_was() {
    let space = Space::new();
    space.write("p.yaml", one("echo 1 > o; chmod 4755 o"));
    space.ran(&[]);
    for blob in space.cached_files("objects").into_iter().filter(|blob| blob.metadata().unwrap().len() > 0) {
        assert_eq!(mode(&blob) & 0o7333, 0, "{:o}", mode(&blob));
    }
}

#[test]
fn what_is_wrong_with_an_output_is_the_failure_of_its_stage_and_the_others_go_on() {
    let space = Space::new();
    let stages: String = ["echo m > o; chmod 200 o", "mkdir o", "mkfifo o", "ln -s /etc/passwd o", "echo well > o"]
        .iter()
        .enumerate()
        .map(|(at, run)| format!("  s{at}: {{kind: command, with: {{run: '{run}', outputs: {{o: o}}}}}}\n"))
        .collect();
    space.write("p.yaml", format!("stages:\n{stages}"));
    let ran = space.run(&["run", "p.yaml", "--keep-going", "--json"]);
    assert_eq!(ran.code, Some(1), "{}", ran.seen());
    let stages = ran.stages();
    assert_eq!(stages.values().filter(|how| *how == "failed").count(), 4, "{stages:?}");
    assert_eq!(stages["s4"], "ran");
    assert_eq!(ran.events().pop().unwrap()["outcome"], "failed");
    for says in ["s0 failed", "its mode is 0200", "s1 failed", "is a folder", "is a named pipe", "is a link to"] {
        assert!(ran.stderr.contains(says), "{says}: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("--cache"), "{}", ran.stderr);
}

/// The same for what a worker leaves.
#[test]
fn an_output_of_a_worker_that_is_no_file_is_a_failure_of_its_stage() {
    let space = depth::space();
    let worker = space.read("worker").replace("open(path, \"w\").write(job[\"stage\"])", "os.mkdir(path)");
    space.write("worker", worker);
    let mut command = space.command(&["run", "p.yaml", "--keep-going", "--json"]);
    let ran = Ran::of(command.env("ATFLOW_WORKER", space.path().join("worker")).output().unwrap());
    assert_eq!(ran.code, Some(1), "{}", ran.seen());
    assert!(ran.stderr.contains("its output `checkpoint` is a folder"), "{}", ran.stderr);
}

/// The most memory that a run of these arguments takes, in bytes.
fn peak(space: &Space, args: &[&str], worker: Option<&Path>) -> u64 {
    let mut command = space.command(args);
    if let Some(worker) = worker {
        command.env("ATFLOW_WORKER", worker);
    }
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let size = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(size.unwrap_or(0) * 1024);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(child.wait().unwrap().code(), Some(0), "{args:?}");
    peak
}

const MOST_MEMORY: u64 = 120_000_000;

#[test]
fn a_log_without_bound_stays_on_the_disk_and_its_middle_is_left_out() {
    let space = Space::new();
    let filler = "x".repeat(990);
    let lines = format!("echo first; yes {filler} | head -c 200000000; echo; echo last; echo 1 > o");
    let no_ends = "echo first; head -c 200000000 /dev/zero | tr '\\0' x; echo; echo last; echo 1 > o";
    for run in [lines.as_str(), no_ends] {
        space.write("p.yaml", one(run));
        let taken = peak(&space, &["run", "p.yaml"], None);
        assert!(taken < MOST_MEMORY, "{taken} bytes of memory for {}", &run[..20]);
        let taken = peak(&space, &["log", "a"], None);
        assert!(taken < MOST_MEMORY, "{taken} bytes of memory to show it");
        let log = space.run(&["log", "a"]).stdout;
        assert!(log.len() < (16 << 20) + 1000, "{}", log.len());
        assert!(log.starts_with("first\n") && log.ends_with("last\n"), "{}", &log[log.len() - 100..]);
        let note = log.lines().find(|line| line.contains("bytes are left out here")).unwrap();
        let left_out: u64 = note[1..].split(' ').next().unwrap().parse().unwrap();
        assert!(left_out > 180_000_000, "{note}");
        let show = space.run(&["show", "a"]).stdout;
        assert!(show.contains(&format!("{left_out} bytes of its log were left out")), "{show}");
        let json: serde_json::Value = serde_json::from_str(&space.run(&["log", "a", "--json"]).stdout).unwrap();
        assert_eq!(json["log"].as_str().unwrap(), log);
    }
}

#[test]
fn what_a_worker_prints_without_bound_stays_on_the_disk_as_well() {
    let space = depth::space();
    let noise = r#"    if job["kind"] == "train":
        for _ in range(60):
            sys.stderr.write("y" * 1000000)
            say(event="log", id=job["id"], line="z" * 500000)
        os.write(2, b"\n")
    say(event="finished", id=job["id"], summary="s\033[31m" + "s" * 100000, peak_memory=1)"#;
    let finished = r#"    say(event="finished", id=job["id"], summary="", peak_memory=1)"#;
    space.write("worker", space.read("worker").replace(finished, noise));
    let worker = space.path().join("worker");
    let taken = peak(&space, &["run", "p.yaml", "model/a"], Some(&worker));
    assert!(taken < MOST_MEMORY, "{taken} bytes of memory");
    assert!(space.run(&["log", "model/a"]).stdout.len() < (16 << 20) + 1000);
    let show: serde_json::Value = serde_json::from_str(&space.run(&["show", "model/a", "--json"]).stdout).unwrap();
    let summary = show["made"]["summary"].as_str().unwrap();
    assert!(summary.len() < 700 && summary.contains("of its log were left out"), "{summary}");
    assert!(!summary.contains('\u{1b}'), "{summary}");
}

#[test]
fn what_programs_say_does_nothing_to_a_terminal_and_the_log_has_it_as_it_was() {
    let space = Space::new();
    let said =
        "for i in $(seq 300); do printf '\\r%s %%' $i; done; printf '\\n\\033[31mred\\033]0;title\\007\\n'; exit 3";
    space.write("p.yaml", one(said));
    let ran = space.run(&["run", "p.yaml", "-v"]);
    assert_eq!(ran.code, Some(1), "{}", ran.seen());
    let show = space.run(&["show", "a"]);
    let acts = |text: &str| text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
    for text in [&ran.stderr, &ran.stdout, &show.stdout] {
        assert!(!acts(text), "{text:?}");
        assert!(text.is_empty() || text.contains("300 %") && !text.contains("299 %"), "{text}");
        assert!(text.is_empty() || text.contains("red"), "{text}");
    }
    assert!(ran.stderr.len() < 2000, "{}", ran.stderr);
    let log = space.run(&["log", "a"]).stdout;
    assert!(log.contains("\r299 %\r300 %\n") && log.contains("\u{1b}[31mred\u{1b}]0;title\u{7}\n"), "{log:?}");
}

/// What an author, or who sent him the file, wrote into a pipeline and its inputs.
#[test]
fn what_files_say_does_nothing_to_a_terminal_either() {
    let space = Space::new();
    let acts = |text: &str| text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
    let texts = [
        "stages:\n  a: {kind: command, with: {run: \"exit 1 # \\e[31m\\u009b2J\", outputs: {\"o\\e[2J\": o}}}\n",
        "stages:\n  \"a\\e[31m\": {kind: command, with: {run: x, outputs: {o: o}}}\n",
        "stages:\n  a: {kind: \"\\e]0;x\\a\"}\n",
        "stages:\n  a: {kind: \x1b[31mtrain}\n",
        "params: {x: \"\\e[31m\\r\"}\nstages:\n  a: {kind: command, matrix: {p: [\"${x}\"]}, with: {run: 'exit 1', outputs: {o: o}}}\n",
        "stages: {a: {kind: file, with: {source: {path: \"\\e[31m\"}}}}\n",
    ];
    for text in texts {
        space.write("p.yaml", text);
        for command in ["run", "plan"] {
            let ran = space.run(&[command, "p.yaml"]);
            assert!(!acts(&ran.stderr) && !acts(&ran.stdout), "{text:?}: {:?} {:?}", ran.stderr, ran.stdout);
        }
    }
    // A manifest that somebody else made.
    space.write("p.yaml", one("echo 1 > o"));
    space.ran(&[]);
    for path in space.cached_files("actions") {
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("\"summary\":", "\"summary\":\"\\u001b[31mred\\u009b2J\", \"was\":");
        std::fs::write(&path, text.replace("\"host\":", "\"host\":\"\\u001b]0;x\\u0007\", \"it\":")).unwrap();
    }
    let show = space.run(&["show", "a"]);
    assert!(show.code == Some(0) && show.stdout.contains("red") && !acts(&show.stdout), "{:?}", show.stdout);
    let ran = space.run(&["run", "p.yaml", "-v"]);
    assert!(ran.code == Some(0) && !acts(&ran.stderr), "{:?}", ran.stderr);
}

#[test]
fn a_value_in_a_line_for_the_shell_stays_a_value() {
    let space = Space::new();
    let values =
        ["x; touch ../injected", "$(touch ../injected)", "`touch ../injected`", "a'b\"c", "* ~", "a && b | c > d"];
    for run in ["printf %s ${x} > ${out.o}", "printf %s \"${x}\" > ${out.o}", "printf %s '${x}' > ${out.o}"] {
        for text in [one(run), one("RUN").replace("\"RUN\"", &format!("[sh, -c, {}]", serde_json::json!(run)))] {
            space.write("p.yaml", format!("params: {{x: 1}}\n{text}"));
            for value in values {
                let ran = space.run(&["run", "p.yaml", "--json", "--set", &format!("x={}", serde_json::json!(value))]);
                assert_eq!(ran.code, Some(0), "{value} in {run}: {}", ran.seen());
                let made: Vec<_> =
                    space.cached_files("objects").iter().map(|path| std::fs::read(path).unwrap()).collect();
                assert!(made.contains(&value.as_bytes().to_vec()), "{value} in {run}");
            }
        }
    }
    assert!(walk(space.path()).iter().all(|path| !path.ends_with("injected")));
    // A value of plain characters is put in as ever: the key is the same, and the shell parts words at spaces.
    space.write("p.yaml", format!("params: {{x: '-n a 8/255'}}\n{}", one("echo ${x} > ${out.o}")));
    space.ran(&[]);
    space.write("p.yaml", one("echo -n a 8/255 > ${out.o}"));
    assert_eq!(space.ran(&[]), [""; 0]);
    // What is a line itself is run as one, and the values in it stay values.
    let text = "params: {y: 'a;b', line: 'printf %s ${y} > ${out.o}; true'}\n".to_owned() + &one("${line}");
    space.write("p.yaml", text);
    space.ran(&[]);
    let made: Vec<_> = space.cached_files("objects").iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(made.contains(&b"a;b".to_vec()));
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn no_secret_of_the_environment_gets_into_a_result_unless_it_is_named() {
    let space = Space::new();
    let secret = "made-up-secret";
    let run = |text: String| {
        space.write("p.yaml", text);
        let mut command = space.command(&["run", "p.yaml"]);
        let ran = Ran::of(command.env("AWS_SECRET_ACCESS_KEY", secret).env("ATFLOW_REMOTE", "").output().unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.seen());
        let files = walk(&space.path().join("cache"));
        files.iter().any(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).contains(secret))
    };
    assert!(!run(one("env > o; cat /proc/$PPID/environ | tr '\\0' '\\n' >> o")), "the secret is in the cache");
    let passed = one("env > o").replace("outputs", "pass_env: [AWS_SECRET_ACCESS_KEY], outputs");
    assert!(run(passed), "what is named is passed");
}

/// Runs a pipeline until its program has written its processes, then ends the run by a signal; those must be gone.
fn ended_by(signal: &str, run: &str) {
    let space = Space::new();
    let pids = space.path().join("pids");
    space.write("p.yaml", one(&run.replace("PIDS", &pids.display().to_string())));
    let mut child = space.command(&["run", "p.yaml", "--quiet"]).spawn().unwrap();
    let started = Instant::now();
    let written = || std::fs::read_to_string(&pids).unwrap_or_default();
    while !written().ends_with(".\n") {
        assert!(started.elapsed() < Duration::from_secs(20), "{run}");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    child.wait().unwrap();
    let is_alive = |pid: &&str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().next().is_some_and(|state| state != "Z")
    };
    let killed = Instant::now();
    while written().split_whitespace().any(|pid| pid != "." && is_alive(&pid)) {
        assert!(killed.elapsed() < Duration::from_secs(10), "{signal}: {run}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nothing_that_a_program_started_outlives_the_run_in_whatever_session_it_is() {
    let left = "setsid sh -c 'trap \"\" TERM HUP INT; echo $$ >> PIDS; exec sleep 300' & env -i setsid setsid sh -c 'cd /; echo $$ >> PIDS; sleep 300' & \
                (setsid sh -c '(sleep 300 & echo $! >> PIDS) &' &); sleep 0.3; echo $$ . >> PIDS; sleep 300";
    for signal in ["-INT", "-TERM", "-KILL"] {
        ended_by(signal, left);
    }
}

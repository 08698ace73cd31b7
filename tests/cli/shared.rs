//! One cache, several runs: each stage is done once, whoever does it, and whoever dies over it.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Ran, Space, wait_for};

/// Nothing here takes this long on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Stages that tell of themselves in a file outside of the cache, at their start and at their end.
fn counted(space: &Space, names: &[&str]) -> String {
    let told = space.path().join("told");
    let stage = |name: &&str| {
        format!(
            "  {name}: {{kind: command, with: {{run: \"echo start {name} >> {0}; sleep 0.2; echo {name} > ${{out.n}}; echo end {name} >> {0}\", outputs: {{n: n}}}}}}\n",
            told.display()
        )
    };
    format!("stages:\n{}", names.iter().map(stage).collect::<String>())
}

fn told(space: &Space) -> Vec<String> {
    let mut lines: Vec<String> =
        std::fs::read_to_string(space.path().join("told")).unwrap_or_default().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn start(space: &Space, args: &[&str]) -> Child {
    let mut command = space.command(&[&["run", "p.yaml", "--json"], args].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Ran {
    Ran::of(child.wait_with_output().unwrap())
}

#[test]
fn two_runs_at_once_do_each_stage_once() {
    let space = Space::new();
    let names = ["a", "b", "c", "d", "e", "f"];
    space.write("p.yaml", counted(&space, &names));
    let runs = [start(&space, &["--jobs", "2"]), start(&space, &["--jobs", "2"]), start(&space, &["--jobs", "2"])];
    let ran: Vec<Ran> = runs.map(end).into();
    for ran in &ran {
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(ran.stages().len(), names.len());
    }
    let count = |status: &str| ran.iter().flat_map(Ran::stages).filter(|(_, ended)| ended == status).count();
    assert_eq!((count("ran"), count("cached")), (names.len(), 2 * names.len()));
    let mut expected: Vec<String> = names.iter().flat_map(|n| [format!("end {n}"), format!("start {n}")]).collect();
    expected.sort();
    assert_eq!(told(&space), expected);
    assert_eq!(leases(&space), 0, "no lease is left");
}

fn leases(space: &Space) -> usize {
    space.cached_files("leases").iter().filter(|path| path.extension().is_some_and(|end| end == "json")).count()
}

#[test]
fn when_the_run_that_is_waited_for_is_killed_another_does_the_stage() {
    let space = Space::new();
    let told = space.path().join("told");
    let text = format!(
        "stages:\n  slow: {{kind: command, with: {{run: \"echo start >> {0}; test -f {1} || sleep 60; echo end >> {0}; echo 1 > ${{out.n}}\", outputs: {{n: n}}}}}}\n",
        told.display(),
        space.path().join("quick").display()
    );
    space.write("p.yaml", text);
    let mut first = start(&space, &[]);
    wait_for(PATIENCE, "the first run is at it", || told.exists());
    let second = start(&space, &[]);
    // It shows whom it waits for before the other is killed.
    std::thread::sleep(Duration::from_millis(700));
    space.write("quick", "");
    let pid = first.id();
    first.kill().unwrap();
    // Not waited for yet: a process that has ended and that nobody has noticed is as dead as any.
    let second = end(second);
    first.wait().unwrap();
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    assert_eq!(second.stages()["slow"], "ran");
    let waiting = second.events().into_iter().find(|event| event["event"] == "stage_waiting").expect("it waited");
    assert_eq!(waiting["pid"], pid);
    assert_eq!(std::fs::read_to_string(told).unwrap().lines().filter(|line| *line == "end").count(), 1);
    assert_eq!(space.ran(&[]), [""; 0]);
}

#[test]
fn a_forced_stage_runs_although_another_run_has_just_made_it() {
    let space = Space::new();
    space.write("p.yaml", counted(&space, &["a"]));
    space.ran(&[]);
    let runs = [start(&space, &["--force", "a"]), start(&space, &["--force", "a"])];
    for run in runs {
        assert_eq!(end(run).stages()["a"], "ran");
    }
    assert_eq!(told(&space), ["end a", "end a", "end a", "start a", "start a", "start a"]);
}

#[test]
fn a_stopped_run_leaves_no_lease() {
    let space = Space::new();
    space.write("p.yaml", "stages: {s: {kind: command, with: {run: 'echo > ${out.n}; sleep 60', outputs: {n: n}}}}");
    let run = start(&space, &[]);
    wait_for(PATIENCE, "it runs", || leases(&space) == 1);
    let kill = Command::new("kill").args(["-TERM", &run.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(end(run).code, Some(130), "SIGTERM is as Ctrl-C");
    assert_eq!(leases(&space), 0);
}

#[test]
fn a_second_ctrl_c_does_not_wait_for_a_program_that_will_not_end() {
    let space = Space::new();
    let ready = space.path().join("ready");
    let text = format!(
        "stages: {{s: {{kind: command, with: {{run: \"trap '' TERM INT; echo > {}; while :; do sleep 0.05; done\", outputs: {{n: n}}}}}}}}",
        ready.display()
    );
    space.write("p.yaml", text);
    let run = start(&space, &[]);
    wait_for(PATIENCE, "it runs", || ready.exists());
    let interrupt = || assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
    interrupt();
    std::thread::sleep(Duration::from_millis(300));
    let asked = Instant::now();
    interrupt();
    let run = end(run);
    assert_eq!(run.code, Some(130));
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

/// The cache of a space without the right to write to it. Root may write anywhere, so root's program runs as nobody.
struct ReadOnly<'a> {
    space: &'a Space,
    is_root: bool,
}

impl<'a> ReadOnly<'a> {
    fn new(space: &'a Space) -> Self {
        let mode = |path: &Path, mode: &str| {
            assert!(Command::new("chmod").args(["-R", mode]).arg(path).status().unwrap().success());
        };
        mode(&space.path().join("cache"), "a-w,a+rX");
        let is_root = std::fs::write(space.path().join("cache/probe"), "").is_ok();
        if is_root {
            std::fs::remove_file(space.path().join("cache/probe")).unwrap();
            // Where nobody finds it: a build folder may be out of reach.
            std::fs::copy(env!("CARGO_BIN_EXE_atflow"), space.path().join("atflow")).unwrap();
            mode(space.path(), "a+rX");
        }
        ReadOnly { space, is_root }
    }

    fn run(&self, args: &[&str]) -> Ran {
        if !self.is_root {
            return self.space.run(args);
        }
        let mut command = Command::new(self.space.path().join("atflow"));
        command.args(args).current_dir(self.space.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).uid(NOBODY).gid(NOBODY);
        Ran::of(command.output().unwrap())
    }
}

/// The user without rights, by custom.
const NOBODY: u32 = 65534;

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        _ = Command::new("chmod").args(["-R", "u+w"]).arg(self.space.path().join("cache")).status();
    }
}

#[test]
fn a_cache_that_can_only_be_read_serves_all_that_needs_no_writing() {
    let space = Space::new();
    space.write("p.yaml", counted(&space, &["a"]));
    space.ran(&[]);
    let reader = ReadOnly::new(&space);
    let done = reader.run(&["run", "p.yaml"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("nothing to do") && !done.stderr.contains("warning"), "{}", done.stderr);
    for args in [&["plan", "p.yaml"][..], &["show", "a"], &["log", "a"], &["why", "p.yaml", "a"], &["verify"], &["gc"]]
    {
        let ran = reader.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.stderr);
    }
    space.write("p.yaml", counted(&space, &["a", "b"]));
    assert_eq!(reader.run(&["plan", "p.yaml"]).code, Some(0));
    let ran = reader.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot be written, and this run has stages to run"), "{}", ran.stderr);
}

#[test]
fn a_full_disk_ends_the_run_with_words_and_the_next_one_goes_on() {
    let space = Space::new();
    let text = r#"stages:
  small: {kind: command, with: {run: "echo 1 > ${out.n}", outputs: {n: n}}}
  loud: {kind: command, needs: {of: small}, with: {run: "yes | head -c 300000; echo 2 > ${out.n}", outputs: {n: n}}}
"#;
    space.write("p.yaml", text);
    // No file may grow beyond a few dozen blocks: to the program that is a disk that is full in the middle of a file.
    // Programs ignore the signal that comes with it.
    let program = env!("CARGO_BIN_EXE_atflow");
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("trap '' XFSZ; ulimit -f 100; exec {program} run p.yaml")]);
    limited.current_dir(space.path()).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let ran = Ran::of(limited.output().unwrap());
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot write") && ran.stderr.contains("cache"), "{}", ran.stderr);
    assert_eq!(space.cached_files("actions").len(), 1, "what was finished before is kept, what failed is not there");
    assert_eq!((space.cached_files("tmp").len(), leases(&space)), (0, 0), "nothing half done is left");
    for blob in space.cached_files("objects") {
        let digest = atflow::digest::Digest::of_file(&blob).unwrap().to_string();
        assert!(blob.ends_with(&digest), "{} is not whole", blob.display());
    }
    assert_eq!(space.ran(&[]), ["loud"]);
}

#[test]
fn a_source_that_changes_while_it_is_read_leaves_no_record() {
    let space = Space::new();
    let source = space.write("source.txt", "before");
    let stage = |run: &str| {
        format!("stages: {{s: {{kind: command, with: {{run: \"{run}\", files: [source.txt], outputs: {{n: n}}}}}}}}")
    };
    let run = format!(
        "cat ${{file.source.txt}} > ${{out.n}}; test -f {0}/changed || {{ echo > {0}/changed; echo after > {1}; }}",
        space.path().display(),
        source.display()
    );
    space.write("p.yaml", stage(&run));
    let ran = space.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("changed while it was read, so nothing was recorded"), "{}", ran.stderr);
    assert_eq!(space.cached_files("actions").len(), 0);
    assert_eq!(space.ran(&[]), ["s"]);
    assert_eq!(space.ran(&[]), [""; 0]);
}

#[test]
fn what_killed_runs_left_in_the_cache_is_cleared() {
    let space = Space::new();
    space.write("p.yaml", counted(&space, &["a"]));
    space.ran(&[]);
    let owner = atflow::host::owner();
    let mut dead = Command::new("true").spawn().unwrap();
    let pid = dead.id();
    dead.wait().unwrap();
    let own = std::process::id();
    for (name, pid) in [("stage", pid), ("stage", own)] {
        space.write(&format!("cache/tmp/{name}-{owner}{pid}-x/out/0"), "");
    }
    for pid in [pid, own] {
        space.write(&format!("cache/tmp/file-{owner}{pid}-x"), "");
    }
    // A container of the same name sees other processes.
    let elsewhere = format!("stage-{}-0a1b2c3d-{pid}-x/out/0", owner.split('-').next().unwrap());
    space.write(&format!("cache/tmp/{elsewhere}"), "");
    let key = space.cached_files("actions")[0].file_stem().unwrap().to_string_lossy().into_owned();
    let other = key.chars().rev().collect::<String>();
    for key in [&key, &other] {
        space.write(&format!("cache/partial/{key}/training.safetensors"), "");
    }
    space.ran(&[]);
    let mut left = space.cached_files("tmp");
    left.extend(space.cached_files("partial"));
    let mut left: Vec<_> =
        left.iter().map(|path| path.strip_prefix(space.path().join("cache")).unwrap().display().to_string()).collect();
    let mut expected = [
        format!("tmp/file-{owner}{own}-x"),
        format!("tmp/stage-{owner}{own}-x/out/0"),
        format!("tmp/{elsewhere}"),
        format!("partial/{other}/training.safetensors"),
    ];
    left.sort();
    expected.sort();
    assert_eq!(left, expected, "what is alive, not finished, or of others stays");
}

//! Programs as stages.

use std::time::{Duration, Instant};

use atflow::protocol::FailureCode;
use atflow::stage_kinds::StageKind;
use serde_json::{Value, json};

use crate::support::Bench;

fn bench(run: Value, outputs: Value) -> Bench {
    let names: Vec<String> = outputs.as_object().unwrap().keys().cloned().collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Bench::new(StageKind::Command, json!({"run": run, "outputs": outputs}), &names)
}

#[test]
fn a_shell_line_reads_its_inputs_and_writes_its_outputs() {
    let line = "ls -A | wc -l; cat ${in.text} ${in.many} > ${out.all}; echo ${HOME:+home} $ATFLOW_SEED $WHERE >&2; mkdir -p d; cp ${file.a b.txt} ${out.deep}";
    let mut bench = bench(json!(line), json!({"all": "all.txt", "deep": "d/e.txt"}));
    bench.job.params["env"] = json!({"WHERE": "${in.text}"});
    bench.input("text", "", b"one ");
    bench.input("many", "x/1", b"two ");
    bench.input("many", "x/2", b"three ");
    bench.input("file:a b.txt", "", b"file");
    assert_eq!(bench.run().unwrap(), "all (14 bytes), deep (4 bytes)");
    assert_eq!((bench.text("all"), bench.text("deep")), ("one two three ".into(), "file".into()));
    // The folder held nothing but the folder of an output.
    assert_eq!(bench.recorder.log(), ["1", "home 7 ../in/text"]);
    assert_eq!(bench.left(), ["all", "deep"], "the scratch folder is left behind");
}

#[test]
fn a_program_gets_its_arguments_as_they_are() {
    let run = json!(["sh", "-c", "printf '%s\\n' \"$@\" > out", "name", "a b", "--in=${in.many}", "${HOME}", "$(id)"]);
    let mut bench = bench(run, json!({"out": "out"}));
    bench.input("many", "1", b"x");
    bench.input("many", "2", b"y");
    bench.run().unwrap();
    assert_eq!(bench.text("out"), "a b\n--in=../in/many/1\n--in=../in/many/2\n${HOME}\n$(id)\n");
}

#[test]
fn a_script_given_as_file_runs_and_finds_the_one_beside_it() {
    let mut bench = bench(json!(["${file.bin/main.sh}", "${out.o}"]), json!({"o": "o"}));
    bench.input("file:bin/main.sh", "", b"#!/bin/sh\n. \"$(dirname \"$0\")/more.sh\"\necho $more > \"$1\"\n");
    bench.input("file:bin/more.sh", "", b"more=found\n");
    bench.run().unwrap();
    assert_eq!(bench.text("o"), "found\n");
}

#[test]
fn a_program_cannot_change_the_cache_and_corrupt_inputs_do_not_reach_it() {
    let mut bench = bench(json!("chmod u+w ${in.a}; echo changed > ${in.a}; touch o"), json!({"o": "o"}));
    let path = bench.input("a", "", b"as it was");
    bench.run().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"as it was");
    std::fs::write(&path, b"as it should not be").unwrap();
    assert_eq!(bench.failure().code, FailureCode::CorruptInput { digest: bench.job.inputs[0].digest });
}

#[test]
fn failures_say_what_happened_with_the_last_lines() {
    let failed = bench(json!("seq 1 30; echo no memory >&2; exit 3"), json!({"o": "o"})).failure();
    assert_eq!((failed.code, failed.message.as_str()), (FailureCode::Broken, "`sh` ended with exit status 3"));
    assert_eq!(failed.causes.len(), 10);
    assert!(failed.causes.contains(&"30".to_owned()) || failed.causes.contains(&"no memory".to_owned()));

    let killed = bench(json!("kill -9 $$"), json!({"o": "o"})).failure();
    assert_eq!(killed.message, "`sh` was ended by signal 9");

    let unwritten = bench(json!("touch here"), json!({"o": "o", "p": "p", "q": "here"})).failure();
    assert_eq!(unwritten.code, FailureCode::Broken);
    assert_eq!(
        unwritten.message,
        "the program ended well but did not write o (`o`), p (`p`); in its folder are `here`"
    );

    let absent = bench(json!(["no-such-program-here"]), json!({"o": "o"})).failure();
    assert_eq!(absent.message, "`no-such-program-here` cannot be started");
    assert_eq!(absent.causes.len(), 1);
}

#[test]
fn mistakes_in_the_pipeline_are_found_before_anything_runs() {
    let message = |run: Value, outputs: Value| {
        let mut bench = bench(run, outputs);
        bench.input("data", "", b"");
        let failure = bench.failure();
        assert_eq!(failure.code, FailureCode::Invalid);
        assert!(bench.recorder.log().is_empty() && bench.left().is_empty());
        failure.message
    };
    let messages = [
        message(json!("echo ran; cat ${in.date}"), json!({"o": "o"})),
        message(json!("echo ran; cat ${in.data"), json!({"o": "o"})),
        message(json!([]), json!({"o": "o"})),
        message(json!("echo ran"), json!({"o": "../o"})),
        message(json!("echo ran"), json!({"o": "/tmp/o"})),
        message(json!("echo ran"), json!({"o": "x", "p": "x"})),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r#"
    `${in.date}` names nothing that this stage has; it has ${in.data}, ${out.o}
    `${` without its `}` in `echo ran; cat ${in.data`
    `run` names no program
    output o is to be read from `../o`, which is not a file name inside the program's folder
    output o is to be read from `/tmp/o`, which is not a file name inside the program's folder
    outputs o and p are to be read from one file, `x`
    "#);
}

#[test]
fn a_cancelled_program_is_ended_with_all_that_it_started() {
    let mut bench = bench(json!("trap 'echo bye; exit 0' TERM; sleep 600 & echo started $!; wait"), json!({"o": "o"}));
    bench.recorder.cancel_at = Some("started".into());
    let start = Instant::now();
    assert_eq!(bench.failure().code, FailureCode::Cancelled);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let log = bench.recorder.log();
    assert!(log.contains(&"bye".to_owned()), "the program had no time to end by itself: {log:?}");
    assert_gone(log[0].strip_prefix("started ").unwrap());
}

#[test]
fn a_program_that_does_not_listen_is_killed() {
    let mut bench = bench(json!("trap '' TERM; echo started; while :; do sleep 0.05; done"), json!({"o": "o"}));
    bench.recorder.cancel_at = Some("started".into());
    let start = Instant::now();
    assert_eq!(bench.failure().code, FailureCode::Cancelled);
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}

#[test]
fn what_a_program_leaves_running_does_not_hold_the_stage() {
    let bench = bench(json!("sleep 600 & echo $!; touch o"), json!({"o": "o"}));
    let start = Instant::now();
    bench.run().unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_gone(&bench.recorder.log()[0]);
}

/// What a session of its own, a daemon, or a clean environment hides is found all the same, and ended before outputs
/// are taken.
#[test]
fn nothing_that_a_program_started_outlives_it() {
    let lines = [
        "setsid sleep 600 & echo $! > pid; touch o",
        "env -i setsid sh -c 'echo $$ > pid; cd /; exec sleep 600' & sleep 0.1; touch o",
        "(setsid setsid sh -c 'echo $$ > pid; sleep 600 >/dev/null 2>&1 & wait' &) ; sleep 0.1; touch o",
        "nohup setsid sh -c 'trap \"\" TERM HUP INT; echo $$ > pid; while :; do sleep 1; done' >/dev/null 2>&1 & sleep 0.1; touch o",
    ];
    for line in lines {
        let bench = bench(json!(line), json!({"o": "o", "pid": "pid"}));
        let start = Instant::now();
        bench.run().unwrap();
        assert!(start.elapsed() < Duration::from_secs(4), "{line}: {:?}", start.elapsed());
        assert_gone(bench.text("pid").trim());

        // The same where the stage is given up.
        let mut given_up =
            self::bench(json!(line.replace("touch o", "cat pid; echo started; sleep 600")), json!({"o": "o"}));
        given_up.recorder.cancel_at = Some("started".into());
        assert_eq!(given_up.failure().code, FailureCode::Cancelled);
        assert_gone(&given_up.recorder.log()[0]);
    }
}

#[test]
fn what_a_program_left_running_does_not_change_its_output() {
    let line = "(setsid sh -c 'while :; do echo late >> o; done' &); while ! test -s o; do :; done; echo done > p";
    let bench = bench(json!(line), json!({"o": "o", "p": "p"}));
    bench.run().unwrap();
    let then = bench.output("o").len();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(bench.output("o").len(), then);
}

#[test]
fn only_a_file_of_its_own_is_an_output() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let theirs = file.path().display();
    for (line, says) in [
        ("mkdir o", "output o (`o`) is a folder"),
        (&*format!("ln -s {theirs} o"), "output o (`o`) is a link to `"),
        ("echo 1 > p; ln -s p o", "output o (`o`) is a link to `p`, and an output is a file of its own"),
        ("ln -s nowhere o", "output o (`o`) is a link to `nowhere`"),
        ("mkfifo o", "output o (`o`) is a named pipe"),
        ("python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"o\")'", "output o (`o`) is a socket"),
        ("echo 1 > o; chmod 200 o", "output o (`o`) cannot be read: its mode is 0200"),
        ("truncate -s 4096P o || truncate -s 8T o", "output o (`o`) says that it is "),
    ] {
        let failed = bench(json!(line), json!({"o": "o"})).failure();
        assert_eq!(failed.code, FailureCode::Broken, "{line}");
        assert!(failed.message.starts_with(says), "{line}: {}", failed.message);
    }
    // What lies behind a link in the place of a folder is not the program's, either.
    let folder = file.path().parent().unwrap().display();
    let name = file.path().file_name().unwrap().to_str().unwrap();
    let failed = bench(json!(format!("rmdir d; ln -s {folder} d")), json!({"o": format!("d/{name}")})).failure();
    assert!(failed.message.contains("is a link to"), "{}", failed.message);
    // All of it is told at once.
    let failed = bench(json!("mkdir o; mkfifo p"), json!({"o": "o", "p": "p", "q": "q"})).failure();
    assert!(failed.message.contains("did not write q (`q`)") && failed.causes.len() == 2, "{failed:?}");
}

#[test]
fn an_environment_is_declared() {
    let mut bench = bench(json!("env | sort | grep -v '^_=\\|^PWD=\\|^OLDPWD=\\|^SHLVL=' > o"), json!({"o": "o"}));
    bench.job.params["env"] = json!({"OWN": "1", "ATFLOW_THREADS": "all"});
    // Set wherever cargo runs tests, and nothing that a program is passed by itself.
    bench.job.params["pass_env"] = json!(["CARGO_MANIFEST_DIR", "NOT_SET_ANYWHERE"]);
    bench.run().unwrap();
    let text = bench.text("o");
    let names: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let declared = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR"];
    let own = ["ATFLOW_SEED", "ATFLOW_THREADS", "OWN", "CARGO_MANIFEST_DIR"];
    assert!(own.iter().all(|name| names.contains(name)), "{text}");
    let is_declared = |name: &&str| own.contains(name) || declared.contains(name) || name.starts_with("LC_");
    assert!(names.iter().all(is_declared), "{text}");
    assert!(text.contains("OWN=1\n") && text.contains("ATFLOW_THREADS=all\n"), "{text}");
}

#[test]
fn what_a_stage_made_has_no_mode_and_the_error_says_how_to_run_it() {
    let script = b"#!/bin/sh\necho ran > o\n";
    for run in [json!("${in.x}"), json!(["${in.x}"])] {
        let mut bench = bench(run, json!({"o": "o"}));
        bench.input("x", "", script);
        let failed = bench.failure();
        assert!(failed.causes.iter().any(|cause| cause.contains("as in `sh ${in.NEED}`")), "{failed:?}");
    }
    let mut bench = bench(json!("sh ${in.x}"), json!({"o": "o"}));
    bench.input("x", "", script);
    bench.run().unwrap();
    assert_eq!(bench.text("o"), "ran\n");
}

#[test]
fn what_a_failure_tells_of_a_programs_text_is_short_and_does_nothing_to_a_terminal() {
    let bars = "for i in $(seq 300); do printf '\\r%s of 300 [##########                    ]' $i; done; echo; ";
    let rest = "printf '\\033[31mred\\033[0m \\007\\n'; head -c 1000000 /dev/zero | tr '\\0' x; exit 3";
    let bench = bench(json!(format!("{bars}{rest}")), json!({"o": "o"}));
    let failed = bench.failure();
    assert!(failed.causes.iter().map(String::len).sum::<usize>() < 10_000, "{failed:?}");
    assert!(failed.causes.iter().all(|cause| !cause.contains(char::is_control)), "{failed:?}");
    // The log has all of it as it was.
    let log = bench.recorder.log();
    assert!(log[0].contains("\r299 of 300") && log[1] == "\x1b[31mred\x1b[0m \x07", "{:?}", &log[..2]);
    let short =
        self::bench(json!(format!("{bars}printf '\\033[31mred\\033[0m\\n'; exit 3")), json!({"o": "o"})).failure();
    assert_eq!(short.causes, ["300 of 300 [##########                    ]", "red"]);
}

/// The process is no more, or only waits for its parent to notice.
fn assert_gone(pid: &str) {
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let gone = || state().rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.trim_start().starts_with('Z'));
    let start = Instant::now();
    while !gone() {
        assert!(start.elapsed() < Duration::from_secs(2), "process {pid} is still there: {}", state());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn output_without_line_ends_and_without_sense_is_logged_all_the_same() {
    let bench = bench(json!("head -c 100000 /dev/zero | tr '\\0' x; printf '\\377\\n'; touch o"), json!({"o": "o"}));
    bench.run().unwrap();
    let log = bench.recorder.log();
    assert_eq!(log.iter().map(|line| line.matches('x').count()).sum::<usize>(), 100_000);
    assert!(log.len() > 1 && log.last().unwrap().ends_with('\u{fffd}'));
}

#[test]
fn a_trivial_program_does_not_wait_for_the_next_look_at_it() {
    let bench = bench(json!(["true"]), json!({}));
    let timed = |_| {
        let start = Instant::now();
        bench.run().unwrap();
        start.elapsed()
    };
    // The fastest of some: on a busy machine any one may be slow.
    let fastest = (0..20).map(timed).min().unwrap();
    assert!(fastest < Duration::from_millis(25), "{fastest:?}");
}

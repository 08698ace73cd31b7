//! What a worker says of a stage reaches the user, the log and the record.

use crate::depth;
use crate::support::Ran;

#[test]
fn a_warning_is_told_and_logged_and_the_time_of_earlier_runs_is_recorded() {
    let space = depth::space();
    let worker = space.read("worker").replace(
        r#"    say(event="finished", id=job["id"], summary="", peak_memory=1)"#,
        r#"    say(event="warning", id=job["id"], message="the disk is full")
    say(event="finished", id=job["id"], summary="", peak_memory=1, earlier_seconds=1000.5)"#,
    );
    space.write("worker", worker);
    let run = |args: &[&str]| {
        let mut command = space.command(&[&["run", "p.yaml", "model/a"], args].concat());
        Ran::of(command.env("ATFLOW_WORKER", space.path().join("worker")).output().unwrap())
    };
    let ran = run(&["--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    let events = ran.events();
    let mut warnings = events.iter().filter(|event| event["event"] == "warning").map(|event| &event["message"]);
    assert!(warnings.any(|message| message == "model/a: the disk is full"), "{}", ran.stdout);
    let is_end = |event: &&serde_json::Value| event["event"] == "stage_finished" && event["stage"] == "model/a";
    let took = ran.events().iter().find(is_end).unwrap()["seconds"].as_f64().unwrap();
    assert!(took < 500.0, "a run tells how long it took itself: {took}");
    let made: serde_json::Value = serde_json::from_str(&space.run(&["show", "model/a", "--json"]).stdout).unwrap();
    let all = made["made"]["seconds"].as_f64().unwrap();
    assert!((all - took - 1000.5).abs() < 0.001, "{all} is not {took} and 1000.5");
    assert_eq!(space.run(&["log", "model/a"]).stdout, "the disk is full\n");
    let ran = run(&["--force", "model/a"]);
    assert!(ran.stderr.contains("warning: model/a: the disk is full"), "{}", ran.stderr);
}

/// A checkpoint may hold a TorchScript network, which is a program: a worker runs it only where the author wanted one.
#[test]
fn only_a_pipeline_with_torchscript_networks_lets_workers_run_them() {
    let space = depth::space();
    let worker =
        space.read("worker").replace("def say", "open('arguments', 'w').write(' '.join(sys.argv[1:]))\ndef say");
    space.write("worker", worker);
    space.write("network.pt", "a program");
    let arguments = || {
        let mut command = space.command(&["run", "p.yaml", "tested/a"]);
        let ran = Ran::of(command.env("ATFLOW_WORKER", space.path().join("worker")).output().unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.seen());
        space.read("arguments")
    };
    assert_eq!(arguments(), "--device auto --numerics portable");
    let pipeline =
        space.read("p.yaml").replace("net: {arch: resnet, width: 4, blocks: [1]}", "net: {arch: torchscript}");
    let pipeline = pipeline.replace("needs: {data: digits.train}", "needs: {data: digits.train, network: file}");
    space.write("p.yaml", pipeline + "  file: {kind: file, with: {source: {path: network.pt}}}\n");
    assert_eq!(arguments(), "--device auto --numerics portable --scripts");
}

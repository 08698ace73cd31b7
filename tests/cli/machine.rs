//! What helps people to set up: `doctor`, `schema`, `completions`.

use std::os::unix::fs::PermissionsExt;

use crate::support::{Ran, Space};

/// Runs the doctor with a worker that is a shell script of these lines.
fn doctor(space: &Space, script: &str, args: &[&str]) -> Ran {
    let worker = space.write("worker", format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(&worker, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = space.command(&[&["doctor"], args].concat()).env("ATFLOW_WORKER", &worker).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

const HELLO: &str = r#"[ "$2" = cuda:0 ] && echo '{"event": "unusable", "message": "no GPU here"}' && exit
echo '{"event": "hello", "protocol": PROTOCOL, "version": "0.1.0", "libtorch": "2.11.0", "device": "cpu", "device_name": "a CPU"}'"#;

fn hello(protocol: u32) -> String {
    HELLO.replace("PROTOCOL", &protocol.to_string())
}

#[test]
fn a_machine_that_has_everything_is_well() {
    let space = Space::new();
    space.write("p.yaml", "stages: {a: {kind: command, with: {run: 'echo 1 > ${out.n}', outputs: {n: n}}}}\n");
    space.ran(&[]);
    let ran = doctor(&space, &hello(atflow::protocol::PROTOCOL_VERSION), &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    for line in
        ["ok       libtorch    2.11.0", "ok       device      cpu (a CPU)", "none: no GPU here", "ok       locks"]
    {
        assert!(ran.stdout.contains(line), "{line} is missing in\n{}", ran.stdout);
    }
    assert_eq!(space.cached_files("tmp").len(), 0, "it leaves nothing");
}

#[test]
fn what_is_wrong_is_a_problem_with_advice() {
    let space = Space::new();
    let problem = |script: &str| {
        let ran = doctor(&space, script, &["--json"]);
        assert_eq!(ran.code, Some(2), "{}", ran.seen());
        let checks = serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap()["checks"].clone();
        let problem = checks.as_array().unwrap().iter().find(|check| check["state"] == "problem").unwrap().clone();
        assert!(!problem["advice"].as_str().unwrap().is_empty());
        problem["found"].as_str().unwrap().to_owned()
    };
    assert!(problem("echo 'libtorch.so: not found' >&2; exit 127").contains("libtorch.so: not found"));
    assert!(problem(&hello(99)).contains("speaks protocol 99"));
    assert!(problem(r#"echo '{"event": "unusable", "message": "broken"}'"#).contains("broken"));
    space.write("cache/VERSION", "99\n");
    assert!(problem(&hello(atflow::protocol::PROTOCOL_VERSION)).contains("has format 99"));
    assert!(!space.path().join("cache/objects").exists(), "a cache of another version is left alone");
}

#[test]
fn the_schema_and_completions_are_printed() {
    let space = Space::new();
    let schema: serde_json::Value = serde_json::from_str(&space.run(&["schema"]).stdout).unwrap();
    assert_eq!(schema["properties"]["stages"]["type"], "object");
    for (shell, word) in
        [("bash", "-F _clap_complete_atflow"), ("zsh", "#compdef atflow"), ("fish", "complete --keep-order")]
    {
        let ran = space.run(&["completions", shell]);
        assert!(ran.code == Some(0) && ran.stdout.contains(word), "{shell}");
    }
}

#[test]
fn the_readme_tells_of_every_command_and_every_option_of_run() {
    let space = Space::new();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let help = space.run(&["--help"]).stdout;
    let commands = help.split_once("Commands:").unwrap().1.split_once("Options:").unwrap().0;
    for command in commands.lines().filter_map(|line| line.split_whitespace().next()) {
        assert!(readme.contains(&format!("`atflow {command}")), "README.md does not tell of `atflow {command}`");
    }
    let help = space.run(&["run", "--help"]).stdout;
    let options: Vec<&str> = help.lines().filter_map(|line| line.trim_start().strip_prefix("--")).collect();
    assert!(options.len() > 10, "{help}");
    for option in options.iter().map(|line| line.split([' ', ',']).next().unwrap()) {
        let count = readme.matches(&format!("| `--{option}")).count();
        assert_eq!(count, 1, "README.md tells {count} times of --{option}");
    }
}

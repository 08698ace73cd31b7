//! Formats have versions: what a program does with what another version wrote. It never takes it for its own and never
//! spoils it.

use std::os::unix::fs::PermissionsExt;

use crate::support::{Ran, Space};

const PIPELINE: &str = "stages:\n  a: {kind: command, with: {run: 'echo 1 > ${out.n}', outputs: {n: n}}}\n  b: {kind: command, needs: {x: a}, with: {run: 'cat ${in.x} > ${out.n}; echo b >> ${out.n}', outputs: {n: n}}}\n";

fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space
}

#[test]
fn a_cache_of_another_version_is_refused_and_left_alone() {
    let space = space();
    space.write("cache/VERSION", "99\n");
    space.write("cache/objects/their-own", "theirs");
    for args in [&["run", "p.yaml"][..], &["plan", "p.yaml"], &["gc", "--yes"], &["verify", "--repair"], &["show", "a"]]
    {
        let ran = space.run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.seen());
        assert!(ran.stderr.contains("has format 99; this version of atflow reads format 1"), "{}", ran.stderr);
        assert!(ran.stderr.contains("help: use another folder with --cache"), "{}", ran.stderr);
    }
    assert_eq!(space.cached_files("").len(), 2);
    // Elsewhere it is no other.
    let other = self::space();
    let folder = space.path().join("cache").display().to_string();
    for args in [["run", "p.yaml"], ["push", "p.yaml"], ["pull", "p.yaml"]] {
        let ran = other.run(&[&args[..], &["--remote", &folder]].concat());
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.seen());
        assert!(ran.stderr.contains("has format 99"), "{}", ran.stderr);
    }
    assert_eq!(space.cached_files("").len(), 2);
}

#[test]
fn a_manifest_of_another_version_counts_as_not_there_and_is_told() {
    let space = space();
    space.ran(&[]);
    for path in space.cached_files("actions") {
        let text = std::fs::read_to_string(&path).unwrap();
        let newer = text.replacen("\"format\": 1", "\"format\": 99", 1).replacen("\"format\":1", "\"format\":99", 1);
        assert_ne!(newer, text);
        std::fs::write(&path, newer).unwrap();
    }
    let ran = space.run(&["verify"]);
    assert_eq!(ran.code, Some(3), "{}", ran.seen());
    assert!(ran.stdout.contains("its format is 99, this version reads 1"), "{}", ran.stdout);
    assert_eq!(space.ran(&[]), ["a", "b"], "they are made again");
    assert_eq!(space.run(&["verify"]).code, Some(0));
}

#[test]
fn records_of_runs_of_another_version_are_passed_over() {
    let space = space();
    space.ran(&[]);
    space.write("cache/runs/99999999999999999999-1.json", "{\"format\": 99, \"all\": []}");
    assert_eq!(space.ran(&[]), [""; 0]);
    assert_eq!(space.run(&["log", "a"]).code, Some(0));
    assert_eq!(space.run(&["gc", "--yes"]).code, Some(0));
}

#[test]
fn a_worker_of_another_version_is_refused_before_it_gets_work() {
    let space = crate::depth::space();
    let script = "#!/bin/sh\necho '{\"event\": \"hello\", \"protocol\": 99, \"version\": \"9\", \"libtorch\": \"2\", \"device\": \"cpu\", \"device_name\": \"c\"}'\nread line && echo \"$line\" > \"$HOME/got\"\n";
    let worker = space.write("other-worker", script);
    std::fs::set_permissions(&worker, std::fs::Permissions::from_mode(0o755)).unwrap();
    let ran = Ran::of(space.command(&["run", "p.yaml"]).env("ATFLOW_WORKER", &worker).output().unwrap());
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    let words = format!("speaks protocol 99; this version of atflow speaks {}", atflow::protocol::PROTOCOL_VERSION);
    assert!(ran.stderr.contains(&words) && ran.stderr.contains("make build"), "{}", ran.stderr);
    assert!(!space.path().join("got").exists());
}

#[test]
fn the_version_of_a_kind_s_code_is_part_of_every_key() {
    let space = space();
    space.ran(&["a"]);
    let show = space.run(&["show", "a", "--json"]).stdout;
    let mut manifest: serde_json::Value = serde_json::from_str(&show).unwrap();
    let of = |manifest: &serde_json::Value| {
        serde_json::from_value::<atflow::action::Action>(manifest["record"].clone()).unwrap().key().to_string()
    };
    let key = of(&manifest);
    assert!(space.path().join(format!("cache/actions/{}/{key}.json", &key[..2])).exists());
    manifest["record"]["version"] = 99.into();
    assert_ne!(of(&manifest), key);
}

//! Commands that only read make nothing, and say so where there is nothing to read.

use std::path::Path;

use crate::support::Space;

/// Everything under a folder, with its contents.
fn all(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            let bytes = if path.is_dir() { Vec::new() } else { std::fs::read(&path).unwrap() };
            found.push((path.display().to_string(), bytes));
            if path.is_dir() {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}

fn space() -> Space {
    let space = Space::new();
    space.write("input", "1\n");
    space.write(
        "p.yaml",
        "stages:\n  one: {kind: command, with: {run: 'cat ${file.input} > ${out.n}', files: [input], outputs: {n: n}}}\n",
    );
    space
}

#[test]
fn a_cache_that_is_not_there_is_an_error_for_who_reads_it() {
    let space = space();
    space.ran(&[]);
    // A folder that is no cache, and one that is not there.
    space.write("empty/README.md", "");
    let before = all(space.path());
    let reading: [&[&str]; 9] = [
        &["verify"],
        &["verify", "p.yaml", "one"],
        &["gc"],
        &["gc", "p.yaml", "--yes"],
        &["show", "one"],
        &["log", "one"],
        &["table", "one"],
        &["push", "p.yaml", "--remote", "shared"],
        &["verify", "--repair"],
    ];
    for args in reading {
        for (cache, why) in [("cahce", "there is no such folder"), ("empty", "the folder has no VERSION file")] {
            let ran = space.run(&[args, &["--cache", cache]].concat());
            assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.seen());
            let error = format!("there is no cache at {cache}: {why}");
            assert!(ran.stderr.contains(&error) && ran.stderr.contains("--cache"), "{args:?}: {}", ran.stderr);
        }
    }
    for args in [&["pull", "p.yaml", "--remote", "cahce"], &["plan", "p.yaml", "--remote", "cahce"]] {
        let ran = space.run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.seen());
        assert!(ran.stderr.contains("there is no cache at cahce"), "{args:?}: {}", ran.stderr);
    }
    assert!(all(space.path()) == before, "nothing was made");
}

#[test]
fn what_only_looks_at_a_pipeline_needs_no_cache_and_makes_none() {
    let space = space();
    let before = all(space.path());
    for args in [
        &["plan", "p.yaml"][..],
        &["run", "p.yaml", "--dry-run"],
        &["why", "p.yaml", "one"],
        &["graph", "p.yaml"],
        &["doctor"],
    ] {
        let ran = space.run(args);
        assert!(ran.code == Some(0) || args == ["doctor"], "{args:?}: {}", ran.seen());
    }
    assert!(space.run(&["plan", "p.yaml"]).stdout.contains("never run"));
    assert!(all(space.path()) == before, "nothing was made");
    assert_eq!(space.ran(&[]), ["one"]);
}

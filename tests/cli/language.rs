//! What a pipeline file may say, and what it comes to: scalars as arguments, axes as inputs, names and patterns.

use std::time::{Duration, Instant};

use crate::support::Space;

#[test]
fn numbers_and_truth_values_are_arguments_in_one_spelling() {
    let space = Space::new();
    let text = |run: &str, env: &str| {
        format!(
            "params: {{epochs: 3, deep: {{rate: 1e-3}}}}\nstages:\n  a:\n    kind: command\n    with: {{run: {run}, env: {env}, outputs: {{n: n}}}}\n"
        )
    };
    let shown = "'printf \"%s \" \"$@\" \"$N\" \"$B\" > n'";
    let run = |args: &str| format!("[sh, -c, {shown}, sh, {args}]");
    space.write(
        "p.yaml",
        text(&run("\"${epochs}\", \"${deep.rate}\", \"n=${epochs}\", -1, 0x10, true"), "{N: 0.50, B: false}"),
    );
    assert_eq!(space.ran(&[]), ["a"]);
    let path = space.run(&["show", "a"]);
    assert_eq!(path.code, Some(0), "{}", path.seen());
    let made: Vec<String> =
        space.cached_files("objects").iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    assert!(made.iter().any(|made| made == "3 0.001 n=3 -1 16 true 0.5 false "), "{made:?}");
    // However they are written, it is the same stage.
    for (args, env) in [
        ("3, 0.001, \"n=3\", -1, 16, true", "{N: 0.5, B: false}"),
        ("\"3\", \"0.001\", n=3, \"-1\", \"16\", \"true\"", "{N: \"0.5\", B: \"false\"}"),
    ] {
        space.write("p.yaml", text(&run(args), env));
        assert_eq!(space.ran(&[]), [""; 0], "{args}");
    }
    space.write("p.yaml", text(&run("\"3\", \"1e-3\", n=3, \"-1\", \"16\", \"true\""), "{N: 0.5, B: false}"));
    assert_eq!(space.ran(&[]), ["a"], "a text in quotes is as it is written");
}

#[test]
fn an_axis_that_stands_at_instances_is_an_input_of_the_command_that_asks_for_it() {
    let space = Space::new();
    let text = |run: &str| {
        format!(
            "stages:\n  part: {{kind: command, matrix: {{p: [1, 2]}}, with: {{run: 'echo ${{p}} > n', outputs: {{n: n}}}}}}\n  \
             twice: {{kind: command, matrix: {{p: {{each: part}}}}, with: {{run: '{run}', outputs: {{n: n}}}}}}\n"
        )
    };
    space.write("p.yaml", text("cat ${in.p} ${in.p} > n; test $(head -1 n) = ${p.p}"));
    assert_eq!(space.ran(&[]), ["part/1", "part/2", "twice/1", "twice/2"]);
    // It is one to all intents: what it holds is in the key.
    space.write("p.yaml", text("cat ${in.p} ${in.p} > n; test $(head -1 n) = ${p.p}").replace("[1, 2]", "[1, 3]"));
    assert_eq!(space.ran(&[]), ["part/3", "twice/3"]);
    // A command that does not ask for it has no such input, and waits for nothing.
    space.write("p.yaml", text("echo ${p} > n"));
    assert_eq!(space.ran(&["twice/2"]), ["twice/2"]);
}

const TWO_AXES: &str = "stages:
  part: {kind: command, matrix: {p: [a, b], q: [1, 2]}, with: {run: 'echo ${p} ${q} > n', outputs: {n: n}}}
  plain: {kind: command, with: {run: 'echo > n', outputs: {n: n}}}
  some: {kind: command, needs: {x: PATTERN}, with: {run: 'cat ${in.x} > n', outputs: {n: n}}}
";

#[test]
fn labels_that_a_name_leaves_out_at_its_end_mean_all() {
    let space = Space::new();
    let planned = |pattern: &str, target: &str| {
        space.write("p.yaml", TWO_AXES.replace("PATTERN", pattern));
        let ran = space.run(&["plan", "p.yaml", "--json", target]);
        assert_eq!(ran.code, Some(0), "{pattern} {target}: {}", ran.seen());
        let plan: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let stages = plan["stages"].as_array().unwrap();
        stages.iter().map(|stage| stage["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let all = "part/a/1 part/a/2 part/b/1 part/b/2";
    for (pattern, expected) in [
        ("part", all),
        ("part/*", all),
        ("part/**", all),
        ("part/a", "part/a/1 part/a/2"),
        ("part/a/*", "part/a/1 part/a/2"),
        ("part/*/2", "part/a/2 part/b/2"),
        ("'part/[ab]/1.n'", "part/a/1 part/b/1"),
        ("part/b.n", "part/b/1 part/b/2"),
        ("part/b/1", "part/b/1"),
    ] {
        // The same pattern means the same as a need and as a target.
        assert_eq!(planned(pattern, "some"), format!("{expected} some"), "{pattern}");
        if !pattern.contains(".n") {
            assert_eq!(planned("plain", pattern), expected, "{pattern}");
        }
    }
    assert_eq!(planned("part", "*"), format!("{all} plain some"));
    assert_eq!(planned("part", "p*"), format!("{all} plain"));
    assert_eq!(planned("part", "p*/a"), "part/a/1 part/a/2");
    for target in ["part/a/1/x", "part/c", "par", "part/a/1/**"] {
        let ran = space.run(&["plan", "p.yaml", target]);
        assert_eq!(ran.code, Some(2), "{target}");
    }
}

#[test]
fn a_renamed_stage_reruns_only_what_is_told_its_name() {
    let space = Space::new();
    let text = |one: &str, parts: &str| {
        format!(
            "stages:\n  {one}: {{kind: command, with: {{run: 'echo 1 > n', outputs: {{n: n}}}}}}\n  \
             {parts}: {{kind: command, matrix: {{p: [1, 2]}}, with: {{run: 'echo part ${{p}} > n', outputs: {{n: n}}}}}}\n  \
             alone: {{kind: command, needs: {{x: {one}}}, with: {{run: 'cat ${{in.x}} > n', outputs: {{n: n}}}}}}\n  \
             several: {{kind: command, needs: {{x: {parts}}}, with: {{run: 'cat ${{in.x}} > n', outputs: {{n: n}}}}}}\n  \
             mixed: {{kind: command, needs: {{x: [{one}, {parts}]}}, with: {{run: 'echo ${{in.x}} > n', outputs: {{n: n}}}}}}\n"
        )
    };
    space.write("p.yaml", text("one", "parts"));
    assert_eq!(space.ran(&[]).len(), 6);
    // Inputs of several stages in one list are told apart by the names of their stages: the command sees them as names
    // of files.
    space.write("p.yaml", text("first", "pieces"));
    assert_eq!(space.ran(&[]), ["mixed"]);
}

#[test]
fn hostile_files_are_refused_in_time() {
    let space = Space::new();
    let braces = "{a: ".repeat(400_000);
    let hidden = "[']', ".repeat(300_000);
    let comments = "[ # ]\n".repeat(300_000);
    let twice = format!("stages: {{{}}}", "x: 1, ".repeat(200_000));
    let fans = format!(
        "params: {{{}a40: 1}}\nstages: {{a: {{kind: command, with: {{run: \"${{a0}}\", outputs: {{n: n}}}}}}}}",
        (0..40).map(|n| format!("a{n}: [\"${{a{0}}}\", \"${{a{0}}}\"], ", n + 1)).collect::<String>()
    );
    for (text, told) in [
        (&braces, "nested too deeply"),
        (&hidden, "nested too deeply"),
        (&comments, "nested too deeply"),
        (&twice, "stands here twice"),
        (&fans, "repeats values beyond"),
    ] {
        space.write("p.yaml", text);
        let started = Instant::now();
        let ran = space.run(&["plan", "p.yaml"]);
        assert_eq!(ran.code, Some(2));
        assert!(ran.stderr.contains(told), "{told}: {}", ran.stderr.chars().take(300).collect::<String>());
        assert!(started.elapsed() < Duration::from_secs(20), "{told}: {:?}", started.elapsed());
    }
}

#[test]
fn a_file_of_weights_has_one_key_alone_and_in_a_list_and_its_shards_another() {
    let space = Space::new();
    space.write("cifar.tar.gz", include_bytes!("../engine/datasets/fixtures/cifar-10-python.tar.gz"));
    space.write("a.bin", "one part");
    space.write("b.bin", "another part");
    let train = |weights: &str| {
        format!(
            "{{kind: train, needs: {{data: cifar.train, weights: {weights}}}, with: {{epochs: 1, net: {{arch: wideresnet}}}}}}"
        )
    };
    space.write(
        "p.yaml",
        format!(
            "stages:\n  cifar: {{kind: dataset, with: {{format: cifar10, archive: {{path: cifar.tar.gz}}}}}}\n  \
             a: {{kind: file, with: {{source: {{path: a.bin}}}}}}\n  b: {{kind: file, with: {{source: {{path: b.bin}}}}}}\n  \
             alone: {}\n  listed: {}\n  shards: {}\n",
            train("a"),
            train("[a]"),
            train("[a, b]")
        ),
    );
    assert_eq!(space.ran(&["cifar", "a", "b"]), ["a", "b", "cifar"]);
    space.run(&["plan", "p.yaml", "--save", "plan.json"]);
    let plan: serde_json::Value = serde_json::from_str(&space.read("plan.json")).unwrap();
    let key = |stage: &str| plan["stages"][stage]["key"].as_str().unwrap_or_else(|| panic!("{plan}")).to_owned();
    assert_eq!(key("alone"), key("listed"));
    assert_ne!(key("alone"), key("shards"));
}

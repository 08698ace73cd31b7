//! What runs again, and what does not.

use crate::support::Space;

/// Two sources, a diamond above them, and a sum at the top. `even` throws the last digit's lower bit away.
const PIPELINE: &str = r#"
pipeline: story
params: {a: 4, b: 7}
stages:
  left:
    kind: command
    with: {run: "echo ${a} > ${out.n}", outputs: {n: n.txt}}
  right:
    kind: command
    with: {run: "echo ${b} > ${out.n}", outputs: {n: n.txt}}
  even:
    kind: command
    needs: {of: left}
    with: {run: "expr $(cat ${in.of}) / 2 > ${out.n}", outputs: {n: n.txt}}
  sum:
    kind: command
    needs: {one: even, two: right}
    with: {run: "expr $(cat ${in.one}) + $(cat ${in.two}) > ${out.n}", outputs: {n: n.txt}}
"#;

fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space
}

#[test]
fn a_run_runs_everything_once_and_then_only_what_a_change_reaches() {
    let space = space();
    assert_eq!(space.ran(&[]), ["even", "left", "right", "sum"]);
    assert_eq!(space.ran(&[]), [""; 0], "nothing changed");
    assert_eq!(space.ran(&["--set", "b=8"]), ["right", "sum"]);
    assert_eq!(space.ran(&["--set", "b=9", "--set", "a=10"]), ["even", "left", "right", "sum"]);
    assert_eq!(space.ran(&[]), [""; 0], "what was made before is still there");
}

#[test]
fn a_rerun_that_gives_the_same_bytes_stops_there() {
    let space = space();
    space.ran(&[]);
    // 5 / 2 = 4 / 2: `even` runs, comes out as before, and `sum` stays.
    assert_eq!(space.ran(&["--set", "a=5"]), ["even", "left"]);
}

#[test]
fn order_comments_and_names_of_parameters_do_not_matter() {
    let space = space();
    space.ran(&[]);
    let (head, stages) = PIPELINE.split_once("stages:\n").unwrap();
    let mut blocks: Vec<String> = Vec::new();
    for line in stages.lines() {
        if line.starts_with("  ") && !line.starts_with("   ") {
            blocks.push(String::new());
        }
        let block = blocks.last_mut().unwrap();
        block.push_str(line);
        block.push_str("   # a comment\n\n");
    }
    blocks.reverse();
    let head = head.replace("a: 4, b: 7", "zeta: 7, a: 4, unused: 1");
    let text = format!("# turned around\n{head}stages:\n{}", blocks.concat().replace("${b}", "${zeta}"));
    assert_ne!(text, PIPELINE);
    space.write("p.yaml", text);
    assert_eq!(space.ran(&[]), [""; 0]);
}

#[test]
fn a_renamed_stage_with_the_same_content_does_not_run() {
    let space = space();
    space.ran(&[]);
    space.write("p.yaml", PIPELINE.replace("right", "other"));
    assert_eq!(space.ran(&[]), [""; 0]);
}

#[test]
fn a_changed_command_runs_and_a_removed_stage_is_not_missed() {
    let space = space();
    space.ran(&[]);
    space.write("p.yaml", PIPELINE.replace("/ 2 >", "/ 4 >"));
    assert_eq!(space.ran(&[]), ["even", "sum"]);
    let without_sum = PIPELINE.split("  sum:").next().unwrap();
    space.write("p.yaml", without_sum);
    assert_eq!(space.stages(&[]).len(), 3);
}

#[test]
fn targets_run_what_they_need_and_no_more() {
    let space = space();
    assert_eq!(space.ran(&["even"]), ["even", "left"]);
    assert_eq!(space.ran(&["right", "even"]), ["right"]);
    assert_eq!(space.ran(&[]), ["sum"]);
}

#[test]
fn force_runs_a_fresh_stage_and_stops_where_nothing_changed() {
    let space = space();
    space.ran(&[]);
    assert_eq!(space.ran(&["--force", "left"]), ["left"]);
    let ran = space.run(&["run", "p.yaml", "even", "--force", "sum"]);
    assert_eq!(ran.code, Some(2), "sum is not reached by the target: {}", ran.stderr);
}

/// What a forced stage reads is lost, or has rotted: that is made again first, to the same bytes, and the stage runs
/// all the same.
#[test]
fn force_holds_though_an_input_has_to_be_made_again_first() {
    let space = space();
    space.ran(&[]);
    let blob = |text: &[u8]| {
        let files = space.cached_files("objects");
        files.into_iter().find(|path| std::fs::read(path).unwrap() == text).unwrap()
    };
    std::fs::remove_file(blob(b"2\n")).unwrap();
    assert_eq!(space.ran(&["--force", "sum"]), ["even", "sum"]);
    let rotten = blob(b"2\n");
    std::fs::remove_file(&rotten).unwrap();
    std::fs::write(&rotten, "3\n").unwrap();
    assert_eq!(space.ran(&["--force", "sum"]), ["even", "sum"]);
}

/// Nobody reads `sum`: a whole run is for it. What lies between is missed only by who reads it, or asks for it by name.
#[test]
fn a_whole_run_makes_a_last_result_again_whose_bytes_are_gone() {
    let space = space();
    space.ran(&[]);
    let remove = |text: &[u8]| {
        for path in space.cached_files("objects") {
            if std::fs::read(&path).unwrap() == text {
                std::fs::remove_file(path).unwrap();
            }
        }
    };
    remove(b"9\n");
    let why = |stage: &str| space.run(&["why", "p.yaml", stage]).stdout;
    assert!(why("sum").contains("its output `n` is gone from the cache\n  in       sum\n"), "{}", why("sum"));
    assert!(!why("sum").contains("when "), "a run without targets makes it, too: {}", why("sum"));
    let plan = space.run(&["plan", "p.yaml"]).stdout;
    assert!(plan.contains("stale    sum  its output `n` is gone from the cache"), "{plan}");
    assert_eq!(space.ran(&[]), ["sum"]);
    remove(b"2\n");
    assert_eq!(space.ran(&[]), [""; 0]);
    assert!(
        why("even").contains("when     it is named as a target, or something that has to run reads it"),
        "{}",
        why("even")
    );
    assert_eq!(space.ran(&["even"]), ["even"]);
}

#[test]
fn a_file_that_a_command_reads_is_part_of_its_key() {
    let space = Space::new();
    space.write("script.sh", "cat numbers >/dev/null 2>&1; echo 1\n");
    space.write(
        "p.yaml",
        "stages:\n  one:\n    kind: command\n    with: {run: 'sh ${file.script.sh} > ${out.n}', files: [script.sh], outputs: {n: n}}\n",
    );
    assert_eq!(space.ran(&[]), ["one"]);
    assert_eq!(space.ran(&[]), [""; 0]);
    space.write("script.sh", "echo 2\n");
    assert_eq!(space.ran(&[]), ["one"]);
}

#[test]
fn instances_are_made_by_a_matrix_and_by_fanning_out() {
    let space = Space::new();
    space.write(
        "p.yaml",
        r#"
params: {sizes: [1, 2]}
stages:
  number:
    kind: command
    matrix: {n: "${sizes}", sign: {plus: 1, minus: -1}}
    exclude: [{n: 2, sign: minus}]
    with: {run: "expr ${n} '*' ${sign} > ${out.n} || true", outputs: {n: n}}
  double:
    kind: command
    matrix: {number: {each: number}}
    needs: {of: "${number}"}
    with: {run: "echo ${number.n} ${number.sign} $(cat ${in.of}) > ${out.n}", outputs: {n: n}}
  all:
    kind: command
    needs: {of: ["double/1-*", "double/2-plus"]}
    with: {run: "cat ${in.of} > ${out.n}", outputs: {n: n}}
"#,
    );
    let names =
        ["all", "double/1-minus", "double/1-plus", "double/2-plus", "number/1/minus", "number/1/plus", "number/2/plus"];
    assert_eq!(space.ran(&[]), names);
    let show = space.run(&["show", "all", "--json"]);
    let manifest: serde_json::Value = serde_json::from_str(&show.stdout).unwrap();
    let digest = manifest["outputs"]["n"]["digest"].as_str().unwrap();
    let text = space.read(&format!("cache/objects/{}/{digest}", &digest[..2]));
    assert_eq!(text, "1 1 1\n1 -1 -1\n2 1 2\n", "in the order in which they were referred to");
    assert_eq!(space.ran(&["--set", "sizes=[1, 2, 3]"]).len(), 4, "two numbers and their doubles are new");
}

#[test]
fn a_plan_says_what_would_run_and_why_and_runs_nothing() {
    let space = space();
    let plan = |args: &[&str]| {
        let plan = space.run(&[&["plan", "p.yaml"], args].concat());
        assert_eq!(plan.code, Some(0), "{}", plan.stderr);
        plan.stdout
    };
    insta::assert_snapshot!(plan(&[]), @r"
    stale    left   never run
    stale    right  never run
    pending  even   needs left
    pending  sum    needs right
    2 to run, 2 pending (may turn out fresh), 0 fresh
    the cost of 4 stages is unknown: they never ran like this
    ");
    space.ran(&[]);
    assert_eq!(plan(&[]), "nothing to do: 4 stages up to date\n");
    let json: serde_json::Value = serde_json::from_str(&plan(&["--json", "--set", "a=6"])).unwrap();
    let states: Vec<String> = json["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stage| {
            let [name, kind, state, reason] =
                ["name", "kind", "state", "reason"].map(|key| stage[key].as_str().unwrap());
            format!("{name} {kind} {state}: {reason}")
        })
        .collect();
    insta::assert_snapshot!(states.join("\n"), @r#"
    left command stale: run: "echo 4 > ${out.n}" → "echo 6 > ${out.n}"
    right command fresh: up to date
    even command pending: needs left
    sum command pending: needs even
    "#);
    assert_eq!(space.ran(&["--dry-run", "-q"]).len(), 0);
}

#[test]
fn json_lines_tell_the_whole_run() {
    let space = space();
    let ran = space.run(&["run", "p.yaml", "--json"]);
    let events = ran.events();
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!((of("stage_started"), of("stage_finished")), (4, 4));
    let last = events.last().unwrap();
    assert_eq!(last["event"], "run_finished");
    assert_eq!(
        (&last["ran"], &last["cached"], &last["failed"], &last["skipped"]),
        (&4.into(), &0.into(), &0.into(), &0.into())
    );
    assert!(last["seconds"].is_number() && events.iter().all(|event| event["event"].is_string()));
}

#[test]
fn show_and_log_tell_of_a_stage_that_ran() {
    let space = Space::new();
    space.write(
        "p.yaml",
        "stages:\n  one:\n    kind: command\n    with: {run: 'echo hello; echo oh >&2; echo 1 > ${out.n}', outputs: {n: n}}\n",
    );
    space.ran(&[]);
    let log = space.run(&["log", "one"]);
    assert!(log.stdout.contains("hello\n") && log.stdout.contains("oh\n"), "{}", log.stdout);
    let show = space.run(&["show", "one"]);
    for word in ["one (command)", "key", "parameters", "output n", "2 bytes"] {
        assert!(show.stdout.contains(word), "{word} is missing in\n{}", show.stdout);
    }
    let unknown = space.run(&["show", "ome"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("did you mean `one`?"), "{}", unknown.stderr);
}

/// A program that draws at random is told its seed: two seeds are two results, and what has no seed stays as it was.
#[test]
fn the_seed_of_a_command_is_part_of_its_key() {
    let space = Space::new();
    let seeded = |more: &str| {
        let run = "run: 'echo $ATFLOW_SEED > ${out.n}', outputs: {n: n}";
        format!(
            "stages:\n  drawn: {{kind: command, matrix: {{n: [1, 2, 3]}}, seed: '${{n}}', with: {{{run}}}}}\n  plain: {{kind: command, {more}with: {{{run}}}}}\n"
        )
    };
    space.write("p.yaml", seeded(""));
    assert_eq!(space.ran(&[]), ["drawn/1", "drawn/2", "drawn/3", "plain"]);
    let mut made: Vec<String> =
        space.cached_files("objects").iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    made.sort();
    assert!(["0\n", "1\n", "2\n", "3\n"].iter().all(|number| made.iter().any(|text| text == number)), "{made:?}");
    space.write("p.yaml", seeded("seed: 5, "));
    assert_eq!(space.ran(&[]), ["plain"]);
    let why = space.run(&["why", "plain"]).stdout;
    assert!(why.contains("seed 5"), "{why}");
}

#[test]
fn a_long_plan_has_a_line_for_each_stage_and_counts_where_there_is_something_to_count() {
    let space = Space::new();
    space.write(
        "p.yaml",
        r#"
params: {all: [1, 2, 3, 4, 5, 6, 7]}
stages:
  many:
    kind: command
    matrix: {a: "${all}", b: "${all}"}
    with: {run: "echo ${a} ${b} > ${out.n}", outputs: {n: n}}
  alone: {kind: command, with: {run: "echo 1 > ${out.n}", outputs: {n: n}}}
  single: {kind: command, matrix: {a: [x]}, with: {run: "echo ${a} > ${out.n}", outputs: {n: n}}}
"#,
    );
    insta::assert_snapshot!(space.run(&["plan", "p.yaml"]).stdout, @r"
    many ×49  49 stale  never run
    alone     1 stale  never run
    single/x  1 stale  never run
    --all lists every instance
    51 to run, 0 pending (may turn out fresh), 0 fresh
    the cost of 51 stages is unknown: they never ran like this
    ");
}

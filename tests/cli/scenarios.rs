//! What any build system must get right, told with stages that know nothing of networks: what runs, what does not, and
//! that it stays so in large graphs.

use std::fmt::Write;

use crate::support::Space;

fn command(name: &str, needs: &str, run: &str) -> String {
    format!("  {name}: {{kind: command, needs: {{{needs}}}, with: {{run: '{run}', outputs: {{n: n}}}}}}\n")
}

fn pipeline(stages: &[String]) -> String {
    format!("stages:\n{}", stages.concat())
}

/// top → left, right → bottom
fn diamond(left: &str) -> String {
    pipeline(&[
        command("top", "", "echo 8 > n"),
        command("left", "x: top", left),
        command("right", "x: top", "expr 1 + $(cat ${in.x}) > n"),
        command("bottom", "l: left, r: right", "cat ${in.l} ${in.r} > n"),
    ])
}

#[test]
fn a_diamond_runs_each_corner_once() {
    let space = Space::new();
    space.write("p.yaml", diamond("cat ${in.x} > n"));
    let ran = space.run(&["run", "p.yaml", "--json"]);
    let finished = ran.events().into_iter().filter(|event| event["event"] == "stage_finished").count();
    assert_eq!(finished, 4);
    assert_eq!(space.ran(&[]), [""; 0]);
    // The same bytes in another way: what hangs on it stays, and is planned as one that may turn out fresh.
    space.write("p.yaml", diamond("cat < ${in.x} > n"));
    let plan: serde_json::Value = serde_json::from_str(&space.run(&["plan", "p.yaml", "--json"]).stdout).unwrap();
    let states: Vec<_> =
        plan["stages"].as_array().unwrap().iter().map(|stage| stage["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["fresh", "stale", "fresh", "pending"]);
    assert_eq!(space.ran(&[]), ["left"]);
    space.write("p.yaml", diamond("echo 9 > n"));
    assert_eq!(space.ran(&[]), ["bottom", "left"]);
}

#[test]
fn a_removed_stage_is_not_run_and_comes_back_from_the_cache() {
    let space = Space::new();
    let (a, b) = (command("a", "", "echo 1 > n"), command("b", "", "echo 2 > n"));
    space.write("p.yaml", pipeline(&[a.clone(), b.clone()]));
    assert_eq!(space.ran(&[]), ["a", "b"]);
    space.write("p.yaml", pipeline(std::slice::from_ref(&a)));
    assert_eq!(space.stages(&[]).keys().collect::<Vec<_>>(), ["a"]);
    space.write("p.yaml", pipeline(&[a, b]));
    assert_eq!(space.ran(&[]), [""; 0]);
}

#[test]
fn a_renamed_stage_keeps_its_result_and_so_does_what_needs_it() {
    let space = Space::new();
    let text = |name: &str| {
        pipeline(&[command(name, "", "echo 1 > n"), command("b", &format!("x: {name}"), "cat ${in.x} > n")])
    };
    space.write("p.yaml", text("a"));
    assert_eq!(space.ran(&[]), ["a", "b"]);
    space.write("p.yaml", text("first"));
    assert_eq!(space.ran(&[]), [""; 0]);
    // The name of a need is told to the command, so it is part of what the command is.
    space.write("p.yaml", text("first").replace("x: first", "y: first").replace("in.x", "in.y"));
    assert_eq!(space.ran(&[]), ["b"]);
}

#[test]
fn a_changed_set_of_outputs_runs_the_stage_and_only_what_reads_a_changed_one() {
    let space = Space::new();
    let text = |outputs: &str| {
        format!(
            "stages:\n  a: {{kind: command, with: {{run: 'echo 1 > n; echo 2 > m', outputs: {{{outputs}}}}}}}\n{}",
            command("b", "x: a.n", "cat ${in.x} > n")
        )
    };
    space.write("p.yaml", text("n: n"));
    assert_eq!(space.ran(&[]), ["a", "b"]);
    space.write("p.yaml", text("n: n, m: m"));
    assert_eq!(space.ran(&[]), ["a"]);
    space.write("p.yaml", text("n: m"));
    assert_eq!(space.ran(&[]), ["a", "b"]);
    space.write("p.yaml", text("m: m"));
    let ran = space.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("`a` has no output `n`"), "{}", ran.stderr);
}

#[test]
fn two_names_of_one_computation_run_once() {
    let space = Space::new();
    space.write("p.yaml", pipeline(&[command("a", "", "echo 1 > n"), command("b", "", "echo 1 > n")]));
    assert_eq!(space.ran(&[]).len(), 1);
}

#[test]
fn a_matrix_gains_and_loses_points_without_touching_the_others() {
    let space = Space::new();
    let text = |matrix: &str| {
        format!(
            "stages:\n  a: {{kind: command, {matrix}, with: {{run: 'echo ${{x}} ${{y}} > n', outputs: {{n: n}}}}}}\n"
        )
    };
    let names = |args: &str| {
        space.write("p.yaml", text(args));
        space.stages(&[]).into_keys().map(|name| name.replacen("a/", "", 1)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("matrix: {x: [1, 2], y: [p, q]}"), "1/p 1/q 2/p 2/q");
    assert_eq!(names("matrix: {x: [1, 2], y: [p, q]}, exclude: [{x: 2}]"), "1/p 1/q");
    assert_eq!(names("matrix: {x: [1, 2, 12], y: [p, q]}, exclude: [{x: 1*, y: q}]"), "1/p 12/p 2/p 2/q");
    assert_eq!(names("matrix: {x: [1, 2], y: [p, q]}, exclude: [{x: '*'}], include: [{x: 2, y: '*'}]"), "2/p 2/q");
    assert_eq!(
        names("matrix: {x: [1], y: [p]}, include: [{x: 8/255, y: p}, {x: {big: 100}, y: p}]"),
        "1/p 8_255/p big/p"
    );
    assert_eq!(space.ran(&[]), [""; 0]);
    space.write("p.yaml", text("matrix: {x: [1, 2, 3], y: [p, q]}"));
    assert_eq!(space.ran(&[]), ["a/3/p", "a/3/q"]);
}

#[test]
fn references_mean_all_instances_some_or_one() {
    let space = Space::new();
    let text = |needs: &str| {
        format!(
            "stages:\n  a: {{kind: command, matrix: {{net: [pgd-1, pgd-2, fgsm], y: [1, 2]}}, with: {{run: 'echo ${{net}}-${{y}} > n; echo m > m', outputs: {{n: n, m: m}}}}}}\n  all: {{kind: command, needs: {{x: {needs}}}, with: {{run: 'cat ${{in.x}} > n', outputs: {{n: n}}}}}}\n"
        )
    };
    let inputs = |needs: &str| {
        space.write("p.yaml", text(needs));
        space.ran(&["all"]);
        let runs = space.cached_files("runs");
        let run: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(runs.last().unwrap()).unwrap()).unwrap();
        let key = run["keys"]["all"].as_str().unwrap().to_owned();
        let manifest: serde_json::Value =
            serde_json::from_str(&space.read(&format!("cache/actions/{}/{key}.json", &key[..2]))).unwrap();
        let digest = manifest["outputs"]["n"]["digest"].as_str().unwrap().to_owned();
        space.read(&format!("cache/objects/{}/{digest}", &digest[..2])).replace('\n', " ").trim().to_owned()
    };
    assert_eq!(inputs("a/pgd-1/2.n"), "pgd-1-2");
    assert_eq!(inputs("a/pgd-*/1.n"), "pgd-1-1 pgd-2-1");
    assert_eq!(inputs("a/*/2.n"), "pgd-1-2 pgd-2-2 fgsm-2");
    assert_eq!(inputs("a.m"), "m m m m m m");
    assert_eq!(inputs("[a/fgsm/1.n, a/pgd-2/1.n]"), "fgsm-1 pgd-2-1");
}

#[test]
fn files_include_files_and_paths_are_those_of_each_file() {
    let space = Space::new();
    space.write(
        "parts/data.yaml",
        "params: {word: hello}\nprofiles: {short: {word: hi}}\ndefaults: {command: {env: {W: '${word}'}}}\nstages:\n  data: {kind: command, with: {run: 'sh ${file.say.sh} > n', files: [say.sh], outputs: {n: n}}}\n",
    );
    space.write("parts/say.sh", "echo $W\n");
    space.write("parts/both.yaml", "include: [data.yaml]\n");
    let main = "include: [parts/data.yaml, parts/both.yaml]\nprofiles: {short: {n: 1}}\nparams: {n: 2}\nstages:\n  main: {kind: command, needs: {x: data}, with: {run: 'cat ${in.x}; echo ${n} ${word} $W > n', outputs: {n: n}}}\n";
    space.write("p.yaml", main);
    assert_eq!(space.ran(&[]), ["data", "main"]);
    assert_eq!(space.ran(&["--set", "word=bye"]), ["data", "main"]);
    assert_eq!(space.ran(&["--profile", "short"]), ["data", "main"]);
    // The same in one file is the same.
    space.write("say.sh", "echo $W\n");
    space.write(
        "p.yaml",
        "params: {word: hello}\nstages:\n  main: {kind: command, needs: {x: data}, with: {run: 'cat ${in.x}; echo 2 ${word} $W > n', outputs: {n: n}}}\n  data: {kind: command, with: {run: 'sh ${file.say.sh} > n', files: [say.sh], outputs: {n: n}, env: {W: hello}}}\n",
    );
    assert_eq!(space.ran(&[]), [""; 0]);
}

#[test]
fn defaults_lie_under_what_a_stage_says() {
    let space = Space::new();
    let text = |defaults: &str, with: &str| {
        format!("{defaults}stages:\n  a: {{kind: command, with: {{run: 'echo $A $B > n', outputs: {{n: n}}{with}}}}}\n")
    };
    space.write("p.yaml", text("", ", env: {A: '1', B: '2'}"));
    assert_eq!(space.ran(&[]), ["a"]);
    space.write("p.yaml", text("defaults: {command: {env: {A: '1', B: '9'}}}\n", ", env: {B: '2'}"));
    assert_eq!(space.ran(&[]), [""; 0], "joined, and the stage wins");
    space.write("p.yaml", text("params: {b: '2'}\ndefaults: {command: {env: {A: '1', B: '${b}'}}}\n", ""));
    assert_eq!(space.ran(&[]), [""; 0]);
    assert_eq!(space.ran(&["--set", "b='3'"]), ["a"]);
}

fn chain(length: usize) -> String {
    let mut text = "stages:\n".to_owned();
    // The last comes first: the order of a file does not matter, nor how deep one stage leads to the next.
    for at in (0..length).rev() {
        let needs = if at == 0 { String::new() } else { format!("needs: {{x: s{}}}, ", at - 1) };
        writeln!(
            text,
            "  s{at}: {{kind: command, {needs}with: {{run: [touch, n], outputs: {{n: n}}, env: {{N: '{at}'}}}}}}"
        )
        .unwrap();
    }
    text
}

fn fan(width: usize) -> String {
    format!(
        "stages:\n  each: {{kind: command, matrix: {{x: [{}]}}, with: {{run: [touch, n], outputs: {{n: n}}, env: {{N: 'n${{x}}'}}}}}}\n  all: {{kind: command, needs: {{x: each}}, with: {{run: 'ls ../in/x | wc -l > n', outputs: {{n: n}}}}}}\n",
        (0..width).map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
    )
}

/// Plans and tells how many stages are in each state.
fn planned(space: &Space) -> (usize, usize, usize) {
    let ran = space.run(&["plan", "p.yaml", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let plan: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let stages = plan["stages"].as_array().unwrap();
    let count = |state: &str| stages.iter().filter(|stage| stage["state"] == state).count();
    (count("fresh"), count("stale"), count("pending"))
}

#[test]
fn ten_thousand_stages_are_planned_at_once() {
    let space = Space::new();
    let started = std::time::Instant::now();
    space.write("p.yaml", chain(10_000));
    assert_eq!(planned(&space), (0, 1, 9_999));
    space.write("p.yaml", fan(10_000));
    assert_eq!(planned(&space), (0, 10_000, 1));
    let names: Vec<String> = (0..10_000).map(|n| format!("s{n}")).collect();
    let mut many = "stages:\n".to_owned();
    writeln!(
        many,
        "  all: {{kind: command, needs: {{x: [{}]}}, with: {{run: 'x', outputs: {{n: n}}}}}}",
        names.join(", ")
    )
    .unwrap();
    names.iter().for_each(|name| many.push_str(&command(name, "", "echo > n")));
    space.write("p.yaml", many);
    assert_eq!(planned(&space), (0, 10_000, 1));
    // Each takes about 0.2 s; a quadratic step anywhere takes minutes.
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn ten_thousand_mistakes_are_told_at_once() {
    let space = Space::new();
    let mut text = "stages:\n".to_owned();
    (0..10_000).for_each(|n| text.push_str(&command(&format!("s{n}"), &format!("x: t{n}"), "${y}")));
    space.write("p.yaml", text);
    let started = std::time::Instant::now();
    let ran = space.run(&["plan", "p.yaml"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("and 19950 more problems"), "{}", &ran.stderr[ran.stderr.len() - 500..]);
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

/// Chains and fans of so many stages are run, and not only planned, unless `ATFLOW_STAGES` says otherwise.
const STAGES: usize = 300;

fn many() -> usize {
    std::env::var("ATFLOW_STAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(STAGES)
}

/// Runs a pipeline of many stages, twice.
fn run_twice(text: String, stages: usize) {
    let space = Space::new();
    space.write("p.yaml", text);
    let started = std::time::Instant::now();
    assert_eq!(space.ran(&[]).len(), stages);
    let first = started.elapsed();
    assert_eq!(space.ran(&[]), [""; 0]);
    tell(stages, first, started.elapsed() - first);
    assert_eq!(planned(&space), (stages, 0, 0));
    assert_eq!(space.cached_files("actions").len(), stages);
    assert_eq!(space.cached_files("tmp").len(), 0);
}

#[expect(clippy::print_stderr, reason = "what it took is shown with --nocapture")]
fn tell(stages: usize, first: std::time::Duration, second: std::time::Duration) {
    eprintln!("{stages} stages: {first:.1?}, and {second:.1?} to see that there is nothing to do");
}

#[test]
fn a_long_chain_runs_once() {
    run_twice(chain(many()), many());
}

#[test]
fn a_wide_fan_runs_once() {
    run_twice(fan(many()), many() + 1);
}

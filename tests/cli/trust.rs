//! What is believed of a remote cache, and what is not: tables are assembled here, what is recomputed is compared with
//! what was published, results from elsewhere are marked, and with `--trust` only signed ones count.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use atflow::digest::Digest;
use atflow::formats::Predictions;
use serde_json::{Value, json};

use crate::depth::space;
use crate::support::{Ran, Space};

fn run(space: &Space, args: &[&str]) -> Ran {
    Ran::of(space.command(args).env("ATFLOW_WORKER", space.path().join("worker")).output().unwrap())
}

/// Runs `p.yaml` and gives the last line of `--json`.
fn finished(space: &Space, args: &[&str]) -> (Ran, Value) {
    let ran = run(space, &[&["run", "p.yaml", "--json"], args].concat());
    let last = ran.events().pop().unwrap();
    assert_eq!(last["event"], "run_finished", "{}", ran.seen());
    (ran, last)
}

/// A space in which all was run, and its cache as others name it.
fn published() -> (Space, String) {
    let space = space();
    assert_eq!(finished(&space, &[]).0.code, Some(0));
    let remote = space.path().join("cache").display().to_string();
    (space, remote)
}

/// The manifest of a stage in a cache.
fn manifest(cache: &Path, stage: &str) -> (PathBuf, Value) {
    let folders = std::fs::read_dir(cache.join("actions")).unwrap().map(|folder| folder.unwrap().path());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|file| file.unwrap().path());
    let json = files.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    let read = |path: PathBuf| (path.clone(), serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap());
    json.map(read).find(|(_, manifest): &(_, Value)| manifest["made"]["stage"] == stage).unwrap()
}

/// Gives an output of a published result other bytes, with their right digest.
fn forge(remote: &str, stage: &str, output: &str, bytes: &[u8]) {
    let (path, mut manifest) = manifest(Path::new(remote), stage);
    let digest = Digest::of(bytes).to_string();
    manifest["outputs"][output] = json!({"digest": digest, "size": bytes.len()});
    std::fs::write(path, manifest.to_string()).unwrap();
    let blob = Path::new(remote).join("objects").join(&digest[..2]).join(&digest);
    std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
    std::fs::write(blob, bytes).unwrap();
}

/// Forges a table: another number, and its digest.
fn forge_table(made: &Space, remote: &str) {
    let table = made.read("results/p/table.json").replace("0.5", "0.9");
    assert_ne!(table, made.read("results/p/table.json"));
    forge(remote, "table", "json", table.as_bytes());
}

/// Predictions that are right where those of the worker are wrong.
fn better_predictions() -> Vec<u8> {
    let (labels, predicted) = (vec![0, 1], vec![0, 1]);
    let (probability, loss) = (vec![0.5; 2], vec![0.5; 2]);
    Predictions { labels, predicted, probability, loss, ..Predictions::default() }.to_bytes().unwrap()
}

/// Removes what a published result holds, and leaves its manifest.
fn take_away(remote: &str, stage: &str, output: &str) {
    let (_, manifest) = manifest(Path::new(remote), stage);
    let digest = manifest["outputs"][output]["digest"].as_str().unwrap().to_owned();
    std::fs::remove_file(Path::new(remote).join("objects").join(&digest[..2]).join(digest)).unwrap();
}

#[test]
fn from_predictions_makes_the_table_here_and_compares_it_with_the_published_one() {
    let (_made, remote) = published();
    let reviewer = space();
    let (ran, last) = finished(&reviewer, &["table", "--from", "predictions", "--remote", &remote]);
    assert_eq!((ran.code, ran.stages()["table"].as_str()), (Some(0), "ran"), "{}", ran.seen());
    let told = &last["reproduced"];
    assert_eq!((&told["read"], &told["compared"], &told["identical"]), (&json!(2), &json!(4), &json!(4)), "{told}");
    assert_eq!((&told["different"], &told["remotes"]), (&json!([]), &json!([remote])), "{told}");
    let words = run(&reviewer, &["run", "p.yaml", "table", "--from", "predictions", "--remote", &remote]).stderr;
    let line = format!("recomputed from 2 predictions: 4 of 4 files identical to the published ones ({remote})\n");
    assert!(words.contains(&line), "{words}");
    assert!(words.contains("came from") && words.contains("not computed here"), "{words}");
    let words = run(&reviewer, &["run", "p.yaml", "table", "--from", "predictions", "--offline"]).stderr;
    assert!(words.contains("recomputed from 2 predictions: nothing was published to compare with"), "{words}");
    // The table that was fetched earlier is published, and none that was made here.
    let other = space();
    assert_eq!(run(&other, &["pull", "p.yaml", "table", "tested", "--remote", &remote]).code, Some(0));
    let (_, last) = finished(&other, &["table", "--from", "predictions", "--offline"]);
    assert_eq!((&last["ran"], &last["reproduced"]["identical"]), (&json!(1), &json!(4)), "{last}");
}

#[test]
fn a_forged_table_is_not_what_its_predictions_make() {
    let (made, remote) = published();
    let honest = made.read("results/p/table.json");
    forge_table(&made, &remote);
    let reviewer = space();
    let (ran, last) = finished(&reviewer, &["table", "--remote", &remote]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert_eq!(reviewer.read("results/p/table.json"), honest, "the one that was assembled here");
    let warning = format!("table at {remote} is not what its predictions make (json)");
    assert!(ran.stdout.contains(&warning), "{}", ran.stdout);
    assert_eq!(last["assembled"], json!([{"stage": "table", "remote": remote, "different": ["json"]}]));
    assert_eq!(finished(&reviewer, &["table", "--remote", &remote]).1["ran"], 0, "it is a result of this cache now");

    // It counts as a verification where somebody asks for one.
    for args in [&["--remote", remote.as_str()][..], &["--remote", remote.as_str(), "--tolerance", "10"]] {
        let reviewer = space();
        let ran = run(&reviewer, &[&["run", "p.yaml", "table", "--from", "predictions"], args].concat());
        assert_eq!(ran.code, Some(3), "{}", ran.seen());
        assert!(ran.stderr.contains("1 DIFFERENT") && ran.stderr.contains("table.json"), "{}", ran.stderr);
        assert!(ran.stderr.contains("a, clean: 90.00 % → 50.00 %"), "{}", ran.stderr);
        assert_eq!(reviewer.read("results/p/table.json"), honest);
    }
}

#[test]
fn a_table_of_elsewhere_is_used_only_where_its_predictions_cannot_be_had() {
    let (made, remote) = published();
    forge_table(&made, &remote);
    take_away(&remote, "tested/b", "predictions");
    let reviewer = space();
    let (ran, last) = finished(&reviewer, &["table", "--remote", &remote]);
    assert_eq!((ran.code, &last["ran"]), (Some(0), &json!(0)), "{}", ran.seen());
    assert!(reviewer.read("results/p/table.json").contains("0.9"));
    assert_eq!(last["elsewhere"][&remote], json!({"results": 6, "signed": 0}), "{last}");
    // Bytes that turn out wrong when they come are as good as none: nothing is trained for them.
    let (made, remote) = published();
    let (_, manifest) = manifest(Path::new(&remote), "tested/a");
    let digest = manifest["outputs"]["predictions"]["digest"].as_str().unwrap();
    let blob = Path::new(&remote).join("objects").join(&digest[..2]).join(digest);
    std::fs::set_permissions(&blob, std::fs::Permissions::from_mode(0o644)).unwrap();
    let size = std::fs::metadata(&blob).unwrap().len() as usize;
    std::fs::write(&blob, vec![b'x'; size]).unwrap();
    let reviewer = space();
    let (ran, last) = finished(&reviewer, &["table", "--remote", &remote]);
    assert_eq!((ran.code, &last["ran"]), (Some(0), &json!(0)), "{}", ran.seen());
    assert!(ran.stdout.contains("could not be assembled here, because `predictions` of tested/a"), "{}", ran.stdout);
    assert_eq!(reviewer.read("results/p/table.md"), made.read("results/p/table.md"));
}

#[test]
fn a_plan_says_what_is_assembled_here() {
    let (_made, remote) = published();
    let reviewer = space();
    let plan = run(&reviewer, &["plan", "p.yaml", "table", "--remote", &remote]).stdout;
    assert!(plan.contains("table  assembled here: its result came from elsewhere"), "{plan}");
    assert!(plan.contains("1 to run, 0 pending (may turn out fresh), 5 fresh\n"), "{plan}");
    assert!(plan.contains("to fetch"), "{plan}");
    let save = run(&reviewer, &["plan", "p.yaml", "table", "--remote", &remote, "--save", "plan.json"]);
    assert_eq!(save.code, Some(0), "{}", save.seen());
    let ran = run(&reviewer, &["run", "--plan", "plan.json", "--remote", &remote]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
}

#[test]
fn results_from_elsewhere_are_marked_and_the_mark_is_not_passed_on() {
    let (_made, remote) = published();
    let reviewer = space();
    let words = run(&reviewer, &["run", "p.yaml", "tested", "--remote", &remote]).stderr;
    assert!(words.contains(&format!("5 results came from {remote}, not computed here")), "{words}");
    let show = reviewer.run(&["show", "tested/a"]).stdout;
    assert!(show.contains(&format!("from                {remote} on ")), "{show}");
    assert!(show.contains("no signature was checked"), "{show}");
    let show: Value = serde_json::from_str(&reviewer.run(&["show", "tested/a", "--json"]).stdout).unwrap();
    assert_eq!(show["from"]["remote"], json!(remote));
    let again = finished(&reviewer, &["tested", "--offline"]).1;
    assert_eq!(again["elsewhere"][&remote]["results"], 5, "{again}");
    // Others learn nothing of the address.
    let shared = reviewer.path().join("shared").display().to_string();
    run(&reviewer, &["push", "p.yaml", "tested", "--remote", &shared]);
    assert!(manifest(Path::new(&shared), "tested/a").1["from"].is_null());
    // Whatever a remote cache says of where its results are from, they came from it.
    let third = space();
    run(&third, &["run", "p.yaml", "tested", "--remote", &reviewer.path().join("cache").display().to_string()]);
    let (_, mark) = manifest(&third.path().join("cache"), "tested/a");
    assert_eq!(mark["from"]["remote"], json!(reviewer.path().join("cache").display().to_string()));
    // What is made here again is no longer from elsewhere.
    let (_, last) = finished(&third, &["tested", "--from", "checkpoints", "--remote", &remote]);
    assert_eq!((&last["ran"], &last["reproduced"]["identical"]), (&json!(2), &json!(2)), "{last}");
    assert!(manifest(&third.path().join("cache"), "tested/a").1["from"].is_null());
}

#[test]
fn evaluations_from_checkpoints_are_compared_by_their_numbers_where_bytes_differ() {
    let (_made, remote) = published();
    let from = ["table", "--from", "checkpoints", "--remote", remote.as_str()];
    let reviewer = space();
    let last = finished(&reviewer, &from).1;
    assert_eq!((&last["reproduced"]["read"], &last["reproduced"]["identical"]), (&json!(2), &json!(6)), "{last}");
    // Another processor gives other last bits.
    let reviewer = space();
    let honest = Predictions::from_bytes(&std::fs::read(reviewer.path().join("predictions")).unwrap()).unwrap();
    let bits = Predictions { loss: vec![0.5000001; 2], ..honest.clone() };
    reviewer.write("predictions", bits.to_bytes().unwrap());
    let ran = run(&reviewer, &[&["run", "p.yaml"], &from[..]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert!(ran.stderr.contains("recomputed from 2 checkpoints: 4 of 6 files identical"), "{}", ran.stderr);
    assert!(ran.stderr.contains("2 with other bytes and numbers within 0.00 points"), "{}", ran.stderr);
    // Other numbers are a difference.
    let reviewer = space();
    reviewer.write("predictions", Predictions { predicted: vec![0, 1], ..honest }.to_bytes().unwrap());
    let ran = run(&reviewer, &[&["run", "p.yaml"], &from[..]].concat());
    assert_eq!(ran.code, Some(3), "{}", ran.seen());
    assert!(ran.stderr.contains("tested/a.predictions") && ran.stderr.contains("50.00 % → 100.00 %"), "{}", ran.stderr);
    let (ran, last) = finished(&space_with(&reviewer), &[&from[..], &["--tolerance", "50"]].concat());
    assert_eq!((ran.code, &last["reproduced"]["within"]), (Some(0), &json!(6)), "{last}");
    let alone = run(&space(), &["run", "p.yaml", "--tolerance", "1"]);
    assert!(alone.code == Some(2) && alone.stderr.contains("add --from"), "{}", alone.seen());
}

#[test]
fn pictures_with_other_bytes_are_judged_only_where_they_were_made_on_the_same_sort_of_machine() {
    let (_made, remote) = published();
    let from_checkpoints = |was: &str, is: &str| {
        let reviewer = space();
        let worker = reviewer.read("worker").replace("write(job[\"stage\"])", "write(job[\"stage\"] + \"!\")");
        assert!(worker.contains(was));
        reviewer.write("worker", worker.replace(was, is));
        run(&reviewer, &["run", "p.yaml", "maps", "--from", "checkpoints", "--remote", &remote])
    };
    let other = from_checkpoints("2.11.0", "2.12.0");
    assert_eq!(other.code, Some(0), "{}", other.seen());
    assert!(
        other.stderr.contains("0 of 5 files identical to the published ones, 5 with other bytes"),
        "{}",
        other.stderr
    );
    let line = "maps.grid: other bytes, made on another machine: cpu (a CPU), 1 thread, libtorch 2.11.0\n";
    assert!(other.stderr.contains(line), "{}", other.stderr);
    // Portable numerics give the same bytes on another processor, too.
    for processor in ["a CPU", "another CPU"] {
        let same = from_checkpoints("a CPU", processor);
        assert_eq!(same.code, Some(3), "{}", same.seen());
        assert!(same.stderr.contains("5 DIFFERENT") && same.stderr.contains("maps.grid"), "{}", same.stderr);
    }
}

/// A fresh space with the predictions that the worker of another one gives.
fn space_with(other: &Space) -> Space {
    let space = space();
    space.write("predictions", std::fs::read(other.path().join("predictions")).unwrap());
    space
}

/// A pair of keys in a space, and the public one.
fn keys(space: &Space, name: &str) -> String {
    let made = space.run(&["keygen", name]);
    assert_eq!(made.code, Some(0), "{}", made.seen());
    made.stdout.trim().to_owned()
}

/// A space whose results are in `shared/`, signed, and the public key.
fn signed() -> (Space, String, String) {
    let (made, _) = published();
    let key = keys(&made, "key");
    let shared = made.path().join("shared").display().to_string();
    let push = run(&made, &["push", "p.yaml", "--remote", &shared, "--sign", "key"]);
    assert_eq!(push.code, Some(0), "{}", push.seen());
    assert!(push.stderr.contains(&format!("7 results signed; `--trust {key}` takes")), "{}", push.stderr);
    (made, shared, key)
}

#[test]
fn with_trust_only_what_a_trusted_key_signed_counts() {
    let (made, shared, key) = signed();
    let mode = std::fs::metadata(made.path().join("key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the secret key is its owner's");
    let reviewer = space();
    let take = ["table", "--remote", shared.as_str(), "--trust"];
    let (ran, last) = finished(&reviewer, &[&take[..], &[key.as_str()]].concat());
    assert_eq!((ran.code, &last["passed_over"]), (Some(0), &Value::Null), "{}", ran.seen());
    assert_eq!(last["elsewhere"][&shared], json!({"results": 5, "signed": 5}), "{last}");
    let show = reviewer.run(&["show", "tested/a"]).stdout;
    assert!(show.contains(&format!("signed by {key}")), "{show}");

    // A file names the key as well, and a variable.
    let reviewer = space();
    let file = made.path().join("key.pub").display().to_string();
    let mut command = reviewer.command(&["run", "p.yaml", "table", "--json", "--remote", &shared]);
    command.env("ATFLOW_TRUST", &file);
    let last = Ran::of(command.output().unwrap()).events().pop().unwrap();
    assert_eq!(last["elsewhere"][&shared]["signed"], 5, "{last}");

    // A key that signed nothing of it, and no signatures at all.
    let other = keys(&made, "other");
    for (remote, key, why) in [
        (shared.clone(), &other, "signed by a key that is not trusted"),
        (made.path().join("cache").display().to_string(), &key, "without a signature"),
    ] {
        let reviewer = space();
        let ran = run(&reviewer, &["run", "p.yaml", "table", "--remote", &remote, "--trust", key]);
        assert!(ran.stderr.contains(&format!("from elsewhere passed over: 6 {why}")), "{}", ran.seen());
        assert!(ran.stderr.contains("6 ran"), "everything was computed here: {}", ran.stderr);
        let plan = run(&space(), &["plan", "p.yaml", "--remote", &remote, "--trust", key]);
        assert!(plan.stdout.contains(&format!("passed over: 1 {why}")), "{}", plan.seen());
        let pull = run(&space(), &["pull", "p.yaml", "--remote", &remote, "--trust", key]);
        assert!(pull.stderr.contains("passed over: 1"), "{}", pull.seen());
    }

    // What was taken without asking for a signature does not count later, either.
    let reviewer = space();
    run(&reviewer, &["run", "p.yaml", "tested", "--remote", &shared]);
    let ran = run(&reviewer, &["run", "p.yaml", "tested", "--offline", "--trust", &key]);
    assert!(ran.stderr.contains("passed over: 5 without a signature"), "{}", ran.seen());
    let reviewer = space();
    run(&reviewer, &["run", "p.yaml", "tested", "--remote", &shared]);
    let (_, last) = finished(&reviewer, &["tested", "--remote", &shared, "--trust", &key]);
    assert_eq!((&last["ran"], &last["passed_over"]), (&json!(0), &Value::Null), "it is asked for again: {last}");
}

#[test]
fn a_signature_binds_key_outputs_and_how_they_were_made() {
    type Change = (&'static str, fn(&str));
    let changes: [Change; 3] = [
        ("its outputs", |shared| forge(shared, "tested/a", "predictions", &better_predictions())),
        ("where it was made", |shared| {
            let (path, mut manifest) = manifest(Path::new(shared), "tested/a");
            manifest["made"]["host"] = json!("elsewhere");
            std::fs::write(path, manifest.to_string()).unwrap();
        }),
        ("the signature of another result", |shared| {
            let ([(a, _), (b, _)], ending) =
                (["a", "b"].map(|name| manifest(Path::new(shared), &format!("tested/{name}"))), "json.minisig");
            std::fs::copy(b.with_extension(ending), a.with_extension(ending)).unwrap();
        }),
    ];
    for (what, change) in changes {
        let (_made, shared, key) = signed();
        change(&shared);
        let reviewer = space();
        let (ran, last) = finished(&reviewer, &["table", "--remote", &shared, "--trust", &key]);
        assert_eq!(last["passed_over"], json!({"invalid": 1}), "{what}: {}", ran.seen());
        assert_eq!(ran.stages()["tested/a"], "ran", "{what}");
    }
    // A signed manifest in the place of another is no result of that.
    let (_made, shared, key) = signed();
    let [(a, _), (b, _)] = ["a", "b"].map(|name| manifest(Path::new(&shared), &format!("tested/{name}")));
    std::fs::copy(&b, &a).unwrap();
    std::fs::copy(b.with_extension("json.minisig"), a.with_extension("json.minisig")).unwrap();
    let (ran, _) = finished(&space(), &["table", "--remote", &shared, "--trust", &key]);
    assert_eq!(ran.stages()["tested/a"], "ran", "{}", ran.seen());
}

#[test]
fn signatures_are_added_kept_and_passed_on() {
    // To what was pushed before without one.
    let (made, _) = published();
    let key = keys(&made, "key");
    let shared = made.path().join("shared").display().to_string();
    assert_eq!(run(&made, &["push", "p.yaml", "--remote", &shared]).code, Some(0));
    let push = run(&made, &["push", "p.yaml", "--remote", &shared, "--sign", "key"]);
    assert!(push.code == Some(0) && push.stderr.contains("7 results signed"), "{}", push.seen());
    // A second key does not take the place of the first.
    keys(&made, "second");
    let push = run(&made, &["push", "p.yaml", "--remote", &shared, "--sign", "second"]);
    assert!(push.code == Some(1) && push.stderr.contains("7 results there with another signature"), "{}", push.seen());
    // Who took them with their signatures hands those on, and does not sign what others computed.
    let reviewer = space();
    finished(&reviewer, &["--remote", &shared, "--trust", &key]);
    keys(&reviewer, "own");
    let mirror = reviewer.path().join("mirror").display().to_string();
    let push = run(&reviewer, &["push", "p.yaml", "--remote", &mirror, "--sign", "own"]);
    assert!(push.stderr.contains("1 result signed"), "the table, which was assembled here: {}", push.seen());
    assert!(push.stderr.contains("6 results not signed with this key, because computed elsewhere"), "{}", push.stderr);
    let (_, last) = finished(&space(), &["table", "--remote", &mirror, "--trust", &key]);
    assert_eq!((&last["elsewhere"][&mirror]["signed"], &last["ran"]), (&json!(5), &json!(1)), "{last}");
    // Nothing of it disturbs a cache that is used as one.
    let ran = reviewer.run(&["verify", "--cache", &mirror]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    let gc = reviewer.run(&["gc", "p.yaml", "--cache", &mirror, "--json"]);
    assert_eq!(gc.code, Some(0), "{}", gc.seen());
}

#[test]
fn keys_that_are_none_are_told_before_anything_runs() {
    let (made, _) = published();
    let key = keys(&made, "key");
    made.write("text", "no key\n");
    let shared = made.path().join("shared").display().to_string();
    let push = |file: &str| run(&made, &["push", "p.yaml", "--remote", "shared", "--sign", file]);
    let trust = |name: &str| run(&made, &["run", "p.yaml", "--trust", name]);
    let seen = [push("nowhere"), push("text"), push("key.pub"), trust("nowhere"), trust("text"), trust("key")];
    assert!(!Path::new(&shared).exists());
    assert_eq!(made.run(&["keygen", "key"]).code, Some(2), "a key is not overwritten");
    insta::assert_snapshot!(seen.map(|ran| ran.seen()).join("\n"));
    // A key with a password.
    let with = |args: &[&str], password: Option<&str>| {
        let mut command = made.command(args);
        password.map(|password| command.env("ATFLOW_SIGN_PASSWORD", password));
        Ran::of(command.output().unwrap())
    };
    assert_eq!(with(&["keygen", "locked", "--password"], Some("right")).code, Some(0));
    let push = |password| with(&["push", "p.yaml", "--remote", "shared", "--sign", "locked"], password);
    let (none, wrong) = (push(None), push(Some("wrong")));
    assert!(none.code == Some(2) && none.stderr.contains("has a password"), "{}", none.seen());
    assert!(wrong.code == Some(2) && wrong.stderr.contains("Wrong password"), "{}", wrong.seen());
    assert!(!Path::new(&shared).exists());
    assert_eq!(push(Some("right")).code, Some(0));
    assert_eq!(trust(&key).code, Some(0));
}

#[test]
fn a_spot_check_recomputes_a_drawn_share_from_the_published_checkpoints() {
    let (_made, remote) = published();
    let reviewer = space();
    let verify = |space: &Space, args: &[&str]| {
        run(space, &[&["verify", "p.yaml", "table", "--remote", &remote, "--device", "cpu"], args].concat())
    };
    let ran = verify(&reviewer, &["--sample", "2", "--seed", "7"]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    let first = "recomputed 2 of 2 predictions that table rests on, from the checkpoints in ";
    assert!(ran.stdout.starts_with(first) && ran.stdout.contains("(drawn with --seed 7)"), "{}", ran.stdout);
    assert!(ran.stdout.contains("\n2 identical, 0 within tolerance, 0 different\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("had 1 of the 2 been wrong, such a draw would have met one with a chance of 100 %"));
    // One in ten, and one at least; the same seed draws the same.
    let draw = |seed: &str| -> Value {
        serde_json::from_str(&verify(&space(), &["--share", "10%", "--seed", seed, "--json"]).stdout).unwrap()
    };
    assert_eq!((&draw("1")["recomputed"], &draw("1")["of"]), (&json!(1), &json!(2)));
    assert_eq!(draw("1")["would_have_met"], json!({"wrong": 1, "probability": 0.5}));
    // Networks that were trained here are not in the way.
    let trained = space();
    let worker = trained.read("worker").replace("write(job[\"stage\"])", "write(job[\"stage\"] + \"!\")");
    trained.write("worker", worker);
    assert_eq!(finished(&trained, &[]).0.code, Some(0));
    let ran = verify(&trained, &["--share", "100%"]);
    assert!(ran.stdout.contains("\n2 identical, 0 within tolerance, 0 different\n"), "{}", ran.seen());
    // A forged prediction makes a forged table; whoever recomputes it sees that.
    forge(&remote, "tested/a", "predictions", &better_predictions());
    let ran = run(&reviewer, &["run", "p.yaml", "table", "--remote", &remote]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    let reviewer = space();
    let ran = verify(&reviewer, &["--share", "100"]);
    assert_eq!(ran.code, Some(3), "{}", ran.seen());
    assert!(ran.stdout.contains("1 identical, 0 within tolerance, 1 different"), "{}", ran.stdout);
    assert!(ran.stdout.contains("tested/a.predictions"), "{}", ran.stdout);
    // What is kept back is no proof of anything.
    take_away(&remote, "model/b", "checkpoint");
    let ran = verify(&space(), &["--sample", "2"]);
    assert!(ran.stdout.contains("1 drawn prediction NOT recomputed"), "{}", ran.seen());
    assert!(ran.stdout.contains("tested/b: `checkpoint` of model/b cannot be had"), "{}", ran.stdout);
    take_away(&remote, "model/a", "checkpoint");
    let ran = verify(&space(), &["--sample", "2"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("none of the drawn predictions can be"), "{}", ran.seen());
    let none = run(&space(), &["verify", "p.yaml", "model", "--remote", &remote]);
    assert!(none.code == Some(2) && none.stderr.contains("rests on the predictions"), "{}", none.seen());
}

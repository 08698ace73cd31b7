//! A cache on a static web server, as a reviewer uses it: one table in an empty cache, fetching only what it needs; and
//! servers that misbehave.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::Space;

/// `numbers` stands for predictions: dear to make, small to fetch. `weights` stands for a checkpoint, that nobody needs
/// once there are numbers.
const PIPELINE: &str = r#"
stages:
  weights:
    kind: command
    with: {run: "echo made >> $HOME/weights-runs; head -c 100000 /dev/zero > ${out.w}", outputs: {w: w}}
  numbers:
    kind: command
    needs: {of: weights}
    with: {run: "echo made >> $HOME/numbers-runs; wc -c < ${in.of} > ${out.n}", outputs: {n: n}}
  table:
    kind: command
    needs: {of: numbers}
    with: {run: "cat ${in.of} > ${out.t}; echo bytes >> ${out.t}", outputs: {t: t}}
"#;

/// What a server does with its nth request.
#[derive(Clone, Copy)]
enum Fault {
    None,
    /// Every second answer is 500.
    Half,
    /// Every blob has its first byte changed.
    WrongBytes,
    /// Nobody listens.
    Down,
    /// Connections are taken and nothing is ever answered.
    Silent,
    /// Half of every blob comes, and then nothing.
    Stall,
    /// Every answer takes a moment.
    Slow,
    /// Manifests are cut in their middle.
    HalfManifests,
    /// Every manifest is that of some other stage.
    OtherManifests,
    /// Whatever is asked, the answer is a page that asks to log in.
    Portal,
    /// Manifests are there at once, blobs never come.
    SilentBlobs,
    /// There is a cache, and its manifests never come.
    SilentManifests,
}

struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    /// Requests that were under way at once, at most.
    together: Arc<AtomicUsize>,
}

/// A static web server of a folder.
fn serve(folder: PathBuf, fault: Fault) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/atflow", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (log, count) = (asked.clone(), AtomicUsize::new(0));
    let (together, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let server = Server { url, asked, together: most.clone() };
    if let Fault::Down = fault {
        // Bound and dropped: connections are refused from now on.
        return server;
    }
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let turn = count.fetch_add(1, Ordering::SeqCst);
            let (folder, log, together, most) = (folder.clone(), log.clone(), together.clone(), most.clone());
            std::thread::spawn(move || {
                most.fetch_max(together.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                answer(stream.unwrap(), &folder, fault, turn, &log);
                together.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    server
}

fn answer(mut stream: TcpStream, folder: &Path, fault: Fault, turn: usize, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let _headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let path = request.split(' ').nth(1).unwrap().trim_start_matches("/atflow/").to_owned();
    log.lock().unwrap().push(path.clone());
    let (is_blob, is_manifest) = (path.starts_with("objects/"), path.starts_with("actions/"));
    match fault {
        Fault::Silent => std::thread::sleep(FOREVER),
        Fault::SilentBlobs if is_blob => std::thread::sleep(FOREVER),
        Fault::SilentManifests if is_manifest => std::thread::sleep(FOREVER),
        Fault::Slow => std::thread::sleep(std::time::Duration::from_millis(30)),
        _ => {}
    }
    let (status, body) = match (std::fs::read(folder.join(&path)), fault) {
        (_, Fault::Half) if turn.is_multiple_of(2) => ("500 Internal Server Error", Vec::new()),
        (Ok(mut body), Fault::WrongBytes) if is_blob => {
            body[0] ^= 1;
            ("200 OK", body)
        }
        (_, Fault::Portal) => ("200 OK", b"<html>Please log in</html>".to_vec()),
        (Ok(mut body), Fault::HalfManifests) if is_manifest => {
            body.truncate(body.len() / 2);
            ("200 OK", body)
        }
        (_, Fault::OtherManifests) if is_manifest => ("200 OK", any_manifest(folder)),
        (Ok(body), _) => ("200 OK", body),
        (Err(_), _) => ("404 Not Found", Vec::new()),
    };
    // A client that has heard enough may be gone.
    _ = write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    if is_blob && matches!(fault, Fault::Stall) {
        _ = stream.write_all(&body[..body.len() / 2]);
        std::thread::sleep(FOREVER);
    }
    _ = stream.write_all(&body);
}

fn any_manifest(cache: &Path) -> Vec<u8> {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(cache.join("actions")).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let first = std::fs::read_dir(&folders[0]).unwrap().next().unwrap().unwrap();
    std::fs::read(first.path()).unwrap()
}

/// Longer than anybody here waits.
const FOREVER: std::time::Duration = std::time::Duration::from_secs(60);

/// A space whose cache holds all results of the pipeline, and a new space with the same pipeline.
fn made_and_empty() -> (Space, Space) {
    let (made, empty) = (Space::new(), Space::new());
    made.write("p.yaml", PIPELINE);
    made.ran(&[]);
    empty.write("p.yaml", PIPELINE);
    (made, empty)
}

fn digest_of(space: &Space, stage: &str, output: &str) -> String {
    let show = space.run(&["show", stage, "--json"]);
    let manifest: serde_json::Value = serde_json::from_str(&show.stdout).unwrap();
    manifest["outputs"][output]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn one_table_in_an_empty_cache_fetches_only_what_it_needs() {
    let (made, empty) = made_and_empty();
    let server = serve(made.path().join("cache"), Fault::None);
    assert_eq!(empty.ran(&["table", "--remote", &server.url]), [""; 0], "nothing is made again");
    let asked = server.asked.lock().unwrap().clone();
    let blobs: Vec<&String> = asked.iter().filter(|path| path.starts_with("objects/")).collect();
    assert_eq!(blobs.len(), 1, "the table alone: {asked:?}");
    assert!(blobs[0].ends_with(&digest_of(&made, "table", "t")));
    assert_eq!(empty.ran(&["table", "--offline"]), [""; 0], "what was fetched is here now");
}

#[test]
fn a_table_that_is_not_there_is_made_from_the_numbers_that_are() {
    let (made, empty) = made_and_empty();
    let server = serve(made.path().join("cache"), Fault::None);
    empty.write("p.yaml", PIPELINE.replace("echo bytes", "echo octets"));
    assert_eq!(empty.ran(&["table", "--remote", &server.url]), ["table"]);
    let asked = server.asked.lock().unwrap().clone();
    let numbers = digest_of(&made, "numbers", "n");
    assert!(asked.iter().any(|path| path.ends_with(&numbers)), "{asked:?}");
    assert_eq!(asked.iter().filter(|path| path.starts_with("objects/")).count(), 1, "no weights: {asked:?}");
}

#[test]
fn a_server_that_fails_half_the_time_is_asked_again() {
    let (made, empty) = made_and_empty();
    let server = serve(made.path().join("cache"), Fault::Half);
    assert_eq!(empty.ran(&["table", "--remote", &server.url]), [""; 0]);
}

#[test]
fn wrong_bytes_are_never_taken_for_a_result() {
    let (made, empty) = made_and_empty();
    let server = serve(made.path().join("cache"), Fault::WrongBytes);
    let ran = empty.run(&["run", "p.yaml", "table", "--json", "--remote", &server.url]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stages()["table"], "ran", "it was made here");
    assert!(ran.stdout.contains("another blake3"), "the user is told: {}", ran.stdout);
    assert_eq!(digest_of(&empty, "table", "t"), digest_of(&made, "table", "t"));
}

#[test]
fn what_is_no_manifest_of_the_stage_counts_as_not_there() {
    for fault in [Fault::HalfManifests, Fault::OtherManifests] {
        let (made, empty) = made_and_empty();
        let server = serve(made.path().join("cache"), fault);
        let ran = empty.ran(&["table", "--remote", &server.url]);
        // Where every manifest is the same one, it is right for its own stage, perhaps.
        assert!(ran.contains(&"table".to_owned()) || ran.len() == 2, "{ran:?}");
        assert_eq!(digest_of(&empty, "table", "t"), digest_of(&made, "table", "t"));
        assert_eq!(empty.run(&["verify"]).code, Some(0));
    }
    let (_, empty) = made_and_empty();
    let portal = serve(empty.path().to_owned(), Fault::Portal);
    let ran = empty.run(&["run", "p.yaml", "--remote", &portal.url]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("has format <html>Please log in"), "{}", ran.stderr);
    assert!(empty.cached_files("actions").is_empty());
}

#[test]
fn a_server_that_fails_half_the_time_gives_everything_that_is_pulled() {
    let (made, empty) = made_and_empty();
    let server = serve(made.path().join("cache"), Fault::Half);
    let pull = empty.run(&["pull", "p.yaml", "--remote", &server.url]);
    assert_eq!(pull.code, Some(0), "{}", pull.seen());
    assert_eq!(empty.ran(&["--offline"]), [""; 0]);
    assert_eq!(empty.run(&["verify"]).code, Some(0));
    // Bytes that are wrong are told, and nothing of them stays.
    let other = Space::new();
    other.write("p.yaml", PIPELINE);
    let wrong = serve(made.path().join("cache"), Fault::WrongBytes);
    let pull = other.run(&["pull", "p.yaml", "--remote", &wrong.url]);
    assert_eq!(pull.code, Some(1), "{}", pull.seen());
    assert!(pull.stderr.contains("another blake3") && other.cached_files("objects").is_empty(), "{}", pull.stderr);
}

#[test]
fn a_plan_tells_what_would_be_fetched() {
    let (made, empty) = made_and_empty();
    let server = serve(made.path().join("cache"), Fault::None);
    let plan = |args: &[&str]| empty.run(&[&["plan", "p.yaml", "--remote", &server.url], args].concat()).stdout;
    assert_eq!(plan(&["table"]), "nothing to run: 3 stages up to date\n1 file to fetch (13 bytes)\n");
    assert_eq!(plan(&[]), "nothing to do: 3 stages up to date\n", "it is known that all is up to date");
    empty.write("p.yaml", PIPELINE.replace("wc -c <", "wc -c <  "));
    assert!(plan(&["table"]).contains("1 file to fetch (100 kB)"), "the weights: {}", plan(&["table"]));
    assert!(empty.cached_files("objects").is_empty(), "a plan fetches none of it");
    empty.ran(&["--remote", &server.url]);
    assert!(!plan(&[]).contains("to fetch"));
}

#[test]
fn pull_brings_what_patterns_name() {
    let made = Space::new();
    let text =
        "stages:\n  each: {kind: command, matrix: {x: [a-1, a-2, b]}, with: {run: 'echo ${x} > n', outputs: {n: n}}}\n";
    made.write("p.yaml", text);
    made.ran(&[]);
    let (space, folder) = (Space::new(), made.path().join("cache").display().to_string());
    space.write("p.yaml", text);
    let pull = space.run(&["pull", "p.yaml", "each/a-*", "--remote", &folder]);
    assert!(pull.stderr.contains("2 files"), "{}", pull.seen());
    assert_eq!(space.cached_files("objects").len(), 2);
}

#[test]
fn ctrl_c_does_not_wait_for_a_silent_server() {
    for fault in [Fault::SilentBlobs, Fault::Silent, Fault::SilentManifests] {
        let (made, empty) = made_and_empty();
        let server = serve(made.path().join("cache"), fault);
        let mut run = empty.command(&["run", "p.yaml", "table", "--remote", &server.url, "--json"]);
        let run = run.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let asked = std::time::Instant::now();
        while server.asked.lock().unwrap().last().is_none_or(|path| path == "VERSION") && asked.elapsed() < FOREVER / 4
        {
            std::thread::sleep(std::time::Duration::from_millis(20));
            // Before it is known that there is a cache at all, the system's own way ends it.
            if matches!(fault, Fault::Silent) && !server.asked.lock().unwrap().is_empty() {
                break;
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
        let stopped = std::time::Instant::now();
        // Where a shell runs the tests in the background, SIGINT is ignored by whatever does not ask for it.
        let signal = if matches!(fault, Fault::Silent) { "-TERM" } else { "-INT" };
        let kill = std::process::Command::new("kill").args([signal, &run.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let ran = run.wait_with_output().unwrap();
        assert!(stopped.elapsed() < FOREVER / 6, "{:?}", stopped.elapsed());
        assert!(ran.status.code().is_none_or(|code| code == 130), "{}", ran.status);
        // A run that began says how it ended, even if its server keeps it from hearing of the stop.
        let told =
            crate::support::Ran { code: None, stdout: String::from_utf8(ran.stdout).unwrap(), stderr: String::new() };
        match (fault, told.events().last()) {
            (Fault::Silent, last) => assert!(last.is_none(), "{last:?}"),
            (_, last) => {
                let last = last.unwrap();
                assert_eq!(
                    (&last["event"], &last["outcome"]),
                    (&"run_finished".into(), &"interrupted".into()),
                    "{last}"
                );
            }
        }
        assert_eq!(empty.ran(&["table", "--offline"]), ["numbers", "table", "weights"]);
    }
}

#[test]
fn a_server_that_is_down_or_has_no_cache_is_an_error_before_anything_runs() {
    let (made, empty) = made_and_empty();
    let down = serve(made.path().join("cache"), Fault::Down);
    let ran = empty.run(&["run", "p.yaml", "--remote", &down.url]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("the remote cache failed") && ran.stderr.contains(&down.url), "{}", ran.stderr);
    let elsewhere = serve(made.path().join("nothing"), Fault::None);
    let ran = empty.run(&["run", "p.yaml", "--remote", &elsewhere.url]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("no VERSION file"), "{}", ran.stderr);
    let ran = empty.run(&["run", "p.yaml", "--remote", "ftp://somewhere"]);
    assert!(ran.stderr.contains("is no remote cache"), "{}", ran.stderr);
    assert!(empty.cached_files("actions").is_empty());
    // Variables without a value are as none.
    let mut command = empty.command(&["run", "p.yaml", "--json"]);
    for name in ["ATFLOW_REMOTE", "ATFLOW_CACHE", "ATFLOW_PATIENCE"] {
        command.env(name, "");
    }
    let ran = crate::support::Ran::of(command.output().unwrap());
    assert_eq!((ran.code, ran.stages().len()), (Some(0), 3), "{}", ran.seen());
    assert!(empty.path().join("cache/VERSION").exists(), "in its usual place");
    let pull = empty.run(&["pull", "p.yaml", "--remote", ""]);
    assert!(pull.stderr.contains("pull needs a cache to take from"), "{}", pull.stderr);
}

#[test]
fn what_is_pushed_to_a_folder_can_be_pulled_from_it() {
    let (made, empty) = made_and_empty();
    let folder = made.path().join("shared").display().to_string();
    let push = made.run(&["push", "p.yaml", "--remote", &folder]);
    assert_eq!(push.code, Some(0), "{}", push.seen());
    let again = made.run(&["push", "p.yaml", "--remote", &folder]);
    assert!(again.stderr.contains("0 files copied"), "{}", again.stderr);
    let pull = empty.run(&["pull", "p.yaml", "--remote", &folder]);
    assert_eq!(pull.code, Some(0), "{}", pull.seen());
    assert_eq!(empty.ran(&["--offline"]), [""; 0]);
    assert_eq!(digest_of(&empty, "weights", "w"), digest_of(&made, "weights", "w"));
    let web = serve(made.path().join("shared"), Fault::None);
    let ran = made.run(&["push", "p.yaml", "--remote", &web.url]);
    assert_eq!(ran.code, Some(2), "a web server takes no files");
}

#[test]
fn a_server_that_never_answers_is_given_up_in_time() {
    let (made, empty) = made_and_empty();
    let server = serve(made.path().join("cache"), Fault::Silent);
    let ran = empty.run(&["run", "p.yaml", "--remote", &server.url, "--patience", "1"]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("asked 3 times; it may be silent for 1 s"), "{}", ran.stderr);
    assert!(empty.cached_files("actions").is_empty());
    // The same of a bucket.
    let mut command = empty.command(&["plan", "p.yaml", "--remote", "s3://lab", "--patience", "1"]);
    command.env("AWS_ENDPOINT_URL", server.url.trim_end_matches("/atflow")).env("AWS_ALLOW_HTTP", "true");
    command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret");
    let ran = crate::support::Ran::of(command.output().unwrap());
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("timeout") && ran.stderr.contains("max_retries: 2"), "{}", ran.stderr);
}

#[test]
fn a_server_that_stops_in_the_middle_of_a_file_is_given_up_in_time() {
    let (made, empty) = made_and_empty();
    let server = serve(made.path().join("cache"), Fault::Stall);
    let ran = empty.run(&["run", "p.yaml", "table", "--remote", &server.url, "--patience", "1"]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("it may be silent for 1 s") && ran.stderr.contains("objects/"), "{}", ran.stderr);
    // A program is told how the run ended, too.
    let ran = empty.run(&["run", "p.yaml", "table", "--remote", &server.url, "--patience", "1", "--json"]);
    let (events, last) = (ran.events(), ran.events().pop().unwrap());
    assert_eq!(
        (ran.code, &last["event"], &last["outcome"]),
        (Some(2), &"run_finished".into(), &"broken".into()),
        "{last}"
    );
    assert!(last["error"].as_str().unwrap().contains("it may be silent for 1 s"), "{last}");
    let ended = |event: &&serde_json::Value| event["event"] == "stage_finished";
    assert_eq!(
        (events.iter().filter(ended).count(), &last["skipped"]),
        (3, &1.into()),
        "every stage ends: {}",
        ran.stdout
    );
    assert_eq!(empty.ran(&["table", "--offline"]), ["numbers", "table", "weights"], "half a file is no result");
}

#[test]
fn manifests_are_asked_for_together() {
    let made = Space::new();
    let text = "stages:\n  each: {kind: command, matrix: {x: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, a, b, c, d, e, f]}, \
                with: {run: 'echo ${x} > n', outputs: {n: n}}}\n";
    made.write("p.yaml", text);
    made.ran(&[]);
    for args in [["plan", "p.yaml"], ["run", "p.yaml"]] {
        let space = Space::new();
        space.write("p.yaml", text.replace(", e, f]", ", e, g]"));
        let server = serve(made.path().join("cache"), Fault::Slow);
        let ran = space.run(&[&args[..], &["--remote", &server.url]].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.seen());
        let asked = server.asked.lock().unwrap().clone();
        assert!(server.together.load(Ordering::SeqCst) > 4, "{asked:?}");
        assert_eq!(asked.len(), 17, "VERSION, and each manifest once, the absent one too: {asked:?}");
    }
}

/// A table over twenty inputs of different lengths.
const WIDE: &str = r#"
stages:
  each:
    kind: command
    matrix: {x: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, a, b, c, d, e, f, g, h, i, j]}
    with: {run: "echo made >> $HOME/runs; echo ${x} > ${out.n}", outputs: {n: n}}
  table:
    kind: command
    needs: {of: each}
    with: {run: "cat ../in/of/* > ${out.t}", outputs: {t: t}}
"#;

#[test]
fn inputs_are_fetched_together() {
    let made = Space::new();
    made.write("p.yaml", WIDE);
    made.ran(&[]);
    let server = serve(made.path().join("cache"), Fault::Slow);
    let space = Space::new();
    space.write("p.yaml", WIDE.replace("cat ", "cat  "));
    let ran = space.run(&["run", "p.yaml", "table", "--json", "--remote", &server.url]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert!(!space.path().join("runs").exists(), "no input is made again");
    let asked = server.asked.lock().unwrap().clone();
    let blobs = asked.iter().filter(|path| path.starts_with("objects/")).count();
    assert_eq!(blobs, 20, "each blob once: {asked:?}");
    assert!(server.together.load(Ordering::SeqCst) > 4, "{asked:?}");
    let events: Vec<serde_json::Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let fetched: Vec<_> = events.iter().filter(|event| event["event"] == "fetched").collect();
    assert_eq!(fetched.len(), 1, "{fetched:?}");
    assert_eq!((&fetched[0]["stage"], &fetched[0]["bytes"]), (&"table".into(), &40.into()));
}

#[test]
fn of_many_inputs_a_lost_one_is_made_again_and_a_failing_server_ends_the_run() {
    let made = Space::new();
    made.write("p.yaml", WIDE);
    made.ran(&[]);
    let lost = digest_of(&made, "each/7", "n");
    std::fs::remove_file(made.path().join("cache/objects").join(&lost[..2]).join(&lost)).unwrap();
    let server = serve(made.path().join("cache"), Fault::None);
    let space = Space::new();
    space.write("p.yaml", WIDE.replace("cat ", "cat  "));
    let ran = space.run(&["run", "p.yaml", "table", "--remote", &server.url]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert_eq!(space.read("runs").lines().count(), 1, "the lost one alone: {}", ran.seen());

    let silent = serve(made.path().join("cache"), Fault::SilentBlobs);
    let space = Space::new();
    space.write("p.yaml", WIDE.replace("cat ", "cat  "));
    let ran = space.run(&["run", "p.yaml", "table", "--remote", &silent.url, "--patience", "1"]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("it may be silent for 1 s"), "{}", ran.stderr);
}

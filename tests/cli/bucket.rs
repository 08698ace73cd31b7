//! A cache in a bucket: pushed to and read from a real S3 server (s3s over a folder, which checks signatures) on the
//! loopback interface.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;

use crate::support::{Ran, Space};

const PIPELINE: &str = r#"
stages:
  weights:
    kind: command
    with: {run: "head -c 40000000 /dev/zero > ${out.w}", outputs: {w: w}}
  numbers:
    kind: command
    needs: {of: weights}
    with: {run: "wc -c < ${in.of} > ${out.n}", outputs: {n: n}}
  table:
    kind: command
    needs: {of: numbers}
    with: {run: "cat ${in.of} > ${out.t}; echo bytes >> ${out.t}", outputs: {t: t}}
"#;

/// An S3 server with the bucket `lab`, whose objects are files.
pub(crate) struct Store {
    dir: tempfile::TempDir,
    pub(crate) endpoint: String,
}

impl Store {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("lab")).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(dir.path()).unwrap());
        service.set_auth(SimpleAuth::from_single("key", "secret"));
        let (service, turn) = (service.build(), Arc::new(tokio::sync::Mutex::new(())));
        let (sender, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    let (service, turn) = (service.clone(), turn.clone());
                    // One request after the other: this server looks whether an object exists and writes it in two
                    // steps, which real stores do in one.
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (service, turn) = (service.clone(), turn.clone());
                        async move {
                            let _alone = turn.lock().await;
                            Service::call(&service, request).await
                        }
                    });
                    tokio::spawn(async move {
                        // A client may leave as it likes.
                        _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
                    });
                }
            });
        });
        Store { dir, endpoint: format!("http://{}", address.recv().unwrap()) }
    }

    pub(crate) fn object(&self, path: &str) -> PathBuf {
        self.dir.path().join("lab/shared/atflow").join(path)
    }

    /// The program with these credentials, to be run.
    fn command_as(&self, space: &Space, secret: &str, args: &[&str]) -> Command {
        let mut command = space.command(args);
        command.env("AWS_ENDPOINT_URL", &self.endpoint).env("AWS_ALLOW_HTTP", "true");
        command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", secret);
        // Whoever watches agents looks more often than it would at a real bucket.
        command.env("ATFLOW_CLUSTER_PACE", "0.1");
        command
    }

    /// The program with this bucket, to be run.
    pub(crate) fn command(&self, space: &Space, args: &[&str]) -> Command {
        self.command_as(space, "secret", &[args, &["--remote", "s3://lab/shared/atflow"]].concat())
    }

    /// Runs the program with these credentials.
    pub(crate) fn run_as(&self, space: &Space, secret: &str, args: &[&str]) -> Ran {
        Ran::of(self.command_as(space, secret, args).output().unwrap())
    }

    /// Starts the program, which ends by itself.
    pub(crate) fn spawn(&self, space: &Space, args: &[&str]) -> Child {
        self.command(space, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub(crate) fn run(&self, space: &Space, args: &[&str]) -> Ran {
        Ran::of(self.command(space, args).output().unwrap())
    }
}

/// A store that holds all results of the pipeline, and a new space with the same pipeline.
fn pushed() -> (Store, Space, Space) {
    let (store, made, empty) = (Store::start(), Space::new(), Space::new());
    made.write("p.yaml", PIPELINE);
    made.ran(&[]);
    empty.write("p.yaml", PIPELINE);
    let push = store.run(&made, &["push", "p.yaml"]);
    assert_eq!(push.code, Some(0), "{}", push.seen());
    (store, made, empty)
}

fn object_of(space: &Space, stage: &str, output: &str) -> String {
    let show = space.run(&["show", stage, "--json"]);
    let manifest: serde_json::Value = serde_json::from_str(&show.stdout).unwrap();
    let digest = manifest["outputs"][output]["digest"].as_str().unwrap();
    format!("objects/{}/{digest}", &digest[..2])
}

fn overwrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_pushed_to_a_bucket_is_there_for_an_empty_cache_elsewhere() {
    let (store, made, empty) = pushed();
    let again = store.run(&made, &["push", "p.yaml"]);
    assert!(again.stderr.contains("0 files copied"), "{}", again.stderr);
    let ran = store.run(&empty, &["run", "p.yaml", "table", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert!(ran.stages().values().all(|status| status == "cached"), "{}", ran.stdout);
    assert!(!empty.path().join("cache").join(object_of(&made, "weights", "w")).exists(), "only what is needed");
    // A file in several parts comes back as it was.
    let pull = store.run(&empty, &["pull", "p.yaml"]);
    assert_eq!(pull.code, Some(0), "{}", pull.seen());
    assert_eq!(empty.run(&["verify", "p.yaml", "weights"]).code, Some(0));
}

#[test]
fn wrong_credentials_and_wrong_buckets_are_told_before_anything_runs() {
    let (store, _, empty) = pushed();
    let seen = |secret: &str, remote: &str| {
        let ran = store.run_as(&empty, secret, &["run", "p.yaml", "--remote", remote]);
        ran.seen().replace(&store.endpoint, "ENDPOINT")
    };
    insta::assert_snapshot!(
        [
            seen("guessed", "s3://lab/shared/atflow"),
            seen("secret", "s3://lab/elsewhere"),
            seen("secret", "s3://other/shared/atflow"),
        ]
        .join("\n")
    );
    let plain = Ran::of(
        empty
            .command(&["run", "p.yaml", "--remote", "s3://lab/shared/atflow"])
            .env("AWS_ENDPOINT_URL", &store.endpoint)
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .output()
            .unwrap(),
    );
    assert_eq!(plain.code, Some(2), "credentials do not go over plain HTTP unless somebody says so: {}", plain.seen());
    assert!(empty.cached_files("actions").is_empty());
}

#[test]
fn a_corrupt_object_of_a_bucket_is_never_taken_for_a_result() {
    let (store, made, empty) = pushed();
    let table = object_of(&made, "table", "t");
    overwrite(&store.object(&table), |bytes| bytes[0] ^= 1);
    let ran = store.run(&empty, &["run", "p.yaml", "table", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert_eq!(ran.stages()["table"], "ran", "it was made here");
    assert!(ran.stdout.contains("another blake3"), "the user is told: {}", ran.stdout);
    assert_eq!(object_of(&empty, "table", "t"), table);
    // One that was cut is told from a whole one, too.
    overwrite(&store.object(&table), |bytes| bytes.truncate(3));
    let third = Space::new();
    third.write("p.yaml", PIPELINE);
    let pull = store.run(&third, &["pull", "p.yaml", "table"]);
    assert_eq!(pull.code, Some(1), "{}", pull.seen());
    assert!(pull.stderr.contains("another length"), "{}", pull.stderr);
}

/// Six stages that take a moment, what is made of them, and a file that tells how often each ran, in all spaces.
fn shared_work(runs: &Path, seconds: &str) -> String {
    let runs = runs.display();
    format!(
        "stages:\n  each:\n    kind: command\n    matrix: {{x: [a, b, c, d, e, f]}}\n    with: {{run: 'echo ${{x}} >> \
         {runs}; sleep {seconds}; echo ${{x}} > ${{out.n}}', outputs: {{n: n}}}}\n  table:\n    kind: command\n    \
         needs: {{of: each}}\n    with: {{run: 'echo table >> {runs}; cat ../in/of/* > ${{out.t}}', outputs: {{t: t}}}}\n"
    )
}

#[test]
fn runs_that_share_a_bucket_and_no_folder_do_each_stage_once() {
    let (store, notes) = (Store::start(), tempfile::tempdir().unwrap());
    let runs = notes.path().join("runs");
    let spaces = [Space::new(), Space::new()];
    for space in &spaces {
        space.write("p.yaml", shared_work(&runs, "1"));
    }
    let args = ["run", "p.yaml", "--share-work", "--jobs", "1", "--json"];
    let started: Vec<Child> = spaces.iter().map(|space| store.spawn(space, &args)).collect();
    for (child, space) in started.into_iter().zip(&spaces) {
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.seen());
        assert_eq!(ran.stages().len(), 7, "{}", ran.stdout);
        assert_eq!(space.run(&["verify"]).code, Some(0));
    }
    let mut ran: Vec<String> = std::fs::read_to_string(&runs).unwrap().lines().map(str::to_owned).collect();
    ran.sort();
    assert_eq!(ran, ["a", "b", "c", "d", "e", "f", "table"], "each once");
    assert_eq!(std::fs::read_dir(store.object("leases")).unwrap().count(), 0, "no lease is left");
    // A third machine has nothing to do.
    let third = Space::new();
    third.write("p.yaml", shared_work(&runs, "1"));
    let ran = store.run(&third, &["run", "p.yaml", "--share-work", "--json"]);
    assert!(ran.stages().values().all(|status| status == "cached"), "{}", ran.seen());
}

#[test]
fn the_lease_of_a_killed_run_is_taken_over_and_a_living_one_is_not() {
    let (store, notes) = (Store::start(), tempfile::tempdir().unwrap());
    let runs = notes.path().join("runs");
    let (killed, other) = (Space::new(), Space::new());
    for space in [&killed, &other] {
        space.write("p.yaml", shared_work(&runs, "4"));
    }
    let args = ["run", "p.yaml", "each/a", "--share-work", "--json"];
    let mut first = store.spawn(&killed, &args);
    let started = Instant::now();
    let leases = || std::fs::read_dir(store.object("leases")).map_or(0, Iterator::count);
    while leases() == 0 {
        assert!(started.elapsed() < Duration::from_secs(60) && first.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = store.spawn(&other, &args);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(std::fs::read_to_string(&runs).unwrap_or_default().lines().count() <= 1, "the other run waits");
    first.kill().unwrap();
    first.wait().unwrap();
    let ran = Ran::of(second.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert_eq!(ran.stages()["each/a"], "ran", "{}", ran.stdout);
    assert!(ran.events().iter().any(|event| event["event"] == "stage_waiting"), "{}", ran.stdout);
    assert_eq!(leases(), 0);
}

#[test]
fn work_is_shared_through_buckets_only() {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    let folder = space.path().join("shared").display().to_string();
    let ran = space.run(&["run", "p.yaml", "--share-work", "--remote", &folder]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("holds no leases"), "{}", ran.stderr);
    let ran = space.run(&["run", "p.yaml", "--share-work"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("--remote"), "{}", ran.seen());
}

//! A cache in a bucket: pushed to and read from a real S3 server (s3s over a folder, which checks signatures) on the
//! loopback interface.

use std::path::{Path, PathBuf};

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
struct Store {
    dir: tempfile::TempDir,
    endpoint: String,
}

impl Store {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("lab")).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(dir.path()).unwrap());
        service.set_auth(SimpleAuth::from_single("key", "secret"));
        let service = service.build();
        let (sender, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    let service = service.clone();
                    tokio::spawn(async move {
                        // A client may leave as it likes.
                        _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
                    });
                }
            });
        });
        Store { dir, endpoint: format!("http://{}", address.recv().unwrap()) }
    }

    fn object(&self, path: &str) -> PathBuf {
        self.dir.path().join("lab/shared/atflow").join(path)
    }

    /// Runs the program with these credentials.
    fn run_as(&self, space: &Space, secret: &str, args: &[&str]) -> Ran {
        let mut command = space.command(args);
        command.env("AWS_ENDPOINT_URL", &self.endpoint).env("AWS_ALLOW_HTTP", "true");
        command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", secret);
        Ran::of(command.output().unwrap())
    }

    fn run(&self, space: &Space, args: &[&str]) -> Ran {
        self.run_as(space, "secret", &[args, &["--remote", "s3://lab/shared/atflow"]].concat())
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

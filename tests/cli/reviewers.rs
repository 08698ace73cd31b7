//! A reviewer's session is the same whatever sort of server holds the published results: a table from predictions,
//! evaluations from checkpoints, a spot check; and predictions that no checkpoint gives are found.

use std::any::Any;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use atflow::formats::Predictions;

use crate::bazel_server::BazelServer;
use crate::bucket::Store;
use crate::depth::space;
use crate::reapi::Casd;
use crate::support::{Ran, Space};

/// A cache elsewhere, which is there until the story ends.
struct Remote {
    name: String,
    variables: Vec<(&'static str, String)>,
    _server: Box<dyn Any>,
}

/// The program with the worker of the space.
fn command(space: &Space, args: &[&str]) -> Command {
    let mut command = space.command(args);
    command.env("ATFLOW_WORKER", space.path().join("worker"));
    command
}

impl Remote {
    fn run(&self, space: &Space, args: &[&str]) -> Ran {
        let mut command = command(space, &[args, &["--remote", &self.name]].concat());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        Ran::of(command.output().unwrap())
    }

    /// Runs all of the pipeline in a space and pushes its results.
    fn publish(&self, made: &Space) {
        let run = Ran::of(command(made, &["run", "p.yaml"]).output().unwrap());
        for ran in [run, self.run(made, &["push", "p.yaml"])] {
            assert_eq!(ran.code, Some(0), "{}: {}", self.name, ran.seen());
        }
    }
}

/// Reviews honest results, and then forged ones on another server.
fn review(start: impl Fn() -> Option<Remote>) {
    let Some(remote) = start() else { return };
    remote.publish(&space());
    for (depth, words) in [
        ("predictions", "recomputed from 2 predictions: 4 of 4 files identical to the published ones"),
        ("checkpoints", "recomputed from 2 checkpoints: 6 of 6 files identical to the published ones"),
    ] {
        let ran = remote.run(&space(), &["run", "p.yaml", "table", "--from", depth]);
        assert_eq!(ran.code, Some(0), "{}: {}", remote.name, ran.seen());
        assert!(ran.stderr.contains(&format!("{words} ({})", remote.name)), "{}", ran.stderr);
    }
    let check = ["verify", "p.yaml", "table", "--sample", "2"];
    let ran = remote.run(&space(), &check);
    assert_eq!(ran.code, Some(0), "{}: {}", remote.name, ran.seen());
    assert!(ran.stdout.contains("\n2 identical, 0 within tolerance, 0 different\n"), "{}", ran.stdout);

    let (remote, forger) = (start().unwrap(), space());
    let bytes = std::fs::read(forger.path().join("predictions")).unwrap();
    let better = Predictions { predicted: vec![0, 1], ..Predictions::from_bytes(&bytes).unwrap() };
    forger.write("predictions", better.to_bytes().unwrap());
    remote.publish(&forger);
    let ran = remote.run(&space(), &check);
    assert_eq!(ran.code, Some(3), "{}: {}", remote.name, ran.seen());
    assert!(ran.stdout.contains("0 identical, 0 within tolerance, 2 different"), "{}", ran.stdout);
    let ran = remote.run(&space(), &["run", "p.yaml", "table", "--from", "checkpoints"]);
    assert_eq!(ran.code, Some(3), "{}: {}", remote.name, ran.seen());
    assert!(ran.stderr.contains("a, clean: 100.00 % → 50.00 %"), "{}", ran.stderr);
}

#[test]
fn results_in_a_folder_are_reviewed() {
    review(|| {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("lab").display().to_string();
        Some(Remote { name, variables: Vec::new(), _server: Box::new(folder) })
    });
}

#[test]
fn results_in_a_bucket_are_reviewed() {
    review(|| {
        let store = Store::start();
        let variables = vec![
            ("AWS_ENDPOINT_URL", store.endpoint.clone()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ];
        Some(Remote { name: "s3://lab/reviewed".to_owned(), variables, _server: Box::new(store) })
    });
}

#[test]
fn results_in_a_cache_of_bazels_are_reviewed() {
    review(|| {
        let server = BazelServer::start();
        Some(Remote { name: server.name.clone(), variables: Vec::new(), _server: Box::new(server) })
    });
}

#[test]
fn results_behind_grpc_are_reviewed() {
    review(|| {
        let server = Casd::start(&[])?;
        Some(Remote { name: server.name.clone(), variables: Vec::new(), _server: Box::new(server) })
    });
}

/// Takes encrypted connections, prints its port, and passes what it hears to an address.
const GUARD: &str = r#"
import asyncio, ssl, sys
certificate, key, host, port = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
context.set_alpn_protocols(["h2"])
async def pass_on(reader, writer):
    while part := await reader.read(65536):
        writer.write(part)
        await writer.drain()
    writer.close()
async def meet(reader, writer):
    inner, outer = await asyncio.open_connection(host, int(port))
    await asyncio.gather(pass_on(reader, outer), pass_on(inner, writer), return_exceptions=True)
async def main():
    server = await asyncio.start_server(meet, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"#;

/// A process that is killed when the story ends.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A server behind TLS, with a certificate that only the file in `SSL_CERT_FILE` makes one to trust.
fn encrypted() -> Option<Remote> {
    let (casd, folder) = (Casd::start(&[])?, tempfile::tempdir().unwrap());
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("server.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (host, port) = casd.name.trim_start_matches("reapi://").split_once(':').unwrap();
    let mut command = Command::new("python3");
    command.args(["-c", GUARD]).args([&certificate, &key]).args([host, port]).stdout(Stdio::piped());
    let mut guard = Guard(command.spawn().unwrap());
    let mut port = String::new();
    BufReader::new(guard.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let variables = vec![("SSL_CERT_FILE", certificate.display().to_string())];
    let name = format!("reapis://localhost:{}", port.trim());
    Some(Remote { name, variables, _server: Box::new((casd, guard, folder)) })
}

#[test]
fn results_behind_encrypted_grpc_are_reviewed() {
    review(encrypted);
}

#[test]
fn a_certificate_of_nobody_who_is_trusted_is_told_over_grpc_too() {
    let Some(mut remote) = encrypted() else { return };
    remote.variables.clear();
    let ran = remote.run(&space(), &["run", "p.yaml", "table", "--patience", "1"]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    let words = ran.stderr.split_whitespace().filter(|word| *word != "|").collect::<Vec<_>>().join(" ");
    let told = "its certificate is of an authority that is not trusted here. Trusted are";
    assert!(words.contains(told) && words.contains("SSL_CERT_FILE"), "{words}");
    assert!(!words.contains("asked"), "once is enough: {words}");
}

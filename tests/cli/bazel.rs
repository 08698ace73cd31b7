//! A cache on a server of Bazel's HTTP protocol, as labs run them: pushed to, read from, and not believed.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::bazel_server::{BazelServer, Fault, entry_of, files_of, sha256};
use crate::support::{Ran, Space};

const PIPELINE: &str = r#"
stages:
  weights:
    kind: command
    with: {run: "head -c 4000000 /dev/zero > ${out.w}; touch ${out.e}", outputs: {w: w, e: e}}
  numbers:
    kind: command
    needs: {of: weights.w}
    with: {run: "echo made >> $HOME/runs; wc -c < ${in.of} > ${out.n}", outputs: {n: n}}
  table:
    kind: command
    needs: {of: numbers}
    with: {run: "cat ${in.of} > ${out.t}; echo bytes >> ${out.t}", outputs: {t: t}}
"#;

fn run(space: &Space, server: &BazelServer, args: &[&str]) -> Ran {
    space.run(&[args, &["--remote", &server.name]].concat())
}

fn empty() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space
}

/// A server that holds all results of the pipeline, and a space that made them.
fn pushed() -> (BazelServer, Space) {
    let (server, made) = (BazelServer::start(), empty());
    made.ran(&[]);
    let push = run(&made, &server, &["push", "p.yaml"]);
    assert_eq!(push.code, Some(0), "{}", push.seen());
    (server, made)
}

fn manifest_of(space: &Space, stage: &str) -> serde_json::Value {
    serde_json::from_str(&space.run(&["show", stage, "--json"]).stdout).unwrap()
}

fn digest_of(space: &Space, stage: &str, output: &str) -> String {
    manifest_of(space, stage)["outputs"][output]["digest"].as_str().unwrap().to_owned()
}

/// Paths of the manifests, of which each belongs to an entry.
fn manifests(server: &BazelServer) -> Vec<(String, Vec<String>)> {
    let stored = server.stored();
    let paths = |entry: &Vec<u8>| files_of(entry).unwrap().into_iter().map(|file| file.path).collect::<Vec<_>>();
    let entries = stored.ac.iter().map(|(key, entry)| (key.clone(), paths(entry)));
    entries.filter(|(_, paths)| paths.iter().any(|path| path.starts_with("actions/"))).collect()
}

#[test]
fn what_is_pushed_to_a_cache_of_bazels_is_there_for_an_empty_cache_elsewhere() {
    let (server, made) = pushed();
    let again = run(&made, &server, &["push", "p.yaml"]);
    assert!(again.stderr.contains("0 files copied"), "{}", again.stderr);
    // The entry of each stage has its key, its manifest, and the files that the manifest names but empty ones.
    let entries = manifests(&server);
    assert_eq!(entries.len(), 3);
    for (key, paths) in entries {
        assert!(paths.contains(&format!("actions/{}/{key}.json", &key[..2])), "{paths:?}");
        assert_eq!(paths.iter().filter(|path| path.starts_with("objects/")).count(), 1, "{paths:?}");
    }
    server.asked();
    let space = empty();
    let ran = run(&space, &server, &["run", "p.yaml", "table", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert!(ran.stages().values().all(|status| status == "cached"), "{}", ran.stdout);
    // VERSION and three manifests with one request each, and the bytes of the table.
    assert_eq!(server.asked(), ["GET ac", "GET ac", "GET ac", "GET ac", "GET cas"]);
    // Manifests that are here name files that another process has to find.
    let pull = run(&space, &server, &["pull", "p.yaml"]);
    assert_eq!(pull.code, Some(0), "{}", pull.seen());
    assert_eq!(space.run(&["verify"]).code, Some(0));
    assert_eq!(space.ran(&["--offline"]), [""; 0]);
    assert_eq!(digest_of(&space, "weights", "w"), digest_of(&made, "weights", "w"));
    let from = &manifest_of(&space, "table")["from"];
    assert_eq!(from["remote"], server.name, "{from}");
}

#[test]
fn what_a_cache_evicts_is_made_again_and_pushed_again() {
    let (server, made) = pushed();
    let weights = sha256(&vec![0; 4_000_000]);
    assert!(server.stored().cas.remove(&weights).is_some());
    let space = empty();
    let plan = run(&space, &server, &["plan", "p.yaml", "table"]).stdout;
    assert!(plan.contains("stale    weights") && plan.contains("pending  numbers"), "{plan}");
    let ran = run(&space, &server, &["run", "p.yaml", "--json"]);
    let stages = ran.stages();
    assert_eq!((stages["weights"].as_str(), stages["numbers"].as_str()), ("ran", "cached"), "{}", ran.seen());
    let push = run(&made, &server, &["push", "p.yaml"]);
    assert!(push.stderr.contains("1 file copied"), "{}", push.stderr);
    assert!(server.stored().cas.contains_key(&weights));
}

#[test]
fn bytes_are_checked_by_both_digests() {
    let (server, made) = pushed();
    let table = std::fs::read(made.path().join("cache/objects").join({
        let digest = digest_of(&made, "table", "t");
        format!("{}/{digest}", &digest[..2])
    }))
    .unwrap();
    let told = |words: &str| {
        let space = empty();
        let ran = run(&space, &server, &["run", "p.yaml", "table", "--json"]);
        assert_eq!(ran.code, Some(0), "{}", ran.seen());
        assert_eq!(ran.stages()["table"], "ran", "it was made here");
        assert!(ran.stdout.contains(words), "the user is told: {}", ran.stdout);
        assert_eq!(digest_of(&space, "table", "t"), digest_of(&made, "table", "t"));
    };
    // The server has other bytes under their SHA-256.
    let mut wrong = table.clone();
    wrong[0] ^= 1;
    server.stored().cas.insert(sha256(&table), wrong.clone());
    told("another sha256");
    server.stored().cas.insert(sha256(&table), table[..3].to_vec());
    told("another length");
    // An entry names other bytes, by their right SHA-256, for what a manifest names by BLAKE3.
    server.stored().cas.insert(sha256(&wrong), wrong.clone());
    server.stored().cas.insert(sha256(&table), table.clone());
    let (right, other) = (sha256(&table), sha256(&wrong));
    for entry in server.stored().ac.values_mut() {
        if let Some(at) = entry.windows(64).position(|window| window == right.as_bytes()) {
            entry[at..at + 64].copy_from_slice(other.as_bytes());
        }
    }
    told("another blake3");
}

#[test]
fn what_rotted_here_is_not_sent() {
    let (server, made) = (BazelServer::start(), empty());
    made.ran(&[]);
    let digest = digest_of(&made, "numbers", "n");
    let path = made.path().join("cache/objects").join(&digest[..2]).join(&digest);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes.iter().map(|byte| byte ^ 1).collect::<Vec<u8>>()).unwrap();
    let push = run(&made, &server, &["push", "p.yaml"]);
    assert_eq!(push.code, Some(1), "{}", push.seen());
    assert!(push.stderr.contains("a file of numbers has other bytes"), "{}", push.stderr);
    assert!(!server.stored().cas.contains_key(&sha256(&bytes)));
}

#[test]
fn signed_results_come_from_a_cache_of_bazels_too() {
    let (server, made) = (BazelServer::start(), empty());
    made.ran(&[]);
    assert_eq!(made.run(&["keygen", "lab.key"]).code, Some(0));
    let key = made.path().join("lab.key.pub").display().to_string();
    let push = run(&made, &server, &["push", "p.yaml"]);
    assert_eq!(push.code, Some(0), "{}", push.seen());
    let ran = |trust: &str| run(&empty(), &server, &["run", "p.yaml", "table", "--json", "--trust", trust]).stages();
    assert_eq!(ran(&key)["table"], "ran", "unsigned results do not count");
    let push = run(&made, &server, &["push", "p.yaml", "--sign", "lab.key"]);
    assert!(push.stderr.contains("3 results signed"), "{}", push.seen());
    assert_eq!(ran(&key)["table"], "cached");
    assert_eq!(made.run(&["keygen", "other.key"]).code, Some(0));
    assert_eq!(ran(&made.path().join("other.key.pub").display().to_string())["table"], "ran");
}

#[test]
fn a_server_that_needs_a_password_gets_it_and_one_that_refuses_is_told() {
    let (server, made) = (BazelServer::start(), empty());
    made.ran(&[]);
    let name = server.name.replace("://", "://lab:p%20w@");
    let push = made.run(&["push", "p.yaml", "--remote", &name]);
    assert_eq!(push.code, Some(0), "{}", push.seen());
    // `printf 'lab:p w' | base64`
    assert!(server.stored().asked.iter().all(|(_, _, sent)| sent.as_deref() == Some("Basic bGFiOnAgdw==")));
    assert!(!push.seen().contains("p%20w"), "{}", push.seen());
    let refuses = |status: &'static str| -> Box<Fault> {
        Box::new(move |method, _, to| {
            if method == "PUT" {
                _ = write!(to, "HTTP/1.1 {status}\r\nContent-Length: 9\r\n\r\nno\x1b[2Jway\n");
            }
            method == "PUT"
        })
    };
    let seen = |status| {
        let server = BazelServer::with(refuses(status));
        let address = server.name.trim_start_matches("bazel-").to_owned();
        run(&made, &server, &["push", "p.yaml"]).seen().replace(&server.name, "SERVER").replace(&address, "SERVER")
    };
    insta::assert_snapshot!(
        [seen("401 Unauthorized"), seen("413 Payload Too Large"), seen("507 Insufficient Storage")].join("\n")
    );
}

#[test]
fn servers_without_a_cache_are_told_before_anything_runs() {
    let page: Box<Fault> = Box::new(|_, _, to| {
        _ = write!(to, "HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n<html>Please log in</html>");
        true
    });
    let seen = |server: &BazelServer| {
        let address = server.name.trim_start_matches("bazel-").to_owned();
        let ran = run(&empty(), server, &["run", "p.yaml"]);
        let shown = ran.seen().replace(&server.name, "SERVER").replace(&address, "SERVER");
        let hides = |word: &str| if word.len() >= 64 { "KEY" } else { "" };
        let keys = shown.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| !hides(word).is_empty());
        keys.fold(shown.clone(), |shown, key| shown.replace(key, "KEY"))
    };
    insta::assert_snapshot!([seen(&BazelServer::start()), seen(&BazelServer::with(page))].join("\n"));
}

/// Writes bytes until the client has heard enough, but at most some megabytes; says how many.
fn endless(to: &mut TcpStream) -> usize {
    let some = [b'\n'; 1 << 16];
    (0..4096).find(|_| to.write_all(&some).is_err()).unwrap_or(4096) << 16
}

#[test]
fn hostile_servers_get_neither_memory_nor_disk_nor_time() {
    let (real, _) = pushed();
    let run_before = |fault: Box<Fault>| {
        let (server, space) = (real.before(fault), empty());
        let started = Instant::now();
        let ran = run(&space, &server, &["run", "p.yaml", "table", "--patience", "1"]);
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
        let received = space.cached_files("tmp").iter().map(|path| path.metadata().unwrap().len()).sum::<u64>();
        assert!(received < 1 << 20, "{received}");
        ran
    };
    let endless_entries: Box<Fault> = Box::new(|method, path, to| {
        let is_entry = method == "GET" && path.contains("/ac/");
        if is_entry {
            _ = write!(to, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            assert!(endless(to) < 64 << 20);
        }
        is_entry
    });
    let ran = run_before(endless_entries);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("is longer than"), "{}", ran.stderr);
    let endless_bytes: Box<Fault> = Box::new(|method, path, to| {
        let is_blob = method == "GET" && path.contains("/cas/");
        if is_blob {
            _ = write!(to, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            assert!(endless(to) < 64 << 20);
        }
        is_blob
    });
    let ran = run_before(endless_bytes);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert!(ran.stderr.contains("another length"), "{}", ran.stderr);
    let dripping: Box<Fault> = Box::new(|method, path, to| {
        let is_blob = method == "GET" && path.contains("/cas/");
        if is_blob {
            _ = write!(to, "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n");
            while to.write_all(b"1").is_ok() {
                std::thread::sleep(Duration::from_millis(300));
            }
        }
        is_blob
    });
    let ran = run_before(dripping);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    let words = ran.stderr.split_whitespace().filter(|word| *word != "|").collect::<Vec<_>>().join(" ");
    assert!(words.contains("is too slow (asked 3 times)"), "{words}");
}

#[test]
fn entries_that_lie_about_their_files_count_as_absent() {
    let (server, made) = pushed();
    let (stage, path) = {
        let entries = manifests(&server);
        let table = digest_of(&made, "table", "t");
        let of_table = |(_, paths): &&(String, Vec<String>)| paths.iter().any(|path| path.ends_with(&table));
        let (key, _) = entries.iter().find(of_table).unwrap();
        (key.clone(), format!("actions/{}/{key}.json", &key[..2]))
    };
    let other = sha256(b"other bytes");
    server.stored().cas.insert(other.clone(), b"other bytes".to_vec());
    for entry in [
        // Absurd lengths, none, and one that is not that of the bytes.
        entry_of(&path, &other, u64::MAX),
        entry_of(&path, &other, i64::MAX as u64),
        entry_of(&path, &other, 1 << 40),
        entry_of(&path, &other, 5),
        entry_of(&path, "../../../etc/passwd", 11),
        entry_of(&path, "", 11),
        // Other files, and bytes that are no manifest.
        entry_of("bazel-out/k8/bin/a.o", &other, 11),
        entry_of(&path, &other, 11),
        b"{\"json\": \"is no message\"}".to_vec(),
    ] {
        let shown = String::from_utf8_lossy(&entry).into_owned();
        server.stored().ac.insert(stage.clone(), entry);
        let space = empty();
        let ran = run(&space, &server, &["run", "p.yaml", "--json"]);
        assert_eq!(ran.code, Some(0), "{shown}: {}", ran.seen());
        let stages = ran.stages();
        assert_eq!((stages["table"].as_str(), stages["numbers"].as_str()), ("ran", "cached"), "{shown}");
        assert_eq!(space.run(&["verify"]).code, Some(0));
    }
}

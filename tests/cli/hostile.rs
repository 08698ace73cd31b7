//! Servers that mean harm, or are out of order: what they send is bounded in bytes and in time, whatever they send.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::server::{Answer, Asked, Server, head};
use crate::support::{Ran, Space};

const PIPELINE: &str = r#"
stages:
  weights:
    kind: command
    with: {run: "head -c 100000 /dev/zero > ${out.w}", outputs: {w: w}}
  table:
    kind: command
    needs: {of: weights}
    with: {run: "wc -c < ${in.of} > ${out.t}; echo bytes >> ${out.t}", outputs: {t: t}}
"#;

/// More than any client here takes before it has seen enough: its buffers and those of the system are smaller.
const MEGABYTES: u64 = 64;

/// A space whose cache holds all results, and a new one.
fn made_and_empty() -> (Space, Space) {
    let (made, empty) = (Space::new(), Space::new());
    made.write("p.yaml", PIPELINE);
    made.ran(&[]);
    empty.write("p.yaml", PIPELINE);
    (made, empty)
}

fn serve(made: &Space, answer: Box<Answer>) -> Server {
    Server::start(made.path().join("cache"), answer)
}

/// Bytes until nobody takes them any more, or far too many were taken.
fn endless(to: &mut dyn Write, piece: &[u8]) {
    let pieces = 1 + (1 << 30) / piece.len();
    (0..pieces).try_for_each(|_| to.write_all(piece)).ok();
}

/// A few bytes at a time, for longer than anybody here waits.
fn drip(to: &mut dyn Write, piece: &[u8]) {
    for _ in 0..300 {
        if to.write_all(piece).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn chunked(to: &mut dyn Write, piece: &[u8]) {
    _ = head(to, "200 OK", "Transfer-Encoding: chunked");
    let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
    endless(to, &chunk);
}

/// What a cache holds that is no result: what was fetched in part.
fn left_over(space: &Space) -> Vec<std::path::PathBuf> {
    space.cached_files("tmp")
}

#[test]
fn a_blob_is_taken_up_to_its_length_and_not_a_byte_more() {
    let zeros = vec![0; 1 << 16];
    let tells = |headers: &'static str| -> Box<Answer> {
        let zeros = zeros.clone();
        Box::new(move |asked: &Asked, to: &mut dyn Write| {
            if asked.is_blob() && asked.method == "GET" {
                _ = head(to, "200 OK", headers);
                endless(to, &zeros);
            }
            asked.is_blob() && asked.method == "GET"
        })
    };
    let in_chunks: Box<Answer> = {
        let zeros = zeros.clone();
        Box::new(move |asked: &Asked, to: &mut dyn Write| {
            if asked.is_blob() {
                chunked(to, &zeros);
            }
            asked.is_blob()
        })
    };
    for answer in [
        tells("X-Length: unknown"),
        tells("Content-Length: 1000000000000"),
        tells("Content-Length: 5"),
        tells("Content-Encoding: gzip"),
        in_chunks,
    ] {
        let (made, empty) = made_and_empty();
        let server = serve(&made, answer);
        let ran = empty.run(&["run", "p.yaml", "table", "--json", "--remote", &server.url]);
        assert_eq!(ran.code, Some(0), "{}", ran.seen());
        assert_eq!(ran.stages()["table"], "ran", "it was made here");
        assert!(ran.stdout.contains("has another length than it should: expected"), "the user is told: {}", ran.stdout);
        let pull = Space::new();
        pull.write("p.yaml", PIPELINE);
        let pulled = pull.run(&["pull", "p.yaml", "--remote", &server.url]);
        assert_eq!(pulled.code, Some(1), "{}", pulled.seen());
        assert!(server.megabytes_sent() < MEGABYTES, "{}", server.megabytes_sent());
        assert_eq!((left_over(&empty), left_over(&pull)), (vec![], vec![]), "nothing of it stays");
        assert_eq!(empty.run(&["verify"]).code, Some(0));
    }
}

#[test]
fn a_blob_of_another_length_is_not_counted_on() {
    let (made, empty) = made_and_empty();
    let server = serve(
        &made,
        Box::new(|asked, to| {
            if asked.is_blob() {
                _ = head(to, "200 OK", "Content-Length: 3");
                _ = to.write_all(if asked.method == "HEAD" { b"" } else { b"abc" });
            }
            asked.is_blob()
        }),
    );
    empty.write("p.yaml", PIPELINE.replace("echo bytes", "echo octets"));
    let plan = empty.run(&["plan", "p.yaml", "table", "--remote", &server.url]);
    assert!(plan.stdout.contains("weights"), "its bytes are nowhere, so it is made again: {}", plan.stdout);
}

#[test]
fn manifests_and_versions_without_an_end_are_none() {
    let junk = |piece: Vec<u8>| -> Box<Answer> {
        Box::new(move |asked: &Asked, to: &mut dyn Write| {
            if asked.is_manifest() {
                chunked(to, &piece);
            }
            asked.is_manifest()
        })
    };
    for piece in [b" ".repeat(1 << 16), b"[".repeat(1 << 16), br#"{"format": 1, "record": "#.to_vec()] {
        let (made, empty) = made_and_empty();
        let server = serve(&made, junk(piece));
        let plan = empty.run(&["plan", "p.yaml", "--remote", &server.url]);
        assert!(plan.stdout.contains("1 to run"), "{}", plan.seen());
        let pull = empty.run(&["pull", "p.yaml", "--remote", &server.url]);
        assert!(pull.stderr.contains("2 stages neither here nor there"), "{}", pull.seen());
        let run = empty.run(&["run", "p.yaml", "--remote", &server.url]);
        assert_eq!(run.code, Some(0), "{}", run.seen());
        assert!(server.megabytes_sent() < MEGABYTES, "{}", server.megabytes_sent());
        assert!(left_over(&empty).is_empty());
    }
    let (made, empty) = made_and_empty();
    let server = serve(
        &made,
        Box::new(|_, to| {
            chunked(to, &[b'1'; 4096]);
            true
        }),
    );
    let ran = empty.run(&["run", "p.yaml", "--remote", &server.url]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("/atflow/VERSION is longer than 65536 bytes"), "{}", ran.stderr);
    assert!(server.megabytes_sent() < MEGABYTES);
}

#[test]
fn the_same_holds_for_a_folder() {
    let (made, empty) = made_and_empty();
    let folder = made.path().join("cache").display().to_string();
    for blob in made.cached_files("objects") {
        std::fs::remove_file(&blob).unwrap();
        std::fs::write(&blob, "longer or shorter").unwrap();
    }
    let ran = empty.run(&["run", "p.yaml", "table", "--json", "--remote", &folder]);
    assert_eq!((ran.code, ran.stages()["table"].as_str()), (Some(0), "ran"), "{}", ran.seen());
    assert!(ran.stdout.contains("another length") && left_over(&empty).is_empty(), "{}", ran.stdout);
    // Pipes and devices never end.
    let (made, empty) = made_and_empty();
    let folder = made.path().join("cache").display().to_string();
    for file in made.cached_files("objects").into_iter().chain(made.cached_files("actions")) {
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/dev/zero", file).unwrap();
    }
    let ran = empty.run(&["run", "p.yaml", "--remote", &folder]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(ran.stderr.contains("it is a device, and only regular files are read"), "{}", ran.stderr);
}

#[test]
fn a_server_that_drips_is_given_up_in_time() {
    let body = |of: fn(&Asked) -> bool, headers: &'static str| -> Box<Answer> {
        Box::new(move |asked: &Asked, to: &mut dyn Write| {
            if of(asked) {
                _ = head(to, "200 OK", headers);
                drip(to, if headers.contains("chunked") { b"1\r\n0\r\n" } else { b"0" });
            }
            of(asked)
        })
    };
    let within_a_head: Box<Answer> = Box::new(|asked, to| {
        if asked.is_blob() {
            _ = write!(to, "HTTP/1.1 200 OK\r\nX: ");
            drip(to, b"0");
        }
        asked.is_blob()
    });
    let within_a_chunk_head: Box<Answer> = Box::new(|asked, to| {
        if asked.is_blob() {
            _ = head(to, "200 OK", "Transfer-Encoding: chunked");
            _ = write!(to, "1;");
            drip(to, b"x");
        }
        asked.is_blob()
    });
    for (answer, words) in [
        (body(Asked::is_blob, "Content-Length: 13"), "is too slow (asked 3 times): it sent"),
        (body(Asked::is_blob, "Transfer-Encoding: chunked"), "is too slow (asked 3 times)"),
        (body(Asked::is_manifest, "Content-Length: 2000"), "is too slow (asked 3 times)"),
        (body(|_| true, "Content-Length: 2000"), "VERSION: the server is too slow (asked 3 times)"),
        (within_a_head, "it may be silent for 1 s"),
        (within_a_chunk_head, "is too slow (asked 3 times)"),
    ] {
        let (made, empty) = made_and_empty();
        let server = serve(&made, answer);
        let started = Instant::now();
        let ran = empty.run(&["run", "p.yaml", "table", "--remote", &server.url, "--patience", "1"]);
        assert_eq!(ran.code, Some(2), "{}", ran.seen());
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
}

#[test]
fn redirects_are_followed_to_other_servers_and_not_in_circles_or_to_other_things() {
    let (made, empty) = made_and_empty();
    let real = serve(&made, Box::new(|_, _| false));
    let sends = |to: String| -> Box<Answer> {
        Box::new(move |asked: &Asked, stream: &mut dyn Write| {
            let to = to.replace("PATH", &asked.path);
            _ = head(stream, "302 Found", &format!("Location: {to}\r\nTransfer-Encoding: chunked"));
            endless(stream, b"5\r\nwords\r\n");
            true
        })
    };
    let run = |server: &Server, space: &Space| space.run(&["run", "p.yaml", "table", "--remote", &server.url]);
    let moved = serve(&made, sends(format!("{}/PATH", real.url)));
    let ran = run(&moved, &empty);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert!(ran.stderr.contains("nothing to do"), "{}", ran.stderr);
    for (to, words) in [
        ("/atflow/PATH", "the server sends again and again, and is not followed"),
        ("file:///etc/passwd", "the server sends to what is neither https:// nor http://"),
        ("ftp://localhost/PATH", "the server sends to what is neither https:// nor http://"),
        ("http://", "the server sends to no address"),
    ] {
        let space = Space::new();
        space.write("p.yaml", PIPELINE);
        let server = serve(&made, sends(to.to_owned()));
        let ran = run(&server, &space);
        assert_eq!(ran.code, Some(2), "{}", ran.seen());
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
        assert!(server.paths().len() <= 21 && server.megabytes_sent() < MEGABYTES, "{:?}", server.paths().len());
    }
}

#[test]
fn a_bucket_is_held_to_lengths_and_speed_too() {
    let store = |answer: Box<Answer>| {
        let (made, empty) = made_and_empty();
        let server = serve(&made, answer);
        let mut command = empty.command(&["run", "p.yaml", "table", "--remote", "s3://lab", "--patience", "1"]);
        command.env("AWS_ENDPOINT_URL", server.url.trim_end_matches("/atflow")).env("AWS_ALLOW_HTTP", "true");
        command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret").env("AWS_REGION", "x");
        let started = Instant::now();
        let ran = Ran::of(command.output().unwrap());
        assert_eq!(ran.code, Some(2), "{}", ran.seen());
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
        assert!(server.megabytes_sent() < MEGABYTES, "{}", server.megabytes_sent());
        ran.stderr
    };
    const OBJECT: &str = "ETag: \"x\"\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: ";
    let endless_version = store(Box::new(|_, to| {
        _ = head(to, "200 OK", &format!("{OBJECT}1000000000000"));
        endless(to, &[b'1'; 4096]);
        true
    }));
    assert!(endless_version.contains("VERSION is longer than 65536 bytes"), "{endless_version}");
    let words_without_end = store(Box::new(|_, to| {
        _ = head(to, "400 Bad Request", "X: y");
        endless(to, &[b'1'; 4096]);
        true
    }));
    assert!(words_without_end.len() < 4000, "{}", words_without_end.len());
    let slow = store(Box::new(|asked, to| {
        // Who asks for the rest after a while gets it as slowly.
        let from =
            asked.header("range").and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
        let from: u64 = from.unwrap_or(0);
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        let range = format!("Content-Range: bytes {from}-1999/2000\r\n");
        _ = head(to, status, &format!("{range}{OBJECT}{}", 2000 - from));
        drip(to, b"1");
        true
    }));
    assert!(slow.contains("bytes a second"), "{slow}");
}

//! Fetching, from a server on this machine that does as each test tells it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use atflow::address::Address;
use atflow::fetch::{Checksums, FetchError, Patience, checksums, fetch};
use atflow::stage_kinds::Source;
use tempfile::TempDir;

/// `seq 1 100000`: 588,895 bytes.
fn content() -> Vec<u8> {
    (1..=100_000).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

/// `seq 1 100000 | sha256sum`
const SHA256: &str = "b2bc7d3f8b652d2ec96865b68ad8f80e22cca174abe1aed7889e242a747d590f";
/// `seq 1 100000 | md5sum`
const MD5: &str = "dea9193b768319cbb4ff1a137ac03113";
/// `seq 1 100000 | b3sum`
const BLAKE3: &str = "8dd67963c0706cbdc5339e81509173716d7eb42fe107a8d1e2c21d790b35eb1b";

/// Answers one request, whose lines it is given.
type Answer = Box<dyn FnOnce(&mut TcpStream, &[String]) + Send>;

/// A server that answers one connection after the other, and sends on what it was asked.
fn serve(answers: Vec<Answer>) -> (String, Receiver<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/data.gz", listener.local_addr().unwrap());
    let (sender, requests) = channel();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let request: Vec<String> =
                lines.take_while(|line| !line.is_empty()).map(|line| line.to_ascii_lowercase()).collect();
            let _ = sender.send(request.clone());
            answer(&mut stream, &request);
        }
    });
    (url, requests)
}

fn whole(headers: &'static str, body: Vec<u8>) -> Answer {
    Box::new(move |stream, _| {
        write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len())
            .unwrap();
        stream.write_all(&body).unwrap();
    })
}

/// Promises everything and breaks off.
fn cut(headers: &'static str, after: usize) -> Answer {
    Box::new(move |stream, _| {
        let body = content();
        write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len())
            .unwrap();
        stream.write_all(&body[..after]).unwrap();
    })
}

/// Answers the range that was asked for, of `body`.
fn rest(body: Vec<u8>) -> Answer {
    Box::new(move |stream, request| {
        let range = request.iter().find_map(|line| line.strip_prefix("range: bytes=")).expect("a range");
        let start: usize = range.strip_suffix('-').unwrap().parse().unwrap();
        let (size, rest) = (body.len(), &body[start..]);
        let head = format!("Content-Range: bytes {start}-{}/{size}\r\nContent-Length: {}", size - 1, rest.len());
        write!(stream, "HTTP/1.1 206 Partial Content\r\nConnection: close\r\n{head}\r\n\r\n").unwrap();
        stream.write_all(rest).unwrap();
    })
}

fn status(line: &'static str) -> Answer {
    Box::new(move |stream, _| {
        write!(stream, "HTTP/1.1 {line}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
    })
}

struct Place {
    folder: TempDir,
    source: Source,
}

impl Place {
    fn new(url: String) -> Self {
        let source =
            Source { url: Some(url), sha256: Some(SHA256.to_uppercase()), md5: Some(MD5.into()), ..Source::default() };
        Place { folder: tempfile::tempdir().unwrap(), source }
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("file")
    }

    fn part(&self) -> PathBuf {
        self.folder.path().join("file.part")
    }

    fn fetch(&self) -> Result<Checksums, FetchError> {
        let impatient = Patience {
            connect: Duration::from_secs(2),
            stall: Duration::from_millis(300),
            tries: 3,
            pause: Duration::from_millis(10),
        };
        let mut last = None;
        let result = fetch(&self.source, &self.target(), &impatient, &mut |_, _| {}, &mut |done, total| {
            assert!(total.is_none_or(|total| done <= total));
            last = Some(done);
            ControlFlow::Continue(())
        });
        if result.is_ok() {
            assert_eq!(std::fs::read(self.target()).unwrap(), content());
            assert!(!self.part().exists());
            assert!(last.is_none_or(|last| last == content().len() as u64), "progress ended at {last:?}");
        } else {
            assert!(!self.target().exists(), "a half file has the final name");
        }
        result
    }
}

#[test]
fn a_file_is_fetched_with_all_its_sums() {
    let (url, requests) = serve(vec![whole("", content())]);
    let place = Place::new(url);
    let sums = place.fetch().unwrap();
    let expected = Checksums { blake3: BLAKE3.parse().unwrap(), sha256: SHA256.into(), md5: MD5.into(), size: 588_895 };
    assert_eq!(sums, expected);
    assert_eq!(checksums(&place.target()).unwrap(), expected);
    let request = requests.recv().unwrap();
    assert_eq!(request[0], "get /data.gz http/1.1");
    assert!(!request.iter().any(|line| line.starts_with("range") || line.contains("gzip")), "{request:?}");
}

#[test]
fn bytes_are_kept_as_the_server_has_them() {
    // Some servers declare what a `.gz` file is as if it were only its transport.
    let (url, _requests) = serve(vec![whole("Content-Encoding: gzip\r\n", content())]);
    Place::new(url).fetch().unwrap();
}

#[test]
fn a_download_that_broke_off_goes_on_where_it_was() {
    let (url, requests) = serve(vec![cut("ETag: \"one\"\r\n", 200_000), rest(content())]);
    Place::new(url).fetch().unwrap();
    let second = requests.iter().nth(1).unwrap();
    assert!(second.contains(&"range: bytes=200000-".to_owned()), "{second:?}");
    assert!(second.contains(&"if-range: \"one\"".to_owned()), "{second:?}");
}

#[test]
fn a_part_of_an_earlier_run_is_used() {
    let (url, _requests) = serve(vec![rest(content())]);
    let place = Place::new(url);
    std::fs::write(place.part(), &content()[..500_000]).unwrap();
    place.fetch().unwrap();
}

#[test]
fn a_part_that_is_whole_asks_nobody() {
    let place = Place::new("http://127.0.0.1:9/".into());
    std::fs::write(place.part(), content()).unwrap();
    place.fetch().unwrap();
}

#[test]
fn a_server_that_does_not_send_the_rest_starts_again() {
    let (url, _requests) = serve(vec![cut("", 200_000), whole("", content())]);
    Place::new(url).fetch().unwrap();
}

#[test]
fn a_file_that_changed_its_size_meanwhile_is_fetched_from_the_start() {
    let mut longer = content();
    longer.extend(b"more");
    let (url, requests) = serve(vec![cut("", 200_000), rest(longer), whole("", content())]);
    Place::new(url).fetch().unwrap();
    let third = requests.iter().nth(2).unwrap();
    assert!(!third.iter().any(|line| line.starts_with("range")), "{third:?}");
}

#[test]
fn a_part_of_another_file_costs_one_more_download() {
    let (url, _requests) = serve(vec![rest(content()), whole("", content())]);
    let place = Place::new(url);
    std::fs::write(place.part(), vec![b'x'; 1000]).unwrap();
    place.fetch().unwrap();

    let (url, _requests) = serve(vec![status("416 Range Not Satisfiable"), whole("", content())]);
    let place = Place::new(url);
    std::fs::write(place.part(), vec![b'x'; 1_000_000]).unwrap();
    place.fetch().unwrap();
}

#[test]
fn other_bytes_are_deleted_and_told() {
    let mut other = content();
    other[77] ^= 1;
    let (url, _requests) = serve(vec![whole("", other)]);
    let place = Place::new(url.clone());
    match place.fetch().unwrap_err() {
        FetchError::Mismatch { url: told, algorithm: "sha256", expected, found, size: 588_895 } => {
            assert_eq!(told.to_string(), url);
            assert_eq!(expected, SHA256.to_uppercase());
            assert!(found.len() == 64 && found != SHA256);
        }
        error => panic!("{error:?}"),
    }
    assert!(!place.part().exists());
    let (url, _requests) = serve(vec![whole("", content())]);
    let mut place = Place::new(url);
    (place.source.sha256, place.source.md5) = (None, Some("0".repeat(32)));
    assert!(matches!(place.fetch(), Err(FetchError::Mismatch { algorithm: "md5", .. })));
}

#[test]
fn a_refusal_is_final_and_a_failing_server_is_asked_again() {
    let (url, requests) = serve(vec![status("404 Not Found"), whole("", content())]);
    let place = Place::new(url);
    assert!(matches!(place.fetch(), Err(FetchError::Status { status: 404, tries: 1, .. })));
    assert_eq!(requests.try_iter().count(), 1);
    assert!(!place.part().exists());

    let busy = || status("503 Service Unavailable");
    let (url, _requests) = serve(vec![status("500 Oops"), busy(), whole("", content())]);
    Place::new(url).fetch().unwrap();

    let (url, _requests) = serve(vec![busy(), busy(), busy()]);
    assert!(matches!(Place::new(url).fetch(), Err(FetchError::Status { status: 503, tries: 3, .. })));
}

#[test]
fn redirects_are_followed() {
    let (url, _requests) = serve(vec![whole("", content())]);
    let there = format!("302 Found\r\nLocation: {url}");
    let (url, _requests) = serve(vec![Box::new(move |stream, _| {
        write!(stream, "HTTP/1.1 {there}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
    })]);
    Place::new(url).fetch().unwrap();
}

#[test]
fn a_server_that_hangs_ends_in_an_error() {
    // In the middle of the file, and before the first byte of an answer.
    let hang = |bytes: usize| -> Answer {
        Box::new(move |stream, _| {
            if bytes > 0 {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 588895\r\n\r\n").unwrap();
                stream.write_all(&content()[..bytes]).unwrap();
            }
            let stream = stream.try_clone().unwrap();
            thread::spawn(move || {
                thread::sleep(Duration::from_secs(20));
                drop(stream);
            });
        })
    };
    for bytes in [1000, 0] {
        let (url, _requests) = serve(vec![hang(bytes), hang(bytes), hang(bytes)]);
        let (place, start) = (Place::new(url), Instant::now());
        assert!(matches!(place.fetch(), Err(FetchError::Network { tries: 3, .. })));
        assert!(start.elapsed() > Duration::from_millis(800) && start.elapsed() < Duration::from_secs(8));
    }
}

#[test]
fn nobody_there_is_an_error_after_three_tries() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    drop(listener);
    assert!(matches!(Place::new(url).fetch(), Err(FetchError::Network { tries: 3, .. })));
}

#[test]
fn a_stopped_fetch_keeps_what_it_has() {
    let (url, _requests) = serve(vec![whole("", content())]);
    let place = Place::new(url);
    let mut stop = |done, _| if done > 100_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let result = fetch(&place.source, &place.target(), &Patience::default(), &mut |_, _| {}, &mut stop);
    assert!(matches!(result, Err(FetchError::Stopped)));
    assert!(std::fs::metadata(place.part()).unwrap().len() > 100_000 && !place.target().exists());
}

#[test]
fn files_of_this_machine_are_read_and_checked_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a file");
    std::fs::write(&path, content()).unwrap();
    let url = format!("file://{}", path.display()).replace(' ', "%20");
    Place::new(url.clone()).fetch().unwrap();
    std::fs::write(&path, b"other").unwrap();
    assert!(matches!(Place::new(url.clone()).fetch(), Err(FetchError::Mismatch { size: 5, .. })));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(Place::new(url).fetch(), Err(FetchError::File { .. })));
}

#[test]
fn sources_that_cannot_be_fetched_are_refused() {
    let refused = |url: &str| Place::new(url.into()).fetch().unwrap_err();
    for url in ["ftp://example.org/x", "data.gz", "file://data.gz"] {
        assert!(matches!(refused(url), FetchError::Url { .. }), "{url}");
    }
    let mut place = Place::new("http://127.0.0.1:9/".into());
    (place.source.sha256, place.source.md5) = (None, None);
    assert!(matches!(place.fetch(), Err(FetchError::NoDigest { .. })));
    place.source.url = None;
    assert!(matches!(place.fetch(), Err(FetchError::NoUrl)));
}

#[test]
fn a_mirror_serves_where_the_first_address_fails() {
    let (gone, _requests) = serve(vec![status("404 Not Found")]);
    let mut other = content();
    other[77] ^= 1;
    let (wrong, _requests) = serve(vec![whole("", other)]);
    let (good, _requests) = serve(vec![whole("", content())]);
    let mut place = Place::new(gone.clone());
    place.source.mirrors = vec![wrong.clone(), good.clone(), "http://127.0.0.1:9/never-asked".into()];
    let mut tried = Vec::new();
    let trying = &mut |url: &Address, failed: Option<&FetchError>| {
        tried.push(url.to_string());
        assert_eq!(failed.is_some(), tried.len() > 1);
    };
    fetch(&place.source, &place.target(), &Patience::default(), trying, &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(std::fs::read(place.target()).unwrap(), content());
    assert_eq!(tried, [gone, wrong, good]);
}

#[test]
fn when_no_address_gives_the_file_each_says_why() {
    let (gone, _requests) = serve(vec![status("404 Not Found")]);
    let (forbidden, _requests) = serve(vec![status("403 Forbidden")]);
    let mut place = Place::new(gone);
    place.source.mirrors = vec![forbidden];
    let error = place.fetch().unwrap_err();
    assert!(matches!(&error, FetchError::Nowhere { failures } if failures.len() == 2), "{error:?}");
    let text = error.to_string();
    assert!(
        text.starts_with("none of 2 addresses gave the file: ") && text.contains("404") && text.contains("403"),
        "{text}"
    );
}

#[test]
fn a_server_that_drips_is_given_up_as_one_that_hangs() {
    let drip = || -> Answer {
        Box::new(|stream, _| {
            _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            let mut stream = stream.try_clone().unwrap();
            thread::spawn(move || {
                while stream.write_all(b"1").is_ok() {
                    thread::sleep(Duration::from_millis(250));
                }
            });
        })
    };
    let (url, _requests) = serve(vec![drip(), drip(), drip()]);
    let (place, start) = (Place::new(url), Instant::now());
    let error = place.fetch().unwrap_err();
    assert!(matches!(error, FetchError::Slow { tries: 3, .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[test]
fn a_file_that_the_disk_has_no_room_for_is_not_begun() {
    let promise: Answer = Box::new(|stream, _| {
        write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", 1_u64 << 60).unwrap();
        _ = stream.write_all(&content());
    });
    let (url, _requests) = serve(vec![promise]);
    let place = Place::new(url);
    let error = place.fetch().unwrap_err();
    assert!(matches!(error, FetchError::NoSpace { needed: Some(needed), .. } if needed == 1 << 60), "{error:?}");
    assert!(error.to_string().contains("1152921504606846976 bytes are still to come, and"), "{error}");
    assert!(!place.part().exists());
}

//! A cache server for stories that behaves as bazel-remote does over HTTP/1.1, and otherwise where a story says so.
//!
//! As there (`server/http.go`): keys are 64 hexadecimal digits below any prefix; a `PUT` needs a length; what is put
//! into the AC must be an `ActionResult`, and gets a worker's name if it has none; bytes of the CAS must have their
//! SHA-256; an entry whose files are not all there is not found. It reads protocol buffers by itself.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use sha2::{Digest, Sha256};

/// What the server holds, and what it was asked.
#[derive(Default)]
pub(crate) struct Stored {
    /// Entries of the AC, by key.
    pub(crate) ac: HashMap<String, Vec<u8>>,
    /// Bytes of the CAS, by SHA-256.
    pub(crate) cas: HashMap<String, Vec<u8>>,
    /// Requests: method, path and the header `Authorization`.
    pub(crate) asked: Vec<(String, String, Option<String>)>,
}

/// Answers a request in its own way and tells that it did, or leaves it to the server.
pub(crate) type Fault = dyn Fn(&str, &str, &mut TcpStream) -> bool + Send + Sync;

/// A server that runs until the story ends.
pub(crate) struct BazelServer {
    /// Its name for `--remote`.
    pub(crate) name: String,
    stored: Arc<Mutex<Stored>>,
}

impl BazelServer {
    pub(crate) fn start() -> Self {
        Self::with(Box::new(|_, _, _| false))
    }

    /// A server with its own answers.
    pub(crate) fn with(fault: Box<Fault>) -> Self {
        Self::of(Arc::default(), fault)
    }

    /// A server with its own answers before what another one holds.
    pub(crate) fn before(&self, fault: Box<Fault>) -> Self {
        Self::of(self.stored.clone(), fault)
    }

    fn of(stored: Arc<Mutex<Stored>>, fault: Box<Fault>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!("bazel-http://{}/lab", listener.local_addr().unwrap());
        let (shared, fault) = (stored.clone(), Arc::new(fault));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, fault) = (shared.clone(), fault.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &shared, &**fault));
            }
        });
        BazelServer { name, stored }
    }

    pub(crate) fn stored(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap()
    }

    /// The requests so far, as `METHOD PART`; the list begins anew.
    pub(crate) fn asked(&self) -> Vec<String> {
        let asked = std::mem::take(&mut self.stored().asked);
        let part = |path: &str| path.rsplit('/').nth(1).unwrap_or_default().to_owned();
        asked.iter().map(|(method, path, _)| format!("{method} {}", part(path))).collect()
    }
}

fn serve(mut stream: TcpStream, stored: &Mutex<Stored>, fault: &Fault) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut lines = reader.by_ref().lines().map_while(Result::ok);
        let Some(request) = lines.next() else { return };
        let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let header = |name: &str| {
            let mut pairs = headers.iter().filter_map(|line| line.split_once(": "));
            pairs.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        stored.lock().unwrap().asked.push((method.clone(), path.clone(), header("authorization")));
        let length = header("content-length").and_then(|length| length.parse::<u64>().ok());
        let mut body = Vec::new();
        reader.by_ref().take(length.unwrap_or(0)).read_to_end(&mut body).unwrap();
        if fault(&method, &path, &mut stream) {
            return;
        }
        let (status, answer) = answer(&method, &path, length.map(|_| body), &mut stored.lock().unwrap());
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", answer.len());
        // A client that has heard enough may be gone.
        _ = stream.write_all(head.as_bytes());
        if method != "HEAD" {
            _ = stream.write_all(&answer);
        }
    }
}

fn answer(method: &str, path: &str, body: Option<Vec<u8>>, stored: &mut Stored) -> (&'static str, Vec<u8>) {
    let mut parts = path.rsplit('/');
    let (key, part) = (parts.next().unwrap().to_owned(), parts.next().unwrap_or_default());
    let is_key = key.len() == 64 && key.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match (method, part) {
        (_, "ac" | "cas") if !is_key => ("400 Bad Request", b"resource name must be a SHA256 hash in hex".to_vec()),
        ("GET" | "HEAD", "ac") => match stored.ac.get(&key).filter(|entry| is_whole(entry, stored)) {
            Some(entry) => ("200 OK", entry.clone()),
            None => ("404 Not Found", b"Not found\n".to_vec()),
        },
        ("GET" | "HEAD", "cas") => match stored.cas.get(&key) {
            Some(bytes) => ("200 OK", bytes.clone()),
            None => ("404 Not Found", b"Not found\n".to_vec()),
        },
        ("PUT", "ac" | "cas") => match body {
            None => ("400 Bad Request", b"PUT without Content-Length".to_vec()),
            Some(bytes) if part == "cas" && sha256(&bytes) != key => {
                ("400 Bad Request", format!("checksums don't match. Expected {key}").into_bytes())
            }
            Some(bytes) if part == "cas" && bytes.is_empty() => {
                ("400 Bad Request", b"Invalid hash for empty blob".to_vec())
            }
            Some(bytes) if part == "cas" => {
                stored.cas.insert(key, bytes);
                ("200 OK", Vec::new())
            }
            Some(mut bytes) => match files_of(&bytes) {
                None => ("400 Bad Request", b"proto: cannot parse invalid wire-format data".to_vec()),
                Some(_) => {
                    // `execution_metadata` with `worker`: of two such messages in one entry the fields are merged.
                    bytes.extend([0x4a, 2, 0x12, 0]);
                    stored.ac.insert(key, bytes);
                    ("200 OK", Vec::new())
                }
            },
        },
        _ => ("405 Method Not Allowed", b"Method not supported.".to_vec()),
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether all files of an entry are in the CAS or in the entry.
fn is_whole(entry: &[u8], stored: &Stored) -> bool {
    let files = files_of(entry).unwrap_or_default();
    files.iter().all(|file| file.size == 0 || !file.contents.is_empty() || stored.cas.contains_key(&file.hash))
}

/// An `OutputFile` of an entry.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ListedFile {
    pub(crate) path: String,
    pub(crate) hash: String,
    pub(crate) size: u64,
    pub(crate) contents: Vec<u8>,
}

/// The files of an `ActionResult`; nothing if the bytes are none.
pub(crate) fn files_of(entry: &[u8]) -> Option<Vec<ListedFile>> {
    let mut files = Vec::new();
    for (number, field) in fields(entry)? {
        let Field::Bytes(bytes) = field else { continue };
        if number != 2 {
            continue;
        }
        let mut file = ListedFile::default();
        for (number, field) in fields(bytes)? {
            match (number, field) {
                (1, Field::Bytes(path)) => file.path = String::from_utf8(path.to_vec()).ok()?,
                (2, Field::Bytes(digest)) => {
                    for (number, field) in fields(digest)? {
                        match (number, field) {
                            (1, Field::Bytes(hash)) => file.hash = String::from_utf8(hash.to_vec()).ok()?,
                            (2, Field::Number(size)) => file.size = size,
                            _ => {}
                        }
                    }
                }
                (5, Field::Bytes(contents)) => file.contents = contents.to_vec(),
                _ => {}
            }
        }
        files.push(file);
    }
    Some(files)
}

enum Field<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

/// The fields of a message in the wire format of protocol buffers.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (field, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Field::Bytes(field)
            }
            _ => return None,
        };
        found.push((tag >> 3, field));
    }
    Some(found)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// An `ActionResult` with one file, as any program may write it.
pub(crate) fn entry_of(path: &str, hash: &str, size: u64) -> Vec<u8> {
    let part = |number: u8, bytes: &[u8]| {
        let mut part = vec![number << 3 | 2];
        push_varint(&mut part, bytes.len() as u64);
        part.extend(bytes);
        part
    };
    let mut digest = part(1, hash.as_bytes());
    digest.push(0x10);
    push_varint(&mut digest, size);
    part(2, &[part(1, path.as_bytes()), part(2, &digest)].concat())
}

fn push_varint(to: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        to.push(number as u8 & 0x7f | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

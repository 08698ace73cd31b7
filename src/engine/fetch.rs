//! Files from elsewhere: `https://`, `http://` and `file://`, checked against the digests that the pipeline gives. Knows neither the cache nor
//! what a file is for.
//!
//! A download goes to `NAME.part` beside its place, is checked while it comes, flushed to the disk, and renamed. Whoever dies before the rename
//! leaves a `.part` at most, which the next fetch to the same place goes on with; after it the file is whole. Two fetches to one place at the
//! same time would write into one `.part` and both fail their checks: the caller sees to it that there is one.

mod error;
mod part;
mod server;

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ureq::http::{StatusCode, header};

use crate::digest::Digest;
use crate::kinds::Source;
pub use error::FetchError;
use part::{Part, Sums};
use server::{Failed, agent, number, range, text};

pub(crate) use server::config;
pub use server::exists;

/// The sums of a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Checksums {
    /// Its name in the cache.
    pub blake3: Digest,
    /// SHA-256 in lower-case hexadecimal, as `sha256sum` prints it.
    pub sha256: String,
    /// MD5 in lower-case hexadecimal, as `md5sum` prints it.
    pub md5: String,
    /// Its length in bytes.
    pub size: u64,
}

/// What a file must be; nothing given is nothing checked.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Its SHA-256, in hexadecimal.
    pub sha256: Option<String>,
    /// Its MD5, in hexadecimal.
    pub md5: Option<String>,
    /// Its BLAKE3.
    pub blake3: Option<Digest>,
}

/// How patient a fetch is.
#[derive(Debug, Clone, PartialEq)]
pub struct Patience {
    /// For a connection to stand, names and encryption included.
    pub connect: Duration,
    /// For the first byte of an answer, and from each byte to the next.
    pub stall: Duration,
    /// Times that a server is asked before its failure counts; at least 1.
    pub tries: u32,
    /// The pause after the first failure; it doubles with each.
    pub pause: Duration,
}

impl Patience {
    /// The usual patience with silences of this length.
    pub fn of(stall: Duration) -> Self {
        let usual = Patience::default();
        Patience { connect: usual.connect.min(stall), stall, ..usual }
    }
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Patience { connect: seconds(15), stall: seconds(30), tries: 3, pause: Duration::from_millis(500) }
    }
}

/// Told the bytes that are there and the bytes in all, where known; says whether to go on.
pub type Progress<'a> = dyn FnMut(u64, Option<u64>) -> ControlFlow<()> + 'a;

/// The sums of a file, in one pass over its bytes.
///
/// # Errors
/// Whatever opening or reading the file gives.
pub fn checksums(path: &Path) -> io::Result<Checksums> {
    let mut sums = Sums::default();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(sums.finish()),
            Ok(count) => sums.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Told each address before it is tried, and why the one before it failed.
pub type Trying<'a> = dyn FnMut(&str, Option<&FetchError>) + 'a;

/// Fetches the file of a source to `to`, from the first of its addresses that gives it, and returns its sums. A file that is already there is replaced.
///
/// # Errors
/// Any [`FetchError`]; nothing then stands at `to` that did not before.
pub fn fetch(
    source: &Source,
    to: &Path,
    patience: &Patience,
    trying: &mut Trying<'_>,
    progress: &mut Progress<'_>,
) -> Result<Checksums, FetchError> {
    let url = source.url.clone().ok_or(FetchError::NoUrl)?;
    if source.published().is_none() {
        return Err(FetchError::NoDigest { url });
    }
    let expected = Expected { sha256: source.sha256.clone(), md5: source.md5.clone(), blake3: None };
    let mut failures: Vec<FetchError> = Vec::new();
    for url in source.urls() {
        trying(url, failures.last());
        match download(url, &expected, to, patience, progress) {
            Err(FetchError::Stopped) => return Err(FetchError::Stopped),
            Err(error) => failures.push(error),
            Ok(sums) => return Ok(sums),
        }
    }
    match failures.pop() {
        Some(only) if failures.is_empty() => Err(only),
        Some(last) => {
            failures.push(last);
            Err(FetchError::Nowhere { failures })
        }
        None => Err(FetchError::NoUrl),
    }
}

/// Downloads a URL to `to`, and returns the sums of what came. A file that is already there is replaced.
///
/// A server that breaks off is asked for the rest; if it sends something else than the rest, the download starts again. Failures of the network,
/// statuses 408, 429 and 5xx are tried again after a pause, others are not.
///
/// # Errors
/// Any [`FetchError`]; nothing then stands at `to` that did not before.
pub fn download(
    url: &str,
    expected: &Expected,
    to: &Path,
    patience: &Patience,
    progress: &mut Progress<'_>,
) -> Result<Checksums, FetchError> {
    let origin = origin(url, patience)?;
    let url = url.to_owned();
    let mut fetch = Fetch { url, part: Part::open(to)?, origin, patience, progress, resumed: false };
    let sums = match fetch.whole(expected) {
        // The part was left by an earlier fetch and may have been of another file: that costs one more download, not an error.
        Err(FetchError::Mismatch { .. }) if fetch.resumed => {
            fetch.part.clear()?;
            fetch.whole(expected)
        }
        result => result,
    };
    match sums {
        Ok(sums) => {
            fetch.part.keep(to)?;
            Ok(sums)
        }
        Err(error) => {
            if matches!(error, FetchError::Mismatch { .. }) || fetch.part.size() == 0 {
                // What the error says matters more than whether a useless part could be removed.
                let _ = fs::remove_file(&fetch.part.path);
            }
            Err(error)
        }
    }
}

/// Takes what a reader gives, the file at `url` as its store sends it, to `to`, checked; returns its sums. A file that is already there is replaced.
///
/// # Errors
/// Any [`FetchError`]; nothing then stands at `to` that did not before.
pub(crate) fn receive(
    url: &str,
    from: impl Read,
    total: Option<u64>,
    expected: &Expected,
    to: &Path,
    progress: &mut Progress<'_>,
) -> Result<Checksums, FetchError> {
    let mut part = Part::open(to)?;
    part.clear()?;
    let patience = Patience::default();
    let origin = Origin::Store;
    let mut fetch = Fetch { url: url.to_owned(), part, origin, patience: &patience, progress, resumed: false };
    let sums = match fetch.receive(from, total)? {
        Received::All => fetch.checked(expected),
        Received::Broken(source) => Err(FetchError::Broken { url: url.to_owned(), source }),
    };
    match sums {
        Ok(sums) => fetch.part.keep(to).map(|()| sums),
        Err(error) => {
            // As above.
            let _ = fs::remove_file(&fetch.part.path);
            Err(error)
        }
    }
}

/// Whether a URL is one that can be fetched, as far as its letters tell.
///
/// # Errors
/// [`FetchError::Url`].
pub fn check_url(url: &str) -> Result<(), FetchError> {
    file_of(url).map(drop)
}

/// The file that a URL names; none of one that a server has.
fn file_of(url: &str) -> Result<Option<PathBuf>, FetchError> {
    let error = |reason| FetchError::Url { url: url.to_owned(), reason };
    match url.split_once("://") {
        Some(("http" | "https", rest)) if rest.is_empty() || rest.starts_with('/') => Err(error("it names no server")),
        Some(("http" | "https", _)) => Ok(None),
        Some(("file", rest)) => local_path(url, rest).map(Some),
        _ => Err(error("it begins with none of https://, http:// and file://")),
    }
}

fn origin(url: &str, patience: &Patience) -> Result<Origin, FetchError> {
    Ok(file_of(url)?.map_or_else(|| Origin::Server(agent(patience)), Origin::File))
}

/// The size of the file at `source.url`, if it can be told; a server is only asked if `ask` says so.
pub fn size(source: &Source, ask: bool) -> Option<u64> {
    let url = source.url.as_ref()?;
    if let Some(rest) = url.strip_prefix("file://") {
        return Some(fs::metadata(local_path(url, rest).ok()?).ok()?.len());
    }
    let response = ask.then(|| agent(&Patience::default()).head(url).call().ok()).flatten()?;
    response.status().is_success().then(|| number(&response, header::CONTENT_LENGTH)).flatten()
}

const BUFFER: usize = 256 << 10;

enum Origin {
    Server(ureq::Agent),
    File(PathBuf),
    /// What comes is given by a reader.
    Store,
}

struct Fetch<'a, 'b> {
    url: String,
    part: Part,
    origin: Origin,
    patience: &'a Patience,
    progress: &'a mut Progress<'b>,
    /// Whether any of the part was there before this fetch.
    resumed: bool,
}

impl Fetch<'_, '_> {
    /// All bytes, checked.
    fn whole(&mut self, expected: &Expected) -> Result<Checksums, FetchError> {
        if let Origin::File(path) = &self.origin {
            let path = path.clone();
            self.part.clear()?;
            let file = File::open(&path).map_err(|source| FetchError::File { path: path.clone(), source })?;
            let total = file.metadata().ok().map(|found| found.len());
            return match self.receive(file, total)? {
                Received::All => self.checked(expected),
                Received::Broken(source) => Err(FetchError::File { path, source }),
            };
        }
        self.resumed = self.part.size() > 0;
        if self.resumed
            && let Ok(sums) = self.checked(expected)
        {
            return Ok(sums);
        }
        let mut seen = Seen::default();
        let mut tries = 0;
        loop {
            tries += 1;
            match self.ask(&mut seen)? {
                Answer::All => return self.checked(expected),
                Answer::Other => {
                    // Not the server's failure: it has another file than the part is of. Asked from the start, it can give no other answer
                    // of this sort.
                    self.part.clear()?;
                    self.resumed = false;
                    tries -= 1;
                }
                Answer::Failed(error) if error.is_final() || tries >= self.patience.tries => {
                    return Err(error.told(&self.url, tries, self.patience));
                }
                Answer::Failed(_) => self.pause(tries)?,
            }
        }
    }

    /// Asks the server once, for what is missing.
    fn ask(&mut self, seen: &mut Seen) -> Result<Answer, FetchError> {
        let Origin::Server(agent) = &self.origin else { return Ok(Answer::All) };
        let have = self.part.size();
        let mut request = agent.get(&self.url);
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
            if let Some(tag) = &seen.tag {
                request = request.header(header::IF_RANGE, tag);
            }
        }
        let response = match request.call() {
            Ok(response) => response,
            Err(error) => return Ok(Answer::Failed(Failed::Network(error))),
        };
        let total = match response.status() {
            StatusCode::PARTIAL_CONTENT => match range(&response) {
                Some((start, total)) if have > 0 && start == have && seen.agrees(total) => total,
                _ if have > 0 => return Ok(Answer::Other),
                _ => return Ok(Answer::Failed(Failed::Status(StatusCode::PARTIAL_CONTENT))),
            },
            // The part is as long as the file, or longer.
            StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => return Ok(Answer::Other),
            status if status.is_success() => {
                self.part.clear()?;
                self.resumed = false;
                number(&response, header::CONTENT_LENGTH)
            }
            status => return Ok(Answer::Failed(Failed::Status(status))),
        };
        seen.total = total;
        // A weak tag promises no equal bytes and may not be used here (RFC 9110, section 13.1.5).
        let tag = text(&response, header::ETAG).filter(|tag| !tag.starts_with("W/"));
        seen.tag = tag.map(str::to_owned);
        match self.receive(response.into_body().into_reader(), total)? {
            Received::All if total.is_none_or(|total| total == self.part.size()) => Ok(Answer::All),
            Received::All if total.is_some_and(|total| total < self.part.size()) => Ok(Answer::Other),
            Received::All => Ok(Answer::Failed(Failed::Network(io::Error::from(io::ErrorKind::UnexpectedEof).into()))),
            Received::Broken(error) => Ok(Answer::Failed(Failed::Network(error.into()))),
        }
    }

    fn receive(&mut self, mut from: impl Read, total: Option<u64>) -> Result<Received, FetchError> {
        let mut buffer = vec![0; BUFFER];
        loop {
            if (self.progress)(self.part.size(), total).is_break() {
                return Err(FetchError::Stopped);
            }
            match from.read(&mut buffer) {
                Ok(0) => return Ok(Received::All),
                Ok(count) => self.part.append(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Ok(Received::Broken(error)),
            }
        }
    }

    fn checked(&self, expected: &Expected) -> Result<Checksums, FetchError> {
        let sums = self.part.sums.clone().finish();
        let blake3 = (expected.blake3.map(|digest| digest.to_string()), sums.blake3.to_string());
        for (algorithm, expected, found) in [
            ("sha256", &expected.sha256, &sums.sha256),
            ("md5", &expected.md5, &sums.md5),
            ("blake3", &blake3.0, &blake3.1),
        ] {
            if let Some(expected) = expected.as_ref().filter(|expected| !expected.trim().eq_ignore_ascii_case(found)) {
                let (expected, found) = (expected.clone(), found.clone());
                return Err(FetchError::Mismatch {
                    url: self.url.clone(),
                    algorithm,
                    expected,
                    found,
                    size: sums.size,
                });
            }
        }
        Ok(sums)
    }

    /// Waits before the next try, a little at a time so that a stop is heard.
    fn pause(&mut self, tries: u32) -> Result<(), FetchError> {
        let mut left = self.patience.pause * 2_u32.saturating_pow(tries.saturating_sub(1)).min(64);
        while !left.is_zero() {
            let step = left.min(Duration::from_millis(100));
            thread::sleep(step);
            left -= step;
            if (self.progress)(self.part.size(), None).is_break() {
                return Err(FetchError::Stopped);
            }
        }
        Ok(())
    }
}

/// What the server said of the file so far.
#[derive(Default)]
struct Seen {
    total: Option<u64>,
    tag: Option<String>,
}

impl Seen {
    fn agrees(&self, total: Option<u64>) -> bool {
        self.total.is_none() || total.is_none() || self.total == total
    }
}

enum Received {
    All,
    Broken(io::Error),
}

enum Answer {
    All,
    /// The part is not of the file that the server has.
    Other,
    Failed(Failed),
}

/// The path of a `file://` URL: `file:///a%20b` is `/a b`.
fn local_path(url: &str, rest: &str) -> Result<PathBuf, FetchError> {
    let error = |reason| FetchError::Url { url: url.to_owned(), reason };
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(error("a file:// URL names an absolute path: file:///folder/file"));
    }
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8();
    decoded.map(|path| PathBuf::from(path.as_ref())).map_err(|_| error("its path is not UTF-8"))
}

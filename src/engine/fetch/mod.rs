//! Files from elsewhere: `https://`, `http://` and `file://`, checked against the digests that the pipeline gives.
//! Knows neither the cache nor what a file is for.
//!
//! A download goes to `NAME.part` beside its place, is checked while it comes, flushed to the disk, and renamed.
//! Whoever dies before the rename leaves a `.part` at most, which the next fetch to the same place goes on with; after
//! it the file is whole. Two fetches to one place at the same time would write into one `.part` and both fail their
//! checks: the caller sees to it that there is one.

mod error;
mod pace;
mod part;
mod proxy;
mod server;
mod trust;
mod upload;

use std::fs;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ureq::http::{Method, StatusCode, header};

use crate::address::Address;
use crate::digest::Digest;
use crate::fsio;
use crate::stage_kinds::Source;
pub use error::FetchError;
use part::{Part, Sums};
use server::{Failed, ask, number, range, text};

#[cfg(feature = "reapi")]
pub(crate) use pace::paced;
pub(crate) use pace::slowness;
pub use pace::{LEAST_SPEED, TooSlow};
#[cfg(feature = "reapi")]
pub(crate) use server::take_credentials;
pub(crate) use server::{Agents, is_absence};
pub use server::{exists, small};
pub(crate) use trust::refusal;
#[cfg(feature = "reapi")]
pub(crate) use trust::{distrust, reason};
pub(crate) use upload::{put_bytes, put_file};

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
    /// Its length in bytes: no more of it is taken.
    pub size: Option<u64>,
}

/// How patient a fetch is.
#[derive(Debug, Clone, PartialEq)]
pub struct Patience {
    /// For a connection to stand, names and encryption included.
    pub connect: Duration,
    /// For the head of an answer, and from each byte to the next; over the same time at least [`LEAST_SPEED`] bytes a
    /// second come.
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
    let mut file = fsio::open_regular(path)?;
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
pub type Trying<'a> = dyn FnMut(&Address, Option<&FetchError>) + 'a;

/// Fetches the file of a source to `to`, from the first of its addresses that gives it, and returns its sums. A file
/// that is already there is replaced.
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
    let url = source.url.as_deref().ok_or(FetchError::NoUrl)?;
    if source.published().is_none() {
        return Err(FetchError::NoDigest { url: url.into() });
    }
    let expected = Expected { sha256: source.sha256.clone(), md5: source.md5.clone(), ..Expected::default() };
    let mut failures: Vec<FetchError> = Vec::new();
    for url in source.urls().map(Address::from) {
        trying(&url, failures.last());
        match download(&url, &expected, to, patience, progress) {
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
/// A server that breaks off is asked for the rest; if it sends something else than the rest, the download starts again.
/// Failures of the network, statuses 408, 429 and 5xx are tried again after a pause, others are not.
///
/// # Errors
/// Any [`FetchError`]; nothing then stands at `to` that did not before.
pub fn download(
    url: &Address,
    expected: &Expected,
    to: &Path,
    patience: &Patience,
    progress: &mut Progress<'_>,
) -> Result<Checksums, FetchError> {
    let file = file_of(url)?;
    let part = Part::open(to)?;
    let mut fetch = Fetch { url: url.clone(), part, expected, progress, resumed: false };
    let whole = |fetch: &mut Fetch<'_, '_>| match &file {
        Some(path) => fetch.of_file(path),
        None => fetch.of_server(&Agents::of(patience), patience),
    };
    let sums = match whole(&mut fetch) {
        // The part was left by an earlier fetch and may have been of another file: that costs one more download, not an
        // error.
        Err(error) if fetch.resumed && error.is_other_file() => {
            fetch.part.clear()?;
            whole(&mut fetch)
        }
        result => result,
    };
    fetch.end(sums, to)
}

/// Takes what a reader gives, the file at `url` as its store sends it, to `to`, checked; returns its sums. A file that
/// is already there is replaced.
///
/// # Errors
/// Any [`FetchError`]; nothing then stands at `to` that did not before.
pub(crate) fn receive(
    url: &Address,
    from: impl Read,
    total: Option<u64>,
    expected: &Expected,
    to: &Path,
    progress: &mut Progress<'_>,
) -> Result<Checksums, FetchError> {
    let mut part = Part::open(to)?;
    part.clear()?;
    let mut fetch = Fetch { url: url.clone(), part, expected, progress, resumed: false };
    let sums = fetch.told(total).and_then(|()| match fetch.receive(from, total)? {
        Received::All => fetch.checked(),
        Received::Broken(source) => Err(FetchError::Broken { url: url.clone(), source }),
    });
    if sums.is_err() {
        // A store cannot be asked for the rest of it. What the error says matters more than whether a useless part
        // could be removed.
        _ = fs::remove_file(&fetch.part.path);
    }
    fetch.end(sums, to)
}

/// Whether a URL is one that can be fetched, as far as its letters tell.
///
/// # Errors
/// [`FetchError::Url`].
pub fn check_url(url: &str) -> Result<(), FetchError> {
    file_of(&url.into()).map(drop)
}

/// The file that a URL names; none of one that a server has.
fn file_of(url: &Address) -> Result<Option<PathBuf>, FetchError> {
    let error = |reason| FetchError::Url { url: url.clone(), reason };
    match url.secret().split_once("://") {
        Some(("http" | "https", rest)) if rest.is_empty() || rest.starts_with('/') => Err(error("it names no server")),
        Some(("http" | "https", _)) => match url::Url::parse(url.secret()) {
            Ok(parsed) if parsed.has_host() => Ok(None),
            _ => Err(error("it names no server")),
        },
        Some(("file", rest)) => local_path(url, rest).map(Some),
        _ => Err(error("it begins with none of https://, http:// and file://")),
    }
}

/// The size of the file at `source.url`, if it can be told; a server is only asked if `wanted` says so.
pub fn size(source: &Source, wanted: bool) -> Option<u64> {
    let url = Address::new(source.url.as_ref()?);
    if let Some(path) = file_of(&url).ok()? {
        return Some(fs::metadata(path).ok()?.len());
    }
    let agents = Agents::of(&Patience::default());
    let response = wanted.then(|| ask(&agents, &Method::HEAD, &url, &[]).ok()).flatten()?;
    response.status().is_success().then(|| number(&response, header::CONTENT_LENGTH)).flatten()
}

const BUFFER: usize = 256 << 10;

/// While a file of unknown length comes, it is looked this often whether the disk has room, in bytes.
const LOOK_FOR_ROOM: u64 = 64 << 20;

/// What a file of unknown length leaves free, in bytes: others write to the same disk.
const SPARE: u64 = 256 << 20;

struct Fetch<'a, 'b> {
    url: Address,
    part: Part,
    expected: &'a Expected,
    progress: &'a mut Progress<'b>,
    /// Whether any of the part was there before this fetch.
    resumed: bool,
}

impl Fetch<'_, '_> {
    /// All bytes of a file of this machine, checked.
    fn of_file(&mut self, path: &Path) -> Result<Checksums, FetchError> {
        let error = |source| FetchError::File { path: path.to_owned(), source };
        self.part.clear()?;
        let file = fsio::open_regular(path).map_err(error)?;
        let total = file.metadata().ok().map(|found| found.len());
        self.told(total)?;
        match self.receive(file, total)? {
            Received::All => self.checked(),
            Received::Broken(source) => Err(error(source)),
        }
    }

    /// All bytes of a file of a server, checked.
    fn of_server(&mut self, agents: &Agents, patience: &Patience) -> Result<Checksums, FetchError> {
        self.resumed = self.part.size() > 0;
        if self.resumed
            && let Ok(sums) = self.checked()
        {
            return Ok(sums);
        }
        let mut seen = ResponseHead::default();
        let mut tries = 0;
        loop {
            tries += 1;
            match self.ask(agents, &mut seen)? {
                Answer::All => return self.checked(),
                Answer::Other => {
                    // Not the server's failure: it has another file than the part is of. Asked from the start, it can
                    // give no other answer of this sort.
                    self.part.clear()?;
                    self.resumed = false;
                    tries -= 1;
                }
                Answer::Failed(error) if error.is_final() || tries >= patience.tries => {
                    return Err(error.told(&self.url, tries, patience));
                }
                Answer::Failed(_) => self.pause(tries, patience)?,
            }
        }
    }

    /// Asks the server once, for what is missing.
    fn ask(&mut self, agents: &Agents, seen: &mut ResponseHead) -> Result<Answer, FetchError> {
        let have = self.part.size();
        let mut headers = Vec::new();
        if have > 0 {
            headers.push((header::RANGE, format!("bytes={have}-")));
            headers.extend(seen.tag.clone().map(|tag| (header::IF_RANGE, tag)));
        }
        let response = match ask(agents, &Method::GET, &self.url, &headers) {
            Ok(response) => response,
            Err(failed) => return Ok(Answer::Failed(failed)),
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
        self.told(total)?;
        let total = total.or(self.expected.size);
        seen.total = total;
        // A weak tag promises no equal bytes and may not be used here (RFC 9110, section 13.1.5).
        let tag = text(&response, header::ETAG).filter(|tag| !tag.starts_with("W/"));
        seen.tag = tag.map(str::to_owned);
        match self.receive(agents.body(response.into_body()), total)? {
            Received::All if total.is_none_or(|total| total == self.part.size()) => Ok(Answer::All),
            Received::All if total.is_some_and(|total| total < self.part.size()) => Ok(Answer::Other),
            Received::All => Ok(Answer::Failed(Failed::Network(io::Error::from(io::ErrorKind::UnexpectedEof).into()))),
            Received::Broken(error) => Ok(Answer::Failed(Failed::Network(error.into()))),
        }
    }

    /// Hears how long the whole file is to be: as long as was expected, and no longer than there is room for.
    fn told(&self, total: Option<u64>) -> Result<(), FetchError> {
        let Some(total) = total else { return Ok(()) };
        match self.expected.size {
            Some(expected) if expected != total => Err(self.other_length(expected, Some(total))),
            _ => self.look_for_room(Some(total.saturating_sub(self.part.size()))),
        }
    }

    fn other_length(&self, expected: u64, found: Option<u64>) -> FetchError {
        FetchError::Length { url: self.url.clone(), expected, found }
    }

    /// Whether the disk has room for so many more bytes, or for a file of unknown length.
    fn look_for_room(&self, needed: Option<u64>) -> Result<(), FetchError> {
        let folder = self.part.path.parent().unwrap_or(Path::new("."));
        // Where it cannot be told, writing tells.
        let Ok(free) = fsio::free_space(folder) else { return Ok(()) };
        if free >= needed.unwrap_or(SPARE) {
            return Ok(());
        }
        Err(FetchError::NoSpace { url: self.url.clone(), path: folder.to_owned(), needed, free })
    }

    fn receive(&mut self, mut from: impl Read, total: Option<u64>) -> Result<Received, FetchError> {
        let mut buffer = vec![0; BUFFER];
        let mut look = self.part.size() + LOOK_FOR_ROOM;
        loop {
            if (self.progress)(self.part.size(), total).is_break() {
                return Err(FetchError::Stopped);
            }
            match from.read(&mut buffer) {
                Ok(0) => return Ok(Received::All),
                Ok(count) => {
                    let size = self.part.size() + count as u64;
                    if let Some(expected) = self.expected.size.filter(|expected| size > *expected) {
                        return Err(self.other_length(expected, None));
                    }
                    self.part.append(&buffer[..count])?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Ok(Received::Broken(error)),
            }
            if total.is_none() && self.part.size() >= look {
                self.look_for_room(None)?;
                look += LOOK_FOR_ROOM;
            }
        }
    }

    fn checked(&self) -> Result<Checksums, FetchError> {
        let sums = self.part.sums.clone().finish();
        if let Some(expected) = self.expected.size.filter(|expected| *expected != sums.size) {
            return Err(self.other_length(expected, Some(sums.size)));
        }
        let blake3 = (self.expected.blake3.map(|digest| digest.to_string()), sums.blake3.to_string());
        for (algorithm, expected, found) in [
            ("sha256", &self.expected.sha256, &sums.sha256),
            ("md5", &self.expected.md5, &sums.md5),
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

    /// Gives the file its name if all went well, and else removes what no later fetch can go on with.
    fn end(self, sums: Result<Checksums, FetchError>, to: &Path) -> Result<Checksums, FetchError> {
        match sums {
            Ok(sums) => self.part.keep(to).map(|()| sums),
            Err(error) => {
                let is_endless = matches!(error, FetchError::NoSpace { needed: None, .. });
                if error.is_other_file() || is_endless || self.part.size() == 0 {
                    // What the error says matters more than whether a useless part could be removed.
                    _ = fs::remove_file(&self.part.path);
                }
                Err(error)
            }
        }
    }

    /// Waits before the next try, a little at a time so that a stop is heard.
    fn pause(&mut self, tries: u32, patience: &Patience) -> Result<(), FetchError> {
        let mut left = patience.pause * 2_u32.saturating_pow(tries.saturating_sub(1)).min(64);
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
struct ResponseHead {
    total: Option<u64>,
    tag: Option<String>,
}

impl ResponseHead {
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
fn local_path(url: &Address, rest: &str) -> Result<PathBuf, FetchError> {
    let error = |reason| FetchError::Url { url: url.clone(), reason };
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(error("a file:// URL names an absolute path: file:///folder/file"));
    }
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8();
    decoded.map(|path| PathBuf::from(path.as_ref())).map_err(|_| error("its path is not UTF-8"))
}

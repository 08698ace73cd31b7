//! What can go wrong with a fetch.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::Address;

/// Why a file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The source has no URL.
    #[error("the source has no url")]
    NoUrl,
    /// The source says neither `sha256` nor `md5`: what comes could be anything.
    #[error("{url} has neither sha256 nor md5 to check it against")]
    NoDigest {
        /// The URL.
        url: Address,
    },
    /// The URL cannot be used.
    #[error("{url} cannot be fetched: {reason}")]
    Url {
        /// The URL.
        url: Address,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The server refused, or failed as often as it was asked.
    #[error("{url}: the server answered {status} (asked {tries} times)")]
    Status {
        /// The URL.
        url: Address,
        /// The HTTP status code.
        status: u16,
        /// How often it was asked.
        tries: u32,
    },
    /// The server does not take what it is sent.
    #[error("{url}: the server refuses it with {status}{}", after(words))]
    Refused {
        /// The URL.
        url: Address,
        /// The HTTP status code.
        status: u16,
        /// What it says of it.
        words: String,
    },
    /// The server could not be reached, or broke off, as often as it was asked.
    #[error("{url}: no whole answer (asked {tries} times; it may be silent for {} s)", stall.as_secs_f64())]
    Network {
        /// The URL.
        url: Address,
        /// How often it was asked.
        tries: u32,
        /// How long it may be silent.
        stall: Duration,
        /// The last failure.
        source: Box<ureq::Error>,
    },
    /// The server sent a byte now and then, as often as it was asked.
    #[error("{url}: the server is too slow (asked {tries} times): {slow}")]
    Slow {
        /// The URL.
        url: Address,
        /// How often it was asked.
        tries: u32,
        /// How slow it was the last time.
        slow: super::TooSlow,
    },
    /// The server is not who it says it is, as far as this machine can tell, or does not encrypt as it should.
    #[error("{url}: {reason}")]
    Encryption {
        /// The URL.
        url: Address,
        /// What is wrong, whose certificates are accepted, and how to accept others.
        reason: String,
    },
    /// The server sends elsewhere, where nobody follows.
    #[error("{url}: the server sends {to}, and is not followed")]
    Redirect {
        /// The URL.
        url: Address,
        /// Where it sends.
        to: &'static str,
    },
    /// An object store broke off while it sent a file, as often as it was asked.
    #[error("{url}: it did not come whole")]
    Broken {
        /// The file.
        url: Address,
        /// The last failure.
        source: io::Error,
    },
    /// A file of this machine could not be read or written.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk has no room for the file.
    #[error("no room for {url}: {}, and {} has {free} bytes free", need(*needed), path.display())]
    NoSpace {
        /// The URL.
        url: Address,
        /// Where it was to be put.
        path: PathBuf,
        /// What is still to come, in bytes; nothing if the server does not say.
        needed: Option<u64>,
        /// What is free there.
        free: u64,
    },
    /// The file is longer than any of its sort; what came of it was deleted.
    #[error("{url} is longer than {at_most} bytes, which no such file is")]
    TooLarge {
        /// The URL.
        url: Address,
        /// How long it may be.
        at_most: u64,
    },
    /// The file has another length than the one expected; what came of it was deleted.
    #[error("{url} has another length than it should: expected {expected} bytes, found {}", more_or(*found))]
    Length {
        /// The URL.
        url: Address,
        /// How long it should be.
        expected: u64,
        /// How long it is; nothing if it is longer and nobody knows how much.
        found: Option<u64>,
    },
    /// The file is another than the one expected; it was deleted.
    #[error("{url} has another {algorithm} than it should: expected {expected}, found {found} ({size} bytes)")]
    Mismatch {
        /// The URL.
        url: Address,
        /// `sha256`, `md5` or `blake3`.
        algorithm: &'static str,
        /// What it should be.
        expected: String,
        /// What came.
        found: String,
        /// How many bytes came.
        size: u64,
    },
    /// The source has several addresses, and none gave the file.
    #[error("none of {} addresses gave the file: {}", failures.len(), told(failures))]
    Nowhere {
        /// Why each did not, in the order in which they were tried.
        failures: Vec<FetchError>,
    },
    /// The progress callback asked to stop; what came so far is kept for the next fetch.
    #[error("the fetch was stopped")]
    Stopped,
}

impl FetchError {
    /// Whether what is there is not the file that was asked for.
    pub fn is_other_file(&self) -> bool {
        matches!(self, FetchError::Mismatch { .. } | FetchError::Length { .. } | FetchError::TooLarge { .. })
    }
}

fn after(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(": {words}") }
}

fn need(needed: Option<u64>) -> String {
    needed.map_or_else(
        || "the server does not say how long it is".to_owned(),
        |needed| format!("{needed} bytes are still to come"),
    )
}

fn more_or(found: Option<u64>) -> String {
    found.map_or_else(|| "more".to_owned(), |found| found.to_string())
}

fn told(failures: &[FetchError]) -> String {
    let whole = |error: &FetchError| {
        let chain = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
        chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    };
    failures.iter().map(whole).collect::<Vec<_>>().join("; ")
}

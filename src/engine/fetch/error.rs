//! What can go wrong with a fetch.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

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
        url: String,
    },
    /// The URL cannot be used.
    #[error("{url} cannot be fetched: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The server refused, or failed as often as it was asked.
    #[error("{url}: the server answered {status} (asked {tries} times)")]
    Status {
        /// The URL.
        url: String,
        /// The HTTP status code.
        status: u16,
        /// How often it was asked.
        tries: u32,
    },
    /// The server could not be reached, or broke off, as often as it was asked.
    #[error("{url}: no whole answer (asked {tries} times; it may be silent for {} s)", stall.as_secs_f64())]
    Network {
        /// The URL.
        url: String,
        /// How often it was asked.
        tries: u32,
        /// How long it may be silent.
        stall: Duration,
        /// The last failure.
        source: Box<ureq::Error>,
    },
    /// An object store broke off while it sent a file, as often as it was asked.
    #[error("{url}: it did not come whole")]
    Broken {
        /// The file.
        url: String,
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
    /// The file is another than the one expected; it was deleted.
    #[error("{url} has another {algorithm} than it should: expected {expected}, found {found} ({size} bytes)")]
    Mismatch {
        /// The URL.
        url: String,
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

fn told(failures: &[FetchError]) -> String {
    let whole = |error: &FetchError| {
        let chain = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
        chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    };
    failures.iter().map(whole).collect::<Vec<_>>().join("; ")
}

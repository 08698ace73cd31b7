//! What can go wrong with a remote cache.

use crate::address::Address;
use crate::cache::CACHE_FORMAT;
use crate::digest::ReadError;
use crate::fetch::FetchError;
use crate::fsio::FileError;

/// Reason why a remote cache could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The name is of an unsupported form.
    #[error(
        "`{name}` is no remote cache: expected https://…, http://…, s3://…, gs://…, az://…, bazel-https://…, bazel-http://…, reapis://…, reapi://… or a folder"
    )]
    Name {
        /// Name as given.
        name: Address,
    },
    /// This program was built without gRPC.
    #[error("{name}: this program was built without gRPC (the feature `reapi`)")]
    NotBuilt {
        /// Name as given.
        name: Address,
    },
    /// There is no cache there.
    #[error("there is no cache at {name}: it has no VERSION file")]
    NoCache {
        /// Name of the remote.
        name: Address,
    },
    /// The cache has another format version.
    #[error("the cache at {name} has format {found}; this version of atflow reads format {CACHE_FORMAT}")]
    Format {
        /// Name of the remote.
        name: Address,
        /// Content of its VERSION file.
        found: String,
    },
    /// The remote is not writable.
    #[error("{name} can only be read: a web server takes no files")]
    ReadOnly {
        /// Name of the remote.
        name: Address,
    },
    /// The remote cache holds no leases.
    #[error("{name} holds no leases, so runs cannot share work there")]
    NoLeases {
        /// Name of the remote.
        name: Address,
    },
    /// The object store refuses access.
    #[error("{name}: the object store refuses access ({code})")]
    Denied {
        /// Name of the remote.
        name: Address,
        /// Error code of the store.
        code: String,
    },
    /// The object store failed.
    #[error("{name}: {message}")]
    Store {
        /// Name of the remote.
        name: Address,
        /// Message of the store.
        message: String,
    },
    /// An entry of an action cache is no `ActionResult`.
    #[error("{url} is no ActionResult: the server is no remote cache of Bazel's, or another program wrote it")]
    NoActionResult {
        /// Address of the entry.
        url: Address,
    },
    /// A blob to be sent does not match its digest.
    #[error(transparent)]
    Corrupt(#[from] ReadError),
    /// A remote file could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A file of the remote or of the local cache could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl RemoteError {
    /// Whether the remote has a file with wrong bytes. The rest of it stays usable.
    pub fn is_wrong_bytes(&self) -> bool {
        match self {
            RemoteError::Fetch(error) => error.is_other_file(),
            RemoteError::NoActionResult { .. } => true,
            _ => false,
        }
    }

    /// Whether a local file to be sent is gone or does not match its digest.
    pub fn is_loss(&self) -> bool {
        matches!(self, RemoteError::Corrupt(error) if error.is_lost())
    }
}

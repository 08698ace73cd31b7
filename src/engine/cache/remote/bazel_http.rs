//! Bazel's HTTP/1.1 caching protocol, as bazel-remote and other servers speak it: `GET`, `PUT` and `HEAD` of `/ac/KEY`
//! and `/cas/SHA256`.
//!
//! Knows no files of a cache.

use std::path::Path;

use prost::Message;

use super::action_cache::Protocol;
use super::action_result::{ActionResult, CasDigest};
use super::error::RemoteError;
use crate::address::Address;
use crate::fetch::{self, Expected, FetchError, Patience, Progress, download, is_absence};

/// A server of Bazel's HTTP/1.1 caching protocol.
#[derive(Debug)]
pub(super) struct BazelHttp {
    base: Address,
    patience: Patience,
}

impl BazelHttp {
    /// Returns the server at `http://…` or `https://…`. Sends no request yet.
    pub(super) fn new(base: Address, patience: Patience) -> Self {
        BazelHttp { base, patience }
    }

    fn cas(&self, digest: &CasDigest) -> Address {
        self.base.join(&format!("cas/{}", digest.hash))
    }
}

impl Protocol for BazelHttp {
    fn action(&self, key: &str, _: &str, at_most: u64) -> Result<Option<ActionResult>, RemoteError> {
        let url = self.base.join(&format!("ac/{key}"));
        let Some(bytes) = fetch::small(&url, at_most, &self.patience)? else { return Ok(None) };
        ActionResult::decode(bytes.as_slice()).map(Some).map_err(|_| RemoteError::NoActionResult { url })
    }

    fn put_action(&self, key: &str, result: ActionResult) -> Result<(), RemoteError> {
        let bytes = result.encode_to_vec();
        Ok(fetch::put_bytes(&self.base.join(&format!("ac/{key}")), &bytes, &self.patience)?)
    }

    fn has(&self, digest: &CasDigest) -> Result<bool, RemoteError> {
        Ok(fetch::exists(&self.cas(digest), digest.size(), &self.patience)?)
    }

    fn read(&self, digest: &CasDigest, size: u64) -> Result<Option<Vec<u8>>, RemoteError> {
        Ok(fetch::small(&self.cas(digest), size, &self.patience)?)
    }

    fn fetch(
        &self,
        digest: &CasDigest,
        expected: &Expected,
        to: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<bool, RemoteError> {
        match download(&self.cas(digest), expected, to, &self.patience, progress) {
            Ok(_) => Ok(true),
            Err(FetchError::Status { status, .. }) if is_absence(status) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn put(&self, digest: &CasDigest, bytes: Vec<u8>) -> Result<(), RemoteError> {
        Ok(fetch::put_bytes(&self.cas(digest), &bytes, &self.patience)?)
    }

    fn send(&self, digest: &CasDigest, from: &Path) -> Result<(), RemoteError> {
        Ok(fetch::put_file(&self.cas(digest), from, &self.patience)?)
    }
}

//! Origin of results from a remote cache: which cache, when, and signed by whom.
//!
//! Also decides which of them are trusted where only signed results count.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Cache, Manifest};
use crate::action::ActionKey;
use crate::signing::{Doubt, PublicKey, Trust};

/// Origin of a result that was not made here.
///
/// Only the manifest in the local cache holds it; copies of the result elsewhere omit it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Remote cache, without the secrets of its address.
    pub remote: String,
    /// Time of fetching, RFC 3339 in UTC.
    pub at: String,
    /// Trusted public key that signed it; `None` if no signature was required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// That signature, as the text of its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

impl Origin {
    /// Returns the origin of a result fetched now from this remote cache.
    pub(super) fn now(remote: &str, signed: Option<(String, String)>) -> Self {
        let (signed_by, signature) = signed.unzip();
        Origin { remote: without_secrets(remote), at: jiff::Timestamp::now().to_string(), signed_by, signature }
    }
}

/// Returns an address that is safe to show and store: no user, password or query. A folder becomes a full path.
fn without_secrets(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        let folder = std::fs::canonicalize(address).or_else(|_| std::path::absolute(address));
        return folder.map_or_else(|_| address.to_owned(), |folder| folder.display().to_string());
    };
    // The query holds signatures of requests, or other secrets.
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// Trusted keys, and the results that were rejected for lack of their signature.
#[derive(Debug, Default)]
pub(super) struct Guard {
    trust: Trust,
    here: Mutex<HashMap<ActionKey, Doubt>>,
    there: Mutex<HashMap<ActionKey, Doubt>>,
}

impl Guard {
    /// Returns why a local result is not trusted.
    fn doubt(&self, manifest: &Manifest) -> Option<Doubt> {
        // A result without an origin was made here.
        match &manifest.from.as_ref()?.signed_by {
            None => Some(Doubt::Unsigned),
            Some(key) => (!self.trust.has(key)).then_some(Doubt::OtherKey),
        }
    }

    /// Whether a remote result was rejected before.
    pub(super) fn has_refused(&self, key: ActionKey) -> bool {
        locked(&self.there).contains_key(&key)
    }

    /// Checks the signature of a remote manifest; returns the trusted key as text, or `None` if it is rejected.
    pub(super) fn judge(&self, key: ActionKey, bytes: &[u8], signature: Option<&str>) -> Option<String> {
        match self.trust.check(bytes, signature) {
            Ok(trusted) => {
                locked(&self.here).remove(&key);
                Some(trusted.to_string())
            }
            Err(doubt) => {
                locked(&self.there).insert(key, doubt);
                None
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    /// Returns the same cache, trusting remote results only if one of these keys signed them.
    ///
    /// Without keys, it trusts all results.
    #[must_use]
    pub fn trusting(self, keys: Vec<PublicKey>) -> Self {
        let guard = Guard { trust: Trust::new(keys.clone()), ..Guard::default() };
        Cache { guard: (!keys.is_empty()).then(|| Arc::new(guard)), ..self }
    }

    /// Whether only results of trusted keys count.
    pub fn is_trusting(&self) -> bool {
        self.guard.is_some()
    }

    /// Counts the requested results that exist but were rejected, by reason.
    pub fn passed_over(&self) -> BTreeMap<Doubt, usize> {
        let Some(guard) = &self.guard else { return BTreeMap::new() };
        let mut doubts = locked(&guard.here).clone();
        // The answer of the remote cache is newer.
        doubts.extend(locked(&guard.there).iter().map(|(key, doubt)| (*key, *doubt)));
        let mut counts = BTreeMap::new();
        doubts.into_values().for_each(|doubt| *counts.entry(doubt).or_default() += 1);
        counts
    }

    /// Returns why a local result is not trusted; `None` if it is.
    pub(super) fn doubt(&self, manifest: &Manifest) -> Option<Doubt> {
        self.guard.as_ref().and_then(|guard| guard.doubt(manifest))
    }

    /// Records that a requested local result was rejected.
    pub(super) fn pass_over(&self, key: ActionKey, doubt: Doubt) {
        if let Some(guard) = &self.guard {
            locked(&guard.here).insert(key, doubt);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::without_secrets;

    #[test]
    fn an_address_is_kept_without_its_secrets() {
        assert_eq!(without_secrets("https://u:p%20w@host:8080/a/b?X-Amz-Signature=1#x"), "https://host:8080/a/b");
        assert_eq!(without_secrets("http://u:p@w@host"), "http://host");
        assert_eq!(without_secrets("s3://bucket/a@b"), "s3://bucket/a@b");
        assert_eq!(without_secrets("/a/b?c@d"), "/a/b?c@d");
    }
}

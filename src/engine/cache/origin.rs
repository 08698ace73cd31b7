//! Results that came from elsewhere: from which remote cache, when, and signed by whom; and which of them count where
//! only trusted keys do.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Cache, Manifest};
use crate::action::ActionKey;
use crate::signing::{Doubt, PublicKey, Trust};

/// Where a result came from that was not made here. It stands in the manifest of the local cache alone: whoever copies
/// a result on leaves it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The remote cache, without what its address keeps secret.
    pub remote: String,
    /// When it was fetched, RFC 3339 in UTC.
    pub at: String,
    /// The trusted public key that signed it; none where no signature was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// That signature, as the text of its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

impl Origin {
    /// Something that was fetched now from the remote cache of this name.
    pub(super) fn now(remote: &str, signed: Option<(String, String)>) -> Self {
        let (signed_by, signature) = signed.unzip();
        Origin { remote: without_secrets(remote), at: jiff::Timestamp::now().to_string(), signed_by, signature }
    }
}

/// An address that may be shown and kept: without user, password and query; a folder in full.
fn without_secrets(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        let folder = std::fs::canonicalize(address).or_else(|_| std::path::absolute(address));
        return folder.map_or_else(|_| address.to_owned(), |folder| folder.display().to_string());
    };
    // What signs a request, or is a password in all but name, stands in the query.
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// The keys that are trusted, and which results were passed over for want of a signature of theirs.
#[derive(Debug, Default)]
pub(super) struct Guard {
    trust: Trust,
    here: Mutex<HashMap<ActionKey, Doubt>>,
    there: Mutex<HashMap<ActionKey, Doubt>>,
}

impl Guard {
    /// Why a result that is here does not count.
    fn doubt(&self, manifest: &Manifest) -> Option<Doubt> {
        // What has no origin was made here.
        match &manifest.from.as_ref()?.signed_by {
            None => Some(Doubt::Unsigned),
            Some(key) => (!self.trust.has(key)).then_some(Doubt::OtherKey),
        }
    }

    /// Whether a result of the remote cache was passed over before.
    pub(super) fn has_refused(&self, key: ActionKey) -> bool {
        locked(&self.there).contains_key(&key)
    }

    /// The trusted key that signed the manifest of a remote cache, as text; nothing if it is to be passed over.
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
    /// The same cache in which results from elsewhere count only if one of these keys signed them. Without a key all
    /// count.
    #[must_use]
    pub fn trusting(self, keys: Vec<PublicKey>) -> Self {
        let guard = Guard { trust: Trust::new(keys.clone()), ..Guard::default() };
        Cache { guard: (!keys.is_empty()).then(|| Arc::new(guard)), ..self }
    }

    /// Whether only results of trusted keys count.
    pub fn is_trusting(&self) -> bool {
        self.guard.is_some()
    }

    /// How many results were asked for, are known, and were passed over, by the reason.
    pub fn passed_over(&self) -> BTreeMap<Doubt, usize> {
        let Some(guard) = &self.guard else { return BTreeMap::new() };
        let mut doubts = locked(&guard.here).clone();
        // What the remote cache says now is newer.
        doubts.extend(locked(&guard.there).iter().map(|(key, doubt)| (*key, *doubt)));
        let mut counts = BTreeMap::new();
        doubts.into_values().for_each(|doubt| *counts.entry(doubt).or_default() += 1);
        counts
    }

    /// Why a result that is here does not count; nothing if it does.
    pub(super) fn doubt(&self, manifest: &Manifest) -> Option<Doubt> {
        self.guard.as_ref().and_then(|guard| guard.doubt(manifest))
    }

    /// Notes that a result was asked for, is here, and does not count.
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

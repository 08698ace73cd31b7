//! Publishes manifests to a remote cache, signed if there is a signer.
//!
//! Existing manifests stay. A signature is written before its manifest: a reader that requires signatures never finds
//! the manifest alone.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::action::ActionKey;
use crate::cache::remote::{Remote, RemoteError, at_once};
use crate::cache::{Blob, Cache, Manifest, longest_manifest};
use crate::signing::{KeyError, PublicKey, Signer, Trust};

/// Reason why a manifest could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The remote cache failed.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The manifest could not be signed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Outcome of sending a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sent {
    /// The remote has it, without a signature from this run.
    Unsigned,
    /// The remote has it, signed with the given key.
    Signed,
    /// The remote has it. It was computed elsewhere, so it is not signed; it keeps its original signature, if any.
    FromRemote,
    /// The remote keeps another run's manifest of the same key.
    OtherManifest,
    /// The remote keeps the manifest with a signature of another key.
    OtherSignature,
}

/// Sends a result with its blobs to the remote cache through which runs share work; does nothing if they do not.
///
/// # Errors
/// [`PublishError`].
pub fn share(cache: &Cache, manifest: &Manifest) -> Result<(), PublishError> {
    let Some(remote) = cache.shared() else { return Ok(()) };
    let blobs = manifest.outputs.values().chain(manifest.made.log.stored());
    let blobs: Vec<_> = blobs.map(|blob| (*blob, cache.object_path(blob.digest))).collect();
    share_blobs(cache, &blobs, &|_| ())?;
    send(remote, manifest, None).map(drop)
}

/// Sends blobs, each with the file that has its bytes, to the remote cache through which runs share work; does nothing
/// if they do not. Tells of each blob that is there, in any thread.
///
/// # Errors
/// [`RemoteError`].
pub fn share_blobs(cache: &Cache, blobs: &[(Blob, PathBuf)], tell: &(dyn Fn(&Blob) + Sync)) -> Result<(), RemoteError> {
    let Some(remote) = cache.shared() else { return Ok(()) };
    let has_failed = AtomicBool::new(false);
    let send = |(blob, path): &(Blob, PathBuf)| {
        // The first failure ends it: the rest would wait for the same server.
        if has_failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let sent = remote.put_blob(*blob, path).map(drop);
        has_failed.fetch_or(sent.is_err(), Ordering::Relaxed);
        if sent.is_ok() {
            tell(blob);
        }
        sent
    };
    at_once(blobs, send).into_iter().collect()
}

/// Sends a manifest whose blobs are already in the remote cache.
///
/// Signs a result that was computed here, if there is a signer. Omits the origin of the result: the address may be
/// private.
///
/// # Errors
/// [`PublishError`].
pub fn send(remote: &Remote, manifest: &Manifest, signer: Option<&Signer>) -> Result<Sent, PublishError> {
    let key = manifest.record.key();
    let own = Manifest { from: None, ..manifest.clone() };
    let text = serde_json::to_string_pretty(&own).unwrap_or_default() + "\n";
    let signature_of = |bytes: &str| -> Result<Option<String>, KeyError> {
        match (&manifest.from, signer) {
            (None, Some(signer)) => signer.sign(bytes.as_bytes(), &comment(key)).map(Some),
            (None, None) => Ok(None),
            (Some(_), _) => Ok(original_signature(manifest, bytes)),
        }
    };
    let done = match (&manifest.from, signer) {
        (None, None) => Sent::Unsigned,
        (None, Some(_)) => Sent::Signed,
        (Some(_), _) => Sent::FromRemote,
    };
    let Some(signature) = signature_of(&text)? else {
        remote.put_manifest(key, text.as_bytes())?;
        return Ok(done);
    };
    let Some(there) = remote.manifest(key, longest_manifest(&manifest.record))? else {
        remote.put_signature(key, &signature)?;
        remote.put_manifest(key, text.as_bytes())?;
        return Ok(done);
    };
    // The remote text is signed as it is, with its own white space.
    if serde_json::from_str::<serde_json::Value>(&there).ok() != serde_json::to_value(&own).ok() {
        return Ok(Sent::OtherManifest);
    }
    let Some(by) = signer.map(Signer::public).cloned().or_else(|| original_key(manifest)) else { return Ok(done) };
    match (remote.signature(key)?, signature_of(&there)?) {
        (None, Some(signature)) => remote.put_signature(key, &signature)?,
        (Some(signature), _) if Trust::new(vec![by]).check(there.as_bytes(), Some(&signature)).is_err() => {
            return Ok(Sent::OtherSignature);
        }
        _ => {}
    }
    Ok(done)
}

/// Returns the signed comment of a signature. It is for people: the signed manifest itself determines the key.
fn comment(key: ActionKey) -> String {
    format!("atflow result {key} signed {}", jiff::Timestamp::now())
}

fn original_key(manifest: &Manifest) -> Option<PublicKey> {
    PublicKey::named(manifest.from.as_ref()?.signed_by.as_deref()?).ok()
}

/// Returns the original signature of a result, if it matches these bytes.
///
/// Another version of this program may format the manifest differently.
fn original_signature(manifest: &Manifest, bytes: &str) -> Option<String> {
    let signature = manifest.from.as_ref()?.signature.as_deref()?;
    let trust = Trust::new(vec![original_key(manifest)?]);
    trust.check(bytes.as_bytes(), Some(signature)).ok().map(|_| signature.to_owned())
}

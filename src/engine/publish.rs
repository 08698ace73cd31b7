//! Manifests on their way into a remote cache, perhaps signed. What is there already stays; a signature goes before the
//! manifest that it signs, so that who trusts keys alone never meets a manifest whose signature is still to come.

use crate::action::ActionKey;
use crate::cache::remote::{Remote, RemoteError};
use crate::cache::{Manifest, longest_manifest};
use crate::signing::{KeyError, PublicKey, Signer, Trust};

/// Why a manifest could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The remote cache failed.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// It could not be signed.
    #[error(transparent)]
    ActionKey(#[from] KeyError),
}

/// What came of sending a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sent {
    /// It is there without a signature of ours.
    Unsigned,
    /// It is there, signed with the key that was given.
    Signed,
    /// It was computed elsewhere and is not ours to sign; it is there with the signature it came with, if it came with
    /// one.
    Elsewhere,
    /// Another run's manifest of the same key is there, and stays as it is.
    OtherManifest,
    /// The manifest there carries somebody else's signature, which stays.
    OtherSignature,
}

/// Sends a manifest; its blobs are there already. A result that was computed here is signed, if somebody signs. Where a
/// result came from is not sent: the address may be private.
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
        (Some(_), _) => Sent::Elsewhere,
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
    // It is signed as it stands there, whatever its white space.
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

/// The signed remark beside a signature: for people, because the signature is of the manifest, which gives the key.
fn comment(key: ActionKey) -> String {
    format!("atflow result {key} signed {}", jiff::Timestamp::now())
}

fn original_key(manifest: &Manifest) -> Option<PublicKey> {
    PublicKey::named(manifest.from.as_ref()?.signed_by.as_deref()?).ok()
}

/// The signature that a result came with, if it is one of these bytes: another version of this program may write a
/// manifest in another way.
fn original_signature(manifest: &Manifest, bytes: &str) -> Option<String> {
    let signature = manifest.from.as_ref()?.signature.as_deref()?;
    let trust = Trust::new(vec![original_key(manifest)?]);
    trust.check(bytes.as_bytes(), Some(signature)).ok().map(|_| signature.to_owned())
}

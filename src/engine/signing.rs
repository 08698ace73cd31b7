//! Signatures of manifests, in the format of minisign: one file beside each manifest, over the bytes of that manifest.
//! A manifest holds the record that gives its key, its outputs and how it was made, so a signature binds all three.
//! Knows no cache and asks nobody for a password.

use std::fs;
use std::path::{Path, PathBuf};

use crate::fsio::{Context, FileError};

/// The ending of a signature's file, after the name of the signed file.
pub const ENDING: &str = ".minisig";

/// A key file is far shorter.
const KEY_FILE: u64 = 4096;

/// A public key as text: 42 bytes in base64.
const PUBLIC_TEXT: usize = 56;

/// A secret key as text: 158 bytes in base64.
const SECRET_TEXT: usize = 212;

/// The second signature of a signature's file, over the trusted comment, as text: 64 bytes in base64.
const COMMENT_SIGNATURE: usize = 88;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no such file, and the text is no key either.
    #[error("`{name}` is neither a public key nor a file")]
    NoKey {
        /// What was given.
        name: String,
    },
    /// The file holds something else.
    #[error("{} holds no {expected} key of minisign", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// `public` or `secret`.
        expected: &'static str,
    },
    /// The wrong half of the pair.
    #[error("{} holds a {found} key, and a {expected} key is needed", path.display())]
    WrongHalf {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: &'static str,
        /// What is needed.
        expected: &'static str,
    },
    /// The secret key is encrypted, and no password was given.
    #[error("the secret key {} has a password", path.display())]
    NoPassword {
        /// The file.
        path: PathBuf,
    },
    /// The secret key cannot be opened with this password.
    #[error("the secret key {} cannot be opened: {reason}", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// What the library said.
        reason: String,
    },
    /// A key or a signature could not be made.
    #[error("the key cannot be used: {reason}")]
    Failed {
        /// What the library said.
        reason: String,
    },
}

/// The half of a pair that others have: it checks signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(minisign::PublicKey);

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.to_base64())
    }
}

impl PublicKey {
    /// A key given as its text (`RW…`) or as a file that holds it.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn named(name: &str) -> Result<Self, KeyError> {
        if let Some(key) = Self::of_text(name.trim()) {
            return Ok(key);
        }
        let path = Path::new(name);
        if !path.exists() {
            return Err(KeyError::NoKey { name: name.to_owned() });
        }
        let other = || KeyError::Other { path: path.to_owned(), expected: "public" };
        let text = key_text(path, "public")?;
        match text.len() {
            PUBLIC_TEXT => Self::of_text(&text).ok_or_else(other),
            SECRET_TEXT => Err(KeyError::WrongHalf { path: path.to_owned(), found: "secret", expected: "public" }),
            _ => Err(other()),
        }
    }

    fn of_text(text: &str) -> Option<Self> {
        let key = minisign::PublicKey::from_base64(text).ok()?;
        key.to_bytes().starts_with(b"Ed").then_some(PublicKey(key))
    }
}

/// The line of a key file that holds the key. The line of the comment may be missing.
fn key_text(path: &Path, expected: &'static str) -> Result<String, KeyError> {
    let other = || KeyError::Other { path: path.to_owned(), expected };
    let metadata = fs::metadata(path).on("read", path)?;
    // Neither a pipe that never ends nor a file of gigabytes is a key.
    if !metadata.is_file() || metadata.len() > KEY_FILE {
        return Err(other());
    }
    let bytes = fs::read(path).on("read", path)?;
    let text = String::from_utf8(bytes).map_err(|_| other())?;
    let line = text.lines().find(|line| !line.starts_with("untrusted comment:"));
    Ok(line.ok_or_else(other)?.trim().to_owned())
}

/// The half of a pair that its owner keeps: it signs.
pub struct Signer {
    secret: minisign::SecretKey,
    public: PublicKey,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.public)
    }
}

impl Signer {
    /// Opens a file with a secret key. `password` is asked for the password if the key has one.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn open(path: &Path, password: impl FnOnce() -> Option<String>) -> Result<Self, KeyError> {
        let text = key_text(path, "secret")?;
        if text.len() == PUBLIC_TEXT && PublicKey::of_text(&text).is_some() {
            return Err(KeyError::WrongHalf { path: path.to_owned(), found: "public", expected: "secret" });
        }
        let other = || KeyError::Other { path: path.to_owned(), expected: "secret" };
        if text.len() != SECRET_TEXT {
            return Err(other());
        }
        let file = || minisign::SecretKeyBox::from(format!("untrusted comment: \n{text}\n"));
        let locked = |error: minisign::PError| KeyError::Locked { path: path.to_owned(), reason: error.to_string() };
        let secret = match file().into_unencrypted_secret_key() {
            Ok(secret) => secret,
            Err(error) if error.to_string().contains("encrypted") => {
                let password = password().ok_or_else(|| KeyError::NoPassword { path: path.to_owned() })?;
                file().into_secret_key(Some(password)).map_err(locked)?
            }
            Err(error) => return Err(locked(error)),
        };
        let public = minisign::PublicKey::from_secret_key(&secret).map_err(locked)?;
        Ok(Signer { secret, public: PublicKey(public) })
    }

    /// The key that checks what this one signs.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The signature of some bytes as the text of its file. The comment is signed, too, and for people.
    ///
    /// # Errors
    /// [`KeyError::Failed`].
    pub fn sign(&self, bytes: &[u8], comment: &str) -> Result<String, KeyError> {
        let signature = minisign::sign(Some(&self.public.0), &self.secret, bytes, Some(comment), Some("atflow"));
        Ok(signature.map_err(failed)?.into_string())
    }
}

fn failed(error: minisign::PError) -> KeyError {
    KeyError::Failed { reason: error.to_string() }
}

/// A new pair of keys as the texts of their files, the secret one first; encrypted if there is a password.
///
/// # Errors
/// [`KeyError::Failed`].
pub fn new_keys(password: Option<String>) -> Result<(String, String), KeyError> {
    let pair = match password {
        Some(password) => minisign::KeyPair::generate_encrypted_keypair(Some(password)),
        None => minisign::KeyPair::generate_unencrypted_keypair(),
    };
    let pair = pair.map_err(failed)?;
    let secret = pair.sk.to_box(Some("minisign secret key")).map_err(failed)?;
    let public = pair.pk.to_box().map_err(failed)?;
    Ok((secret.into_string(), public.into_string()))
}

/// Why a result is not one that a trusted key vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// It has no signature.
    Unsigned,
    /// It is signed with a key that is not trusted.
    OtherKey,
    /// Its signature is not one of these bytes.
    Invalid,
}

/// The keys whose signatures count.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    keys: Vec<PublicKey>,
}

impl Trust {
    /// Trusts these keys and no others.
    pub fn new(keys: Vec<PublicKey>) -> Self {
        Trust { keys }
    }

    /// Whether a key, as text, is one of these.
    pub fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|trusted| trusted.to_string() == key)
    }

    /// The trusted key that signed some bytes.
    ///
    /// # Errors
    /// A [`Doubt`] if there is none.
    pub fn check(&self, bytes: &[u8], signature: Option<&str>) -> Result<&PublicKey, Doubt> {
        let signature = signature.ok_or(Doubt::Unsigned)?;
        // The library takes parts of the last line by their place in it.
        let last = signature.lines().nth(3).map(str::trim).unwrap_or_default();
        if last.len() != COMMENT_SIGNATURE || !last.ends_with("==") {
            return Err(Doubt::Invalid);
        }
        let signature = minisign::SignatureBox::from_string(signature).map_err(|_| Doubt::Invalid)?;
        let of_key: Vec<&PublicKey> = self.keys.iter().filter(|key| key.0.keynum() == signature.keynum()).collect();
        if of_key.is_empty() {
            return Err(Doubt::OtherKey);
        }
        let fits = |key: &&PublicKey| {
            minisign::verify(&key.0, &signature, std::io::Cursor::new(bytes), true, false, false).is_ok()
        };
        of_key.into_iter().find(fits).ok_or(Doubt::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(password: Option<&str>) -> (Signer, PublicKey) {
        let (secret, public) = new_keys(password.map(str::to_owned)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, secret).unwrap();
        fs::write(folder.path().join("key.pub"), public).unwrap();
        let public = PublicKey::named(&folder.path().join("key.pub").display().to_string()).unwrap();
        (Signer::open(&path, || password.map(str::to_owned)).unwrap(), public)
    }

    #[test]
    fn a_signature_is_of_one_key_and_of_these_bytes() {
        let ((signer, public), (other, other_public)) = (signer(None), signer(None));
        let signature = signer.sign(b"bytes", "a comment").unwrap();
        let trust = Trust::new(vec![other_public, public.clone()]);
        assert_eq!(trust.check(b"bytes", Some(&signature)), Ok(&public));
        assert_eq!(trust.check(b"Bytes", Some(&signature)), Err(Doubt::Invalid));
        assert_eq!(trust.check(b"bytes", None), Err(Doubt::Unsigned));
        let by_other = other.sign(b"bytes", "a comment").unwrap();
        assert_eq!(Trust::new(vec![public.clone()]).check(b"bytes", Some(&by_other)), Err(Doubt::OtherKey));
        let commented = signature.replace("a comment", "another");
        assert_eq!(trust.check(b"bytes", Some(&commented)), Err(Doubt::Invalid));
        assert_eq!(PublicKey::named(&public.to_string()).unwrap(), public);
    }

    #[test]
    fn what_is_no_signature_is_no_panic() {
        let (signer, public) = signer(None);
        let signature = signer.sign(b"bytes", "c").unwrap();
        let trust = Trust::new(vec![public]);
        let lines: Vec<&str> = signature.lines().collect();
        for end in 0..signature.len() - 1 {
            assert_ne!(trust.check(b"bytes", signature.get(..end)), Ok(&trust.keys[0]), "cut at {end}");
        }
        for last in ["", "AAAA", &"A".repeat(88), &format!("{}==", "é".repeat(43))] {
            let forged = [lines[0], lines[1], lines[2], last].join("\n");
            assert_eq!(trust.check(b"bytes", Some(&forged)), Err(Doubt::Invalid), "{last}");
        }
    }

    #[test]
    fn a_password_opens_the_key_that_it_locked() {
        let (signer, public) = signer(Some("secret"));
        let signature = signer.sign(b"bytes", "c").unwrap();
        assert!(Trust::new(vec![public]).check(b"bytes", Some(&signature)).is_ok());
        let (secret, public) = new_keys(Some("right".to_owned())).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let [path, public_path] = ["key", "key.pub"].map(|name| folder.path().join(name));
        fs::write(&path, secret).unwrap();
        fs::write(&public_path, public).unwrap();
        let open = |path: &Path, password: Option<&str>| Signer::open(path, || password.map(str::to_owned));
        assert!(matches!(open(&path, None), Err(KeyError::NoPassword { .. })));
        assert!(matches!(open(&path, Some("wrong")), Err(KeyError::Locked { .. })));
        assert!(matches!(open(&public_path, None), Err(KeyError::WrongHalf { found: "public", .. })));
        let named = PublicKey::named(&path.display().to_string());
        assert!(matches!(named, Err(KeyError::WrongHalf { found: "secret", .. })));
        assert!(matches!(PublicKey::named("/nowhere"), Err(KeyError::NoKey { .. })));
        fs::write(&path, [0xff; 100]).unwrap();
        assert!(matches!(open(&path, None), Err(KeyError::Other { .. })));
    }
}

//! Whose word is taken for who a server is: the certificates of the system, or those that `SSL_CERT_FILE` and
//! `SSL_CERT_DIR` name, and where neither gives any, those that came with this program.

use std::ffi::OsString;
use std::sync::{Arc, OnceLock};

use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Variables that name other certificates than the system's: a file of many, and folders.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The authorities that are trusted.
struct Trusted {
    roots: RootCerts,
    /// Where they are from, for people.
    from: String,
}

fn trusted() -> &'static Trusted {
    static TRUSTED: OnceLock<Trusted> = OnceLock::new();
    TRUSTED.get_or_init(|| {
        let named = |name: &&str| Some(format!("{name}={}", set(name)?.to_string_lossy()));
        let named = VARIABLES.iter().filter_map(named).collect::<Vec<_>>().join(", ");
        let found = rustls_native_certs::load_native_certs();
        let certificates: Vec<Certificate<'static>> =
            found.certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
        let count = certificates.len();
        match (count, named.is_empty()) {
            (0, true) => Trusted { roots: RootCerts::WebPki, from: "those of this program".to_owned() },
            // Whoever names certificates wants no others. A file that cannot be read has none.
            (0, false) => {
                let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
                Trusted { roots: RootCerts::Specific(Arc::default()), from: format!("none, by {named}{why}") }
            }
            (_, true) => {
                Trusted { roots: RootCerts::Specific(Arc::new(certificates)), from: format!("{count} of the system") }
            }
            (_, false) => {
                Trusted { roots: RootCerts::Specific(Arc::new(certificates)), from: format!("{count} of {named}") }
            }
        }
    })
}

/// A variable's value; one without a value is none.
fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The settings of encryption.
pub(super) fn tls() -> TlsConfig {
    TlsConfig::builder().root_certs(trusted().roots.clone()).build()
}

/// What is wrong with a server's encryption, if that is what failed: asking again changes nothing.
pub(crate) fn refusal(error: &ureq::Error) -> Option<String> {
    let rustls = match error {
        ureq::Error::Io(source) => source.get_ref()?.downcast_ref::<rustls::Error>()?,
        ureq::Error::Rustls(source) => source,
        ureq::Error::Tls(words) => return Some((*words).to_owned()),
        _ => return None,
    };
    Some(reason(rustls))
}

/// Says that a server is not trusted, whom this program trusts, and how to trust others.
pub(crate) fn distrust(reason: &str) -> String {
    let from = &trusted().from;
    format!("{reason}. Trusted are {from}; the variable SSL_CERT_FILE names a file with others")
}

/// What is wrong with a server's encryption, in words.
pub(crate) fn reason(error: &rustls::Error) -> String {
    use rustls::CertificateError as Wrong;
    match error {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            // Two authorities may have one name.
            Wrong::UnknownIssuer | Wrong::BadSignature => {
                "its certificate is of an authority that is not trusted here".to_owned()
            }
            Wrong::Expired | Wrong::ExpiredContext { .. } => "its certificate has expired".to_owned(),
            Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => "its certificate is not valid yet".to_owned(),
            Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => {
                "its certificate is that of another server".to_owned()
            }
            other => format!("its certificate is not valid ({other})"),
        },
        other => other.to_string(),
    }
}

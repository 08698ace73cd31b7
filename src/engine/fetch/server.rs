//! How servers are asked: one agent, redirects, credentials, what of its failures is worth another try, and whether
//! something is there at all. Knows nothing of what is fetched.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};
use std::thread;

use base64::Engine as _;
use ureq::http::{Method, Request, Response, StatusCode, header};
use url::Url;

use super::{FetchError, Patience, pace, proxy, trust};
use crate::address::Address;
use crate::fsio;

/// The agents of one patience, by scheme: each has a proxy of its own. They keep their connections, so that many small
/// files of one server cost one greeting.
#[derive(Debug, Clone)]
pub(crate) struct Agents(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    patience: Patience,
    http: OnceLock<ureq::Agent>,
    https: OnceLock<ureq::Agent>,
}

impl Agents {
    /// The usual ones, or others where somebody else's patience is asked for.
    pub(super) fn of(patience: &Patience) -> Self {
        static USUAL: OnceLock<Agents> = OnceLock::new();
        let usual = USUAL.get_or_init(|| Agents::new(patience));
        if usual.0.patience == *patience { usual.clone() } else { Agents::new(patience) }
    }

    /// Agents that nobody else has.
    pub(crate) fn new(patience: &Patience) -> Self {
        Agents(Arc::new(Kept { patience: patience.clone(), http: OnceLock::new(), https: OnceLock::new() }))
    }

    /// Asks one question of a server, and follows nowhere.
    ///
    /// # Errors
    /// Whatever the network gives.
    pub(crate) fn run(&self, request: Request<impl ureq::AsSendBody>) -> Result<Response<ureq::Body>, ureq::Error> {
        let is_https = request.uri().scheme_str() == Some("https");
        let (kept, scheme) = if is_https { (&self.0.https, "https") } else { (&self.0.http, "http") };
        let agent = kept.get_or_init(|| {
            let mut config = config(&self.0.patience).proxy(proxy::of(scheme));
            if is_https {
                config = config.tls_config(trust::tls());
            }
            pace::agent(config.build(), self.0.patience.stall)
        });
        agent.run(request)
    }

    /// The body of an answer.
    pub(crate) fn body(&self, response: ureq::Body) -> impl Read + Send + use<> {
        pace::Body::new(response.into_reader(), self.0.patience.stall)
    }
}

/// Idle connections to keep to one server: as many as a remote cache uses at once.
const KEPT_CONNECTIONS: usize = 32;

fn config(patience: &Patience) -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        // They are followed here, where they can be looked at; signed questions are for one address.
        .max_redirects(0)
        .max_redirects_will_error(false)
        // Many files are fetched at once, over connections that are kept for the next ones.
        .max_idle_connections_per_host(KEPT_CONNECTIONS)
        .max_idle_connections(4 * KEPT_CONNECTIONS)
        .timeout_resolve(Some(patience.connect))
        .timeout_connect(Some(patience.connect))
        .timeout_recv_response(Some(patience.stall))
        .timeout_per_read(Some(patience.stall))
        .timeout_per_write(Some(patience.stall))
        // Digests are of the bytes as they lie on the server, `.gz` files included.
        .accept_encoding("identity")
        .user_agent(concat!("atflow/", env!("CARGO_PKG_VERSION")))
}

/// So often a server may send elsewhere; browsers and curl follow 20 to 50 times.
const REDIRECTS: u32 = 20;

/// Asks a server one question and follows where it sends.
pub(super) fn ask(
    agents: &Agents,
    method: &Method,
    address: &Address,
    headers: &[(header::HeaderName, String)],
) -> Result<Response<ureq::Body>, Failed> {
    let mut url = Url::parse(address.secret()).map_err(|_| Failed::Address)?;
    let mut credentials = take_credentials(&mut url);
    for _ in 0..=REDIRECTS {
        let mut request = Request::builder().method(method.clone()).uri(url.as_str());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(credentials) = &credentials {
            request = request.header(header::AUTHORIZATION, credentials);
        }
        let request = request.body(()).map_err(|_| Failed::Address)?;
        let response = agents.run(request).map_err(Failed::Network)?;
        let Some(to) = text(&response, header::LOCATION).filter(|_| response.status().is_redirection()) else {
            return Ok(response);
        };
        let mut next = url.join(to).map_err(|_| Failed::Redirect("to no address"))?;
        match (url.scheme(), next.scheme()) {
            ("https", "http") => return Err(Failed::Redirect("from https:// to http://, where anybody may answer")),
            (_, "http" | "https") => {}
            _ => return Err(Failed::Redirect("to what is neither https:// nor http://")),
        }
        // Another server is not told what opens this one.
        let own = take_credentials(&mut next);
        credentials = own.or_else(|| credentials.filter(|_| next.origin() == url.origin()));
        url = next;
    }
    Err(Failed::Redirect("again and again"))
}

/// Takes user and password out of an address, as what is sent of them.
pub(crate) fn take_credentials(url: &mut Url) -> Option<String> {
    let user: Vec<u8> = percent_encoding::percent_decode_str(url.username()).collect();
    let password = url.password().map(|password| percent_encoding::percent_decode_str(password).collect::<Vec<u8>>());
    if user.is_empty() && password.is_none() {
        return None;
    }
    // Neither can fail for what has a host.
    _ = url.set_username("");
    _ = url.set_password(None);
    let both = [user, password.unwrap_or_default()].join(&b':');
    Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(both)))
}

/// Whether a server has a file, of a size if that is known. One that does not answer such questions is believed to have
/// it.
///
/// # Errors
/// [`FetchError`] if it could not be asked.
pub fn exists(url: &Address, size: Option<u64>, patience: &Patience) -> Result<bool, FetchError> {
    let agents = Agents::of(patience);
    again(url, patience, || {
        let response = ask(&agents, &Method::HEAD, url, &[])?;
        match response.status() {
            status if status.is_success() => {
                let found = number(&response, header::CONTENT_LENGTH);
                Ok(size.is_none_or(|size| found.is_none_or(|found| found == size)))
            }
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => Ok(true),
            status if is_absence(status.as_u16()) => Ok(false),
            status => Err(Failed::Status(status)),
        }
    })
}

/// A small file of a server, held in memory; nothing if it has none.
///
/// # Errors
/// [`FetchError`]; [`FetchError::TooLarge`] if it is longer than `at_most`.
pub fn small(url: &Address, at_most: u64, patience: &Patience) -> Result<Option<Vec<u8>>, FetchError> {
    let agents = Agents::of(patience);
    again(url, patience, || {
        let response = ask(&agents, &Method::GET, url, &[])?;
        match response.status() {
            status if status.is_success() => {}
            status if is_absence(status.as_u16()) => return Ok(None),
            status => return Err(Failed::Status(status)),
        }
        let size = number(&response, header::CONTENT_LENGTH);
        if size.is_some_and(|size| size > at_most) {
            return Err(Failed::TooLarge(at_most));
        }
        match fsio::read_at_most(agents.body(response.into_body()), at_most) {
            // A connection that ends early is no end of a file.
            Ok(bytes) if size.is_some_and(|size| size > bytes.len() as u64) => {
                Err(Failed::Network(io::Error::from(io::ErrorKind::UnexpectedEof).into()))
            }
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Err(Failed::TooLarge(at_most)),
            Err(error) => Err(Failed::Network(error.into())),
        }
    })
}

/// Asks until there is an answer, or as often as it may be asked.
pub(super) fn again<T>(
    url: &Address,
    patience: &Patience,
    question: impl Fn() -> Result<T, Failed>,
) -> Result<T, FetchError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match question() {
            Ok(answer) => return Ok(answer),
            Err(failed) if failed.is_final() || tries >= patience.tries => {
                return Err(failed.told(url, tries, patience));
            }
            Err(_) => thread::sleep(patience.pause * 2_u32.saturating_pow(tries - 1).min(64)),
        }
    }
}

/// Whether a status says that there is no such file. A bucket that forbids listing answers 403 for what is not there.
pub(crate) fn is_absence(status: u16) -> bool {
    matches!(status, 403 | 404 | 410)
}

/// A question that was not answered with what was asked for.
pub(super) enum Failed {
    Network(ureq::Error),
    Status(StatusCode),
    /// The address is none.
    Address,
    /// The server sends where nobody follows.
    Redirect(&'static str),
    /// More came than may.
    TooLarge(u64),
    /// The server does not take what it is sent, and says why.
    Refused(StatusCode, String),
}

impl Failed {
    /// Whether another try would fail in the same way.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Failed::Status(status) | Failed::Refused(status, _) => {
                let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
                !status.is_server_error() && !passing.contains(status)
            }
            Failed::Network(error) if trust::refusal(error).is_some() => true,
            Failed::Network(error) if pace::slowness(error).is_some() => false,
            Failed::Network(error) => !matches!(
                error,
                ureq::Error::Io(_)
                    | ureq::Error::Timeout(_)
                    | ureq::Error::HostNotFound
                    | ureq::Error::ConnectionFailed
                    | ureq::Error::BodyStalled
                    | ureq::Error::Protocol(_)
            ),
            Failed::Address | Failed::Redirect(_) | Failed::TooLarge(_) => true,
        }
    }

    pub(super) fn told(self, url: &Address, tries: u32, patience: &Patience) -> FetchError {
        let url = url.clone();
        match self {
            Failed::Network(source) => match (trust::refusal(&source), pace::slowness(&source)) {
                (Some(reason), _) => FetchError::Encryption { url, reason: trust::distrust(&reason) },
                (None, Some(slow)) => FetchError::Slow { url, tries, slow },
                (None, None) => FetchError::Network { url, tries, stall: patience.stall, source: Box::new(source) },
            },
            Failed::Status(status) => FetchError::Status { url, status: status.as_u16(), tries },
            Failed::Refused(status, words) => FetchError::Refused { url, status: status.as_u16(), words },
            Failed::Address => FetchError::Url { url, reason: "it is no address" },
            Failed::Redirect(to) => FetchError::Redirect { url, to },
            Failed::TooLarge(at_most) => FetchError::TooLarge { url, at_most },
        }
    }
}

pub(super) fn text<T>(response: &Response<T>, name: header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

pub(super) fn number<T>(response: &Response<T>, name: header::HeaderName) -> Option<u64> {
    text(response, name)?.trim().parse().ok()
}

/// Where a partial answer starts, and the size of the whole: `bytes 100-199/200`.
pub(super) fn range<T>(response: &Response<T>) -> Option<(u64, Option<u64>)> {
    let (range, total) = text(response, header::CONTENT_RANGE)?.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}

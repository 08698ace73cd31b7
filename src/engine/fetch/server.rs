//! How servers are asked: one agent, what of its failures is worth another try, and whether something is there at all. Knows nothing of what is fetched.

use std::sync::OnceLock;
use std::thread;

use ureq::http::{Response, StatusCode, header};

use super::{FetchError, Patience};

/// One agent keeps its connections, so that many small files of one server cost one greeting.
pub(super) fn agent(patience: &Patience) -> ureq::Agent {
    static USUAL: OnceLock<(Patience, ureq::Agent)> = OnceLock::new();
    let (usual, agent) = USUAL.get_or_init(|| (patience.clone(), new_agent(patience)));
    if usual == patience { agent.clone() } else { new_agent(patience) }
}

fn new_agent(patience: &Patience) -> ureq::Agent {
    config(patience).build().new_agent()
}

/// The settings of an agent as patient as this.
pub(crate) fn config(patience: &Patience) -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_resolve(Some(patience.connect))
        .timeout_connect(Some(patience.connect))
        .timeout_recv_response(Some(patience.stall))
        .timeout_per_read(Some(patience.stall))
        .timeout_per_write(Some(patience.stall))
        // Digests are of the bytes as they lie on the server, `.gz` files included.
        .accept_encoding("identity")
        .user_agent(concat!("atflow/", env!("CARGO_PKG_VERSION")))
}

/// Whether a server has a file. One that does not answer such questions is believed to have it.
///
/// # Errors
/// [`FetchError::Status`] and [`FetchError::Network`].
pub fn exists(url: &str, patience: &Patience) -> Result<bool, FetchError> {
    let agent = agent(patience);
    let mut tries = 0;
    loop {
        tries += 1;
        let failed = match agent.head(url).call().map(|response| response.status()) {
            Ok(status) if status.is_success() => return Ok(true),
            Ok(StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) => return Ok(true),
            Ok(StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE) => return Ok(false),
            Ok(status) => Failed::Status(status),
            Err(error) => Failed::Network(error),
        };
        if failed.is_final() || tries >= patience.tries {
            return Err(failed.told(url, tries, patience));
        }
        thread::sleep(patience.pause * 2_u32.saturating_pow(tries - 1).min(64));
    }
}

/// A question that was not answered with what was asked for.
pub(super) enum Failed {
    Network(ureq::Error),
    Status(StatusCode),
}

impl Failed {
    /// Whether another try would fail in the same way.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Failed::Status(status) => {
                let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
                !status.is_server_error() && !passing.contains(status)
            }
            Failed::Network(error) => !matches!(
                error,
                ureq::Error::Io(_)
                    | ureq::Error::Timeout(_)
                    | ureq::Error::HostNotFound
                    | ureq::Error::ConnectionFailed
                    | ureq::Error::BodyStalled
                    | ureq::Error::Protocol(_)
            ),
        }
    }

    pub(super) fn told(self, url: &str, tries: u32, patience: &Patience) -> FetchError {
        let url = url.to_owned();
        match self {
            Failed::Network(source) => {
                FetchError::Network { url, tries, stall: patience.stall, source: Box::new(source) }
            }
            Failed::Status(status) => FetchError::Status { url, status: status.as_u16(), tries },
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

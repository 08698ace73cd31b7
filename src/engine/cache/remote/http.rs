//! HTTP for object stores, through the client that fetches everything else: one client, one set of timeouts.
//!
//! Calls block: concurrent requests need several threads. Knows no store.

use std::io::{ErrorKind, Read};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use ureq::http::{Method, Request};

use crate::address::masked;
use crate::fetch::{Agents, Patience, refusal, slowness};

/// Number of bytes to read at a time.
const BUFFER: usize = 256 << 10;

/// Maximum length of a store's answer other than a file, in bytes; the rest is cut off.
const WORDS: u64 = 1 << 20;

/// Creates the clients of a store.
#[derive(Debug)]
pub(super) struct Connector(pub Patience);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let asked = |key| options.get_config_value(&key);
        let allows_http = asked(ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        let mut patience = self.0.clone();
        // A store that looks for credentials on the network sets a shorter timeout.
        if let Some(limit) = asked(ClientConfigKey::ConnectTimeout).and_then(|text| seconds(&text)) {
            patience.connect = patience.connect.min(limit);
        }
        Ok(HttpClient::new(Http { agents: Agents::new(&patience), allows_http }))
    }
}

/// Parses `1 second` and `1s`, the durations in the store's settings.
fn seconds(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let is_seconds = matches!(unit.trim(), "" | "s" | "sec" | "second" | "seconds");
    is_seconds.then(|| number.parse().ok().map(Duration::from_secs)).flatten()
}

#[derive(Debug)]
struct Http {
    agents: Agents,
    /// Whether credentials may go over an unencrypted connection.
    allows_http: bool,
}

#[async_trait::async_trait]
impl HttpService for Http {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        if !self.allows_http && parts.uri.scheme_str() != Some("https") {
            return Err(failed(ureq::Error::RequireHttpsOnly(masked(&parts.uri.to_string()))));
        }
        let bytes = all(body)?;
        let has_body = !bytes.is_empty() || matches!(parts.method, Method::PUT | Method::POST | Method::PATCH);
        let is_get = parts.method == Method::GET;
        let response = if has_body {
            self.agents.run(Request::from_parts(parts, bytes.as_slice()))
        } else {
            self.agents.run(Request::from_parts(parts, ()))
        };
        let (parts, body) = response.map_err(failed)?.into_parts();
        // Any answer other than a requested file is read into memory as a whole.
        let limit = if is_get && parts.status.is_success() { u64::MAX } else { WORDS };
        let body = Chunks(Mutex::new(Box::new(self.agents.body(body).take(limit))));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

/// Collects the body of a request, which is already in memory.
fn all(mut body: HttpRequestBody) -> Result<Vec<u8>, HttpError> {
    let mut bytes = Vec::with_capacity(body.content_length());
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut context) {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
        // A body in memory keeps returning nothing.
        if body.is_end_stream() {
            break;
        }
    }
    Ok(bytes)
}

/// Body of a response, read on demand.
struct Chunks(Mutex<Box<dyn Read + Send>>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let reader = self.0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut buffer = vec![0; BUFFER];
        loop {
            return Poll::Ready(match reader.read(&mut buffer) {
                Ok(0) => None,
                Ok(count) => {
                    buffer.truncate(count);
                    Some(Ok(Frame::data(buffer.into())))
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    Some(Err(HttpError::new(HttpErrorKind::Timeout, error)))
                }
                Err(error) => Some(Err(HttpError::new(HttpErrorKind::Interrupted, error))),
            });
        }
    }
}

/// Maps a failure to the store's error kind, which decides whether it tries again.
fn failed(error: ureq::Error) -> HttpError {
    let kind = match &error {
        // Another attempt would meet the same certificate.
        error if refusal(error).is_some() => HttpErrorKind::Unknown,
        error if slowness(error).is_some() => HttpErrorKind::Timeout,
        ureq::Error::Timeout(_) => HttpErrorKind::Timeout,
        ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => HttpErrorKind::Connect,
        ureq::Error::Io(source) if source.kind() == ErrorKind::ConnectionRefused => HttpErrorKind::Connect,
        ureq::Error::Io(_) | ureq::Error::Protocol(_) => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}

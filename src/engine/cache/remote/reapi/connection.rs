//! The connection to a server of gRPC: its runtime, its limits of time, and what of its failures is worth another try.
//!
//! Knows no cache.

use std::fmt;
use std::future::Future;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use futures_util::Stream;
use prost::Message;
use tokio::runtime::{Builder, Handle};
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;
use ureq::http::uri::PathAndQuery;
use url::Url;

use super::super::error::RemoteError;
use crate::address::{Address, masked};
use crate::fetch::{Patience, distrust, reason};
use crate::plain::plain_line;

/// Variable with a header for every request, `NAME=VALUE`, as Bazel's `--remote_header`.
const HEADER: &str = "ATFLOW_REMOTE_HEADER";

/// Maximum length of a server's words, in bytes.
const WORDS: usize = 300;

/// Least speed that a short message is sent with, in bytes a second; beyond the time in which the server may be silent.
const LEAST_UPLOAD: u64 = 10_000;

/// Name and value of a header.
type Header = (MetadataKey<Ascii>, MetadataValue<Ascii>);

/// Failure of a call.
#[derive(Debug, Clone)]
pub(super) struct CallError {
    pub(super) code: Code,
    pub(super) words: String,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.words.is_empty() { "" } else { ": " };
        write!(f, "{:?}{separator}{}", self.code, self.words)
    }
}

impl CallError {
    pub(super) fn new(code: Code, words: impl Into<String>) -> Self {
        CallError { code, words: words.into() }
    }

    /// Returns the failure as that of the remote cache of this name.
    pub(super) fn of(self, name: &Address) -> RemoteError {
        let name = name.clone();
        match self.code {
            Code::PermissionDenied | Code::Unauthenticated => RemoteError::Denied { name, code: self.to_string() },
            _ => RemoteError::Store { name, message: self.to_string() },
        }
    }

    /// Whether another try may go well.
    fn is_passing(&self) -> bool {
        use Code::{Aborted, DeadlineExceeded, Internal, ResourceExhausted, Unavailable, Unknown};
        matches!(self.code, Aborted | DeadlineExceeded | Internal | ResourceExhausted | Unavailable | Unknown)
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let mut words = status.message().to_owned();
        // What a connection failed of is at the end of the chain.
        let mut source = std::error::Error::source(&status);
        while let Some(error) = source {
            if let Some(encryption) = encryption(error) {
                // Another try would meet the same certificate.
                return CallError::new(Code::FailedPrecondition, distrust(&reason(encryption)));
            }
            words = error.to_string();
            source = error.source();
        }
        CallError { code: status.code(), words: plain_line(&masked(&words), WORDS) }
    }
}

/// Returns the failure of encryption that an error is or wraps. The source of an `io::Error` is that of what it wraps.
fn encryption<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let wrapped = || error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref();
    error.downcast_ref().or_else(wrapped)
}

/// A connection to a server.
#[derive(Debug)]
pub(super) struct Connection {
    channel: Channel,
    runtime: Handle,
    header: Option<Header>,
    patience: Patience,
    /// Calls so far.
    calls: AtomicU64,
}

impl Connection {
    /// Prepares the connection to the server of `http://…` or `https://…`. Sends nothing yet.
    pub(super) fn new(url: &Url, patience: &Patience) -> Result<Self, CallError> {
        let wrong = |error: &dyn fmt::Display| CallError::new(Code::InvalidArgument, error.to_string());
        let mut bare = url.clone();
        let header = header(&mut bare)?;
        bare.set_path("");
        let mut endpoint = Endpoint::from_shared(bare.to_string())
            .map_err(|error| wrong(&error))?
            .connect_timeout(patience.connect)
            .user_agent(concat!("atflow/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| wrong(&error))?;
        if bare.scheme() == "https" {
            let tls = ClientTlsConfig::new().with_native_roots();
            endpoint = endpoint.tls_config(tls).map_err(|error| wrong(&error))?;
        }
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| wrong(&error))?;
        let handle = runtime.handle().clone();
        let channel = {
            let _context = handle.enter();
            endpoint.connect_lazy()
        };
        // The thread drives connections while other threads wait for their answers; it ends with the process.
        let driver = thread::Builder::new().name("grpc".to_owned());
        driver.spawn(move || runtime.block_on(std::future::pending::<()>())).map_err(|error| wrong(&error))?;
        Ok(Connection { channel, runtime: handle, header, patience: patience.clone(), calls: AtomicU64::new(0) })
    }

    /// Asks one question, again if the failure may pass. The answer may have `at_most` bytes.
    pub(super) fn unary<Q, A>(&self, path: &'static str, question: &Q, at_most: u64) -> Result<A, CallError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let limit = self.patience.stall + Duration::from_secs(question.encoded_len() as u64 / LEAST_UPLOAD);
        self.again(|| {
            self.wait(limit, async {
                let mut grpc = self.client(at_most).await?;
                let codec = ProstCodec::<Q, A>::default();
                let request = self.request(question.clone());
                Ok(grpc.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
            })
        })
    }

    /// Sends a stream of messages, and returns the answer. `moved` counts what was taken of the stream: a server that
    /// takes nothing for too long is given up.
    pub(super) fn upload<Q, A>(
        &self,
        path: &'static str,
        stream: impl Stream<Item = Q> + Send + 'static,
        moved: &Arc<AtomicU64>,
    ) -> Result<A, CallError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.runtime.block_on(async {
            let call = async {
                let mut grpc = self.client(ANSWER).await?;
                let codec = ProstCodec::<Q, A>::default();
                let request = self.request(stream);
                let answer = grpc.client_streaming(request, PathAndQuery::from_static(path), codec).await?;
                Ok(answer.into_inner())
            };
            let mut call = std::pin::pin!(call);
            loop {
                let before = moved.load(Ordering::Relaxed);
                match tokio::time::timeout(self.patience.stall, &mut call).await {
                    Ok(answer) => return answer,
                    Err(_) if moved.load(Ordering::Relaxed) > before => {}
                    Err(_) => return Err(self.silent()),
                }
            }
        })
    }

    /// Asks for a stream of messages.
    pub(super) fn download<Q, A>(
        &self,
        path: &'static str,
        question: &Q,
        at_most: u64,
    ) -> Result<Streaming<A>, CallError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.wait(self.patience.stall, async {
            let mut grpc = self.client(at_most).await?;
            let codec = ProstCodec::<Q, A>::default();
            let request = self.request(question.clone());
            Ok(grpc.server_streaming(request, PathAndQuery::from_static(path), codec).await?.into_inner())
        })
    }

    /// Returns the next message of a stream; `None` at its end.
    pub(super) fn next<A>(&self, stream: &mut Streaming<A>) -> Result<Option<A>, CallError> {
        self.wait(self.patience.stall, async { Ok(stream.message().await?) })
    }

    /// Asks until there is an answer, or as often as it may be asked.
    pub(super) fn again<T>(&self, question: impl Fn() -> Result<T, CallError>) -> Result<T, CallError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match question() {
                Err(error) if error.is_passing() && tries < self.patience.tries => {
                    thread::sleep(self.patience.pause * 2_u32.saturating_pow(tries - 1).min(64));
                }
                Err(error) if error.is_passing() => {
                    let words = format!("{} (asked {tries} times)", error.words);
                    return Err(CallError { words, ..error });
                }
                answer => return answer,
            }
        }
    }

    /// Returns how often a silent or broken server is asked.
    pub(super) fn tries(&self) -> u32 {
        self.patience.tries
    }

    /// Returns the reader of what comes, given up if it is too slow.
    pub(super) fn paced<R: Read>(&self, reader: R) -> impl Read {
        crate::fetch::paced(reader, &self.patience)
    }

    async fn client(&self, at_most: u64) -> Result<Grpc<Channel>, CallError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let limit = usize::try_from(at_most).unwrap_or(usize::MAX);
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(limit);
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        Ok(grpc)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some((name, value)) = &self.header {
            request.metadata_mut().insert(name.clone(), value.clone());
        }
        request
    }

    fn wait<T>(&self, limit: Duration, call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        let limited = async { tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(self.silent())) };
        self.runtime.block_on(limited)
    }

    fn silent(&self) -> CallError {
        let seconds = self.patience.stall.as_secs_f64();
        CallError::new(Code::DeadlineExceeded, format!("no whole answer; it may be silent for {seconds} s"))
    }
}

/// Maximum length of a short answer, in bytes.
pub(super) const ANSWER: u64 = 4 << 20;

/// Takes the credentials out of an address, or out of the environment, as the header to send.
fn header(url: &mut Url) -> Result<Option<Header>, CallError> {
    let wrong = || CallError::new(Code::InvalidArgument, format!("{HEADER} is not NAME=VALUE"));
    let named = std::env::var(HEADER).ok().filter(|text| !text.is_empty());
    let (name, value) = match (crate::fetch::take_credentials(url), named) {
        (Some(basic), _) => ("authorization".to_owned(), basic),
        (None, Some(text)) => {
            let (name, value) = text.split_once('=').ok_or_else(wrong)?;
            (name.trim().to_ascii_lowercase(), value.trim().to_owned())
        }
        (None, None) => return Ok(None),
    };
    let mut value: MetadataValue<Ascii> = value.parse().map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok(Some((name.parse().map_err(|_| wrong())?, value)))
}

/// Returns an id in the form of a UUID, for the name of an upload. It only has to differ from others of this server.
pub(super) fn upload_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let (count, now) = (COUNT.fetch_add(1, Ordering::Relaxed), jiff::Timestamp::now().as_nanosecond());
    let text = format!("{} {} {now} {count}", crate::host::machine(), std::process::id());
    let hash = crate::digest::Digest::of(text.as_bytes()).to_string();
    format!("{}-{}-4{}-8{}-{}", &hash[..8], &hash[8..12], &hash[12..15], &hash[15..18], &hash[18..30])
}

/// A stream of messages as a reader of their bytes.
pub(super) struct StreamReader<F> {
    next: F,
    piece: bytes::Bytes,
}

impl<F: FnMut() -> io::Result<Option<bytes::Bytes>>> StreamReader<F> {
    pub(super) fn new(next: F) -> Self {
        StreamReader { next, piece: bytes::Bytes::new() }
    }
}

impl<F: FnMut() -> io::Result<Option<bytes::Bytes>>> Read for StreamReader<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match (self.next)()? {
                None => return Ok(0),
                Some(piece) => self.piece = piece,
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_uploads_have_the_form_of_a_uuid_and_differ() {
        let (one, other) = (upload_id(), upload_id());
        assert_ne!(one, other);
        let lengths: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{one}");
    }

    #[test]
    fn credentials_of_an_address_become_a_header() {
        let mut url = Url::parse("http://lab:p%20w@host:8980/main").unwrap();
        let (name, value) = header(&mut url).unwrap().unwrap();
        // `printf 'lab:p w' | base64`
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("authorization", "Basic bGFiOnAgdw=="));
        assert_eq!(url.as_str(), "http://host:8980/main");
        assert!(format!("{value:?}").contains("Sensitive"));
    }
}

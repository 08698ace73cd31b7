//! Files on their way to a server that takes them (`PUT`). Knows nothing of what is sent.

use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use ureq::SendBody;
use ureq::http::{Request, header};
use url::Url;

use super::server::{Agents, Failed, again, take_credentials};
use super::{FetchError, Patience};
use crate::address::Address;
use crate::fsio;
use crate::plain::plain_line;

/// Maximum length of a server's words about a refusal, in bytes.
const WORDS: usize = 300;

/// Sends a few bytes to an address.
///
/// # Errors
/// [`FetchError`]; [`FetchError::Refused`] if the server does not take them.
pub(crate) fn put_bytes(url: &Address, bytes: &[u8], patience: &Patience) -> Result<(), FetchError> {
    let agents = Agents::of(patience);
    again(url, patience, || put(&agents, url, SendBody::from_reader(&mut Cursor::new(bytes)), bytes.len() as u64))
}

/// Sends a file to an address.
///
/// # Errors
/// As [`put_bytes`]; [`FetchError::File`] if it cannot be read.
pub(crate) fn put_file(url: &Address, from: &Path, patience: &Patience) -> Result<(), FetchError> {
    let unreadable = |source| FetchError::File { path: from.to_owned(), source };
    let file = fsio::open_regular(from).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let agents = Agents::of(patience);
    again(url, patience, || {
        let mut file = &file;
        file.seek(SeekFrom::Start(0)).map_err(|error| Failed::Network(error.into()))?;
        put(&agents, url, SendBody::from_reader(&mut file.take(size)), size)
    })
}

/// Sends one body and follows nowhere: whoever takes files says so at its own address.
fn put(agents: &Agents, address: &Address, body: SendBody<'_>, size: u64) -> Result<(), Failed> {
    let mut url = Url::parse(address.secret()).map_err(|_| Failed::Address)?;
    let credentials = take_credentials(&mut url);
    // Servers of caches want to know the length first.
    let mut request = Request::put(url.as_str())
        .header(header::CONTENT_LENGTH, size)
        .header(header::CONTENT_TYPE, "application/octet-stream");
    if let Some(credentials) = &credentials {
        request = request.header(header::AUTHORIZATION, credentials);
    }
    let request = request.body(body).map_err(|_| Failed::Address)?;
    let response = agents.run(request).map_err(Failed::Network)?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    if status.is_redirection() {
        return Err(Failed::Redirect("elsewhere what it is sent"));
    }
    let mut words = Vec::new();
    // Without them, the status is all there is.
    _ = agents.body(response.into_body()).take(WORDS as u64).read_to_end(&mut words);
    let line = String::from_utf8_lossy(&words);
    Err(Failed::Refused(status, plain_line(line.lines().next().unwrap_or_default().trim(), WORDS)))
}

//! Addresses of things on a network. They may hold secrets: a password before the host, a signature or a token in the
//! query. Whatever is shown of an address, it is shown without them; only who asks a server sees them. A query counts
//! as secret, unless it only says which file is meant, or in which form, as in `?download=1`.

use std::fmt::{self, Write as _};
use std::ops::Range;

use url::Url;

/// An address, shown without its secrets. A folder or a bucket may stand in its place.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address(String);

/// What stands in the place of a secret.
const HIDDEN: &str = "***";

impl Address {
    /// An address as somebody wrote it.
    pub fn new(text: impl Into<String>) -> Self {
        Address(text.into())
    }

    /// All of it, to ask with; never to be shown or kept.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// The address of a file in the folder that this one names. A query stays, because it may be what opens the folder.
    #[must_use]
    pub fn join(&self, path: &str) -> Self {
        match Url::parse(&self.0) {
            Ok(mut url) if url.query().is_some() => {
                let folder = url.path().trim_end_matches('/').to_owned();
                url.set_path(&format!("{folder}/{path}"));
                Address(url.into())
            }
            _ => Address(format!("{}/{path}", self.0.trim_end_matches('/'))),
        }
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Address::new(text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut at = 0;
        if let Some(start) = self.0.find("://") {
            // All of the text is one address, spaces and quotes included.
            for secret in secrets(&self.0, start, self.0.len()) {
                f.write_str(&self.0[at..secret.start])?;
                f.write_str(HIDDEN)?;
                at = secret.end;
            }
        }
        f.write_str(&self.0[at..])
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// A text with the secrets of all addresses in it hidden: words of a library, a line of a file.
pub fn masked(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut at = 0;
    for secret in secrets_in(text) {
        _ = write!(shown, "{}{HIDDEN}", &text[at..secret.start]);
        at = secret.end;
    }
    shown.push_str(&text[at..]);
    shown
}

/// The same with every byte of a secret turned into a star, so that places in the text stay where they are.
pub fn masked_in_place(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut at = 0;
    for secret in secrets_in(text) {
        shown.push_str(&text[at..secret.start]);
        shown.extend(std::iter::repeat_n('*', secret.len()));
        at = secret.end;
    }
    shown.push_str(&text[at..]);
    shown
}

/// The secrets of all addresses in a text, in their order.
fn secrets_in(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = text[from..].find("://").map(|at| from + at) {
        let end = end(text, start);
        found.extend(secrets(text, start, end));
        from = end.max(start + 3);
    }
    found
}

/// Where the address ends whose `://` is at `start`: with the quotes that it stands in, though there is a space in it,
/// or before what no address has.
fn end(text: &str, start: usize) -> usize {
    let scheme = text[..start].trim_end_matches(|c: char| c.is_ascii_alphanumeric() || "+.-".contains(c));
    let line = start + text[start..].find('\n').unwrap_or(text.len() - start);
    if let Some(quote) = scheme.chars().next_back().filter(|c| "\"'`".contains(*c))
        && let Some(length) = text[start..line].find(quote)
    {
        return start + length;
    }
    let ends = |c: char| c.is_whitespace() || "\"'`<>{}\\|".contains(c);
    text[start..].find(ends).map_or(text.len(), |length| start + length)
}

/// The secrets of the address whose `://` is at `start` and that ends at `end`: who asks, and what is asked beside the
/// path.
fn secrets(text: &str, start: usize, end: usize) -> Vec<Range<usize>> {
    let begin = start + 3;
    let address = &text[begin.min(end)..end];
    let query = address.find(['?', '#']).unwrap_or(address.len());
    let authority = address.find('/').unwrap_or(address.len()).min(query);
    let host = match address[..authority].rfind('@') {
        Some(at) => Some(at),
        // A password with a slash or a question mark in it, which should have been written otherwise: no port looks
        // like that.
        None if !has_port(&address[..authority]) => Some(address.rfind('@').unwrap_or(authority)),
        None => None,
    };
    let mut found = Vec::new();
    if let Some(host) = host.filter(|host| *host > 0) {
        found.push(begin..begin + host);
    }
    let after = host.unwrap_or(0);
    let query = address[after..].find(['?', '#']).map(|at| after + at + 1).filter(|at| *at < address.len());
    if let Some(query) = query.filter(|at| !is_harmless(&address[*at..])) {
        found.push(begin + query..end);
    }
    found
}

/// Names in queries that say which file is meant, or in which form.
const HARMLESS: [&str; 12] =
    ["dl", "download", "export", "file", "filename", "format", "id", "path", "raw", "ref", "v", "version"];

/// A longer value may be drawn at random, and then whoever knows it may read the file.
const LONGEST_WORD: usize = 24;

/// Whether a query has nothing but names of which none is for a secret, with words or numbers.
fn is_harmless(query: &str) -> bool {
    let is_word = |value: &str| {
        value.len() <= LONGEST_WORD && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte))
    };
    query.split('&').all(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        HARMLESS.contains(&name) && is_word(value)
    })
}

/// Whether what follows the last colon of a host, if there is one, can be a port.
fn has_port(authority: &str) -> bool {
    let host = authority.rfind(']').map_or(authority, |at| &authority[at..]);
    host.rsplit_once(':').is_none_or(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_of_an_address_is_shown() {
        for (address, shown) in [
            ("https://host/a/b.gz", "https://host/a/b.gz"),
            ("http://127.0.0.1:8080/a@b", "http://127.0.0.1:8080/a@b"),
            ("http://[::1]:8080/a", "http://[::1]:8080/a"),
            ("http://user:pass@host:1/a", "http://***@host:1/a"),
            ("http://ghp_token@host/a", "http://***@host/a"),
            ("http://user:p@ss@host/a@b", "http://***@host/a@b"),
            ("http://user:p%20w@host", "http://***@host"),
            ("http://user:p/ss@host/a", "http://***@host/a"),
            ("http://user:p?ss@host/a?b", "http://***@host/a?***"),
            ("http://user:p w@host/a", "http://***@host/a"),
            ("https://host/a?X-Amz-Signature=1&b=2", "https://host/a?***"),
            ("https://user:pw@host/a?sig=1", "https://***@host/a?***"),
            ("https://host?token=1", "https://host?***"),
            ("https://host/a#token=1", "https://host/a#***"),
            ("https://host/a.zip?download=1", "https://host/a.zip?download=1"),
            ("https://host/get?id=31&format=tar.gz&raw", "https://host/get?id=31&format=tar.gz&raw"),
            ("https://host/get?id=31&sig=1", "https://host/get?***"),
            ("https://host/get?id=1aBcDeFgHiJkLmNoPqRsTuVwXyZ012345", "https://host/get?***"),
            ("https://host/a?download=1#key", "https://host/a?***"),
            ("https://u:p@host/a?download=1", "https://***@host/a?download=1"),
            ("s3://bucket/folder", "s3://bucket/folder"),
            ("/a/folder?x", "/a/folder?x"),
        ] {
            assert_eq!(Address::new(address).to_string(), shown);
            assert_eq!(format!("{:?}", Address::new(address)), format!("Address({shown})"));
        }
    }

    #[test]
    fn addresses_in_a_text_are_found() {
        let text = "url: 'https://u:p@host/a?sig=é', then http://host/b (see \"http://t@h/?k=v\")";
        assert_eq!(masked(text), "url: 'https://***@host/a?***', then http://host/b (see \"http://***@h/?***\")");
        let stars = masked_in_place(text);
        assert_eq!(stars.len(), text.len());
        assert!(stars.starts_with("url: 'https://***@host/a?******', then"), "{stars}");
        assert_eq!(masked("\"http://u:p w@host/a b?c d\" e"), "\"http://***@host/a b?***\" e");
        assert_eq!(masked("no address: // here://"), "no address: // here://");
    }

    #[test]
    fn files_of_a_folder_keep_what_opens_it() {
        let join = |base: &str| Address::new(base).join("objects/ab/cd").secret().to_owned();
        assert_eq!(join("https://host/cache/"), "https://host/cache/objects/ab/cd");
        assert_eq!(join("https://u:p%20w@host/cache"), "https://u:p%20w@host/cache/objects/ab/cd");
        assert_eq!(join("https://host/cache?sv=1&sig=a%2Fb"), "https://host/cache/objects/ab/cd?sv=1&sig=a%2Fb");
        assert_eq!(join("https://host?sig=a"), "https://host/objects/ab/cd?sig=a");
    }
}

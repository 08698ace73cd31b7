//! Lines out of a stream of bytes that another program writes. A line without an end is broken, so none grows without
//! bound. Knows nothing of what the lines say.

use std::io::Read;

/// So much is read at once.
const CHUNK: usize = 64 << 10;

/// Cuts a stream into lines as it comes.
#[derive(Debug)]
pub(crate) struct Lines {
    longest: usize,
    /// What came of a line whose end did not.
    pending: Vec<u8>,
}

impl Lines {
    /// Lines of at most so many bytes; longer ones are broken.
    pub(crate) fn new(longest: usize) -> Self {
        Lines { longest, pending: Vec::new() }
    }

    /// Takes the next bytes, and gives each line that they end, without its end.
    pub(crate) fn take(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(&str)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.append(&bytes[..end], each);
            self.give(self.pending.len(), each);
            bytes = &bytes[end + 1..];
        }
        self.append(bytes, each);
    }

    /// Gives what is left of a line that nothing ended.
    pub(crate) fn finish(&mut self, each: &mut dyn FnMut(&str)) {
        if !self.pending.is_empty() {
            self.give(self.pending.len(), each);
        }
    }

    fn append(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(&str)) {
        while self.pending.len() + bytes.len() > self.longest {
            let (now, later) = bytes.split_at(self.longest - self.pending.len());
            self.pending.extend_from_slice(now);
            bytes = later;
            self.give(whole_letters(&self.pending), each);
        }
        self.pending.extend_from_slice(bytes);
    }

    fn give(&mut self, length: usize, each: &mut dyn FnMut(&str)) {
        each(String::from_utf8_lossy(&self.pending[..length]).trim_end_matches('\r'));
        self.pending.drain(..length);
    }
}

/// How many of these bytes there are before a letter whose last bytes are missing.
fn whole_letters(bytes: &[u8]) -> usize {
    let is_start = |byte: &u8| byte & 0b1100_0000 != 0b1000_0000;
    match bytes.iter().rev().take(4).position(is_start) {
        // What is no UTF-8 anyway may be broken anywhere.
        Some(back) if back + 1 < bytes.len() && std::str::from_utf8(&bytes[bytes.len() - back - 1..]).is_err() => {
            bytes.len() - back - 1
        }
        _ => bytes.len(),
    }
}

/// Reads lines of at most `longest` bytes to the end of a stream, or until `each` does not want more.
pub fn read_lines(mut from: impl Read, longest: usize, mut each: impl FnMut(&str) -> bool) {
    let (mut lines, mut buffer, mut is_wanted) = (Lines::new(longest), vec![0; CHUNK], true);
    let mut give = |line: &str| is_wanted = is_wanted && each(line);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => lines.take(&buffer[..count], &mut give),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    lines.finish(&mut give);
}

/// Reads text in pieces of whole letters to the end of a stream, or until `each` does not want more.
pub fn read_text(mut from: impl Read, mut each: impl FnMut(&str) -> bool) {
    let (mut pending, mut buffer) = (Vec::new(), vec![0; CHUNK]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => pending.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        }
        let length = whole_letters(&pending);
        if !each(&String::from_utf8_lossy(&pending[..length])) {
            return;
        }
        pending.drain(..length);
    }
    if !pending.is_empty() {
        each(&String::from_utf8_lossy(&pending));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(longest: usize, pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut out) = (Lines::new(longest), Vec::new());
        let mut each = |line: &str| out.push(line.to_owned());
        pieces.iter().for_each(|piece| lines.take(piece, &mut each));
        lines.finish(&mut each);
        out
    }

    #[test]
    fn lines_are_cut_at_their_ends_and_long_ones_between_letters() {
        assert_eq!(cut(9, &[b"one\ntw", b"o\r\n\nlast"]), ["one", "two", "", "last"]);
        assert_eq!(cut(4, &[b"123456789\nx"]), ["1234", "5678", "9", "x"]);
        assert_eq!(cut(4, &["äöü€\n".as_bytes()]), ["äö", "ü", "€"]);
        assert_eq!(cut(4, &[b"\xff\xff\xff\xff\xff\xff"]), ["\u{fffd}\u{fffd}\u{fffd}", "\u{fffd}\u{fffd}\u{fffd}"]);
        assert_eq!(cut(4, &[b"1234\n5"]), ["1234", "5"], "a line of just that length is whole");
    }
}

//! Rejects texts that are nested too deeply for the parser.
//!
//! The parser's time grows with the square of the depth of `[` and `{`, and it checks the depth last. This check runs
//! before it.

use saphyr_parser::{Event, Parser};

/// Maximum depth that the parser accepts.
pub(super) const MAX_DEPTH: usize = 128;

/// With fewer open brackets, even with added indentation, the parser's time is negligible.
const SUSPICIOUS: usize = 64;

/// Returns the byte offset where a text exceeds [`MAX_DEPTH`].
pub(super) fn too_deep(text: &str) -> Option<usize> {
    may_exceed(text, SUSPICIOUS)?;
    let mut parser = Parser::new_from_str(text);
    let mut depth = 0_usize;
    loop {
        match parser.next_event() {
            Some(Ok((Event::MappingStart(..) | Event::SequenceStart(..), span))) => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return text.char_indices().nth(span.start.index()).map(|(at, _)| at);
                }
            }
            Some(Ok((Event::MappingEnd | Event::SequenceEnd, _))) => depth = depth.saturating_sub(1),
            Some(Ok((Event::StreamEnd, _))) | None => return None,
            Some(Ok(_)) => {}
            // Invalid YAML: the other parser reports why, unless that takes too long.
            Some(Err(_)) => return may_exceed(text, MAX_DEPTH),
        }
    }
}

/// Returns the byte offset where more than `limit` of `[` and `{` may be open.
///
/// Costs a tenth of a parser's work and never underestimates. Brackets within quotes or a comment may count as opening,
/// but never as closing outer ones. Only a parser can tell quoted text for certain, so each possible reading has its
/// own depth: the largest it could have.
fn may_exceed(text: &str, limit: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() <= limit {
        return None;
    }
    let (mut plain, mut comment) = (0_usize, 0_usize);
    // Depths within single and double quotes.
    let mut quoted: [Option<usize>; 2] = [None, None];
    let mut before = b'\n';
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'[' | b'{' => plain += 1,
            b']' | b'}' => plain = plain.saturating_sub(1),
            b'#' => comment = comment.max(plain),
            b'\n' | b'\r' => plain = plain.max(std::mem::take(&mut comment)),
            // The last bytes of Unicode line breaks.
            0x85 | 0xa8 | 0xa9 => plain = plain.max(comment),
            b'\'' | b'"' => {
                let state = &mut quoted[usize::from(byte == b'"')];
                // After `''` and `\"` the quoted text continues.
                let ended = if before == b'\\' { *state } else { state.take() };
                if before == byte || b" \t\r\n[{,:?-".contains(&before) {
                    *state = (*state).max(Some(plain));
                }
                plain = plain.max(ended.unwrap_or_default());
            }
            _ => {}
        }
        before = byte;
        if plain > limit {
            return Some(text.floor_char_boundary(at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_as_deep_as_they_are() {
        let flow = |depth: usize| format!("a: {}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(too_deep(&flow(MAX_DEPTH - 1)), None);
        assert_eq!(too_deep(&flow(MAX_DEPTH)), Some(3 + MAX_DEPTH - 1));
        assert_eq!(too_deep(&"x: {a: [1, 2], b: 'it''s {'}\n".repeat(300)), None);
        assert_eq!(too_deep(&format!("x: \"{}\"", "[".repeat(500))), None, "a text");
        assert_eq!(too_deep(&"{a: ".repeat(9_000)), Some(4 * MAX_DEPTH), "never closed");
    }

    #[test]
    fn brackets_that_close_nothing_hide_no_depth() {
        for hidden in [
            "']', ",
            "\"]\", ",
            "# ]\n",
            "'''] ', ",
            "\"\\\"]\", ",
            "it's, ']', ",
            "- ']', ",
            "'\n]\n', ",
            "&a ']', ",
            " # ]\u{2028}",
        ] {
            let text = format!("a: {}", format!("[{hidden}").repeat(400));
            assert!(may_exceed(&text, SUSPICIOUS).is_some(), "{hidden:?}");
        }
    }

    #[test]
    fn the_pipelines_that_ship_are_plain() {
        for name in ["paper", "beyond", "fashion", "quickstart"] {
            let path = format!("{}/pipelines/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
            assert_eq!(may_exceed(&std::fs::read_to_string(path).unwrap(), SUSPICIOUS), None, "{name}");
        }
    }
}

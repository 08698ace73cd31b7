//! Texts that are nested more deeply than any person writes. The parser's time grows with the square of the depth of
//! `[` and `{`, and it looks at the depth last, so such a text is found before it gets it.

use saphyr_parser::{Event, Parser};

/// The parser takes no more.
pub(super) const MAX_DEPTH: usize = 128;

/// With fewer brackets open, and what indentation adds, a parser's time is nothing to speak of.
const SUSPICIOUS: usize = 64;

/// Where a text goes deeper than [`MAX_DEPTH`], in bytes.
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
            // This is no YAML, and the other parser will say why, unless that takes too long.
            Some(Err(_)) => return may_exceed(text, MAX_DEPTH),
        }
    }
}

/// Where more than `limit` of `[` and `{` may be open, in bytes. It is a tenth of the work of a parser, and errs on one
/// side: brackets within quotes or a comment may count as open, but never as closing what is open. What stands at a
/// place depends on the quotes before it, which only a parser can be sure of: each way of reading them has a depth of
/// its own, the largest that it could have.
fn may_exceed(text: &str, limit: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() <= limit {
        return None;
    }
    let (mut plain, mut comment) = (0_usize, 0_usize);
    // In single and in double quotes.
    let mut quoted: [Option<usize>; 2] = [None, None];
    let mut before = b'\n';
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'[' | b'{' => plain += 1,
            b']' | b'}' => plain = plain.saturating_sub(1),
            b'#' => comment = comment.max(plain),
            b'\n' | b'\r' => plain = plain.max(std::mem::take(&mut comment)),
            // The last bytes of the line breaks of Unicode.
            0x85 | 0xa8 | 0xa9 => plain = plain.max(comment),
            b'\'' | b'"' => {
                let state = &mut quoted[usize::from(byte == b'"')];
                // `''` and `\"` go on with the text.
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

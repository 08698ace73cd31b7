//! Text of others (programs, servers, manifests, names) as a person may see it: it shows, and does nothing else. Knows
//! no terminal.

use std::borrow::Cow;

/// Stands for a character that would not show but act.
const STANDS_FOR: char = '\u{fffd}';

/// Text without what acts on a terminal: escape sequences are left out, other control characters are replaced. Of a
/// line that was written over by `\r`, as progress bars do, the last state stays. Line ends and tabs stay.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let line = |line: &str| -> String {
        // A sequence may hold a line end or a `\r` of its own only where it is broken: each line is looked at by
        // itself.
        let stripped = console::strip_ansi_codes(line);
        let shown = |c: char| if acts(c) { STANDS_FOR } else { c };
        last_state(&stripped).chars().map(shown).collect()
    };
    Cow::Owned(text.split('\n').map(line).collect::<Vec<_>>().join("\n"))
}

/// One line of such text, at most so many bytes long.
pub fn plain_line(text: &str, longest: usize) -> String {
    let line = plain(text).replace('\n', " ");
    if line.len() <= longest {
        return line;
    }
    let cut = &line[..line.floor_char_boundary(longest)];
    format!("{cut}… ({} more bytes)", line.len() - cut.len())
}

/// The same text with what acts on a terminal replaced, byte for byte: places in it stay where they are.
pub fn plain_in_place(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| match c.len_utf8() {
        _ if c == '\r' || !acts(c) => c,
        1 => '?',
        2 => '¿',
        _ => STANDS_FOR,
    };
    Cow::Owned(text.chars().map(shown).collect())
}

/// What a terminal would show last of a line: what follows the last `\r` that something follows.
fn last_state(line: &str) -> &str {
    let states = line.rsplit('\r');
    states.into_iter().find(|state| !state.trim().is_empty()).unwrap_or_default()
}

/// Whether a character moves, colours or hides something and does not show: control characters, and those that turn the
/// direction of what follows.
fn acts(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        c => c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_left_out_or_replaced() {
        for (text, shown) in [
            ("plain\ttext\nof two lines\n", "plain\ttext\nof two lines\n"),
            ("\x1b[31mred\x1b[0m", "red"),
            ("\x1b[2J\x1b[Hclear", "clear"),
            ("10 %\r20 %\r100 %\r", "100 %"),
            ("10 %\r\x1b[K20 %\n\r\nnext\r\n", "20 %\n\nnext\n"),
            ("bell\x07 back\x08", "bell\u{fffd} back\u{fffd}"),
            ("\u{202e}drow", "\u{fffd}drow"),
            ("del\x7f", "del\u{fffd}"),
        ] {
            assert_eq!(plain(text), shown, "{text:?}");
        }
        // Whatever the text, nothing that acts is left.
        for text in
            ["\x1b]0;title\x07x", "\x1b]8;;http://x\x1b\\link", "\u{9b}31mx", "\x1b", "\x1bP q\x1b\\", "\x1b[\x1b[1m"]
        {
            assert!(!plain(text).chars().any(acts), "{text:?} gives {:?}", plain(text));
        }
    }

    #[test]
    fn a_line_is_cut_and_places_stay() {
        assert_eq!(plain_line("a\nb", 10), "a b");
        assert_eq!(plain_line("äöü", 3), "ä… (4 more bytes)");
        let text = "a\x1b\u{9b}\u{202e}b";
        assert_eq!(plain_in_place(text), "a?¿\u{fffd}b");
        assert_eq!(plain_in_place(text).len(), text.len());
    }
}

//! The part of a source file that an error shows. A line may be as long as a file of data: it is cut around the place
//! that is meant. What would act on a terminal is replaced.

use std::ops::Range;

use atflow::address::masked_in_place;
use atflow::plain::{plain, plain_in_place};
use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// Lines that are longer are cut, in bytes.
const LONGEST: usize = 240;

/// So much of a line that is cut stays before the place that is meant, in bytes.
const BEFORE: usize = 80;

/// Stands for what was cut away.
const CUT: &str = "…";

/// A source file with its long lines cut.
#[derive(Debug)]
pub(crate) struct Excerpt {
    name: String,
    text: String,
    /// How many bytes more there are before the place in its line in the file.
    column: usize,
}

impl Excerpt {
    /// What is shown of a file for a place in it, and the place in that.
    pub(crate) fn new(name: String, file: &str, place: Range<usize>) -> (Self, Range<usize>) {
        // An address with a password may stand in any of its lines.
        let file = &masked_in_place(file);
        let (mut text, mut column) = (String::new(), 0);
        let (mut start, mut end) = (None, None);
        let mut at = 0;
        for line in file.split_inclusive('\n') {
            let body = line.trim_end_matches(['\n', '\r']);
            let is_here = start.is_none() && place.start < at + line.len();
            let kept = if is_here { window(body, (place.start - at).min(body.len())) } else { window(body, 0) };
            // Where a byte of the line comes to stand.
            let base = text.len() + if kept.start > 0 { CUT.len() } else { 0 };
            let cut = kept.end < body.len();
            let moved = |byte: usize| match (byte - at).checked_sub(body.len()) {
                // At the line's end, or within it.
                Some(rest) => base + kept.len() + if cut { CUT.len() } else { 0 } + rest,
                None => base + (byte - at).clamp(kept.start, kept.end) - kept.start,
            };
            if is_here {
                start = Some(moved(place.start));
                column = kept.start.saturating_sub(CUT.len());
            }
            if end.is_none() && place.end <= at + line.len() {
                end = Some(moved(place.end));
            }
            text.push_str(if kept.start > 0 { CUT } else { "" });
            text.push_str(&plain_in_place(&body[kept.clone()]));
            text.push_str(if cut { CUT } else { "" });
            text.push_str(&line[body.len()..]);
            at += line.len();
        }
        let start = start.unwrap_or(text.len());
        let end = end.unwrap_or(text.len()).max(start);
        (Excerpt { name: plain(&name).into_owned(), text, column }, start..end)
    }
}

/// The part of a line that is kept so that a byte of it is seen.
fn window(line: &str, byte: usize) -> Range<usize> {
    if line.len() <= LONGEST {
        return 0..line.len();
    }
    let from = byte.saturating_sub(BEFORE);
    // What would be cut away is no longer than what says so.
    let from = if from <= CUT.len() { 0 } else { line.floor_char_boundary(from) };
    from..line.floor_char_boundary((from + LONGEST).min(line.len()))
}

impl SourceCode for Excerpt {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let found = self.text.read_span(span, lines_before, lines_after)?;
        // Without lines around it, it is asked where the place is in its file.
        let column = found.column() + if lines_before == 0 { self.column } else { 0 };
        let (name, data, span) = (self.name.clone(), found.data(), *found.span());
        Ok(Box::new(MietteSpanContents::new_named(name, data, span, found.line(), column, found.line_count())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_long_are_cut_around_the_place_and_short_ones_stay() {
        let short = "a: 1\nb: wrong\n";
        let (excerpt, place) = Excerpt::new("p".to_owned(), short, 8..13);
        assert_eq!((excerpt.text.as_str(), &short[place]), (short, "wrong"));

        let long = format!(
            "{}\r\nä: {}wrong{}\nlast: {}",
            "x".repeat(500),
            "é".repeat(1000),
            "y".repeat(1000),
            "z".repeat(300)
        );
        let at = long.find("wrong").unwrap();
        let (excerpt, place) = Excerpt::new("p".to_owned(), &long, at..at + 5);
        assert_eq!(&excerpt.text[place.clone()], "wrong");
        assert!(excerpt.text.len() < 3 * (LONGEST + 10) && excerpt.text.matches(CUT).count() == 4, "{}", excerpt.text);
        let span = SourceSpan::from((place.start, place.len()));
        let column = at - long.find('\n').unwrap() - 1;
        let found = excerpt.read_span(&span, 0, 0).unwrap();
        assert_eq!((found.line(), found.column()), (1, column), "the place in the file");
        assert_eq!(excerpt.read_span(&span, 1, 1).unwrap().column(), 0);

        let (excerpt, place) = Excerpt::new("p".to_owned(), &long, at..long.len());
        assert!(excerpt.text[place].starts_with("wrongyyy"), "a place that is long itself");
        let (_, place) = Excerpt::new("p".to_owned(), "", 0..0);
        assert_eq!(place, 0..0);
    }
}

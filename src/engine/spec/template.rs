//! Texts with `${…}`: splits them into tokens, and finds the references that changed a resulting text. Knows no
//! parameters.

/// A token of a text.
pub(super) enum Token<'t> {
    /// Literal text; `$${` gives `${`.
    Text(&'t str),
    /// A whole `${…}` and the name in it.
    Reference { whole: &'t str, name: &'t str },
    /// A `${` without its closing brace, and everything after it.
    Open(&'t str),
}

/// Splits off the next `length` bytes.
fn take<'t>(rest: &mut &'t str, length: usize) -> &'t str {
    let (token, further) = rest.split_at(length);
    *rest = further;
    token
}

/// Splits a text into tokens.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = Token<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.find("${").unwrap_or(rest.len());
        let is_plain = rest[..start].ends_with('$') && start < rest.len();
        Some(match start - usize::from(is_plain) {
            0 if rest.is_empty() => return None,
            0 if is_plain => Token::Text(&take(&mut rest, 3)[1..]),
            0 => match rest.find('}') {
                Some(end) => {
                    let whole = take(&mut rest, end + 1);
                    Token::Reference { whole, name: whole[2..end].trim() }
                }
                None => Token::Open(std::mem::take(&mut rest)),
            },
            length => Token::Text(take(&mut rest, length)),
        })
    })
}

/// A reference in a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'t> {
    /// The text between the braces.
    pub name: &'t str,
    /// Its old and new values, if they can be determined.
    pub texts: Option<(String, String)>,
}

/// A piece of a template.
enum Piece<'t> {
    Text(String),
    Reference(&'t str),
}

/// Returns the references of a template that changed the resulting text, or all of them if that cannot be determined.
///
/// `is_value` selects the references that are replaced; others remain in the text as they are. `texts` holds the old
/// and the new result.
pub(super) fn changed<'t>(
    template: &'t str,
    is_value: impl Fn(&str) -> bool,
    texts: Option<(String, String)>,
) -> Vec<Part<'t>> {
    let pieces = pieces(template, is_value);
    let names = pieces.iter().filter_map(|piece| match piece {
        Piece::Reference(name) => Some(*name),
        Piece::Text(_) => None,
    });
    let values = texts.and_then(|(old, new)| {
        let values = values(&pieces, &old)?.into_iter().zip(values(&pieces, &new)?);
        Some(values.map(|(old, new)| (old.to_owned(), new.to_owned())).collect::<Vec<_>>())
    });
    let all = || names.clone().map(|name| Part { name, texts: None }).collect();
    let Some(values) = values else { return all() };
    let differing = names.clone().zip(values).filter(|(_, (old, new))| old != new);
    let parts: Vec<Part> = differing.map(|(name, texts)| Part { name, texts: Some(texts) }).collect();
    if parts.is_empty() { all() } else { parts }
}

fn pieces(template: &str, is_value: impl Fn(&str) -> bool) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    for token in tokens(template) {
        match token {
            Token::Reference { name, .. } if is_value(name) => {
                pieces.extend([Piece::Text(std::mem::take(&mut text)), Piece::Reference(name)]);
            }
            Token::Text(plain) | Token::Reference { whole: plain, .. } | Token::Open(plain) => text.push_str(plain),
        }
    }
    pieces.push(Piece::Text(text));
    pieces
}

/// Returns the value of each reference in a text made from the pieces.
///
/// Returns `None` if the text does not match the pieces or two references are adjacent.
fn values<'m>(pieces: &[Piece<'_>], made: &'m str) -> Option<Vec<&'m str>> {
    let mut values = Vec::new();
    let [Piece::Text(first), further @ ..] = pieces else { return None };
    let mut rest = made.strip_prefix(first.as_str())?;
    for (at, pair) in further.chunks_exact(2).enumerate() {
        let [Piece::Reference(_), Piece::Text(text)] = pair else { return None };
        let is_last = 2 * at + 2 == further.len();
        let end = match (is_last, text.as_str()) {
            (true, text) => rest.strip_suffix(text)?.len(),
            (false, "") => return None,
            (false, text) => rest.find(text)?,
        };
        values.push(&rest[..end]);
        rest = &rest[end + text.len()..];
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_references_that_changed_a_text_are_told_with_what_they_stood_for() {
        let parts = |template, old: &str, new: &str| -> Vec<String> {
            let texts = Some((old.to_owned(), new.to_owned()));
            let shown = |part: Part<'_>| match part.texts {
                Some((old, new)) => format!("{}: {old} -> {new}", part.name),
                None => part.name.to_owned(),
            };
            changed(template, |name| name != "out.n", texts).into_iter().map(shown).collect()
        };
        let template = "run $${x} ${a} ${ b } > ${out.n}";
        assert_eq!(parts(template, "run ${x} 1 2 > ${out.n}", "run ${x} 1 3 > ${out.n}"), ["b: 2 -> 3"]);
        assert_eq!(parts(template, "run ${x} 1 2 > ${out.n}", "run ${x} 2 3 > ${out.n}"), ["a: 1 -> 2", "b: 2 -> 3"]);
        assert_eq!(parts(template, "walk", "run ${x} 2 3 > ${out.n}"), ["a", "b"], "the text around them changed");
        assert_eq!(parts("${a}", "one", "two"), ["a: one -> two"]);
        assert_eq!(parts("${a}${b}", "12", "13"), ["a", "b"], "nobody knows where one ends");
        assert_eq!(parts("x ${a}", "x 1", "x 1"), ["a"]);
        assert!(parts("nothing", "1", "2").is_empty());
    }
}

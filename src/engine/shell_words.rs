//! Words of a command as a person types them in a shell.

use std::borrow::Cow;

/// Returns a word as a shell takes it, quoted if it has to be. A word that no shell takes stays as it is.
pub fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return Cow::Borrowed(word);
    }
    shlex::try_quote(word).unwrap_or(Cow::Borrowed(word))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_shell_reads_the_word_again() {
        for word in ["eps=8/255", "a b", "it's", "", "$HOME", "tested/*/8", "naïve"] {
            assert_eq!(shlex::split(&quoted(word)), Some(vec![word.to_owned()]), "{word}");
        }
        assert_eq!(quoted("eps=8/255"), "eps=8/255", "as it is typed");
        assert_eq!(quoted("a\0b"), "a\0b");
    }
}

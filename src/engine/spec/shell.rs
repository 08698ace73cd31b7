//! Inserts values into a shell command line.
//!
//! A value of plain characters is inserted as is. Any other value is quoted, or rejected if quoting is not safe. Knows
//! shell quoting, and no values.

/// Characters besides letters and digits without special meaning in a shell, including the space, which only separates
/// words.
const PLAIN: &str = "_@%+=:,./- ";

/// Quoting state at a position in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Outside of quotes.
    Words,
    /// Within `'…'`.
    Single,
    /// Within `"…"`.
    Double,
    /// Within `${…}`, `$(…)` or `` `…` ``, up to this character, unquoted or in `"…"`.
    Inner { end: char, in_quotes: bool },
    /// In a comment, up to the end of its line.
    Comment,
    /// In syntax that is not tracked: a here-document, or quotes within `$(…)`.
    Other,
}

impl Within {
    /// Returns the state after a character, given the character before it.
    fn after(self, before: Option<char>, c: char) -> Self {
        let in_quotes = self == Within::Double;
        let inner = |end| Within::Inner { end, in_quotes };
        match (self, c) {
            (Within::Words, '\'' | '"') if before == Some('$') => Within::Other,
            (Within::Words, '\'') => Within::Single,
            (Within::Words, '"') => Within::Double,
            (Within::Words | Within::Double, '`') => inner('`'),
            (Within::Words | Within::Double, '(') if before == Some('$') => inner(')'),
            (Within::Words | Within::Double, '{') if before == Some('$') => inner('}'),
            (Within::Words, '<') if before == Some('<') => Within::Other,
            (Within::Words, '#') if before.is_none_or(|c| c.is_whitespace() || ";&|()".contains(c)) => Within::Comment,
            (Within::Single, '\'') | (Within::Double, '"') | (Within::Comment, '\n') => Within::Words,
            (Within::Inner { end, in_quotes: true }, c) if c == end => Within::Double,
            (Within::Inner { end, in_quotes: false }, c) if c == end => Within::Words,
            // Nested expansions and quotes have rules of their own.
            (Within::Inner { .. }, c) if r#"'"`$\(){}<#"#.contains(c) => Within::Other,
            (within, _) => within,
        }
    }
}

/// A shell line, built from left to right.
#[derive(Debug)]
pub(super) struct Line {
    text: String,
    within: Within,
    /// Whether the last character escapes the next one.
    is_escaped: bool,
}

impl Line {
    /// Creates an empty line.
    pub(super) fn new() -> Self {
        Line { text: String::new(), within: Within::Words, is_escaped: false }
    }

    /// Adds text that the author wrote.
    pub(super) fn add(&mut self, text: &str) {
        for c in text.chars() {
            let before = self.text.chars().next_back();
            self.text.push(c);
            if std::mem::take(&mut self.is_escaped) {
                continue;
            }
            self.within = self.within.after(before, c);
            self.is_escaped = c == '\\' && matches!(self.within, Within::Words | Within::Double);
        }
    }

    /// Adds a value, quoted if necessary. Returns false and adds nothing if it cannot be added safely.
    #[must_use]
    pub(super) fn add_value(&mut self, value: &str) -> bool {
        // After `$` or `\` even plain characters change meaning; this behaviour is kept as it has always been.
        if is_plain(value) {
            self.text.push_str(value);
            self.is_escaped &= value.is_empty();
            return true;
        }
        let is_expanded = self.text.ends_with('$');
        match self.within {
            _ if self.is_escaped || is_expanded || value.contains('\0') => return false,
            Within::Words => match shlex::try_quote(value) {
                Ok(quoted) => self.text.push_str(&quoted),
                Err(_) => return false,
            },
            Within::Single => self.text.push_str(&value.replace('\'', r"'\''")),
            Within::Double => {
                for c in value.chars() {
                    if r#"\"$`"#.contains(c) {
                        self.text.push('\\');
                    }
                    self.text.push(c);
                }
            }
            Within::Inner { .. } | Within::Comment | Within::Other => return false,
        }
        true
    }

    /// Adds a name that is later replaced by plain characters.
    pub(super) fn add_name(&mut self, name: &str) {
        self.text.push_str(name);
        self.is_escaped = false;
    }

    /// Returns the line.
    pub(super) fn text(self) -> String {
        self.text
    }
}

fn is_plain(value: &str) -> bool {
    value.chars().all(|c| c.is_alphanumeric() || PLAIN.contains(c))
}

/// Returns whether an argument is a shell line: one that follows `-c` after a shell's name.
pub(super) fn is_line(program: Option<&str>, option: Option<&str>) -> bool {
    const SHELLS: [&str; 7] = ["sh", "bash", "dash", "zsh", "ksh", "ash", "busybox"];
    let name = program.map(|program| program.rsplit('/').next().unwrap_or_default());
    let is_option = |option: &str| option.starts_with('-') && !option.starts_with("--") && option.ends_with('c');
    name.is_some_and(|name| SHELLS.contains(&name)) && option.is_some_and(is_option)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Builds a line from a value between two texts.
    fn line(before: &str, value: &str, after: &str) -> Option<String> {
        let mut line = Line::new();
        line.add(before);
        line.add_value(value).then(|| {
            line.add(after);
            line.text()
        })
    }

    #[test]
    fn plain_values_go_in_as_they_are_wherever() {
        for value in ["8/255", "a b", "--flag=x", "ε", "", "1e-3", "model/pgd,2:3"] {
            for before in ["echo ", "echo \"", "echo '", "echo $(cat ", "echo \\", "cat <<E\n"] {
                assert_eq!(line(before, value, " x"), Some(format!("{before}{value} x")));
            }
        }
    }

    #[test]
    fn a_shell_takes_any_other_value_as_it_is() {
        for value in
            ["x; touch y", "$(id)", "`id`", "a'b", "a\"b", "*", "~", "a\nb", "$HOME", "\\", "a&b|c>d<e", "!x", "#x"]
        {
            for (before, after) in
                [("printf %s ", ""), ("printf %s \"", "\""), ("printf %s '", "'"), ("printf %s x", "")]
            {
                let made = line(before, value, after).unwrap();
                let output = Command::new("sh").args(["-c", &made]).output().unwrap();
                let expected = if before.ends_with('x') { format!("x{value}") } else { value.to_owned() };
                assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "{made}");
            }
        }
    }

    #[test]
    fn what_cannot_be_quoted_safely_is_refused() {
        for before in [
            "echo $(cat ",
            "echo \"$(cat ",
            "echo `cat ",
            "cat <<E\n",
            "echo # ",
            "echo ${x:-",
            "echo \\",
            "echo $'",
            "echo $",
        ] {
            assert_eq!(line(before, "x; touch y", ""), None, "{before}");
        }
        // Closed quotes and escaped characters open nothing.
        for before in [
            "echo 'a' ",
            "echo \"$x\" ",
            "echo \\\" ",
            "echo a#b ",
            "echo '`' \"it's\" ",
            "${HOME}/x `date` \"$(nproc)\" ",
            "# a\n",
        ] {
            assert!(line(before, "a;b", "").is_some_and(|line| line.ends_with("'a;b'")), "{before}");
        }
    }

    #[test]
    fn lines_for_a_shell_are_known_in_lists() {
        assert!(is_line(Some("sh"), Some("-c")) && is_line(Some("/bin/bash"), Some("-ec")));
        assert!(!is_line(Some("python3"), Some("-c")) && !is_line(Some("sh"), Some("--norc")) && !is_line(None, None));
    }
}

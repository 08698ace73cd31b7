//! What a `command` stage starts: a program with its arguments, or a shell with a line.
//!
//! A line that any shell would split into words and run as they are needs no shell, which takes as long to start as a
//! small program.

/// Words that are no programs to a shell: what it does itself, and words of its language (POSIX, dash and bash).
const OF_THE_SHELL: &str = " \
    . : [ alias bg bind break builtin caller case cd command compgen complete compopt continue coproc \
    declare dirs disown do done echo elif else enable esac eval exec exit export false fc fg fi for \
    function getopts hash help history if in jobs kill let local logout mapfile popd printf pushd pwd \
    read readarray readonly return select set shift shopt source suspend test then time times trap true \
    type typeset ulimit umask unalias unset until wait while \
";

/// Program to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// Name or path of the program, and its arguments.
    pub(super) words: Vec<String>,
    /// The line that a shell gets if the program cannot be started: then the shell says why.
    pub(super) line: Option<String>,
}

impl Program {
    /// Returns what runs a line as a shell does.
    pub(super) fn of_line(line: String) -> Self {
        match plain_words(&line) {
            Some(words) => Program { words, line: Some(line) },
            None => Program { words: shell(line), line: None },
        }
    }

    /// Returns a program that is given in words.
    pub(super) fn of_words(words: Vec<String>) -> Self {
        Program { words, line: None }
    }
}

/// Returns the words of a shell that runs a line.
pub(super) fn shell(line: String) -> Vec<String> {
    vec!["sh".to_owned(), "-c".to_owned(), line]
}

/// Returns the words of a line that means nothing else to a shell.
fn plain_words(line: &str) -> Option<Vec<String>> {
    let line = line.trim_matches([' ', '\t', '\n']);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./- \t".contains(c);
    let words: Vec<String> = line.split([' ', '\t']).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let program = words.first()?;
    let is_program = !program.contains('=') && !OF_THE_SHELL.contains(&format!(" {program} "));
    (line.chars().all(is_plain) && is_program).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_of_plain_words_does_without_a_shell() {
        let words = |line: &str| plain_words(line).map(|words| words.join("|"));
        assert_eq!(
            words("python3 ../files/a.py  --eps=8/255\t-n 3 o\n").as_deref(),
            Some("python3|../files/a.py|--eps=8/255|-n|3|o")
        );
        for line in [
            "echo a",
            "true",
            "[ -e a ]",
            "x=1 python3",
            "cat a > b",
            "cat a|b",
            "cat 'a b'",
            "cat $HOME",
            "cat *.csv",
            "ls ~",
            "a; b",
            "a &",
            "a\nb",
            "a # b",
            "if a",
            "cat {a,b}",
            "! a",
            "a\\ b",
            "",
            " \n",
            "a\r",
            "time a",
            "cat é",
        ] {
            assert_eq!(words(line), None, "{line}");
        }
    }
}

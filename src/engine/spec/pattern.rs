//! Instance names and patterns over them, on the command line and in a pipeline file.

use globset::{GlobBuilder, GlobMatcher};

/// A name or pattern of instances.
///
/// Omitted trailing labels match everything: `tested/pgd` matches all instances under `pgd`, and `tested` the whole
/// stage. `*` and `?` match characters of one label, `**` any number of labels, and `[ab]` and `{a,b}` one of several.
pub(crate) struct Pattern<'a> {
    text: &'a str,
    glob: Option<GlobMatcher>,
    /// The number of `/`-separated parts.
    parts: usize,
}

impl<'a> Pattern<'a> {
    /// Creates a pattern from a text. A text that is no pattern matches the name that it spells.
    pub(crate) fn new(text: &'a str) -> Self {
        let glob = || GlobBuilder::new(text).literal_separator(true).build().ok().map(|glob| glob.compile_matcher());
        let glob = is_pattern(text).then(glob).flatten();
        Pattern { text, glob, parts: text.split('/').count() }
    }

    /// Returns whether a name matches.
    pub(crate) fn fits(&self, name: &str) -> bool {
        let fits = |name: &str| name == self.text || self.glob.as_ref().is_some_and(|glob| glob.is_match(name));
        let end = name.match_indices('/').nth(self.parts - 1).map(|(at, _)| at);
        fits(name) || end.is_some_and(|end| fits(&name[..end]))
    }
}

/// Returns whether a text is a pattern, not a plain name.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_left_out_at_the_end_mean_all() {
        let names = ["one", "tested/pgd/1", "tested/pgd/2", "tested/fgsm/1", "told/pgd"];
        let fitting = |text: &str| {
            let pattern = Pattern::new(text);
            names.into_iter().filter(|name| pattern.fits(name)).collect::<Vec<_>>().join(" ")
        };
        for (text, expected) in [
            ("tested", "tested/pgd/1 tested/pgd/2 tested/fgsm/1"),
            ("tested/pgd", "tested/pgd/1 tested/pgd/2"),
            ("tested/*", "tested/pgd/1 tested/pgd/2 tested/fgsm/1"),
            ("tested/*/1", "tested/pgd/1 tested/fgsm/1"),
            ("tested/**", "tested/pgd/1 tested/pgd/2 tested/fgsm/1"),
            ("t*/pgd", "tested/pgd/1 tested/pgd/2 told/pgd"),
            ("tested/{pgd,fgsm}/1", "tested/pgd/1 tested/fgsm/1"),
            ("*", "one tested/pgd/1 tested/pgd/2 tested/fgsm/1 told/pgd"),
            ("test", ""),
            ("tested/pg", ""),
            ("tested/pgd/1/x", ""),
            ("tested/[", ""),
        ] {
            assert_eq!(fitting(text), expected, "{text}");
        }
    }
}

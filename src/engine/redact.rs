//! Texts that leave this machine, without what belongs to it: secrets of addresses, values of secret variables of the
//! environment, and the path of the home folder.

use std::fmt;

use crate::address::masked;

/// Endings of the names of variables whose values are secret.
const SECRET_NAMES: [&str; 6] = ["_TOKEN", "_SECRET", "_PASSWORD", "_PASSWD", "_KEY", "_CREDENTIALS"];

/// A shorter value is a word that may stand anywhere; in characters.
const SHORTEST_SECRET: usize = 8;

/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// What is left out of texts.
#[derive(Default)]
pub struct Redaction {
    /// Values of secret variables, the longest first.
    secrets: Vec<String>,
    /// The home folder, without a slash at its end.
    home: Option<String>,
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redaction({} secrets)", self.secrets.len())
    }
}

impl Redaction {
    /// Leaves out what these variables, as names and values, say is secret, and the home folder that `HOME` names.
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut redaction = Redaction::default();
        for (name, value) in variables {
            let upper = name.to_uppercase();
            if name == "HOME" {
                let home = value.trim_end_matches('/').to_owned();
                redaction.home = Some(home).filter(|home| home.starts_with('/'));
            } else if SECRET_NAMES.iter().any(|ending| upper.ends_with(ending)) && value.len() >= SHORTEST_SECRET {
                redaction.secrets.push(value);
            }
        }
        redaction.secrets.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        redaction
    }

    /// Leaves out what the environment of this process says is secret.
    pub fn of_environment() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::of(std::env::vars_os().filter_map(text))
    }

    /// Returns a text without what is left out: `***` stands for a secret, `~` for the home folder.
    pub fn shown(&self, text: &str) -> String {
        let hide = |text: String, secret: &String| text.replace(secret, HIDDEN);
        let text = self.secrets.iter().fold(masked(text), hide);
        match &self.home {
            Some(home) => without_home(&text, home),
            None => text,
        }
    }
}

/// Returns a text with `~` for the home folder. `/home/ann` is no part of `/home/anna`.
fn without_home(text: &str, home: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(home) {
        let (before, after) = (&rest[..at], &rest[at + home.len()..]);
        let goes_on = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        let is_inside = before.ends_with(goes_on) || after.starts_with(goes_on);
        shown.push_str(before);
        shown.push_str(if is_inside { home } else { "~" });
        rest = after;
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_the_home_folder_are_left_out() {
        let variables = [
            ("HOME", "/home/ann/"),
            ("HF_TOKEN", "hf_0123456789"),
            ("SHORT_TOKEN", "short"),
            ("EDITOR", "editor-of-ann"),
        ];
        let redaction = Redaction::of(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let shown =
            redaction.shown("get https://u:p@host/x?t=1 hf_0123456789 /home/ann/d, /home/anna short editor-of-ann");
        assert_eq!(shown, "get https://***@host/x?*** *** ~/d, /home/anna short editor-of-ann");
        assert_eq!(redaction.shown("cd /home/ann; ls /srv/home/ann"), "cd ~; ls /srv/home/ann");
        assert_eq!(Redaction::of([("HOME".to_owned(), "/".to_owned())]).shown("/a/b"), "/a/b");
    }
}

//! `${in.NEED}`, `${file.PATH}` and `${out.NAME}` in the words of a command. Knows names and the text that stands for
//! them, no files.
//!
//! Any other `${…}`, such as a shell's own `${HOME}`, is left as it is.

use std::collections::BTreeMap;

use super::error::StageError;

/// What each name, such as `in.model`, stands for: one path or several.
pub(super) type Names = BTreeMap<String, Vec<String>>;

/// A text with every name replaced; several paths are joined by a space.
pub(super) fn join(text: &str, names: &Names) -> Result<String, StageError> {
    replace(text, names, |paths| paths.join(" "))
}

/// The arguments that one argument of a program stands for: as many as its name has paths, so that `--in=${in.NEED}` is
/// given once for each.
pub(super) fn arguments(text: &str, names: &Names) -> Result<Vec<String>, StageError> {
    let mut lists = BTreeMap::new();
    scan(text, |name| {
        let paths = look_up(name, names)?;
        if paths.len() != 1 {
            lists.insert(name.to_owned(), paths);
        }
        Ok(())
    })?;
    let mut lists = lists.into_values();
    match (lists.next(), lists.next()) {
        (None, _) => Ok(vec![join(text, names)?]),
        (Some(list), None) => {
            let nth = |n: usize| replace(text, names, move |paths| paths[if paths.len() == 1 { 0 } else { n }].clone());
            (0..list.len()).map(nth).collect()
        }
        (Some(_), Some(_)) => Err(StageError::ManyLists { text: text.to_owned() }),
    }
}

fn look_up<'a>(name: &str, names: &'a Names) -> Result<&'a Vec<String>, StageError> {
    names.get(name).ok_or_else(|| StageError::UnknownName {
        name: name.to_owned(),
        known: names.keys().map(|name| format!("${{{name}}}")).collect(),
    })
}

fn replace(text: &str, names: &Names, shown: impl Fn(&[String]) -> String) -> Result<String, StageError> {
    let mut result = String::new();
    let rest = scan_with(text, |before, name| {
        result += before;
        result += &shown(look_up(name, names)?);
        Ok(())
    })?;
    Ok(result + rest)
}

fn scan(text: &str, mut each: impl FnMut(&str) -> Result<(), StageError>) -> Result<(), StageError> {
    scan_with(text, |_, name| each(name)).map(drop)
}

/// Calls `each` with every name of ours and the text before it; returns what is left after the last.
fn scan_with<'a>(
    text: &'a str,
    mut each: impl FnMut(&'a str, &'a str) -> Result<(), StageError>,
) -> Result<&'a str, StageError> {
    let (mut start, mut from) = (0, 0);
    while let Some(at) = text[from..].find("${").map(|at| from + at) {
        let inside = &text[at + 2..];
        from = at + 2;
        if !["in.", "file.", "out."].iter().any(|prefix| inside.starts_with(prefix)) {
            continue;
        }
        let end = inside.find('}').ok_or_else(|| StageError::Unclosed { text: text.to_owned() })?;
        each(&text[start..at], &inside[..end])?;
        start = at + 2 + end + 1;
        from = start;
    }
    Ok(&text[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let of = |name: &str, paths: &[&str]| (name.to_owned(), paths.iter().map(|&path| path.to_owned()).collect());
        [of("in.a", &["A"]), of("in.many", &["M1", "M2"]), of("in.more", &["N1", "N2"]), of("out.x", &["x.csv"])].into()
    }

    #[test]
    fn names_are_replaced_and_other_braces_left() {
        assert_eq!(join("${in.a}>${out.x} ${HOME} $$ ${in.many}!", &names()).unwrap(), "A>x.csv ${HOME} $$ M1 M2!");
        assert_eq!(join("ε${in.a}ε", &names()).unwrap(), "εAε");
        assert_eq!(join("${${in.a}", &names()).unwrap(), "${A");
    }

    #[test]
    fn an_argument_is_given_once_for_each_path_of_its_need() {
        assert_eq!(arguments("--in=${in.many}:${in.a}", &names()).unwrap(), ["--in=M1:A", "--in=M2:A"]);
        assert_eq!(arguments("plain", &names()).unwrap(), ["plain"]);
        assert!(matches!(arguments("${in.many}${in.more}", &names()), Err(StageError::ManyLists { .. })));
    }

    #[test]
    fn mistakes_are_told() {
        let message = |text| join(text, &names()).unwrap_err().to_string();
        assert_eq!(
            message("${in.modle}"),
            "`${in.modle}` names nothing that this stage has; it has ${in.a}, ${in.many}, ${in.more}, ${out.x}"
        );
        assert_eq!(message("x ${out.x"), "`${` without its `}` in `x ${out.x`");
    }
}

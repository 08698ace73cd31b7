//! Names of classes that look alike and are not: in two Unicode forms, or with white space around them. Knows no files.

use unicode_normalization::UnicodeNormalization;

use super::error::DatasetError;

/// A name as a person reads it: one Unicode form, white space in one form and none around it.
fn read(name: &str) -> String {
    name.nfc().collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Checks the names of one set. Names that differ in the case of letters only are told as a warning, because classes of
/// letters have such names.
pub(super) fn check(file: &str, names: &[String]) -> Result<Vec<String>, DatasetError> {
    let mut warnings = Vec::new();
    let mut by_read: Vec<(String, &String)> = names.iter().map(|name| (read(name), name)).collect();
    by_read.sort();
    for pair in by_read.windows(2) {
        if pair[0].0 == pair[1].0 {
            let (first, second) = (pair[0].1.clone(), pair[1].1.clone());
            let difference = difference(&first, &second);
            return Err(DatasetError::Alike { file: file.to_owned(), first, second, difference });
        }
    }
    let mut by_case: Vec<(String, &String)> = names.iter().map(|name| (read(name).to_lowercase(), name)).collect();
    by_case.sort();
    for pair in by_case.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        warnings.push(format!(
            "{file}: the classes `{}` and `{}` differ in the case of letters only",
            pair[0].1, pair[1].1
        ));
    }
    Ok(warnings)
}

/// What to say of a class that only the test set has: which class of the training set it looks like.
pub(super) fn stranger(class: &str, known: &[String]) -> String {
    let alike = known.iter().find(|name| read(name) == read(class));
    let alike = alike.or_else(|| known.iter().find(|name| read(name).to_lowercase() == read(class).to_lowercase()));
    match alike {
        Some(name) => format!(
            ": it has `{name}`, and the names differ in {}; give both folders one name",
            difference(name, class)
        ),
        None => format!("; it has {}", some(known)),
    }
}

fn some(names: &[String]) -> String {
    const NAMED: usize = 8;
    let named: Vec<String> = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(NAMED);
    if more > 0 { format!("{} and {more} more", named.join(", ")) } else { named.join(", ") }
}

/// Where two names differ, as code points.
fn difference(first: &str, second: &str) -> String {
    let (a, b): (Vec<char>, Vec<char>) = (first.chars().collect(), second.chars().collect());
    let start = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let end = a[start..].iter().rev().zip(b[start..].iter().rev()).take_while(|(a, b)| a == b).count();
    let points = |name: &[char]| {
        let points: Vec<String> =
            name[start..name.len() - end].iter().map(|&point| format!("U+{:04X}", u32::from(point))).collect();
        if points.is_empty() { "nothing".to_owned() } else { points.join(" ") }
    };
    format!("{} and {} (code points at letter {})", points(&a), points(&b), start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_alike_are_told_by_code_points() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let error = check("a.zip", &names(&["cafe\u{301}", "caf\u{e9}", "dog"])).unwrap_err().to_string();
        assert!(error.contains("U+0065 U+0301 and U+00E9 (code points at letter 4)"), "{error}");
        assert!(check("a.zip", &names(&["cat ", "cat"])).is_err());
        assert_eq!(check("a.zip", &names(&["A", "a", "b"])).unwrap().len(), 1);
        assert!(check("a.zip", &names(&["ab", "a b"])).unwrap().is_empty());
        let told = stranger("caf\u{e9}", &names(&["cafe\u{301}"]));
        assert!(told.contains("U+0065 U+0301 and U+00E9"), "{told}");
        assert!(stranger("owl", &names(&["cat"])).contains("it has `cat`"));
    }
}

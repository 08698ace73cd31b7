//! `docs/architecture.md` has the engine's modules in layers; the `use` lines and paths of the code keep to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The modules of each line of the table, highest first.
fn layers() -> Vec<Vec<String>> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let document = std::fs::read_to_string(document).unwrap();
    let (_, table) = document.split_once("| module | what it does |\n").expect("the table of modules");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let names = |row: &str| {
        let cell = row.split('|').nth(1).unwrap();
        cell.split(',').map(|name| name.trim().trim_matches('`').to_owned()).collect()
    };
    rows.map(names).collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// A file without its comments and its tests.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The modules at the root that a file names, in `use crate::…` and in paths; not those of its tests.
fn named(text: &str) -> BTreeSet<String> {
    let code = code_of(text);
    let word = |rest: &str| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => _ = names.insert(word(rest)),
            Some(group) => {
                let (mut depth, mut starts) = (0, true);
                for (at, letter) in group.char_indices() {
                    match letter {
                        '}' if depth == 0 => break,
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => starts = true,
                        letter if starts && letter.is_ascii_lowercase() => {
                            names.insert(word(&group[at..]));
                            starts = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    names.remove("");
    names
}

#[test]
fn the_modules_of_the_engine_keep_to_their_layers() {
    let layers = layers();
    let rank: BTreeMap<&str, usize> = layers
        .iter()
        .enumerate()
        .flat_map(|(rank, modules)| modules.iter().map(move |module| (module.as_str(), rank)))
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap();
        let module = name.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if module == "lib" {
            continue;
        }
        let Some(own) = rank.get(module.as_str()) else {
            wrong.push(format!("`{module}` is not in the table of docs/architecture.md"));
            continue;
        };
        for other in named(&std::fs::read_to_string(&file).unwrap()) {
            if other != module && rank.get(other.as_str()).is_some_and(|other| other <= own) {
                wrong.push(format!("{} uses `{other}`, which stands no lower", name.display()));
            }
        }
        seen.insert(module);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let gone: Vec<&&str> = rank.keys().filter(|module| !seen.contains(**module)).collect();
    assert!(gone.is_empty(), "the table has modules that are not there: {gone:?}");
}

/// Modules that may need each other: an error that has the errors of its parts.
const CIRCLES: [[&str; 2]; 1] = [["dataset", "error"]];

/// The modules beside its own that a file names: `depth` says how far below the folder of those modules it lies.
fn siblings(text: &str, depth: usize) -> BTreeSet<String> {
    let code = code_of(text);
    let prefix = "super::".repeat(depth + 1);
    let is_word = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(&prefix) {
        if code[..at].ends_with("super::") {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let group = rest.strip_prefix('{').map(|rest| rest.split(';').next().unwrap_or_default());
        match group {
            None => _ = names.insert(rest.chars().take_while(|letter| is_word(*letter)).collect::<String>()),
            Some(group) => {
                for part in group.split(|letter: char| !(is_word(letter) || letter == ':')) {
                    names.extend(part.split_once("::").map(|(name, _)| name.to_owned()));
                }
            }
        }
    }
    // A longer way up.
    names.remove("super");
    names
}

/// A circle of modules, if there is one.
fn circle(needs: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut left = needs.clone();
    loop {
        // Whoever needs none of those that are left is in no circle.
        let free: Vec<String> = left
            .iter()
            .filter(|(_, needs)| needs.iter().all(|name| !left.contains_key(name)))
            .map(|(name, _)| name.clone())
            .collect();
        if free.is_empty() {
            return (!left.is_empty()).then(|| left.into_keys().collect());
        }
        left.retain(|name, _| !free.contains(name));
    }
}

#[test]
fn no_modules_of_a_folder_need_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let folders: BTreeSet<PathBuf> = files.iter().map(|file| file.parent().unwrap().to_owned()).collect();
    let mut wrong = Vec::new();
    for folder in folders {
        let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in files.iter().filter(|file| file.starts_with(&folder)) {
            let below: Vec<&str> =
                file.strip_prefix(&folder).unwrap().iter().map(|part| part.to_str().unwrap()).collect();
            let module = below[0].trim_end_matches(".rs").to_owned();
            if below.len() == 1 && ["mod", "lib", "main"].contains(&module.as_str()) {
                continue;
            }
            // `a/mod.rs` lies as deep as `a.rs`.
            let depth = below.len() - 1 - usize::from(below.last() == Some(&"mod.rs"));
            let found = siblings(&std::fs::read_to_string(file).unwrap(), depth);
            let others = found.into_iter().filter(|name| {
                *name != module
                    && !CIRCLES.iter().any(|pair| pair.contains(&module.as_str()) && pair.contains(&name.as_str()))
            });
            needs.entry(module.clone()).or_default().extend(others);
        }
        if let Some(circle) = circle(&needs) {
            wrong.push(format!("{}: {}", folder.display(), circle.join(", ")));
        }
    }
    assert!(wrong.is_empty(), "modules in or above a circle:\n{}", wrong.join("\n"));
}

#[test]
fn a_circle_is_found() {
    let needs = |pairs: &[(&str, &[&str])]| -> BTreeMap<String, BTreeSet<String>> {
        pairs
            .iter()
            .map(|(name, needs)| ((*name).to_owned(), needs.iter().map(|n| (*n).to_owned()).collect()))
            .collect()
    };
    assert_eq!(circle(&needs(&[("a", &["b"]), ("b", &["c"]), ("c", &[])])), None);
    let found = circle(&needs(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"]), ("d", &[])]));
    assert_eq!(found.unwrap(), ["a", "b", "c"]);
    let text = "use super::a::B;\nuse super::{c::D, E, f::{self}};\nfn g() { super::h::i(); super::super::j::k() }";
    assert_eq!(siblings(text, 0).into_iter().collect::<Vec<_>>(), ["a", "c", "f", "h"]);
    assert_eq!(siblings(text, 1).into_iter().collect::<Vec<_>>(), ["j"]);
}

#[test]
fn names_are_found_in_every_form_of_use() {
    let text = "use crate::a::B;\nuse crate::{b, c::{self, D}, e::f};\nfn g() { crate::h::i() } // crate::j\n\
                #[cfg(test)]\nmod tests { use crate::k; }";
    assert_eq!(named(text).into_iter().collect::<Vec<_>>(), ["a", "b", "c", "e", "h"]);
}

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

/// The modules at the root that a file names, in `use crate::…` and in paths; not those of its tests.
fn named(text: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let code: String = code.collect::<Vec<_>>().join("\n");
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

#[test]
fn names_are_found_in_every_form_of_use() {
    let text = "use crate::a::B;\nuse crate::{b, c::{self, D}, e::f};\nfn g() { crate::h::i() } // crate::j\n\
                #[cfg(test)]\nmod tests { use crate::k; }";
    assert_eq!(named(text).into_iter().collect::<Vec<_>>(), ["a", "b", "c", "e", "h"]);
}

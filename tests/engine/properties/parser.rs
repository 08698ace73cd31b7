//! No text makes the parser panic, hang or run out of stack; what it says is wrong has a place in the text.

use atflow::spec::{Overrides, PipelineSpec, Problems, expand};
use proptest::prelude::*;

/// Parses and expands a text, and looks at every problem as a user would.
fn digest(text: &str) {
    let overrides = Overrides { profile: Some("smoke".to_owned()), set: vec![("eps".to_owned(), "4/255".to_owned())] };
    for overrides in [Overrides::default(), overrides] {
        let result = PipelineSpec::from_text("p.yaml", text, &overrides).and_then(|spec| expand(&spec));
        let Err(Problems(problems)) = result else { continue };
        assert!(!problems.is_empty());
        for problem in problems {
            assert!(!problem.message.is_empty());
            assert!(!problem.message.contains("atflow cannot say what"), "{text}");
            if let Some(place) = problem.place {
                let span = place.span();
                assert!(span.start <= span.end && span.end <= place.file.text.len(), "{span:?}");
                assert!(place.file.text.is_char_boundary(span.start) && place.file.text.is_char_boundary(span.end));
                _ = place.to_string();
            }
        }
    }
}

fn valid_files() -> Vec<String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let quickstart = std::fs::read_to_string(root.join("pipelines/quickstart.yaml")).unwrap();
    // Small files are mutated more deeply than large ones, and wrong ones lead to places that right ones do not.
    let bad = std::fs::read_dir(root.join("tests/cli/bad")).unwrap().map(|entry| entry.unwrap().path());
    let bad = bad.filter_map(|path| std::fs::read_to_string(path).ok());
    [quickstart.clone(), quickstart].into_iter().chain(bad).collect()
}

const WORDS: [&str; 40] = [
    "{", "}", "[", "]", ":", ": ", ",", "-", "- ", "\n", "\n  ", "\n    ", "\t", "#", "&a", "*a", "!x ", "!!str ", "|",
    ">\n", "'", "\"", "---\n", "...\n", "<<: ", "${", "}", "${eps}", "$${", "8/255", "0/0", "1e999", "-1", "null",
    "true", "each", "stages", "*", "ä", "\u{feff}",
];

#[derive(Debug, Clone)]
enum Mutation {
    Insert(prop::sample::Index, usize),
    Delete(prop::sample::Index, u8),
    Repeat(prop::sample::Index, u8),
    SwapLines(prop::sample::Index, prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), 0..WORDS.len()).prop_map(|(at, word)| Mutation::Insert(at, word)),
        (at(), any::<u8>()).prop_map(|(at, length)| Mutation::Delete(at, length % 32)),
        (at(), any::<u8>()).prop_map(|(at, length)| Mutation::Repeat(at, length)),
        (at(), at()).prop_map(|(a, b)| Mutation::SwapLines(a, b)),
    ]
}

fn mutate(text: &mut String, mutation: &Mutation) {
    let floor = |text: &str, mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    match mutation {
        Mutation::Insert(at, word) => text.insert_str(floor(text, at.index(text.len() + 1)), WORDS[*word]),
        Mutation::Delete(at, length) => {
            let start = floor(text, at.index(text.len() + 1));
            text.replace_range(start..floor(text, start + usize::from(*length)), "");
        }
        Mutation::Repeat(at, length) => {
            let start = floor(text, at.index(text.len() + 1));
            let part = text[start..floor(text, start + usize::from(*length))].to_owned();
            text.insert_str(start, &part);
        }
        Mutation::SwapLines(a, b) => {
            let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
            if !lines.is_empty() {
                let (a, b) = (a.index(lines.len()), b.index(lines.len()));
                lines.swap(a, b);
            }
            *text = lines.concat();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn parser_takes_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        digest(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn parser_takes_heaps_of_yaml_words(words in prop::collection::vec(0..WORDS.len(), 0..80)) {
        digest(&words.into_iter().map(|word| WORDS[word]).collect::<String>());
    }

    #[test]
    fn parser_takes_mutated_pipelines(
        which in any::<prop::sample::Index>(),
        mutations in prop::collection::vec(mutation(), 1..6),
    ) {
        let files = valid_files();
        let mut text = files[which.index(files.len())].clone();
        for mutation in &mutations {
            mutate(&mut text, mutation);
        }
        digest(&text);
    }
}

#[test]
fn long_and_deep_texts_are_told_off_in_time() {
    let started = std::time::Instant::now();
    for text in [
        "[".repeat(200_000),
        "{a: ".repeat(200_000),
        format!("a: {{{}}}", "x: 1, ".repeat(100_000)),
        "a: ".repeat(100_000),
        format!("{{stages: {{a: {{kind: command, with: {{{}: 1}}}}}}}}", "ü: 2, x".repeat(30_000)),
        format!("stages: [{}]", "1, ".repeat(200_000)),
        format!(
            "params: {{{}}}\nstages: {{a: {{kind: command, with: {{run: '${{p5000}}', outputs: {{n: n}}}}}}}}",
            (0..5_001).map(|n| format!("p{n}: '${{p{}}}', ", n.max(1) - 1)).collect::<String>()
        ),
    ] {
        digest(&text);
    }
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
}

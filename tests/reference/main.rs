//! `docs/pipeline-reference.md` says what the parser does: its part on kinds is written from the same types.
//! `ATFLOW_BLESS=1` writes it anew. A type that several kinds have is described once, under the first of them.

mod architecture;
mod cluster;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use atflow::spec::{pipeline_schema, schema};
use atflow::stage_kinds::{Slot, StageKind};
use serde_json::{Map, Value};

/// Everything below this line of the document is written from the types.
const MARK: &str =
    "<!-- From here on written from the types: ATFLOW_BLESS=1 cargo test --release --test reference -->\n";

#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pipeline-reference.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (head, found) = document.split_once(MARK).expect("the document has the mark");
    let mut described = BTreeMap::new();
    let expected = StageKind::ALL.map(|kind| section(kind, &mut described)).concat();
    if std::env::var_os("ATFLOW_BLESS").is_some() {
        std::fs::write(&path, format!("{head}{MARK}{expected}")).unwrap();
    } else {
        assert!(found == expected, "docs/pipeline-reference.md is out of date: ATFLOW_BLESS=1 writes it anew");
    }
}

#[test]
fn editors_find_a_current_schema_in_every_pipeline_here() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let expected = serde_json::to_string_pretty(&pipeline_schema()).unwrap() + "\n";
    let path = folder.join("pipeline.schema.json");
    if std::env::var_os("ATFLOW_BLESS").is_some() {
        std::fs::write(&path, expected).unwrap();
    } else {
        let found = std::fs::read_to_string(&path).unwrap();
        assert!(found == expected, "pipelines/pipeline.schema.json is out of date: ATFLOW_BLESS=1 writes it anew");
    }
    for (folder, schema) in [(folder.clone(), ""), (folder.join("paper"), "../")] {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        for file in files.filter(|file| file.extension().is_some_and(|end| end == "yaml")) {
            let text = std::fs::read_to_string(&file).unwrap();
            let expected = format!("# yaml-language-server: $schema={schema}pipeline.schema.json\n");
            assert!(text.starts_with(&expected), "{} does not name the schema in its first line", file.display());
        }
    }
}

/// The section of a kind. `described` has the types that stand in the sections before it.
fn section(kind: StageKind, described: &mut BTreeMap<String, Value>) -> String {
    let schema = schema(kind);
    let mut text = format!("\n## `{kind}`\n\n{}\n", paragraphs(schema));
    if !kind.slots().is_empty() {
        text.push_str("\n| need | takes | |\n| --- | --- | --- |\n");
        for slot in kind.slots() {
            writeln!(text, "| `{}` | {} | {} |", slot.name, slot.takes.name(), how_many(slot)).unwrap();
        }
    }
    if !kind.outputs().is_empty() {
        text.push_str("\n| output | is | |\n| --- | --- | --- |\n");
        for output in kind.outputs() {
            let result = output.result.map(|ending| format!("laid in `results/` as `.{ending}`")).unwrap_or_default();
            writeln!(text, "| `{}` | {} | {result} |", output.name, output.is.name()).unwrap();
        }
    }
    text.push_str(&body(schema, schema));
    // Types that parameters are made of, each once, in the order in which they are named.
    let mut named: Vec<String> = Vec::new();
    collect(schema, schema, &mut named);
    for name in named {
        let definition = &schema["$defs"][&name];
        if !is_large(definition) {
            continue;
        }
        match described.insert(name.clone(), definition.clone()) {
            None => {
                write!(text, "\n### {name}\n\n{}\n{}", paragraphs(definition), body(schema, definition)).unwrap();
            }
            // Links go by name.
            Some(before) => assert_eq!(&before, definition, "two kinds have types of the name {name}"),
        }
    }
    text
}

fn how_many(slot: &Slot) -> &'static str {
    match (slot.many, slot.optional) {
        (true, true) if slot.parts => "optional; several are the parts of one",
        (true, _) => "one or more",
        (false, true) => "optional",
        (false, false) => "",
    }
}

/// The description of a type, its lines joined to paragraphs.
fn paragraphs(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split("\n\n").map(|paragraph| wrapped(&paragraph.replace('\n', " "), "")).collect::<Vec<_>>().join("\n\n")
}

/// A paragraph in lines of 120 columns.
fn wrapped(text: &str, indent: &str) -> String {
    let options = textwrap::Options::new(120)
        .subsequent_indent(indent)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit)
        .break_words(false);
    textwrap::fill(text, options)
}

/// Parameters, or, for a type of several variants, the parameters of each.
fn body(root: &Value, schema: &Value) -> String {
    let mut text = String::new();
    let variants = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array());
    if schema["properties"].is_object() {
        text.push_str(&table(root, schema));
    }
    for variant in variants.into_iter().flatten() {
        let resolved = resolved(root, variant);
        if let Some(word) = resolved["const"].as_str() {
            writeln!(text, "\n{}", wrapped(&format!("- `{word}`: {}", one_line(&resolved)), "  ")).unwrap();
        } else if resolved["properties"].is_object() {
            let tag = tag(&resolved).map(|(key, word)| format!("`{key}: {word}`. ")).unwrap_or_default();
            writeln!(text, "\n{}", wrapped(&format!("{tag}{}", one_line(&resolved)), "")).unwrap();
            text.push_str(&table(root, &resolved));
        }
    }
    text
}

/// The word that tells a variant from the others.
fn tag(schema: &Value) -> Option<(String, String)> {
    let properties = schema["properties"].as_object()?;
    properties.iter().find_map(|(key, property)| Some((key.clone(), property["const"].as_str()?.to_owned())))
}

fn table(root: &Value, schema: &Value) -> String {
    let empty = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&empty);
    let rows: Vec<(&String, &Value)> = properties.iter().filter(|(_, value)| value.get("const").is_none()).collect();
    if rows.is_empty() {
        return String::new();
    }
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut text = "\n| parameter | type | default | |\n| --- | --- | --- | --- |\n".to_owned();
    for (name, property) in rows {
        let default = match property.get("default") {
            Some(default) => format!("`{default}`"),
            None if required.contains(&name.as_str()) => "required".to_owned(),
            None => String::new(),
        };
        let (of, meaning) = (type_of(root, property), one_line(property).replace('|', "\\|"));
        writeln!(text, "| `{name}` | {of} | {default} | {meaning} |").unwrap();
    }
    text
}

fn one_line(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A reference's definition with what stands beside the reference laid over it.
fn resolved(root: &Value, schema: &Value) -> Value {
    let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) else {
        return schema.clone();
    };
    let mut definition = root["$defs"][name].clone();
    let (Some(into), Some(over)) = (definition.as_object_mut(), schema.as_object()) else { return definition };
    for (key, value) in over.iter().filter(|(key, _)| *key != "$ref") {
        match (into.get_mut(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => old.extend(new.clone()),
            _ => _ = into.insert(key.clone(), value.clone()),
        }
    }
    definition
}

fn type_of(root: &Value, schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
        let definition = &root["$defs"][name];
        return if is_large(definition) {
            format!("[{name}](#{})", name.to_lowercase())
        } else {
            type_of(root, definition)
        };
    }
    let several =
        schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()).or_else(|| schema["allOf"].as_array());
    if let Some(several) = several {
        let mut types: Vec<String> = several.iter().map(|one| type_of(root, one)).filter(|one| one != "null").collect();
        types.dedup();
        // A text in the place of a number is a fraction.
        return types.join(" or ").replace("number or text", "number");
    }
    if let Some(word) = schema["const"].as_str() {
        return format!("`{word}`");
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> = words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
        return words.join(", ");
    }
    let range = |text: &str| {
        let bound = |key: &str, sign: &str| schema[key].as_f64().map(|bound| format!("{sign} {bound}"));
        let bounds = [
            bound("minimum", "≥"),
            bound("exclusiveMinimum", ">"),
            bound("maximum", "≤"),
            bound("exclusiveMaximum", "<"),
        ];
        let bounds: Vec<String> = bounds.into_iter().flatten().collect();
        if bounds.is_empty() { text.to_owned() } else { format!("{text} {}", bounds.join(", ")) }
    };
    let word = |word: &str| match word {
        "array" => format!("list of {}", type_of(root, &schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("mapping to {}", type_of(root, &schema["additionalProperties"]))
        }
        "object" => "mapping".to_owned(),
        "string" => "text".to_owned(),
        "integer" => range("whole number"),
        "number" => range("number"),
        "boolean" => "true or false".to_owned(),
        other => other.to_owned(),
    };
    match &schema["type"] {
        Value::String(one) => word(one),
        Value::Array(words) => {
            let words: Vec<String> =
                words.iter().filter_map(Value::as_str).filter(|one| *one != "null").map(word).collect();
            words.join(" or ")
        }
        _ => "anything".to_owned(),
    }
}

/// Whether a type has parameters of its own, or words that need an explanation.
fn is_large(definition: &Value) -> bool {
    let with_words = |one: &Value| one["const"].is_string() && one["description"].is_string();
    let variants = definition["oneOf"].as_array().or_else(|| definition["anyOf"].as_array());
    definition["properties"].is_object()
        || variants.is_some_and(|variants| {
            variants.iter().any(|one| one["$ref"].is_string() || one["properties"].is_object() || with_words(one))
        })
}

/// The names of all definitions that a schema leads to.
fn collect(root: &Value, schema: &Value, named: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map.iter().filter(|(key, _)| *key != "$defs") {
                match value.as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
                    Some(name) if key == "$ref" => {
                        if !named.iter().any(|known| known == name) {
                            named.push(name.to_owned());
                            collect(root, &root["$defs"][name], named);
                        }
                    }
                    _ => collect(root, value, named),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(root, item, named)),
        _ => {}
    }
}

/// A pipeline file as an editor sees it: a value of JSON.
fn as_json(text: &str) -> Value {
    let mut value: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
    value.apply_merge().unwrap();
    serde_json::to_value(value).unwrap()
}

#[test]
fn the_schema_takes_every_pipeline_that_ships() {
    let schema = jsonschema::validator_for(&pipeline_schema()).unwrap();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines")];
    let mut seen = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|ending| ending == "yaml") {
            let json = as_json(&std::fs::read_to_string(&path).unwrap());
            let wrong: Vec<String> =
                schema.iter_errors(&json).map(|error| format!("{}: {error}", error.instance_path())).collect();
            assert!(wrong.is_empty(), "{}\n{}", path.display(), wrong.join("\n"));
            seen.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    for name in ["paper.yaml", "beyond.yaml", "fashion.yaml", "quickstart.yaml"] {
        assert!(seen.iter().any(|seen| seen == name), "{name} is not among {seen:?}");
    }
}

#[test]
fn the_schema_refuses_what_an_editor_should_mark() {
    let schema = jsonschema::validator_for(&pipeline_schema()).unwrap();
    let right = "stages: {a: {kind: command, with: {run: [seq, 3, true], env: {N: 0.5}, outputs: {n: n}}}, \
                 b: {kind: transform, needs: {data: a}, with: {op: fourier, filter: low_pass, radius: '${r}'}}, \
                 c: {kind: dataset, with: {format: image_folder, filter: lanczos, train: {archive: {path: x}}}}}";
    assert!(schema.is_valid(&as_json(right)));
    for (from, to) in [
        ("stages:", "stage:"),
        ("kind: command", "kind: comand"),
        ("N: 0.5", "N: [0.5]"),
        ("run: [seq", "run: [[seq]"),
        ("op: fourier", "op: furier"),
        ("filter: low_pass", "filter: lanczos"),
        ("filter: lanczos", "filter: low_pass"),
        ("needs: {data", "needs: {date"),
        ("kind: dataset", "seed: 1, kind: dataset"),
        ("kind: dataset", "threads: 2, kind: dataset"),
    ] {
        assert!(!schema.is_valid(&as_json(&right.replacen(from, to, 1))), "{to}");
    }
}

//! The parameters of a stage, from YAML to the canonical form that is hashed: checked against the kind's schema, read as the kind's type (which fills
//! in defaults), and checked for what a schema cannot say.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use serde_path_to_error::Segment;
use serde_yaml::Value;

use super::check::Checker;
use super::problem::Problem;
use super::source::{Place, SourceFile, YamlPath};
use crate::kinds::{
    CommandParams, DatasetParams, EvaluateParams, FigureSpec, Kind, Net, SaliencyParams, Source, TableSpec,
    TrainParams, TransformParams,
};

/// What the parameters of one instance say.
pub(super) struct Params {
    /// Canonical parameters. Those of tables and figures are still as their author wrote them.
    pub json: Json,
    /// Files that the stage reads: slot, source, and the way to it.
    pub sources: Vec<(String, Source, YamlPath)>,
    /// Names of outputs and of their files, where the author declares them.
    pub declared_outputs: BTreeMap<String, String>,
}

/// The JSON schema of a kind's parameters.
pub fn schema(kind: Kind) -> &'static Json {
    static SCHEMAS: OnceLock<BTreeMap<Kind, Json>> = OnceLock::new();
    fn of<T: JsonSchema>() -> Json {
        SchemaGenerator::default().into_root_schema_for::<T>().to_value()
    }
    let make = |kind| match kind {
        Kind::Dataset => of::<DatasetParams>(),
        Kind::Transform => of::<TransformParams>(),
        Kind::Train => of::<TrainParams>(),
        Kind::Evaluate => of::<EvaluateParams>(),
        Kind::Saliency => of::<SaliencyParams>(),
        Kind::Table => of::<TableSpec>(),
        Kind::Figure => of::<FigureSpec>(),
        Kind::Command => of::<CommandParams>(),
    };
    &SCHEMAS.get_or_init(|| Kind::ALL.into_iter().map(|kind| (kind, make(kind))).collect())[&kind]
}

/// Reads the parameters of one instance; `path` leads to them in the file.
pub(super) fn read(kind: Kind, value: &Value, file: &Arc<SourceFile>, path: &YamlPath) -> Result<Params, Vec<Problem>> {
    let what = format!("a stage of kind `{kind}`");
    let mut checker = Checker { file, root: schema(kind), what, problems: Vec::new() };
    checker.check(schema(kind), value, path);
    if !checker.problems.is_empty() {
        return Err(checker.problems);
    }
    let mut reader = Reading { file, path, problems: Vec::new() };
    let mut sources = Vec::new();
    let mut declared_outputs = BTreeMap::new();
    let json = match kind {
        Kind::Dataset => reader.typed::<DatasetParams>(value).and_then(|mut params| {
            sources = reader.take_sources(&mut params);
            reader.canonical(&params)
        }),
        Kind::Transform => reader.typed::<TransformParams>(value).and_then(|params| reader.canonical(&params)),
        Kind::Train => reader.typed::<TrainParams>(value).and_then(|params| {
            reader.check_net(&params.net);
            reader.canonical(&params)
        }),
        Kind::Evaluate => reader.typed::<EvaluateParams>(value).and_then(|params| reader.canonical(&params)),
        Kind::Saliency => reader.typed::<SaliencyParams>(value).and_then(|params| reader.canonical(&params)),
        Kind::Table => reader.typed::<TableSpec>(value).and_then(|params| reader.canonical(&params)),
        Kind::Figure => reader.typed::<FigureSpec>(value).and_then(|params| reader.canonical(&params)),
        Kind::Command => reader.typed::<CommandParams>(value).and_then(|params| {
            for (index, name) in params.files.iter().enumerate() {
                let source = Source { path: Some(name.clone()), ..Source::default() };
                sources.push((format!("file:{name}"), source, path.key("files").index(index)));
            }
            declared_outputs.clone_from(&params.outputs);
            reader.check_outputs(&params);
            reader.canonical(&params)
        }),
    };
    match json {
        Some(json) if reader.problems.is_empty() => Ok(Params { json, sources, declared_outputs }),
        _ => Err(reader.problems),
    }
}

struct Reading<'a> {
    file: &'a Arc<SourceFile>,
    path: &'a YamlPath,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    fn typed<T: DeserializeOwned>(&mut self, value: &Value) -> Option<T> {
        serde_path_to_error::deserialize(value.clone())
            .map_err(|error| {
                let mut path = self.path.clone();
                for segment in error.path() {
                    match segment {
                        Segment::Map { key } => path = path.key(key),
                        Segment::Seq { index } => path = path.index(*index),
                        Segment::Enum { .. } | Segment::Unknown => break,
                    }
                }
                self.problems.push(Problem::at(Place::value(self.file, path), error.inner().to_string(), "here"));
            })
            .ok()
    }

    fn canonical(&mut self, params: &impl Serialize) -> Option<Json> {
        serde_json::to_value(params)
            .map_err(|error| {
                let place = Place::value(self.file, self.path.clone());
                self.problems.push(Problem::at(place, error.to_string(), "in these parameters"));
            })
            .ok()
    }

    /// Where a file lies is no part of a stage's key, only what it holds: sources leave the parameters and become inputs.
    fn take_sources(&mut self, params: &mut DatasetParams) -> Vec<(String, Source, YamlPath)> {
        let DatasetParams::Idx { train, test, .. } = params;
        let mut sources = Vec::new();
        for (split, files) in [("train", train), ("test", test)] {
            for (part, source) in [("images", &mut files.images), ("labels", &mut files.labels)] {
                let path = self.path.key(split).key(part);
                let source = std::mem::take(source);
                self.check_source(&source, &path);
                sources.push((format!("{split}.{part}"), source, path));
            }
        }
        sources
    }

    fn check_source(&mut self, source: &Source, path: &YamlPath) {
        let mut problem = |path: YamlPath, message: String, help: &str| {
            self.problems.push(Problem::at(Place::value(self.file, path), message, "here").help(help));
        };
        let has_digest = source.sha256.is_some() || source.md5.is_some();
        match (&source.path, &source.url) {
            (Some(_), Some(_)) => {
                problem(path.clone(), "a source has a `path` or a `url`, not both".into(), "remove one")
            }
            (None, None) => problem(path.clone(), "a source needs a `path` or a `url`".into(), "add `path: FILE`"),
            (None, Some(_)) if !has_digest => {
                let help = "add `sha256:` (or `md5:`) as its publisher gives it, so that other bytes are refused";
                problem(path.clone(), "a source that is fetched needs a digest".into(), help);
            }
            _ => {}
        }
        for (name, digest, length) in [("sha256", &source.sha256, 64), ("md5", &source.md5, 32)] {
            let right = |text: &String| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            if digest.as_ref().is_some_and(|text| !right(text)) {
                let help = "copy it from its publisher, or from the output of `sha256sum` or `md5sum`";
                problem(path.key(name), format!("`{name}` must be {length} hexadecimal digits"), help);
            }
        }
    }

    fn check_net(&mut self, net: &Net) {
        let Net::Resnet { blocks, mean, std, .. } = net;
        let path = self.path.key("net");
        let mut problem = |path: YamlPath, message: &str| {
            self.problems.push(Problem::at(Place::value(self.file, path), message, "here"));
        };
        if blocks.is_empty() || blocks.contains(&0) {
            problem(path.key("blocks"), "`blocks` needs at least one group, each with at least one block");
        }
        if mean.len() != std.len() {
            problem(path.key("std"), "`mean` and `std` must have one number each for every channel");
        }
        if std.iter().any(|std| std.get() <= 0.0) {
            problem(path.key("std"), "a standard deviation must be above 0");
        }
    }

    fn check_outputs(&mut self, params: &CommandParams) {
        let path = self.path.key("outputs");
        if params.outputs.is_empty() {
            let problem =
                Problem::at(Place::value(self.file, path.clone()), "a command needs at least one output", "here");
            self.problems.push(problem.help("name what it writes: `outputs: {numbers: numbers.csv}`"));
        }
        for (name, file) in &params.outputs {
            let plain = !file.is_empty()
                && !file.starts_with('/')
                && !file.split('/').any(|part| part == ".." || part.is_empty());
            if !plain {
                let message =
                    format!("output `{name}` must be a relative path inside the program's folder, not `{file}`");
                self.problems.push(Problem::at(Place::value(self.file, path.key(name)), message, "here"));
            }
        }
    }
}

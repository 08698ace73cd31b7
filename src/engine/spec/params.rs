//! The parameters of a stage, from YAML to the canonical form that is hashed: checked against the kind's schema, read as the kind's type (which fills
//! in defaults), and checked for what a schema cannot say.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::OnceLock;

use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use serde_path_to_error::Segment;
use serde_yaml::Value;

use super::check;
use super::command;
use super::defaults::Origin;
use super::problem::Problem;
use super::published::{ANOMALIES, NUMBERS};
use super::source::{Part, Step, YamlPath};
use crate::kinds::{
    Attack, Classes, CommandParams, DatasetParams, EvaluateParams, FigureSpec, FileParams, Kind, MaskingParams, Net,
    PublishedSpec, SaliencyParams, Source, TableSpec, TrainParams, TransformParams,
};

/// What the parameters of one instance say.
#[derive(Clone)]
pub(super) struct Params {
    /// Canonical parameters. Those of tables and figures are still as their author wrote them.
    pub json: Json,
    /// Files that the stage reads: slot, source, and the way to it.
    pub sources: Vec<(String, Source, YamlPath)>,
    /// Names of outputs and of their files, where the author declares them.
    pub declared_outputs: BTreeMap<String, String>,
    /// Texts of a command in which `${in.NEED}` and the like may stand.
    pub texts: Vec<(Vec<Step>, String)>,
}

/// The JSON schema of a kind's parameters.
pub fn schema(kind: Kind) -> &'static Json {
    static SCHEMAS: [OnceLock<Json>; Kind::ALL.len()] = [const { OnceLock::new() }; Kind::ALL.len()];
    fn of<T: JsonSchema>() -> Json {
        SchemaGenerator::default().into_root_schema_for::<T>().to_value()
    }
    SCHEMAS[kind as usize].get_or_init(|| match kind {
        Kind::Dataset => of::<DatasetParams>(),
        Kind::File => of::<FileParams>(),
        Kind::Transform => of::<TransformParams>(),
        Kind::Train => of::<TrainParams>(),
        Kind::Evaluate => of::<EvaluateParams>(),
        Kind::Masking => of::<MaskingParams>(),
        Kind::Saliency => of::<SaliencyParams>(),
        Kind::Table => of::<TableSpec>(),
        Kind::Figure => without_tag(of::<FigureSpec>()),
        Kind::Command => of::<CommandParams>(),
    })
}

/// The parameter that says what a figure draws, and the word that it has where nothing is said.
const DRAW: (&str, &str) = ("draw", "curves");

/// The schema of a figure, whose first variant needs no word to be told apart.
fn without_tag(mut schema: Json) -> Json {
    for list in ["oneOf", "anyOf"] {
        if let Some(Json::Array(required)) = schema.pointer_mut(&format!("/{list}/0/required")) {
            required.retain(|name| name != DRAW.0);
        }
    }
    schema
}

/// The names of a kind's parameters, those of every variant.
pub(super) fn names(kind: Kind) -> Vec<&'static str> {
    fn collect(schema: &'static Json, root: &'static Json, names: &mut Vec<&'static str>) {
        if let Some(reference) = schema.get("$ref").and_then(Json::as_str)
            && let Some(target) = root.pointer(reference.trim_start_matches('#'))
        {
            collect(target, root, names);
        }
        names.extend(
            schema
                .get("properties")
                .and_then(Json::as_object)
                .into_iter()
                .flat_map(|map| map.keys())
                .map(String::as_str),
        );
        for choice in schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Json::as_array).into_iter().flatten()
        {
            collect(choice, root, names);
        }
    }
    let mut names = Vec::new();
    collect(schema(kind), schema(kind), &mut names);
    names.sort_unstable();
    names.dedup();
    names
}

/// The parameters of a kind that tell variants apart (`attack`, `op`): those whose schema names one word.
pub(super) fn tags(kind: Kind) -> &'static [String] {
    static TAGS: [OnceLock<Vec<String>>; Kind::ALL.len()] = [const { OnceLock::new() }; Kind::ALL.len()];
    fn collect(schema: &Json, tags: &mut Vec<String>) {
        match schema {
            Json::Object(map) => {
                for (name, property) in map.get("properties").and_then(Json::as_object).into_iter().flatten() {
                    if property.get("const").is_some() {
                        tags.push(name.clone());
                    }
                }
                map.values().for_each(|inner| collect(inner, tags));
            }
            Json::Array(items) => items.iter().for_each(|inner| collect(inner, tags)),
            _ => {}
        }
    }
    TAGS[kind as usize].get_or_init(|| {
        let mut tags = Vec::new();
        collect(schema(kind), &mut tags);
        tags.sort_unstable();
        tags.dedup();
        tags
    })
}

/// Reads the parameters of one instance.
pub(super) fn read(kind: Kind, value: &Value, origin: &Origin) -> Result<Params, Vec<Problem>> {
    let mut filled = Cow::Borrowed(value);
    if kind == Kind::Figure
        && let Value::Mapping(map) = value
        && !map.contains_key(DRAW.0)
    {
        let mut map = map.clone();
        map.insert(DRAW.0.into(), DRAW.1.into());
        filled = Cow::Owned(Value::Mapping(map));
    }
    let value = filled.as_ref();
    let problems = check::check(schema(kind), value, origin, format!("a stage of kind `{kind}`"));
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut reader = Reading { origin, problems: Vec::new() };
    let mut sources = Vec::new();
    let mut declared_outputs = BTreeMap::new();
    let mut texts = Vec::new();
    let json = match kind {
        Kind::Dataset => reader.typed::<DatasetParams>(value).and_then(|mut params| {
            sources = reader.take_sources(&mut params);
            reader.check_dataset(&params);
            reader.canonical(&params)
        }),
        Kind::File => reader.typed::<FileParams>(value).and_then(|mut params| {
            let source = std::mem::take(&mut params.source);
            reader.check_source(&source, &[key("source")]);
            sources.push((FILE_SLOT.to_owned(), source, origin.path(&[key("source")])));
            reader.canonical(&params)
        }),
        Kind::Transform => reader.typed::<TransformParams>(value).and_then(|params| reader.canonical(&params)),
        Kind::Train => reader.typed::<TrainParams>(value).and_then(|params| {
            reader.check_net(&params.net);
            reader.check_attack("adversary", &params.adversary);
            reader.check_method(&params);
            reader.canonical(&params)
        }),
        Kind::Evaluate => reader.typed::<EvaluateParams>(value).and_then(|params| {
            reader.check_attack("attack", &params.attack);
            reader.canonical(&params)
        }),
        Kind::Masking => reader.typed::<MaskingParams>(value).and_then(|params| reader.canonical(&params)),
        Kind::Saliency => reader.typed::<SaliencyParams>(value).and_then(|params| {
            if let Some(problem) = params.images.problem() {
                reader.problem(&[key("images")], format!("`images` {problem}"), None);
            }
            reader.canonical(&params)
        }),
        Kind::Table => reader.typed::<TableSpec>(value).and_then(|params| {
            sources = reader.published(&params);
            reader.canonical(&params)
        }),
        Kind::Figure => reader.typed::<FigureSpec>(value).and_then(|params| reader.canonical(&params)),
        Kind::Command => reader.typed::<CommandParams>(value).and_then(|params| {
            for (index, name) in params.files.iter().enumerate() {
                let source = Source { path: Some(name.clone()), ..Source::default() };
                let trail = [key("files"), Step::Index(index)];
                sources.push((format!("file:{name}"), source, origin.path(&trail)));
            }
            declared_outputs.clone_from(&params.outputs);
            reader.check_outputs(&params);
            texts = command::texts(&params);
            reader.canonical(&params)
        }),
    };
    match json {
        Some(json) if reader.problems.is_empty() => Ok(Params { json, sources, declared_outputs, texts }),
        _ => Err(reader.problems),
    }
}

/// The slot of a `file` stage's one source.
const FILE_SLOT: &str = "file";

fn key(name: &str) -> Step {
    Step::Key(name.to_owned())
}

struct Reading<'a> {
    origin: &'a Origin<'a>,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    fn problem(&mut self, trail: &[Step], message: impl Into<String>, help: Option<&str>) {
        let mut problem = Problem::at(self.origin.place(trail, Part::Value), message, "here");
        problem.help = help.map(str::to_owned);
        self.problems.push(problem);
    }

    fn typed<T: DeserializeOwned>(&mut self, value: &Value) -> Option<T> {
        serde_path_to_error::deserialize(value)
            .map_err(|error| {
                let step = |segment: &Segment| match segment {
                    Segment::Map { key } => Some(Step::Key(key.clone())),
                    Segment::Seq { index } => Some(Step::Index(*index)),
                    Segment::Enum { .. } | Segment::Unknown => None,
                };
                let trail: Vec<Step> = error.path().iter().map_while(step).collect();
                self.problem(&trail, error.inner().to_string(), None);
            })
            .ok()
    }

    fn canonical(&mut self, params: &impl Serialize) -> Option<Json> {
        serde_json::to_value(params).map_err(|error| self.problem(&[], error.to_string(), None)).ok()
    }

    /// Where a file lies is no part of a stage's key, only what it holds: sources leave the parameters and become inputs.
    fn take_sources(&mut self, params: &mut DatasetParams) -> Vec<(String, Source, YamlPath)> {
        let mut sources = Vec::new();
        for (names, source) in params.sources() {
            let trail: Vec<Step> = names.iter().map(|name| key(name)).collect();
            let source = std::mem::take(source);
            self.check_source(&source, &trail);
            sources.push((names.join("."), source, self.origin.path(&trail)));
        }
        sources
    }

    fn published(&self, params: &TableSpec) -> Vec<(String, Source, YamlPath)> {
        let Some(published) = &params.published else { return Vec::new() };
        let trail: &[&str] = match published {
            PublishedSpec::File(_) => &["published"],
            PublishedSpec::Detailed(_) => &["published", "file"],
        };
        let source = |slot: &str, file: &str, trail: &[&str]| {
            let source = Source { path: Some(file.to_owned()), ..Source::default() };
            let trail: Vec<Step> = trail.iter().map(|name| key(name)).collect();
            (slot.to_owned(), source, self.origin.path(&trail))
        };
        let anomalies = published.anomalies().map(|file| source(ANOMALIES, file, &["published", "anomalies"]));
        [source(NUMBERS, published.file(), trail)].into_iter().chain(anomalies).collect()
    }

    fn check_source(&mut self, source: &Source, trail: &[Step]) {
        let has_digest = source.published().is_some();
        let at = |name: &str| [trail, &[key(name)]].concat();
        match (&source.path, &source.url) {
            (Some(_), Some(_)) => {
                self.problem(trail, "a source has a `path` or a `url`, not both", Some("remove one"));
            }
            (None, None) => {
                self.problem(trail, "a source needs a `path` or a `url`", Some("add `path: FILE`"));
            }
            (Some(_), None) if !source.mirrors.is_empty() => {
                self.problem(
                    &at("mirrors"),
                    "`mirrors` are further places of a `url`, and there is none",
                    Some("remove them"),
                );
            }
            (None, Some(_)) if source.by_hand.is_some() => {
                let help = "write `path:`, where the file is to be put, in place of `url:`";
                self.problem(
                    &at("by_hand"),
                    "a source that is fetched `by_hand` has a `path`, not a `url`",
                    Some(help),
                );
            }
            (None, Some(_)) if !has_digest => {
                let help = "add `sha256:` (or `md5:`) as its publisher gives it, so that other bytes are refused";
                self.problem(trail, "a source that is fetched needs a digest", Some(help));
            }
            _ => {}
        }
        for (name, digest, length) in [("sha256", &source.sha256, 64), ("md5", &source.md5, 32)] {
            let Some(text) = digest else { continue };
            let what = if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                "this has other characters".to_owned()
            } else if text.len() != length {
                format!("this has {}", text.len())
            } else {
                continue;
            };
            let help = "copy it from its publisher, or from the output of `sha256sum` or `md5sum`";
            let message = format!("`{name}` must be {length} hexadecimal digits; {what}");
            self.problem(&at(name), message, Some(help));
        }
    }

    fn check_dataset(&mut self, params: &DatasetParams) {
        match params {
            DatasetParams::Caltech256 { resize, center_crop, .. } if center_crop > resize => {
                let message =
                    format!("`center_crop` takes {center_crop} pixels of images whose shorter side has {resize}");
                self.problem(&[key("center_crop")], message, Some("raise `resize`, or lower `center_crop`"));
            }
            DatasetParams::ImageFolder { resize, center_crop, test, test_share, whole, classes, .. } => {
                if let (Some(resize), Some(center_crop)) = (resize, center_crop)
                    && center_crop > resize
                {
                    let message =
                        format!("`center_crop` takes {center_crop} pixels of images whose shorter side has {resize}");
                    self.problem(&[key("center_crop")], message, Some("raise `resize`, or lower `center_crop`"));
                }
                if *whole && center_crop.is_none() {
                    let help = "add `center_crop:`, the side of what is seen of them";
                    self.problem(&[key("whole")], "images that are kept `whole` need a `center_crop`", Some(help));
                }
                if test.is_some() && test_share.is_some() {
                    let message = "a data set that has a `test` needs no `test_share`";
                    self.problem(&[key("test_share")], message, Some("remove one"));
                }
                if test.is_none() && test_share.is_none() && *classes != Classes::None {
                    let help = "add `test_share: 0.2`, or the `test` images, or `test_share: 0` for a set without any";
                    self.problem(&[], "a data set of classes needs a `test` or a `test_share`", Some(help));
                }
            }
            _ => {}
        }
    }

    fn check_net(&mut self, net: &Net) {
        let (mean, std) = net.normalisation();
        let at = |name: &str| [key("net"), key(name)];
        if let Net::Resnet { blocks, .. } = net
            && (blocks.is_empty() || blocks.contains(&0))
        {
            let message = "`blocks` needs at least one group, each with at least one block";
            self.problem(&at("blocks"), message, None);
        }
        if let Net::Wideresnet(net) = net
            && !(net.depth.max(4) - 4).is_multiple_of(6)
        {
            let message = format!("no wide residual network has {} layers", net.depth);
            self.problem(&at("depth"), message, Some("its depth is 6 n + 4: 10, 16, 22, 28, …"));
        }
        if mean.len() != std.len() {
            self.problem(&at("std"), "`mean` and `std` must have one number each for every channel", None);
        }
        if std.iter().any(|std| std.get() <= 0.0) {
            self.problem(&at("std"), "a standard deviation must be above 0", None);
        }
    }

    fn check_attack(&mut self, name: &str, attack: &Attack) {
        if let Err(problem) = attack.check() {
            let trail: Vec<Step> = std::iter::once(name).chain(problem.name.split('.')).map(key).collect();
            self.problem(&trail, format!("`{}` {}", problem.name, problem.problem), None);
        }
    }

    fn check_method(&mut self, params: &TrainParams) {
        if !params.method.is_standard() && !matches!(params.adversary, Attack::None(_)) {
            let help = "remove `adversary`, or remove `method` to train on what `adversary` makes";
            self.problem(&[key("adversary")], "this `method` brings its own adversary", Some(help));
        }
    }

    fn check_outputs(&mut self, params: &CommandParams) {
        let trail = [key("outputs")];
        if params.outputs.is_empty() {
            let help = "name what it writes: `outputs: {numbers: numbers.csv}`";
            self.problem(&trail, "a command needs at least one output", Some(help));
        }
        let mut files: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, file) in &params.outputs {
            let trail = [key("outputs"), key(name)];
            let plain = !file.is_empty()
                && !file.starts_with('/')
                && !file.split('/').any(|part| [".", "..", ""].contains(&part));
            if !plain {
                let message =
                    format!("output `{name}` must be a relative path inside the program's folder, not `{file}`");
                let help = "a program runs in an empty folder of its own; name a file in it, such as `numbers.csv`";
                self.problem(&trail, message, Some(help));
            }
            if let Some(first) = files.insert(file, name) {
                let message = format!("outputs `{first}` and `{name}` are the same file, `{file}`");
                self.problem(&trail, message, Some("each output is a file of its own"));
            }
        }
        let is_empty = match &params.run {
            crate::kinds::Run::Program(words) => words.first().is_none_or(String::is_empty),
            crate::kinds::Run::Shell(line) => line.trim().is_empty(),
        };
        if is_empty {
            let help = "write a line for the shell, or a program and its arguments as a list";
            self.problem(&[key("run")], "`run` names no program", Some(help));
        }
    }
}

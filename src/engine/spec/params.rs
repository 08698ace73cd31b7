//! Converts a stage's parameters from YAML to the canonical form that is hashed.
//!
//! Checks them against the kind's schema, reads them as the kind's type (which fills in defaults), and checks the rules
//! that a schema cannot express.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use serde_path_to_error::Segment;
use serde_yaml::Value;

use super::diagnostics::Diagnostics;
use super::origin::Origin;
use super::poison::has_unknown;
use super::problem::{Problem, nearest};
use super::schema_check;
use super::slots::{ANOMALIES, NUMBERS};
use super::source::{Step, YamlPath};
use super::validate::{Validator, key};
use crate::number::Real;
use crate::stage_kinds::{
    CommandOutput, CommandParams, DatasetParams, EvaluateParams, FigureSpec, FileParams, FourierMapParams,
    MaskingParams, PretrainedParams, PublishedSpec, RandomisedParams, SaliencyParams, Source, StageKind, TableSpec,
    TrainParams, TransformParams, Way, WorstCaseParams,
};

/// The parameters of one instance.
#[derive(Clone, Default)]
pub(super) struct Params {
    /// Canonical parameters. Those of tables and figures are still as the author wrote them.
    pub json: Arc<Json>,
    /// Files that the stage reads: slot, source, and path to the source.
    pub sources: Vec<(String, Source, YamlPath)>,
    /// The outputs by name, if the author declares them.
    pub declared_outputs: BTreeMap<String, CommandOutput>,
}

/// Returns the JSON schema of a kind's parameters.
pub fn schema(kind: StageKind) -> &'static Json {
    static SCHEMAS: [OnceLock<Json>; StageKind::ALL.len()] = [const { OnceLock::new() }; StageKind::ALL.len()];
    fn of<T: JsonSchema>() -> Json {
        SchemaGenerator::default().into_root_schema_for::<T>().to_value()
    }
    SCHEMAS[kind as usize].get_or_init(|| match kind {
        StageKind::Dataset => of::<DatasetParams>(),
        StageKind::File => of::<FileParams>(),
        StageKind::Transform => of::<TransformParams>(),
        StageKind::Train => of::<TrainParams>(),
        StageKind::Pretrained => of::<PretrainedParams>(),
        StageKind::Randomised => of::<RandomisedParams>(),
        StageKind::Evaluate => of::<EvaluateParams>(),
        StageKind::WorstCase => of::<WorstCaseParams>(),
        StageKind::Masking => of::<MaskingParams>(),
        StageKind::Saliency => of::<SaliencyParams>(),
        StageKind::FourierMap => of::<FourierMapParams>(),
        StageKind::Table => of::<TableSpec>(),
        StageKind::Figure => without_tag(of::<FigureSpec>()),
        StageKind::Command => of::<CommandParams>(),
    })
}

/// The parameter that selects the type of a figure, and its default.
const DRAW: (&str, &str) = ("draw", "curves");

/// Makes the tag of a figure's first variant optional in the schema.
fn without_tag(mut schema: Json) -> Json {
    for list in ["oneOf", "anyOf"] {
        if let Some(Json::Array(required)) = schema.pointer_mut(&format!("/{list}/0/required")) {
            required.retain(|name| name != DRAW.0);
        }
    }
    schema
}

/// Returns the names of a kind's parameters across all variants.
pub(super) fn names(kind: StageKind) -> Vec<&'static str> {
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

/// Returns the parameters of a kind that select a variant (`attack`, `op`): those whose schema is a constant.
pub(super) fn tags(kind: StageKind) -> &'static [String] {
    static TAGS: [OnceLock<Vec<String>>; StageKind::ALL.len()] = [const { OnceLock::new() }; StageKind::ALL.len()];
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

/// Returns the key of a figure that is probably a misspelt `draw`.
fn misspelt_draw(kind: StageKind, value: &Value) -> Option<&str> {
    let known = names(kind);
    let mut keys = value.as_mapping()?.keys().filter_map(Value::as_str);
    keys.find(|key| !known.contains(key) && nearest(key, known.iter().copied()) == Some(DRAW.0))
}

/// Reads the parameters of one instance; returns `None` if some are unknown or invalid, which it reports.
pub(super) fn read(kind: StageKind, value: &Value, origin: &Origin, notes: &mut Diagnostics) -> Option<Params> {
    let mut filled = Cow::Borrowed(value);
    if kind == StageKind::Figure
        && let Value::Mapping(map) = value
        && !map.contains_key(DRAW.0)
    {
        let mut map = map.clone();
        map.insert(DRAW.0.into(), DRAW.1.into());
        filled = Cow::Owned(Value::Mapping(map));
    }
    let value = filled.as_ref();
    let mut problems = schema_check::check(schema(kind), value, origin, format!("a stage of kind `{kind}`"));
    if let (Cow::Owned(_), Some(key)) = (&filled, misspelt_draw(kind, value)) {
        // What the other parameters mean is not known then.
        problems.retain(|problem| problem.message.contains(&format!("`{key}`")));
    }
    let params = if problems.is_empty() && !has_unknown(value) && !origin.lost.has_parameters() {
        let mut reader = Reading { origin, sense: Validator::new(origin) };
        let params = reader.read(kind, value);
        problems = reader.sense.problems;
        params.filter(|_| problems.is_empty())
    } else {
        let mut sense = Validator::new(origin);
        sense.of_parts(kind, value);
        // Both checks report a number that is out of range.
        let is_new = |problem: &Problem| problems.iter().all(|known| known.place != problem.place);
        let new: Vec<Problem> = sense.problems.into_iter().filter(is_new).collect();
        problems.extend(new);
        None
    };
    problems.into_iter().for_each(|problem| notes.tell(problem));
    params
}

/// Returns a parameter as it is written if it is a fraction.
fn fraction(value: &Value, name: &str) -> Option<String> {
    let text = value.get(name)?.as_str()?.trim();
    (text.contains('/') && Real::parse(text).is_some()).then(|| text.to_owned())
}

/// The slot of the single source of a `file` stage.
const FILE_SLOT: &str = "file";

struct Reading<'a> {
    origin: &'a Origin<'a>,
    sense: Validator<'a>,
}

impl Reading<'_> {
    /// Reads the parameters from a value that matches the schema of its kind.
    fn read(&mut self, kind: StageKind, value: &Value) -> Option<Params> {
        let mut sources = Vec::new();
        let mut declared_outputs = BTreeMap::new();
        let json = match kind {
            StageKind::Dataset => {
                let mut params = self.typed::<DatasetParams>(value)?;
                self.sense.check_dataset(&params);
                sources = self.take_sources(&mut params);
                self.canonical(&params)
            }
            StageKind::File => {
                let mut params = self.typed::<FileParams>(value)?;
                let source = std::mem::take(&mut params.source);
                self.sense.check_source(&source, &[key("source")]);
                sources.push((FILE_SLOT.to_owned(), source, self.origin.path(&[key("source")])));
                self.canonical(&params)
            }
            StageKind::Transform => {
                let params = self.typed::<TransformParams>(value)?;
                if let TransformParams::Fourier(fourier) = &params {
                    self.sense.check_fourier(fourier);
                }
                self.canonical(&params)
            }
            StageKind::Train => {
                let params = self.typed::<TrainParams>(value)?;
                self.sense.check_training(&params);
                self.canonical(&params)
            }
            StageKind::Pretrained => {
                let params = self.typed::<PretrainedParams>(value)?;
                self.sense.check_pretrained(&params);
                self.canonical(&params)
            }
            StageKind::Randomised => {
                let params = self.typed::<RandomisedParams>(value)?;
                if params.down_to.is_empty() {
                    let help = Some("write `conv1`, say, or the name of another layer");
                    self.sense.problem(&[key("down_to")], "`down_to` is the name of a layer; this is empty", help);
                }
                self.canonical(&params)
            }
            StageKind::Evaluate => {
                let params = self.typed::<EvaluateParams>(value)?;
                self.sense.check_attack("attack", &params.attack);
                self.sense.check_reach(&params.attack);
                self.sense.check_radii(&params);
                self.canonical(&params)
            }
            StageKind::WorstCase => {
                let params = self.typed::<WorstCaseParams>(value)?;
                self.canonical(&params)
            }
            StageKind::Masking => {
                let mut params = self.typed::<MaskingParams>(value)?;
                params.eps_written = fraction(value, "eps");
                self.sense.check_masking(&params);
                self.canonical(&params)
            }
            StageKind::Saliency => {
                let params = self.typed::<SaliencyParams>(value)?;
                self.sense.check_images(&params.images);
                self.canonical(&params)
            }
            StageKind::FourierMap => {
                let params = self.typed::<FourierMapParams>(value)?;
                self.canonical(&params)
            }
            StageKind::Table => {
                let params = self.typed::<TableSpec>(value)?;
                sources = self.published(params.published.as_ref());
                self.canonical(&params)
            }
            StageKind::Figure => {
                let params = self.typed::<FigureSpec>(value)?;
                if let FigureSpec::Curves(curves) = &params {
                    sources = self.published(curves.published.as_ref());
                }
                self.canonical(&params)
            }
            StageKind::Command => {
                let params = self.typed::<CommandParams>(value)?;
                for (index, name) in params.files.iter().enumerate() {
                    let source = Source { path: Some(name.clone()), ..Source::default() };
                    let trail = [key("files"), Step::Index(index)];
                    sources.push((format!("file:{name}"), source, self.origin.path(&trail)));
                }
                declared_outputs.clone_from(&params.outputs);
                self.sense.check_outputs(&params.outputs);
                self.sense.check_run(&params.run);
                self.sense.check_environment(&params.env, &params.pass_env);
                self.canonical(&params)
            }
        };
        Some(Params { json: Arc::new(json?), sources, declared_outputs })
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
                self.sense.problem(&trail, error.inner().to_string(), None);
            })
            .ok()
    }

    fn canonical(&mut self, params: &impl Serialize) -> Option<Json> {
        serde_json::to_value(params).map_err(|error| self.sense.problem(&[], error.to_string(), None)).ok()
    }

    /// Moves the sources out of the parameters into inputs: the key covers a file's content, not its location.
    fn take_sources(&mut self, params: &mut DatasetParams) -> Vec<(String, Source, YamlPath)> {
        let mut sources = Vec::new();
        for (way, source) in params.sources() {
            let step = |way: &Way| match way {
                Way::Key(name) => key(name),
                Way::Index(index) => Step::Index(*index),
            };
            let trail: Vec<Step> = way.iter().map(step).collect();
            let slot = way.iter().map(Way::to_string).collect::<Vec<_>>().join(".");
            let source = std::mem::take(source);
            self.sense.check_source(&source, &trail);
            sources.push((slot, source, self.origin.path(&trail)));
        }
        sources
    }

    fn published(&self, published: Option<&PublishedSpec>) -> Vec<(String, Source, YamlPath)> {
        let Some(published) = published else { return Vec::new() };
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
}

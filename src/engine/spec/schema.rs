//! JSON schema of a pipeline file, for editors: the keys of the file and of a stage, around the schemas of each kind.
//!
//! Every value may also be a `${…}`. Nothing is required, because defaults and included files may supply it; the parser
//! reports missing values.

use serde_json::{Map, Value as Json, json};

use super::allow::Lint;
use super::params;
use crate::numerics::Numerics;
use crate::stage_kinds::StageKind;

/// Returns the schema of a whole pipeline file, JSON Schema 2020-12.
pub fn pipeline_schema() -> Json {
    let mut definitions = Map::new();
    for kind in StageKind::ALL {
        let mut schema = params::schema(kind).clone();
        if let Some(object) = schema.as_object_mut() {
            object.remove("$schema");
            if let Some(Json::Object(inner)) = object.remove("$defs") {
                for (name, mut definition) in inner {
                    allow_references(&mut definition);
                    definitions.insert(name, definition);
                }
            }
        }
        allow_references(&mut schema);
        definitions.insert(parameters_of(kind), schema);
    }
    definitions.insert("reference".to_owned(), reference_schema());
    definitions.insert("stage".to_owned(), stage_schema());
    let of_kind =
        |kind: StageKind| (kind.name().to_owned(), json!({"$ref": format!("#/$defs/{}", parameters_of(kind))}));
    let defaults: Map<String, Json> = StageKind::ALL.map(of_kind).into_iter().collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A pipeline of atflow",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "include": {
                "description": "Files whose parameters and stages belong to this pipeline, relative to this file.",
                "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]
            },
            "defaults": {
                "description": "Parameters by kind that the stages of this file have unless they say otherwise.",
                "type": "object", "additionalProperties": false, "properties": defaults
            },
            "pipeline": {"description": "Its name: names the folder of its results. The file's name if there is none.", "type": "string", "pattern": NAME},
            "allow": allow_schema("of this file"),
            "numerics": numerics_schema(),
            "seeds": {
                "description": "The seeds that the pipeline is run with: a number of them, or a list. Stages that read the parameter `seed` run once \
                    for each; tables and curves average over them.",
                "anyOf": [{"type": "integer", "minimum": 1, "maximum": 100}, {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}]
            },
            "params": {"description": "Values that stages take as `${name}` and that `--set name=value` overrides.", "type": "object"},
            "profiles": {
                "description": "Named sets of parameters, for `--profile`.",
                "type": "object",
                "additionalProperties": {"type": "object", "properties": {"mockup": {
                    "description": "Whether runs with the profile are mock-ups, whose numbers mean nothing: tables and figures say so, and \
                        have no verdicts on published numbers.",
                    "type": "boolean"
                }}}
            },
            "stages": {
                "type": "object", "minProperties": 1, "propertyNames": {"pattern": NAME},
                "additionalProperties": {"$ref": "#/$defs/stage"}
            }
        },
        "$defs": definitions
    })
}

const NAME: &str = "^[A-Za-z0-9_-]+$";

fn parameters_of(kind: StageKind) -> String {
    format!("parameters-of-{kind}")
}

fn reference_schema() -> Json {
    json!({
        "description": "A parameter or an axis of the matrix, `${name}` or `${name.part}`.",
        "type": "string", "pattern": r"\$\{[^}]+\}"
    })
}

fn allow_schema(whose: &str) -> Json {
    json!({
        "description": format!("Warnings {whose} that are meant, and are not told."),
        "type": "array", "items": {"enum": Lint::ALL.map(Lint::name)}
    })
}

fn numerics_schema() -> Json {
    json!({
        "description": "Which kernels a worker computes with on a CPU: `portable` gives the same bytes on every x86-64 processor with AVX2 and is the \
            default, `native` takes all that the processor has. At the top of a file it holds for the file's stages.",
        "anyOf": [{"enum": Numerics::ALL.map(Numerics::name)}, {"$ref": "#/$defs/reference"}]
    })
}

fn stage_schema() -> Json {
    let names: Vec<&str> = StageKind::ALL.iter().map(|kind| kind.name()).collect();
    let one_or_more = json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]});
    let of_kind = |kind: StageKind| {
        let mut then = Map::new();
        then.insert("with".to_owned(), json!({"$ref": format!("#/$defs/{}", parameters_of(kind))}));
        if kind != StageKind::Command {
            let slot = |slot: &crate::stage_kinds::Slot| {
                (slot.name.to_owned(), json!({"description": format!("Takes {}.", slot.takes.name())}))
            };
            let slots: Map<String, Json> = kind.slots().iter().map(slot).collect();
            then.insert("needs".to_owned(), json!({"properties": slots, "additionalProperties": false}));
        }
        if !kind.takes_seed() {
            then.insert("seed".to_owned(), json!(false));
            then.insert("threads".to_owned(), json!(false));
        }
        if !kind.needs_worker() {
            then.insert("gpu".to_owned(), json!(false));
            then.insert("numerics".to_owned(), json!(false));
        }
        json!({"if": {"properties": {"kind": {"const": kind.name()}}, "required": ["kind"]}, "then": {"properties": then}})
    };
    json!({
        "type": "object",
        "required": ["kind"],
        "additionalProperties": false,
        "properties": {
            "kind": {"description": "What the stage does.", "enum": names},
            "allow": allow_schema("of the stage"),
            "about": {"description": "What it is there for, in words.", "type": "string"},
            "matrix": {
                "description": "Axes; the stage has an instance for each combination of their values.",
                "type": "object",
                "propertyNames": {"pattern": NAME},
                "additionalProperties": {"anyOf": [
                    {"type": "array", "minItems": 1},
                    {"type": "object", "required": ["each"], "additionalProperties": false, "properties": {"each": one_or_more}},
                    {"description": "Labels and values.", "type": "object", "minProperties": 1},
                    {"$ref": "#/$defs/reference"}
                ]}
            },
            "include": {"description": "Combinations beside those of the matrix.", "type": "array", "items": {"type": "object"}},
            "exclude": {"description": "Combinations that are left out.", "type": "array", "items": {"type": "object"}},
            "needs": {
                "description": "Inputs: slots, and the stages, instances or outputs that fill them.",
                "type": "object", "additionalProperties": one_or_more
            },
            "with": {"description": "The parameters of its kind.", "type": "object"},
            "seed": {
                "description": "The seed of its random draws; 0 if there is none. Where the parameters draw nothing, it is of no use: leave it out.",
                "anyOf": [{"type": "integer", "minimum": 0}, {"$ref": "#/$defs/reference"}]
            },
            "numerics": numerics_schema(),
            "time_limit": {
                "description": "How long it may run: a number and its unit, `90 s`, `10 min`, `2 h`.",
                "type": "string"
            },
            "threads": {
                "description": "CPU threads that it computes with; 1 if it does not say.",
                "anyOf": [{"type": "integer", "minimum": 1}, {"$ref": "#/$defs/reference"}]
            },
            "gpu": {
                "description": "The share of a GPU that it takes where there is one; 1 if it does not say. Stages whose shares fit run at once.",
                "anyOf": [
                    {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                    {"type": "string", "pattern": "^[0-9.]+ ?/ ?[0-9.]+$"},
                    {"$ref": "#/$defs/reference"}
                ]
            }
        },
        "allOf": StageKind::ALL.map(of_kind)
    })
}

/// Allows a `${…}` for every value inside a schema, and makes nothing required.
fn allow_references(schema: &mut Json) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("required");
    // Without required properties, a value may match several variants.
    if let Some(variants) = object.remove("oneOf") {
        object.insert("anyOf".to_owned(), variants);
    }
    for (key, value) in object.iter_mut() {
        match (key.as_str(), value) {
            ("properties", Json::Object(properties)) => properties.values_mut().for_each(or_reference),
            ("items" | "additionalProperties", value) if value.is_object() => or_reference(value),
            ("anyOf" | "allOf", Json::Array(schemas)) => schemas.iter_mut().for_each(allow_references),
            _ => {}
        }
    }
}

fn or_reference(schema: &mut Json) {
    allow_references(schema);
    // The tag that selects a variant stays a constant: a reference in its place would hide the variant.
    if schema.get("const").is_some() {
        return;
    }
    let description = schema.as_object_mut().and_then(|object| object.remove("description"));
    let default = schema.as_object_mut().and_then(|object| object.remove("default"));
    let mut both = json!({"anyOf": [schema.take(), {"$ref": "#/$defs/reference"}]});
    for (name, value) in [("description", description), ("default", default)] {
        if let Some(value) = value {
            both[name] = value;
        }
    }
    *schema = both;
}

#[cfg(test)]
mod tests {
    use super::super::reader::TOP_KEYS;
    use super::super::stage::STAGE_KEYS;
    use super::*;

    fn keys(schema: &Json) -> Vec<&str> {
        let mut keys: Vec<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn it_has_the_keys_that_the_parser_knows() {
        let schema = pipeline_schema();
        let sorted = |keys: &[&'static str]| {
            let mut keys = keys.to_vec();
            keys.sort_unstable();
            keys
        };
        assert_eq!(keys(&schema), sorted(&TOP_KEYS));
        assert_eq!(keys(&schema["$defs"]["stage"]), sorted(&STAGE_KEYS));
    }

    #[test]
    fn no_two_types_share_a_name() {
        let mut seen: Map<String, Json> = Map::new();
        for kind in StageKind::ALL {
            for (name, definition) in params::schema(kind)["$defs"].as_object().into_iter().flatten() {
                let first = seen.entry(name.clone()).or_insert_with(|| definition.clone());
                assert_eq!(
                    first, definition,
                    "`{name}` of {kind} is another type in another kind: give one a name of its own"
                );
            }
        }
        assert!(seen.len() > 20 && !seen.contains_key("reference") && !seen.contains_key("stage"));
    }

    #[test]
    fn every_reference_leads_somewhere_and_values_may_be_substituted() {
        let schema = pipeline_schema();
        let text = schema.to_string();
        for target in text.split("\"$ref\":\"#/$defs/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(schema["$defs"].get(target).is_some(), "nothing is called {target}");
        }
        let epochs = &schema["$defs"]["parameters-of-train"]["properties"]["epochs"];
        assert_eq!(epochs["anyOf"][1]["$ref"], "#/$defs/reference", "{epochs}");
        assert!(epochs["description"].is_string());
    }
}

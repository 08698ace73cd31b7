//! The record of a stage: all that its outputs depend on, and the key that is the record's digest. The same record is
//! hashed, stored in the manifest and compared to say why a stage is stale, so an explanation cannot drift from the
//! key. Knows neither cache nor graph.
//!
//! Rules of the canonical encoding, which [`Action::canonical`] writes and `docs/cache-format.md` repeats:
//! - JSON without white space; the keys of every object in ascending order of their UTF-8 bytes;
//! - numbers that are real by their meaning are written as the shortest text that reads back to the same IEEE double,
//!   always with a point or an exponent (`0.5`, `1.0`, `1e-7`); counts and seeds as whole numbers;
//! - inputs by name, each the digest of its content with its algorithm (`blake3:…`; `sha256:…` or `md5:…` for a file
//!   that is known by what its publisher gives);
//! - no paths, times, hosts, devices or thread counts, and no names of stages but in the labels that tell several
//!   inputs of one slot apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::digest::Digest;
use crate::numerics::Numerics;
use crate::stage_kinds::StageKind;

/// Version of the record itself. Raising it makes every stage of every pipeline stale.
pub const RECORD_FORMAT: u32 = 1;

/// All that a stage's outputs depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// [`RECORD_FORMAT`].
    pub format: u32,
    /// What the stage does.
    pub kind: StageKind,
    /// The version of the kind's code ([`StageKind::version_for`]).
    pub version: u32,
    /// CPU kernels that the worker may use, for kinds that a worker runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numerics: Option<Numerics>,
    /// Canonical parameters, shared with the instance.
    pub params: Arc<Json>,
    /// The seed, for kinds that draw random numbers; for a command only where one is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Digests of the inputs' contents.
    pub inputs: BTreeMap<String, String>,
}

impl Action {
    /// The text that is hashed.
    pub fn canonical(&self) -> String {
        let Action { format, kind, version, numerics, params, seed, inputs } = self;
        // By hand and in ascending order of the keys: a plan writes thousands of these.
        let mut out = format!("{{\"format\":{format},\"inputs\":{{");
        for (index, (name, digest)) in inputs.iter().enumerate() {
            out.push_str(if index > 0 { "," } else { "" });
            write_text(name, &mut out);
            out.push(':');
            write_text(digest, &mut out);
        }
        out.push_str("},\"kind\":");
        write_text(kind.name(), &mut out);
        if let Some(numerics) = numerics {
            out.push_str(",\"numerics\":");
            write_text(numerics.name(), &mut out);
        }
        out.push_str(",\"params\":");
        write_canonical(params, &mut out);
        if let Some(seed) = seed {
            out.push_str(&format!(",\"seed\":{seed}"));
        }
        out.push_str(&format!(",\"version\":{version}}}"));
        out
    }

    /// The digest of all of it but what its inputs hold: as much of a stage as is known before they are made.
    pub fn shape(&self) -> Digest {
        let mut shape = self.clone();
        shape.inputs.values_mut().for_each(String::clear);
        Digest::of(shape.canonical().as_bytes())
    }

    /// The stage's key.
    pub fn key(&self) -> ActionKey {
        ActionKey(Digest::of(self.canonical().as_bytes()))
    }
}

/// Names what a stage computes: the digest of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActionKey(pub Digest);

impl std::fmt::Display for ActionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

fn write_canonical(value: &Json, out: &mut String) {
    match value {
        Json::Object(map) => {
            // Sorted here, whatever order the map keeps: a dependency could switch on insertion order.
            let mut entries: Vec<(&String, &Json)> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_text(key, out);
                out.push(':');
                write_canonical(value, out);
            }
            out.push('}');
        }
        Json::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Json::String(text) => write_text(text, out),
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// A text as JSON has it.
fn write_text(text: &str, out: &mut String) {
    if text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\' || byte == 0x7f) {
        out.push_str(&Json::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Action {
        Action {
            format: 1,
            kind: StageKind::Transform,
            version: 1,
            numerics: Some(Numerics::Portable),
            params: Arc::new(serde_json::json!({"op": "saturate", "level": 64.0})),
            seed: Some(0),
            inputs: BTreeMap::from([("data".to_owned(), format!("blake3:{}", Digest::of(b"abc")))]),
        }
    }

    #[test]
    fn the_encoding_is_pinned() {
        // A change here makes every cache in the world stale: raise RECORD_FORMAT and say why in the changelog.
        let digest = Digest::of(b"abc");
        let text = format!(
            r#"{{"format":1,"inputs":{{"data":"blake3:{digest}"}},"kind":"transform","numerics":"portable","params":{{"level":64.0,"op":"saturate"}},"seed":0,"version":1}}"#
        );
        assert_eq!(record().canonical(), text);
        assert_eq!(record().key().to_string(), GOLDEN);
        // What the engine runs has no numerics: its keys are as they were before there were any.
        let of_engine = Action { numerics: None, ..record() };
        assert_eq!(of_engine.canonical(), text.replace("\"numerics\":\"portable\",", ""));
        assert_eq!(of_engine.key().to_string(), GOLDEN_WITHOUT_NUMERICS);
    }

    #[test]
    fn the_encoding_is_json_with_sorted_keys() {
        let mut record = record();
        record.params = Arc::new(
            serde_json::json!({"run": "printf 'a\t\"b\"\\n' ü \u{7f}\u{1}", "a": [1, -2.5, null, true, {"z": {}, "b": "\n"}]}),
        );
        record.inputs.insert("x/0001/\"q\"".to_owned(), "blake3:".to_owned());
        for (seed, numerics) in [(None, None), (Some(u64::MAX), Some(Numerics::Native))] {
            (record.seed, record.numerics) = (seed, numerics);
            // serde_json keeps the keys of its maps sorted.
            assert_eq!(record.canonical(), serde_json::to_value(&record).unwrap().to_string());
        }
    }

    /// The canonical texts above, through `b3sum`.
    const GOLDEN: &str = "4efd7d89882c795ccfc9c716eb2e318332893cf01d05c5f70763d3a45925bd4a";
    const GOLDEN_WITHOUT_NUMERICS: &str = "1323e1bbe180098560bfa349f25095228213e48276b102125c35dfcbdcbe5603";

    #[test]
    fn a_record_survives_its_manifest() {
        let text = serde_json::to_string(&record()).unwrap();
        assert_eq!(serde_json::from_str::<Action>(&text).unwrap().key(), record().key());
    }

    #[test]
    fn every_field_changes_the_key() {
        let key = record().key();
        let changes: [fn(&mut Action); 8] = [
            |record| record.version = 2,
            |record| record.kind = StageKind::Train,
            |record| record.numerics = None,
            |record| record.numerics = Some(Numerics::Native),
            |record| record.seed = Some(1),
            |record| record.seed = None,
            |record| Arc::make_mut(&mut record.params)["level"] = Json::from(63.0),
            |record| _ = record.inputs.insert("other".into(), "blake3:".into()),
        ];
        for change in changes {
            let mut changed = record();
            change(&mut changed);
            assert_ne!(changed.key(), key);
        }
    }
}

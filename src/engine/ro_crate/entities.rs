//! The entities of a crate: flat JSON-LD objects that name each other. Knows no profile.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value as Json, json};

/// Characters that stay as they are in a path or a fragment; names of instances have no others but a few.
const KEPT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b'=').remove(b'@');

/// Returns a name as a part of an IRI.
pub(super) fn iri(name: &str) -> String {
    utf8_percent_encode(name, KEPT).to_string()
}

/// Entities by their `@id`. Their order is that of their ids, so it does not depend on the order in which they come.
#[derive(Debug, Default)]
pub(super) struct Entities {
    properties: BTreeMap<String, Map<String, Json>>,
    links: BTreeMap<String, BTreeMap<&'static str, BTreeSet<String>>>,
}

impl Entities {
    /// Adds an entity with its types and properties. One that is there keeps what it has, and takes what is new. A
    /// property that is null is left out.
    pub(super) fn add(&mut self, id: &str, types: &[&str], properties: Json) {
        let entity = self.properties.entry(id.to_owned()).or_default();
        let types = if let [only] = types { json!(only) } else { json!(types) };
        entity.entry("@type").or_insert(types);
        let Json::Object(properties) = properties else { return };
        for (name, value) in properties.into_iter().filter(|(_, value)| !value.is_null()) {
            entity.entry(name).or_insert(value);
        }
    }

    /// Makes a property of an entity name another entity; it may name several.
    pub(super) fn link(&mut self, from: &str, property: &'static str, to: &str) {
        self.links.entry(from.to_owned()).or_default().entry(property).or_default().insert(to.to_owned());
    }

    /// Returns the ids of the entities that have a type.
    pub(super) fn of_type(&self, wanted: &str) -> Vec<String> {
        let is_wanted = |entity: &Map<String, Json>| match &entity["@type"] {
            Json::Array(types) => types.iter().any(|one| one == wanted),
            one => one == wanted,
        };
        let wanted = self.properties.iter().filter(|(_, entity)| is_wanted(entity));
        wanted.map(|(id, _)| id.clone()).collect()
    }

    /// Returns all entities: the `first` ones, then the others by their ids.
    pub(super) fn into_list(mut self, first: &[&str]) -> Vec<Json> {
        let mut taken = Vec::new();
        for id in first {
            taken.extend(self.properties.remove_entry(*id));
        }
        let all: Vec<_> = taken.into_iter().chain(std::mem::take(&mut self.properties)).collect();
        all.into_iter().map(|(id, entity)| self.object(id, entity)).collect()
    }

    fn object(&mut self, id: String, mut entity: Map<String, Json>) -> Json {
        for (property, ids) in self.links.remove(&id).unwrap_or_default() {
            let mut links: Vec<Json> = ids.into_iter().map(|id| json!({ "@id": id })).collect();
            let value = if links.len() == 1 { links.remove(0) } else { links.into() };
            entity.insert(property.to_owned(), value);
        }
        entity.insert("@id".to_owned(), id.into());
        entity.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_are_merged_and_sorted() {
        let mut entities = Entities::default();
        entities.add("#b", &["File"], json!({ "name": "b", "size": null }));
        entities.add("#a", &["File", "HowTo"], json!({}));
        entities.add("#b", &["File"], json!({ "name": "other", "more": 1 }));
        entities.link("#b", "part", "#z");
        entities.link("#b", "part", "#a");
        entities.link("#a", "part", "#b");
        assert_eq!(entities.of_type("HowTo"), ["#a"]);
        let list = entities.into_list(&["#b"]);
        assert_eq!(
            list,
            [
                json!({ "@id": "#b", "@type": "File", "name": "b", "more": 1, "part": [{"@id": "#a"}, {"@id": "#z"}] }),
                json!({ "@id": "#a", "@type": ["File", "HowTo"], "part": {"@id": "#b"} }),
            ]
        );
        assert_eq!(iri("tested/a b#ö=1"), "tested/a%20b%23%C3%B6=1");
    }
}

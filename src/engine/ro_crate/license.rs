//! The licence of what is in a crate.

use serde_json::json;

use super::entities::{Entities, iri};

/// A licence, as the user named it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum License {
    /// The user named none: the crate says so.
    #[default]
    Unstated,
    /// An SPDX identifier, an address, or words.
    Named(String),
}

/// What a crate says if nobody named a licence.
const UNSTATED: &str = "The person who made this crate stated no licence. Ask them before you reuse its content.";

impl License {
    /// Adds the licence to a crate; returns its id.
    pub(super) fn add(&self, entities: &mut Entities) -> String {
        let (id, name, about) = match self {
            License::Unstated => ("#license".to_owned(), "no licence stated", UNSTATED),
            License::Named(name) if is_address(name) => (name.clone(), name.as_str(), "The licence of this crate."),
            License::Named(name) if is_spdx(name) => {
                (format!("https://spdx.org/licenses/{}", iri(name)), name.as_str(), "A licence by its SPDX identifier.")
            }
            License::Named(name) => ("#license".to_owned(), name.as_str(), "The licence in its owner's words."),
        };
        entities.add(&id, &["CreativeWork"], json!({ "name": name, "description": about }));
        id
    }
}

fn is_address(name: &str) -> bool {
    (name.starts_with("https://") || name.starts_with("http://")) && !name.contains(char::is_whitespace)
}

/// Whether a name has the form of an SPDX identifier (SPDX 2.3, annex A).
fn is_spdx(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-.+".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_is_an_spdx_identifier_an_address_or_words() {
        let id = |license: License| license.add(&mut Entities::default());
        assert_eq!(id(License::Named("CC-BY-4.0".to_owned())), "https://spdx.org/licenses/CC-BY-4.0");
        assert_eq!(id(License::Named("https://example.org/l".to_owned())), "https://example.org/l");
        assert_eq!(id(License::Named("ask Ann".to_owned())), "#license");
        assert_eq!(id(License::Unstated), "#license");
    }
}

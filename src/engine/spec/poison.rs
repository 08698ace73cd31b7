//! Placeholder for a value that could not be determined; the cause has already been reported.
//!
//! Schema checks let it pass, so each mistake is reported once and hides no other. No file can contain it: it consists
//! of tags, and the file reader removes tags.

use serde_yaml::Value;
use serde_yaml::value::{Tag, TaggedValue};

/// The name of the tag. It starts with a character that YAML cannot contain.
const UNKNOWN: &str = "\u{0}unknown";

/// Returns the placeholder.
pub(super) fn unknown() -> Value {
    Value::Tagged(Box::new(TaggedValue { tag: Tag::new(UNKNOWN), value: Value::Null }))
}

/// The tag of a whole number too large for any type; it holds the number's text.
///
/// After a file is read, such numbers are reported and become unknown.
const TOO_LARGE: &str = "\u{0}too large";

/// Wraps a whole number too large for any type.
pub(super) fn too_large(digits: String) -> Value {
    Value::Tagged(Box::new(TaggedValue { tag: Tag::new(TOO_LARGE), value: Value::String(digits) }))
}

/// Returns whether a tag marks such a number.
pub(super) fn is_too_large_tag(tag: &Tag) -> bool {
    *tag == TOO_LARGE
}

/// Returns whether a value is unknown.
pub(super) fn is_unknown(value: &Value) -> bool {
    matches!(value, Value::Tagged(_))
}

/// Returns whether a tag marks an unknown value.
pub(super) fn is_unknown_tag(tag: &Tag) -> bool {
    *tag == UNKNOWN
}

/// Returns whether a value is unknown or contains one that is.
pub(super) fn has_unknown(value: &Value) -> bool {
    match value {
        Value::Tagged(_) => true,
        Value::Sequence(items) => items.iter().any(has_unknown),
        Value::Mapping(map) => map.values().any(has_unknown),
        _ => false,
    }
}

//! A value that nobody knows because something else is wrong, which is told already. It stands where the value would:
//! what is checked against a schema lets it pass, so that one mistake is told once and hides no other. No file can hold
//! it: tags, which it is made of, are taken off where files are read.

use serde_yaml::Value;
use serde_yaml::value::{Tag, TaggedValue};

/// The name of the tag. The character at its beginning is one that no YAML has.
const UNKNOWN: &str = "\u{0}unknown";

/// The value that stands for those that are not known.
pub(super) fn unknown() -> Value {
    Value::Tagged(Box::new(TaggedValue { tag: Tag::new(UNKNOWN), value: Value::Null }))
}

/// The name of the tag of a whole number that no type holds; its text stands in it. Those are told and unknown once a
/// file is read.
const TOO_LARGE: &str = "\u{0}too large";

/// A whole number that no type holds.
pub(super) fn too_large(digits: String) -> Value {
    Value::Tagged(Box::new(TaggedValue { tag: Tag::new(TOO_LARGE), value: Value::String(digits) }))
}

/// Whether a tag is that of such a number.
pub(super) fn is_too_large_tag(tag: &Tag) -> bool {
    *tag == TOO_LARGE
}

/// Whether a value is not known.
pub(super) fn is_unknown(value: &Value) -> bool {
    matches!(value, Value::Tagged(_))
}

/// Whether a tag is that of a value that is not known.
pub(super) fn is_unknown_tag(tag: &Tag) -> bool {
    *tag == UNKNOWN
}

/// Whether a value or one in it is not known.
pub(super) fn has_unknown(value: &Value) -> bool {
    match value {
        Value::Tagged(_) => true,
        Value::Sequence(items) => items.iter().any(has_unknown),
        Value::Mapping(map) => map.values().any(has_unknown),
        _ => false,
    }
}

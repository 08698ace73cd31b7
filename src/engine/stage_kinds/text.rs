//! A text that may be written as a number or as `true` or `false`.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_yaml::Number;

/// A text where a number or a truth value is one, too, in one spelling however it is written: `16` for 0x10, `0.001`
/// for 1e-3, `1.0` for 1.0, `true`. So a key does not depend on how its author wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Text(pub String);

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "number", "boolean"]})
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl Visitor<'_> for TextVisitor {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a text, a number, or true or false")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_bool<E>(self, flag: bool) -> Result<Text, E> {
                Ok(Text(flag.to_string()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }

            // The same spelling as that of a `${…}` within a text.
            fn visit_f64<E>(self, number: f64) -> Result<Text, E> {
                Ok(Text(Number::from(number).to_string()))
            }
        }

        deserializer.deserialize_any(TextVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_truth_values_have_one_spelling() {
        let texts: Vec<Text> =
            serde_yaml::from_str("[3, '3', 0x10, 1e-3, 0.0010, 1.0, -2, 1e21, true, 'True', ~x, 08]").unwrap();
        let texts: Vec<&str> = texts.iter().map(|text| &**text).collect();
        assert_eq!(texts, ["3", "3", "16", "0.001", "0.001", "1.0", "-2", "1e21", "true", "True", "~x", "08"]);
        assert_eq!(serde_json::to_string(&Text("3".to_owned())).unwrap(), "\"3\"");
        assert!(serde_yaml::from_str::<Text>("[1]").is_err() && serde_yaml::from_str::<Text>("~").is_err());
    }
}

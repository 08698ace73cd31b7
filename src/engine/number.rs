//! Numbers as authors write them: `0.25`, `4`, and fractions such as `8/255`. Knows nothing of where a number is used.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A finite real number. In a pipeline file it may be written as a fraction of two numbers, `8/255`;
/// in canonical form it is always the nearest IEEE double, so `0.5` and `1/2` are the same parameter.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Real(f64);

impl Real {
    /// Wraps a number.
    ///
    /// # Panics
    /// If it is not finite; numbers from outside come through [`Real::parse`] or serde, which refuse those.
    pub const fn new(value: f64) -> Self {
        assert!(value.is_finite());
        // Minus zero equals zero but is written differently: one number, one form.
        Real(if value == 0.0 { 0.0 } else { value })
    }

    /// The number.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// Reads a decimal number or a fraction of two; `None` if it is neither, or not finite.
    pub fn parse(text: &str) -> Option<Self> {
        let decimal = |text: &str| {
            let text = text.trim();
            let numeric = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b".+-eE".contains(&b));
            if numeric { text.parse::<f64>().ok() } else { None }
        };
        let value = match text.split_once('/') {
            Some((over, under)) => decimal(over)? / decimal(under)?,
            None => decimal(text)?,
        };
        value.is_finite().then(|| Real::new(value))
    }
}

impl fmt::Display for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Real {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Real {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Real;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number such as 0.25 or a fraction such as 8/255")
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Real, E> {
                if value.is_finite() {
                    Ok(Real::new(value))
                } else {
                    Err(E::invalid_value(de::Unexpected::Float(value), &self))
                }
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Real, E> {
                Ok(Real::new(value as f64))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Real, E> {
                Ok(Real::new(value as f64))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Real, E> {
                Real::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Real {
    fn schema_name() -> Cow<'static, str> {
        "Real".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number, or a fraction of two numbers such as 8/255.",
            "anyOf": [
                {"type": "number"},
                {"type": "string", "pattern": r"^\s*[-+0-9.eE]+\s*(/\s*[-+0-9.eE]+\s*)?$"},
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_and_decimals_of_one_value_are_one_number() {
        assert_eq!(Real::parse("8/255").unwrap().get(), 8.0 / 255.0);
        assert_eq!(Real::parse(" 1 / 2 "), Real::parse("0.5"));
        assert_eq!(Real::parse("-1e-3").unwrap().get(), -0.001);
        assert_eq!(serde_json::to_string(&Real::new(-0.0)).unwrap(), "0.0");
    }

    #[test]
    fn what_is_no_finite_number_is_refused() {
        for text in ["", "/", "8/", "/255", "8/0", "0/0", "1/2/3", "inf", "nan", "8/255x", "eight"] {
            assert_eq!(Real::parse(text), None, "{text}");
        }
    }
}

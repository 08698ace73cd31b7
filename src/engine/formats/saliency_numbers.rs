//! What was measured on saliency maps.

use serde::Deserialize;

use super::FormatError;

const ARTIFACT: &str = "measures of saliency maps";
const FORMAT: &str = "saliency-numbers/1";

/// Measures of saliency maps, as the output `numbers` of a `saliency` stage has them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SaliencyNumbers {
    format: String,
    /// Each measure of each model in each set.
    pub numbers: Vec<SaliencyNumber>,
}

/// A measure, summarised over images.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SaliencyNumber {
    /// The name of the measure, such as `gini`.
    pub measure: String,
    /// The label of the set.
    pub set: String,
    /// The label of the model.
    pub model: String,
    /// The label of the model whose maps are compared with those of `model`; nothing for measures of one.
    #[serde(default)]
    pub other: Option<String>,
    /// Mean over the images.
    pub mean: f64,
    /// Sample standard deviation over the images; nothing for a single one.
    pub sd: Option<f64>,
    /// Images that have the measure.
    pub n: u64,
}

impl SaliencyNumbers {
    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// [`FormatError::Json`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let unfit = |reason| FormatError::Json { artifact: ARTIFACT, reason };
        let numbers: Self = serde_json::from_slice(bytes).map_err(|error| unfit(error.to_string()))?;
        if numbers.format != FORMAT {
            return Err(unfit(format!("its format is `{}`, this version reads `{FORMAT}`", numbers.format)));
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_versions_and_other_files_are_refused() {
        let number = r#"{"measure": "l1", "set": "test", "model": "a", "other": "b", "mean": 0.5, "sd": null, "n": 1}"#;
        let file = |format: &str| format!(r#"{{"format": "{format}", "models": ["a", "b"], "numbers": [{number}]}}"#);
        let read = SaliencyNumbers::from_bytes(file(FORMAT).as_bytes()).unwrap();
        let SaliencyNumber { other, mean, sd, n, .. } = &read.numbers[0];
        assert_eq!((other.as_deref(), *mean, *sd, *n), (Some("b"), 0.5, None, 1));
        let error = SaliencyNumbers::from_bytes(file("saliency-numbers/9").as_bytes()).unwrap_err().to_string();
        assert!(error.contains("`saliency-numbers/9`"), "{error}");
        assert!(SaliencyNumbers::from_bytes(b"maps/grad").is_err());
    }
}

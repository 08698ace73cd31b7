//! The radii of an evaluation that attacks at several: their labels, and the outputs that hold the predictions at each.

use serde_json::Value as Json;

use super::ports::PREDICTIONS;
use crate::number::Real;

/// One of the radii that an evaluation attacks at.
#[derive(Debug, Clone, PartialEq)]
pub struct Radius {
    /// The radius, in pixel units of [0, 1].
    pub eps: f64,
    /// Its label along the coordinate `STAGE.eps`: `8_255`, `0.5`.
    pub label: String,
    /// The output with the predictions at it. Those at the largest are `predictions`, as of any evaluation.
    pub output: String,
}

impl Radius {
    /// The name of the coordinate, without that of its stage.
    pub const COORDINATE: &'static str = "eps";

    /// The radii of canonical parameters of an evaluation, ascending; none where it attacks at one alone.
    pub fn list(params: &Json) -> Vec<Radius> {
        let listed: Vec<f64> =
            params.get("eps").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_f64).collect();
        Radius::of(&listed)
    }

    /// The radii of a list.
    pub fn of(eps: &[f64]) -> Vec<Radius> {
        let radius = |&eps: &f64| Radius { eps, label: label(eps), output: output(eps) };
        let mut radii: Vec<Radius> = eps.iter().map(radius).collect();
        if let Some(largest) = radii.last_mut() {
            PREDICTIONS.clone_into(&mut largest.output);
        }
        radii
    }

    /// How people write a radius: `8/255` where it is so many of 255 levels, else as a decimal number.
    pub fn written(eps: f64) -> String {
        let levels = (eps * 255.0).round();
        let is_fraction =
            levels > 0.0 && levels < 255.0 && Real::parse(&format!("{levels}/255")) == Some(Real::new(eps));
        if is_fraction { format!("{levels}/255") } else { Real::new(eps).to_string() }
    }
}

fn label(eps: f64) -> String {
    Radius::written(eps).replace('/', "_")
}

/// A name without a `.`, which ends the name of a stage.
fn output(eps: f64) -> String {
    format!("eps_{}", label(eps).replace('.', "p"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Names of outputs stand in manifests: they depend on the numbers alone, not on how these are written.
    #[test]
    fn names_follow_from_the_numbers() {
        let named = |eps: Json| -> Vec<(String, String)> {
            let radii = Radius::list(&json!({"attack": {"attack": "pgd"}, "eps": eps}));
            radii.into_iter().map(|radius| (radius.label, radius.output)).collect()
        };
        let pair = |label: &str, output: &str| (label.to_owned(), output.to_owned());
        assert_eq!(
            named(json!([0.0, 2.0 / 255.0, 0.03, 8.0 / 255.0])),
            [pair("0", "eps_0"), pair("2_255", "eps_2_255"), pair("0.03", "eps_0p03"), pair("8_255", "predictions")]
        );
        assert_eq!(named(json!([0.0, 1.0, 1.5])), [pair("0", "eps_0"), pair("1", "eps_1"), pair("1.5", "predictions")]);
        assert_eq!(Radius::list(&json!({"attack": {"attack": "none"}})), []);
    }
}

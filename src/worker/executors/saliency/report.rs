//! Renders saliency measurements as Markdown: one line per model, the distances between each two models' maps, and how
//! similar they are to those of the first model.

use atflow::stage_kinds::Method;

use super::numbers::{MeasureSummary, SIMILARITIES};
use crate::executors::grouped;

/// The columns of a model's line: the measure, its heading, and its explanation.
const OF_MODEL: [(&str, &str, &str); 7] = [
    ("gini", "Gini index", "sparsity, 0 where all pixels are equal, towards 1 the fewer hold the sum"),
    (
        "edge_iou",
        "edge overlap",
        "the map's and the image's strongest tenth of pixels by Sobel: intersection over union",
    ),
    ("edge_rank_correlation", "edge rank correlation", "Spearman's, of the map with the image's edges"),
    ("l1", "mean distance", "mean absolute difference of the drawn maps, 0 to 1, from each of the other models"),
    ("relative_input_stability", "input instability", "largest relative change of the map over that of the image"),
    (
        "relative_output_stability",
        "output instability",
        "largest relative change of the map over the change of the logits",
    ),
    ("label_kept", "label kept", "share of draws that keep the predicted class; the others do not count"),
];

/// Whether a column stands in a report of these numbers.
fn stands(measure: &str, models: usize, numbers: &[&MeasureSummary<'_>]) -> bool {
    match measure {
        "l1" => models > 1,
        "gini" | "edge_iou" | "edge_rank_correlation" => true,
        _ => numbers.iter().any(|number| number.measure == measure),
    }
}

/// The subject of the report.
pub(super) struct About<'a> {
    pub(super) title: Option<&'a str>,
    pub(super) method: &'a Method,
    pub(super) models: &'a [String],
    pub(super) sets: &'a [String],
    pub(super) images: usize,
}

/// Renders the report; `heading` gives the heading of a set.
pub(super) fn markdown(about: &About<'_>, numbers: &[MeasureSummary<'_>], heading: impl Fn(&str) -> String) -> String {
    let mut text = format!("# {}\n\n", about.title.unwrap_or("Saliency maps"));
    text += &format!("{}, n = {} images.\n", method(about.method), grouped(about.images as u64));
    for set in about.sets {
        let of_set = |number: &&MeasureSummary<'_>| number.set == set;
        if about.sets.len() > 1 {
            text += &format!("\n## {}\n", heading(set));
        }
        let of_set: Vec<&MeasureSummary<'_>> = numbers.iter().filter(of_set).collect();
        text += &models(about.models, &of_set);
        if about.models.len() > 2 {
            text += &distances(about.models, &of_set);
        }
        text += &similarities(about.models, &of_set);
    }
    text += "\nMean ± standard deviation over the images.";
    for (measure, name, words) in OF_MODEL {
        if stands(measure, about.models.len(), &numbers.iter().collect::<Vec<_>>()) {
            text += &format!(" {}{}: {words}.", name[..1].to_uppercase(), &name[1..]);
        }
    }
    if numbers.iter().any(|number| number.measure == SIMILARITIES[0]) {
        text += " Rank correlation: Spearman's, of two maps. SSIM: structural similarity of two drawn maps.";
    }
    text.push('\n');
    text
}

fn method(method: &Method) -> String {
    match method {
        Method::Grad => "Grad".to_owned(),
        Method::Smoothgrad { samples, spread } => {
            format!("SmoothGrad ({samples} samples, spread {})", spread.get())
        }
        Method::IntegratedGradients { steps } => format!("Integrated gradients ({steps} steps)"),
        Method::GradCam => "Grad-CAM".to_owned(),
    }
}

/// Renders one line per model.
fn models(models: &[String], numbers: &[&MeasureSummary<'_>]) -> String {
    let columns: Vec<_> = OF_MODEL.iter().filter(|(measure, ..)| stands(measure, models.len(), numbers)).collect();
    let head: Vec<&str> = columns.iter().map(|(_, name, _)| *name).collect();
    let mut text = format!("\n| model | {} |\n| --- |{}\n", head.join(" | "), " ---: |".repeat(head.len()));
    for model in models {
        let cell = |(measure, ..): &&(&str, &str, &str)| {
            let number = numbers
                .iter()
                .find(|number| number.measure == *measure && number.model == model && number.other.is_none());
            number.map_or("–".to_owned(), value)
        };
        let cells: Vec<String> = columns.iter().map(cell).collect();
        text += &format!("| {model} | {} |\n", cells.join(" | "));
    }
    text
}

/// Renders the distances between each two models' maps as a lower triangle.
fn distances(models: &[String], numbers: &[&MeasureSummary<'_>]) -> String {
    let last = models.len() - 1;
    let mut text = format!(
        "\nMean absolute difference of the drawn maps:\n\n| | {} |\n| --- |{}\n",
        models[..last].join(" | "),
        " ---: |".repeat(last)
    );
    for (at, model) in models.iter().enumerate().skip(1) {
        let cell = |(of, other): (usize, &String)| {
            // Each pair appears once, the earlier model first.
            let fits = |number: &&&MeasureSummary<'_>| {
                number.measure == "l1" && number.model == other && number.other == Some(model)
            };
            let number = if of < at { numbers.iter().find(fits) } else { None };
            number.map_or(String::new(), |number| format!("{:.3}", number.mean))
        };
        let cells: Vec<String> = models[..last].iter().enumerate().map(cell).collect();
        text += &format!("| {model} | {} |\n", cells.join(" | "));
    }
    text
}

/// Renders how similar the maps of the other models are to those of the first; nothing if that was not measured.
fn similarities(models: &[String], numbers: &[&MeasureSummary<'_>]) -> String {
    let cell = |measure, model: &String| {
        let is_it = |number: &&&MeasureSummary<'_>| {
            number.measure == measure && *number.model == models[0] && number.other == Some(model)
        };
        numbers.iter().find(is_it).map_or("–".to_owned(), value)
    };
    if !numbers.iter().any(|number| SIMILARITIES.contains(&number.measure)) {
        return String::new();
    }
    let mut text = format!("\nSimilarity to the maps of {}:\n\n", models[0]);
    text += "| model | rank correlation | SSIM |\n| --- | ---: | ---: |\n";
    for model in &models[1..] {
        let [correlation, ssim] = SIMILARITIES.map(|measure| cell(measure, model));
        text += &format!("| {model} | {correlation} | {ssim} |\n");
    }
    text
}

/// Renders a mean, with its standard deviation if it has one.
fn value(number: &&MeasureSummary<'_>) -> String {
    match number.sd {
        Some(sd) => format!("{:.3} ± {sd:.3}", number.mean),
        None => format!("{:.3}", number.mean),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_model_and_a_triangle_of_distances() {
        let models = ["a", "b", "c"].map(str::to_owned);
        let number =
            |measure, model, other, mean| MeasureSummary { measure, set: "s", model, other, mean, sd: None, n: 1 };
        let mut numbers = vec![number("l1", "a", Some("b"), 0.1), number("l1", "a", Some("c"), 0.2)];
        numbers.push(number("l1", "b", Some("c"), 0.3));
        numbers.push(MeasureSummary { sd: Some(0.25), ..number("gini", "b", None, 0.5) });
        let sets = ["s".to_owned()];
        let about = About { title: None, method: &Method::Grad, models: &models, sets: &sets, images: 1 };
        let text = markdown(&about, &numbers, str::to_owned);
        assert!(
            text.starts_with("# Saliency maps\n\nGrad, n = 1 images.\n\n| model | Gini index | edge overlap |"),
            "{text}"
        );
        assert!(text.contains("| b | 0.500 ± 0.250 | – | – | – |\n"), "{text}");
        assert!(
            text.contains("| | a | b |\n| --- | ---: | ---: |\n| b | 0.100 |  |\n| c | 0.200 | 0.300 |\n"),
            "{text}"
        );
        let alone = About { models: &models[..1], ..about };
        assert!(!markdown(&alone, &numbers, str::to_owned).contains("distance"));
    }
}

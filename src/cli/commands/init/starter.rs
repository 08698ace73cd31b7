//! The text of a pipeline to start from: one template, filled with what fits the images.

use askama::Template;

use crate::report::CliError;

/// Values of the template, each as it stands in the file; `…_why` is the comment on a choice, in one or several lines.
#[derive(Default, Template)]
#[template(path = "pipeline.yaml", escape = "none")]
pub(super) struct Starter {
    /// The comment on top, line by line.
    pub about: Vec<String>,
    pub file: String,
    pub name: String,
    pub eps: String,
    pub eps_why: String,
    pub train_step: String,
    pub test_step: String,
    pub epochs: usize,
    pub epochs_why: String,
    /// The parameters that say how many images are used, and the same in the smallest run, line by line.
    pub size: Vec<String>,
    pub small_size: Vec<String>,
    /// Whether trainings and evaluations take the first `train_images` and `tested_images` of a mixed set.
    pub is_limited: bool,
    /// The stage `images`, with the comments in it.
    pub data: String,
    pub net_why: String,
    pub mean: String,
    pub std: String,
    pub mean_why: String,
    pub batch: usize,
    pub lr: String,
    pub batch_why: String,
    pub augmentation: String,
    pub augmentation_why: String,
    /// Which images the saliency maps are of.
    pub shown: String,
}

impl Starter {
    pub(super) fn text(&self) -> Result<String, CliError> {
        self.render()
            .map(|text| text.trim_end().to_owned() + "\n")
            .map_err(|error| CliError::environment(format!("the pipeline cannot be written: {error}")))
    }
}

/// Numbers of an attack for a radius in 255ths: the radius, a half of it and a quarter.
pub(super) fn of_255(eps: usize) -> [String; 3] {
    [1, 2, 4].map(|part| {
        if eps.is_multiple_of(part) { format!("{}/255", eps / part) } else { format!("{}/{}", eps, 255 * part) }
    })
}

/// Three numbers, or one, as a list.
pub(super) fn list(numbers: &[f64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(|number| format!("{number:.3}")).collect();
    format!("[{}]", numbers.join(", "))
}

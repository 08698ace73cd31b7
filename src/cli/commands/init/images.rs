//! The starter pipeline with `--images`: what the images are like, and parameter values that fit them.

use std::path::{Component, Path, PathBuf};

use atflow::executors::{ImageSurvey, survey_images};

use super::starter::{Starter, list, of_255};
use crate::report::CliError;
use crate::ui;

/// Passes of one image of 32 × 32 pixels, over all epochs, that a CPU trains both networks on in a few minutes.
const PASSES_AT_32: usize = 60_000;
/// Fewest and most epochs that are proposed.
const EPOCHS: [usize; 2] = [4, 30];
/// Classes that a message names.
const NAMED: usize = 8;
/// Classes up to which the maps show one image of each.
const SHOWN: usize = 10;

/// What to do about a pipeline among its images.
const APART: &str =
    "what a run writes would change the data set; name a folder beside it: `atflow init DIR --images …`";

/// Names of folders that are sets of images, and hardly ever classes.
const SETS: [&str; 6] = ["training", "test", "testing", "val", "valid", "validation"];

/// Endings of files that data sets can be made of, without files of images in them.
const ARRAYS: [&str; 3] = ["npz", "npy", "parquet"];

/// Returns the pipeline, and what to tell of the images.
pub(super) fn starter(images: &Path, dir: &Path) -> Result<(Starter, String), CliError> {
    let ending = images.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    if ARRAYS.contains(&ending) {
        let message = format!("{} holds no files of images, and those are what `init` looks at", images.display());
        return Err(CliError::environment(message)
            .help(format!("write `format: {ending}` yourself: docs/own-data.md shows how")));
    }
    let scratch = tempfile::tempdir().map_err(|error| CliError::environment(format!("no scratch folder: {error}")))?;
    let seen = survey_images(images, scratch.path()).map_err(|failure| {
        let help = "each class has a folder of its own, beside the others or in `train/` and `test/`";
        CliError::environment(failure.message).because(failure.causes).help(help)
    })?;
    let place = Place { path: relative(images, dir)?, is_folder: images.is_dir() };
    let fit = Fit::of(&seen);
    Ok((fit.starter(&seen, &place), words(images, &seen)))
}

/// Where the images are, from the pipeline.
struct Place {
    path: String,
    is_folder: bool,
}

/// Values that fit the images.
struct Fit {
    /// The side of the square that networks see, in pixels.
    side: usize,
    /// Whether images have to be resized and cut for it.
    is_cut: bool,
    /// The share of each class that is drawn for testing, where the images are not divided.
    test_share: &'static str,
    epochs: usize,
    /// Images of each class that are used, if not all.
    per_class: Option<usize>,
    batch: usize,
    /// ε in 255ths.
    eps: usize,
}

impl Fit {
    fn of(seen: &ImageSurvey) -> Self {
        let is_small_square = seen.size.is_some_and(|[height, width]| height == width && (16..=64).contains(&height));
        let side = match seen.size {
            Some([height, _]) if is_small_square => height,
            _ if seen.short_sides[1] < 64 => 32,
            _ => 64,
        };
        let smallest = seen.classes.iter().map(|class| class.train).min().unwrap_or(0);
        let test_share = if smallest < 5 { "0.5" } else { "0.2" };
        let all: usize = seen.classes.iter().map(|class| class.train).sum();
        let passes = PASSES_AT_32 * 32 * 32 / (side * side);
        let most = (passes / EPOCHS[0] / seen.classes.len()).max(1);
        let per_class = seen.classes.iter().any(|class| class.train > most).then_some(most);
        let used = seen.classes.iter().map(|class| class.train.min(most)).sum::<usize>().max(1).min(all.max(1));
        let batch = if used >= 1000 {
            64
        } else if used >= 300 {
            32
        } else {
            16
        };
        let epochs = (passes / used).clamp(EPOCHS[0], EPOCHS[1]);
        let eps = if side <= 32 { 8 } else { 4 };
        Fit { side, is_cut: !is_small_square, test_share, epochs, per_class, batch, eps }
    }

    fn starter(&self, seen: &ImageSurvey, place: &Place) -> Starter {
        let [eps, train_step, test_step] = of_255(self.eps);
        let (epochs, batch) = (self.epochs, self.batch);
        let lr = format!("{}", 0.1 * batch as f64 / 128.0);
        let eps_why = match self.eps {
            8 => "8/255 is usual for images of 32 pixels and fewer.",
            _ => "4/255 is usual for images of more than 32 pixels.",
        };
        let colours = if seen.is_grey { "grey images, stored as three equal channels" } else { "three colours" };
        let images = ui::count(seen.decoded, "image");
        Starter {
            about: about(seen, place),
            name: name(&place.path),
            eps,
            eps_why: eps_why.to_owned(),
            train_step,
            test_step,
            epochs,
            epochs_why: "Passes over the training images: so many that two CPU cores need minutes, not hours."
                .to_owned(),
            size: self.size(seen),
            small_size: vec!["images_per_class: 8".to_owned()],
            is_limited: false,
            data: self.data(place, seen),
            net_why: "A residual network of three groups with one block each. `resnet18` is the next larger one."
                .to_owned(),
            mean: list(&seen.mean),
            std: list(&seen.std.map(|std| std.max(0.001))),
            mean_why: format!("Mean and standard deviation of {images}, 0 black to 1 white; {colours}."),
            batch,
            batch_why: "Images a step; the learning rate grows with it.".to_owned(),
            lr,
            augmentation: "{flip: true}".to_owned(),
            augmentation_why: "Mirrored at random. Set it to false if left and right matter, as in letters.".to_owned(),
            shown: if seen.classes.len() <= SHOWN { "{each_class: 1}" } else { "{count: 8, seed: 0}" }.to_owned(),
            ..Starter::default()
        }
    }

    fn size(&self, seen: &ImageSurvey) -> Vec<String> {
        let largest = seen.classes.iter().map(|class| class.train).max().unwrap_or(0);
        let (why, limit) = match self.per_class {
            Some(limit) => {
                let why =
                    format!("The first images of each class, of {largest} in the largest: minutes on two CPU cores.");
                (why + " `null` takes all.", limit.to_string())
            }
            None => ("Images of each class; `null` takes all of them.".to_owned(), "null".to_owned()),
        };
        vec![format!("# {why}"), format!("images_per_class: {limit}")]
    }

    /// The stage of the data set.
    fn data(&self, place: &Place, seen: &ImageSurvey) -> String {
        let path = quoted(&place.path);
        let mut lines = match &seen.parts {
            Some([train, test]) => {
                vec![format!("  # Its folders `{train}` and `{test}` are the training and the test set.")]
            }
            None => Vec::new(),
        };
        let place = if place.is_folder { format!("folder: {path}") } else { format!("archive: {{path: {path}}}") };
        lines.extend(["  images:", "    kind: dataset", "    with:", "      format: image_folder"].map(str::to_owned));
        lines.push(format!("      {place}"));
        if seen.parts.is_none() {
            lines.push(
                "      # There are no folders `train` and `test`: so much of each class is drawn for testing."
                    .to_owned(),
            );
            lines.push(format!("      test_share: {}", self.test_share));
        }
        if self.is_cut {
            let side = self.side;
            lines.push(format!("      # {}", sides(seen)));
            lines.push(format!(
                "      # Their shorter side becomes {side} pixels, then the square in the middle is cut out."
            ));
            lines.push(format!("      resize: {side}"));
            lines.push(format!("      center_crop: {side}"));
        }
        if !seen.broken.is_empty() {
            lines.push(format!(
                "      # {} cannot be read, and the log names them.",
                ui::count(seen.broken.len(), "image")
            ));
            lines.push("      broken: skip".to_owned());
        }
        lines.push("      limit_per_class: \"${images_per_class}\"".to_owned());
        lines.join("\n") + "\n"
    }
}

/// The comment on top of the pipeline.
fn about(seen: &ImageSurvey, place: &Place) -> Vec<String> {
    let classes = ui::count(seen.classes.len(), "class").replace("classs", "classes");
    vec![format!("What adversarial training does to a small network, on {classes} of images in {}.", place.path)]
}

fn sides(seen: &ImageSurvey) -> String {
    let [shortest, median, longest] = seen.short_sides;
    match seen.size {
        Some([height, width]) => format!("Images have {height} × {width} pixels."),
        None => format!("Shorter sides have {shortest} to {longest} pixels, {median} in the median."),
    }
}

/// What was seen, for the terminal.
fn words(images: &Path, seen: &ImageSurvey) -> String {
    let (train, test) = seen.classes.iter().fold((0, 0), |sum, class| (sum.0 + class.train, sum.1 + class.test));
    let colours = if seen.is_grey { "grey" } else { "in colour" };
    let mut text = format!(
        "{}: {} in {} classes, {colours}\n",
        images.display(),
        ui::count(train + test, "image"),
        seen.classes.len()
    );
    text += &match &seen.parts {
        Some([train_root, test_root]) => {
            format!("  {train} to train on in {train_root}, {test} to test on in {test_root}\n")
        }
        None => "  no folders `train` and `test`: the test images are drawn\n".to_owned(),
    };
    let class = |class: &atflow::executors::ClassCount| match seen.parts {
        Some(_) => format!("{} {}+{}", class.name, class.train, class.test),
        None => format!("{} {}", class.name, class.train),
    };
    let named: Vec<String> = seen.classes.iter().take(NAMED).map(class).collect();
    let more = seen.classes.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    text += &format!("  {}{more}\n  {} ({} looked at)\n", named.join(", "), sides(seen), seen.looked_at);
    for (count, what) in [
        (seen.passed_over, "other files passed over"),
        (seen.left_out, "links or entries left out"),
        (seen.broken.len(), "images that cannot be read"),
    ] {
        if count > 0 {
            text += &format!("  {count} {what}\n");
        }
    }
    for line in seen.broken.iter().take(NAMED) {
        text += &format!("    {line}\n");
    }
    // One of the two names is misspelt, or there is no other.
    let is_set = |name: &str| SETS.contains(&name.to_lowercase().as_str());
    if let Some(class) = seen.classes.iter().find(|class| seen.parts.is_none() && is_set(&class.name)) {
        text += &format!(
            "warning: `{}` is taken for a class and looks like a set of images; sets are the folders `train` and `test` (or `val`)\n",
            class.name
        );
    }
    text
}

/// The name of the pipeline: that of the folder or archive, as far as a pipeline may have it.
fn name(path: &str) -> String {
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let stem = last.split('.').find(|part| !part.is_empty()).unwrap_or_default();
    let safe = |letter: char| if letter.is_ascii_alphanumeric() || letter == '_' { letter } else { '-' };
    let name: String = stem.chars().map(safe).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "images".to_owned() } else { name.to_owned() }
}

/// A text as YAML: bare where that is safe, else in double quotes, as JSON has them.
fn quoted(text: &str) -> String {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let starts_safely = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '.' || first == '/');
    if starts_safely && text.bytes().all(is_safe) { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// The path of the images from the folder of the pipeline.
fn relative(images: &Path, dir: &Path) -> Result<String, CliError> {
    let failed = |error: std::io::Error| CliError::environment(format!("cannot read {}: {error}", images.display()));
    let images_at = std::fs::canonicalize(images).map_err(failed)?;
    let dir = real(dir).map_err(failed)?;
    if images_at.is_dir() && dir.starts_with(&images_at) {
        let message = format!("the pipeline would lie among the images of {}", images.display());
        return Err(CliError::environment(message).help(APART));
    }
    let common = images_at.components().zip(dir.components()).take_while(|(a, b)| a == b).count();
    let up = dir.components().skip(common).map(|_| Component::ParentDir);
    let path: PathBuf = up.chain(images_at.components().skip(common)).collect();
    path.to_str().map(str::to_owned).ok_or_else(|| {
        CliError::environment(format!("the name {} is not UTF-8", path.display())).help("rename the folder")
    })
}

/// The real path of a folder that need not be there yet.
fn real(dir: &Path) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(dir)?;
    let there = absolute.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let rest = absolute.strip_prefix(there).unwrap_or(Path::new(""));
    Ok(std::fs::canonicalize(there)?.join(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_those_that_a_pipeline_may_have() {
        let names = ["photos", "../my photos/", "pets-2024.tar.gz", ".", "/data/Übung"].map(name);
        assert_eq!(names, ["photos", "my-photos", "pets-2024", "images", "bung"]);
        let texts = ["photos/a", "my photos", "1.0", "a: b", "no\"", "-x"].map(quoted);
        assert_eq!(texts, ["photos/a", "\"my photos\"", "\"1.0\"", "\"a: b\"", "\"no\\\"\"", "\"-x\""]);
    }
}

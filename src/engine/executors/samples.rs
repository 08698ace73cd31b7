//! The `figure` stage with `draw: samples`: images of several sets beside one another, with what models make of them.

use std::fs::File;
use std::io::BufReader;

use super::error::StageError;
use super::figure::{write_csv, write_picture};
use super::grid::predictions;
use super::{Reporter, check_cancelled, name, params, read_error};
use crate::digest::{ReadError, verify};
use crate::formats::{ImageReader, Predictions, Seen};
use crate::picture::{SampleRow, Samples, Tile, samples_drawing};
use crate::protocol::{Input, Job};
use crate::results::{MetricError, SampleNumber, samples_csv};
use crate::stage_kinds::SamplesParams;

/// Images are about so many pixels wide where the author does not say.
const SIDE: u32 = 112;

/// A column: the images that are drawn, and their classes.
pub(super) struct Column {
    pub(super) tiles: Vec<Tile>,
    pub(super) classes: Vec<String>,
    labels: Vec<i32>,
    /// The names of all classes.
    names: Vec<String>,
}

/// What a model makes of an image.
struct Guess {
    /// Of the true class, 0 to 1.
    probability: f64,
    predicted: String,
}

/// Slots `set`, labelled as the columns, and `value`, labelled `ROW/COLUMN`; outputs `svg`, `png`, `pdf`, `csv`.
pub(super) fn run(job: &Job, reporter: &dyn Reporter) -> Result<String, StageError> {
    let params: SamplesParams = params(job)?;
    let (images, columns) = columns(job, &params, reporter)?;
    let models = if params.rows.is_empty() { &params.predicted } else { &params.rows };
    let known = known_guesses(job, &params.columns, models, &images, &columns, reporter)?;

    let mut rows = Vec::new();
    let mut numbers = Vec::new();
    for (at, &image) in images.iter().enumerate() {
        let class = columns.first().map_or("", |column| column.classes[at].as_str());
        let mut lines = Vec::new();
        for (row, of_row) in models.iter().zip(&known) {
            let guesses: Vec<Option<&Guess>> = of_row.iter().map(|of_set| of_set.as_ref()?.get(at)).collect();
            let row = params.names.get(row).unwrap_or(row);
            for (set, guess) in params.columns.iter().zip(&guesses) {
                let Some(Guess { probability, predicted }) = *guess else { continue };
                let predicted = (!params.predicted.is_empty()).then_some(predicted.as_str());
                numbers.push(SampleNumber { image, class, set, row, probability: *probability, predicted });
            }
            lines.extend(told(&params, row, &guesses));
        }
        rows.push(SampleRow {
            heading: heading(class, image),
            numbers: lines,
            tiles: columns.iter().map(|column| column.tiles[at].clone()).collect(),
        });
    }
    write_csv(job, params.mockup, samples_csv(numbers))?;
    let scale = params.scale.unwrap_or_else(|| scale(&columns));
    let samples = Samples { title: params.title, columns: params.headings, rows, scale };
    write_picture(job, &samples_drawing(&samples, params.size)?)?;
    Ok(format!("{} of {} sets", count(images.len()), params.columns.len()))
}

/// The images' numbers in their sets, and a column for each set.
fn columns(
    job: &Job,
    params: &SamplesParams,
    reporter: &dyn Reporter,
) -> Result<(Vec<usize>, Vec<Column>), StageError> {
    let mut columns = Vec::new();
    let mut images: Option<Vec<usize>> = None;
    for (done, label) in params.columns.iter().enumerate() {
        check_cancelled(reporter)?;
        reporter.progress(done as u64, params.columns.len() as u64, label);
        let set = input(job, "set", label).ok_or_else(|| StageError::NoInput { slot: format!("set {label}") })?;
        let mut reader = open(set)?;
        // All sets are versions of the same images: the first tells which are meant.
        let images = match &mut images {
            Some(images) => images,
            none => none.insert(chosen(set, &reader, params)?),
        };
        columns.push(column(set, &mut reader, images)?);
    }
    Ok((images.unwrap_or_default(), columns))
}

/// For each model and set what it makes of each image, or `None` where no result has it.
fn known_guesses(
    job: &Job,
    sets: &[String],
    models: &[String],
    images: &[usize],
    columns: &[Column],
    reporter: &dyn Reporter,
) -> Result<Vec<Vec<Option<Vec<Guess>>>>, StageError> {
    let mut known = Vec::new();
    for row in models {
        check_cancelled(reporter)?;
        let of = |(label, column): (&String, &Column)| match input(job, "value", &format!("{row}/{label}")) {
            None => Ok(None),
            Some(value) => guesses(value, column, images).map(Some),
        };
        known.push(sets.iter().zip(columns).map(of).collect::<Result<_, StageError>>()?);
    }
    Ok(known)
}

fn input<'a>(job: &'a Job, slot: &'static str, label: &str) -> Option<&'a Input> {
    job.inputs_of(slot).find(|input| input.label == label)
}

/// The heading of an image: its class, and its index in the sets.
pub(super) fn heading(class: &str, image: usize) -> String {
    format!("{class}\nimage {image}")
}

/// How many times as large images are drawn where the author does not say.
pub(super) fn scale(columns: &[Column]) -> u32 {
    let widest = columns.iter().flat_map(|column| &column.tiles).map(|tile| tile.width).max().unwrap_or(1).max(1);
    (SIDE / widest).max(1)
}

/// The lines above an image that say what a model makes of it: a probability, the predicted class, or both.
fn told(params: &SamplesParams, row: &str, guesses: &[Option<&Guess>]) -> Vec<(String, Vec<Option<String>>)> {
    let line = |text: &dyn Fn(&Guess) -> String| guesses.iter().map(|guess| guess.map(text)).collect();
    let mut lines = Vec::new();
    if !params.rows.is_empty() {
        lines.push((row.to_owned(), line(&|guess| format!("{:.1} %", guess.probability * 100.0))));
    }
    if !params.predicted.is_empty() {
        let name = if lines.is_empty() { row } else { "" };
        lines.push((name.to_owned(), line(&|guess| guess.predicted.clone())));
    }
    lines
}

fn count(images: usize) -> String {
    if images == 1 { "1 image".to_owned() } else { format!("{images} images") }
}

pub(super) type Reader = ImageReader<BufReader<File>>;

/// A set whose bytes are those of its digest; sets may be larger than the memory.
pub(super) fn open(input: &Input) -> Result<Reader, StageError> {
    verify(&input.path, input.digest).map_err(|source| read_error(input, source))?;
    ImageReader::open(&input.path).map_err(|source| StageError::Format { input: name(input), source })
}

fn chosen(input: &Input, reader: &Reader, params: &SamplesParams) -> Result<Vec<usize>, StageError> {
    let head = &reader.head;
    let source = |source| StageError::Choice { input: name(input), source };
    params.images.among(&head.labels, &head.classes).map_err(source)
}

pub(super) fn column(input: &Input, reader: &mut Reader, images: &[usize]) -> Result<Column, StageError> {
    let head = &reader.head;
    if let Some(&index) = images.iter().find(|&&index| index >= head.len()) {
        return Err(StageError::NoImage { input: name(input), images: head.len(), index });
    }
    let channels = head.channels;
    let labels: Vec<i32> = images.iter().map(|&index| head.labels[index]).collect();
    let names = head.classes.clone();
    let classes = labels.iter().map(|&label| class(&names, label)).collect();
    let seen = reader.seen(images).map_err(|source| {
        let path = input.path.display().to_string();
        read_error(input, ReadError::Io { path, source })
    })?;
    let tiles: Option<Vec<Tile>> = seen.iter().map(|image| tile(image, channels)).collect();
    let tiles = tiles.ok_or_else(|| StageError::Channels { input: name(input), channels })?;
    Ok(Column { tiles, classes, labels, names })
}

/// The name of a class; its number where it has none.
fn class(names: &[String], label: i32) -> String {
    usize::try_from(label).ok().and_then(|label| names.get(label)).map_or_else(|| label.to_string(), String::clone)
}

/// One image as red, green, blue; `None` if it has neither one channel nor three.
fn tile(image: &Seen, channels: usize) -> Option<Tile> {
    let [height, width] = image.size;
    let plane = height * width;
    let of_channel = match channels {
        1 => [0, 0, 0],
        3 => [0, plane, 2 * plane],
        _ => return None,
    };
    let rgb = (0..plane).flat_map(|at| of_channel.map(|channel| image.pixels[channel + at])).collect();
    Some(Tile { width: u32::try_from(width).ok()?, height: u32::try_from(height).ok()?, rgb })
}

fn guesses(input: &Input, column: &Column, images: &[usize]) -> Result<Vec<Guess>, StageError> {
    let of: Predictions = predictions(input)?;
    let mut found = Vec::new();
    for (&index, &reference) in images.iter().zip(&column.labels) {
        let Some((&probability, &value)) = of.probability.get(index).zip(of.labels.get(index)) else {
            return Err(StageError::NoImage { input: name(input), images: of.len(), index });
        };
        if value != reference {
            let source = MetricError::Labels { index, value, of: "in the set that is drawn", reference };
            return Err(StageError::Metric { cell: input.label.clone(), source });
        }
        let predicted = of.predicted.get(index).map_or_else(String::new, |&label| class(&column.names, label));
        found.push(Guess { probability: f64::from(probability), predicted });
    }
    Ok(found)
}

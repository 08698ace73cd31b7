//! The `figure` stage with `draw: samples`: images of several sets beside one another, with what models make of them.

use std::fs::File;
use std::io::BufReader;

use super::error::StageError;
use super::grid::predictions;
use super::{Reporter, check_cancelled, name, params, read_error, write};
use crate::digest::{ReadError, verify};
use crate::formats::{ImageReader, Predictions, Seen};
use crate::picture::{SampleRow, Samples, Tile, samples_png};
use crate::protocol::{Input, Job};
use crate::results::{MetricError, SampleNumber, samples_csv};
use crate::stage_kinds::SamplesParams;

/// Images are about so many pixels wide where the author does not say.
const SIDE: u32 = 112;

/// A column: the images that are drawn, and their classes.
struct Column {
    tiles: Vec<Tile>,
    classes: Vec<String>,
    labels: Vec<i32>,
}

/// Slots `set`, labelled as the columns, and `value`, labelled `ROW/COLUMN`; outputs `svg`, `png`, `csv`.
pub(super) fn run(job: &Job, reporter: &dyn Reporter) -> Result<String, StageError> {
    let params: SamplesParams = params(job)?;
    let (images, columns) = columns(job, &params, reporter)?;
    let known = known_probabilities(job, &params, &images, &columns, reporter)?;
    let class = |at: usize| columns.first().map_or("", |column| column.classes[at].as_str());

    let mut rows = Vec::new();
    let mut numbers = Vec::new();
    for (at, &image) in images.iter().enumerate() {
        let class = class(at);
        for (row, of_row) in params.rows.iter().zip(&known) {
            for (set, of_set) in params.columns.iter().zip(of_row) {
                if let Some(probability) = of_set.as_ref().map(|of_set| of_set[at]) {
                    numbers.push(SampleNumber { image, class, set, row, probability });
                }
            }
        }
        let line = |(row, of_row): (&String, &Vec<Option<Vec<f64>>>)| {
            let number = |of_set: &Option<Vec<f64>>| of_set.as_ref().map(|of_set| of_set[at]);
            (row.clone(), of_row.iter().map(number).collect())
        };
        rows.push(SampleRow {
            heading: class.to_owned(),
            numbers: params.rows.iter().zip(&known).map(line).collect(),
            tiles: columns.iter().map(|column| column.tiles[at].clone()).collect(),
        });
    }
    write(job, "csv", samples_csv(numbers).as_bytes())?;
    let widest = columns.iter().flat_map(|column| &column.tiles).map(|tile| tile.width).max().unwrap_or(1).max(1);
    let samples = Samples {
        title: params.title,
        columns: params.headings,
        rows,
        scale: params.scale.unwrap_or((SIDE / widest).max(1)),
    };
    let png = samples_png(&samples)?;
    write(job, "svg", around(&png).as_bytes())?;
    write(job, "png", &png)?;
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

/// For each row and column the probability of each image, or `None` where no result has it.
fn known_probabilities(
    job: &Job,
    params: &SamplesParams,
    images: &[usize],
    columns: &[Column],
    reporter: &dyn Reporter,
) -> Result<Vec<Vec<Option<Vec<f64>>>>, StageError> {
    let mut known = Vec::new();
    for row in &params.rows {
        check_cancelled(reporter)?;
        let of = |(label, column): (&String, &Column)| match input(job, "value", &format!("{row}/{label}")) {
            None => Ok(None),
            Some(value) => probabilities(value, column, images).map(Some),
        };
        known.push(params.columns.iter().zip(columns).map(of).collect::<Result<_, StageError>>()?);
    }
    Ok(known)
}

fn input<'a>(job: &'a Job, slot: &'static str, label: &str) -> Option<&'a Input> {
    job.inputs_of(slot).find(|input| input.label == label)
}

fn count(images: usize) -> String {
    if images == 1 { "1 image".to_owned() } else { format!("{images} images") }
}

type Reader = ImageReader<BufReader<File>>;

/// A set whose bytes are those of its digest; sets may be larger than the memory.
fn open(input: &Input) -> Result<Reader, StageError> {
    verify(&input.path, input.digest).map_err(|source| read_error(input, source))?;
    ImageReader::open(&input.path).map_err(|source| StageError::Format { input: name(input), source })
}

fn chosen(input: &Input, reader: &Reader, params: &SamplesParams) -> Result<Vec<usize>, StageError> {
    let head = &reader.head;
    let source = |source| StageError::Choice { input: name(input), source };
    params.images.among(&head.labels, &head.classes).map_err(source)
}

fn column(input: &Input, reader: &mut Reader, images: &[usize]) -> Result<Column, StageError> {
    let head = &reader.head;
    if let Some(&index) = images.iter().find(|&&index| index >= head.len()) {
        return Err(StageError::NoImage { input: name(input), images: head.len(), index });
    }
    let channels = head.channels;
    let labels: Vec<i32> = images.iter().map(|&index| head.labels[index]).collect();
    let class = |label: &i32| usize::try_from(*label).ok().and_then(|label| head.classes.get(label)).cloned();
    let classes = labels.iter().map(|label| class(label).unwrap_or_else(|| label.to_string())).collect();
    let seen = reader.seen(images).map_err(|source| {
        let path = input.path.display().to_string();
        read_error(input, ReadError::Io { path, source })
    })?;
    let tiles: Option<Vec<Tile>> = seen.iter().map(|image| tile(image, channels)).collect();
    let tiles = tiles.ok_or_else(|| StageError::Channels { input: name(input), channels })?;
    Ok(Column { tiles, classes, labels })
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

fn probabilities(input: &Input, column: &Column, images: &[usize]) -> Result<Vec<f64>, StageError> {
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
        found.push(f64::from(probability));
    }
    Ok(found)
}

/// A PNG as an SVG of its size that holds it.
fn around(png: &[u8]) -> String {
    // The header chunk comes first: width and height follow its name, at byte 16.
    let side = |at: usize| {
        png.get(at..at + 4).map_or(0, |bytes| bytes.iter().fold(0_u32, |side, byte| side << 8 | u32::from(*byte)))
    };
    let (width, height) = (side(16), side(20));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\">\n<image width=\"{width}\" height=\"{height}\" href=\"data:image/png;base64,{}\"/>\n</svg>\n",
        base64(png)
    )
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let is_there = digit <= three.len();
            text.push(if is_there { char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_that_of_the_standard() {
        // RFC 4648, section 10.
        let of = |text: &str| super::base64(text.as_bytes());
        assert_eq!(
            ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(of),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]
        );
    }
}

//! Data sets in Parquet as the Hugging Face hub has them (<https://huggingface.co/docs/datasets/image_dataset>): a
//! column with encoded images, `struct {bytes, path}`, and one with the numbers of their classes. The names of the
//! classes are in the metadata of the files. Images are first copied, as they are encoded, into a nameless file, from
//! which they are read as from an archive.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use ::parquet::basic::{Compression, Type as Physical};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::{Field, Row};
use ::parquet::schema::types::Type;
use serde_json::Value as Json;

use super::archive::{Archive, MAX_ENTRIES, MAX_ENTRY, MAX_RATIO, MUCH};
use super::arrays::numbered;
use super::error::DatasetError;
use super::fill::{Aside, Plan, Planned, fill, output, summary};
use super::picture::Recipe;
use super::{class_names, input};
use crate::digest::verify;
use crate::executors::error::StageError;
use crate::executors::{Reporter, check_cancelled, read_error};
use crate::protocol::Job;
use crate::regular::open_regular;
use crate::stage_kinds::{DatasetParams, Source};

/// Images between two looks at whether the stage is to go on.
const PIECE: u64 = 256;

/// One part of a data set: its images, encoded, and their labels.
struct Part {
    archive: Archive,
    labels: Vec<i64>,
    /// Names of the classes in its metadata.
    classes: Option<Vec<String>>,
}

pub(super) fn run(job: &Job, reporter: &dyn Reporter, params: &DatasetParams) -> Result<String, StageError> {
    let DatasetParams::Parquet {
        train,
        test,
        image,
        label,
        classes,
        resize,
        filter,
        center_crop,
        limit_per_class,
        broken,
    } = params
    else {
        return Err(StageError::Kind { kind: job.kind });
    };
    let columns = Columns { image: image.as_deref(), label };
    let train = columns.part(job, "train", train, reporter)?;
    let test = columns.part(job, "test", test, reporter)?;
    let classes = match (classes, &train.classes) {
        (Some(names), _) | (None, Some(names)) => names.clone(),
        (None, None) => numbered(&train.archive.shown, &train.labels)?,
    };
    let warnings = class_names::check(&train.archive.shown, &classes)?;
    warnings.iter().for_each(|warning| reporter.warn(warning));
    let side = |side: &Option<u32>| side.map(|side| side as usize);
    let recipe = Recipe { square: false, resize: side(resize), filter: *filter, crop: side(center_crop) };
    let limit = limit_per_class.map_or(usize::MAX, |limit| limit as usize);
    let filled = |output, part: &Part| {
        let images = planned(part, &classes, limit)?;
        let (archive, classes, broken) = (&part.archive, classes.as_slice(), *broken);
        fill(job, &Plan { output, archive, images, classes, recipe, view: None, broken }, reporter)
    };
    let (trained, tested) = (filled("train", &train)?, filled("test", &test)?);
    let aside = Aside { warnings: warnings.len(), ..Aside::default() };
    Ok(summary((&trained, &train.archive), (&tested, &test.archive), classes.len(), aside, reporter)?)
}

/// Images with their classes, at most so many of each.
fn planned(part: &Part, classes: &[String], limit: usize) -> Result<Vec<Planned>, DatasetError> {
    let mut kept = vec![0; classes.len()];
    let mut images = Vec::new();
    for (entry, &label) in part.labels.iter().enumerate() {
        let class = usize::try_from(label).ok().filter(|class| *class < classes.len());
        let Some(class) = class else {
            let reason = format!("has label {label}, and classes are 0 to {}", classes.len().saturating_sub(1));
            let name = part.archive.entries[entry].name.clone();
            return Err(DatasetError::Content { file: part.archive.shown.clone(), name, reason });
        };
        if kept[class] < limit {
            kept[class] += 1;
            images.push(Planned { entry, label: class as i32 });
        }
    }
    Ok(images)
}

/// The columns that are read.
struct Columns<'a> {
    /// The images; the only column of encoded images if it is not named.
    image: Option<&'a str>,
    label: &'a str,
}

impl Columns<'_> {
    /// Copies the images of a part into a nameless file.
    fn part(
        &self,
        job: &Job,
        name: &'static str,
        shards: &[Source],
        reporter: &dyn Reporter,
    ) -> Result<Part, StageError> {
        let scratch = output(job, name)?;
        let scratch = scratch.parent().unwrap_or(Path::new("."));
        let write = |source| StageError::Write { output: name.to_owned(), source };
        let mut copy = Copied::into(tempfile::tempfile_in(scratch).map_err(write)?);
        for (number, source) in shards.iter().enumerate() {
            let (input, shown) = input(job, &format!("{name}.{number}"), source)?;
            verify(&input.path, input.digest).map_err(|source| read_error(input, source))?;
            let failed = |reason: String| DatasetError::Unfit { file: shown.clone(), reason };
            let file = open_regular(&input.path).map_err(|error| failed(error.to_string()))?;
            let packed = file.metadata().map_err(|error| failed(error.to_string()))?.len();
            let most = copy.at.saturating_add(MUCH.max(packed.saturating_mul(MAX_RATIO)));
            self.shard(file, &shown, most, &mut copy, reporter)?;
        }
        let file = copy.file.into_inner().map_err(|error| write(error.into_error()))?;
        let archive = Archive::of_pieces(name, copy.images, file).map_err(write)?;
        Ok(Part { archive, labels: copy.labels, classes: copy.classes })
    }

    fn shard(
        &self,
        file: File,
        shown: &str,
        most: u64,
        to: &mut Copied,
        reporter: &dyn Reporter,
    ) -> Result<(), StageError> {
        let failed = |reason: String| DatasetError::Unfit { file: shown.to_owned(), reason };
        let unread = |error: ParquetError| failed(format!("it is no Parquet file, is damaged or cut off: {error}"));
        let size = file.metadata().map_err(|error| failed(error.to_string()))?.len();
        let reader = SerializedFileReader::new(file).map_err(unread)?;
        if has_misplaced_columns(reader.metadata(), size) {
            let reason = "it is damaged or cut off: a column stands outside of the file".to_owned();
            return Err(failed(reason).into());
        }
        if let Some(name) = foreign_compression(reader.metadata()) {
            return Err(
                failed(format!("it is compressed by {name}, which is not read: write it with snappy or zstd")).into()
            );
        }
        let about = reader.metadata().file_metadata();
        let schema = about.schema();
        let projection = self.projection(schema).map_err(failed)?;
        let image = projection.get_fields()[0].name().to_owned();
        let metadata = about.key_value_metadata().into_iter().flatten();
        let metadata = metadata.filter(|pair| pair.key == "huggingface").find_map(|pair| pair.value.as_deref());
        to.name_classes(metadata.and_then(|text| class_names_of(text, self.label))).map_err(failed)?;
        let total = u64::try_from(about.num_rows()).unwrap_or(0);
        let mut row_number = 0;
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group).map_err(unread)?;
            for row in group.get_row_iter(Some(projection.clone())).map_err(unread)? {
                if row_number % PIECE == 0 {
                    check_cancelled(reporter)?;
                    reporter.progress(row_number.min(total), total, &format!("reading {shown}"));
                }
                let (bytes, label) = cells(row.map_err(unread)?, &image, self.label)
                    .map_err(|reason| failed(format!("row {row_number} {reason}")))?;
                if to.images.len() >= MAX_ENTRIES || bytes.len() as u64 > MAX_ENTRY || to.at > most {
                    return Err(failed("it holds far more than it has bytes, as no data set does".to_owned()).into());
                }
                to.add(format!("{shown} row {row_number}"), &bytes, label)
                    .map_err(|source| StageError::Write { output: "train".to_owned(), source })?;
                row_number += 1;
            }
        }
        Ok(())
    }

    /// The schema of the two columns alone.
    fn projection(&self, schema: &Type) -> Result<Type, String> {
        let fields = schema.get_fields();
        let names = || fields.iter().map(|field| format!("`{}`", field.name())).collect::<Vec<_>>().join(", ");
        let label = fields.iter().find(|field| field.name() == self.label);
        let label =
            label.ok_or_else(|| format!("it has no column `{}`, but {}: name one as `label`", self.label, names()))?;
        let images: Vec<_> = fields.iter().filter(|field| encoded(field).is_some()).collect();
        let image = match (self.image, &images[..]) {
            (Some(name), _) => images.iter().find(|field| field.name() == name).copied(),
            (None, [only]) => Some(*only),
            (None, _) => None,
        };
        let image = image.ok_or_else(|| {
            let wanted = self.image.map_or_else(|| "one column".to_owned(), |name| format!("`{name}` as a column"));
            format!(
                "it does not have {wanted} of encoded images (`struct {{bytes, path}}`); its columns are {}",
                names()
            )
        })?;
        let columns = vec![encoded(image).ok_or("it has no images")?, (*label).clone()];
        Type::group_type_builder(schema.name()).with_fields(columns).build().map_err(|error| error.to_string())
    }
}

/// Whether a column stands outside of a file of so many bytes. The library takes its place for granted, and panics.
fn has_misplaced_columns(about: &ParquetMetaData, size: u64) -> bool {
    let mut columns = about.row_groups().iter().flat_map(|group| group.columns());
    columns.any(|column| {
        let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
        let (start, length) = (u64::try_from(start).ok(), u64::try_from(column.compressed_size()).ok());
        let end = start.zip(length).and_then(|(start, length)| start.checked_add(length));
        end.is_none_or(|end| end > size)
    })
}

/// The name of a compression of a file that is not read.
fn foreign_compression(about: &ParquetMetaData) -> Option<String> {
    let columns = about.row_groups().iter().flat_map(|group| group.columns());
    let is_read =
        |how: &Compression| matches!(how, Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_));
    let foreign = columns.map(|column| column.compression()).find(|how| !is_read(how))?;
    // Some have their level in brackets.
    format!("{foreign:?}").split('(').next().map(str::to_lowercase)
}

/// The part of a column of encoded images that is read, its `bytes`; nothing if it is no such column.
fn encoded(field: &Type) -> Option<std::sync::Arc<Type>> {
    if !field.is_group() {
        return None;
    }
    let bytes = field.get_fields().iter().find(|inner| inner.name() == "bytes")?;
    if bytes.is_group() || bytes.get_physical_type() != Physical::BYTE_ARRAY {
        return None;
    }
    let info = field.get_basic_info();
    let builder = Type::group_type_builder(field.name()).with_repetition(info.repetition());
    builder.with_fields(vec![bytes.clone()]).build().ok().map(std::sync::Arc::new)
}

/// The encoded image and the label of a row, or why there are none.
fn cells(row: Row, image: &str, label: &str) -> Result<(Vec<u8>, i64), String> {
    let (mut bytes, mut number) = (None, None);
    for (name, field) in row.into_columns() {
        if name == image {
            bytes = inner_bytes(field);
        } else if name == label {
            number = whole(&field);
        }
    }
    match (bytes, number) {
        (Some(bytes), Some(number)) => Ok((bytes, number)),
        (None, _) => Err("has no image in its file: `bytes` is empty, as where only paths are stored".to_owned()),
        (_, None) => Err(format!("has no whole number in the column `{label}`")),
    }
}

fn inner_bytes(field: Field) -> Option<Vec<u8>> {
    let Field::Group(row) = field else { return None };
    match row.into_columns().pop()? {
        (_, Field::Bytes(bytes)) => Some(bytes.data().to_vec()),
        _ => None,
    }
}

fn whole(field: &Field) -> Option<i64> {
    Some(match *field {
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value,
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.try_into().ok()?,
        _ => return None,
    })
}

/// The names of the classes of a column, in the metadata that the library `datasets` writes.
fn class_names_of(metadata: &str, label: &str) -> Option<Vec<String>> {
    let metadata: Json = serde_json::from_str(metadata).ok()?;
    let names = metadata.get("info")?.get("features")?.get(label)?.get("names")?.as_array()?;
    names.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

/// Images on their way into a nameless file.
struct Copied {
    file: BufWriter<File>,
    /// Name, first byte and size of each.
    images: Vec<(String, u64, u64)>,
    at: u64,
    labels: Vec<i64>,
    classes: Option<Vec<String>>,
}

impl Copied {
    fn into(file: File) -> Self {
        Copied { file: BufWriter::new(file), images: Vec::new(), at: 0, labels: Vec::new(), classes: None }
    }

    fn add(&mut self, name: String, bytes: &[u8], label: i64) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        let size = bytes.len() as u64;
        self.images.push((name, self.at, size));
        self.at += size;
        self.labels.push(label);
        Ok(())
    }

    /// Takes the classes of a shard; all shards of a part must agree.
    fn name_classes(&mut self, names: Option<Vec<String>>) -> Result<(), String> {
        match (&self.classes, names) {
            (Some(known), Some(names)) if *known != names => {
                Err("its metadata has other classes than the shard before it".to_owned())
            }
            (None, Some(names)) => {
                self.classes = Some(names);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Reads a file of any bytes to its end.
#[cfg(fuzzing)]
pub(super) fn read(file: File) -> Result<(), StageError> {
    let columns = Columns { image: None, label: "label" };
    let mut copy = Copied::into(tempfile::tempfile_in("/dev/shm").map_err(StageError::Scratch)?);
    columns.shard(file, "file", MUCH, &mut copy, &crate::executors::Silent)
}

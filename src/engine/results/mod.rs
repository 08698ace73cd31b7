//! Numbers from predictions, and the tables they stand in. Knows nothing of stages, files or the cache:
//! predictions go in, numbers and text come out.

mod counts;
mod csv;
mod family;
mod markdown;
mod measure;
mod paired;
mod published;
mod spread;
mod student;
mod table;
mod tex;
mod tex_floats;
mod tex_text;
mod words;

pub use counts::Counts;
pub use csv::{
    CsvError, EpochRow, PointRow, SampleNumber, csv, epochs_csv, line as csv_line, mockup_csv, points_csv, samples_csv,
};
pub use family::correct;
pub use markdown::markdown;
pub use measure::{MetricError, Number, measure, of_summary, same_images};
pub use paired::{Comparison, compare};
pub use published::{PublishedComparison, PublishedError, PublishedTable, Verdict};
pub use spread::{OfSeed, SeedStatistics, over_seeds};
pub use table::{Cell, DocumentError, Judgement, State, TableDocument};
pub use tex::tex;
pub use words::{
    compared as compared_words, difference, interval, notes as table_notes, number as cell_number, p_value, percent,
    published as published_words, thousands,
};

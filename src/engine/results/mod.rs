//! Numbers from predictions, and the tables they stand in. Knows nothing of stages, files or the cache:
//! predictions go in, counts and text come out.

mod accuracy;
mod csv;
mod markdown;
mod table;

pub use accuracy::{Counts, MetricError, measure};
pub use csv::{PointRow, csv, line as csv_line, points_csv};
pub use markdown::markdown;
pub use table::{Cell, DocumentError, TableDocument};

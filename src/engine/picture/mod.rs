//! Pictures that people look at: contact sheets of images, curves, and panels of lines. Knows numbers, pixels and
//! words, not where they come from.
//!
//! All of it is deterministic: text is set in a font that is part of the program, and the same content gives the same
//! bytes.

mod bitmap;
mod curves;
mod drawing;
mod frame;
mod heat;
mod legend;
mod marker;
mod page;
mod panels;
mod pdf;
mod pdf_font;
mod plot;
mod png;
mod render;
mod samples;
mod sheet;
mod style;
mod svg;
mod text;
mod ticks;
mod tile;

use crate::stage_kinds::Scale;

pub use curves::{Curves, Point, Series, curves_drawing};
pub use drawing::Drawing;
pub use heat::{heat_tile, map_tile, rendered};
pub use panels::{Panel, PanelLine, Panels, panels_drawing};
pub use samples::{SampleRow, Samples, samples_drawing};
pub use sheet::{Sheet, grouped_sheet_png, sheet_drawing, sheet_png};
pub use ticks::Ticks;
pub use tile::Tile;

/// Why a picture cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// A sheet has another number of tiles than its headings ask for.
    #[error("a sheet of {rows} rows and {columns} columns was given {found} {what}")]
    Layout {
        /// Row headings.
        rows: usize,
        /// Column headings.
        columns: usize,
        /// How many there were.
        found: usize,
        /// Of what: rows of tiles, or tiles in a row.
        what: &'static str,
    },
    /// A tile's pixels do not fit its size.
    #[error("the tile in row {row}, column {column} is {width} × {height} but has {bytes} bytes")]
    Tile {
        /// Its row, from 0.
        row: usize,
        /// Its column, from 0.
        column: usize,
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
        /// Its bytes; three a pixel were expected.
        bytes: usize,
    },
    /// A series, or the labels of an axis, has another number of points than the axis has values.
    #[error("{of} has {found} points where the horizontal axis has {expected} values")]
    Points {
        /// The series.
        of: String,
        /// How many it has.
        found: usize,
        /// How many it should have.
        expected: usize,
    },
    /// The values of the horizontal axis cannot be drawn: none, not ascending, or not above 0 for a logarithm.
    #[error(
        "{values:?} cannot be drawn along a {scale:?} axis: the values must ascend, and a logarithm needs them above 0"
    )]
    Axis {
        /// The values.
        values: Vec<f64>,
        /// How they were to be spaced.
        scale: Scale,
    },
    /// The picture would have more than [`MAX_PIXELS`] pixels.
    #[error("a picture of {width} × {height} pixels is too large")]
    TooLarge {
        /// Its width in pixels.
        width: u64,
        /// Its height in pixels.
        height: u64,
    },
    /// The PNG encoder refused.
    #[error("cannot encode a PNG")]
    Png(#[from] image::ImageError),
    /// The embedded font cannot be read, or the drawing library refused.
    #[error("cannot draw: {0}")]
    Draw(String),
}

/// The largest picture that is drawn, in pixels.
pub const MAX_PIXELS: u64 = 200_000_000;

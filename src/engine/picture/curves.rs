//! Shares as curves over a numeric axis, with bands for their 95 % intervals, as SVG and as PNG.

use plotters::prelude::{BitMapBackend, DrawingBackend, RGBColor, SVGBackend};
use plotters::style::Color;

use super::PictureError;
use super::bitmap::Bitmap;
use super::canvas::{Align, Backend, Canvas};
use super::marker;
use super::text::Face;
use super::ticks::Ticks;
use crate::stage_kinds::Scale;

/// A diagram of curves.
#[derive(Debug, Clone, PartialEq)]
pub struct Curves {
    /// A heading over all of it.
    pub title: Option<String>,
    /// What the horizontal axis is.
    pub x_name: String,
    /// What the vertical axis is; percent is added.
    pub y_name: String,
    /// What else is to be known of the numbers; stands beside it.
    pub y_note: String,
    /// Values along the horizontal axis, finite and ascending; above 0 for [`Scale::Log2`].
    pub x: Vec<f64>,
    /// What stands at each of them.
    pub x_labels: Vec<String>,
    /// How the horizontal axis is spaced.
    pub scale: Scale,
    /// The curves.
    pub series: Vec<Series>,
}

/// One curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// A point for each value of the axis; `None` where there is none, which leaves a gap.
    pub points: Vec<Option<Point>>,
}

/// A share with its interval, each 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The share.
    pub share: f64,
    /// Both ends of its interval; a point without one has no band, and no band leads to it.
    pub interval: Option<(f64, f64)>,
}

const TITLE: f32 = 17.0;
const TEXT: f32 = 13.0;
const INK: RGBColor = RGBColor(0x1A, 0x1A, 0x1A);
const FAINT: RGBColor = RGBColor(0x5A, 0x5A, 0x5A);
const GRID: RGBColor = RGBColor(0xE3, 0xE3, 0xE3);
const AXIS: RGBColor = RGBColor(0x80, 0x80, 0x80);
const MARGIN: f32 = 16.0;
const PLOT: (f32, f32) = (600.0, 360.0);
/// Legend entries wrap at this width.
const LEGEND_TEXT: f32 = 230.0;
const LEGEND_SAMPLE: f32 = 34.0;
const LINE: f32 = 19.0;
const MARK: f32 = 4.0;
/// Rows of labels under the horizontal axis: a label that has no room in the first takes the second, or is left out.
const LABEL_ROWS: usize = 2;

/// Units are drawn at this many SVG units, because plotters' coordinates are integers.
const SVG_SCALE: f32 = 10.0;
/// A PNG has this many pixels a unit, for screens of high density and for print …
const PNG_SCALE: u32 = 2;
/// … and is drawn this much larger and then averaged, because plotters' bitmaps are hardly antialiased.
const OVERSAMPLING: u32 = 3;

/// Draws curves as an SVG document. Its text is text, in the viewer's sans-serif font.
///
/// # Errors
/// [`PictureError::Axis`] or [`PictureError::Points`] if the parts do not fit together.
pub fn curves_svg(curves: &Curves) -> Result<String, PictureError> {
    let layout = Layout::new(curves)?;
    let drawn = |units: f32| (units * SVG_SCALE).round() as u32;
    let size = (drawn(layout.width), drawn(layout.height));
    let mut text = String::new();
    let mut backend = SVGBackend::with_string(&mut text, size);
    let mut canvas = Canvas { backend: &mut backend, scale: SVG_SCALE };
    let (right, bottom) = (layout.width, layout.height);
    canvas.fill(&[(0.0, 0.0), (right, 0.0), (right, bottom), (0.0, bottom)], RGBColor(255, 255, 255).mix(1.0))?;
    layout.draw(&mut canvas)?;
    backend.present().map_err(|error| PictureError::Draw(error.to_string()))?;
    drop(backend);
    // The first element carries the size in drawing units; shown at one unit a pixel it would be ten times too large.
    let large = format!("width=\"{}\" height=\"{}\"", size.0, size.1);
    Ok(text.replacen(&large, &format!("width=\"{}\" height=\"{}\"", layout.width, layout.height), 1))
}

/// Draws curves as a PNG, twice the size of the SVG in pixels.
///
/// # Errors
/// As of [`curves_svg`], and [`PictureError::TooLarge`].
pub fn curves_png(curves: &Curves) -> Result<Vec<u8>, PictureError> {
    let layout = Layout::new(curves)?;
    let factor = u64::from(PNG_SCALE * OVERSAMPLING);
    let mut large = Bitmap::white(layout.width as u64 * factor, layout.height as u64 * factor)?;
    let mut backend = BitMapBackend::with_buffer(&mut large.rgb, (large.width, large.height));
    layout.draw(&mut Canvas { backend: &mut backend, scale: factor as f32 })?;
    drop(backend);
    large.averaged(OVERSAMPLING).png()
}

/// Where everything stands, in units.
struct Layout<'a> {
    curves: &'a Curves,
    title: Vec<String>,
    y_name: Vec<String>,
    legend: Vec<Vec<String>>,
    /// For each label of the horizontal axis the row it stands in, if there is room for it.
    label_rows: Vec<Option<usize>>,
    ticks: Ticks,
    left: f32,
    top: f32,
    width: f32,
    height: f32,
}

impl<'a> Layout<'a> {
    fn new(curves: &'a Curves) -> Result<Self, PictureError> {
        check(curves)?;
        let (title_face, face) = (Face::new(TITLE)?, Face::new(TEXT)?);
        let legend: Vec<_> = curves.series.iter().map(|series| face.wrap(&series.name, LEGEND_TEXT)).collect();
        let legend_width = legend.iter().flatten().map(|line| face.width(line)).fold(0.0, f32::max);
        let legend_height = legend.iter().map(Vec::len).sum::<usize>() as f32 * LINE;
        let left = MARGIN + face.width("100") + 10.0;
        // The last label of the horizontal axis may reach out of the plot, as may the first.
        let overhang = curves.x_labels.iter().map(|label| face.width(label) / 2.0).fold(0.0, f32::max);
        let left = left.max(overhang + 4.0);
        let legend_width = if legend.is_empty() { 0.0 } else { 22.0 + LEGEND_SAMPLE + legend_width };
        let width = (left + PLOT.0 + legend_width.max(overhang) + MARGIN).ceil();
        let title = curves.title.as_deref().map_or(vec![], |title| title_face.wrap(title, width - 2.0 * MARGIN));
        let y_name = format!("{} (%); bands are 95 % intervals{}", curves.y_name, curves.y_note);
        let y_name = face.wrap(&y_name, width - 2.0 * MARGIN);
        let above = title.len() as f32 * 23.0 + if title.is_empty() { 0.0 } else { 6.0 };
        let top = MARGIN + above + y_name.len() as f32 * LINE + 8.0;

        let points = curves.series.iter().flat_map(|series| series.points.iter().flatten());
        let intervals = points.map(|point| point.interval.unwrap_or((point.share, point.share)));
        let mut layout = Layout {
            curves,
            title,
            y_name,
            legend,
            label_rows: vec![],
            ticks: Ticks::new(intervals),
            left,
            top,
            width,
            height: 0.0,
        };
        layout.label_rows = layout.place_labels(face);
        let rows = layout.label_rows.iter().flatten().max().map_or(0, |row| row + 1) as f32;
        let below = 10.0 + rows * LINE + LINE + MARGIN;
        layout.height = (top + PLOT.1.max(legend_height) + below).ceil();
        Ok(layout)
    }

    /// The row for each label that keeps it clear of its neighbours.
    fn place_labels(&self, face: Face) -> Vec<Option<usize>> {
        let mut ends = [f32::NEG_INFINITY; LABEL_ROWS];
        let place = |(label, &value): (&String, &f64)| {
            let (middle, half) = (self.x(value), face.width(label) / 2.0);
            let row = ends.iter().position(|&end| middle - half > end)?;
            ends[row] = middle + half + 8.0;
            Some(row)
        };
        self.curves.x_labels.iter().zip(&self.curves.x).map(place).collect()
    }

    fn x(&self, value: f64) -> f32 {
        let spaced = |value: f64| match self.curves.scale {
            Scale::Linear => value,
            Scale::Log2 => value.log2(),
        };
        let (first, last) = (self.curves.x.first().copied(), self.curves.x.last().copied());
        let (first, last) = (spaced(first.unwrap_or(0.0)), spaced(last.unwrap_or(1.0)));
        // A little room left and right keeps marks off the axis; a single value stands in the middle.
        let room = 0.03;
        let share = if last > first { (spaced(value) - first) / (last - first) } else { 0.5 };
        self.left + PLOT.0 * (room + (1.0 - 2.0 * room) * share as f32)
    }

    fn y(&self, percent: f64) -> f32 {
        let share = (percent - self.ticks.low) / (self.ticks.high - self.ticks.low);
        self.top + PLOT.1 * (1.0 - share as f32)
    }

    fn draw<B: Backend>(&self, canvas: &mut Canvas<'_, B>) -> Result<(), PictureError> {
        for (index, line) in self.title.iter().enumerate() {
            canvas.text(line, (MARGIN, MARGIN + 16.0 + index as f32 * 23.0), TITLE, Align::Left, INK)?;
        }
        self.draw_axes(canvas)?;
        for index in 0..self.curves.series.len() {
            self.draw_band(canvas, index)?;
        }
        for index in 0..self.curves.series.len() {
            self.draw_curve(canvas, index)?;
        }
        self.draw_legend(canvas)
    }

    fn draw_axes<B: Backend>(&self, canvas: &mut Canvas<'_, B>) -> Result<(), PictureError> {
        let (left, right, bottom) = (self.left, self.left + PLOT.0, self.top + PLOT.1);
        // Above the axis and level: easier to read than along it.
        for (index, line) in self.y_name.iter().rev().enumerate() {
            canvas.text(line, (MARGIN, self.top - 14.0 - index as f32 * LINE), TEXT, Align::Left, FAINT)?;
        }
        for percent in self.ticks.values() {
            let y = self.y(percent);
            canvas.line(&[(left, y), (right, y)], GRID.mix(1.0), 1.0)?;
            canvas.text(&percent.to_string(), (left - 8.0, y + 4.7), TEXT, Align::Right, FAINT)?;
        }
        canvas.line(&[(left, bottom), (right, bottom)], AXIS.mix(1.0), 1.0)?;
        let mut lowest = 0;
        for ((label, &value), row) in self.curves.x_labels.iter().zip(&self.curves.x).zip(&self.label_rows) {
            let x = self.x(value);
            canvas.line(&[(x, bottom), (x, bottom + 5.0)], AXIS.mix(1.0), 1.0)?;
            if let Some(row) = *row {
                canvas.text(label, (x, bottom + 19.0 + row as f32 * LINE), TEXT, Align::Centre, FAINT)?;
                lowest = lowest.max(row + 1);
            }
        }
        let middle = (left + right) / 2.0;
        canvas.text(
            &self.curves.x_name,
            (middle, bottom + 10.0 + lowest as f32 * LINE + 15.0),
            TEXT,
            Align::Centre,
            INK,
        )
    }

    /// The points of a series that stand side by side, without the gaps between.
    fn runs(&self, series: usize) -> Vec<Vec<(f32, Point)>> {
        let mut runs = vec![vec![]];
        for (&value, point) in self.curves.x.iter().zip(&self.curves.series[series].points) {
            match (point, runs.last_mut()) {
                (Some(point), Some(run)) => run.push((self.x(value), *point)),
                _ => runs.push(vec![]),
            }
        }
        runs.retain(|run| !run.is_empty());
        runs
    }

    fn draw_band<B: Backend>(&self, canvas: &mut Canvas<'_, B>, series: usize) -> Result<(), PictureError> {
        let color = marker::color(series);
        // Many bands over one another would hide the curves.
        let opacity = if self.curves.series.len() > 5 { 0.09 } else { 0.16 };
        let runs = self.runs(series);
        let bands = runs.iter().flat_map(|run| run.split(|(_, point)| point.interval.is_none()));
        for band in bands.filter(|band| !band.is_empty()) {
            let ends = |(x, point): &(f32, Point)| point.interval.map(|(low, high)| (*x, low, high));
            let ends: Vec<(f32, f64, f64)> = band.iter().filter_map(ends).collect();
            // A point alone would have a band of no width: it is drawn as wide as a mark.
            let ends = match ends[..] {
                [(x, low, high)] => vec![(x - MARK, low, high), (x + MARK, low, high)],
                _ => ends,
            };
            let upper = ends.iter().map(|(x, _, high)| (*x, self.y(high * 100.0)));
            let lower = ends.iter().rev().map(|(x, low, _)| (*x, self.y(low * 100.0)));
            let outline: Vec<_> = upper.chain(lower).collect();
            canvas.fill(&outline, color.mix(opacity))?;
        }
        Ok(())
    }

    fn draw_curve<B: Backend>(&self, canvas: &mut Canvas<'_, B>, series: usize) -> Result<(), PictureError> {
        let color = marker::color(series);
        for run in self.runs(series) {
            let points: Vec<_> = run.iter().map(|(x, point)| (*x, self.y(point.share * 100.0))).collect();
            if points.len() > 1 {
                canvas.line(&points, color.mix(1.0), 1.8)?;
            }
            for &point in &points {
                draw_mark(canvas, series, point)?;
            }
        }
        Ok(())
    }

    fn draw_legend<B: Backend>(&self, canvas: &mut Canvas<'_, B>) -> Result<(), PictureError> {
        let left = self.left + PLOT.0 + 22.0;
        let mut y = self.top + 4.0;
        for (series, lines) in self.legend.iter().enumerate() {
            let sample = [(left, y), (left + LEGEND_SAMPLE - 10.0, y)];
            canvas.line(&sample, marker::color(series).mix(1.0), 1.8)?;
            draw_mark(canvas, series, (left + (LEGEND_SAMPLE - 10.0) / 2.0, y))?;
            for line in lines {
                canvas.text(line, (left + LEGEND_SAMPLE, y + 4.7), TEXT, Align::Left, INK)?;
                y += LINE;
            }
        }
        Ok(())
    }
}

/// The mark of a series, with a thin white border that keeps it apart from what lies under it.
fn draw_mark<B: Backend>(canvas: &mut Canvas<'_, B>, series: usize, (x, y): (f32, f32)) -> Result<(), PictureError> {
    let mut fill = |border: f32, color: RGBColor| {
        let outline = marker::outline(series, MARK, border);
        let placed: Vec<_> = outline.into_iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        canvas.fill(&placed, color.mix(1.0))
    };
    fill(1.2, RGBColor(255, 255, 255))?;
    fill(0.0, marker::color(series))
}

fn check(curves: &Curves) -> Result<(), PictureError> {
    let expected = curves.x.len();
    if curves.x_labels.len() != expected {
        return Err(PictureError::Points { of: "the horizontal axis".into(), found: curves.x_labels.len(), expected });
    }
    let ascending = curves.x.windows(2).all(|pair| pair[0] < pair[1]);
    let in_scale = |value: &f64| value.is_finite() && (curves.scale == Scale::Linear || *value > 0.0);
    if expected == 0 || !ascending || !curves.x.iter().all(in_scale) {
        return Err(PictureError::Axis { values: curves.x.clone(), scale: curves.scale });
    }
    match curves.series.iter().find(|series| series.points.len() != expected) {
        Some(series) => Err(PictureError::Points { of: series.name.clone(), found: series.points.len(), expected }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Counts;

    fn saturation(models: usize, n: u64) -> Curves {
        let x: Vec<f64> = vec![0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 1024.0];
        let point = |model: usize, value: f64| {
            let share =
                (0.93 - model as f64 * 0.02) / (1.0 + (value.log2() - 1.0).powi(2) * 0.12 / (1.0 + model as f64 * 0.6));
            let counts = Counts::new((share * n as f64) as u64, n).unwrap();
            let (low, high) = counts.interval();
            counts.share().map(|share| Point { share, interval: Some((low, high)) })
        };
        let names = [
            "Standard",
            "Underfit",
            "PGD-inf: 8",
            "PGD-inf: 4",
            "PGD-inf: 2",
            "PGD-inf: 1",
            "PGD-L2: 12",
            "PGD-L2: 8",
            "PGD-L2: 4",
            "FGSM: 8",
            "FGSM: 4",
            "Spatially transformed adversarial training (long name)",
        ];
        let series = |model: usize| Series {
            name: names[model].to_owned(),
            points: x.iter().map(|&value| point(model, value)).collect(),
        };
        Curves {
            title: Some("Accuracy on correctly classified images under saturation".into()),
            x_name: "saturation level p".into(),
            y_name: "accuracy on correctly classified images".into(),
            y_note: "; n = 1,800".into(),
            x_labels: ["0.25", "1/2", "1", "2", "4", "8", "16", "64", "1024"].map(str::to_owned).to_vec(),
            scale: Scale::Log2,
            series: (0..models).map(series).collect(),
            x,
        }
    }

    #[test]
    fn the_same_curves_are_the_same_bytes() {
        let curves = saturation(3, 2000);
        assert_eq!(curves_svg(&curves).unwrap(), curves_svg(&curves.clone()).unwrap());
        assert_eq!(curves_png(&curves).unwrap(), curves_png(&curves.clone()).unwrap());
    }

    #[test]
    fn every_series_is_drawn_and_every_word_is_in_the_svg() {
        let curves = saturation(12, 2000);
        let svg = curves_svg(&curves).unwrap();
        let legend = curves.series[..11].iter().map(|series| series.name.as_str());
        for word in
            legend.chain(curves.x_labels.iter().map(String::as_str)).chain(["saturation level p", "100", "80", "0"])
        {
            assert!(svg.contains(&format!(">\n{word}\n<")), "{word} is not in the picture");
        }
        let picture = image::load_from_memory(&curves_png(&curves).unwrap()).unwrap().to_rgb8();
        assert!(svg.starts_with(&format!(
            "<svg width=\"{}\" height=\"{}\"",
            picture.width() / 2,
            picture.height() / 2
        )));
        for series in 0..12 {
            let RGBColor(r, g, b) = marker::color(series);
            // Nine marks and one in the legend, of about 4 units radius at 2 pixels a unit; some are partly hidden.
            let pixels = picture.pixels().filter(|pixel| pixel.0 == [r, g, b]).count();
            assert!(pixels > 300, "series {series} covers {pixels} pixels");
            let fills = svg.matches(&format!("fill=\"#{r:02X}{g:02X}{b:02X}\"")).count();
            assert!(fills > 10, "series {series} has {fills} marks");
        }
    }

    #[test]
    fn a_point_stands_where_its_numbers_are() {
        let curves = saturation(1, 2000);
        let layout = Layout::new(&curves).unwrap();
        // Each doubling is as far from the last, over a range of 12 doublings with 3 % room on both sides.
        let doubling = layout.x(0.5) - layout.x(0.25);
        assert!((doubling - 600.0 * 0.94 / 12.0).abs() < 0.01, "{doubling}");
        assert!((layout.x(1024.0) - layout.x(64.0) - 4.0 * doubling).abs() < 0.01);
        assert!((layout.y(0.0) - layout.y(100.0) - 360.0).abs() < 0.01);
        assert!((layout.y(50.0) - layout.y(100.0) - 180.0).abs() < 0.01);
        assert_eq!(layout.runs(0)[0][3].0, layout.x(2.0));
    }

    #[test]
    fn a_missing_point_leaves_a_gap() {
        let mut curves = saturation(1, 2000);
        curves.series[0].points[3] = None;
        curves.series[0].points[8] = None;
        let runs = Layout::new(&curves).unwrap().runs(0);
        assert_eq!(runs.iter().map(Vec::len).collect::<Vec<_>>(), [3, 4]);
        curves_png(&curves).unwrap();
    }

    #[test]
    fn a_point_without_an_interval_has_no_band() {
        let fill = |curves: &Curves| curves_svg(curves).unwrap().matches("opacity=\"0.16\"").count();
        let mut curves = saturation(1, 2000);
        assert_eq!(fill(&curves), 1);
        let bare = |curves: &mut Curves, at: usize| curves.series[0].points[at].as_mut().unwrap().interval = None;
        bare(&mut curves, 3);
        assert_eq!(fill(&curves), 2, "one on either side");
        (0..9).for_each(|at| bare(&mut curves, at));
        assert_eq!(fill(&curves), 0);
    }

    #[test]
    fn labels_never_overlap() {
        let mut curves = saturation(1, 100);
        curves.scale = Scale::Linear;
        let (layout, face) = (Layout::new(&curves).unwrap(), Face::new(TEXT).unwrap());
        let placed: Vec<_> = layout.label_rows.iter().enumerate().filter_map(|(i, row)| Some((i, (*row)?))).collect();
        assert!(placed.len() >= 4 && placed.len() < 9, "{placed:?}");
        for (nth, &(a, row_a)) in placed.iter().enumerate() {
            for &(b, row_b) in &placed[nth + 1..] {
                let apart = layout.x(curves.x[b]) - layout.x(curves.x[a]);
                let widths = (face.width(&curves.x_labels[a]) + face.width(&curves.x_labels[b])) / 2.0;
                assert!(row_a != row_b || apart > widths);
            }
        }
    }

    #[test]
    fn parts_that_do_not_fit_together_are_refused() {
        let refused = |change: &dyn Fn(&mut Curves)| {
            let mut curves = saturation(2, 100);
            change(&mut curves);
            curves_svg(&curves).unwrap_err()
        };
        let axis = |error| matches!(error, PictureError::Axis { .. });
        assert!(axis(refused(&|curves| curves.x[0] = 0.0)));
        assert!(axis(refused(&|curves| curves.x[3] = curves.x[2])));
        assert!(axis(refused(&|curves| curves.x[8] = f64::INFINITY)));
        assert!(axis(refused(&|curves| (curves.x, curves.x_labels) = (vec![], vec![]))));
        let error = refused(&|curves| curves.series[1].points.truncate(8));
        assert!(matches!(error, PictureError::Points { of, found: 8, expected: 9 } if of == "Underfit"));
        assert!(matches!(refused(&|curves| curves.x_labels.truncate(8)), PictureError::Points { found: 8, .. }));
    }

    #[test]
    #[ignore = "writes pictures to look at into $ATFLOW_PICTURES"]
    fn pictures_to_look_at() {
        let folder = std::path::PathBuf::from(std::env::var_os("ATFLOW_PICTURES").unwrap());
        let save = |name: &str, curves: &Curves| {
            std::fs::write(folder.join(format!("{name}.png")), curves_png(curves).unwrap()).unwrap();
            std::fs::write(folder.join(format!("{name}.svg")), curves_svg(curves).unwrap()).unwrap();
        };
        save("twelve", &saturation(12, 2000));
        let mut three = saturation(3, 300);
        three.series[1].points[3] = None;
        three.series[1].points[7] = None;
        save("three", &three);
        let mut linear = saturation(4, 2000);
        (linear.scale, linear.title) = (Scale::Linear, None);
        save("linear", &linear);
        let mut one = saturation(2, 2000);
        one.x.truncate(1);
        one.x_labels.truncate(1);
        one.series.iter_mut().for_each(|series| series.points.truncate(1));
        save("one", &one);
    }
}

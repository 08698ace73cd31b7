//! Shares as curves over a numeric axis, with bands for their 95 % intervals.

use super::PictureError;
use super::drawing::{Align, Drawing};
use super::frame::{Frame, RASTER, Title};
use super::legend::{Legend, Sample};
use super::marker;
use super::plot::{self, Label, Plot};
use super::style::{FAINT, INK, LINE, MARK, TEXT};
use super::text::{Face, NO_BREAK};
use super::ticks::{MOST_STEPS, Ticks};
use crate::stage_kinds::{LegendPlace, PictureSize, Scale};

/// A diagram of curves.
#[derive(Debug, Clone, PartialEq)]
pub struct Curves {
    /// A heading over all of it.
    pub title: Option<String>,
    /// What the horizontal axis is.
    pub x_name: String,
    /// What the vertical axis is; percent is added where it has shares.
    pub y_name: String,
    /// What else is to be known of the numbers; stands beside it.
    pub y_note: String,
    /// Whether the numbers are shares, drawn in percent.
    pub is_percent: bool,
    /// Values along the horizontal axis, finite and ascending; above 0 for [`Scale::Log2`].
    pub x: Vec<f64>,
    /// What stands at each of them.
    pub x_labels: Vec<String>,
    /// How the horizontal axis is spaced.
    pub scale: Scale,
    /// The curves.
    pub series: Vec<Series>,
    /// What the dashed curves are, where there are some.
    pub published: Option<String>,
    /// How large it is in print; as large as its parts ask for where none is given.
    pub size: Option<PictureSize>,
    /// Where the names of the curves stand; beside the plot, or below it where that would leave the plot too little.
    pub legend: Option<LegendPlace>,
}

/// One curve.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// A point for each value of the axis; `None` where there is none, which leaves a gap.
    pub points: Vec<Option<Point>>,
    /// Shares, 0 to 1, of a dashed curve in its colour: as many as `points`, or none.
    pub published: Vec<Option<f64>>,
}

/// A number with its interval; a share is 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The number.
    pub share: f64,
    /// Both ends of its interval; a point without one has no band, and no band leads to it.
    pub interval: Option<(f64, f64)>,
}

const PLOT: (f32, f32) = (600.0, 360.0);
/// A plot is at least so wide and high, however small a picture is to be.
pub(super) const LEAST_PLOT: (f32, f32) = (80.0, 60.0);

/// Draws curves on white.
///
/// # Errors
/// [`PictureError::Axis`] or [`PictureError::Points`] if the parts do not fit together.
pub fn curves_drawing(curves: &Curves) -> Result<Drawing, PictureError> {
    let layout = Layout::new(curves)?;
    let mut canvas = Drawing::new((layout.width, layout.height), layout.frame.unit, RASTER);
    layout.draw(&mut canvas)?;
    Ok(canvas)
}

/// Where everything stands, in units.
struct Layout<'a> {
    curves: &'a Curves,
    frame: Frame,
    title: Title,
    y_name: Vec<String>,
    legend: Legend,
    labels: Vec<Label>,
    plot: Plot,
    width: f32,
    height: f32,
}

impl<'a> Layout<'a> {
    fn new(curves: &'a Curves) -> Result<Self, PictureError> {
        check(curves)?;
        let face = Face::new(TEXT)?;
        let frame = Frame::new(curves.size);
        let margin = frame.margin;
        let ticks =
            if curves.is_percent { Ticks::new(shares(curves)) } else { Ticks::of_numbers(ends(curves), MOST_STEPS) };
        let widest = ticks.values().map(|value| face.width(&ticks.label(value))).fold(face.width("100"), f32::max);
        let left = margin + widest + 10.0;
        // The last label of the horizontal axis may reach out of the plot, as may the first.
        let overhang = curves.x_labels.iter().map(|label| face.width(label) / 2.0).fold(0.0, f32::max);
        let left = left.max(overhang + 4.0);
        let names: Vec<(Sample, &str)> = legend_entries(curves).collect();
        let room = frame.width.map(|whole| whole - left - margin);
        let mut legend = Legend::new(&names, face, curves.legend, room);
        let beside = legend.width_beside().max(overhang) + margin;
        let plot_width = frame.width.map_or(PLOT.0, |whole| (whole - left - beside).max(LEAST_PLOT.0));
        let width = frame.width.unwrap_or(0.0).max(left + plot_width + beside).ceil();
        legend.flow(width - left - margin);

        let title = Title::new(curves.title.as_deref(), width - 2.0 * margin)?;
        let percent = if curves.is_percent { " (%)" } else { "" };
        let y_name = format!("{}{percent}; bands are 95{NO_BREAK}% intervals{}", curves.y_name, curves.y_note);
        let y_name = face.wrap(&y_name, width - 2.0 * margin);
        let (first, last) = (curves.x.first().copied(), curves.x.last().copied());
        let plot = Plot {
            left,
            top: margin + title.height() + y_name.len() as f32 * LINE + 8.0,
            size: (plot_width, PLOT.1),
            ends: (first.unwrap_or(0.0), last.unwrap_or(1.0)),
            scale: curves.scale,
            ticks,
        };
        let labels = plot.labels(curves.x_labels.iter().map(String::as_str).zip(curves.x.iter().copied()), face);
        let mut layout = Layout { curves, frame, title, y_name, legend, labels, plot, width, height: 0.0 };
        layout.plot.size.1 = match frame.height {
            None => PLOT.1.max(layout.legend.height_beside()),
            Some(height) => (height - layout.plot.top - layout.below()).max(LEAST_PLOT.1),
        };
        layout.height = (layout.plot.top + layout.plot.size.1 + layout.below()).ceil();
        Ok(layout)
    }

    /// What the plot leaves below it: labels, the axis' name, and the legend where it stands there.
    fn below(&self) -> f32 {
        10.0 + plot::rows(&self.labels) * LINE + LINE + self.legend.height_below() + self.frame.margin
    }

    fn draw(&self, canvas: &mut Drawing) -> Result<(), PictureError> {
        let face = Face::new(TEXT)?;
        self.title.draw(canvas, self.frame.margin)?;
        self.draw_axes(canvas, face);
        let all = 0..self.curves.series.len();
        all.clone().for_each(|series| self.draw_band(canvas, series));
        all.clone().for_each(|series| self.draw_published(canvas, series));
        all.for_each(|series| self.draw_curve(canvas, series));
        let plot = &self.plot;
        let below = plot.bottom() + 10.0 + plot::rows(&self.labels) * LINE + LINE;
        self.legend.draw(canvas, face, (plot.right(), plot.top), (plot.left, below));
        Ok(())
    }

    fn draw_axes(&self, canvas: &mut Drawing, face: Face) {
        // Above the axis and level: easier to read than along it.
        for (index, line) in self.y_name.iter().rev().enumerate() {
            let at = (self.frame.margin, self.plot.top - 14.0 - index as f32 * LINE);
            canvas.text(face, line, at, Align::Left, FAINT);
        }
        self.plot.draw_axes(canvas, face, &self.labels);
        let (left, right, bottom) = (self.plot.left, self.plot.right(), self.plot.bottom());
        let middle = ((left + right) / 2.0, bottom + 25.0 + plot::rows(&self.labels) * LINE);
        canvas.text(face, &self.curves.x_name, middle, Align::Centre, INK);
    }

    /// The points of a series that stand side by side, without the gaps between.
    fn runs<T: Copy>(&self, points: &[Option<T>]) -> Vec<Vec<(f32, T)>> {
        let mut runs = vec![vec![]];
        for (&value, point) in self.curves.x.iter().zip(points) {
            match (point, runs.last_mut()) {
                (Some(point), Some(run)) => run.push((self.plot.x(value), *point)),
                _ => runs.push(vec![]),
            }
        }
        runs.retain(|run| !run.is_empty());
        runs
    }

    /// The height of a number.
    fn y(&self, number: f64) -> f32 {
        self.plot.y(if self.curves.is_percent { number * 100.0 } else { number })
    }

    fn draw_band(&self, canvas: &mut Drawing, series: usize) {
        // Many bands over one another would hide the curves.
        let opacity = if self.curves.series.len() > 5 { 0.09 } else { 0.16 };
        let runs = self.runs(&self.curves.series[series].points);
        let bands = runs.iter().flat_map(|run| run.split(|(_, point)| point.interval.is_none()));
        for band in bands.filter(|band| !band.is_empty()) {
            let ends = |(x, point): &(f32, Point)| point.interval.map(|(low, high)| (*x, low, high));
            let ends: Vec<(f32, f64, f64)> = band.iter().filter_map(ends).collect();
            // A point alone would have a band of no width: it is drawn as wide as a mark.
            let ends = match ends[..] {
                [(x, low, high)] => vec![(x - MARK, low, high), (x + MARK, low, high)],
                _ => ends,
            };
            let upper = ends.iter().map(|(x, _, high)| (*x, self.y(*high)));
            let lower = ends.iter().rev().map(|(x, low, _)| (*x, self.y(*low)));
            canvas.fill(upper.chain(lower).collect(), marker::color(series), opacity);
        }
    }

    fn draw_curve(&self, canvas: &mut Drawing, series: usize) {
        for run in self.runs(&self.curves.series[series].points) {
            let points: Vec<_> = run.iter().map(|(x, point)| (*x, self.y(point.share))).collect();
            if points.len() > 1 {
                canvas.line(&points, marker::color(series), 1.8);
            }
            points.into_iter().for_each(|point| marker::draw(canvas, series, point));
        }
    }

    fn draw_published(&self, canvas: &mut Drawing, series: usize) {
        for run in self.runs(&self.curves.series[series].published) {
            let points: Vec<_> = run.iter().map(|(x, share)| (*x, self.y(*share))).collect();
            if points.len() > 1 {
                canvas.dashes(&points, marker::color(series), 1.4);
            }
            points.into_iter().for_each(|point| marker::draw_hollow(canvas, series, point));
        }
    }
}

/// The names of the curves, and of the dashed ones together.
fn legend_entries(curves: &Curves) -> impl Iterator<Item = (Sample, &str)> {
    let series = curves.series.iter().enumerate().map(|(index, series)| (Sample::Curve(index), series.name.as_str()));
    series.chain(curves.published.as_deref().map(|name| (Sample::Dashed, name)))
}

/// The numbers that the vertical axis must hold, one by one.
fn ends(curves: &Curves) -> impl Iterator<Item = f64> {
    shares(curves).flat_map(|(low, high)| [low, high])
}

/// What the vertical axis must hold.
fn shares(curves: &Curves) -> impl Iterator<Item = (f64, f64)> {
    let points = curves.series.iter().flat_map(|series| series.points.iter().flatten());
    let ours = points.map(|point| point.interval.unwrap_or((point.share, point.share)));
    let published = curves.series.iter().flat_map(|series| series.published.iter().flatten());
    ours.chain(published.map(|share| (*share, *share)))
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
    use super::super::frame::POINT;
    use super::*;
    use crate::number::Real;
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
            published: vec![],
        };
        Curves {
            title: Some("Accuracy on correctly classified images under saturation".into()),
            x_name: "saturation level p".into(),
            y_name: "accuracy on correctly classified images".into(),
            y_note: "; n = 1,800".into(),
            is_percent: true,
            x_labels: ["0.25", "1/2", "1", "2", "4", "8", "16", "64", "1024"].map(str::to_owned).to_vec(),
            scale: Scale::Log2,
            series: (0..models).map(series).collect(),
            x,
            published: None,
            size: None,
            legend: None,
        }
    }

    fn svg(curves: &Curves) -> String {
        curves_drawing(curves).unwrap().svg().unwrap()
    }

    fn png(curves: &Curves) -> Vec<u8> {
        curves_drawing(curves).unwrap().small_png().unwrap()
    }

    /// For one column of a paper: 84 mm wide, with published numbers.
    fn printed(legend: Option<LegendPlace>, height: Option<f64>) -> Curves {
        let mut curves = saturation(4, 2000);
        let size = PictureSize { width: Real::new(84.0), height: height.map(Real::new), text: None };
        (curves.title, curves.size, curves.legend) = (None, Some(size), legend);
        for series in &mut curves.series {
            let other = |point: &Option<Point>| point.map(|point| point.share - 0.04);
            series.published = series.points.iter().map(other).collect();
        }
        curves.published = Some("table4".into());
        curves
    }

    #[test]
    fn a_picture_is_as_large_as_asked_for() {
        for legend in [None, Some(LegendPlace::Below), Some(LegendPlace::None)] {
            let drawing = curves_drawing(&printed(legend, Some(70.0))).unwrap();
            let millimetres = |units: f32| units * drawing.unit * POINT;
            assert!((millimetres(drawing.size.0) - 84.0).abs() < 0.3, "{legend:?}: {}", millimetres(drawing.size.0));
            assert!((millimetres(drawing.size.1) - 70.0).abs() < 0.3, "{legend:?}: {}", millimetres(drawing.size.1));
            let names = drawing.svg().unwrap().matches(">Underfit<").count();
            assert_eq!(names, usize::from(legend != Some(LegendPlace::None)));
        }
    }

    #[test]
    fn nothing_reaches_over_the_border() {
        for curves in [printed(None, None), printed(Some(LegendPlace::Right), None), saturation(12, 100)] {
            let picture = image::load_from_memory(&png(&curves)).unwrap().to_rgb8();
            let (width, height) = picture.dimensions();
            for (x, y, pixel) in picture.enumerate_pixels() {
                let border = x < 2 || y < 2 || x >= width - 2 || y >= height - 2;
                assert!(!border || pixel.0 == [255; 3], "ink at ({x}, {y}) of {width} × {height}");
            }
        }
    }

    #[test]
    fn published_curves_are_dashed_and_named() {
        let curves = printed(None, None);
        let svg = svg(&curves);
        // One for each curve, and a sample.
        assert_eq!(svg.matches("stroke-dasharray").count(), 5);
        assert!(svg.contains(">table4<"), "{svg}");
        let mut bare = curves;
        (bare.published, bare.series) = (None, saturation(4, 2000).series);
        assert!(!super::tests::svg(&bare).contains("stroke-dasharray"));
    }

    #[test]
    fn the_same_curves_are_the_same_bytes() {
        let curves = saturation(3, 2000);
        let (one, other) = (curves_drawing(&curves).unwrap(), curves_drawing(&curves.clone()).unwrap());
        assert_eq!(one.svg().unwrap(), other.svg().unwrap());
        assert_eq!(one.small_png().unwrap(), other.small_png().unwrap());
        assert_eq!(one.pdf().unwrap(), other.pdf().unwrap());
    }

    #[test]
    fn every_series_is_drawn_and_every_word_is_in_the_svg() {
        let curves = saturation(12, 2000);
        let svg = svg(&curves);
        let legend = curves.series[..11].iter().map(|series| series.name.as_str());
        for word in
            legend.chain(curves.x_labels.iter().map(String::as_str)).chain(["saturation level p", "100", "80", "0"])
        {
            assert!(svg.contains(&format!(">{word}<")), "{word} is not in the picture");
        }
        let picture = image::load_from_memory(&png(&curves)).unwrap().to_rgb8();
        let size = format!(" width=\"{}\" height=\"{}\" ", picture.width() / 2, picture.height() / 2);
        assert!(svg.contains(&size), "{size}");
        for series in 0..12 {
            let [r, g, b] = marker::color(series);
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
        let doubling = layout.plot.x(0.5) - layout.plot.x(0.25);
        assert!((doubling - 600.0 * 0.94 / 12.0).abs() < 0.01, "{doubling}");
        assert!((layout.plot.x(1024.0) - layout.plot.x(64.0) - 4.0 * doubling).abs() < 0.01);
        assert!((layout.plot.y(0.0) - layout.plot.y(100.0) - 360.0).abs() < 0.01);
        assert!((layout.plot.y(50.0) - layout.plot.y(100.0) - 180.0).abs() < 0.01);
        assert_eq!(layout.runs(&curves.series[0].points)[0][3].0, layout.plot.x(2.0));
    }

    #[test]
    fn a_missing_point_leaves_a_gap() {
        let mut curves = saturation(1, 2000);
        curves.series[0].points[3] = None;
        curves.series[0].points[8] = None;
        let runs = Layout::new(&curves).unwrap().runs(&curves.series[0].points);
        assert_eq!(runs.iter().map(Vec::len).collect::<Vec<_>>(), [3, 4]);
        png(&curves);
    }

    #[test]
    fn a_point_without_an_interval_has_no_band() {
        let fill = |curves: &Curves| svg(curves).matches("fill-opacity=\"0.16\"").count();
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
        let placed: Vec<_> = layout.labels.iter().enumerate().filter_map(|(i, label)| Some((i, label.row?))).collect();
        assert!(placed.len() >= 4 && placed.len() < 9, "{placed:?}");
        for (nth, &(a, row_a)) in placed.iter().enumerate() {
            for &(b, row_b) in &placed[nth + 1..] {
                let apart = layout.plot.x(curves.x[b]) - layout.plot.x(curves.x[a]);
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
            curves_drawing(&curves).unwrap_err()
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
            let drawing = curves_drawing(curves).unwrap();
            std::fs::write(folder.join(format!("{name}.png")), drawing.small_png().unwrap()).unwrap();
            std::fs::write(folder.join(format!("{name}.svg")), drawing.svg().unwrap()).unwrap();
            std::fs::write(folder.join(format!("{name}.pdf")), drawing.pdf().unwrap()).unwrap();
        };
        save("twelve", &saturation(12, 2000));
        let mut three = saturation(3, 300);
        three.series[1].points[3] = None;
        three.series[1].points[7] = None;
        save("three", &three);
        let mut linear = saturation(4, 2000);
        (linear.scale, linear.title) = (Scale::Linear, None);
        save("linear", &linear);
        save("printed", &printed(None, None));
        save("printed-right", &printed(Some(LegendPlace::Right), Some(50.0)));
        save("printed-plain", &printed(Some(LegendPlace::None), Some(45.0)));
        let mut one = saturation(2, 2000);
        one.x.truncate(1);
        one.x_labels.truncate(1);
        one.series.iter_mut().for_each(|series| series.points.truncate(1));
        save("one", &one);
    }
}

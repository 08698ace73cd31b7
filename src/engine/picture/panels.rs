//! Numbers that change over whole steps, as lines: a panel for each number, side by side and below one another.

use super::PictureError;
use super::curves::LEAST_PLOT;
use super::drawing::{Align, Drawing, Spot};
use super::frame::{Frame, RASTER, Title};
use super::legend::{Legend, Sample};
use super::marker;
use super::plot::{Label, Plot};
use super::style::{FAINT, INK, LINE, TEXT};
use super::text::Face;
use super::ticks::{MOST_STEPS, Ticks};
use crate::stage_kinds::{LegendPlace, PictureSize, Scale};

/// A diagram of panels with one horizontal axis and one legend.
#[derive(Debug, Clone, PartialEq)]
pub struct Panels {
    /// A heading over all of it.
    pub title: Option<String>,
    /// What the horizontal axes are.
    pub x_name: String,
    /// The names of the series, each with a colour and a mark of its own.
    pub series: Vec<String>,
    /// The panels, in rows.
    pub panels: Vec<Panel>,
    /// What the dashed lines are, where there are some.
    pub dashed: Option<String>,
    /// What the solid lines are; of no interest where none is dashed.
    pub solid: Option<String>,
    /// What the marks are.
    pub mark: String,
    /// How large it is in print; as large as its parts ask for where none is given.
    pub size: Option<PictureSize>,
    /// Where the legend stands; below the panels if not given.
    pub legend: Option<LegendPlace>,
}

/// One panel.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// What its vertical axis is, with the unit.
    pub name: String,
    /// Whether its numbers are in percent, 0 to 100.
    pub is_percent: bool,
    /// Its lines.
    pub lines: Vec<PanelLine>,
}

/// One line of a panel.
#[derive(Debug, Clone, PartialEq)]
pub struct PanelLine {
    /// Index of its series.
    pub series: usize,
    /// Whether it is dashed.
    pub is_dashed: bool,
    /// Its points by ascending step, finite. Gaps between steps are bridged.
    pub points: Vec<(u32, f64)>,
    /// The step with the mark. A line of one point is a mark.
    pub mark: Option<u32>,
}

/// The width of a picture of no given size.
const WIDTH: f32 = 760.0;
/// A panel takes at least so much, so two fit into a column of a paper.
const LEAST_PANEL: f32 = 170.0;
/// Between two panels.
const GAP: (f32, f32) = (20.0, 12.0);
/// The height of a plot of no given size: a share of its width, within bounds.
const HEIGHT: (f32, f32, f32) = (0.72, 100.0, 260.0);
/// The least distance of lines of the vertical axis, and of labels of the horizontal one.
const TICKS: (f32, f32) = (20.0, 14.0);

/// Draws panels on white.
///
/// # Errors
/// [`PictureError::Draw`] if the font cannot be read.
pub fn panels_drawing(panels: &Panels) -> Result<Drawing, PictureError> {
    let layout = Layout::new(panels)?;
    let mut canvas = Drawing::new((layout.width, layout.height), layout.frame.unit, RASTER);
    layout.draw(&mut canvas)?;
    Ok(canvas)
}

/// Where everything stands, in units.
struct Layout<'a> {
    panels: &'a Panels,
    frame: Frame,
    title: Title,
    legend: Legend,
    cells: Vec<Cell<'a>>,
    /// The right end of the panels, and the lower end with the names of axes.
    corner: Spot,
    width: f32,
    height: f32,
}

/// A panel in its place.
struct Cell<'a> {
    panel: &'a Panel,
    name: Vec<String>,
    left: f32,
    plot: Plot,
    labels: Vec<Label>,
    /// Whether no panel stands below, so that the name of the axis does.
    is_lowest: bool,
}

/// What all cells of a grid share.
#[derive(Clone, Copy)]
struct Grid {
    columns: usize,
    /// How wide a cell is, and its plot.
    cell: f32,
    plot: f32,
    /// What stands left of a plot.
    axis: f32,
    /// What stands above a plot: the lines of its name.
    above: f32,
}

impl<'a> Layout<'a> {
    fn new(panels: &'a Panels) -> Result<Self, PictureError> {
        let (frame, face) = (Frame::new(panels.size), Face::new(TEXT)?);
        let width = frame.width.unwrap_or(WIDTH);
        let room = width - 2.0 * frame.margin;
        let place = panels.legend.unwrap_or(LegendPlace::Below);
        let mut legend = Legend::new(&legend_entries(panels), face, Some(place), Some(room));
        let region = (room - legend.width_beside()).max(LEAST_PANEL);
        let width = width.max(region + legend.width_beside() + 2.0 * frame.margin);
        legend.flow(width - 2.0 * frame.margin);
        let title = Title::new(panels.title.as_deref(), width - 2.0 * frame.margin)?;

        let mut grid = Grid::new(panels, region, face);
        let mut layout = Layout { panels, frame, title, legend, cells: vec![], corner: (0.0, 0.0), width, height: 0.0 };
        let rows = panels.panels.len().div_ceil(grid.columns);
        let plot_height = layout.plot_height(&grid, rows);
        grid.make_room(panels, plot_height, face);
        layout.place(&grid, plot_height, face);
        let beside = layout.top() + layout.legend.height_beside();
        layout.corner = (frame.margin + region, layout.lowest(rows, &grid).max(beside));
        layout.height = (layout.corner.1 + layout.legend.height_below() + frame.margin).ceil();
        layout.width = layout.width.ceil();
        Ok(layout)
    }

    /// How high plots are: what a given height leaves, or in proportion to their width.
    fn plot_height(&self, grid: &Grid, rows: usize) -> f32 {
        let Some(height) = self.frame.height else {
            return (HEIGHT.0 * grid.plot).clamp(HEIGHT.1, HEIGHT.2);
        };
        // Under a last row that is not full, panels of the row above have the name of their axis, too.
        let named = if rows > 1 && !self.panels.panels.len().is_multiple_of(grid.columns) { 2.0 } else { 1.0 };
        let fixed = rows as f32 * (grid.above + BELOW) + (rows as f32 - 1.0) * GAP.1 + named * LINE;
        let fixed = fixed + 2.0 * self.frame.margin + self.title.height() + self.legend.height_below();
        ((height - fixed) / rows as f32).max(LEAST_PLOT.1)
    }

    fn place(&mut self, grid: &Grid, plot_height: f32, face: Face) {
        let panels = &self.panels.panels;
        let ends = ends(panels);
        let mut top = self.frame.margin + self.title.height();
        for (row, in_row) in panels.chunks(grid.columns).enumerate() {
            for (column, panel) in in_row.iter().enumerate() {
                let left = self.frame.margin + column as f32 * (grid.cell + GAP.0);
                let plot = Plot {
                    left: left + grid.axis,
                    top: top + grid.above,
                    size: (grid.plot, plot_height),
                    ends: (f64::from(ends.0), f64::from(ends.1)),
                    scale: Scale::Linear,
                    ticks: ticks(panel, plot_height),
                };
                let steps: Vec<(String, f64)> =
                    steps(ends, grid.plot, face).map(|step| (step.to_string(), f64::from(step))).collect();
                let labels = plot.labels(steps.iter().map(|(text, value)| (text.as_str(), *value)), face);
                let is_lowest = (row + 1) * grid.columns + column >= panels.len();
                let name = face.wrap(&panel.name, grid.cell);
                self.cells.push(Cell { panel, name, left, plot, labels, is_lowest });
            }
            let has_name = self.cells[row * grid.columns..].iter().any(|cell| cell.is_lowest);
            top += grid.above + plot_height + BELOW + GAP.1 + if has_name { LINE } else { 0.0 };
        }
    }

    /// The lower end of the last row, with the name of its axes.
    fn lowest(&self, rows: usize, grid: &Grid) -> f32 {
        let last = self.cells.get(rows.saturating_sub(1) * grid.columns);
        last.map_or(self.frame.margin, |cell| cell.plot.bottom() + BELOW + LINE)
    }

    fn draw(&self, canvas: &mut Drawing) -> Result<(), PictureError> {
        let face = Face::new(TEXT)?;
        self.title.draw(canvas, self.frame.margin)?;
        for cell in &self.cells {
            cell.draw(canvas, face, &self.panels.x_name);
        }
        self.legend.draw(canvas, face, (self.corner.0, self.top()), (self.frame.margin, self.corner.1));
        Ok(())
    }

    /// The upper end of the plots of the first row.
    fn top(&self) -> f32 {
        self.cells.first().map_or(self.frame.margin, |cell| cell.plot.top)
    }
}

/// What stands below a plot: the labels of its axis.
const BELOW: f32 = 6.0 + LINE;

impl Grid {
    /// As many columns as have room, no row much shorter than the others.
    fn new(panels: &Panels, region: f32, face: Face) -> Self {
        let count = panels.panels.len();
        let most = (((region + GAP.0) / (LEAST_PANEL + GAP.0)) as usize).clamp(1, count.max(1));
        let columns = count.div_ceil(count.div_ceil(most).max(1)).max(1);
        let cell = (region - (columns as f32 - 1.0) * GAP.0) / columns as f32;
        let lines = panels.panels.iter().map(|panel| face.wrap(&panel.name, cell).len()).max().unwrap_or(1);
        let mut grid = Grid { columns, cell, plot: 0.0, axis: 0.0, above: lines as f32 * LINE + 8.0 };
        // The values of an axis depend on its height, which may depend on what they leave of the width.
        grid.make_room(panels, HEIGHT.1, face);
        grid
    }

    /// Leaves room for the values of axes of this height.
    fn make_room(&mut self, panels: &Panels, plot_height: f32, face: Face) {
        let of_values = |panel: &Panel| {
            let ticks = ticks(panel, plot_height);
            ticks.values().map(|value| face.width(&ticks.label(value))).fold(0.0, f32::max)
        };
        self.axis = panels.panels.iter().map(of_values).fold(face.width("100"), f32::max) + 10.0;
        // The last label of the horizontal axis may reach out of the plot.
        let overhang = face.width(&ends(&panels.panels).1.to_string()) / 2.0;
        self.plot = (self.cell - self.axis - overhang).max(LEAST_PLOT.0);
    }
}

impl Cell<'_> {
    fn draw(&self, canvas: &mut Drawing, face: Face, x_name: &str) {
        for (index, line) in self.name.iter().rev().enumerate() {
            let at = (self.left, self.plot.top - 12.0 - index as f32 * LINE);
            canvas.text(face, line, at, Align::Left, INK);
        }
        self.plot.draw_axes(canvas, face, &self.labels);
        if self.is_lowest {
            let middle = ((self.plot.left + self.plot.right()) / 2.0, self.plot.bottom() + 21.0 + LINE);
            canvas.text(face, x_name, middle, Align::Centre, FAINT);
        }
        // What is measured on other images than those trained on stands above.
        let dashed = self.panel.lines.iter().filter(|line| line.is_dashed);
        let all: Vec<&PanelLine> = dashed.chain(self.panel.lines.iter().filter(|line| !line.is_dashed)).collect();
        all.iter().for_each(|line| self.draw_line(canvas, line));
        all.iter().for_each(|line| self.draw_mark(canvas, line));
    }

    fn draw_line(&self, canvas: &mut Drawing, line: &PanelLine) {
        let points: Vec<Spot> =
            line.points.iter().map(|(step, value)| self.plot.spot(f64::from(*step), *value)).collect();
        match (points.len() > 1, line.is_dashed) {
            (false, _) => {}
            (true, true) => canvas.dashes(&points, marker::color(line.series), 1.4),
            (true, false) => canvas.line(&points, marker::color(line.series), 1.8),
        }
    }

    fn draw_mark(&self, canvas: &mut Drawing, line: &PanelLine) {
        let is_marked = |step: u32| line.mark == Some(step) || line.points.len() == 1;
        for (step, value) in line.points.iter().filter(|(step, _)| is_marked(*step)) {
            let at = self.plot.spot(f64::from(*step), *value);
            match line.is_dashed {
                true => marker::draw_hollow(canvas, line.series, at),
                false => marker::draw(canvas, line.series, at),
            }
        }
    }
}

fn legend_entries(panels: &Panels) -> Vec<(Sample, &str)> {
    let series = panels.series.iter().enumerate().map(|(index, name)| (Sample::Curve(index), name.as_str()));
    let dashed = panels.dashed.as_deref().map(|name| (Sample::Dashed, name));
    let solid = panels.solid.as_deref().filter(|_| dashed.is_some()).map(|name| (Sample::Solid, name));
    series.chain(dashed).chain(solid).chain([(Sample::Mark, panels.mark.as_str())]).collect()
}

/// The vertical axis of a panel, with as many lines as have room.
fn ticks(panel: &Panel, height: f32) -> Ticks {
    let most_steps = ((height / TICKS.0) as u32).clamp(2, MOST_STEPS);
    let values = panel.lines.iter().flat_map(|line| line.points.iter().map(|(_, value)| *value));
    match panel.is_percent {
        true => Ticks::of_percent(values.map(|value| (value, value)), most_steps),
        false => Ticks::of_numbers(values, most_steps),
    }
}

/// The first and the last step of all lines.
fn ends(panels: &[Panel]) -> (u32, u32) {
    let points = panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.points);
    let ends = points.map(|(step, _)| (*step, *step)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    ends.unwrap_or((1, 1))
}

/// The steps with a label: round ones, as many as have room in one row.
fn steps((first, last): (u32, u32), width: f32, face: Face) -> impl Iterator<Item = u32> {
    let least = (face.width(&last.to_string()) + TICKS.1) / width * (last - first) as f32;
    let powers = (0..9).map(|power| 10_u32.pow(power));
    let every = powers.flat_map(|power| [power, 2 * power, 5 * power]).find(|every| *every as f32 >= least);
    let every = every.unwrap_or(u32::MAX);
    let is_alone = first == last;
    (first..=last).filter(move |step| is_alone || step.is_multiple_of(every))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::Real;

    /// Robust overfitting as Rice et al. 2020 show it: after the learning rate drops, the held-out accuracy falls.
    fn overfitting(trainings: usize, epochs: u32) -> Panels {
        let drop = |epoch: u32| if epoch * 2 > epochs { 1.0 } else { 0.0 };
        let progress = |epoch: u32| 1.0 - (-6.0 * f64::from(epoch) / f64::from(epochs)).exp();
        let line = |series: usize, is_dashed: bool, value: &dyn Fn(u32) -> f64| PanelLine {
            series,
            is_dashed,
            points: (1..=epochs).map(|epoch| (epoch, value(epoch) * (1.0 - 0.06 * series as f64))).collect(),
            mark: Some((epochs / 2 + 1).min(epochs)),
        };
        let late = |epoch: u32| drop(epoch) * (f64::from(epoch) / f64::from(epochs) - 0.5);
        let both = |train: &dyn Fn(u32) -> f64, other: &dyn Fn(u32) -> f64| -> Vec<PanelLine> {
            (0..trainings).flat_map(|series| [line(series, true, train), line(series, false, other)]).collect()
        };
        let panel = |name: &str, is_percent, lines| Panel { name: name.to_owned(), is_percent, lines };
        let loss = (0..trainings).map(|series| line(series, true, &|epoch| 2.3 - 1.6 * progress(epoch) - late(epoch)));
        let rate = (0..trainings).map(|series| line(series, false, &|epoch| 0.1 - 0.09 * drop(epoch)));
        let clean = both(&|epoch| 85.0 * progress(epoch) + 20.0 * late(epoch), &|epoch| 82.0 * progress(epoch));
        let robust = both(&|epoch| 50.0 * progress(epoch) + 70.0 * late(epoch), &|epoch| {
            50.0 * progress(epoch) - 14.0 * late(epoch)
        });
        Panels {
            title: Some("Learning curves".to_owned()),
            x_name: "epoch".to_owned(),
            series: ["standard", "FGSM, ε = 8/255", "PGD-7, ε = 8/255", "TRADES"][..trainings]
                .iter()
                .map(|&name| name.to_owned())
                .collect(),
            panels: vec![
                panel("loss", false, loss.collect()),
                panel("accuracy (%)", true, clean),
                panel("accuracy under attack (%)", true, robust),
                panel("learning rate", false, rate.collect()),
            ],
            dashed: Some("training images".to_owned()),
            solid: Some("held-out images".to_owned()),
            mark: "epoch of the checkpoint".to_owned(),
            size: None,
            legend: None,
        }
    }

    fn in_column(mut panels: Panels, height: Option<f64>) -> Panels {
        panels.size = Some(PictureSize { width: Real::new(84.0), height: height.map(Real::new), text: None });
        panels.title = None;
        panels
    }

    #[test]
    fn every_panel_line_and_mark_is_drawn() {
        let panels = overfitting(2, 20);
        let svg = panels_drawing(&panels).unwrap().svg().unwrap();
        for words in [
            "loss",
            "accuracy (%)",
            "learning rate",
            "standard",
            "training images",
            "held-out images",
            "epoch of the checkpoint",
        ] {
            assert_eq!(svg.matches(&format!(">{words}<")).count(), 1, "{words}");
        }
        assert_eq!(svg.matches(">epoch<").count(), 2, "below the panels of the last row");
        // Two trainings in three panels have dashes, and the legend has a sample.
        assert_eq!(svg.matches("stroke-dasharray").count(), 7);
        for series in 0..2 {
            let [r, g, b] = marker::color(series);
            let hex = format!("#{r:02X}{g:02X}{b:02X}");
            assert_eq!(svg.matches(&format!("stroke=\"{hex}\"")).count(), 7, "6 lines and a sample");
            assert_eq!(svg.matches(&format!("fill=\"{hex}\"")).count(), 7, "a mark on each");
        }
    }

    #[test]
    fn a_point_stands_where_its_number_is() {
        let panels = overfitting(1, 20);
        let layout = Layout::new(&panels).unwrap();
        let plot = &layout.cells[1].plot;
        assert_eq!((plot.ticks.low, plot.ticks.high), (0.0, 100.0));
        assert!((plot.y(0.0) - plot.y(100.0) - plot.size.1).abs() < 0.01);
        assert!((plot.x(20.0) - plot.x(1.0) - 0.94 * plot.size.0).abs() < 0.01);
        assert_eq!(plot.x(20.0), layout.cells[3].plot.x(20.0), "columns share their axis");
        // However many decimals the values have, they stand inside of their cell.
        let mut panels = overfitting(1, 1);
        panels.panels[3].lines[0].points = vec![(1, 0.0156)];
        let (layout, face) = (Layout::new(&panels).unwrap(), Face::new(TEXT).unwrap());
        for cell in &layout.cells {
            let widths = cell.plot.ticks.values().map(|value| face.width(&cell.plot.ticks.label(value)));
            assert!(widths.fold(0.0, f32::max) <= cell.plot.left - cell.left - 8.0);
        }
    }

    #[test]
    fn two_panels_fit_into_a_column_and_four_into_a_page() {
        let places = |panels: &Panels| {
            let layout = Layout::new(panels).unwrap();
            let row = layout.cells.iter().filter(|cell| cell.plot.top == layout.cells[0].plot.top).count();
            (row, layout.width * layout.frame.unit * super::super::frame::POINT)
        };
        let mut panels = in_column(overfitting(4, 200), None);
        let (row, width) = places(&panels);
        assert!(row == 2 && (width - 84.0).abs() < 0.3, "{row} {width}");
        panels.size = Some(PictureSize { width: Real::new(174.0), height: None, text: None });
        assert_eq!(places(&panels).0, 4);
        panels.panels.truncate(3);
        panels.size = Some(PictureSize { width: Real::new(30.0), height: None, text: None });
        assert_eq!(places(&panels).0, 1);
    }

    #[test]
    fn nothing_reaches_over_the_border_and_a_given_height_is_kept() {
        let mut right = overfitting(4, 5);
        right.legend = Some(LegendPlace::Right);
        for panels in [in_column(overfitting(4, 200), Some(90.0)), in_column(overfitting(1, 1), None), right] {
            let drawing = panels_drawing(&panels).unwrap();
            if let Some(height) = panels.size.and_then(|size| size.height) {
                let drawn = drawing.size.1 * drawing.unit * super::super::frame::POINT;
                assert!((f64::from(drawn) - height.get()).abs() < 0.3, "{drawn}");
            }
            let picture = image::load_from_memory(&drawing.small_png().unwrap()).unwrap().to_rgb8();
            let (width, height) = picture.dimensions();
            for (x, y, pixel) in picture.enumerate_pixels() {
                let border = x < 2 || y < 2 || x >= width - 2 || y >= height - 2;
                assert!(!border || pixel.0 == [255; 3], "ink at ({x}, {y}) of {width} × {height}");
            }
        }
    }

    #[test]
    fn steps_have_round_labels_that_do_not_touch() {
        let face = Face::new(TEXT).unwrap();
        let labelled = |ends, width| steps(ends, width, face).collect::<Vec<_>>();
        assert_eq!(labelled((1, 5), 150.0), [1, 2, 3, 4, 5]);
        assert_eq!(labelled((1, 200), 300.0), [50, 100, 150, 200]);
        assert_eq!(labelled((1, 200), 150.0), [100, 200]);
        assert_eq!(labelled((1, 30), 150.0), [10, 20, 30]);
        assert_eq!(labelled((1, 1), 150.0), [1]);
        assert_eq!(labelled((7, 7), 150.0), [7]);
        for epochs in [1, 5, 30, 200, 1234] {
            let panels = in_column(overfitting(1, epochs), None);
            let layout = Layout::new(&panels).unwrap();
            let labels = layout.cells.iter().flat_map(|cell| &cell.labels);
            assert!(labels.into_iter().all(|label| label.row == Some(0)), "{epochs}: one row");
        }
    }

    #[test]
    #[ignore = "writes pictures to look at into $ATFLOW_PICTURES"]
    fn pictures_to_look_at() {
        let folder = std::path::PathBuf::from(std::env::var_os("ATFLOW_PICTURES").unwrap());
        for (trainings, epochs) in [(1, 1), (1, 200), (4, 1), (4, 5), (4, 200)] {
            for (place, panels) in [
                ("column", in_column(overfitting(trainings, epochs), None)),
                ("screen", overfitting(trainings, epochs)),
            ] {
                let png = panels_drawing(&panels).unwrap().small_png().unwrap();
                std::fs::write(folder.join(format!("panels-{trainings}-{epochs}-{place}.png")), png).unwrap();
            }
        }
    }
}

//! A table for LaTeX: a `table` environment with rules of booktabs. The interval stands under its number, as do
//! comparisons and published numbers. Columns that do not fit go on in further blocks below, so that text keeps its
//! size; blocks that do not fit a page, in further floats.

use std::ops::Range;

use super::tex_floats::{Block, Float, Heights, floats};
use super::tex_text::{broken, escape, width};
use super::{Cell, TableDocument, words};
use crate::stage_kinds::{Bold, Metric};

/// Points of `\footnotesize` and of `\scriptsize` in a paper of ten points.
const TEXT: f32 = 8.0;
const SMALL: f32 = 7.0;
/// A column of a two-column paper and the width of its page, in points: a little less than those of the narrowest that
/// are common (ACL, 219 and 455; IEEE, 252 and 516).
const COLUMN: f32 = 216.0;
const PAGE: f32 = 450.0;
/// Half of the gap between two columns of a table, in points.
const GAP: f32 = 3.0;
/// A heading is broken where it is wider than this, in points, and than the numbers below it.
const HEADING: f32 = 30.0;
/// How far lines of a table are apart in points, and lines of a heading that is broken.
const LINE_SKIP: f32 = 9.5;
const HEADING_SKIP: f32 = 10.5;
/// The height of a rule with the space around it, of the space between rows, and of that above the notes, in points.
const RULE: f32 = 5.0;
const ROW_GAP: f32 = 4.5;
const ABOVE_NOTES: f32 = 12.0;
/// A paragraph takes more lines than its width alone would, by so much: words are not divided.
const LOOSE: f32 = 1.1;

/// The table for LaTeX. Needs `\usepackage{booktabs}`; other than that nothing beyond what pdfLaTeX has by itself. A
/// table taller than a page is several floats of one number.
pub fn tex(table: &TableDocument) -> String {
    let paper = Paper::of(table.shown());
    let floats: Vec<String> =
        floats(&paper.heights()).iter().enumerate().map(|(index, float)| paper.float(index, float)).collect();
    format!("% Needs \\usepackage{{booktabs}}.\n{}", floats.concat())
}

/// A table as it stands in a paper.
struct Paper {
    table: TableDocument,
    rows: Vec<Vec<Line>>,
    blocks: Blocks,
    notes: Vec<String>,
}

impl Paper {
    fn of(table: TableDocument) -> Self {
        let rows: Vec<Vec<Line>> = (0..table.rows.len()).map(|row| lines(&table, row)).collect();
        let blocks = Blocks::of(&table, &rows);
        let notes = if table.tex.notes { words::notes(&table, table.tex.intervals) } else { Vec::new() };
        Paper { table, rows, blocks, notes }
    }

    /// The caption of a float; those after the first say that they go on.
    fn caption(&self, float: usize) -> Option<String> {
        let title = self.table.title.as_ref()?;
        Some(if float == 0 { title.clone() } else { format!("{title} (continued)") })
    }

    /// About how high its parts are: in a paper of ten points, whose captions are of that size.
    fn heights(&self) -> Heights {
        let room = room(&self.table);
        let paragraph = |text: &str, points: f32, skip: f32| (width(text) * points * LOOSE / room).ceil() * skip;
        let caption = self.caption(1).map_or(0.0, |title| paragraph(&format!("Table 10: {title}"), 10.0, 12.0) + 10.0);
        let block = |columns: &Vec<usize>| {
            let heading = columns.iter().map(|&column| self.blocks.headings[column].len()).max().unwrap_or(1);
            let rows = self.rows.iter().map(|row| row_height(row, columns)).collect();
            Block { heading: heading as f32 * HEADING_SKIP + 2.0 * RULE, rows }
        };
        Heights {
            frame: caption + RULE,
            blocks: self.blocks.columns.iter().map(block).collect(),
            above_notes: ABOVE_NOTES,
            notes: self.notes.iter().map(|note| paragraph(note, SMALL, 8.0)).collect(),
        }
    }

    fn float(&self, index: usize, float: &Float) -> String {
        let layout = &self.table.tex;
        let environment = if layout.wide { "table*" } else { "table" };
        let mut text = format!("\\begin{{{environment}}}\n  \\centering\n");
        if let Some(caption) = self.caption(index) {
            // The number stays that of the first.
            text += if index > 0 { "  \\addtocounter{table}{-1}\n" } else { "" };
            text += &format!("  \\caption{{{}}}\n", escape(&caption));
        }
        if let Some(label) = layout.label.as_ref().filter(|_| index == 0) {
            text += &format!("  \\label{{{}}}\n", name(label));
        }
        text += &format!("  \\footnotesize\n  \\setlength{{\\tabcolsep}}{{{GAP}pt}}\n");
        if index == 0 || !float.parts.is_empty() {
            text += &self.tabular(&float.parts);
        }
        let notes: Vec<String> = self.notes[float.notes.clone()].iter().map(|note| escape(note)).collect();
        if !notes.is_empty() {
            text += &format!(
                "\n  \\medskip\n  \\begin{{minipage}}{{\\linewidth}}\n    \\scriptsize\\raggedright\n    {}\n  \\end{{minipage}}\n",
                notes.join("\\par\n    ")
            );
        }
        text + &format!("\\end{{{environment}}}\n")
    }

    fn tabular(&self, parts: &[(usize, Range<usize>)]) -> String {
        let most = parts.iter().map(|(block, _)| self.blocks.columns[*block].len()).max().unwrap_or(0);
        let mut text = format!("  \\begin{{tabular}}{{@{{}}l{}@{{}}}}\n    \\toprule\n", "r".repeat(most));
        for (index, (block, rows)) in parts.iter().enumerate() {
            let columns = &self.blocks.columns[*block];
            text += if index > 0 { "    \\midrule\n" } else { "" };
            let headings = columns.iter().map(|&column| heading(&self.blocks.headings[column]));
            text += &line(&escape(&self.table.corner), headings, most);
            text += "    \\midrule\n";
            for (index, row) in self.rows[rows.clone()].iter().enumerate() {
                text += if index > 0 && row.len() > 1 { "    \\addlinespace\n" } else { "" };
                for of_row in row.iter().filter(|of_row| of_row.is_there(columns)) {
                    let fields = columns.iter().map(|&column| of_row.field(column));
                    text += &line(&of_row.label(), fields, most);
                }
            }
        }
        text + "    \\bottomrule\n  \\end{tabular}\n"
    }
}

/// The height of a row in points, with the space above it.
fn row_height(row: &[Line], columns: &[usize]) -> f32 {
    let lines = row.iter().filter(|of_row| of_row.is_there(columns)).count();
    lines as f32 * LINE_SKIP + if row.len() > 1 { ROW_GAP } else { 0.0 }
}

/// The width of a table in points.
const fn room(table: &TableDocument) -> f32 {
    if table.tex.wide { PAGE } else { COLUMN }
}

/// The name of a label: without what would end it.
fn name(label: &str) -> String {
    label.chars().filter(|c| !c.is_whitespace() && !"\\{}%#~,^&$".contains(*c)).collect()
}

/// A line of a row: its numbers, or what stands under them.
struct Line {
    label: String,
    fields: Vec<Option<String>>,
    bold: Vec<bool>,
    is_small: bool,
}

impl Line {
    fn is_there(&self, columns: &[usize]) -> bool {
        !self.is_small || columns.iter().any(|&column| self.fields[column].is_some())
    }

    fn label(&self) -> String {
        match (self.is_small, self.label.as_str()) {
            (false, label) => escape(label),
            (true, "") => String::new(),
            (true, label) => format!("\\quad{{\\scriptsize {}}}", escape(label)),
        }
    }

    fn field(&self, column: usize) -> String {
        let text = self.fields[column].as_deref().map_or_else(String::new, escape);
        match (self.is_small, self.bold[column]) {
            _ if text.is_empty() => text,
            (true, _) => format!("{{\\scriptsize {text}}}"),
            (false, true) => format!("\\textbf{{{text}}}"),
            (false, false) => text,
        }
    }

    fn points(&self, text: &str) -> f32 {
        width(text) * if self.is_small { SMALL } else { TEXT }
    }
}

/// The lines of a row, all columns of each.
fn lines(table: &TableDocument, row: usize) -> Vec<Line> {
    let (columns, cells) = (&table.columns, &table.cells[row]);
    let numbers = columns.iter().zip(cells).map(|(column, cell)| {
        let number = cell.as_ref().map(|cell| words::number(column.metric, cell));
        Some(number.unwrap_or_else(|| words::ABSENT.to_owned()))
    });
    let bold = (0..columns.len()).map(|column| is_best(table, row, column)).collect();
    let mut lines = vec![Line { label: table.rows[row].clone(), fields: numbers.collect(), bold, is_small: false }];
    let mut below = |label: &str, text_of: &dyn Fn(usize, &Cell) -> Option<String>| {
        let text = |(column, cell): (usize, &Option<Cell>)| text_of(column, cell.as_ref()?);
        let fields: Vec<Option<String>> = cells.iter().enumerate().map(text).collect();
        if fields.iter().any(Option::is_some) {
            lines.push(Line { label: label.to_owned(), bold: vec![false; fields.len()], fields, is_small: true });
        }
    };
    if table.tex.intervals {
        below("", &|column, cell| words::interval(columns[column].metric, &cell.number));
    }
    if let Some(compare) = &table.compare {
        // A line each: the difference, its interval, p, and the corrected p.
        let parts = |cell: &Cell| cell.compared.as_ref().map(words::difference);
        let part = |cell: &Cell, at: usize| Some(parts(cell)?.splitn(2, ' ').nth(at)?.to_owned());
        below(&words::comparison_label(&compare.to), &|_, cell| part(cell, 0));
        if table.tex.intervals {
            below("", &|_, cell| part(cell, 1));
        }
        for at in 0..2 {
            below("", &|_, cell| words::p_values(cell.compared.as_ref()?)?.into_iter().nth(at));
        }
    }
    if table.published.is_some() {
        let is_published = |cell: &Cell| cell.published.as_ref().is_some_and(|beside| beside.value.is_some());
        let published = |cell: &Cell| is_published(cell).then(|| words::published(cell));
        let part = |cell: &Cell, at: usize| published(cell)?.split(" (").nth(at).map(str::to_owned);
        below(words::PUBLISHED, &|_, cell| part(cell, 0));
        below("", &|_, cell| part(cell, 1).map(|difference| format!("({difference}")));
    }
    lines
}

/// Whether a cell's number is the best of its column, as far as the table shows.
fn is_best(table: &TableDocument, row: usize, column: usize) -> bool {
    let metric = table.columns[column].metric;
    let Some(sign) = table.tex.bold.and_then(|bold| direction(bold, metric)) else { return false };
    // What a definition gives is no achievement, and what is of an earlier state may not be so now.
    let counts = |cell: &&Cell| cell.state.is_made() && !cell.number.fixed;
    let value = |row: usize| table.cells[row][column].as_ref().filter(counts)?.number.value;
    let all: Vec<f64> = (0..table.rows.len()).filter_map(value).collect();
    let best = all.iter().copied().max_by(|a, b| (sign * a).total_cmp(&(sign * b)));
    let is_shown_as = |best: f64, value: f64| words::shown(metric, best) == words::shown(metric, value);
    all.len() > 1 && best.zip(value(row)).is_some_and(|(best, value)| is_shown_as(best, value))
}

/// 1 where more is better, -1 where less is.
fn direction(bold: Bold, metric: Metric) -> Option<f64> {
    match (bold, metric) {
        (Bold::Highest, _) => Some(1.0),
        (Bold::Lowest, _) | (Bold::Best, Metric::Loss) => Some(-1.0),
        (
            Bold::Best,
            Metric::Accuracy | Metric::AccuracyOnCorrect | Metric::ProbabilityOfTrueClass | Metric::MedianEps,
        ) => Some(1.0),
        (Bold::Best, _) => None,
    }
}

/// Which columns stand beside one another.
struct Blocks {
    columns: Vec<Vec<usize>>,
    /// The lines of each column's heading.
    headings: Vec<Vec<String>>,
}

impl Blocks {
    fn of(table: &TableDocument, rows: &[Vec<Line>]) -> Self {
        let widest = |text: &dyn Fn(&Line) -> f32| rows.iter().flatten().map(text).fold(0.0, f32::max);
        let quad = |line: &Line| if line.is_small && !line.label.is_empty() { TEXT } else { 0.0 };
        let stub = widest(&|line| line.points(&line.label) + quad(line)).max(width(&table.corner) * TEXT);
        let (mut headings, mut widths) = (Vec::new(), Vec::new());
        for (index, column) in table.columns.iter().enumerate() {
            let numbers = widest(&|line| line.fields[index].as_deref().map_or(0.0, |text| line.points(text)));
            let heading = broken(&column.label, numbers.max(HEADING) / TEXT);
            let of_heading = heading.iter().map(|line| width(line) * TEXT).fold(0.0, f32::max);
            widths.push(numbers.max(of_heading) + 2.0 * GAP);
            headings.push(heading);
        }
        Blocks { columns: split(&widths, room(table) - stub - GAP), headings }
    }
}

/// Splits columns into blocks no wider than `room`, of about as many columns each where that fits.
fn split(widths: &[f32], room: f32) -> Vec<Vec<usize>> {
    let mut blocks: Vec<Vec<usize>> = Vec::new();
    let mut used = f32::INFINITY;
    for (column, wide) in widths.iter().enumerate() {
        match blocks.last_mut() {
            Some(block) if used + wide <= room => block.push(column),
            _ => {
                blocks.push(vec![column]);
                used = 0.0;
            }
        }
        used += wide;
    }
    let all: Vec<usize> = (0..widths.len()).collect();
    let even: Vec<Vec<usize>> =
        all.chunks(all.len().div_ceil(blocks.len().max(1)).max(1)).map(<[usize]>::to_vec).collect();
    let fits = |block: &Vec<usize>| block.iter().map(|&column| widths[column]).sum::<f32>() <= room;
    if even.len() == blocks.len() && even.iter().all(fits) { even } else { blocks }
}

fn heading(lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| escape(line)).collect();
    match lines.as_slice() {
        [one] => one.clone(),
        several => format!("\\shortstack[r]{{{}}}", several.join("\\\\")),
    }
}

/// A line of `columns` fields after its label; those that are not there are empty.
fn line(label: &str, fields: impl Iterator<Item = String>, columns: usize) -> String {
    let fields: Vec<String> = fields.chain(std::iter::repeat_n(String::new(), columns)).take(columns).collect();
    format!("    {label} & {} \\\\\n", fields.join(" & "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::table::tests::{everything, example};
    use crate::stage_kinds::TexLayout;

    #[test]
    fn a_table_for_latex() {
        insta::assert_snapshot!(tex(&example()));
    }

    #[test]
    fn a_table_with_everything_for_latex() {
        insta::assert_snapshot!(tex(&everything()));
    }

    #[test]
    fn a_table_as_its_author_wants_it() {
        let mut table = example();
        table.tex = TexLayout {
            label: Some("tab:saturation".into()),
            wide: true,
            intervals: false,
            notes: false,
            bold: Some(Bold::Best),
        };
        insta::assert_snapshot!(tex(&table));
    }

    #[test]
    fn columns_that_do_not_fit_go_on_below() {
        let mut wide = example();
        wide.columns = std::iter::repeat_n(wide.columns[0].clone(), 9).collect();
        wide.cells.iter_mut().for_each(|row| {
            let first = row[0].clone();
            row.clear();
            row.resize(9, first);
        });
        let blocks = |table: &TableDocument| tex(table).matches("model.variant").count();
        assert_eq!(blocks(&wide), 3);
        assert!(tex(&wide).contains("{@{}lrrr@{}}"), "three of three: {}", tex(&wide));
        wide.tex.intervals = false;
        assert_eq!(blocks(&wide), 2);
        wide.tex.wide = true;
        assert_eq!(blocks(&wide), 1);
        assert!(!tex(&wide).contains("resizebox"));
    }

    #[test]
    fn a_table_taller_than_a_page_goes_on_under_the_same_number() {
        let mut tall = example();
        let (row, cells) = (tall.rows[0].clone(), tall.cells[0].clone());
        tall.rows = vec![row; 60];
        tall.cells = vec![cells; 60];
        tall.tex.label = Some("tab:tall".into());
        let text = tex(&tall);
        let count = |what: &str| text.matches(what).count();
        assert!(count("\\begin{table}") > 1, "{text}");
        assert_eq!(count("\\end{table}"), count("\\begin{table}"));
        assert_eq!(count("(continued)"), count("\\begin{table}") - 1);
        assert_eq!(count("\\addtocounter{table}{-1}"), count("(continued)"));
        assert_eq!((count("\\label{tab:tall}"), count("minipage}{")), (1, 1));
        let is_number = |line: &&str| line.starts_with(&format!("    {} & ", escape(&tall.rows[0])));
        assert_eq!(text.lines().filter(is_number).count(), 60);
        tall.title = None;
        assert!(!tex(&tall).contains("addtocounter"), "without a number there is none to keep");
    }

    #[test]
    fn blocks_are_even_where_that_fits() {
        assert_eq!(split(&[10.0; 5], 45.0), [vec![0, 1, 2], vec![3, 4]]);
        assert_eq!(split(&[10.0, 10.0, 10.0, 40.0], 45.0), [vec![0, 1, 2], vec![3]]);
        assert_eq!(split(&[50.0, 60.0], 45.0), [[0], [1]], "one at least");
        assert!(split(&[], 45.0).is_empty());
    }

    #[test]
    fn the_best_number_is_bold_as_far_as_it_is_shown() {
        let mut table = example();
        table.tex.bold = Some(Bold::Best);
        let bold = |table: &TableDocument| -> Vec<usize> { (0..3).filter(|&row| is_best(table, row, 0)).collect() };
        assert_eq!(bold(&table), [0]);
        table.cells[2][0] = table.cells[0][0].clone();
        assert_eq!(bold(&table), [0, 2]);
        table.tex.bold = Some(Bold::Lowest);
        assert_eq!(bold(&table), [1]);
        table.cells[1][0].as_mut().unwrap().number.fixed = true;
        assert_eq!(bold(&table), [0, 2], "what a definition gives is left out");
        table.columns[0].metric = Metric::ShapeBias;
        table.tex.bold = Some(Bold::Best);
        assert_eq!(bold(&table), [0; 0], "none is better");
    }
}

//! A table for LaTeX: a `table` environment with rules of booktabs. The interval stands under its number, as do
//! comparisons and published numbers, so that a wide table fits a page.

use super::{Cell, TableDocument, words};

/// Tables of more columns than this are scaled to the width of the text: at their own size they would not fit a column
/// of a page.
const WIDE: usize = 4;

/// The table for LaTeX. Needs `\usepackage{booktabs}`, a wide one `graphicx` too; other than that nothing beyond what
/// pdfLaTeX has by itself.
pub fn tex(table: &TableDocument) -> String {
    let is_wide = table.columns.len() > WIDE;
    let packages = if is_wide { "booktabs,graphicx" } else { "booktabs" };
    let mut text = format!("% Needs \\usepackage{{{packages}}}.\n\\begin{{table}}\n  \\centering\n");
    if let Some(title) = &table.title {
        text += &format!("  \\caption{{{}}}\n", escape(title));
    }
    text += "  \\footnotesize\n  \\setlength{\\tabcolsep}{4pt}\n";
    text += if is_wide { "  \\resizebox{\\linewidth}{!}{%\n" } else { "" };
    text += &format!("  \\begin{{tabular}}{{l{}}}\n    \\toprule\n", "r".repeat(table.columns.len()));
    let headings = table.columns.iter().map(|column| escape(&column.label));
    text += &line(&escape(&table.corner), headings);
    text += "    \\midrule\n";
    for (index, (row, cells)) in table.rows.iter().zip(&table.cells).enumerate() {
        if index > 0 {
            text += "    \\addlinespace\n";
        }
        text += &row_lines(table, row, cells);
    }
    text += "    \\bottomrule\n  \\end{tabular}";
    text += if is_wide { "}\n" } else { "\n" };
    let notes: Vec<String> = words::notes(table).iter().map(|note| escape(note)).collect();
    if !notes.is_empty() {
        text += &format!(
            "\n  \\medskip\n  \\begin{{minipage}}{{\\linewidth}}\n    \\scriptsize\n    {}\n  \\end{{minipage}}\n",
            notes.join("\\par\n    ")
        );
    }
    text + "\\end{table}\n"
}

/// A row: its numbers, and below them whatever stands beside a number.
fn row_lines(table: &TableDocument, row: &str, cells: &[Option<Cell>]) -> String {
    let numbers = table.columns.iter().zip(cells).map(|(column, cell)| {
        cell.as_ref().map_or_else(|| escape(words::ABSENT), |cell| escape(&words::number(column.metric, cell)))
    });
    let mut text = line(&escape(row), numbers);
    text += &small_line("", cells, |column, cell| words::interval(table.columns[column].metric, &cell.number));
    if let Some(compare) = &table.compare {
        let label = words::comparison_label(&compare.to);
        // A line each: the difference with its interval, p, and the corrected p.
        text += &small_line(&label, cells, |_, cell| cell.compared.as_ref().map(words::difference));
        for at in 0..2 {
            let of = |cell: &Cell| words::p_values(cell.compared.as_ref()?)?.into_iter().nth(at);
            text += &small_line("", cells, |_, cell| of(cell));
        }
    }
    if table.published.is_some() {
        text += &published_lines(cells, table.columns.len() > WIDE);
    }
    text
}

/// The published numbers of a row; in a wide table differences have a line of their own.
fn published_lines(cells: &[Option<Cell>], is_wide: bool) -> String {
    let is_published = |cell: &Cell| cell.published.as_ref().is_some_and(|beside| beside.value.is_some());
    let published = |cell: &Cell| is_published(cell).then(|| words::published(cell));
    if !is_wide {
        return small_line(words::PUBLISHED, cells, |_, cell| published(cell));
    }
    let part = |cell: &Cell, at: usize| published(cell)?.split(" (").nth(at).map(str::to_owned);
    small_line(words::PUBLISHED, cells, |_, cell| part(cell, 0))
        + &small_line("", cells, |_, cell| part(cell, 1).map(|difference| format!("({difference}")))
}

/// A line in small type of a text for each cell; nothing if no cell has one. `text_of` gets the column and the cell.
fn small_line(label: &str, cells: &[Option<Cell>], text_of: impl Fn(usize, &Cell) -> Option<String>) -> String {
    let text = |(column, cell): (usize, &Option<Cell>)| cell.as_ref().and_then(|cell| text_of(column, cell));
    let texts: Vec<Option<String>> = cells.iter().enumerate().map(text).collect();
    if texts.iter().all(Option::is_none) {
        return String::new();
    }
    let small = |text: Option<String>| text.map_or(String::new(), |text| format!("{{\\scriptsize {}}}", escape(&text)));
    let label = if label.is_empty() { String::new() } else { format!("\\quad{{\\scriptsize {}}}", escape(label)) };
    line(&label, texts.into_iter().map(small))
}

fn line(label: &str, fields: impl Iterator<Item = String>) -> String {
    let fields: Vec<String> = fields.collect();
    format!("    {label} & {} \\\\\n", fields.join(" & "))
}

/// Text in which LaTeX sees no commands, on one line. Signs that pdfLaTeX's fonts lack become commands of mathematics;
/// letters of other scripts stay, for XeLaTeX and LuaLaTeX.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.split_whitespace().collect::<Vec<_>>().join(" ").chars() {
        match character {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', character]),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("$\\sim$"),
            '^' => out.push_str("\\textasciicircum{}"),
            '"' => out.push_str("\\textquotedbl{}"),
            // In the first of pdfLaTeX's font encodings these are other signs.
            '<' | '>' | '=' | '|' => out.push_str(&format!("${character}$")),
            // At the start of a line of a table brackets would be an option of the line end before.
            '[' | ']' => out.push_str(&format!("{{{character}}}")),
            _ => match sign(character) {
                Some(command) => out.push_str(&format!("${command}$")),
                None => out.push(character),
            },
        }
    }
    out
}

/// The command of mathematics for a sign.
const fn sign(character: char) -> Option<&'static str> {
    Some(match character {
        '−' => "-",
        '±' => "\\pm",
        '×' => "\\times",
        '≈' => "\\approx",
        '≠' => "\\neq",
        '≤' => "\\leq",
        '≥' => "\\geq",
        '→' => "\\rightarrow",
        '↳' => "\\hookrightarrow",
        '∞' => "\\infty",
        '†' => "^\\dagger",
        '²' => "^2",
        '³' => "^3",
        '₁' => "_1",
        '₂' => "_2",
        'ℓ' => "\\ell",
        'α' => "\\alpha",
        'β' => "\\beta",
        'γ' => "\\gamma",
        'δ' => "\\delta",
        'ε' | 'ϵ' => "\\varepsilon",
        'η' => "\\eta",
        'θ' => "\\theta",
        'λ' => "\\lambda",
        'µ' | 'μ' => "\\mu",
        'π' => "\\pi",
        'ρ' => "\\rho",
        'σ' => "\\sigma",
        'τ' => "\\tau",
        'φ' => "\\varphi",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::table::tests::{everything, example};

    #[test]
    fn a_table_for_latex() {
        insta::assert_snapshot!(tex(&example()));
    }

    #[test]
    fn a_table_with_everything_for_latex() {
        insta::assert_snapshot!(tex(&everything()));
    }

    #[test]
    fn a_wide_table_is_scaled_to_the_page() {
        let mut wide = example();
        wide.columns = std::iter::repeat_n(wide.columns[0].clone(), 5).collect();
        wide.cells.iter_mut().for_each(|row| row.resize(5, None));
        let text = tex(&wide);
        assert!(text.contains("\\resizebox{\\linewidth}{!}{%") && text.contains("\\end{tabular}}"), "{text}");
        assert!(text.starts_with("% Needs \\usepackage{booktabs,graphicx}."));
        assert!(!tex(&example()).contains("resizebox"));
    }

    #[test]
    fn no_text_is_a_command() {
        assert_eq!(
            escape("a_b & 5 % of $3\n#1 {x} \\input{y} ~^"),
            "a\\_b \\& 5 \\% of \\$3 \\#1 \\{x\\} \\textbackslash{}input\\{y\\} $\\sim$\\textasciicircum{}"
        );
        assert_eq!(escape("ℓ∞, ε ≤ 8/255"), "$\\ell$$\\infty$, $\\varepsilon$ $\\leq$ 8/255");
    }
}

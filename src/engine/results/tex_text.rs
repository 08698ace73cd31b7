//! Text for LaTeX: escaped, and how wide it is about.

/// Text in which LaTeX sees no commands, on one line. Signs that pdfLaTeX's fonts lack become commands of mathematics;
/// letters of other scripts stay, for XeLaTeX and LuaLaTeX.
pub(super) fn escape(text: &str) -> String {
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

/// About how wide a text is, in units of the font's size: by the widths of Computer Modern and Times, the wider of
/// each.
pub(super) fn width(text: &str) -> f32 {
    text.chars().map(width_of).sum()
}

const fn width_of(character: char) -> f32 {
    match character {
        '.' | ',' | ':' | ';' | '!' | '|' | '\'' | 'i' | 'j' | 'l' => 0.28,
        ' ' | '(' | ')' | '[' | ']' | '-' | 'f' | 't' | 'r' | 's' | 'I' => 0.39,
        'm' | 'w' | 'M' | 'W' | '%' | '=' | '≈' | '≠' | '+' | '−' | '±' | '×' | '<' | '>' | '~' => 0.84,
        'A'..='Z' => 0.72,
        '\0'..='~' => 0.53,
        _ => 0.75,
    }
}

/// A text in lines no wider than `most`, where its spaces and hyphens allow it.
pub(super) fn broken(text: &str, most: f32) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for piece in text.split_inclusive([' ', '-']) {
        match lines.last_mut() {
            Some(line) if width(line) + width(piece.trim_end()) <= most => line.push_str(piece),
            _ => lines.push(piece.to_owned()),
        }
    }
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces_and_hyphens_only() {
        assert_eq!(broken("patch-shuffle into 2 × 2", 6.5), ["patch-shuffle", "into 2 × 2"]);
        assert_eq!(broken("standard", 1.0), ["standard"]);
        assert_eq!(broken("a-b c", 1.0), ["a-", "b", "c"]);
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

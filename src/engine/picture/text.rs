//! Text in the embedded font: how wide it is, where to break it, and its pixels. Sizes are in pixels per em.
//!
//! plotters can draw text by itself, but it drops the left bearing of every glyph, so letters stand unevenly.

use std::sync::LazyLock;

use ab_glyph::{Font as _, FontRef, PxScale, ScaleFont as _, point};

use super::PictureError;

/// DejaVu Sans 2.37; its licence stands beside it. It covers Latin, Greek and Cyrillic and the signs of mathematics.
pub(super) const FONT: &[u8] = include_bytes!("font/DejaVuSans.ttf");

/// A space at which no line breaks.
pub(super) const NO_BREAK: char = '\u{a0}';

static PARSED: LazyLock<Option<FontRef<'static>>> = LazyLock::new(|| FontRef::try_from_slice(FONT).ok());

/// The embedded font at one size.
#[derive(Clone, Copy)]
pub(super) struct Face {
    font: &'static FontRef<'static>,
    scale: PxScale,
    size: f32,
}

/// A glyph of a line of text.
pub(super) struct Placed {
    pub(super) id: ab_glyph::GlyphId,
    /// Its distance from the start of the line.
    pub(super) left: f32,
    /// What it stands for.
    pub(super) character: char,
}

impl Face {
    /// The font at `size` pixels per em.
    pub(super) fn new(size: f32) -> Result<Self, PictureError> {
        let font = PARSED.as_ref().ok_or_else(|| PictureError::Draw("the embedded font cannot be read".into()))?;
        let em = font.units_per_em().unwrap_or(2048.0);
        Ok(Face { font, scale: PxScale::from(size * font.height_unscaled() / em), size })
    }

    /// Pixels per em.
    pub(super) fn size(&self) -> f32 {
        self.size
    }

    /// Width of one line of text.
    pub(super) fn width(&self, text: &str) -> f32 {
        self.glyphs(text, |_, _| ())
    }

    /// The glyphs of one line of text, left to right.
    pub(super) fn placed(&self, text: &str) -> Vec<Placed> {
        let (mut placed, mut characters) = (Vec::new(), text.chars());
        self.glyphs(text, |id, left| placed.push(Placed { id, left, character: characters.next().unwrap_or(' ') }));
        placed
    }

    /// How far the next glyph stands from this one.
    pub(super) fn advance(&self, id: ab_glyph::GlyphId) -> f32 {
        self.font.as_scaled(self.scale).h_advance(id)
    }

    /// Distance between the base lines of two lines of text.
    pub(super) fn line_height(&self) -> f32 {
        let font = self.font.as_scaled(self.scale);
        (font.height() + font.line_gap()).ceil()
    }

    /// Distance from the top of a line to its base line.
    pub(super) fn ascent(&self) -> f32 {
        self.font.as_scaled(self.scale).ascent()
    }

    /// Draws one line whose base line starts at (`x`, `y`): `put` gets each touched pixel and how much of it is
    /// covered, 0 to 1.
    pub(super) fn draw(&self, text: &str, x: f32, y: f32, mut put: impl FnMut(i64, i64, f32)) {
        self.glyphs(text, |id, offset| {
            let glyph = id.with_scale_and_position(self.scale, point(x + offset, y));
            if let Some(outline) = self.font.outline_glyph(glyph) {
                let corner = outline.px_bounds().min;
                outline.draw(|dx, dy, coverage| {
                    put(corner.x as i64 + i64::from(dx), corner.y as i64 + i64::from(dy), coverage);
                });
            }
        });
    }

    /// Calls `each` with every glyph and its distance from the start; returns the width.
    fn glyphs(&self, text: &str, mut each: impl FnMut(ab_glyph::GlyphId, f32)) -> f32 {
        let font = self.font.as_scaled(self.scale);
        let (mut x, mut previous) = (0.0, None);
        for character in text.chars() {
            let id = font.glyph_id(if character.is_control() { ' ' } else { character });
            x += previous.map_or(0.0, |previous| font.kern(previous, id));
            each(id, x);
            x += font.h_advance(id);
            previous = Some(id);
        }
        x
    }

    /// Breaks text into lines no wider than `width`: at line feeds, at spaces, after `-`, `/`, `_`, `,`, `:` and `=`,
    /// and where nothing else helps inside a word. Nothing is left out but the spaces at breaks.
    pub(super) fn wrap(&self, text: &str, width: f32) -> Vec<String> {
        text.split('\n').flat_map(|line| self.wrap_line(line, width)).collect()
    }

    fn wrap_line(&self, text: &str, width: f32) -> Vec<String> {
        let mut lines = vec![String::new()];
        for piece in pieces(text) {
            let line = lines.last().map_or("", String::as_str);
            if self.width(&format!("{line}{}", piece.trim_end())) <= width {
                append(&mut lines, piece);
                continue;
            }
            if !line.is_empty() {
                lines.push(String::new());
            }
            for character in piece.chars() {
                let line = lines.last().map_or("", String::as_str);
                if !line.is_empty() && !character.is_whitespace() && self.width(&format!("{line}{character}")) > width {
                    lines.push(String::new());
                }
                append(&mut lines, character.encode_utf8(&mut [0; 4]));
            }
        }
        lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Width of the widest piece of `text` that [`Face::wrap`] would rather not break.
    pub(super) fn widest_piece(&self, text: &str) -> f32 {
        pieces(text).into_iter().map(|piece| self.width(piece.trim_end())).fold(0.0, f32::max)
    }
}

fn append(lines: &mut [String], piece: &str) {
    if let Some(line) = lines.last_mut() {
        line.push_str(piece);
    }
}

/// The pieces between which a line may break; each ends with the character that allows it.
fn pieces(text: &str) -> Vec<&str> {
    text.split_inclusive(|c: char| (c.is_whitespace() && c != NO_BREAK) || "-/_,:=".contains(c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_text_fits_and_loses_no_letter() {
        let face = Face::new(13.0).unwrap();
        for text in
            ["pgd-inf-8", "Standard, trained for 30 epochs", "Donaudampfschifffahrtsgesellschaft", "", "ε = 8/255 → ℓ∞"]
        {
            for width in [20.0, 48.0, 90.0, 400.0] {
                let lines = face.wrap(text, width);
                assert!(lines.iter().all(|line| face.width(line) <= width), "{text:?} in {width}: {lines:?}");
                let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
                assert_eq!(letters(&lines.concat()), letters(text));
            }
        }
        assert_eq!(face.wrap("pgd-inf-8", face.width("pgd-inf-")), ["pgd-inf-", "8"]);
        assert_eq!(face.wrap("ankle boot\nsaturated", 400.0), ["ankle boot", "saturated"]);
    }

    /// DejaVu Sans has 2048 units per em; its `hmtx` table gives `M` an advance of 1767.
    #[test]
    fn widths_are_those_of_the_font() {
        let face = Face::new(100.0).unwrap();
        assert!((face.width("M") - 86.28).abs() < 0.01, "{}", face.width("M"));
    }
}

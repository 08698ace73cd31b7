//! The embedded font in a PDF: only the glyphs that are used, and which characters they are, so that text can be found
//! and copied.

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use pdf_writer::types::{CidFontType, FontFlags, SystemInfo, UnicodeCmap};
use pdf_writer::{Content, Filter, Name, Pdf, Rect, Ref, Str};
use subsetter::GlyphRemapper;

use super::PictureError;
use super::drawing::Text;
use super::text::{FONT, Face};

/// The six letters say that it is a part of the font.
const NAME: Name<'static> = Name(b"ATFLOW+DejaVuSans");
const SYSTEM: SystemInfo<'static> = SystemInfo { registry: Str(b"Adobe"), ordering: Str(b"Identity"), supplement: 0 };

/// The glyphs of one file.
pub(super) struct PdfFont {
    numbers: GlyphRemapper,
    /// For each number the character, and the advance in thousandths of an em.
    used: BTreeMap<u16, (char, f32)>,
}

impl PdfFont {
    pub(super) const REF: Ref = Ref::new(6);

    pub(super) fn new() -> Self {
        PdfFont { numbers: GlyphRemapper::new(), used: BTreeMap::new() }
    }

    /// Shows a line of text, each glyph where the layout has it.
    pub(super) fn show(&mut self, content: &mut Content, text: &Text) -> Result<(), PictureError> {
        let face = Face::new(text.size)?;
        let placed = face.placed(&text.text);
        let ends: Vec<f32> = placed.iter().skip(1).map(|glyph| glyph.left).chain([text.width]).collect();
        let mut line = content.show_positioned();
        let mut items = line.items();
        for (glyph, end) in placed.iter().zip(ends) {
            let number = self.numbers.remap(glyph.id.0);
            let advance = face.advance(glyph.id) / text.size * 1000.0;
            self.used.entry(number).or_insert((glyph.character, advance));
            items.show(Str(&number.to_be_bytes()));
            // What a pair of glyphs stands closer than their advances is taken away.
            let closer = advance - (end - glyph.left) / text.size * 1000.0;
            if closer.abs() > 0.5 {
                items.adjust(closer.round());
            }
        }
        Ok(())
    }

    /// Writes the font and its parts.
    pub(super) fn write(&self, pdf: &mut Pdf) -> Result<(), PictureError> {
        let [font, parts, descriptor, file, characters] = [6, 7, 8, 9, 10].map(Ref::new);
        pdf.type0_font(font)
            .base_font(NAME)
            .encoding_predefined(Name(b"Identity-H"))
            .descendant_font(parts)
            .to_unicode(characters);
        let mut cid = pdf.cid_font(parts);
        cid.subtype(CidFontType::Type2).base_font(NAME).system_info(SYSTEM).font_descriptor(descriptor);
        cid.cid_to_gid_map_predefined(Name(b"Identity")).default_width(0.0);
        let mut widths = cid.widths();
        for (number, (_, advance)) in &self.used {
            widths.consecutive(*number, [*advance]);
        }
        drop(widths);
        drop(cid);
        // Of `head`, `hhea` and `OS/2` of the font, in thousandths of an em.
        pdf.font_descriptor(descriptor)
            .name(NAME)
            .flags(FontFlags::SYMBOLIC)
            .bbox(Rect::new(-1021.0, -463.0, 1793.0, 1232.0))
            .italic_angle(0.0)
            .ascent(928.0)
            .descent(-236.0)
            .cap_height(729.0)
            .stem_v(90.0)
            .font_file2(file);
        let part = subsetter::subset(FONT, 0, &self.numbers).map_err(|error| PictureError::Draw(error.to_string()))?;
        let bytes = deflated(&part)?;
        pdf.stream(file, &bytes).filter(Filter::FlateDecode).pair(Name(b"Length1"), part.len() as i32);
        let mut names = UnicodeCmap::new(Name(b"Characters"), SYSTEM);
        self.used.iter().for_each(|(number, (character, _))| names.pair(*number, *character));
        pdf.cmap(characters, &names.finish());
        Ok(())
    }
}

/// Bytes as the filter `FlateDecode` has them.
pub(super) fn deflated(bytes: &[u8]) -> Result<Vec<u8>, PictureError> {
    let failed = |error: std::io::Error| PictureError::Draw(error.to_string());
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).map_err(failed)?;
    encoder.finish().map_err(failed)
}

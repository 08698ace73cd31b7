//! Drawings as PDF: one page, text as text, images one pixel a pixel.

use std::collections::BTreeSet;

use pdf_writer::{Content, Filter, Finish as _, Name, Pdf, Rect, Ref, TextStr};

use super::PictureError;
use super::drawing::{Color, DASH, Drawing, Shape, Spot, Text};
use super::pdf_font::{PdfFont, deflated};
use super::tile::Tile;

/// The number of the first image; those before it are the parts that every file has.
const FIRST_IMAGE: i32 = 16;
const FONT: Name<'static> = Name(b"F");

/// Draws a picture on a page of its size. The file says nothing of when and where it was made.
pub(super) fn draw(drawing: &Drawing) -> Result<Vec<u8>, PictureError> {
    let mut page =
        Page { content: Content::new(), font: PdfFont::new(), images: Vec::new(), opacities: BTreeSet::new() };
    let (width, height) = (drawing.size.0 * drawing.unit, drawing.size.1 * drawing.unit);
    // Drawings count downwards, pages upwards.
    page.content.transform([drawing.unit, 0.0, 0.0, -drawing.unit, 0.0, height]);
    drawing.shapes.iter().try_for_each(|shape| page.shape(shape))?;
    page.file(width, height)
}

struct Page<'a> {
    content: Content,
    font: PdfFont,
    images: Vec<&'a Tile>,
    /// In percent, so that they can be compared and named.
    opacities: BTreeSet<u32>,
}

impl<'a> Page<'a> {
    fn shape(&mut self, shape: &'a Shape) -> Result<(), PictureError> {
        match shape {
            Shape::Line { points, color, width, dashed } => self.line(points, *color, *width, *dashed),
            Shape::Fill { points, color, opacity } => self.fill(points, *color, *opacity),
            Shape::Text(text) => self.text(text)?,
            Shape::Image { tile, at, scale } => self.image(tile, *at, *scale),
        }
        Ok(())
    }

    fn line(&mut self, points: &[Spot], color: Color, width: f32, dashed: bool) {
        let [r, g, b] = ink(color);
        let dashes = if dashed { vec![DASH.0 * width, DASH.1 * width] } else { vec![] };
        self.content.set_stroke_rgb(r, g, b).set_line_width(width).set_dash_pattern(dashes, 0.0);
        self.path(points);
        self.content.stroke();
    }

    fn fill(&mut self, points: &[Spot], color: Color, opacity: f32) {
        let ([r, g, b], percent) = (ink(color), (opacity * 100.0).round() as u32);
        self.content.set_fill_rgb(r, g, b);
        if percent < 100 {
            self.opacities.insert(percent);
            self.content.save_state().set_parameters(Name(opacity_name(percent).as_bytes()));
        }
        self.path(points);
        self.content.close_path().fill_nonzero();
        if percent < 100 {
            self.content.restore_state();
        }
    }

    fn path(&mut self, points: &[Spot]) {
        for (index, &(x, y)) in points.iter().enumerate() {
            if index == 0 {
                self.content.move_to(x, y)
            } else {
                self.content.line_to(x, y)
            };
        }
    }

    fn text(&mut self, text: &Text) -> Result<(), PictureError> {
        let [r, g, b] = ink(text.color);
        self.content.set_fill_rgb(r, g, b);
        self.content.begin_text().set_font(FONT, text.size);
        self.content.set_text_matrix([1.0, 0.0, 0.0, -1.0, text.at.0, text.at.1]);
        self.font.show(&mut self.content, text)?;
        self.content.end_text();
        Ok(())
    }

    fn image(&mut self, tile: &'a Tile, (x, y): Spot, scale: u32) {
        let [width, height] = [tile.width, tile.height].map(|side| (side * scale) as f32);
        let known = self.images.iter().position(|known| *known == tile);
        let index = known.unwrap_or_else(|| {
            self.images.push(tile);
            self.images.len() - 1
        });
        self.content.save_state().transform([width, 0.0, 0.0, -height, x, y + height]);
        self.content.x_object(Name(image_name(index).as_bytes())).restore_state();
    }

    fn file(self, width: f32, height: f32) -> Result<Vec<u8>, PictureError> {
        let [catalog, pages, page, content, info] = [1, 2, 3, 4, 5].map(Ref::new);
        let mut pdf = Pdf::new();
        // Opacity needs 1.4; pdfLaTeX warns of more than 1.5.
        pdf.set_version(1, 4);
        pdf.catalog(catalog).pages(pages);
        pdf.pages(pages).kids([page]).count(1);
        pdf.document_info(info).creator(TextStr("atflow"));
        let mut sheet = pdf.page(page);
        sheet.parent(pages).media_box(Rect::new(0.0, 0.0, width, height)).contents(content);
        let mut resources = sheet.resources();
        resources.fonts().pair(FONT, PdfFont::REF);
        let mut images = resources.x_objects();
        for index in 0..self.images.len() {
            images.pair(Name(image_name(index).as_bytes()), image_ref(index));
        }
        images.finish();
        let mut states = resources.ext_g_states();
        for percent in &self.opacities {
            let name = opacity_name(*percent);
            states.insert(Name(name.as_bytes())).dict().pair(Name(b"ca"), *percent as f32 / 100.0);
        }
        states.finish();
        resources.finish();
        sheet.finish();
        pdf.stream(content, &deflated(&self.content.finish().into_vec())?).filter(Filter::FlateDecode);
        for (index, tile) in self.images.iter().enumerate() {
            write_image(&mut pdf, image_ref(index), tile)?;
        }
        self.font.write(&mut pdf)?;
        Ok(pdf.finish())
    }
}

/// Writes an image of one byte a pixel where all of it is grey, else of three. A viewer is told not to smooth it.
fn write_image(pdf: &mut Pdf, at: Ref, tile: &Tile) -> Result<(), PictureError> {
    let grey = tile.grey();
    let bytes = deflated(grey.as_ref().unwrap_or(&tile.rgb))?;
    let mut image = pdf.image_xobject(at, &bytes);
    image.filter(Filter::FlateDecode);
    image.width(tile.width as i32).height(tile.height as i32);
    image.color_space_name(if grey.is_some() { Name(b"DeviceGray") } else { Name(b"DeviceRGB") });
    image.bits_per_component(8).interpolate(false);
    Ok(())
}

fn image_name(index: usize) -> String {
    format!("I{index}")
}

fn image_ref(index: usize) -> Ref {
    Ref::new(FIRST_IMAGE + index as i32)
}

fn opacity_name(percent: u32) -> String {
    format!("A{percent}")
}

fn ink(color: Color) -> [f32; 3] {
    color.map(|part| f32::from(part) / 255.0)
}

#[cfg(test)]
mod tests {
    use super::super::drawing::{Align, PIXEL, Raster};
    use super::super::text::Face;
    use super::*;

    #[test]
    fn images_are_written_once_in_their_own_colours_and_never_smoothed() {
        let raster = Raster { pixels: 1, oversampling: 1 };
        let mut drawing = Drawing::new((100.0, 50.0), PIXEL, raster);
        let grey = Tile { width: 2, height: 2, rgb: [7; 12].to_vec() };
        let red = Tile { width: 2, height: 2, rgb: [9, 0, 0].repeat(4) };
        drawing.image(&grey, (0.0, 0.0), 3);
        drawing.image(&grey, (10.0, 0.0), 3);
        drawing.image(&red, (20.0, 0.0), 3);
        drawing.text(Face::new(13.0).unwrap(), "ε = 8/255", (0.0, 40.0), Align::Left, [0; 3]);
        let pdf = draw(&drawing).unwrap();
        let text = String::from_utf8_lossy(&pdf).into_owned();
        let count = |what: &str| text.matches(what).count();
        assert_eq!((count("/Subtype /Image"), count("/DeviceGray"), count("/DeviceRGB")), (2, 1, 1));
        assert_eq!((count("/Interpolate true"), count("/MediaBox [0 0 75 37.5]")), (0, 1));
        // Part of the font, not all of its 740 kB; nothing of the time and the machine.
        assert!(pdf.len() < 40_000 && count("/FontFile2") == 1, "{} bytes", pdf.len());
        assert_eq!((count("/CreationDate"), count("/ID")), (0, 0));
        assert_eq!(pdf, draw(&drawing.clone()).unwrap());
    }
}

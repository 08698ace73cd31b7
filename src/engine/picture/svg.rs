//! Drawings as SVG: text as text, images as they are.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{ExtendedColorType, ImageEncoder};

use super::PictureError;
use super::bitmap::small_encoder;
use super::drawing::{Align, Color, DASH, Drawing, PIXEL, Shape, Spot, Text};
use super::tile::Tile;

/// Fonts that an SVG asks its viewer for. Verdana and DejaVu Sans have the same widths, so that a layout made for one
/// fits the other.
const FAMILIES: &str = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif";

pub(super) fn draw(drawing: &Drawing) -> Result<String, PictureError> {
    let (width, height) = drawing.size;
    let shown = |units: f32| number(units * drawing.unit / PIXEL);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {} {}\" \
         font-family=\"{FAMILIES}\">\n<rect width=\"100%\" height=\"100%\" fill=\"#FFFFFF\"/>\n",
        shown(width),
        shown(height),
        number(width),
        number(height),
    );
    for shape in &drawing.shapes {
        svg += &match shape {
            Shape::Line { points, color, width, dashed } => line(points, *color, *width, *dashed),
            Shape::Fill { points, color, opacity } => fill(points, *color, *opacity),
            Shape::Text(text) => line_of_text(text),
            Shape::Image { tile, at, scale } => image(tile, *at, *scale)?,
        };
    }
    Ok(svg + "</svg>\n")
}

fn line(spots: &[Spot], color: Color, width: f32, dashed: bool) -> String {
    let dashes = format!(" stroke-dasharray=\"{} {}\"", number(DASH.0 * width), number(DASH.1 * width));
    let dashes = if dashed { dashes } else { String::new() };
    format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\"{dashes}/>\n",
        points(spots),
        hex(color),
        number(width)
    )
}

fn fill(spots: &[Spot], color: Color, opacity: f32) -> String {
    let opacity = if opacity < 1.0 { format!(" fill-opacity=\"{}\"", number(opacity)) } else { String::new() };
    format!("<polygon points=\"{}\" fill=\"{}\"{opacity}/>\n", points(spots), hex(color))
}

fn line_of_text(text: &Text) -> String {
    let (x, anchor) = match text.align {
        Align::Left => (text.at.0, ""),
        Align::Centre => (text.at.0 + text.width / 2.0, " text-anchor=\"middle\""),
        Align::Right => (text.at.0 + text.width, " text-anchor=\"end\""),
    };
    format!(
        "<text x=\"{}\" y=\"{}\" font-size=\"{}\" fill=\"{}\"{anchor}>{}</text>\n",
        number(x),
        number(text.at.1),
        number(text.size),
        hex(text.color),
        escaped(&text.text)
    )
}

fn image(tile: &Tile, (x, y): Spot, scale: u32) -> Result<String, PictureError> {
    // Viewers know one word or the other for pixels that stay squares.
    Ok(format!(
        "<image x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" image-rendering=\"optimizeSpeed\" \
         style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{}\"/>\n",
        number(x),
        number(y),
        tile.width * scale,
        tile.height * scale,
        STANDARD.encode(png(tile)?)
    ))
}

/// A tile as a PNG, one pixel a pixel.
fn png(tile: &Tile) -> Result<Vec<u8>, PictureError> {
    let mut bytes = Vec::new();
    let encoder = small_encoder(&mut bytes);
    match tile.grey() {
        Some(grey) => encoder.write_image(&grey, tile.width, tile.height, ExtendedColorType::L8)?,
        None => encoder.write_image(&tile.rgb, tile.width, tile.height, ExtendedColorType::Rgb8)?,
    }
    Ok(bytes)
}

fn points(points: &[Spot]) -> String {
    let mut text = String::new();
    for (index, (x, y)) in points.iter().enumerate() {
        let space = if index > 0 { " " } else { "" };
        let _ = write!(text, "{space}{},{}", number(*x), number(*y));
    }
    text
}

/// A number with at most two decimals, which is finer than any screen.
fn number(value: f32) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn hex([r, g, b]: Color) -> String {
    format!("#{r:02X}{g:02X}{b:02X}")
}

/// Text in which XML sees no markup, and none of the control characters that XML forbids.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            _ if character.is_control() => out.push(' '),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_text_is_no_markup() {
        assert_eq!([1.0, 0.5, 2.344, -0.001, 100.0].map(number), ["1", "0.5", "2.34", "0", "100"]);
        assert_eq!(escaped("a<b> & \u{1}c"), "a&lt;b&gt; &amp;  c");
    }
}

//! Draws a diagram as SVG. Text has a fixed-width font, so its length is known without the font.

use super::Diagram;
use super::layout::layout;

/// Colour of lines.
pub(super) const STROKE: &str = "#57606a";

/// Width of a character in the title. Fixed-width fonts are 0.6 of their size wide, some a little more.
const TITLE: f64 = 13.0 * 0.62;

/// Width of a character in the subtitle.
const SUBTITLE: f64 = 11.0 * 0.62;

const PADDING: f64 = 12.0;
const HEIGHT: f64 = 42.0;
const MARGIN: f64 = 16.0;

pub(super) fn draw(diagram: &Diagram) -> String {
    let length = |text: &str| text.chars().count() as f64;
    let texts: Vec<(String, String)> = diagram.nodes.iter().map(|node| (node.title(), node.subtitle())).collect();
    let width = |(title, subtitle): &(String, String)| {
        (length(title) * TITLE).max(length(subtitle) * SUBTITLE).ceil() + 2.0 * PADDING
    };
    let widths: Vec<f64> = texts.iter().map(width).collect();
    let edges: Vec<(usize, usize)> = diagram.edges.iter().copied().collect();
    let layout = layout(&widths, HEIGHT, &edges);
    let (width, height) = (layout.width + 2.0 * MARGIN, layout.height + 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"{:.0} {:.0} {width:.0} {height:.0}\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" text-anchor=\"middle\">\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\">\
         <path d=\"M0 0.5 8 4 0 7.5z\" fill=\"{STROKE}\"/></marker></defs>\n\
         <rect x=\"{:.0}\" y=\"{:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" fill=\"#ffffff\"/>\n",
        -MARGIN, -MARGIN, -MARGIN, -MARGIN
    );
    for arrow in &layout.arrows {
        svg.push_str(&format!(
            "<path d=\"{}\" fill=\"none\" stroke=\"{STROKE}\" marker-end=\"url(#tip)\"/>\n",
            curve(arrow)
        ));
    }
    for ((node, place), (title, subtitle)) in diagram.nodes.iter().zip(&layout.boxes).zip(&texts) {
        let middle = place.x + place.width / 2.0;
        svg.push_str(&format!(
            "<g><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"6\" fill=\"{}\" stroke=\"{STROKE}\"/>\
             <text x=\"{middle:.1}\" y=\"{:.1}\" font-size=\"13\" fill=\"#1f2328\">{}</text>\
             <text x=\"{middle:.1}\" y=\"{:.1}\" font-size=\"11\" fill=\"{STROKE}\">{}</text></g>\n",
            place.x,
            place.y,
            place.width,
            place.height,
            node.fill(),
            place.y + 18.0,
            escaped(title),
            place.y + 33.0,
            escaped(subtitle),
        ));
    }
    svg + "</svg>\n"
}

/// Returns a path through the points that leaves and enters each point horizontally.
fn curve(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (index, (x, y)) in points.iter().enumerate() {
        match index.checked_sub(1).map(|before| points[before]) {
            None => path.push_str(&format!("M{x:.1} {y:.1}")),
            Some((_, from_y)) if (from_y - y).abs() < 0.05 => path.push_str(&format!(" L{x:.1} {y:.1}")),
            Some((from_x, from_y)) => {
                let middle = (from_x + x) / 2.0;
                path.push_str(&format!(" C{middle:.1} {from_y:.1} {middle:.1} {y:.1} {x:.1} {y:.1}"));
            }
        }
    }
    path
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

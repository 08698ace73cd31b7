//! The timeline of a run as inline SVG: a lane for each slot, and how many stages ran at once.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use atflow::report::{RunResults, Timeline};
use atflow::stage_kinds::StageKind;

use super::chart::{COLOURS, escaped};
use crate::ui;

const WIDTH: f64 = 1000.0;
const LANE: f64 = 18.0;
const FOOT: f64 = 22.0;
const LOAD: f64 = 60.0;

/// Narrower bars, in units of the picture, are one path and have no label of their own.
const NARROW: f64 = 3.0;

/// Most lanes that are drawn.
const MOST_LANES: usize = 64;

/// Draws the times of a run; nothing if no stage ran.
pub(super) fn svg(results: &RunResults, timeline: &Timeline) -> Option<String> {
    if timeline.bars.is_empty() || timeline.end <= 0.0 {
        return None;
    }
    let x_at = |seconds: f64| seconds / timeline.end * WIDTH;
    let lanes = timeline.lanes.min(MOST_LANES);
    let lanes_end = lanes as f64 * LANE;
    let height = lanes_end + LOAD + FOOT;
    let mut svg = format!(
        "<svg class=\"timeline\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"Timeline of {} stages over {}\">",
        timeline.bars.len(),
        ui::duration(timeline.end)
    );
    let kind = |stage: usize| results.stages[stage].manifest.record.kind;
    let mut narrow: BTreeMap<usize, String> = BTreeMap::new();
    for bar in timeline.bars.iter().filter(|bar| bar.lane < MOST_LANES) {
        let (from, to) = (x_at(bar.start), x_at(bar.end));
        let (y, colour) = (bar.lane as f64 * LANE + 2.0, colour(kind(bar.stage)));
        if to - from < NARROW {
            let path = narrow.entry(colour).or_default();
            _ = write!(path, "M{from:.1} {y}v14h{:.1}v-14z", (to - from).max(0.4));
            continue;
        }
        let critical = if timeline.critical.contains(&bar.stage) { " critical" } else { "" };
        _ = write!(
            svg,
            "<rect class=\"bar{critical}\" x=\"{from:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"14\" fill=\"var(--line-{colour})\"><title>{}: {}</title></rect>",
            to - from,
            escaped(&results.stages[bar.stage].name),
            ui::duration(bar.end - bar.start)
        );
    }
    for (colour, path) in narrow {
        _ = write!(svg, "<path fill=\"var(--line-{colour})\" d=\"{path}\"/>");
    }
    svg.push_str(&load(timeline, lanes_end, &x_at));
    for tenth in 0..=5 {
        let share = f64::from(tenth) / 5.0;
        let anchor = match tenth {
            0 => "start",
            5 => "end",
            _ => "middle",
        };
        _ = write!(
            svg,
            "<text class=\"tick\" text-anchor=\"{anchor}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            share * WIDTH,
            height - 5.0,
            ui::duration(share * timeline.end)
        );
    }
    Some(svg + "</svg>")
}

/// Draws how many stages ran at once, under the lanes.
fn load(timeline: &Timeline, top: f64, x_at: &dyn Fn(f64) -> f64) -> String {
    let mut changes: Vec<(f64, i32)> = timeline.bars.iter().flat_map(|bar| [(bar.start, 1), (bar.end, -1)]).collect();
    changes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let floor = top + LOAD - 4.0;
    let y_at = |count: i32| floor - f64::from(count) / timeline.lanes.max(1) as f64 * (LOAD - 14.0);
    let (mut path, mut count, mut last) = (format!("M0 {floor:.1}"), 0, -1.0);
    for (at, change) in changes {
        let x = x_at(at);
        // Steps that nobody can see are left out; the count goes on.
        if x - last >= 0.5 {
            _ = write!(path, "H{x:.1}");
            last = x;
        }
        count += change;
        _ = write!(path, "V{:.1}", y_at(count));
    }
    format!("<path class=\"load\" d=\"{path}H{WIDTH}V{floor:.1}z\"/>")
}

/// Returns the index of the colour of a kind.
pub(super) fn colour(kind: StageKind) -> usize {
    StageKind::ALL.iter().position(|other| *other == kind).unwrap_or(0) % COLOURS
}

//! Messages about remote results: how many were used, how many were ignored, and how locally computed results compare
//! with them.

use std::collections::BTreeMap;

use atflow::cache::{Cache, Origin};
use atflow::event::{RemoteCount, RunSummary};
use atflow::plan::rerun_from::RerunFrom;
use atflow::signing::Doubt;
use atflow::verify::reproduce::Reproduction;
use serde_json::json;

use super::verify::{compared_lines, unjudged_words};
use crate::ui;

/// Of results that were taken from elsewhere, and of tables that were assembled here instead.
pub(crate) fn taken_words(summary: &RunSummary) -> String {
    let mut words: String = summary.elsewhere.iter().map(|(remote, count)| came_from(remote, count)).collect();
    let (same, other): (Vec<_>, Vec<_>) =
        summary.assembled.iter().partition(|assembled| assembled.different.is_empty());
    if !same.is_empty() {
        let are = if same.len() == 1 { "is as the remote cache has it" } else { "are as the remote cache has them" };
        words.push_str(&format!("{} assembled here {are}\n", ui::count(same.len(), "result")));
    }
    if !other.is_empty() {
        let names: Vec<&str> = other.iter().map(|assembled| assembled.stage.as_str()).collect();
        words.push_str(&format!("NOT what the remote cache has, assembled here: {}\n", names.join(", ")));
    }
    words
}

fn came_from(remote: &str, count: &RemoteCount) -> String {
    let signed = match count.signed {
        0 => "no signature was checked".to_owned(),
        signed if signed == count.results => "signed by a trusted key".to_owned(),
        signed => format!("{signed} signed by a trusted key, of the others no signature was checked"),
    };
    format!("{} came from {remote}, not computed here ({signed})\n", ui::count(count.results, "result"))
}

/// Of results that do not count, because no trusted key signed them.
pub(crate) fn passed_over_words(cache: &Cache) -> String {
    let passed_over = cache.passed_over();
    let all: usize = passed_over.values().sum();
    if all == 0 {
        return String::new();
    }
    let why = |(doubt, count): (&Doubt, &usize)| {
        let why = match doubt {
            Doubt::Unsigned => "without a signature",
            Doubt::OtherKey => "signed by a key that is not trusted",
            Doubt::Invalid => "with a signature that does not fit",
        };
        format!("{count} {why}")
    };
    let parts: Vec<String> = passed_over.iter().map(why).collect();
    format!("{} from elsewhere passed over: {}\n", ui::count(all, "result"), parts.join(", "))
}

/// The same for programs; empty if there is none.
pub(crate) fn passed_over_json(cache: &Cache) -> Option<serde_json::Value> {
    let passed_over: BTreeMap<Doubt, usize> = cache.passed_over();
    (!passed_over.is_empty()).then(|| json!(passed_over))
}

/// Where a result came from, in a line.
pub(crate) fn origin_words(origin: &Origin) -> String {
    let signed = match &origin.signed_by {
        Some(key) => format!("signed by {key}"),
        None => "no signature was checked".to_owned(),
    };
    format!("{} on {}, {signed}", origin.remote, ui::moment(&origin.at))
}

/// How results that were made anew compare with the published ones.
pub(crate) fn reproduced_words(told: &Reproduction) -> String {
    let from = match (told.from, told.read) {
        (RerunFrom::Scratch, _) => "recomputed from scratch".to_owned(),
        (depth, count) => {
            let noun = if depth == RerunFrom::Checkpoints { "checkpoint" } else { "prediction" };
            format!("recomputed from {}", ui::count(count, noun))
        }
    };
    if told.results == 0 {
        return format!("nothing was recomputed: no target is made from {}\n", told.from.name());
    }
    if told.compared == 0 {
        return format!("{from}: nothing was published to compare with\n");
    }
    let mut parts =
        vec![format!("{} of {} identical to the published ones", told.identical, ui::count(told.compared, "file"))];
    if told.within > 0 {
        parts.push(format!("{} with other bytes and numbers within {:.2} points", told.within, told.points));
    }
    if !told.unjudged.is_empty() {
        parts.push(format!("{} with other bytes that cannot be judged", told.unjudged.len()));
    }
    if !told.different.is_empty() {
        parts.push(format!("{} DIFFERENT", told.different.len()));
    }
    let remotes: Vec<&str> = told.remotes.iter().map(String::as_str).collect();
    let mut words = format!("{from}: {} ({})\n", parts.join(", "), remotes.join(", "));
    words.push_str(&compared_lines(&told.different));
    words.push_str(&unjudged_words(&told.unjudged));
    if !told.unpublished.is_empty() {
        words.push_str(&format!(
            "nothing was published to compare with of {}: {}\n",
            ui::count(told.unpublished.len(), "stage"),
            ui::some(&told.unpublished)
        ));
    }
    words
}

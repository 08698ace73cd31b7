//! Mock-ups: runs with a profile that declares `mockup: true`. Whatever people look at says so in its title.

use std::sync::Arc;

use serde_json::Value as Json;

use super::instance::Instance;
use crate::stage_kinds::StageKind;

/// The key of a profile that makes its runs mock-ups.
pub(super) const KEY: &str = "mockup";

/// Puts the words into the title of a table, a picture or a report; one without a title gets the words as its title.
pub(super) fn mark_title(instance: &mut Instance) {
    let has_title = matches!(
        instance.kind,
        StageKind::Table | StageKind::Figure | StageKind::Masking | StageKind::Saliency | StageKind::FourierMap
    );
    if !has_title || !instance.knows_params {
        return;
    }
    if let Json::Object(params) = Arc::make_mut(&mut instance.params) {
        let marked = match params.get("title").and_then(Json::as_str) {
            Some(title) => format!("{title} (mock-up: the numbers mean nothing)"),
            None => "Mock-up: the numbers mean nothing".to_owned(),
        };
        params.insert("title".to_owned(), marked.into());
    }
}

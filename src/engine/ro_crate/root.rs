//! The root of a crate: what the whole is, which profiles it fills, and what lies in it.

use serde_json::json;

use super::builder::Builder;
use super::times::time;
use super::{METADATA_FILE, ROOT};

/// The version of the Workflow Run RO-Crate profiles that a crate fills.
const PROFILE_VERSION: &str = "0.5";

/// The specification of RO-Crate.
const RO_CRATE: &str = "https://w3id.org/ro/crate/1.1";

/// The profile for workflows in general.
const WORKFLOW_RO_CRATE: &str = "https://w3id.org/workflowhub/workflow-ro-crate/1.0";

impl Builder<'_> {
    /// Adds the root and the description of the metadata file. Everything else must be there.
    pub(super) fn add_root(&mut self) {
        let run = &self.from.results.run;
        let about = json!({
            "name": format!("{}, run {}", run.pipeline, run.id.short()),
            "description": format!("What a run of the pipeline {} made, from what, how and where.", run.pipeline),
            "datePublished": time(&run.at),
        });
        self.entities.add(ROOT, &["Dataset"], about);
        let license = self.from.license.add(&mut self.entities);
        self.entities.link(ROOT, "license", &license);
        let workflow = self.workflow.clone();
        self.entities.link(ROOT, "mainEntity", &workflow);
        let folders = self.entities.of_type("Dataset").into_iter().filter(|id| id != ROOT);
        for part in self.entities.of_type("File").into_iter().chain(folders) {
            self.entities.link(ROOT, "hasPart", &part);
        }
        for action in self.entities.of_type("CreateAction") {
            self.entities.link(ROOT, "mentions", &action);
        }
        self.add_profiles();
        let types = ["CreativeWork"];
        self.entities.add(METADATA_FILE, &types, json!({ "about": { "@id": ROOT } }));
        self.entities.link(METADATA_FILE, "conformsTo", RO_CRATE);
        self.entities.link(METADATA_FILE, "conformsTo", WORKFLOW_RO_CRATE);
    }

    fn add_profiles(&mut self) {
        let ours = [
            ("process", "Process Run Crate"),
            ("workflow", "Workflow Run Crate"),
            ("provenance", "Provenance Run Crate"),
        ];
        let ours = ours
            .map(|(part, name)| (format!("https://w3id.org/ro/wfrun/{part}/{PROFILE_VERSION}"), name, PROFILE_VERSION));
        let all = ours.into_iter().chain([(WORKFLOW_RO_CRATE.to_owned(), "Workflow RO-Crate", "1.0")]);
        for (id, name, version) in all {
            self.entities.add(&id, &["CreativeWork"], json!({ "name": name, "version": version }));
            self.entities.link(ROOT, "conformsTo", &id);
        }
    }
}

//! The files of a crate: pipeline, results, records, and the blobs and sources that it only names.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::builder::Builder;
use super::entities::iri;
use super::{PIPELINE, ROOT};
use crate::address::masked;
use crate::cache::{Blob, CacheError, Manifest, RunRecord};
use crate::spec::{ExternalInput, Instance};

/// Folder with the tables, figures and pictures.
const RESULTS: &str = "results";

/// The file with the machines and programs that made the results.
pub(super) const ENVIRONMENT: &str = "environment.json";

/// The file for people.
const README: &str = "README.md";

/// The record of the run.
pub(super) const RUN_RECORD: &str = "run.json";

impl<'a> Builder<'a> {
    /// Adds the pipeline file, which is the workflow, and the files that it includes.
    pub(super) fn add_pipeline(&mut self) {
        let from = self.from;
        for file in &from.spec.files {
            let Some(path) = from.layout.get(&file.path) else { continue };
            let bytes = self.shown(&file.text).into_bytes();
            let about = json!({ "name": path, "description": "A part of the pipeline, in YAML." });
            if iri(path) == self.workflow {
                self.add_workflow();
            } else {
                let workflow = self.workflow.clone();
                self.entities.link(&workflow, "isBasedOn", &iri(path));
            }
            self.add_file(path, bytes, "application/yaml", about);
        }
    }

    /// Adds the files among the results that people look at.
    ///
    /// # Errors
    /// [`CacheError`] if one cannot be read.
    pub(super) fn add_results(&mut self) -> Result<(), CacheError> {
        for id in self.instances.clone() {
            let instance = self.from.graph.instance(id);
            let Some(manifest) = self.manifest(instance) else { continue };
            for output in &instance.outputs {
                let (Some(name), Some(blob)) = (&output.result, manifest.outputs.get(&output.name)) else { continue };
                let bytes = self.from.cache.read(blob.digest)?;
                let about = json!({
                    "name": name,
                    "description": format!("Output `{}` of {}.", output.name, instance.name),
                    "identifier": format!("blake3:{}", blob.digest),
                });
                self.add_file(&format!("{RESULTS}/{name}"), bytes, media_type(name), about);
            }
        }
        Ok(())
    }

    /// Adds the record of the run, the environments, and whatever the caller brings along.
    pub(super) fn add_records(&mut self) {
        let from = self.from;
        let file = from.layout.get(&from.spec.file.path).unwrap_or_default();
        let run = RunRecord { file: file.into(), ..from.results.run.clone() };
        let text = serde_json::to_string_pretty(&run).unwrap_or_default() + "\n";
        let about = "The record of the run: who ran what with which parameters, and the key of each result.";
        let about = json!({ "name": "record of the run", "description": about });
        self.add_file(RUN_RECORD, self.shown(&text).into_bytes(), "application/json", about);
        let text = serde_json::to_string_pretty(&self.environments()).unwrap_or_default() + "\n";
        let about = "Device, processor, threads, program and libraries that made each result.";
        let about = json!({
            "name": "environments", "description": about, "conformsTo": { "@id": "#environments-format" },
        });
        self.add_file(ENVIRONMENT, self.shown(&text).into_bytes(), "application/json", about);
        let about = "A list of environments; each has the names of the results that it made.";
        let about = json!({ "name": "list of environments of atflow, version 1", "description": about });
        self.entities.add("#environments-format", &["CreativeWork"], about);
        let about = json!({ "name": "read me", "description": "What this folder is.", "about": { "@id": ROOT } });
        self.add_file(README, self.readme().into_bytes(), "text/markdown", about);
        for file in &from.extra {
            let about = json!({ "name": file.path, "description": file.about });
            self.add_file(&file.path, file.bytes.clone(), file.media, about);
        }
    }

    /// What the folder is, for people who find it.
    fn readme(&self) -> String {
        let run = &self.from.results.run;
        let mut text = format!(
            "# {}\n\nRun {} of the pipeline `{}`, as a [Workflow Run RO-Crate]\
             (https://w3id.org/ro/wfrun/provenance/0.5).\n\n\
             - `ro-crate-metadata.json`: what made what, from what, how and where, for programs\n\
             - `{PIPELINE}/`: the pipeline\n- `{RESULTS}/`: tables, figures and pictures\n\
             - `{RUN_RECORD}`, `{ENVIRONMENT}`: the record of the run, and the machines and programs of its results\n",
            run.pipeline,
            run.id.short(),
            self.workflow,
        );
        for file in &self.from.extra {
            text.push_str(&format!("- `{}`: {}\n", file.path, file.about.trim_end_matches('.')));
        }
        text
    }

    /// Returns the environments, each with the results that it made.
    fn environments(&self) -> Json {
        let mut all: BTreeMap<String, (Json, Vec<&str>)> = BTreeMap::new();
        for stage in &self.from.results.stages {
            let made = &stage.manifest.made;
            let environment = json!({
                "device": made.device, "device_name": made.device_name, "threads": made.threads,
                "atflow": made.atflow, "libtorch": made.libtorch, "numerics": stage.manifest.record.numerics,
                "arithmetic": made.arithmetic,
            });
            let entry = all.entry(environment.to_string()).or_insert_with(|| (environment, Vec::new()));
            entry.1.push(&stage.name);
        }
        let list = all.into_values().map(|(environment, stages)| json!({ "made_by": environment, "results": stages }));
        json!({ "format": "environments/1", "environments": list.collect::<Vec<_>>() })
    }

    /// Adds a file with its bytes; returns its id.
    pub(super) fn add_file(&mut self, path: &str, bytes: Vec<u8>, media: &str, about: Json) -> String {
        let id = iri(path);
        self.entities.add(&id, &["File"], about);
        let more = json!({ "encodingFormat": media, "contentSize": bytes.len().to_string() });
        self.entities.add(&id, &["File"], more);
        self.files.insert(path.to_owned(), bytes);
        id
    }

    /// Adds the manifest of a result; returns its id.
    pub(super) fn add_manifest(&mut self, manifest: &Manifest) -> String {
        let key = manifest.record.key();
        // Where it was fetched from may be private.
        let mut own = Manifest { from: None, ..manifest.clone() };
        // Long logs stay at home, so short ones do, too.
        own.made.log.text = None;
        let text = self.shown(&(serde_json::to_string_pretty(&own).unwrap_or_default() + "\n"));
        let about = "The manifest: all parameters in effect, the digests of inputs and outputs, and where it was made.";
        let about = json!({ "name": format!("manifest of {}", manifest.made.stage), "description": about });
        self.add_file(&(self.from.manifest_path)(key), text.into_bytes(), "application/json", about)
    }

    /// Returns the manifest of an instance, if it has a result.
    pub(super) fn manifest(&self, instance: &Instance) -> Option<&'a Manifest> {
        self.results.get(instance.name.as_str()).copied().map(|stage| &stage.manifest)
    }

    /// Adds an output of an instance; returns its id. A large blob is only named.
    pub(super) fn add_output(&mut self, instance: &Instance, name: &str, blob: Blob) -> String {
        let result =
            instance.outputs.iter().find(|output| output.name == name).and_then(|output| output.result.as_ref());
        if let Some(result) = result {
            return iri(&format!("{RESULTS}/{result}"));
        }
        let digest = blob.digest;
        let id = match self.from.blobs.get(&digest) {
            Some(path) => iri(path),
            None => format!("#blake3-{digest}"),
        };
        let about = if self.from.blobs.contains_key(&digest) {
            format!("Output `{name}` of {}.", instance.name)
        } else {
            format!("Output `{name}` of {}. It is not in the crate; its digest names it.", instance.name)
        };
        let about = json!({
            "name": format!("{} of {}", name, instance.name),
            "description": about,
            "identifier": format!("blake3:{digest}"),
            "contentSize": blob.size.to_string(),
            "encodingFormat": "application/octet-stream",
        });
        self.entities.add(&id, &["File"], about);
        id
    }

    /// Adds a source file by its identity (`blake3:…`, `sha256:…`, `md5:…`); returns its id.
    pub(super) fn add_source(&mut self, need: &ExternalInput, identity: &str) -> String {
        let packed = self.from.sources.get(identity);
        let id = packed.map_or_else(|| format!("#{}", identity.replace(':', "-")), |path| iri(path));
        let source = &need.source;
        let place = source.path.as_deref().or(source.url.as_deref()).unwrap_or_default();
        let place = masked(place);
        let name = Path::new(&place).file_name().map(|name| name.to_string_lossy().into_owned());
        let about = match (&source.by_hand, packed) {
            (Some(text), _) => format!("A source of the pipeline that a person has to fetch: {}", text.trim()),
            (None, Some(_)) => "A source of the pipeline.".to_owned(),
            (None, None) => "A source of the pipeline. It is not in the crate; its digest names it.".to_owned(),
        };
        let about = json!({
            "name": name.unwrap_or_else(|| identity.to_owned()),
            "description": self.shown(&about),
            "identifier": identity,
            "sha256": source.sha256.as_ref().map(|sha256| sha256.to_lowercase()),
            "url": source.url.as_deref().map(masked),
            "encodingFormat": (!source.is_folder).then_some("application/octet-stream"),
        });
        // A folder is a data set in the terms of RO-Crate, and its id ends in `/`.
        let kind = if source.is_folder { "Dataset" } else { "File" };
        self.entities.add(&id, &[kind], about);
        id
    }
}

/// Returns the media type of a result by the ending of its name.
fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "csv" => "text/csv",
        "html" => "text/html",
        "json" => "application/json",
        "md" => "text/markdown",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "tex" => "application/x-tex",
        "txt" => "text/plain",
        _ => "application/octet-stream",
    }
}

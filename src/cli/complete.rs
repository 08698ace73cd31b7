//! Words that a shell completes: stages, instances, parameters and profiles of the pipeline on the command line.
//!
//! Reads a pipeline or the record of the last run, and runs nothing. Whatever is wrong, it offers nothing and says
//! nothing: somebody is typing.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use atflow::cache::{Access, Cache, USUAL_FOLDER};
use atflow::parameters::shown;
use atflow::spec::{Overrides, PipelineSpec, expand};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

/// The variable by which a shell asks for completions.
pub(crate) const VARIABLE: &str = "ATFLOW_COMPLETE";

/// Completes stages and instances.
pub(crate) fn targets() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| offered(typed, |typed| stages_and_instances(&names(), typed)))
}

/// Completes `--set`: parameters, and behind `=` the value that the pipeline has.
pub(crate) fn settings() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| offered(typed, settings_like))
}

/// Completes `--profile`.
pub(crate) fn profiles() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| offered(typed, |_| spec().map_or_else(Vec::new, |spec| spec.profiles)))
}

/// Returns the words that begin as what was typed.
fn offered(typed: &OsStr, words: impl Fn(&str) -> Vec<String>) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let fitting = words(typed).into_iter().filter(|word| word.starts_with(typed));
    fitting.map(CompletionCandidate::new).collect()
}

/// Returns the stages, and the instances where what was typed leaves a single stage.
fn stages_and_instances(names: &[String], typed: &str) -> Vec<String> {
    let stage = |name: &String| name.split('/').next().unwrap_or_default().to_owned();
    let mut seen = BTreeSet::new();
    let mut words: Vec<String> = names.iter().map(stage).filter(|stage| seen.insert(stage.clone())).collect();
    words.retain(|stage| stage.starts_with(typed) || typed.starts_with(&format!("{stage}/")));
    if let [only] = words.as_slice() {
        let inside = format!("{only}/");
        words.extend(names.iter().filter(|name| name.starts_with(&inside)).cloned());
    }
    words
}

fn settings_like(typed: &str) -> Vec<String> {
    let Some(spec) = spec() else { return Vec::new() };
    let word = |(name, value): (&String, &serde_json::Value)| match typed.contains('=') {
        true => format!("{name}={}", shown(Some(value))),
        false => format!("{name}="),
    };
    spec.parameters().iter().map(word).collect()
}

/// Returns the instances of the pipeline on the command line; without one, those of the last run.
fn names() -> Vec<String> {
    match spec() {
        Some(spec) => {
            let instances = expand(&spec).unwrap_or_default();
            instances.into_iter().map(|instance| instance.name).collect()
        }
        None => of_last_run().unwrap_or_default(),
    }
}

fn of_last_run() -> Option<Vec<String>> {
    let cache = Cache::open_to(Access::Look, Path::new(USUAL_FOLDER)).ok()?;
    Some(cache.runs(None).next()?.keys.into_keys().collect())
}

fn spec() -> Option<PipelineSpec> {
    PipelineSpec::read(&pipeline()?, &Overrides::default()).ok()
}

/// Returns the first word of the command line that is a YAML file.
fn pipeline() -> Option<PathBuf> {
    let is_pipeline = |file: &PathBuf| file.extension().is_some_and(|end| end == "yaml" || end == "yml");
    words().into_iter().map(PathBuf::from).find(|file| is_pipeline(file) && file.is_file())
}

/// Returns the words that are being typed: the shell passes them behind `--`.
fn words() -> Vec<OsString> {
    std::env::args_os().skip_while(|word| word != "--").skip(1).collect()
}

//! One command a file, and what several of them begin with: a pipeline read, expanded, and its targets found.

pub(crate) mod log;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod show;
pub(crate) mod table;

use std::mem::ManuallyDrop;
use std::path::PathBuf;

use atflow::cache::{Cache, Manifest, StatMemo};
use atflow::graph::Graph;
use atflow::plan::{PlannedStage, plan};
use atflow::sources::Sources;
use atflow::spec::{InstanceId, Overrides, PipelineSpec, Problem, Problems, expand, suggestion};

use crate::args::{FindArgs, PipelineArgs};
use crate::report::CliError;

/// A pipeline ready to be planned or run.
pub(crate) struct Loaded {
    pub name: String,
    pub file: PathBuf,
    /// Never freed: a program that ends need not take thousands of stages apart.
    pub graph: ManuallyDrop<Graph>,
    pub cache: Cache,
    pub sources: Sources,
    /// Which instances the targets reach, by id.
    pub wanted: Vec<bool>,
    /// Which instances run even if they are fresh, by id.
    pub forced: Vec<bool>,
    /// Which instances were asked for by name, by id.
    pub needed: Vec<bool>,
}

impl Loaded {
    /// Reads a pipeline and checks all that can be checked before anything runs.
    pub(crate) fn new(args: &PipelineArgs) -> Result<Self, CliError> {
        let overrides = Overrides { profile: args.profile.clone(), set: args.set.clone() };
        let spec = ManuallyDrop::new(PipelineSpec::read(&args.pipeline, &overrides)?);
        let graph = ManuallyDrop::new(Graph::new(expand(&spec)?));
        let targets = graph.targets(&args.targets).map_err(Problems)?;
        let wanted = graph.reached_from(&targets);
        let forced = match args.force.as_slice() {
            [] => Vec::new(),
            force => graph.targets(force).map_err(Problems)?,
        };
        if let Some(id) = forced.iter().find(|id| !wanted[id.0]) {
            let name = &graph.instance(*id).name;
            let problem = Problem::anywhere(format!("--force {name}: none of the targets needs it"));
            return Err(Problems(vec![problem.help("name it as a target too, or leave the targets out")]).into());
        }
        let cache = Cache::open(&args.cache.cache)?;
        let mut memo = StatMemo::open(&cache);
        let sources = Sources::check(&graph, &wanted, &mut memo)?;
        memo.save()?;
        // Without targets it is enough to know what lies between; with them, what was asked for by name must be there.
        let named = if args.targets.is_empty() { Vec::new() } else { targets };
        let marked = |ids: &[InstanceId]| {
            let mut marks = vec![false; graph.len()];
            ids.iter().for_each(|id| marks[id.0] = true);
            marks
        };
        let (forced, needed) = (marked(&forced), marked(&named));
        Ok(Loaded {
            name: spec.name.clone(),
            file: args.pipeline.clone(),
            graph,
            cache,
            sources,
            wanted,
            forced,
            needed,
        })
    }

    /// What would run, and why.
    pub(crate) fn plan(&self) -> Vec<PlannedStage> {
        plan(&self.graph, &self.cache, &self.sources, &self.name, &self.wanted, &self.forced, &self.needed)
    }
}

/// The newest result of an instance by its name.
pub(crate) fn find(cache: &Cache, stage: &str, args: &FindArgs) -> Result<Manifest, CliError> {
    let mut known: Vec<String> = Vec::new();
    for run in cache.runs(args.pipeline.as_deref()) {
        match run.keys.get(stage).and_then(|key| cache.lookup(*key)) {
            Some(manifest) => return Ok(manifest),
            None => known.extend(run.keys.into_keys()),
        }
    }
    Err(not_found(stage, known, args))
}

/// The error for an instance that no run knows.
pub(crate) fn not_found(stage: &str, mut known: Vec<String>, args: &FindArgs) -> CliError {
    known.sort_unstable();
    known.dedup();
    let of = args.pipeline.as_ref().map(|name| format!(" of pipeline {name}")).unwrap_or_default();
    let error = CliError::environment(format!("no run{of} in {} has made `{stage}`", args.cache.cache.display()));
    // The instances of a stage are listed where the stage alone was named.
    let under: Vec<&str> =
        known.iter().map(String::as_str).filter(|name| name.starts_with(&format!("{stage}/"))).collect();
    let help = match under.as_slice() {
        [] => suggestion(stage, known.iter().map(String::as_str)),
        names => Some(format!("name one of its instances: {}", names.join(", "))),
    };
    error
        .help(help.unwrap_or_else(|| "`atflow run` makes it; `atflow plan PIPELINE --all` lists every name".to_owned()))
}

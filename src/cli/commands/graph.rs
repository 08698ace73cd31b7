//! `atflow graph`.

use atflow::cache::{Access, Cache, StatMemo};
use atflow::external_inputs::ExternalInputs;
use atflow::graph::Graph;
use atflow::plan::diagram::Diagram;
use atflow::plan::{CacheStatuses, Goals, PlanContext, survey};
use atflow::spec::{PipelineSpec, expand};

use crate::args::{GraphArgs, GraphFormat};
use crate::report::{CliError, Exit};
use crate::ui;

pub(crate) fn run(args: &GraphArgs) -> Result<Exit, CliError> {
    let overrides = args.parameters.overrides();
    let graph = Graph::new(expand(&PipelineSpec::read(&args.pipeline, &overrides)?)?);
    let goals = Goals::all_known(&graph);
    // Colours are an extra: without a cache, or with files missing, there are none.
    let mut status_of = CacheStatuses::default();
    if args.cache.cache.join("VERSION").exists() {
        let cache = Cache::open_to(Access::Read, &args.cache.cache)?;
        let mut memo = StatMemo::open(&cache);
        if let Ok(sources) = ExternalInputs::check(&graph, &goals.wanted, &mut memo) {
            status_of = survey(PlanContext { graph: &graph, cache: &cache, sources: &sources }, &goals)?;
        }
    }
    let diagram = Diagram::new(&graph, &status_of, args.all);
    ui::print_data(&match args.format {
        GraphFormat::Dot => diagram.dot(),
        GraphFormat::Mermaid => diagram.mermaid(),
        GraphFormat::Svg => diagram.svg(),
    })?;
    Ok(Exit::Done)
}

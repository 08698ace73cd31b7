//! Frozen plans: all that agents need to finish a run, in one file. The pipeline's file may change or go meanwhile.
//!
//! A plan has no secrets. An address that holds one is left out of it, so what is behind the address must be in the
//! cache before a plan is frozen.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::folder::RunFolder;
use super::plan_parts::{FrozenInstance, FrozenOutput, FrozenSource, Place, Pools};
use crate::action::RECORD_FORMAT;
use crate::address::masked;
use crate::cache::{CacheError, RunRecord};
use crate::dense_map::DenseId;
use crate::digest::Digest;
use crate::external_inputs::CheckedSource;
use crate::folder::FolderError;
use crate::fsio::{self, FileError};
use crate::graph::Graph;
use crate::plan::{CacheStatuses, Goals, History, PlanContext, RerunRequest, plan};
use crate::scheduler::commit_of;
use crate::spec::{InstanceId, PerInstance};
use crate::stage_kinds::StageKind;

/// Version of the format. Other versions are refused.
pub const FROZEN_FORMAT: u32 = 1;

/// Reason why a plan cannot be frozen.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// Instances have to fetch files from addresses with secrets, which a plan does not hold.
    #[error("the addresses that {} fetch from hold secrets, and a plan for agents holds none", stages.join(", "))]
    Secrets {
        /// The instances.
        stages: Vec<String>,
    },
    /// Instances are to rerun although they are fresh. Each agent would rerun them.
    #[error("{} would run on every agent, because a rerun was asked for", stages.join(", "))]
    Reruns {
        /// The instances.
        stages: Vec<String>,
    },
    /// A file cannot be read any more.
    #[error(transparent)]
    File(#[from] FileError),
    /// A folder of files cannot be read any more.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The files of a folder changed.
    #[error("the files in {} have changed", path.display())]
    Changed {
        /// The folder.
        path: PathBuf,
    },
    /// The cache did not take the list of a folder's files.
    #[error(transparent)]
    List(#[from] CacheError),
}

/// Reason why a plan cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ThawError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is no plan.
    #[error("{} is no plan for agents: {why}", path.display())]
    NoPlan {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another version of atflow made the plan: its stages could have other results, or other keys.
    #[error("atflow {found} made the plan {}, and this is atflow {own}: {difference}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Version that made the plan.
        found: String,
        /// Version of this program.
        own: String,
        /// What differs.
        difference: String,
    },
}

/// What has to be the same in the program that makes a plan and in all agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeWith {
    /// Version of atflow.
    pub atflow: String,
    /// Version of the hashed records.
    pub record: u32,
    /// Versions of the kinds of the plan's stages.
    pub kinds: BTreeMap<StageKind, u32>,
}

impl MadeWith {
    fn this(kinds: impl Iterator<Item = StageKind>) -> Self {
        let atflow = env!("CARGO_PKG_VERSION").to_owned();
        MadeWith { atflow, record: RECORD_FORMAT, kinds: kinds.map(|kind| (kind, kind.newest_version())).collect() }
    }
}

/// A plan that agents work on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FrozenPlan {
    /// [`FROZEN_FORMAT`].
    pub format: u32,
    /// Program that made it.
    pub made_with: MadeWith,
    /// Time of freezing, RFC 3339 in UTC.
    pub at: String,
    /// What the record of the run says of it from the start, with secrets masked.
    pub about: RunRecord,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Instances, producers first.
    pub(super) instances: Vec<FrozenInstance>,
    /// Parameters of instances, each once.
    pub(super) params: Vec<Arc<Json>>,
    /// Lists of outputs, each once.
    pub(super) outputs: Vec<Vec<FrozenOutput>>,
}

impl FrozenPlan {
    /// Freezes a plan. `classes` has the name of each instance's class, `seconds` the time it takes if that is known
    /// ([`prices`]).
    ///
    /// # Errors
    /// [`FreezeError`] if agents could not run the plan.
    pub fn new(
        context: PlanContext<'_>,
        goals: &Goals,
        about: RunRecord,
        classes: &PerInstance<String>,
        seconds: &PerInstance<Option<f64>>,
    ) -> Result<Self, FreezeError> {
        let PlanContext { graph, cache, sources } = context;
        let name = |id: InstanceId| graph.instance(id).name.clone();
        let is_rerun = |id: &InstanceId| {
            goals.wanted[*id] && goals.forced[*id].is_some_and(|request| request != RerunRequest::Assemble)
        };
        let stages: Vec<String> = graph.ids().filter(is_rerun).map(name).collect();
        if !stages.is_empty() {
            return Err(FreezeError::Reruns { stages });
        }
        let lacks = |source: &CheckedSource| match source {
            CheckedSource::Remote { source } => {
                let is_here = |identity: String| cache.fetched(&identity).is_some_and(|blob| cache.has(blob));
                source.urls().any(|url| masked(url) != url) && !source.published().is_some_and(is_here)
            }
            _ => false,
        };
        let has_secret = |id: &InstanceId| {
            let needs = &graph.instance(*id).sources;
            goals.wanted[*id] && needs.iter().any(|need| lacks(sources.get(*id, need)))
        };
        let stages: Vec<String> = graph.ids().filter(has_secret).map(name).collect();
        if !stages.is_empty() {
            return Err(FreezeError::Secrets { stages });
        }
        let mut pools = Pools::default();
        let freeze = |id: InstanceId| {
            let parts = graph.instance(id).parts();
            let frozen = |need: &crate::spec::ExternalInput| FrozenSource {
                slot: need.slot.clone(),
                place: Place::of(sources.get(id, need)),
            };
            let own = &graph.instance(id).sources;
            FrozenInstance {
                params: pools.params.position(parts.params),
                outputs: pools.outputs.position(parts.outputs.into_iter().map(FrozenOutput::from).collect()),
                class: pools.classes.position(classes[id].clone()),
                name: parts.name,
                stage: parts.stage,
                kind: parts.kind,
                seed: parts.seed,
                is_seeded: parts.is_seeded,
                numerics: parts.numerics,
                threads: parts.threads,
                gpu: parts.gpu,
                time_limit: parts.time_limit.map(|limit| limit.as_secs_f64()),
                needs: parts
                    .needs
                    .into_iter()
                    .map(|need| (need.slot, need.label, need.from.position(), need.output))
                    .collect(),
                sources: if goals.wanted[id] { own.iter().map(frozen).collect() } else { Vec::new() },
                sweep: parts.sweep,
                seconds: seconds[id],
                is_unwanted: !goals.wanted[id],
                is_needed: goals.needed[id],
            }
        };
        let instances: Vec<FrozenInstance> = graph.ids().map(freeze).collect();
        let file = std::path::absolute(&about.file).unwrap_or_else(|_| about.file.clone());
        let commit = about.commit.clone().or_else(|| commit_of(fsio::folder_of(&file)));
        Ok(FrozenPlan {
            format: FROZEN_FORMAT,
            made_with: MadeWith::this(instances.iter().map(|instance| instance.kind)),
            at: jiff::Timestamp::now().to_string(),
            about: RunRecord { file, commit, ..about },
            classes: pools.classes.values,
            instances,
            params: pools.params.values,
            outputs: pools.outputs.values,
        })
    }

    /// Returns a digest of all that agents would do: two plans with the same digest are the same run.
    pub fn identity(&self) -> Digest {
        let RunRecord { pipeline, file, profile, set, targets, .. } = self.about.clone();
        let about = RunRecord { pipeline, file, profile, set, targets, ..RunRecord::default() };
        let seconds = |instance: &FrozenInstance| FrozenInstance { seconds: None, ..instance.clone() };
        let instances = self.instances.iter().map(seconds).collect();
        let same = FrozenPlan { at: String::new(), about, instances, ..self.clone() };
        Digest::of(&serde_json::to_vec(&same).unwrap_or_default())
    }

    /// Writes the plan into the folder of its run. `context` and `goals` are those that it was frozen from.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn write(&self, folder: &RunFolder, context: PlanContext<'_>, goals: &Goals) -> Result<(), FileError> {
        // With the folder for notes of failures: a client of NFS remembers for a while that a folder is missing.
        fsio::create_dir(&folder.failed_path())?;
        // First, so that no collection takes what a visible plan needs.
        folder.write_wanted(&context.may_need(goals))?;
        let bucket = context.cache.shared().map(|remote| remote.name().secret().to_owned());
        folder.write_plan(&serde_json::to_vec(self).unwrap_or_default(), bucket.as_deref())
    }

    /// Reads the plan of a run.
    ///
    /// # Errors
    /// [`ThawError`] if there is none, or if this program cannot work on it.
    pub fn read(folder: &RunFolder) -> Result<Self, ThawError> {
        Self::parse(&folder.read_plan()?, &folder.plan_place())
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self, ThawError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
            made_with: Option<MadeWith>,
        }
        let no_plan = |why: String| ThawError::NoPlan { path: path.to_owned(), why };
        let plan = serde_json::from_slice::<FrozenPlan>(bytes);
        // The version first: another one may have other fields.
        let head: Head = match &plan {
            Ok(plan) => Head { format: plan.format, made_with: Some(plan.made_with.clone()) },
            Err(_) => serde_json::from_slice(bytes).map_err(|error| no_plan(error.to_string()))?,
        };
        if head.format != FROZEN_FORMAT || head.made_with.is_none() {
            return Err(no_plan(format!(
                "it has format {}, and this version reads format {FROZEN_FORMAT}",
                head.format
            )));
        }
        if let Some(found) = head.made_with {
            let own = MadeWith::this(found.kinds.keys().copied());
            if found != own {
                let difference = if found.atflow != own.atflow {
                    "their results could differ".to_owned()
                } else {
                    let differ = found.kinds.iter().filter(|(kind, version)| kind.newest_version() != **version);
                    let names: Vec<&str> = differ.map(|(kind, _)| kind.name()).collect();
                    format!("the two disagree on stages of kind {}", names.join(", "))
                };
                let (path, found, own) = (path.to_owned(), found.atflow, own.atflow);
                return Err(ThawError::Version { path, found, own, difference });
            }
        }
        let plan = plan.map_err(|error| no_plan(error.to_string()))?;
        if plan.is_sound() { Ok(plan) } else { Err(no_plan("its parts do not fit together".to_owned())) }
    }

    /// Whether every reference leads somewhere, and to producers that come first.
    fn is_sound(&self) -> bool {
        self.instances.iter().enumerate().all(|(position, instance)| {
            instance.params < self.params.len()
                && instance.outputs < self.outputs.len()
                && instance.class < self.classes.len()
                && instance.time_limit.is_none_or(|limit| Duration::try_from_secs_f64(limit).is_ok())
                && instance.needs.iter().all(|(_, _, from, output)| {
                    *from < position
                        && self.outputs[self.instances[*from].outputs].iter().any(|known| known.name == *output)
                })
        })
    }

    /// Returns the number of instances.
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// Whether the plan has no instances.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }
}

/// Returns the seconds that each instance takes, by earlier runs; `None` for those that never ran at their size.
pub fn prices(
    graph: &Graph,
    status_of: &CacheStatuses,
    goals: &Goals,
    history: &History<'_>,
) -> PerInstance<Option<f64>> {
    let stages = plan(graph, status_of, goals, history);
    let by_name: HashMap<&str, f64> =
        stages.iter().filter_map(|stage| Some((stage.name.as_str(), stage.seconds?))).collect();
    let seconds = |id: InstanceId| by_name.get(graph.instance(id).name.as_str()).copied();
    graph.ids().map(seconds).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cache::{Cache, StatMemo};
    use crate::external_inputs::ExternalInputs;
    use crate::spec::{InstanceParts, Overrides, PipelineSpec, expand};

    const PIPELINE: &str = r#"
params: {level: 3}
stages:
  list: {kind: file, with: {source: {path: list.txt}}}
  far: {kind: file, with: {source: {url: "https://host/a.txt", sha256: "SHA"}}}
  other: {kind: command, with: {run: "date > ${out.n}", outputs: {n: n}}}
  part:
    kind: command
    matrix: {n: [1, 2]}
    needs: {of: list, also: far}
    seed: 4
    with: {run: "head -n ${n} ${in.of} > ${out.n}", outputs: {n: n}}
  sum: {kind: command, needs: {a: part/1, b: part/2}, with: {run: "cat ${in.a} > ${out.n}", outputs: {n: {path: n, show: n.txt}}}}
"#;
    const SHA: &str = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";

    struct Frozen {
        dir: tempfile::TempDir,
        cache: Cache,
        graph: Graph,
        sources: ExternalInputs,
        goals: Goals,
    }

    impl Frozen {
        fn of(pipeline: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("list.txt"), "a\nb\n").unwrap();
            let file = dir.path().join("p.yaml");
            fs::write(&file, pipeline.replace("SHA", SHA)).unwrap();
            let graph = Graph::new(expand(&PipelineSpec::read(&file, &Overrides::default()).unwrap()).unwrap());
            let cache = Cache::open(&dir.path().join("cache")).unwrap();
            let wanted = graph.reached_from(&graph.targets(&["sum".to_owned()]).unwrap());
            let sources = ExternalInputs::check(&graph, &wanted, &mut StatMemo::open(&cache)).unwrap();
            let goals = Goals { wanted, ..Goals::all_known(&graph) };
            Frozen { dir, cache, graph, sources, goals }
        }

        fn context(&self) -> PlanContext<'_> {
            PlanContext { graph: &self.graph, cache: &self.cache, sources: &self.sources }
        }

        fn plan(&self) -> Result<FrozenPlan, FreezeError> {
            let class = |id| if self.graph.instance(id).stage == "part" { "big" } else { "small" }.to_owned();
            let classes = self.graph.ids().map(class).collect();
            let about = RunRecord { pipeline: "p".to_owned(), file: self.dir.path().join("p.yaml"), ..<_>::default() };
            FrozenPlan::new(self.context(), &self.goals, about, &classes, &self.graph.per_instance(Some(2.5)))
        }
    }

    #[test]
    fn a_thawed_plan_has_the_same_actions_without_the_pipeline_file() {
        let frozen = Frozen::of(PIPELINE);
        let plan = frozen.plan().unwrap();
        let folder = RunFolder::of(&frozen.cache, &RunFolder::new_id());
        plan.write(&folder, frozen.context(), &frozen.goals).unwrap();
        assert_eq!(frozen.cache.in_progress().wanted, frozen.context().may_need(&frozen.goals));
        fs::remove_file(frozen.dir.path().join("p.yaml")).unwrap();
        let read = FrozenPlan::read(&folder).unwrap();
        assert_eq!((read.len(), read.identity()), (plan.len(), plan.identity()));
        let thawed = read.thaw();
        assert_eq!(thawed.goals.wanted, frozen.goals.wanted);
        assert_eq!(thawed.classes.len(), 2);
        let action = |graph: &Graph, sources: &ExternalInputs, id| {
            graph.action_by(id, |name, need| format!("{name} {}", need.output), |need| sources.get(id, need).identity())
        };
        for id in frozen.graph.ids().filter(|id| frozen.goals.wanted[*id]) {
            let (before, after) = (frozen.graph.instance(id), thawed.graph.instance(id));
            assert_eq!(
                action(&frozen.graph, &frozen.sources, id).key(),
                action(&thawed.graph, &thawed.sources, id).key(),
                "{}",
                before.name
            );
            let located = |parts: InstanceParts| InstanceParts { sources: Vec::new(), ..parts };
            assert_eq!(located(before.parts()), located(after.parts()));
            assert_eq!(thawed.classes[thawed.class_of[id]], if before.stage == "part" { "big" } else { "small" });
            assert_eq!(thawed.seconds[id], Some(2.5));
        }
    }

    #[test]
    fn a_plan_of_another_version_or_a_damaged_one_is_refused() {
        let frozen = Frozen::of(PIPELINE);
        let folder = RunFolder::of(&frozen.cache, &RunFolder::new_id());
        assert!(matches!(FrozenPlan::read(&folder), Err(ThawError::File(_))));
        frozen.plan().unwrap().write(&folder, frozen.context(), &frozen.goals).unwrap();
        let text = fs::read_to_string(folder.plan_path()).unwrap();
        let refusal = |from: &str, to: &str| {
            assert!(text.contains(from), "{from} in {text}");
            fs::write(folder.plan_path(), text.replace(from, to)).unwrap();
            FrozenPlan::read(&folder).unwrap_err().to_string()
        };
        let own = env!("CARGO_PKG_VERSION");
        let said = refusal(&format!("\"atflow\":\"{own}\""), "\"atflow\":\"99.0.0\"");
        assert!(
            said.contains("atflow 99.0.0 made the plan") && said.contains(&format!("this is atflow {own}")),
            "{said}"
        );
        let kind = format!("\"command\":{}", StageKind::Command.version());
        let said = refusal(&kind, "\"command\":99");
        assert!(said.contains("disagree on stages of kind command"), "{said}");
        let said = refusal("{\"format\":1,", "{\"format\":7,");
        assert!(said.contains("format 7"), "{said}");
        for (from, to) in [("[\"of\",\"\",0,", "[\"of\",\"\",4,"), ("\"params\":0,", "\"params\":77,")] {
            assert!(refusal(from, to).contains("do not fit together"));
        }
        assert!(refusal("\"instances\":[", "\"instances\":[7,").contains("is no plan for agents"));
    }

    #[test]
    fn secrets_and_reruns_are_refused_before_anything_is_submitted() {
        let secret = PIPELINE.replace("https://host/a.txt", "https://user:word@host/a.txt?sig=tuna");
        let frozen = Frozen::of(&secret);
        let error = frozen.plan().unwrap_err();
        assert!(matches!(error, FreezeError::Secrets { stages } if stages == ["far"]));
        // What is here need not be fetched.
        let file = frozen.dir.path().join("x");
        fs::write(&file, "x").unwrap();
        let blob = frozen.cache.ingest(&file).unwrap();
        frozen.cache.remember_fetched(&format!("sha256:{SHA}"), blob).unwrap();
        let text = serde_json::to_string(&frozen.plan().unwrap()).unwrap();
        assert!(text.contains("https://***@host/a.txt") && !text.contains("tuna") && !text.contains("word"), "{text}");

        let mut frozen = Frozen::of(PIPELINE);
        let id = frozen.graph.targets(&["list".to_owned()]).unwrap()[0];
        frozen.goals.forced[id] = Some(RerunRequest::Force);
        let error = frozen.plan().unwrap_err();
        assert!(matches!(error, FreezeError::Reruns { stages } if stages == ["list"]));
    }
}

//! Assembles a bundle's contents in a folder, and checks that a run finds everything it needs there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use atflow::action::ActionKey;
use atflow::address::masked;
use atflow::bundle::{About, CACHE, INSTRUCTIONS, Instructions, instructions, needed_blobs};
use atflow::cache::{Access, Blob, CACHE_FORMAT, Manifest, RunRecord};
use atflow::digest;
use atflow::external_inputs::CheckedSource;
use atflow::folder::Folder;
use atflow::fsio::{self, Context, FileError};
use atflow::plan::rerun_from::RerunFrom;
use atflow::report::RunResults;
use atflow::ro_crate::ExtraFile;
use atflow::spec::{InstanceId, PerInstance};

use super::cannot_write;
use crate::args::{BundleArgs, CacheArgs, ChangeArgs};
use crate::commands::Loaded;
use crate::commands::ran_pipeline::{self, Beside, crate_files, write_files};
use crate::commands::report::{page_of, report_file};
use crate::report::CliError;
use crate::ui;

/// The content of a bundle in a folder.
pub(super) struct Stage {
    pub folder: PathBuf,
    pub about: About,
    /// Sources that are not in it, and how to get them.
    pub not_packed: BTreeMap<String, String>,
    keys: BTreeMap<String, ActionKey>,
}

impl Stage {
    /// Fills a folder with what a bundle holds.
    pub(super) fn fill(args: &BundleArgs, pipeline: &Path, scratch: &Path) -> Result<Self, CliError> {
        let changes = ChangeArgs::plain(args.parameters.overrides(), args.cache.clone());
        let loaded = Loaded::open(pipeline, &args.targets, &changes, Access::Read)?;
        let manifests = all_fresh(&loaded)?;
        let run = run_of(&loaded, &manifests)?;
        let keys = run.keys.clone();
        let folder = scratch.join("content");
        let with = args.with.map(RerunFrom::from);
        let sources = Sources::of(&loaded)?;
        let files = loaded.spec.files.iter().map(|file| file.path.as_path());
        let sent = sources.files();
        let layout = ran_pipeline::layout(files.chain(sent.iter().map(PathBuf::as_path)))?;
        let place = |file: &Path| layout.get(file).unwrap_or_default().to_owned();
        let about = About {
            pipeline: loaded.name().to_owned(),
            file: place(&loaded.file),
            targets: args.targets.clone(),
            profile: args.parameters.profile.clone(),
            set: run.set.clone(),
            with,
        };
        let wanted = &loaded.goals.wanted;
        let words = instructions(&Instructions {
            about: &about,
            graph: &loaded.graph,
            wanted,
            manifests: &manifests,
            not_packed: &sources.not_packed,
        });
        let blobs = copy_blobs(&loaded, wanted, with, &manifests, &folder)?;
        for path in &sent {
            copy(path, &folder.join(place(path)))?;
        }
        let results = RunResults::read(&loaded.cache, run);
        let page = page_of(&loaded.cache, &results)?;
        let about_words = "How to rerun this from each depth, and what that took.".to_owned();
        let words = ExtraFile {
            path: INSTRUCTIONS.to_owned(),
            bytes: words.into_bytes(),
            media: "text/markdown",
            about: about_words,
        };
        let packed = sources.packed.iter().map(|(identity, path)| (identity.clone(), place(path)));
        let folders = sources.folders.iter().filter_map(|(identity, folder)| {
            let first = folder.files.first()?;
            Some((identity.clone(), place(&folder.path_of(first)).strip_suffix(&first.name)?.to_owned()))
        });
        let packed = packed.chain(folders).collect();
        let beside = Beside {
            license: args.license.clone(),
            extra: vec![report_file(page), words],
            blobs,
            sources: packed,
            manifest_path: |key| format!("{CACHE}/actions/{}/{key}.json", &key.to_string()[..2]),
            layout,
        };
        let mut files = crate_files(&results, &loaded, beside)?;
        files.insert(format!("{CACHE}/VERSION"), format!("{CACHE_FORMAT}\n").into_bytes());
        write_files(&folder, &files).map_err(|error| cannot_write(&error))?;
        Ok(Stage { folder, about, not_packed: sources.not_packed, keys })
    }

    /// Checks that a run of the bundle finds every result in it. What was left out of its texts because it is private
    /// could keep it from that.
    pub(super) fn check_that_it_reruns(&self, args: &BundleArgs) -> Result<(), CliError> {
        let own = tempfile::tempdir_in(fsio::folder_of(&self.folder)).map_err(|error| cannot_write(&error))?;
        let cache = CacheArgs { cache: own.path().join("cache") };
        let remote = self.folder.join(CACHE).display().to_string();
        let changes = ChangeArgs { remote: Some(remote), ..ChangeArgs::plain(args.parameters.overrides(), cache) };
        let file = self.folder.join(&self.about.file);
        let loaded = Loaded::open(&file, &args.targets, &changes, Access::Write)?;
        let fresh = loaded.fresh()?.into_iter();
        let found: BTreeMap<&str, ActionKey> =
            fresh.map(|(id, manifest)| (loaded.graph.instance(id).name.as_str(), manifest.record.key())).collect();
        let is_lost = |(name, key): &(&String, &ActionKey)| found.get(name.as_str()) != Some(*key);
        let lost: Vec<String> = self.keys.iter().filter(is_lost).map(|(name, _)| name.clone()).collect();
        if lost.is_empty() {
            // What the depth may not make must be there, too.
            return loaded.from(self.about.with).map(|_| ());
        }
        let count = ui::count(lost.len(), "result");
        let message = format!("a run of the bundle would not find {count} in it: {}", ui::some(&lost));
        let help = "take what is private (passwords, tokens, paths of your home folder) out of the parameters and \
                    commands of these stages, run again, and make the bundle anew";
        Err(CliError::environment(message).help(help))
    }
}

/// Returns the manifests of all wanted instances; an error if one is not up to date.
fn all_fresh(loaded: &Loaded) -> Result<BTreeMap<InstanceId, Manifest>, CliError> {
    let fresh: BTreeMap<InstanceId, Manifest> = loaded.fresh()?.into_iter().collect();
    let wanted = loaded.goals.wanted.marked();
    let stale: Vec<String> =
        wanted.filter(|id| !fresh.contains_key(id)).map(|id| loaded.graph.instance(id).name.clone()).collect();
    if stale.is_empty() {
        return Ok(fresh);
    }
    let message = format!("{} not up to date: {}", ui::count(stale.len(), "stage"), ui::some(&stale));
    let help = format!("`{}` first; a bundle holds results that are there", loaded.run_command(&loaded.targets));
    Err(CliError::environment(message).help(help))
}

/// Returns the newest run that had these results, with nothing else in its record.
fn run_of(loaded: &Loaded, manifests: &BTreeMap<InstanceId, Manifest>) -> Result<RunRecord, CliError> {
    let name = |id: &InstanceId| loaded.graph.instance(*id).name.clone();
    let keys: BTreeMap<String, ActionKey> =
        manifests.iter().map(|(id, manifest)| (name(id), manifest.record.key())).collect();
    let about = loaded.about();
    let has_them = |run: &RunRecord| {
        run.profile == about.profile
            && run.set == about.set
            && keys.iter().all(|(name, key)| run.keys.get(name) == Some(key))
    };
    let Some(mut run) = loaded.cache.runs(Some(loaded.name())).find(has_them) else {
        let message = format!("no run that is on record has these results of {}", loaded.file.display());
        let command = loaded.run_command(&loaded.targets);
        return Err(CliError::environment(message).help(format!("`{command}`; what is up to date is not made anew")));
    };
    run.ran.retain(|name, _| keys.contains_key(name));
    run.failed.clear();
    run.skipped.clear();
    run.targets = about.targets;
    run.keys = keys;
    Ok(run)
}

/// The sources of the wanted instances.
#[derive(Default)]
struct Sources {
    /// Files that travel along, by identity.
    packed: BTreeMap<String, PathBuf>,
    /// Folders that travel along, by identity.
    folders: BTreeMap<String, Folder>,
    /// Those that do not, and how to get them.
    not_packed: BTreeMap<String, String>,
}

impl Sources {
    /// Returns all files that travel along.
    fn files(&self) -> Vec<PathBuf> {
        let in_folders = self.folders.values().flat_map(|folder| folder.files.iter().map(|file| folder.path_of(file)));
        self.packed.values().cloned().chain(in_folders).collect()
    }

    fn of(loaded: &Loaded) -> Result<Self, CliError> {
        let mut sources = Sources::default();
        let (mut unnamed, mut fixed) = (BTreeSet::new(), BTreeSet::new());
        for id in loaded.goals.wanted.marked() {
            for need in &loaded.graph.instance(id).sources {
                let checked = loaded.sources.get(id, need);
                let name = need.source.path.clone().or(need.source.url.clone()).unwrap_or_default();
                match (checked, &need.source.by_hand) {
                    (CheckedSource::Remote { source }, _) => {
                        let urls: Vec<String> = source.urls().map(masked).collect();
                        sources.not_packed.insert(checked.identity(), urls.join(" or "));
                    }
                    // Whoever may not fetch it by a program may not pass it on either.
                    (_, Some(by_hand)) if need.source.published().is_some() => {
                        sources.not_packed.insert(name, by_hand.trim().replace('\n', " "));
                    }
                    (_, Some(_)) => _ = unnamed.insert(name),
                    (_, None) if Path::new(&name).is_absolute() => _ = fixed.insert(name),
                    (
                        CheckedSource::Local { path, .. }
                        | CheckedSource::ByHand { path, .. }
                        | CheckedSource::Kept { path, .. },
                        None,
                    ) => {
                        sources.packed.insert(checked.identity(), path.clone());
                    }
                    (CheckedSource::Folder { path, .. } | CheckedSource::KeptFolder { path, .. }, None) => {
                        let folder = Folder::list(path).map_err(|error| CliError::environment(error.to_string()))?;
                        sources.folders.insert(checked.identity(), folder);
                    }
                }
            }
        }
        match (unnamed.first(), fixed.first()) {
            (None, None) => Ok(sources),
            (None, Some(name)) => {
                let message = format!("the pipeline reads {name}, and a reader's machine has no such place");
                Err(CliError::environment(message).help("write a path relative to the pipeline file"))
            }
            (Some(name), _) => {
                let message = format!("{name} has to be fetched by hand, and the pipeline has no digest of it");
                let help = "write `sha256:` beside its path: a bundle does not hold it, and names it by its digest";
                Err(CliError::environment(message).help(help))
            }
        }
    }
}

/// Copies the blobs that a bundle holds into its cache; returns their paths in it.
fn copy_blobs(
    loaded: &Loaded,
    wanted: &PerInstance<bool>,
    with: Option<RerunFrom>,
    manifests: &BTreeMap<InstanceId, Manifest>,
    folder: &Path,
) -> Result<BTreeMap<digest::Digest, String>, CliError> {
    let mut blobs = BTreeMap::new();
    let mut lost = BTreeSet::new();
    for (id, output) in needed_blobs(&loaded.graph, wanted, with) {
        let Some(blob) = manifests.get(&id).and_then(|manifest| manifest.outputs.get(&output)) else { continue };
        let name = blob.digest.to_string();
        let path = format!("{CACHE}/objects/{}/{name}", &name[..2]);
        if blobs.contains_key(&blob.digest) {
            continue;
        }
        if !is_whole(loaded, *blob) {
            lost.insert(loaded.graph.instance(id).name.clone());
            continue;
        }
        copy(&loaded.cache.object_path(blob.digest), &folder.join(&path))?;
        blobs.insert(blob.digest, path);
    }
    let lost: Vec<String> = lost.into_iter().collect();
    if lost.is_empty() {
        return Ok(blobs);
    }
    let message = format!(
        "files of {} are gone from the cache, or damaged: {}",
        ui::count(lost.len(), "result"),
        ui::some(&lost)
    );
    let help = format!("`{}` makes them again", loaded.run_command(&lost));
    Err(CliError::environment(message).help(help))
}

/// Whether the bytes of a blob are there and are those of its digest.
fn is_whole(loaded: &Loaded, blob: Blob) -> bool {
    digest::verify(&loaded.cache.object_path(blob.digest), blob.digest).is_ok()
}

fn copy(from: &Path, to: &Path) -> Result<(), CliError> {
    let copy = || -> Result<(), FileError> {
        fsio::create_dir(fsio::folder_of(to))?;
        // The modes of blobs are no part of what they hold.
        let mut target = std::fs::File::create(to).on("write", to)?;
        let mut source = fsio::open_regular(from).on("read", from)?;
        std::io::copy(&mut source, &mut target).on("copy", from).map(|_| ())
    };
    copy().map_err(|error| cannot_write(&error))
}

//! `atflow export`: a checkpoint as a folder for PyTorch.

use std::path::{Path, PathBuf};

use atflow::cache::{Access, Blob, Manifest};
use atflow::export::{ExportError, ExportSource, FILES, checkpoint_output, files};
use atflow::external_inputs::causes;
use atflow::fsio::{self, FileError};
use atflow::plan::{CacheStatus, CacheStatuses};
use atflow::spec::{InstanceId, Problems};
use atflow::tidy::TidySource;

use super::{Loaded, file_of_last_run};
use crate::args::{ChangeArgs, ExportArgs};
use crate::report::{CliError, Exit, eprint};
use crate::ui;

pub(crate) fn run(args: &ExportArgs) -> Result<Exit, CliError> {
    let file = match &args.pipeline {
        Some(file) => file.clone(),
        None => file_of_last_run(&args.cache, &format!("atflow export PIPELINE.yaml {}", args.stage))?,
    };
    let changes = ChangeArgs::plain(args.parameters.overrides(), args.cache.clone());
    let mut loaded = Loaded::open(&file, &[], &changes, Access::Look)?;
    // A result that is known is current, even if its file is gone: the checkpoint alone must be there.
    loaded.goals.needed = loaded.graph.per_instance(false);
    let status_of = loaded.survey()?;
    let of = instance(&loaded, &args.stage)?;
    let (manifest, checkpoint) = made(&loaded, &status_of, of)?;
    let results = TidySource {
        spec: &loaded.spec,
        overrides: &loaded.overrides,
        graph: &loaded.graph,
        cache: &loaded.cache,
        status_of: &status_of,
    };
    let source = ExportSource { results, of, manifest, checkpoint, license: args.license.as_deref() };
    let files = files(source).map_err(|error| cannot_export(&error))?;
    let name = &loaded.graph.instance(of).name;
    let default = || Path::new("export").join(loaded.name()).join(name.replace('/', "-"));
    let folder = args.out.clone().unwrap_or_else(default);
    check_folder(&folder)?;
    let written = |(name, bytes): (&str, Vec<u8>)| fsio::write_atomic(&folder.join(name), &folder, &bytes);
    let write = || fsio::create_dir(&folder).and_then(|()| files.into_iter().try_for_each(written));
    write().map_err(|error: FileError| {
        let message = format!("the folder cannot be written: {}", causes(&error).join(": "));
        CliError::environment(message).help("check its free space, or name another with -o")
    })?;
    let paths: String = FILES.iter().map(|name| format!("{}\n", folder.join(name).display())).collect();
    ui::print(&paths)?;
    eprint(&format!("PyTorch loads it: cd {}; from modeling import load; load(\".\")\n", folder.display()));
    Ok(Exit::Done)
}

/// Finds the one instance that is meant, which has to make a checkpoint.
fn instance(loaded: &Loaded, name: &str) -> Result<InstanceId, CliError> {
    let is_network = |id: &InstanceId| checkpoint_output(loaded.graph.instance(*id).kind).is_some();
    let found = loaded.graph.targets(&[name.to_owned()]).map_err(Problems)?;
    let networks: Vec<InstanceId> = found.iter().copied().filter(is_network).collect();
    if let [one] = networks.as_slice() {
        return Ok(*one);
    }
    let (message, among) = match networks.as_slice() {
        [] => (format!("`{name}` makes no checkpoint"), loaded.graph.ids().filter(is_network).collect()),
        several => (format!("`{name}` is {}", ui::count(several.len(), "network")), several.to_vec()),
    };
    let names: Vec<String> = among.iter().map(|id| loaded.graph.instance(*id).name.clone()).collect();
    let help = match names.as_slice() {
        [] => "the pipeline trains no network".to_owned(),
        names => format!("name one of these: {}", ui::some(names)),
    };
    Err(CliError::environment(message).help(help))
}

/// The current result of an instance, and its checkpoint.
fn made<'a>(loaded: &Loaded, status_of: &'a CacheStatuses, of: InstanceId) -> Result<(&'a Manifest, Blob), CliError> {
    let instance = loaded.graph.instance(of);
    let command = format!("`{}` makes it", loaded.run_command(std::slice::from_ref(&instance.name)));
    let Some(CacheStatus::Fresh(_, manifest)) = &status_of[of] else {
        return Err(CliError::environment(format!("{} is not up to date", instance.name)).help(command));
    };
    let blob = checkpoint_output(instance.kind).and_then(|output| manifest.outputs.get(output));
    match blob.filter(|blob| loaded.cache.has(**blob)) {
        Some(blob) => Ok((manifest, *blob)),
        None => {
            let message = format!("the checkpoint of {} is gone from the cache", instance.name);
            Err(CliError::environment(message).help(command))
        }
    }
}

/// An earlier export may be replaced; nothing else may.
fn check_folder(folder: &Path) -> Result<(), CliError> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let strange: Option<PathBuf> = entries.map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap_or_default();
        !FILES.iter().any(|known| name == *known)
    });
    match strange {
        None => Ok(()),
        Some(path) => {
            let message = format!("{} holds {}, which is no part of an export", folder.display(), path.display());
            Err(CliError::environment(message).help("name another folder with -o, or remove it"))
        }
    }
}

fn cannot_export(error: &ExportError) -> CliError {
    let message = format!("the checkpoint cannot be exported: {}", causes(error).join(": "));
    match error {
        ExportError::Network(_) => CliError::environment(message),
        _ => CliError::environment(message)
            .help("`atflow verify --repair` puts a damaged file aside; a run makes it again"),
    }
}

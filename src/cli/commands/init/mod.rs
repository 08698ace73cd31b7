//! `atflow init`: a pipeline to start from, its schema for editors, and a `.gitignore`. Never overwrites.

mod fashion;
mod images;
mod starter;

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use atflow::external_inputs::causes;
use atflow::fsio;
use atflow::shell_words::quoted;

use super::schema::pipeline_schema_text;
use crate::args::InitArgs;
use crate::report::{CliError, Exit};
use crate::ui;
use starter::Starter;

const PIPELINE: &str = "pipeline.yaml";
const SCHEMA: &str = "pipeline.schema.json";
const IGNORED: &str = ".gitignore";

/// Folders that a run makes: git need not keep them.
const IGNORE: &str = "# What atflow makes, and makes again.\n/cache/\n/results/\n/export/\n";

pub(crate) fn run(args: &InitArgs) -> Result<Exit, CliError> {
    let path = |name: &str| if args.dir == Path::new(".") { PathBuf::from(name) } else { args.dir.join(name) };
    for name in [PIPELINE, SCHEMA] {
        if path(name).symlink_metadata().is_ok() {
            return Err(is_there(&path(name)));
        }
    }
    let (starter, seen) = match &args.images {
        Some(found) => images::starter(found, &args.dir)?,
        None => (fashion::starter(), String::new()),
    };
    let text = Starter { file: PIPELINE.to_owned(), ..starter }.text()?;
    fsio::create_dir(&args.dir).map_err(|error| {
        CliError::environment(causes(&error).join(": ")).help("check the folder and its permissions, or name another")
    })?;
    write(&path(PIPELINE), &text)?;
    write(&path(SCHEMA), &pipeline_schema_text())?;
    let ignored = match path(IGNORED).symlink_metadata() {
        Ok(_) => {
            format!(
                "kept {}: add /cache/, /results/ and /export/ to it, if they are not there\n",
                path(IGNORED).display()
            )
        }
        Err(_) => write(&path(IGNORED), IGNORE).map(|()| String::new())?,
    };
    let enter = if args.dir == Path::new(".") {
        String::new()
    } else {
        format!("cd {}\n", quoted(&args.dir.display().to_string()))
    };
    ui::print(&format!(
        "{seen}wrote {}, and {SCHEMA} beside it, which editors read\n{ignored}\n{enter}\
         atflow plan {PIPELINE}                  what would run\n\
         atflow run {PIPELINE} --profile smoke   in seconds: does it work here?\n\
         atflow run {PIPELINE}                   the experiment\n",
        path(PIPELINE).display()
    ))?;
    Ok(Exit::Done)
}

fn is_there(path: &Path) -> CliError {
    let message = format!("{} is there already, and nothing is overwritten", path.display());
    CliError::environment(message).help("name another folder: `atflow init DIR`")
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    // A file that came into being meanwhile stays.
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => is_there(path),
        _ => CliError::environment(format!("cannot write {}: {error}", path.display()))
            .help("check the folder and its permissions"),
    })
}

//! The `command` stage: any program, run in an empty folder with copies of its inputs beside it.
//!
//! Names stand for paths relative to that folder, made of letters that need no quotes in a shell. They are the same in
//! every run, so that a program that writes its arguments into its output stays repeatable. The environment is
//! declared: a few variables of the engine's ([`crate::environment`]), `ATFLOW_SEED`, `ATFLOW_THREADS`, and the stage's
//! own. Standard input is empty.

mod process;
mod program;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::error::StageError;
use super::substitute::{Names, arguments, join};
use super::{Reporter, check_cancelled, params, read_error};
use crate::digest::{Digest, ReadError};
use crate::environment;
use crate::outputs::{self, Unfit};
use crate::protocol::{Input, Job};
use crate::stage_kinds::{CommandParams, Run};
use program::Program;

/// The folder that a program runs in, within that of the outputs: inputs lie beside it. Who runs one stage after
/// another may make it beforehand, empty, and keep it.
pub(crate) const PROGRAM_FOLDER: &str = "work";

/// Slots: the needs, and `file:PATH` for each of `files`. Outputs: those declared.
pub(super) fn run(job: &Job, reporter: &dyn Reporter) -> Result<String, StageError> {
    let params: CommandParams = params(job)?;
    let outputs: BTreeMap<String, String> =
        params.outputs.iter().map(|(name, output)| (name.clone(), output.path().to_owned())).collect();
    check_outputs(job, &outputs)?;
    let (_made, scratch) = scratch(job, reporter).map_err(StageError::Scratch)?;
    let folder = scratch.join(PROGRAM_FOLDER);
    for file in outputs.values() {
        if let Some(parent) = Path::new(file).parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(folder.join(parent)).map_err(StageError::Scratch)?;
        }
    }

    let mut names = place_inputs(job, &scratch, reporter)?;
    names.extend(outputs.iter().map(|(output, file)| (format!("out.{output}"), vec![file.clone()])));
    let program = match &params.run {
        Run::Shell(line) => Program::of_line(join(line, &names)?),
        Run::Program(words) => {
            let words: Vec<_> = words.iter().map(|word| arguments(word, &names)).collect::<Result<_, _>>()?;
            Program::of_words(words.concat())
        }
    };
    let mut environment: BTreeMap<OsString, OsString> = environment::passed(&params.pass_env).into_iter().collect();
    environment.insert("ATFLOW_SEED".into(), job.seed.to_string().into());
    environment.insert("ATFLOW_THREADS".into(), job.threads.to_string().into());
    for (variable, value) in &params.env {
        environment.insert(variable.into(), join(value, &names)?.into());
    }
    let environment: Vec<_> = environment.into_iter().collect();
    process::run(&program, &environment, &folder, reporter)?;
    collect(job, &outputs, &folder)
}

/// Returns the folder around that of the program. A new one goes with the first of the two.
fn scratch(job: &Job, reporter: &dyn Reporter) -> io::Result<(Option<tempfile::TempDir>, PathBuf)> {
    // Beside the outputs: on the same file system, where there is room for them and a rename moves them.
    let parent = job.outputs.values().next().and_then(|path| path.parent());
    if let Some(ready) = parent.filter(|_| reporter.has_program_folder()) {
        return Ok((None, ready.to_owned()));
    }
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let made = tempfile::Builder::new().prefix("command-").tempdir_in(parent)?;
    fs::create_dir(made.path().join(PROGRAM_FOLDER))?;
    let path = made.path().to_owned();
    Ok((Some(made), path))
}

/// Refuses outputs that cannot be taken from the program's folder, before anything runs.
fn check_outputs(job: &Job, outputs: &BTreeMap<String, String>) -> Result<(), StageError> {
    let mut files: BTreeMap<&str, &str> = BTreeMap::new();
    for (output, file) in outputs {
        let inside = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
        if file.is_empty() || file.ends_with('/') || !inside {
            return Err(StageError::OutputFile { output: output.clone(), file: file.clone() });
        }
        if let Some(first) = files.insert(file, output) {
            let (first, second) = (first.to_owned(), output.clone());
            return Err(StageError::SharedFile { first, second, file: file.clone() });
        }
        if !job.outputs.contains_key(output) {
            return Err(StageError::NoOutput { output: output.clone() });
        }
    }
    Ok(())
}

/// Copies every input and checks the copy, so that the program cannot change the cache and reads what the stage's key
/// says.
fn place_inputs(job: &Job, scratch: &Path, reporter: &dyn Reporter) -> Result<Names, StageError> {
    let mut names = Names::new();
    let mut taken = BTreeSet::new();
    let mut several: BTreeMap<&str, usize> = BTreeMap::new();
    for input in &job.inputs {
        *several.entry(&input.slot).or_default() += 1;
    }
    for input in &job.inputs {
        check_cancelled(reporter)?;
        let (name, place, mode) = match input.slot.strip_prefix("file:") {
            // A script may be run as it is, and find the files beside it where the author has them.
            Some(path) => (format!("file.{path}"), format!("files/{}", plain_path(path)), 0o555),
            None if several[input.slot.as_str()] == 1 => {
                (format!("in.{}", input.slot), format!("in/{}", plain_path(&input.slot)), 0o444)
            }
            None => {
                let place = format!("in/{}/{}", plain_path(&input.slot), plain(&input.label));
                (format!("in.{}", input.slot), place, 0o444)
            }
        };
        let place = free(place, &mut taken);
        copy(input, &scratch.join(&place), mode)?;
        names.entry(name).or_default().push(format!("../{place}"));
    }
    Ok(names)
}

fn copy(input: &Input, to: &Path, mode: u32) -> Result<(), StageError> {
    use std::os::unix::fs::PermissionsExt;

    let parent = to.parent().ok_or_else(|| StageError::Scratch(io::ErrorKind::InvalidInput.into()))?;
    fs::create_dir_all(parent).map_err(StageError::Scratch)?;
    let shown = || input.path.display().to_string();
    let found = fs::copy(&input.path, to).and_then(|_| {
        fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
        Digest::of_file(to)
    });
    let found = found.map_err(|source| match source.kind() {
        // Of the two ends of a copy, this is the one that is written.
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StageError::Scratch(source),
        _ => read_error(input, ReadError::Io { path: shown(), source }),
    })?;
    if found == input.digest {
        return Ok(());
    }
    // The copy may be bad where the original is good, or where another stage has just had the original made anew.
    let path = match Digest::of_file(&input.path) {
        Ok(original) if original == input.digest => format!("the copy of {}", shown()),
        _ => shown(),
    };
    Err(read_error(input, ReadError::Corrupt { path, expected: input.digest, found }))
}

/// A relative path that stays where it is put and needs no quotes in a shell.
fn plain_path(path: &str) -> String {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.map(|part| if part == ".." { "up".to_owned() } else { plain(part) }).collect::<Vec<_>>().join("/")
}

/// A file name that needs no quotes in a shell and does not look like an option.
fn plain(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-=+".contains(c) { c } else { '_' };
    let name: String = name.chars().map(safe).collect();
    if name.is_empty() || name.starts_with(['.', '-']) { format!("_{name}") } else { name }
}

/// The place itself, or with a number where another input has it.
fn free(place: String, taken: &mut BTreeSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{place}-{number}"));
    let free = std::iter::once(place.clone()).chain(numbered).find(|place| !taken.contains(place));
    let free = free.unwrap_or(place);
    taken.insert(free.clone());
    free
}

/// Moves what the program wrote to where the outputs belong. All that could still write is dead by now.
fn collect(job: &Job, declared: &BTreeMap<String, String>, folder: &Path) -> Result<String, StageError> {
    let (mut missing, mut unfit, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    for (output, file) in declared {
        match look_inside(folder, file) {
            Ok(found) => sizes.push(found.len()),
            Err(Unfit::Missing) => missing.push(format!("{output} (`{file}`)")),
            Err(what) => unfit.push(format!("output {output} (`{file}`) {what}")),
        }
    }
    if !missing.is_empty() {
        return Err(StageError::Unwritten { missing, found: listing(folder), unfit });
    }
    if !unfit.is_empty() {
        return Err(StageError::Unfit { what: unfit });
    }
    let mut told = vec![];
    for ((output, file), bytes) in declared.iter().zip(sizes) {
        let (from, to) = (folder.join(file), &job.outputs[output]);
        // Outputs on another file system than the first are copied.
        let moved = fs::rename(&from, to).or_else(|_| fs::copy(&from, to).map(drop));
        moved.map_err(|source| StageError::Write { output: output.clone(), source })?;
        told.push(format!("{output} ({bytes} bytes)"));
    }
    Ok(if told.is_empty() { "no outputs".to_owned() } else { told.join(", ") })
}

/// Looks at an output of a program, which may have put a link in the place of a folder on the way to it.
fn look_inside(folder: &Path, file: &str) -> Result<fs::Metadata, Unfit> {
    let mut way = folder.to_path_buf();
    for part in Path::new(file).parent().into_iter().flat_map(Path::components) {
        way.push(part);
        if let Ok(to) = fs::read_link(&way) {
            return Err(Unfit::Link { to });
        }
    }
    outputs::look(&folder.join(file))
}

/// The first files of a folder, for a message.
fn listing(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = names.map(|entry| format!("`{}`", entry.file_name().to_string_lossy())).collect();
    names.sort();
    names.truncate(12);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_plain_and_stay_inside() {
        assert_eq!(plain_path("scripts/my plot.py"), "scripts/my_plot.py");
        assert_eq!(plain_path("../../etc/./passwd"), "up/up/etc/passwd");
        assert_eq!(plain_path("/abs;rm -rf"), "abs_rm_-rf");
        assert_eq!(plain("-rf"), "_-rf");
        assert_eq!(plain(""), "_");
        let mut taken = BTreeSet::new();
        let places: Vec<_> = (0..3).map(|_| free("in/a".to_owned(), &mut taken)).collect();
        assert_eq!(places, ["in/a", "in/a-2", "in/a-3"]);
    }
}

//! Where in an archive the folders of classes stand, and which of its files are images. Knows names only; nothing is
//! decoded here.

use std::collections::{BTreeMap, BTreeSet};

use super::archive::Archive;
use super::error::DatasetError;
use crate::executors::Reporter;
use crate::folder::is_leftover;

/// Endings of the images that are read.
const READ: [&str; 8] = ["jpg", "jpeg", "jpe", "jfif", "png", "bmp", "dib", "webp"];
/// Endings of images that are not.
const UNREAD: [&str; 18] = [
    "gif", "tif", "tiff", "heic", "heif", "avif", "jp2", "j2k", "jxl", "ppm", "pgm", "pnm", "tga", "svg", "psd", "ico",
    "dng", "npy",
];
/// Endings of what accompanies images; a folder of such files alone is no class.
const NOTES: [&str; 20] = [
    "txt", "md", "rst", "xml", "json", "csv", "tsv", "yaml", "yml", "html", "htm", "pdf", "mat", "py", "sh", "log",
    "cfg", "ini", "toml", "tex",
];
/// Names of files without an ending that accompany images.
const NOTE_NAMES: [&str; 6] = ["readme", "license", "licence", "copying", "notice", "changelog"];
/// Names of folders that hold the training images.
const TRAIN: [&str; 2] = ["train", "training"];
/// Names of folders that hold the test images; the first that is there is taken.
const TEST: [&str; 7] = ["test", "testing", "val", "valid", "validation", "eval", "dev"];
/// Folders and files that a message names.
const NAMED: usize = 8;

/// The ending of a file's name, in small letters.
fn ending(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default()
}

/// Whether a file is an image that is read, by its name.
pub(super) fn is_image(path: &str) -> bool {
    !is_leftover(path) && READ.contains(&ending(path).as_str())
}

/// What a file that is passed over is, in words that follow its name.
pub(super) fn unread(path: &str) -> String {
    let ending = ending(path);
    if !is_leftover(path) && UNREAD.contains(&ending.as_str()) {
        format!("is a .{ending} file, which is not read; convert it to PNG")
    } else {
        "is no image of a class".to_owned()
    }
}

fn is_note(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    NOTES.contains(&ending(path).as_str()) || NOTE_NAMES.contains(&name.as_str())
}

/// The folder of a name, with a `/` at its end: at the top of the archive, or within the folders that wrap all of it.
pub(super) fn find_root(archive: &Archive, wanted: &str) -> Result<String, DatasetError> {
    let wanted = wanted.trim_matches('/');
    if wanted.is_empty() {
        return Ok(String::new());
    }
    let mut base = String::new();
    loop {
        let root = format!("{base}{wanted}/");
        if archive.entries.iter().any(|entry| entry.name.starts_with(&root)) {
            return Ok(root);
        }
        let tops = tops(archive, &base);
        match tops.iter().next() {
            Some((only, _)) if tops.len() == 1 => base = format!("{base}{only}/"),
            _ => {
                let there: Vec<String> = tops.keys().take(NAMED).map(|top| format!("`{base}{top}`")).collect();
                let there = if there.is_empty() { "no folders".to_owned() } else { there.join(", ") };
                let place = format!("under `{wanted}/`; it has {there}");
                return Err(DatasetError::NoImages { file: archive.shown.clone(), place });
            }
        }
    }
}

/// The folders of the training and of the test set, each with a `/` at its end: at the top, or within the folders that
/// wrap all of it. Without both there are none. A test folder that shares no folder with the training set is passed
/// over for one that does: many data sets publish `test` without labels, and `val` with them.
pub(super) fn parts(archive: &Archive, reporter: &dyn Reporter) -> Option<[String; 2]> {
    let mut base = String::new();
    loop {
        let found = tops(archive, &base);
        let find =
            |part: &str| found.keys().find(|top| top.eq_ignore_ascii_case(part)).map(|top| format!("{base}{top}/"));
        let train = TRAIN.iter().find_map(|part| find(part));
        let tests: Vec<String> = TEST.iter().filter_map(|part| find(part)).collect();
        if let (Some(train), Some(first)) = (train, tests.first()) {
            let classes: BTreeSet<&str> = tops(archive, &train).into_keys().collect();
            let shares = |test: &&String| tops(archive, test).keys().any(|folder| classes.contains(folder));
            let test = tests.iter().find(shares).unwrap_or(first).clone();
            for other in tests.iter().filter(|other| **other != test) {
                reporter.log(&format!("{}: the test set is `{test}`, and `{other}` is not used", archive.shown));
            }
            return Some([train, test]);
        }
        match found.keys().next() {
            Some(only) if found.len() == 1 => base = format!("{base}{only}/"),
            _ => return None,
        }
    }
}

/// The folders at the top, for a message.
pub(super) fn tops_shown(archive: &Archive) -> String {
    let tops: Vec<String> = tops(archive, "").keys().take(NAMED).map(|top| format!("`{top}`")).collect();
    if tops.is_empty() { "no folders".to_owned() } else { tops.join(", ") }
}

/// The folder that holds the folders of classes: the given one, or the innermost of the folders that wrap all images
/// one within the other. A wrapper that has the name of a known class is taken for that class.
pub(super) fn unwrap(archive: &Archive, mut root: String, known: &[String], reporter: &dyn Reporter) -> String {
    let given = root.clone();
    loop {
        let is_in_root = |path: &&str| path.starts_with(&root) && is_image(path);
        let mut images =
            archive.entries.iter().map(|entry| entry.name.as_str()).filter(is_in_root).map(|path| &path[root.len()..]);
        let Some((wrapper, _)) = images.next().and_then(|path| path.split_once('/')) else { break };
        let wrapper = wrapper.to_owned();
        let is_wrapped = |path: &str| {
            path.strip_prefix(&wrapper).and_then(|path| path.strip_prefix('/')).is_some_and(|path| path.contains('/'))
        };
        let is_whole = archive.entries.iter().map(|entry| entry.name.as_str()).filter(is_in_root);
        if known.contains(&wrapper) || !is_whole.map(|path| &path[root.len()..]).all(is_wrapped) {
            break;
        }
        root = format!("{root}{wrapper}/");
    }
    if root != given {
        reporter.log(&format!("{}: the classes are the folders in `{root}`, which holds all images", archive.shown));
    }
    root
}

/// The folders right under a root that are no leftovers, each with the paths of its files.
fn tops<'a>(archive: &'a Archive, root: &str) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut tops: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for entry in &archive.entries {
        let Some(path) = entry.name.strip_prefix(root) else { continue };
        if let Some((top, _)) = path.split_once('/')
            && !is_leftover(top)
        {
            let files = tops.entry(top).or_default();
            if !is_leftover(path) {
                files.push(&entry.name);
            }
        }
    }
    for folder in &archive.empty {
        let Some(path) = folder.strip_prefix(root) else { continue };
        let top = path.split('/').next().unwrap_or(path);
        if !top.is_empty() && !is_leftover(top) {
            tops.entry(top).or_default();
        }
    }
    tops
}

/// Checks that the folders of images are classes: more than one, none that is a part of the data set, none without an
/// image.
pub(super) fn check(archive: &Archive, root: &str, classes: &[String]) -> Result<(), DatasetError> {
    let file = || archive.shown.clone();
    let parts: BTreeSet<&str> = classes
        .iter()
        .map(String::as_str)
        .filter(|class| TRAIN.iter().chain(&TEST).any(|part| part.eq_ignore_ascii_case(class)))
        .collect();
    if parts.len() > 1 {
        let parts = parts.iter().map(|part| format!("`{root}{part}`")).collect();
        return Err(DatasetError::Parts { file: file(), parts });
    }
    for (folder, files) in tops(archive, root) {
        if classes.binary_search_by(|class| class.as_str().cmp(folder)).is_ok() {
            continue;
        }
        if files.is_empty() || !files.iter().all(|file| is_note(file)) {
            let mut endings: BTreeMap<String, usize> = BTreeMap::new();
            files.iter().for_each(|file| *endings.entry(ending(file)).or_default() += 1);
            let told = endings.iter().take(NAMED).map(|(ending, count)| match ending.as_str() {
                "" => format!("{count} without an ending"),
                ending => format!("{count} .{ending}"),
            });
            let files = if files.is_empty() { "none".to_owned() } else { told.collect::<Vec<_>>().join(", ") };
            return Err(DatasetError::Vanished { file: file(), folder: format!("{root}{folder}"), files });
        }
    }
    Ok(())
}

//! The tree of files that unpacking an archive would leave on a disk, member by member in the order of the archive: a
//! later file replaces an earlier one of its name, a hard link takes the content that its target has at that moment,
//! and symbolic links are followed. Knows no form of archive.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ArchiveError, Entry, MAX_ENTRIES};

/// Links that are followed on the way to one file, as many as Linux follows.
const MAX_HOPS: usize = 40;

/// The longest path, and the longest target of a link, as on Linux.
const MAX_PATH: usize = 4096;

/// Where the bytes of a file are.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) size: u64,
    pub(super) place: Place,
}

#[derive(Debug, Clone)]
pub(super) enum Place {
    /// In a tar archive its first byte, in a zip archive the file's number.
    At(u64),
    /// The pieces of a sparse file; between them are zeros.
    Pieces(Arc<[Piece]>),
}

/// A part of a sparse file that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where it stands in the file.
    pub(super) from: u64,
    /// Where it stands in the archive.
    pub(super) at: u64,
    pub(super) length: u64,
}

#[derive(Debug, Clone)]
enum Node {
    Folder,
    File(Content),
    Link(String),
}

/// Why a member of an archive gives no file, in words that follow its name.
type Why = &'static str;

const OUTSIDE: Why = "is a link that leads out of the archive";
const NOWHERE: Why = "is a link to nothing in the archive";
const CIRCLE: Why = "is a link that leads back to itself";
const TOO_LONG: Why = "has a name, or a target, that is longer than 4096 bytes";
const UNDER_FILE: Why = "stands under a file as if that were a folder";
const UNDER_LINK: Why = "stands under a link that is made only after all files";
const OVER_FOLDER: Why = "has the name of a folder with files in it";
const HARD_NOWHERE: Why = "is a hard link to a file that the archive has not had before it";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: BTreeMap<String, Node>,
    /// Members that give no file, a line each.
    left_out: Vec<String>,
}

impl Tree {
    /// Puts a file at a path.
    pub(super) fn file(&mut self, path: &str, content: Content) {
        self.put(path, Node::File(content));
    }

    /// Puts a symbolic link at a path; whether it leads anywhere shows in the end.
    pub(super) fn link(&mut self, path: &str, target: String) {
        if target.len() > MAX_PATH {
            return self.leave_out(path, TOO_LONG);
        }
        self.put(path, Node::Link(target));
    }

    /// Puts a second name for what stands at `target` now.
    pub(super) fn hard_link(&mut self, path: &str, target: &str) {
        let found = self.place(target, false).ok().and_then(|place| self.nodes.get(&place).cloned());
        match found {
            Some(node @ (Node::File(_) | Node::Link(_))) => self.put(path, node),
            Some(Node::Folder) | None => self.leave_out(path, HARD_NOWHERE),
        }
    }

    /// Makes a folder, and the folders above it.
    pub(super) fn folder(&mut self, path: &str) {
        let place = match self.place(path, true) {
            Ok(place) => place,
            Err(why) => return self.leave_out(path, why),
        };
        if !matches!(self.nodes.get(&place), Some(Node::Folder)) {
            self.nodes.insert(place, Node::Folder);
        }
    }

    /// Notes a member that gives no file: `why` follows its name.
    pub(super) fn leave_out(&mut self, name: &str, why: &str) {
        self.left_out.push(format!("`{name}` {why}"));
    }

    fn put(&mut self, path: &str, node: Node) {
        match self.place(path, true) {
            Err(why) => self.leave_out(path, why),
            Ok(place) if self.has_children(&place) => self.leave_out(path, OVER_FOLDER),
            Ok(place) => _ = self.nodes.insert(place, node),
        }
    }

    fn has_children(&self, folder: &str) -> bool {
        matches!(self.nodes.get(folder), Some(Node::Folder)) && self.below(folder).next().is_some()
    }

    /// Everything under a folder, at any depth.
    fn below(&self, folder: &str) -> impl Iterator<Item = (&String, &Node)> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let start = prefix.clone();
        self.nodes.range(start..).take_while(move |(path, _)| path.starts_with(&prefix))
    }

    /// Where a member lands: links among the folders of its path are followed, its last part is not. `make` makes
    /// folders that are missing.
    fn place(&mut self, path: &str, make: bool) -> Result<String, Why> {
        if path.len() > MAX_PATH {
            return Err(TOO_LONG);
        }
        let mut rest: Vec<String> = path.rsplit('/').map(str::to_owned).collect();
        let (mut done, mut hops) = (String::new(), 0);
        while let Some(part) = rest.pop() {
            let next = join(&done, &part);
            if rest.is_empty() {
                return Ok(next);
            }
            match self.nodes.get(&next) {
                Some(Node::Folder) => done = next,
                Some(Node::File(_)) => return Err(UNDER_FILE),
                // `tar` makes links that lead upwards or to an absolute path after all else, so that no file is written
                // through them.
                Some(Node::Link(target)) if !is_harmless(target) => return Err(UNDER_LINK),
                Some(Node::Link(target)) => {
                    hops += 1;
                    if hops > MAX_HOPS {
                        return Err(CIRCLE);
                    }
                    rest.extend(target.rsplit('/').filter(|part| !["", "."].contains(part)).map(str::to_owned));
                }
                None if make => {
                    self.nodes.insert(next.clone(), Node::Folder);
                    done = next;
                }
                None => return Err(NOWHERE),
            }
        }
        Ok(done)
    }

    /// The file or folder that a path in a folder leads to, all links followed.
    fn follow(&self, folder: &str, path: &str) -> Result<String, Why> {
        let (mut done, mut hops) = (folder.to_owned(), 0);
        let mut rest: Vec<&str> = Vec::new();
        if path.starts_with('/') {
            return Err(OUTSIDE);
        }
        rest.extend(path.rsplit('/'));
        while let Some(part) = rest.pop() {
            match part {
                "" | "." => continue,
                ".." if done.is_empty() => return Err(OUTSIDE),
                ".." => {
                    done.truncate(done.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let next = join(&done, part);
            match self.nodes.get(&next) {
                Some(Node::Folder) => done = next,
                Some(Node::File(_)) if rest.iter().all(|part| part.is_empty()) => return Ok(next),
                Some(Node::Link(target)) => {
                    hops += 1;
                    if hops > MAX_HOPS {
                        return Err(CIRCLE);
                    }
                    if target.starts_with('/') {
                        return Err(OUTSIDE);
                    }
                    rest.extend(target.rsplit('/'));
                }
                Some(Node::File(_)) | None => return Err(NOWHERE),
            }
        }
        Ok(done)
    }

    /// The files in the order of their names, the folders that stand empty, and what was left out.
    pub(super) fn finish(mut self) -> Result<Listed, ArchiveError> {
        let left_out = std::mem::take(&mut self.left_out);
        let mut listed = Listed { entries: Vec::new(), empty: Vec::new(), left_out };
        let mut steps = 0;
        self.list("", "", &mut Vec::new(), &mut steps, &mut listed)?;
        listed.entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for (path, node) in &self.nodes {
            if matches!(node, Node::Folder) && self.below(path).next().is_none() {
                listed.empty.push(path.clone());
            }
        }
        Ok(listed)
    }

    /// Lists what is under a folder, under another name. `chain` has the folders that links led through so far.
    fn list(
        &self,
        folder: &str,
        shown: &str,
        chain: &mut Vec<String>,
        steps: &mut usize,
        to: &mut Listed,
    ) -> Result<(), ArchiveError> {
        let skipped = if folder.is_empty() { 0 } else { folder.len() + 1 };
        for (path, node) in self.below(folder) {
            *steps += 1;
            if *steps > MAX_ENTRIES {
                return Err(ArchiveError::Entries);
            }
            let name = || join(shown, &path[skipped..]);
            match node {
                Node::Folder => {}
                Node::File(content) => to.entries.push(Entry { name: name(), content: content.clone() }),
                Node::Link(target) => {
                    let parent = path.rfind('/').map_or("", |end| &path[..end]);
                    let found = match self.follow(parent, target) {
                        Ok(found) => found,
                        Err(why) => {
                            to.left_out.push(format!("`{}` {why}: `{target}`", name()));
                            continue;
                        }
                    };
                    if let Some(Node::File(content)) = self.nodes.get(&found) {
                        to.entries.push(Entry { name: name(), content: content.clone() });
                        continue;
                    }
                    let is_above = |inner: &str| found.is_empty() || inner == found || is_under(inner, &found);
                    if chain.len() >= MAX_HOPS || is_above(parent) || chain.iter().any(|inner| is_above(inner)) {
                        to.left_out.push(format!("`{}` {CIRCLE}: `{target}`", name()));
                        continue;
                    }
                    chain.push(parent.to_owned());
                    self.list(&found, &name(), chain, steps, to)?;
                    chain.pop();
                }
            }
        }
        Ok(())
    }
}

/// What [`Tree::finish`] gives.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) entries: Vec<Entry>,
    pub(super) empty: Vec<String>,
    pub(super) left_out: Vec<String>,
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

fn is_under(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether `tar` makes a link at once: its target leads neither upwards nor to an absolute path.
fn is_harmless(target: &str) -> bool {
    !target.starts_with('/') && target.split('/').all(|part| part != "..")
}

//! `atflow push`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use atflow::cache::remote::{Remote, at_once};
use atflow::cache::{Access, Blob, CacheError, Manifest};
use atflow::digest::Digest;
use atflow::publish::{PublishError, Sent, send};
use atflow::signing::Signer;
use atflow::spec::InstanceId;
use indicatif::ProgressBar;

use super::keygen::password;
use super::{Loaded, patience};
use crate::args::{ChangeArgs, PushArgs};
use crate::progress::bar_of_bytes;
use crate::report::{CliError, Exit, eprint};
use crate::ui;

/// Results whose files are sent before their manifests are.
const AT_A_TIME: usize = 64;

pub(crate) fn run(args: &PushArgs) -> Result<Exit, CliError> {
    let Some(to) = args.pipeline.changes.remote() else {
        let error = CliError::environment("push needs a place to copy to");
        return Err(error.help(
            "name a folder, a bucket or a cache server: --remote /shared/atflow-cache, --remote s3://bucket/folder, \
             --remote bazel-http://host:8080",
        ));
    };
    // What is there already is no answer to what is here.
    let here = ChangeArgs { remote: None, ..args.pipeline.changes.clone() };
    let loaded = Loaded::open(&args.pipeline.pipeline, &args.pipeline.targets, &here, Access::Read)?;
    let signer = args.sign.as_deref().map(|file| Signer::open(file, || password(false))).transpose()?;
    let remote = Remote::create(to, patience(args.pipeline.changes.patience)).map_err(CacheError::from)?;
    let results = loaded.fresh()?;
    let bar = bar_of_bytes(size_of(&results));
    let mut push = Push { loaded: &loaded, remote: &remote, seen: HashSet::new(), copied: Copied::default(), bar };
    let mut sent_as: BTreeMap<Sent, Vec<String>> = BTreeMap::new();
    // A few at a time: what was copied before a stop counts, because blobs that are there are not sent again and
    // manifests follow theirs soon.
    for some in results.chunks(AT_A_TIME) {
        // Blobs first: a manifest promises that they are there.
        push.send_blobs(some)?;
        let send = |(_, manifest): &(InstanceId, Manifest)| send(&remote, manifest, signer.as_ref());
        for (sent, (id, _)) in at_once(some, send).into_iter().zip(some) {
            let name = loaded.graph.instance(*id).name.clone();
            sent_as.entry(sent?).or_default().push(name);
        }
    }
    push.bar.finish_and_clear();
    let Copied { files, bytes, lost } = push.copied;
    let results = results.len();
    eprint(&format!(
        "{} in {}: {} copied ({})\n",
        ui::count(results, "result"),
        remote.name(),
        ui::count(files, "file"),
        ui::bytes(bytes)
    ));
    if let Some(signer) = &signer {
        eprint(&signed_words(&sent_as, signer));
    }
    let stale = loaded.goals.wanted.marked().count() - results;
    if stale > 0 {
        let them = if stale == 1 { "it" } else { "them" };
        eprint(&format!(
            "{} not up to date here and not copied; run first to have {them}\n",
            ui::count(stale, "stage")
        ));
    }
    let is_unsigned = sent_as.contains_key(&Sent::OtherManifest) || sent_as.contains_key(&Sent::OtherSignature);
    Ok(if lost > 0 || (signer.is_some() && is_unsigned) { Exit::StageFailed } else { Exit::Done })
}

/// Returns the blobs of a result: its outputs and its log.
fn blobs_of(manifest: &Manifest) -> impl Iterator<Item = &Blob> {
    manifest.outputs.values().chain(manifest.made.log.stored())
}

/// Returns the bytes of all blobs of results, each counted once.
fn size_of(results: &[(InstanceId, Manifest)]) -> u64 {
    let mut seen = HashSet::new();
    let blobs = results.iter().flat_map(|(_, manifest)| blobs_of(manifest));
    blobs.filter(|blob| seen.insert(blob.digest)).map(|blob| blob.size).sum()
}

/// Copies the blobs of results.
struct Push<'a> {
    loaded: &'a Loaded,
    remote: &'a Remote,
    /// Blobs that earlier results had, too.
    seen: HashSet<Digest>,
    copied: Copied,
    bar: ProgressBar,
}

/// What came of the blobs so far.
#[derive(Default)]
struct Copied {
    /// Files that were copied; the remote lacked them.
    files: usize,
    /// Their bytes.
    bytes: u64,
    /// Files that this cache has lost.
    lost: usize,
}

impl<'a> Push<'a> {
    /// Copies the blobs of some results. One that is lost here is told, and keeps no other from it.
    fn send_blobs(&mut self, results: &[(InstanceId, Manifest)]) -> Result<(), CliError> {
        let mut blobs = self.blobs(results);
        // The last file to go is then a short one, and does not keep the others waiting.
        blobs.sort_by_key(|(blob, _)| Reverse(blob.size));
        let put = |(blob, _): &(Blob, &str)| {
            let put = self.remote.put_blob(*blob, &self.loaded.cache.object_path(blob.digest));
            self.bar.inc(blob.size);
            put
        };
        for ((blob, name), put) in blobs.iter().zip(at_once(&blobs, put)) {
            match put {
                Ok(true) => {
                    self.copied.files += 1;
                    self.copied.bytes += blob.size;
                }
                Ok(false) => {}
                // What rotted here is published nowhere. The rest is.
                Err(error) if error.is_loss() => self.set_aside(*blob, name),
                Err(error) => return Err(CacheError::from(error).into()),
            }
        }
        Ok(())
    }

    /// Returns the blobs of some results that are here and were not sent before, each with the name of its result.
    fn blobs(&mut self, results: &[(InstanceId, Manifest)]) -> Vec<(Blob, &'a str)> {
        let loaded = self.loaded;
        let mut blobs = Vec::new();
        for (id, manifest) in results {
            let name = loaded.graph.instance(*id).name.as_str();
            for blob in blobs_of(manifest).filter(|blob| self.seen.insert(blob.digest)) {
                if loaded.cache.has(*blob) {
                    blobs.push((*blob, name));
                } else {
                    let words = format!("warning: a file of {name} is gone from this cache and is not copied\n");
                    self.bar.suspend(|| eprint(&words));
                    self.copied.lost += 1;
                }
            }
        }
        blobs
    }

    /// Moves a rotten file out of the cache.
    fn set_aside(&mut self, blob: Blob, name: &str) {
        // A cache that cannot be written keeps what it has.
        let kept = self.loaded.cache.quarantine(blob.digest).ok().flatten();
        let kept = kept.map_or(String::new(), |kept| format!("; it was moved to {}", kept.display()));
        let words = format!(
            "warning: a file of {name} has other bytes than its digest says and is not copied{kept}; \
             a run makes it again\n"
        );
        self.bar.suspend(|| eprint(&words));
        self.copied.lost += 1;
    }
}

/// What was signed, and what was not and why.
fn signed_words(sent: &BTreeMap<Sent, Vec<String>>, signer: &Signer) -> String {
    let line = |(how, names): (&Sent, &Vec<String>)| {
        let (count, some) = (ui::count(names.len(), "result"), ui::some(names));
        match how {
            Sent::Unsigned => String::new(),
            Sent::Signed => format!("{count} signed; `--trust {}` takes these and no others\n", signer.public()),
            Sent::FromRemote => format!("{count} not signed with this key, because computed elsewhere: {some}\n"),
            Sent::OtherManifest => {
                format!("warning: {count} made by another run, there already, and left unsigned: {some}\n")
            }
            Sent::OtherSignature => format!("warning: {count} there with another signature, which stays: {some}\n"),
        }
    };
    sent.iter().map(line).collect()
}

impl From<PublishError> for CliError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Remote(error) => CacheError::from(error).into(),
            PublishError::Key(error) => error.into(),
        }
    }
}

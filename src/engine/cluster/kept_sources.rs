//! Files and folders that stages of a frozen plan read: sent to the bucket that agents share, where they share no
//! folder. Then agents need none of the files of the machine that submits them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::frozen_plan::{FreezeError, FrozenPlan};
use super::plan_parts::Place;
use crate::cache::{Blob, Cache};
use crate::dense_map::DenseId;
use crate::digest::Digest;
use crate::external_inputs::{CheckedSource, FolderList};
use crate::fsio::Context;
use crate::spec::{InstanceId, PerInstance};

/// What a plan reads from the bucket.
#[derive(Debug, Default)]
pub struct KeptSources {
    /// What has to be sent there first: blobs, each with the file that has its bytes.
    pub unsent: Vec<(Blob, PathBuf)>,
    /// What folders have that gives no file, a line each.
    pub left_out: Vec<String>,
}

/// Blobs by their digest, each with the file that has its bytes.
type Files = HashMap<Digest, (Blob, PathBuf)>;

impl FrozenPlan {
    /// Makes the plan read this machine's files and folders from the bucket. Those that a stale instance reads have to
    /// be sent there first ([`crate::publish::share_blobs`]). Does nothing where machines share a folder.
    ///
    /// # Errors
    /// [`FreezeError`].
    pub fn keep_sources(&mut self, cache: &Cache, is_stale: &PerInstance<bool>) -> Result<KeptSources, FreezeError> {
        if cache.shared().is_none() {
            return Ok(KeptSources::default());
        }
        let (mut unsent, mut kept, mut left_out) = (Files::new(), HashMap::new(), Vec::new());
        for (position, instance) in self.instances.iter_mut().enumerate() {
            let is_stale = is_stale[InstanceId::at(position)];
            for source in &mut instance.sources {
                let checked = CheckedSource::from(source.place.clone());
                let Some((path, digest)) = checked.local() else { continue };
                // Many instances may read one file.
                let known = (path.to_owned(), checked.identity());
                if !kept.contains_key(&known) {
                    let found = match &checked {
                        CheckedSource::Folder { .. } => keep_folder(cache, path, digest, &mut left_out)?,
                        _ => keep_file(path, digest, checked.identity())?,
                    };
                    kept.insert(known.clone(), found);
                }
                let (place, files) = &kept[&known];
                source.place = place.clone();
                if is_stale {
                    unsent.extend(files.iter().map(|(blob, path)| (blob.digest, (*blob, path.clone()))));
                }
            }
        }
        Ok(KeptSources { unsent: unsent.into_values().collect(), left_out })
    }
}

fn keep_file(path: &Path, digest: Digest, identity: String) -> Result<(Place, Vec<(Blob, PathBuf)>), FreezeError> {
    let size = std::fs::metadata(path).on("read", path)?.len();
    let blob = Blob { digest, size };
    let place = Place::Kept { path: path.to_owned(), identity, blob };
    Ok((place, vec![(blob, path.to_owned())]))
}

fn keep_folder(
    cache: &Cache,
    path: &Path,
    digest: Digest,
    left_out: &mut Vec<String>,
) -> Result<(Place, Vec<(Blob, PathBuf)>), FreezeError> {
    let files = FolderList::read(path, digest)?.ok_or_else(|| FreezeError::Changed { path: path.to_owned() })?;
    left_out.extend(files.left_out().iter().map(|line| format!("{}: {line}", path.display())));
    let list = cache.put(&files.to_bytes())?;
    let own = std::iter::once((list, cache.object_path(list.digest)));
    let place = Place::KeptFolder { path: path.to_owned(), digest, list };
    Ok((place, own.chain(files.files(path)).collect()))
}

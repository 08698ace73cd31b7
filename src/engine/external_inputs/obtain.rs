//! Makes external inputs available on this machine: fetches files from their addresses, and takes those of another
//! machine from the bucket that both share.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use tempfile::TempDir;

use super::{CheckedSource, FolderList, by_hand, causes};
use crate::address::Address;
use crate::cache::{Blob, Cache, Obtained};
use crate::digest::{Digest, read_verified};
use crate::executors::Reporter;
use crate::fetch::{self, FetchError, Patience};
use crate::protocol::{Failure, FailureCode};

/// External file or folder on this machine.
#[derive(Debug)]
pub struct Available {
    /// Where it is.
    pub path: PathBuf,
    /// Digest of its contents.
    pub digest: Digest,
    /// Keeps a folder that was laid out for one stage.
    _laid_out: Option<TempDir>,
}

impl Available {
    fn at(path: PathBuf, digest: Digest) -> Self {
        Available { path, digest, _laid_out: None }
    }

    fn in_cache(cache: &Cache, digest: Digest) -> Self {
        Available::at(cache.object_path(digest), digest)
    }
}

/// Makes an external file or folder available on this machine, as long as what it returns lives.
///
/// A local file stays where it is. A remote one is fetched into the cache unless it is there. The files of another
/// machine's folder are fetched into the cache, too, and laid out beside it.
///
/// # Errors
/// A [`Failure`] of the stage that needs it.
pub fn obtain(source: &CheckedSource, cache: &Cache, reporter: &dyn Reporter) -> Result<Available, Failure> {
    if let Some((path, digest)) = source.local() {
        return Ok(Available::at(path.to_owned(), digest));
    }
    let source = match source {
        CheckedSource::Remote { source } => source,
        CheckedSource::Kept { path, blob, .. } => {
            obtain_kept(path, &[*blob], cache, reporter)?;
            return Ok(Available::in_cache(cache, blob.digest));
        }
        CheckedSource::KeptFolder { path, digest, list } => return lay_out(path, *digest, *list, cache, reporter),
        CheckedSource::Local { path, .. } | CheckedSource::Folder { path, .. } => {
            return Err(failed(format!("{} is gone", path.display()), Vec::new()));
        }
        CheckedSource::ByHand { path, source, .. } => {
            let text = by_hand(source.by_hand.as_deref().unwrap_or_default());
            return Err(failed(format!("there is no file {}", path.display()), vec![text]));
        }
    };
    let identity = source.published().unwrap_or_default();
    if let Some(blob) = cache.fetched(&identity).filter(|blob| cache.has(*blob)) {
        return Ok(Available::in_cache(cache, blob.digest));
    }
    let url = Address::new(source.url.as_deref().unwrap_or_default());
    if cache.is_offline() {
        return Err(failed(format!("{url} has to be fetched, and this run is offline"), Vec::new()));
    }
    // Each identity has one fetch place, so an interrupted fetch resumes there. It is locked, so two runs do not write
    // to it at once.
    let place = cache.fetch_place(&identity, &mut || {
        reporter.progress(0, 0, "waiting for another run, which fetches the same");
        reporter.cancelled()
    });
    let place = place.map_err(|error| failed(format!("could not fetch {url}"), causes(&error)))?;
    let Some((file, _lock)) = place else { return Err(stopped()) };
    if let Some(blob) = cache.fetched(&identity).filter(|blob| cache.has(*blob)) {
        return Ok(Available::in_cache(cache, blob.digest));
    }
    let progress = &mut |done: u64, total: Option<u64>| {
        let of = total.map(|total| format!(" of {:.1}", total as f64 / 1e6)).unwrap_or_default();
        reporter.progress(done, total.unwrap_or(0), &format!("fetching {:.1}{of} MB", done as f64 / 1e6));
        if reporter.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let trying = &mut |url: &Address, failed: Option<&FetchError>| {
        if let Some(error) = failed {
            reporter.log(&format!("that failed: {}", causes(error).join(": ")));
        }
        reporter.log(&format!("fetching {url}"));
    };
    fetch::fetch(source, &file, &Patience::default(), trying, progress).map_err(|error| match error {
        FetchError::Stopped => stopped(),
        error => failed(format!("could not fetch {url}"), causes(&error)),
    })?;
    let blob = cache.ingest(&file).map_err(|error| failed(format!("could not keep {url}"), causes(&error)))?;
    cache.remember_fetched(&identity, blob).map_err(|error| failed(format!("could not keep {url}"), causes(&error)))?;
    cache.leave_fetch_place(&file);
    Ok(Available::in_cache(cache, blob.digest))
}

/// Fetches blobs of another machine's file or folder into the cache.
fn obtain_kept(path: &Path, blobs: &[Blob], cache: &Cache, reporter: &dyn Reporter) -> Result<(), Failure> {
    let total: u64 = blobs.iter().map(|blob| blob.size).sum();
    // Fetches tell from their own threads, and a reporter belongs to one.
    let (sender, told) = mpsc::channel();
    let is_cancelled = &AtomicBool::new(false);
    let outcomes = std::thread::scope(|scope| {
        let fetch = scope.spawn(move || {
            cache.obtain_all(blobs, &|done| {
                _ = sender.send(done);
                if is_cancelled.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        });
        for done in told {
            let words = format!("fetching {:.1} of {:.1} MB", done as f64 / 1e6, total as f64 / 1e6);
            reporter.progress(done, total, &words);
            is_cancelled.fetch_or(reporter.cancelled(), Ordering::Relaxed);
        }
        fetch.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let unfit =
        |causes: Vec<String>| failed(format!("could not fetch {} as the plan was made with", path.display()), causes);
    let outcomes = match outcomes {
        Ok(outcomes) => outcomes,
        Err(error) if error.is_stopped() => return Err(stopped()),
        Err(error) => return Err(unfit(causes(&error))),
    };
    for outcome in outcomes {
        match outcome {
            Obtained::Here | Obtained::Fetched => {}
            Obtained::Missing => return Err(unfit(vec!["the bucket does not have it any more".to_owned()])),
            Obtained::Wrong(message) => return Err(unfit(vec![message])),
        }
    }
    Ok(())
}

/// Makes a folder of another machine available here: a folder of links to the cache.
fn lay_out(
    path: &Path,
    digest: Digest,
    list: Blob,
    cache: &Cache,
    reporter: &dyn Reporter,
) -> Result<Available, Failure> {
    let unfit = |causes: Vec<String>| failed(format!("could not lay out {} as it was sent", path.display()), causes);
    cache.quarantine(list.digest).map_err(|error| unfit(causes(&error)))?;
    obtain_kept(path, &[list], cache, reporter)?;
    let files = read_verified(&cache.object_path(list.digest), list.digest).map_err(|error| unfit(causes(&error)))?;
    let files = FolderList::parse(&files, digest).map_err(|why| unfit(vec![why]))?;
    let blobs = files.blobs();
    for blob in &blobs {
        // One with other bytes is moved away, and fetched again.
        cache.quarantine(blob.digest).map_err(|error| unfit(causes(&error)))?;
    }
    obtain_kept(path, &blobs, cache, reporter)?;
    let folder = cache.scratch().map_err(|error| unfit(causes(&error)))?;
    // Messages name the files: the last part of the path is the user's.
    let to = folder.path().join(path.file_name().unwrap_or("folder".as_ref()));
    files.lay_out(cache, &to).map_err(|error| unfit(causes(&error)))?;
    Ok(Available { path: to, digest, _laid_out: Some(folder) })
}

fn failed(message: String, causes: Vec<String>) -> Failure {
    Failure { code: FailureCode::Broken, message, causes }
}

fn stopped() -> Failure {
    Failure { code: FailureCode::Cancelled, message: "stopped".to_owned(), causes: Vec::new() }
}

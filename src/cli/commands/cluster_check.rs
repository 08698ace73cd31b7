//! `atflow doctor --executor`: runs `atflow doctor` on a machine of each class, and tells what it saw.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use atflow::cache::Cache;
use atflow::cluster::classes::ClusterFile;
use atflow::cluster::echo::{Caller, Delays, ROUNDS};
use atflow::cluster::site::Submission;

use super::cluster_limits::{Finding, limits};
use super::cluster_run::{check_executor, environment, own_program, pace, site_of};
use crate::args::{DoctorArgs, ExecutorName};
use crate::report::CliError;

/// How long a job of a class is waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// How long a machine of a class waits for a file that is written here. NFS shows a new file after a minute at most,
/// unless it is mounted otherwise.
pub(super) const UNSEEN: Duration = Duration::from_secs(65);

/// Files that take longer are worth a word. Agents and their controller learn of results that late.
const LATE: Duration = Duration::from_secs(15);

/// Longest pause between two looks at the files of jobs.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Looks at the cluster, and at the cache from a machine of each class.
pub(super) fn look(args: &DoctorArgs) -> Result<Vec<Finding>, CliError> {
    let path = args.cluster.clone().unwrap_or_else(|| atflow::cluster::classes::USUAL_FILE.into());
    let cluster = ClusterFile::read(&path)?;
    check_executor(args.executor, &cluster)?;
    let mut found = Vec::new();
    let mut site = site_of(&cluster, pace());
    match site.version() {
        Ok(version) => found.push(("site".to_owned(), true, version, String::new())),
        Err(error) => {
            found.push((
                "site".to_owned(),
                false,
                error.to_string(),
                "is this a log-in node of the cluster?".to_owned(),
            ));
            return Ok(found);
        }
    }
    if let Err(error) = site.list() {
        found.push(("list".to_owned(), false, error.to_string(), "runs go on without it, and notice less".to_owned()));
    }
    if args.executor == ExecutorName::Slurm {
        found.extend(limits(&cluster));
    }
    let cache = Cache::open(&args.cache.cache)?;
    let folder = cache.root().join("tmp").join(format!("doctor-{}", std::process::id()));
    let cannot =
        |error: std::io::Error| CliError::environment(format!("cannot write in {}: {error}", folder.display()));
    std::fs::create_dir_all(&folder).map_err(cannot)?;
    let (program, env) = (own_program()?, environment());
    let mut waiting = Vec::new();
    for class in &cluster.classes {
        let answer = folder.join(format!("{}.json", class.name));
        let caller = Caller::new(folder.join(&class.name)).map_err(cannot)?;
        // Its own shell, so that the answer appears whole. The file is the proof that both see the same folder.
        let script = "\"$1\" doctor --json --cache \"$2\" --echo \"$4\" >\"$3.new\"; mv \"$3.new\" \"$3\"";
        let words = ["sh", "-c", script, "doctor", &program];
        let places = [cache.root(), answer.as_path(), caller.folder()].map(|path| path.display().to_string());
        let agent: Vec<String> = words.iter().map(|word| (*word).to_owned()).chain(places).collect();
        let submission = Submission {
            run: "doctor",
            class,
            count: 1,
            agent: &agent,
            env: &env,
            memory: class.memory,
            exclude: &[],
            after: &[],
            logs: &folder,
        };
        match site.submit(&submission) {
            Ok(jobs) => waiting.push(Waiting { class: class.name.clone(), jobs, answer, caller, text: None }),
            Err(error) => {
                found.push((class.name.clone(), false, error.to_string(), format!("see {}", path.display())));
            }
        }
    }
    let until = Instant::now() + LONGEST_WAIT;
    wait(&mut waiting, until);
    for Waiting { class, jobs, caller, text, .. } in waiting {
        match text {
            Some(text) => {
                let told = told(&class, &text);
                // Where atflow does not run, nothing else is told, and nothing was written.
                let has_run = told.len() > 1;
                found.extend(told);
                if has_run {
                    found.push(seen(&class, caller.delays()));
                }
            }
            None => {
                _ = site.cancel(&jobs);
                let what = format!("job {} gave no answer within {} s", jobs.join(", "), LONGEST_WAIT.as_secs());
                let advice = "it may still be in the queue, or its machine does not see the cache".to_owned();
                found.push((class, false, what, advice));
            }
        }
    }
    _ = std::fs::remove_dir_all(&folder);
    Ok(found)
}

/// A job of a class that was submitted.
struct Waiting {
    class: String,
    jobs: Vec<String>,
    /// The file that it writes.
    answer: PathBuf,
    caller: Caller,
    /// The text of that file.
    text: Option<String>,
}

/// Waits for the answers of all jobs, and answers those that ask.
fn wait(waiting: &mut [Waiting], until: Instant) {
    loop {
        let mut pause = LONGEST_PAUSE;
        for one in waiting.iter_mut().filter(|one| one.text.is_none()) {
            // What cannot be read or written now may be later; in the end it is told as not seen.
            pause = pause.min(one.caller.look().unwrap_or(pause));
            one.text = std::fs::read_to_string(&one.answer).ok();
        }
        if waiting.iter().all(|one| one.text.is_some()) || Instant::now() >= until {
            return;
        }
        std::thread::sleep(pause);
    }
}

/// How long files take from one machine to the other.
fn seen(class: &str, delays: Delays) -> Finding {
    let name = format!("{class}: files");
    let (Some(there), Some(here)) = (delays.there, delays.here) else {
        let side = if delays.there.is_none() { ("here", "there") } else { ("there", "here") };
        let found = format!("a file that is written {} is not seen {} within {} s", side.0, side.1, UNSEEN.as_secs());
        let advice =
            "mount the file system with shorter caches of attributes (NFS: `actimeo=3`, `lookupcache=positive`)";
        return (name, false, found, advice.to_owned());
    };
    let found = format!(
        "one that is written here is seen there after {:.2} s, one that is written there is seen here after {:.2} s \
         (the longest of {ROUNDS} each)",
        there.as_secs_f64(),
        here.as_secs_f64()
    );
    let advice = if there.max(here) < LATE {
        ""
    } else {
        "results are noticed that late; shorter caches of attributes help (NFS: `actimeo=3`, `lookupcache=positive`)"
    };
    (name, true, found, advice.to_owned())
}

/// What a machine of a class saw.
fn told(class: &str, text: &str) -> Vec<Finding> {
    let json: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let Some(checks) = json["checks"].as_array() else {
        let advice = "its log is in the folder of the job".to_owned();
        return vec![(class.to_owned(), false, "atflow does not run there".to_owned(), advice)];
    };
    let word = |check: &serde_json::Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let tell = |check: &serde_json::Value| {
        let name = format!("{class}: {}", word(check, "name"));
        (name, word(check, "state") != "problem", word(check, "found"), word(check, "advice"))
    };
    checks.iter().filter(|check| word(check, "name") != "git").map(tell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_saw_is_told_by_class() {
        let text = r#"{"checks": [{"name": "device", "state": "ok", "found": "cuda:0"},
            {"name": "worker", "state": "problem", "found": "missing", "advice": "build it"}, {"name": "git"}]}"#;
        let found = told("gpu", text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], ("gpu: device".to_owned(), true, "cuda:0".to_owned(), String::new()));
        assert_eq!((found[1].1, found[1].3.as_str()), (false, "build it"));
        assert!(!told("gpu", "")[0].1);
    }

    #[test]
    fn how_long_files_take_is_told_and_what_is_not_seen_is_a_problem() {
        let of = |there: Option<u64>, here: Option<u64>| {
            let delay = |milliseconds: Option<u64>| milliseconds.map(Duration::from_millis);
            seen("gpu", Delays { there: delay(there), here: delay(here) })
        };
        let (name, is_well, found, advice) = of(Some(20), Some(3000));
        assert_eq!((name.as_str(), is_well, advice.as_str()), ("gpu: files", true, ""));
        assert!(found.contains("seen there after 0.02 s") && found.contains("seen here after 3.00 s"), "{found}");
        let (_, is_well, _, advice) = of(Some(20), Some(30_000));
        assert!(is_well && advice.contains("actimeo"), "{advice}");
        let (_, is_well, found, _) = of(None, Some(20));
        assert!(!is_well && found.contains("written here is not seen there"), "{found}");
        let (_, is_well, found, _) = of(Some(20), None);
        assert!(!is_well && found.contains("written there is not seen here"), "{found}");
    }
}

//! `atflow doctor --executor`: runs `atflow doctor` on a machine of each class, and tells what it saw.

use std::path::Path;
use std::time::{Duration, Instant};

use atflow::cache::Cache;
use atflow::cluster::classes::ClusterFile;
use atflow::cluster::site::{Said, Submission, call};

use super::cluster_run::{check_executor, environment, own_program, pace, site_of};
use crate::args::{DoctorArgs, ExecutorName};
use crate::report::CliError;

/// How long a job of a class is waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// One thing that was looked at: its name, whether it is well, what was found, and advice.
pub(super) type Finding = (String, bool, String, String);

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
        found.extend(limits());
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
        // Its own shell, so that the answer appears whole. The file is the proof that both see the same folder.
        let script = "\"$1\" doctor --json --cache \"$2\" >\"$3.new\"; mv \"$3.new\" \"$3\"";
        let words = ["sh", "-c", script, "doctor", &program];
        let places = [cache.root().display().to_string(), answer.display().to_string()];
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
            Ok(jobs) => waiting.push((class.name.clone(), jobs, answer)),
            Err(error) => {
                found.push((class.name.clone(), false, error.to_string(), format!("see {}", path.display())));
            }
        }
    }
    let until = Instant::now() + LONGEST_WAIT;
    for (class, jobs, answer) in waiting {
        match wait(&answer, until) {
            Some(text) => found.extend(told(&class, &text)),
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

fn wait(answer: &Path, until: Instant) -> Option<String> {
    loop {
        if let Ok(text) = std::fs::read_to_string(answer) {
            return Some(text);
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
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

/// The limits of Slurm that matter to runs.
fn limits() -> Option<Finding> {
    let said: Said = call("scontrol", &["show".to_owned(), "config".to_owned()], "").ok()?;
    let value = |name: &str| {
        let line = said.out.lines().find(|line| line.split('=').next().is_some_and(|key| key.trim() == name))?;
        Some(format!("{name} {}", line.split_once('=')?.1.trim()))
    };
    let names = ["MinJobAge", "MaxArraySize", "MaxJobCount"];
    let values: Vec<String> = names.into_iter().filter_map(value).collect();
    (!values.is_empty()).then(|| ("limits".to_owned(), true, values.join(", "), String::new()))
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
        assert!(!told("gpu", "")[0].1 && wait(Path::new("/no/such"), Instant::now()).is_none());
    }
}

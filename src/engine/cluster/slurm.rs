//! Slurm as a site: job arrays through `sbatch`, one `squeue` for all runs of a user on a host, `scancel`.
//!
//! Needs no accounting (`sacct`): a job that Slurm has forgotten is judged by its agent's notes. Never calls `srun`.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::site::{JobState, Said, Site, SiteError, SiteJob, Submission, call};
use crate::digest::Digest;
use crate::shell_words::quoted;

/// Most elements of one array: Slurm's `MaxArraySize` is 1001 unless a site changes it.
const LARGEST_ARRAY: usize = 1000;

/// Most elements that a list of them is expanded to: more belong to somebody's other work.
const MOST_ELEMENTS: usize = 100_000;

/// Slurm sends TERM so many seconds before the end of a job's time, or a tenth of a short time.
const TERM_LEAD: u64 = 120;

/// Fields of `squeue`: name, state, reason, node, comment, folder. The folder may hold anything, so it is last.
const FORMAT: &str = "%i|%T|%r|%N|%k|%Z";

/// The Slurm that the commands on the search path belong to.
#[derive(Debug)]
pub struct Slurm {
    /// An answer of `squeue` that is younger is used again.
    fresh_for: Duration,
}

/// An answer of `squeue`, kept for the other runs of the user on this host.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    /// Milliseconds since 1970.
    at: u64,
    jobs: Vec<SiteJob>,
}

impl Slurm {
    /// Creates it. An answer of `squeue` serves all runs on this host for `fresh_for`.
    pub fn new(fresh_for: Duration) -> Self {
        Slurm { fresh_for }
    }
}

impl Site for Slurm {
    fn submit(&mut self, submission: &Submission<'_>) -> Result<Vec<String>, SiteError> {
        let count = submission.count.clamp(1, LARGEST_ARRAY);
        let said = asked("sbatch", &options(submission, count), &script(submission))?;
        // `123` or `123;cluster`, behind what plug-ins of the site may print.
        let id = said.out.lines().rev().find_map(|line| {
            let id = line.split(';').next().unwrap_or_default().trim();
            (!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit())).then(|| id.to_owned())
        });
        let unclear = || SiteError::Refused { program: "sbatch".to_owned(), said: one_line(&said.out) };
        let id = id.ok_or_else(unclear)?;
        Ok((0..count).map(|task| format!("{id}_{task}")).collect())
    }

    fn list(&mut self) -> Result<Option<Vec<SiteJob>>, SiteError> {
        let Some(folder) = private_folder() else { return squeue().map(Some) };
        // One Slurm, one answer: a user may have several.
        let name = Digest::of(std::env::var("SLURM_CONF").unwrap_or_default().as_bytes()).to_string();
        let path = folder.join(format!("squeue-{}.json", &name[..16]));
        let lock = File::options().create(true).append(true).open(path.with_extension("lock"));
        // Held until the answer is written: whoever waits for it then reads that. Without locks, each asks for itself.
        let _held = lock.and_then(|lock| lock.lock().map(|()| lock)).ok();
        let now = || {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        };
        let kept = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Answer>(&bytes).ok());
        let fresh_for = u64::try_from(self.fresh_for.as_millis()).unwrap_or(u64::MAX);
        // An answer from the future is of a clock that was set back.
        if let Some(kept) = kept.filter(|kept| now().checked_sub(kept.at).is_some_and(|age| age < fresh_for)) {
            return Ok(Some(kept.jobs));
        }
        let answer = Answer { at: now(), jobs: squeue()? };
        let new = path.with_extension("new");
        // Others ask again if it cannot be kept.
        if fs::write(&new, serde_json::to_vec(&answer).unwrap_or_default()).is_ok() {
            _ = fs::rename(new, &path);
        }
        Ok(Some(answer.jobs))
    }

    fn cancel(&mut self, jobs: &[String]) -> Result<(), SiteError> {
        for some in jobs.chunks(200) {
            let said = call("scancel", some, "")?;
            let is_gone = said.err.contains("Invalid job id") || said.err.contains("already completed");
            if said.code != Some(0) && !is_gone {
                return Err(error("scancel", &said));
            }
        }
        Ok(())
    }

    fn version(&mut self) -> Result<String, SiteError> {
        Ok(one_line(&asked("sbatch", &["--version".to_owned()], "")?.out))
    }

    fn can_wait(&self) -> bool {
        true
    }
}

fn squeue() -> Result<Vec<SiteJob>, SiteError> {
    let args = ["--me", "--noheader", "--states=all", "--format", FORMAT].map(str::to_owned);
    Ok(listed(&asked("squeue", &args, "")?.out))
}

/// A folder that nobody else can write to; `None` if there is none.
fn private_folder() -> Option<PathBuf> {
    let own = rustix::process::getuid().as_raw();
    let folder = std::env::temp_dir().join(format!("atflow-{own}"));
    _ = fs::DirBuilder::new().mode(0o700).create(&folder);
    // Somebody else may have made it first, or a link of that name.
    let metadata = fs::symlink_metadata(&folder).ok()?;
    (metadata.is_dir() && metadata.uid() == own && metadata.mode() & 0o022 == 0).then_some(folder)
}

/// Options of `sbatch` for an array of agents.
fn options(of: &Submission<'_>, count: usize) -> Vec<String> {
    let class = of.class;
    let minutes = class.time.as_secs().div_ceil(60).max(1);
    let logs = of.logs.display().to_string().replace('%', "%%");
    let mut options = vec![
        "--parsable".to_owned(),
        format!("--job-name=atflow-{}", class.name),
        format!("--array=0-{}", count - 1),
        "--requeue".to_owned(),
        "--open-mode=append".to_owned(),
        // To the batch script itself, which the agent replaces.
        format!("--signal=B:TERM@{}", term_lead(class.time)),
        format!("--comment={}", comment(of.run, &class.name)),
        // Nothing of this environment but what the script sets, and no log-in shell on the node (as NONE would start).
        "--export=NIL".to_owned(),
        "--nodes=1".to_owned(),
        "--ntasks=1".to_owned(),
        format!("--cpus-per-task={}", class.cpus),
        format!("--time={minutes}"),
        format!("--output={logs}/%A_%a.txt"),
    ];
    let mut set = |name: &str, value: Option<String>| options.extend(value.map(|value| format!("--{name}={value}")));
    set("mem", of.memory.map(|mebibytes| format!("{mebibytes}M")));
    set("partition", class.partition.clone());
    set("account", class.account.clone());
    set("qos", class.qos.clone());
    set("gres", class.gres.clone());
    let mut exclude: Vec<&str> = class.exclude_nodes.iter().chain(of.exclude).map(String::as_str).collect();
    exclude.sort_unstable();
    exclude.dedup();
    set("exclude", (!exclude.is_empty()).then(|| exclude.join(",")));
    // Jobs are waited for by their arrays.
    let mut after: Vec<&str> = of.after.iter().map(|job| job.split('_').next().unwrap_or_default()).collect();
    after.sort_unstable();
    after.dedup();
    set("dependency", (!after.is_empty()).then(|| format!("afterany:{}", after.join(":"))));
    // Last, so that they prevail.
    options.extend(class.sbatch.iter().cloned());
    options
}

/// Seconds before the end of a job's time at which its agent is told to stop.
pub fn term_lead(time: Duration) -> u64 {
    (time.as_secs() / 10).clamp(1, TERM_LEAD)
}

/// What the jobs of a class of a run are known by, should the answer of `sbatch` be lost.
pub fn comment(run: &str, class: &str) -> String {
    format!("atflow:{run}:{class}")
}

/// The batch script: the environment, the class's own lines, and the agent in the place of the shell.
fn script(of: &Submission<'_>) -> String {
    // Only a log-in shell knows `module`.
    let shell = if of.class.setup.is_some() { "#!/bin/bash -l" } else { "#!/bin/sh" };
    let mut lines = vec![shell.to_owned()];
    lines.extend(of.env.iter().map(|(name, value)| format!("export {name}={}", quoted(value))));
    lines.extend(of.class.setup.clone());
    let words: Vec<_> = of.agent.iter().map(|word| quoted(word)).collect();
    lines.push(format!("exec {}", words.join(" ")));
    lines.join("\n") + "\n"
}

fn asked(program: &str, args: &[String], input: &str) -> Result<Said, SiteError> {
    let said = call(program, args, input)?;
    if said.code == Some(0) { Ok(said) } else { Err(error(program, &said)) }
}

/// What a failed command means.
fn error(program: &str, said: &Said) -> SiteError {
    const AWAY: [&str; 8] = [
        "Unable to contact slurm controller",
        "Socket timed out",
        "Connection refused",
        "Connection timed out",
        "Slurm temporarily unable to accept job",
        "Unable to establish controller machine",
        "Zero Bytes were transmitted",
        "slurmctld in standby",
    ];
    const LIMITS: [&str; 7] = [
        "MaxSubmit",
        "QOSMax",
        "AssocMax",
        "AssocGrp",
        "QOSGrp",
        "Job violates accounting/QOS policy",
        "maximum number of jobs",
    ];
    let text = one_line(&said.err);
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&AWAY) {
        SiteError::Away { program: program.to_owned(), said: text }
    } else if has(&LIMITS) {
        SiteError::Limit { said: text }
    } else {
        let said = if text.is_empty() { format!("it ended with exit code {:?}", said.code) } else { text };
        SiteError::Refused { program: program.to_owned(), said }
    }
}

fn one_line(text: &str) -> String {
    let lines = text.lines().map(|line| line.trim().trim_start_matches("sbatch: ").trim_start_matches("error: "));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Reads what `squeue` printed, array elements one by one.
fn listed(text: &str) -> Vec<SiteJob> {
    let mut jobs = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(6, '|').map(str::trim);
        let mut next = || fields.next().unwrap_or_default();
        let (id, state, reason, node, comment) = (next(), next(), next(), next(), next());
        if id.is_empty() || state.is_empty() {
            continue;
        }
        let word = |word: &str| if ["None", "(null)", "N/A"].contains(&word) { String::new() } else { word.to_owned() };
        let job = |id| SiteJob {
            id,
            state: self::state(state),
            reason: word(reason),
            node: word(node),
            comment: word(comment),
        };
        jobs.extend(elements(id).into_iter().map(job));
    }
    jobs
}

/// Expands `12_[0-3,7%2]` to the names of its elements.
fn elements(id: &str) -> Vec<String> {
    let Some((array, list)) = id.split_once("_[") else { return vec![id.to_owned()] };
    let list = list.trim_end_matches(']');
    let list = list.split('%').next().unwrap_or_default();
    let mut elements = Vec::new();
    for range in list.split(',') {
        let (range, step) = range.split_once(':').unwrap_or((range, "1"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Ok(first), Ok(last), Ok(step)) = (first.parse::<usize>(), last.parse::<usize>(), step.parse::<usize>())
        else {
            continue;
        };
        let left = MOST_ELEMENTS.saturating_sub(elements.len());
        elements.extend((first..=last).step_by(step.max(1)).take(left).map(|task| format!("{array}_{task}")));
    }
    elements
}

/// Slurm's words for states.
fn state(word: &str) -> JobState {
    match word {
        "PENDING" | "CONFIGURING" | "RESV_DEL_HOLD" => JobState::Pending,
        "RUNNING" | "COMPLETING" | "SUSPENDED" | "STOPPED" | "STAGE_OUT" | "SIGNALING" | "RESIZING" => {
            JobState::Running
        }
        "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" => JobState::Requeued,
        "COMPLETED" => JobState::Completed,
        "FAILED" => JobState::Failed,
        "TIMEOUT" => JobState::TimedOut,
        "CANCELLED" => JobState::Cancelled,
        "NODE_FAIL" | "BOOT_FAIL" => JobState::NodeFailed,
        "OUT_OF_MEMORY" => JobState::OutOfMemory,
        "PREEMPTED" => JobState::Preempted,
        other => JobState::Other(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::classes::ClusterFile;
    use super::*;

    /// Recorded from Slurm 22.05.8.
    const RECORDED: &str = "\
2|FAILED|JobLaunchFailure|node2|(null)|/tmp/a|b
1_[2-4,9%2]|PENDING|JobArrayTaskLimit||atflow:RUN:gpu|/lab
1_0|RUNNING|None|node1|atflow:RUN:gpu|/lab
3_0|COMPLETING|None|node1|atflow:RUN:cpu|/lab
4|WHATEVER|None||x|/

";

    #[test]
    fn what_squeue_prints_is_read() {
        let jobs = listed(RECORDED);
        let told: Vec<String> =
            jobs.iter().map(|job| format!("{} {:?} {} {}", job.id, job.state, job.reason, job.node)).collect();
        assert_eq!(
            told,
            [
                "2 Failed JobLaunchFailure node2",
                "1_2 Pending JobArrayTaskLimit ",
                "1_3 Pending JobArrayTaskLimit ",
                "1_4 Pending JobArrayTaskLimit ",
                "1_9 Pending JobArrayTaskLimit ",
                "1_0 Running  node1",
                "3_0 Running  node1",
                "4 Other(\"WHATEVER\")  ",
            ]
        );
        assert_eq!((jobs[0].comment.as_str(), jobs[5].comment.as_str()), ("", "atflow:RUN:gpu"));
        assert_eq!(elements("7_[0-1000:250]"), ["7_0", "7_250", "7_500", "7_750", "7_1000"]);
        assert_eq!(elements("7_[0-99999999999]").len(), MOST_ELEMENTS);
        assert_eq!(elements("7_[x-3]"), [""; 0]);
    }

    #[test]
    fn what_sbatch_says_no_with_is_told_apart() {
        let of = |err: &str| error("sbatch", &Said { code: Some(1), out: String::new(), err: err.to_owned() });
        let recorded = "sbatch: error: invalid partition specified: nonexistent\nsbatch: error: Batch job submission \
                        failed: Invalid partition name specified";
        let SiteError::Refused { said, .. } = of(recorded) else { panic!("{:?}", of(recorded)) };
        assert_eq!(
            said,
            "invalid partition specified: nonexistent; Batch job submission failed: Invalid partition name specified"
        );
        let limit = "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job \
                     violates accounting/QOS policy (job submit limit, user's size and/or time limits)";
        assert!(matches!(of(limit), SiteError::Limit { .. }));
        let away = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)";
        assert!(matches!(of(away), SiteError::Away { .. }) && of(away).may_pass());
    }

    #[test]
    fn an_array_of_agents_is_asked_for() {
        let text = "classes: {gpu: {match: {}, time: 20 min, partition: a100, gres: 'gpu:1', cpus: 8, memory: 32G, \
                    exclude_nodes: [n9], sbatch: ['--constraint=x'], setup: module load cuda}}";
        let file = ClusterFile::from_text(Path::new("c.yaml"), text).unwrap();
        let agent = ["/opt/at flow", "agent"].map(str::to_owned);
        let env = [("PATH".to_owned(), "/bin:/it's".to_owned())];
        let (exclude, after) = (["n1".to_owned()], ["5_0", "5_1", "6_0"].map(str::to_owned));
        let submission = Submission {
            run: "R",
            class: &file.classes[0],
            count: 3,
            agent: &agent,
            env: &env,
            memory: Some(100),
            exclude: &exclude,
            after: &after,
            logs: Path::new("/lab/50%"),
        };
        assert_eq!(
            options(&submission, 3).join(" "),
            "--parsable --job-name=atflow-gpu --array=0-2 --requeue --open-mode=append --signal=B:TERM@120 \
             --comment=atflow:R:gpu --export=NIL --nodes=1 --ntasks=1 --cpus-per-task=8 --time=20 \
             --output=/lab/50%%/%A_%a.txt --mem=100M --partition=a100 --gres=gpu:1 --exclude=n1,n9 \
             --dependency=afterany:5:6 --constraint=x"
        );
        assert_eq!(
            script(&submission),
            "#!/bin/bash -l\nexport PATH=\"/bin:/it's\"\nmodule load cuda\nexec '/opt/at flow' agent\n"
        );
        assert_eq!([60, 600, 1200, 86_400].map(|seconds| term_lead(Duration::from_secs(seconds))), [6, 60, 120, 120]);
    }
}

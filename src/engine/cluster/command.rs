//! A site behind commands that its users name: PBS, LSF, SGE, Flux, HyperQueue, Kubernetes, SkyPilot, or a plain shell.
//!
//! One command is one agent. `docs/cluster.md` has commands for common sites.

use super::classes::Commands;
use super::site::{JobState, Said, Site, SiteError, SiteJob, Submission, call};
use crate::shell_words::quoted;

/// The site that the commands talk to.
#[derive(Debug)]
pub struct CommandSite {
    commands: Commands,
}

impl CommandSite {
    /// Creates it.
    pub fn new(commands: Commands) -> Self {
        CommandSite { commands }
    }
}

impl Site for CommandSite {
    fn submit(&mut self, submission: &Submission<'_>) -> Result<Vec<String>, SiteError> {
        let said = shell(&filled(&self.commands.submit, submission))?;
        // `Submitted job 12.` and `job/12 created` are of tools that cannot be made to say less.
        let last = said.out.split_whitespace().last().unwrap_or_default().trim_end_matches('.');
        if last.is_empty() {
            let said = "it printed no name of a job".to_owned();
            return Err(SiteError::Refused { program: "submit".to_owned(), said });
        }
        Ok(vec![last.to_owned()])
    }

    fn list(&mut self) -> Result<Option<Vec<SiteJob>>, SiteError> {
        let Some(list) = &self.commands.list else { return Ok(None) };
        Ok(Some(shell(list)?.out.lines().filter_map(listed).collect()))
    }

    fn cancel(&mut self, jobs: &[String]) -> Result<(), SiteError> {
        let Some(cancel) = &self.commands.cancel else { return Ok(()) };
        // One that has ended may be an error of the command. The others are ended all the same.
        let results: Vec<_> = jobs.iter().map(|job| shell(&cancel.replace("{job}", &quoted(job)))).collect();
        results
            .into_iter()
            .find(|result| matches!(result, Err(error) if error.may_pass()))
            .map_or(Ok(()), |first| first.map(drop))
    }

    fn version(&mut self) -> Result<String, SiteError> {
        Ok("commands of the file".to_owned())
    }
}

/// Puts the agent's command and what its class asks for into the command that submits.
fn filled(submit: &str, of: &Submission<'_>) -> String {
    let class = of.class;
    let set = of.env.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
    let words = of.agent.iter().map(|word| quoted(word).into_owned());
    let env: Vec<String> = set.collect();
    let mut agent: Vec<String> = Vec::new();
    if !env.is_empty() {
        agent.push("env".to_owned());
        agent.extend(env);
    }
    agent.extend(words);
    let mut agent = agent.join(" ");
    if let Some(setup) = &class.setup {
        agent = format!("sh -c {}", quoted(&format!("{}\nexec {agent}", setup.trim_end())));
    }
    let seconds = class.time.as_secs();
    // The whole as one word, for commands that take a script in quotes.
    let script = quoted(&agent).into_owned();
    [
        ("{script}", script),
        ("{class}", class.name.clone()),
        ("{cpus}", class.cpus.to_string()),
        ("{memory_mb}", of.memory.unwrap_or(0).to_string()),
        ("{seconds}", seconds.to_string()),
        ("{time}", format!("{:02}:{:02}:{:02}", seconds / 3600, seconds % 3600 / 60, seconds % 60)),
        ("{logs}", quoted(&of.logs.display().to_string()).into_owned()),
        // Last: a path may have braces.
        ("{agent}", agent),
    ]
    .into_iter()
    .fold(submit.to_owned(), |text, (name, value)| text.replace(name, &value))
}

/// Reads a line of a list: the name of a job, and perhaps its state.
fn listed(line: &str) -> Option<SiteJob> {
    let mut words = line.split_whitespace();
    let id = words.next()?.to_owned();
    let word = words.next().unwrap_or_default();
    let state = match word.to_ascii_uppercase().as_str() {
        "" | "R" | "E" | "RUN" | "RUNNING" | "ACTIVE" | "T" | "S" | "SUSPENDED" => JobState::Running,
        "Q" | "QW" | "H" | "W" | "PEND" | "PENDING" | "WAITING" | "SCHED" | "DEPEND" | "STARTING" => JobState::Pending,
        "C" | "F" | "DONE" | "COMPLETED" | "FINISHED" | "SUCCEEDED" | "COMPLETE" => JobState::Completed,
        "EXIT" | "FAILED" => JobState::Failed,
        "CANCELED" | "CANCELLED" => JobState::Cancelled,
        _ => JobState::Other(word.to_owned()),
    };
    Some(SiteJob { id, state, reason: String::new(), node: String::new(), comment: String::new() })
}

fn shell(command: &str) -> Result<Said, SiteError> {
    let said = call("sh", &["-c".to_owned(), command.to_owned()], "")?;
    if said.code == Some(0) {
        return Ok(said);
    }
    let last = said.err.lines().last().unwrap_or_default().to_owned();
    let program = command.split_whitespace().next().unwrap_or_default().to_owned();
    let code = said.code.map_or("a signal".to_owned(), |code| format!("exit code {code}"));
    let text = if last.is_empty() { format!("it ended with {code}") } else { last };
    // 127: there is no such program.
    if said.code == Some(127) {
        Err(SiteError::Refused { program, said: text })
    } else {
        Err(SiteError::Away { program, said: text })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::classes::ClusterFile;
    use super::*;

    fn site(commands: &str) -> (CommandSite, ClusterFile) {
        let text = format!(
            "executor: command\n{commands}\nclasses: {{a: {{match: {{}}, time: 90 min, cpus: 3, memory: 2G}}}}"
        );
        let file = ClusterFile::from_text(Path::new("c.yaml"), text).unwrap();
        (CommandSite::new(file.commands.clone().unwrap()), file)
    }

    fn submission<'a>(file: &'a ClusterFile, agent: &'a [String], env: &'a [(String, String)]) -> Submission<'a> {
        let class = &file.classes[0];
        let (exclude, after, logs) = (&[][..], &[][..], Path::new("/logs"));
        Submission { run: "R", class, count: 1, agent, env, memory: class.memory, exclude, after, logs }
    }

    #[test]
    fn an_agent_is_submitted_listed_and_cancelled_by_commands() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("submitted").display().to_string();
        let (mut site, cluster) = site(&format!(
            "submit: 'echo {{time}} {{cpus}} {{memory_mb}} {{class}} {{agent}} >>{file}; echo Submitted job 12.'\n\
             list: 'echo 12 R; echo; echo 13 Q; echo 14; echo 15 odd'\ncancel: 'echo cancel {{job}} >>{file}'"
        ));
        let agent = ["/opt/at flow", "agent"].map(str::to_owned);
        let env = [("A".to_owned(), "b c".to_owned())];
        assert_eq!(site.submit(&submission(&cluster, &agent, &env)).unwrap(), ["12"]);
        let jobs = site.list().unwrap().unwrap();
        let told: Vec<String> = jobs.iter().map(|job| format!("{} {:?}", job.id, job.state)).collect();
        assert_eq!(told, ["12 Running", "13 Pending", "14 Running", "15 Other(\"odd\")"]);
        site.cancel(&["12".to_owned(), "a b".to_owned()]).unwrap();
        let expected = "01:30:00 3 2048 a env A=b c /opt/at flow agent\ncancel 12\ncancel a b\n";
        assert_eq!(std::fs::read_to_string(file).unwrap(), expected);
    }

    #[test]
    fn what_goes_wrong_is_told_with_its_last_line() {
        let (mut site, cluster) = site("submit: 'echo one >&2; echo two >&2; false # {agent}'");
        let error = site.submit(&submission(&cluster, &[], &[])).unwrap_err();
        assert_eq!(error.to_string(), "`echo` does not reach the site: two");
        assert_eq!(site.list().unwrap(), None);
        let (mut site, cluster) = self::site("submit: 'true {agent}'");
        let error = site.submit(&submission(&cluster, &[], &[])).unwrap_err();
        assert!(error.to_string().contains("printed no name"), "{error}");
    }

    #[test]
    fn a_script_is_one_word() {
        let (_, cluster) = site("submit: 'q {script} {agent}'");
        let agent = ["a".to_owned()];
        let env = [("B".to_owned(), "c d".to_owned())];
        let text = filled("q {script}", &submission(&cluster, &agent, &env));
        assert_eq!(shlex::split(&text).unwrap(), ["q", "env B='c d' a"]);
    }
}

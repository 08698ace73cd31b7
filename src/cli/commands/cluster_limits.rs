//! The limits of a Slurm that matter to runs, for `atflow doctor`: of arrays, jobs, and of the user's accounts.

use atflow::cluster::classes::ClusterFile;
use atflow::cluster::site::call;

/// One thing that was looked at: its name, whether it is well, what was found, and advice.
pub(super) type Finding = (String, bool, String, String);

/// Asks Slurm for its limits, and compares the classes with them. Says nothing where Slurm does not answer.
pub(super) fn limits(cluster: &ClusterFile) -> Vec<Finding> {
    let asked = |program: &str, args: &[&str]| {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let said = call(program, &args, "").ok()?;
        (said.code == Some(0)).then_some(said.out)
    };
    let Some(config) = asked("scontrol", &["show", "config"]) else { return Vec::new() };
    // Only the data base of accounts knows the user's limits. Without one, `sacctmgr` fails.
    let has_accounts = value(&config, "AccountingStorageType").is_some_and(|plugin| plugin.ends_with("slurmdbd"));
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let accounts = user.filter(|_| has_accounts).and_then(|user| {
        let (user, format) = (format!("user={user}"), "format=Account,Partition,MaxSubmitJobs,MaxJobs");
        asked("sacctmgr", &["--noheader", "--parsable2", "show", "associations", &user, format])
    });
    findings(&config, accounts.as_deref().unwrap_or_default(), cluster)
}

/// A value of `scontrol show config`.
fn value<'a>(config: &'a str, name: &str) -> Option<&'a str> {
    let lines = config.lines().filter_map(|line| line.split_once('='));
    lines.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// What the answers of `scontrol` and `sacctmgr` mean.
fn findings(config: &str, accounts: &str, cluster: &ClusterFile) -> Vec<Finding> {
    let names = ["MaxArraySize", "MaxJobCount", "MinJobAge"];
    let mut limits: Vec<String> =
        names.iter().filter_map(|name| Some(format!("{name} {}", value(config, name)?))).collect();
    for line in accounts.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [account, partition, submit, jobs] = cells.as_slice() else { continue };
        let place = if partition.is_empty() { String::new() } else { format!(" in {partition}") };
        for (name, limit) in [("MaxSubmitJobs", submit), ("MaxJobs", jobs)] {
            if !limit.is_empty() {
                limits.push(format!("{name} {limit} (account {account}{place})"));
            }
        }
    }
    if limits.is_empty() {
        return Vec::new();
    }
    let mut found = vec![("limits".to_owned(), true, limits.join(", "), String::new())];
    // Agents are submitted as one array.
    if let Some(most) = value(config, "MaxArraySize").and_then(|size| size.parse::<usize>().ok()) {
        for class in cluster.classes.iter().filter(|class| class.max_agents > most) {
            let what = format!("`max_agents: {}` is more than an array of this Slurm may have", class.max_agents);
            let advice = format!("write `max_agents: {most}`, or less");
            found.push((format!("{}: agents", class.name), false, what, advice));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn cluster() -> ClusterFile {
        let text = "classes: {few: {match: {}, time: 1h, max_agents: 10}, many: {match: {}, time: 1h}}\n";
        ClusterFile::from_text(Path::new("c.yaml"), text).unwrap()
    }

    #[test]
    fn limits_are_told_and_a_class_that_exceeds_them_is_a_problem() {
        let config = "Configuration data\nMaxArraySize            = 1001\nMaxJobCount = 10000\nMinJobAge = 300 sec\n";
        let found = findings(config, "", &cluster());
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].2, "MaxArraySize 1001, MaxJobCount 10000, MinJobAge 300 sec");
        let accounts = "lab||50|\nother|gpu||8\nroot|||\n";
        let found = findings(&config.replace("1001", "10"), accounts, &cluster());
        assert!(
            found[0].2.ends_with(", MaxSubmitJobs 50 (account lab), MaxJobs 8 (account other in gpu)"),
            "{found:?}"
        );
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((found[1].0.as_str(), found[1].1), ("many: agents", false));
        assert_eq!(found[1].3, "write `max_agents: 10`, or less");
        assert_eq!(findings("", "", &cluster()), []);
    }
}

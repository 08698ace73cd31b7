//! What a shell completes: the words that it is given by the completion protocol.

use crate::support::{Ran, Space};

const PIPELINE: &str = "params: {eps: 8/255, net: {width: 16}}\nprofiles: {smoke: {eps: 4/255}}\nstages:\n\
    \x20 model: {kind: command, matrix: {variant: [standard, pgd]}, with: {run: 'echo ${variant} ${eps} > o', outputs: {o: o}}}\n\
    \x20 tested: {kind: command, needs: {model: model/pgd}, with: {run: 'echo > o', outputs: {o: o}}}\n";

/// The words that a shell offers in place of the last one.
fn offered(space: &Space, shell: &str, words: &[&str]) -> Vec<String> {
    let mut command = space.command(&[&["--", "atflow"], words].concat());
    command.env("ATFLOW_COMPLETE", shell).env("_CLAP_COMPLETE_INDEX", words.len().to_string()).env("_CLAP_IFS", "\n");
    let ran = Ran::of(command.output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{words:?}: {}", ran.seen());
    // fish and zsh get a description with each word.
    let word = |line: &str| line.split(['\t', ':']).next().unwrap_or_default().to_owned();
    ran.stdout.lines().map(word).collect()
}

#[test]
fn man_pages_tell_of_every_command() {
    let space = Space::new();
    let ran = space.run(&["man", "share/man1"]);
    assert_eq!(ran.stdout, "wrote share/man1/atflow.1\n", "{}", ran.seen());
    let page = |name: &str| std::fs::read_to_string(space.path().join("share/man1").join(name)).unwrap();
    assert!(page("atflow.1").contains("atflow\\-run(1)"), "{}", page("atflow.1"));
    assert!(page("atflow-run.1").contains("atflow run p.yaml"), "{}", page("atflow-run.1"));
    assert!(page("atflow-bundle-check.1").contains("Check every file of a bundle"));
    space.write("file", "");
    let ran = space.run(&["man", "file"]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
}

#[test]
fn stages_instances_parameters_and_profiles_are_completed_in_every_shell() {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    for shell in ["bash", "zsh", "fish"] {
        let offered = |words: &[&str]| offered(&space, shell, words);
        assert_eq!(offered(&["run", "p.yaml", "m"]), ["model", "model/standard", "model/pgd"], "{shell}");
        assert_eq!(offered(&["run", "p.yaml", "model/p"]), ["model/pgd"], "{shell}");
        assert_eq!(offered(&["plan", "p.yaml", "t"]), ["tested"], "{shell}");
        assert_eq!(offered(&["run", "p.yaml", "--set", "n"]), ["net.width="], "{shell}");
        assert_eq!(offered(&["run", "p.yaml", "--profile", ""]), ["smoke"], "{shell}");
        assert!(offered(&["pl"]).contains(&"plan".to_owned()), "{shell}");
    }
    assert_eq!(offered(&space, "bash", &["run", "p.yaml", "--set", "eps="]), ["eps=8/255"]);
}

#[test]
fn a_broken_pipeline_and_a_missing_one_offer_nothing_and_say_nothing() {
    let space = Space::new();
    space.write("p.yaml", "stages: {a: {kind: comand}}\n");
    assert!(offered(&space, "bash", &["run", "p.yaml", "a"]).is_empty());
    assert!(offered(&space, "bash", &["show", "a"]).is_empty());
    space.write("p.yaml", PIPELINE);
    space.ran(&["model"]);
    assert_eq!(offered(&space, "bash", &["show", "model/s"]), ["model/standard"], "of the last run");
}

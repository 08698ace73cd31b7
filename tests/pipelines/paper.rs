//! Stories of `paper.yaml` on tiny archives in the true formats: all of it, what one ε reaches, and a reviewer who
//! wants one table.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::support::{Run, atflow, pipeline, run_file};

/// Stages of the whole graph: data sets and files, 34 trainings, test sets, evaluations, tables and figures.
const STAGES: usize = 542;

fn tiny(folder: &Path, file: &Path, args: &[&str]) -> Run {
    run_file(folder, file, &[&["--profile", "tiny"], args].concat(), |_| {})
}

/// A copy of the pipelines that a test may edit.
fn copied(folder: &Path) -> PathBuf {
    for part in ["paper.yaml", "beyond.yaml", "paper", "published", "tiny"] {
        std::fs::create_dir_all(folder.join("pipelines")).unwrap();
        copy(&pipeline(part), &folder.join("pipelines").join(part));
    }
    folder.join("pipelines/paper.yaml")
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        std::fs::copy(from, to).unwrap();
    }
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{from}");
    std::fs::write(file, text.replace(from, to)).unwrap();
}

fn output(folder: &Path, args: &[&str]) -> Output {
    atflow().current_dir(folder).args(args).output().unwrap()
}

/// The stages that a plan names as not fresh.
fn planned(folder: &Path, file: &Path, args: &[&str]) -> BTreeSet<String> {
    let plan = [&["plan", file.to_str().unwrap(), "--profile", "tiny", "--json"], args].concat();
    let output = output(folder, &plan);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let stages = plan["stages"].as_array().unwrap();
    let moved = stages.iter().filter(|stage| stage["state"] != "fresh");
    moved.map(|stage| stage["name"].as_str().unwrap().to_owned()).collect()
}

/// The digest of every checkpoint in the cache, by its stage.
fn checkpoints(folder: &Path) -> BTreeMap<String, String> {
    let files = std::fs::read_dir(folder.join("cache/actions")).unwrap().map(|folder| folder.unwrap().path());
    let manifests = files.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()));
    let read = |path: PathBuf| -> Option<(String, String)> {
        let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let digest = manifest["outputs"]["checkpoint"]["digest"].as_str()?;
        Some((manifest["made"]["stage"].as_str()?.to_owned(), digest.to_owned()))
    };
    manifests.filter_map(read).collect()
}

/// Any static web server will do.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn of(folder: &Path) -> Self {
        let mut command = Command::new("python3");
        command.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"]).arg(folder);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        // Serving HTTP on 127.0.0.1 port 40001 (http://127.0.0.1:40001/) ...
        let url = line.split(['(', ')']).nth(1).unwrap_or_else(|| panic!("{line}")).to_owned();
        Server { process, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

#[test]
fn the_paper_in_small_runs_once_and_a_radius_a_reviewer_and_further_tables_reuse_it() {
    let lab = tempfile::tempdir().unwrap();
    let file = copied(lab.path());
    let all = tiny(lab.path(), &file, &[]);
    assert_eq!(all.code, Some(0), "{}", all.stderr);
    assert_eq!(all.stages.len(), STAGES);
    assert_eq!(all.stages.keys().filter(|name| name.contains("-model/")).count(), 34);
    // Were two of them one network, a mix-up of the two would be seen by nobody.
    let networks = checkpoints(lab.path());
    assert_eq!(networks.len(), 34, "{networks:#?}");
    let distinct: BTreeSet<&String> = networks.values().collect();
    assert_eq!(distinct.len(), 34, "{networks:#?}");
    let results = lab.path().join("results/paper@tiny");
    for table in 1..=8 {
        for ending in ["md", "csv", "json", "tex"] {
            assert!(results.join(format!("table{table}.{ending}")).exists(), "table {table} {ending}");
        }
    }
    for figure in 1..=10 {
        let both = [2, 3, 5, 7, 9, 10].contains(&figure);
        for set in if both { &["-caltech-256", "-tiny-imagenet"][..] } else { &[""] } {
            let picture = std::fs::read(results.join(format!("figure{figure}{set}.png"))).unwrap();
            assert_eq!(&picture[1..4], b"PNG", "figure {figure}{set}");
        }
    }
    // The untransformed set has its point, where all that was right is right.
    for (figure, original) in [("figure5-caltech-256", "standard,2,2,"), ("figure7-tiny-imagenet", "standard,1,1,")] {
        let numbers = std::fs::read_to_string(results.join(format!("{figure}.csv"))).unwrap();
        let line = numbers.lines().find(|line| line.starts_with(original)).unwrap_or_else(|| panic!("{numbers}"));
        assert!(
            line.contains(",1.000000,,,") && line.ends_with(",true"),
            "no interval of what is so by definition: {line}"
        );
    }
    let distances = std::fs::read_to_string(results.join("saliency-distance.md")).unwrap();
    assert!(distances.contains("| st-at |"), "{distances}");

    let again = tiny(lab.path(), &file, &[]);
    assert_eq!((again.code, again.ran()), (Some(0), vec![]), "nothing changed");

    // One radius: its model, that model's tests and maps, and what is made of them. Other sets, and tables of other
    // models, are fresh.
    let set = lab.path().join("pipelines/paper/caltech-256.yaml");
    edit(&set, "fgsm, eps: 4/255}", "fgsm, eps: 3/255}");
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let levels = ["0.25", "0.5", "1", "4", "8", "16", "64", "1024"].map(|level| format!("saturated-{level}"));
    let tested = ["shuffled-2", "shuffled-4", "shuffled-8", "stylized"].map(str::to_owned).into_iter().chain(levels);
    reached.extend(tested.map(|set| format!("caltech-256-tested/fgsm-4/caltech-256-{set}")));
    reached.extend(
        [
            "caltech-256-model/fgsm-4",
            "caltech-256-tested/fgsm-4/caltech-256.test",
            "caltech-256-attacked/fgsm-4",
            "table1",
            "table2",
            "table4",
            "table7",
            "figure5/caltech-256",
            "figure6",
            "figure7/caltech-256",
            "figure9/caltech-256",
            "figure10/caltech-256",
            "saliency-distance",
        ]
        .map(str::to_owned),
    );
    assert_eq!(planned(lab.path(), &file, &[]), reached);
    edit(&set, "fgsm, eps: 3/255}", "fgsm, eps: 4/255}");
    assert_eq!(planned(lab.path(), &file, &[]), BTreeSet::new(), "the radius is back");

    // What is not known of one data set can be tried without the others.
    let tried = [
        "tiny_imagenet_adversarial.epochs=5",
        "tiny_imagenet_clean.epochs=5",
        "tiny_imagenet_head=keep",
        "tiny_imagenet_net.classes=1000",
        "tiny_imagenet_batch_size=8",
        "tiny_imagenet_l2.weak=0.5",
    ];
    let set: Vec<&str> = tried.iter().flat_map(|value| ["--set", value]).collect();
    let reached = planned(lab.path(), &file, &set);
    let own = |name: &&String| name.starts_with("cifar10") || name.contains("caltech-256");
    assert_eq!(reached.iter().find(own), None);
    assert_eq!(reached.iter().filter(|name| name.starts_with("tiny-imagenet-model/")).count(), 11);
    let restyled = planned(lab.path(), &file, &["--set", "stylization=0.5"]);
    assert!(restyled.contains("caltech-256-stylized") && restyled.contains("tiny-imagenet-stylized"), "{restyled:?}");
    assert_eq!(restyled.iter().find(|name| name.contains("model/")), None);

    // A mock-up has no verdicts. Were it none, a number far from the published one would be another exit code.
    let verify = || output(lab.path(), &["verify", file.to_str().unwrap(), "table4", "--profile", "tiny"]);
    assert_eq!(verify().status.code(), Some(0));
    let marked = "    mockup: true\n    cifar10_archive: {path:";
    edit(&file, marked, "    cifar10_archive: {path:");
    assert_eq!(tiny(lab.path(), &file, &["table4"]).ran(), ["table4"]);
    let verified = verify();
    edit(&file, "    cifar10_archive: {path:", marked);
    let words = String::from_utf8_lossy(&verified.stdout) + String::from_utf8_lossy(&verified.stderr);
    assert_eq!(verified.status.code(), Some(3), "{words}");
    assert!(words.contains("published") && words.contains("table4"), "{words}");

    // What goes beyond the paper shares with it what is the same, the trainings of the first seed included.
    let beyond = tiny(lab.path(), &file.with_file_name("beyond.yaml"), &[]);
    assert_eq!(beyond.code, Some(0), "{}", beyond.stderr);
    let anew: Vec<&str> = beyond.ran().into_iter().filter(|stage| all.stages.contains_key(*stage)).collect();
    assert_eq!(anew, [""; 0], "stages of the paper");
    let of_seed = |seed: &str| {
        let prefix = format!("cifar10-seeded/{seed}/");
        beyond.ran().iter().filter(|stage| stage.starts_with(&prefix)).count()
    };
    assert_eq!((of_seed("0"), of_seed("1")), (0, 11));
    let results = lab.path().join("results/beyond@tiny");
    for table in ["autoattack", "shape-bias", "seeds", "against-standard-caltech-256", "masking-fgsm-8"] {
        assert!(results.join(format!("{table}.md")).exists(), "{table}");
    }
    // Clean, PGD and AutoAttack are of the same images, and the report says whose it is.
    let read = |name: &str| std::fs::read_to_string(results.join(name)).unwrap();
    let table = read("autoattack.md");
    assert!(table.contains("Caltech-256 clean") && table.contains("n = 8 images."), "{table}");
    let report = read("masking-fgsm-8.md");
    assert!(report.starts_with("# Masked gradients on Tiny ImageNet: fgsm-8 (mock-up"), "{report}");
    assert!(report.contains("ε = 8/255 (0.031373)"), "{report}");
    assert!(read("masking-fgsm-8.json").contains(r#""eps_written": "8/255""#));
    for picture in
        ["low-frequencies", "high-frequencies", "conflict-samples-tiny-imagenet", "learning-curves-caltech-256"]
    {
        assert!(results.join(format!("{picture}.png")).exists(), "{picture}");
    }

    // A reviewer with an empty cache, no worker and a web server with a copy of the lab's cache.
    let server = Server::of(&lab.path().join("cache"));
    let reviewer = tempfile::tempdir().unwrap();
    let args = ["table2", "--profile", "tiny", "--from", "predictions", "--remote", &server.url];
    let made = run_file(reviewer.path(), &file, &args, |command| _ = command.env("ATFLOW_WORKER", "/nonexistent"));
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert_eq!(made.ran(), ["table2"], "the table is assembled here, whatever the lab has of it");
    let table = |folder: &Path| std::fs::read(folder.join("results/paper@tiny/table2.md")).unwrap();
    assert_eq!(table(reviewer.path()), table(lab.path()));
    // The same where the lab has predictions and no table: it is assembled here.
    let other = tempfile::tempdir().unwrap();
    let args = [&args[..], &["--force", "table2"]].concat();
    let made = run_file(other.path(), &file, &args, |command| _ = command.env("ATFLOW_WORKER", "/nonexistent"));
    assert_eq!((made.code, made.ran()), (Some(0), vec!["table2"]), "{}", made.stderr);
    assert_eq!(table(other.path()), table(lab.path()));
    let fetched = std::fs::read_dir(other.path().join("cache/objects")).unwrap().count();
    assert!(fetched > 0);
}

#[test]
fn the_fast_profile_differs_in_arithmetic_alone_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (paper, beyond) = (pipeline("paper.yaml"), pipeline("beyond.yaml"));
    let plan = |file: &Path, profile: &[&str]| -> serde_json::Value {
        let output = output(folder.path(), &[&["plan", file.to_str().unwrap(), "--json"], profile].concat());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let fast = ["--profile", "fast"];
    for file in [&paper, &beyond] {
        let (default, fast) = (plan(file, &[]), plan(file, &fast));
        assert_eq!(fast["stages"], default["stages"], "the same stages");
        // Some processors have no instructions for 16 bits, and a plan says so.
        let of_pipeline = |plan: &serde_json::Value| -> Vec<serde_json::Value> {
            let warnings = plan["warnings"].as_array().unwrap().iter();
            warnings.filter(|warning| warning["name"] != "slow-search").cloned().collect()
        };
        assert_eq!((of_pipeline(&default), of_pipeline(&fast)), (Vec::new(), Vec::new()));
    }
    assert_eq!(plan(&paper, &fast)["stages"].as_array().unwrap().len(), STAGES);
    // Every table and figure has its title from a profile, too.
    for file in [&paper, &beyond] {
        let text = std::fs::read_to_string(file).unwrap();
        let titles: Vec<&str> =
            text.lines().filter(|line| line.contains("title: \"") && !line.contains("x_title")).collect();
        assert!(titles.len() > 8 && titles.iter().all(|line| line.contains("${how}\"")), "{titles:#?}");
    }
    let title = |profile: &[&str]| {
        let shown = output(folder.path(), &[&["table", paper.to_str().unwrap(), "table6"], profile].concat());
        String::from_utf8(shown.stdout).unwrap().lines().next().unwrap_or_default().to_owned()
    };
    let default = title(&[]);
    assert!(default.ends_with("saturated CIFAR-10"), "{default}");
    assert_eq!(title(&fast), format!("{default} (profile fast: trained and attacked with 16-bit floats)"));
}

#[test]
fn a_table_is_shown_before_anything_ran_with_every_cell_marked() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline("paper.yaml");
    let shown = output(folder.path(), &["table", file.to_str().unwrap(), "table4", "--profile", "tiny"]);
    let words = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(shown.status.code(), Some(0), "{}", String::from_utf8_lossy(&shown.stderr));
    assert!(words.contains("| ↳ published |") && words.contains("32.84"), "{words}");
    assert!(words.contains("missing"), "{words}");
    // What the small profile makes is no number of the paper's size, not even a stale one.
    let first = tiny(
        folder.path(),
        &file,
        &["cifar10-tested/standard/cifar10-saturated-1024", "cifar10-tested/standard/cifar10.test"],
    );
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let table6 = |args: &[&str]| {
        let shown = output(folder.path(), &[&["table", file.to_str().unwrap(), "table6"], args].concat());
        String::from_utf8(shown.stdout).unwrap()
    };
    let full = table6(&[]);
    assert!(full.contains("88 missing") && !full.contains("stale"), "{full}");
    assert!(table6(&["--profile", "tiny"]).contains("87 missing"), "{}", table6(&["--profile", "tiny"]));
}

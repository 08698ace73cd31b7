//! A run that is given away: as an RO-Crate, and as a bundle that somebody else checks, unpacks and reruns.

use std::collections::BTreeMap;
use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use crate::depth;
use crate::support::{Ran, Space, predictions};

const PIPELINE: &str = r#"pipeline: story
include: parts/names.yaml
params: {eps: 8/255, unused: 1}
stages:
  attacked:
    kind: command
    matrix: {model: [standard, pgd]}
    needs: {list: names}
    with: {run: "echo $HOME; cp $HOME/${model} ${out.predictions} # ${eps}", outputs: {predictions: p}}
  robustness:
    kind: table
    needs: {results: attacked}
    with: {title: Robustness, rows: attacked.model, columns: [{label: PGD, where: {stage: attacked}}]}
"#;

const NAMES: &str = r#"stages:
  names: {kind: command, with: {run: "cp ${file.names.txt} ${out.list}", files: [names.txt], outputs: {list: list}}}
"#;

fn space() -> Space {
    let space = Space::new();
    space.write("exp/p.yaml", PIPELINE);
    space.write("exp/parts/names.yaml", NAMES);
    space.write("exp/parts/names.txt", "standard pgd");
    for (name, right) in [("standard", 20), ("pgd", 150)] {
        space.write(name, predictions(right));
    }
    good(&space, &["run", "exp/p.yaml"]);
    space
}

fn good(space: &Space, args: &[&str]) -> Ran {
    let ran = Ran::of(space.command(args).env("USER", "ann").output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    ran
}

/// Whether an error says something. Its lines are broken anywhere, so white space does not count.
fn tells(ran: &Ran, words: &str) -> bool {
    let squashed = |text: &str| text.replace("\n  | ", "").split_whitespace().collect::<String>();
    squashed(&ran.stderr).contains(&squashed(words))
}

/// All files below a folder of a space, by their paths in it.
fn files(space: &Space, folder: &str) -> BTreeMap<String, Vec<u8>> {
    let root = space.path().join(folder);
    let mut open = vec![root.clone()];
    let mut files = BTreeMap::new();
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// The entities of a crate by their ids.
fn entities(space: &Space, folder: &str) -> BTreeMap<String, Json> {
    let text = space.read(&format!("{folder}/ro-crate-metadata.json"));
    let document: Json = serde_json::from_str(&text).unwrap();
    let list = document["@graph"].as_array().unwrap().iter();
    list.map(|entity| (entity["@id"].as_str().unwrap().to_owned(), entity.clone())).collect()
}

#[test]
fn a_crate_says_what_made_what() {
    let space = space();
    let ran = good(&space, &["report", "exp/p.yaml", "--crate", "crate", "--license", "CC-BY-4.0"]);
    assert!(ran.stdout.ends_with("results/story/report.html\ncrate\n"), "{}", ran.stdout);
    let held = files(&space, "crate");
    for (copy, original) in [
        ("pipeline/p.yaml", "exp/p.yaml"),
        ("pipeline/parts/names.yaml", "exp/parts/names.yaml"),
        ("results/robustness.csv", "results/story/robustness.csv"),
        ("report.html", "results/story/report.html"),
    ] {
        assert_eq!(held[copy], std::fs::read(space.path().join(original)).unwrap(), "{copy}");
    }
    let entities = entities(&space, "crate");
    let root = &entities["./"];
    assert_eq!(root["mainEntity"]["@id"], "pipeline/p.yaml");
    assert_eq!(root["license"]["@id"], "https://spdx.org/licenses/CC-BY-4.0");
    let parts = root["hasPart"].as_array().unwrap();
    for name in held.keys().filter(|name| *name != "ro-crate-metadata.json") {
        assert!(parts.contains(&json!({ "@id": name })), "{name} is a part");
    }
    // The table came from the two predictions, which are named and not copied.
    let made = &entities["#action/robustness"];
    assert_eq!(made["actionStatus"], "http://schema.org/CompletedActionStatus");
    assert_eq!(made["agent"]["@id"], "#person/ann");
    assert_eq!(made["object"].as_array().unwrap().len(), 2);
    let blob = made["object"][0]["@id"].as_str().unwrap();
    assert!(blob.starts_with("#blake3-") && entities[blob]["contentSize"].is_string(), "{made}");
    assert!(made["result"].as_array().unwrap().contains(&json!({ "@id": "results/robustness.csv" })), "{made}");
    // The parameter reached the stage that names it, and no other.
    let object = entities["#action/attacked/pgd"]["object"].clone();
    assert!(object.as_array().unwrap().contains(&json!({ "@id": "#parameter/eps" })), "{object}");
    assert_eq!(entities["#parameter/eps"]["value"], "8/255");
    assert!(!entities.contains_key("#parameter/unused"));
    let connection = &entities["#connection/input/eps/to/tool/attacked/input/eps"];
    assert_eq!(connection["sourceParameter"]["@id"], "pipeline/p.yaml#input/eps");
    // The source is known by its digest.
    let source = entities["#action/names"]["object"]["@id"].as_str().unwrap();
    let digest = atflow::digest::Digest::of(b"standard pgd");
    assert_eq!(source, format!("#blake3-{digest}"));

    // The same results, the same bytes.
    good(&space, &["report", "exp/p.yaml", "--crate", "again", "--license", "CC-BY-4.0"]);
    assert_eq!(files(&space, "again"), held);
}

#[test]
fn a_crate_is_not_made_of_a_pipeline_that_gives_other_results_now() {
    let space = space();
    space.write("exp/p.yaml", PIPELINE.replace("8/255", "4/255"));
    let ran = space.run(&["report", "exp/p.yaml", "--crate", "crate"]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    let words = "3 of its instances have other results now: attacked/pgd, attacked/standard, robustness";
    assert!(tells(&ran, words), "{}", ran.stderr);
    assert!(!space.path().join("crate").exists());
    // A comment changes no result.
    space.write("exp/p.yaml", format!("# a comment\n{PIPELINE}"));
    good(&space, &["report", "exp/p.yaml", "--crate", "crate"]);
    let license = &entities(&space, "crate")["#license"];
    assert!(license["description"].as_str().unwrap().contains("stated no licence"), "{license}");
    // What is there is not overwritten.
    let ran = space.run(&["report", "exp/p.yaml", "--crate", "crate"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("crate is there already"), "{}", ran.seen());
}

/// Runs with the worker of the stories about depths.
fn with_worker(space: &Space, worker: &Space, args: &[&str]) -> Ran {
    let mut command = space.command(args);
    command.env("ATFLOW_WORKER", worker.path().join("worker")).env("HOME", worker.path());
    Ran::of(command.output().unwrap())
}

#[test]
fn a_bundle_is_rerun_in_an_empty_folder_and_gives_the_same() {
    let author = depth::space();
    let ran = with_worker(&author, &author, &["run", "p.yaml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    for with in ["predictions", "checkpoints"] {
        let bundle = format!("{with}.tar.zst");
        good(&author, &["bundle", "p.yaml", "-o", &bundle, "--with", with]);
        let reader = Space::new();
        std::fs::copy(author.path().join(&bundle), reader.path().join(&bundle)).unwrap();
        let ran = good(&reader, &["bundle", "check", &bundle]);
        assert!(ran.stdout.contains("every digest is right"), "{}", ran.stdout);
        good(&reader, &["bundle", "unpack", &bundle, "-o", "got"]);
        for name in ["REPRODUCE.md", "report.html", "ro-crate-metadata.json", "pipeline/images", "results/table.csv"] {
            assert!(reader.path().join("got").join(name).exists(), "{name}");
        }
        // As REPRODUCE.md says.
        let command = format!("atflow run pipeline/p.yaml --remote published --from {with}");
        assert!(reader.read("got/REPRODUCE.md").contains(&command), "{}", reader.read("got/REPRODUCE.md"));
        let mut run = reader.command(&command.split(' ').skip(1).collect::<Vec<_>>());
        run.current_dir(reader.path().join("got"));
        if with == "checkpoints" {
            run.env("ATFLOW_WORKER", author.path().join("worker")).env("HOME", author.path());
        }
        let ran = Ran::of(run.output().unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.seen());
        assert!(ran.stderr.contains("identical to the published ones"), "{}", ran.stderr);
        let again = std::fs::read(reader.path().join("got/results/p/table.json")).unwrap();
        assert_eq!(again, std::fs::read(author.path().join("results/p/table.json")).unwrap());
    }
    // What the depth does not need is not in it.
    let (shallow, deep) = (packed(&author, "predictions.tar.zst"), packed(&author, "checkpoints.tar.zst"));
    let blobs = |files: &BTreeMap<String, Vec<u8>>| files.keys().filter(|name| name.contains("/objects/")).count();
    assert_eq!(blobs(&deep) - blobs(&shallow), 2, "two checkpoints");
    // The same results, the same bytes.
    let first = std::fs::read(author.path().join("predictions.tar.zst")).unwrap();
    good(&author, &["bundle", "p.yaml", "-o", "predictions.tar.zst", "--with", "predictions"]);
    assert!(std::fs::read(author.path().join("predictions.tar.zst")).unwrap() == first);
}

/// The files of a bundle.
fn packed(space: &Space, name: &str) -> BTreeMap<String, Vec<u8>> {
    let file = std::fs::File::open(space.path().join(name)).unwrap();
    let mut archive = tar::Archive::new(zstd::Decoder::new(file).unwrap());
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

/// Writes an archive with these members, the index first.
fn repack(space: &Space, name: &str, members: &[(String, tar::EntryType, Vec<u8>)]) {
    let file = std::fs::File::create(space.path().join(name)).unwrap();
    let mut archive = tar::Builder::new(zstd::Encoder::new(file, 1).unwrap());
    for (path, kind, bytes) in members {
        let mut header = tar::Header::new_ustar();
        // `set_path` refuses what a hostile archive has.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append(&header, bytes.as_slice()).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap();
}

#[test]
fn a_bundle_that_is_not_as_its_index_says_is_refused_and_leaves_nothing() {
    let space = space();
    good(&space, &["bundle", "exp/p.yaml", "-o", "b.tar.zst", "--with", "predictions"]);
    let files = packed(&space, "b.tar.zst");
    let index = files["b/bundle.json"].clone();
    let regular = tar::EntryType::Regular;
    let member = |name: &str, bytes: &[u8]| (name.to_owned(), regular, bytes.to_vec());
    // Names of blobs and manifests are longer than the plain field of a header.
    let short = |name: &&String| name.len() < 100 && *name != "b/bundle.json";
    let rest: Vec<_> = files.keys().filter(short).map(|name| member(name, &files[name])).collect();
    let whole = [vec![member("b/bundle.json", &index)], rest].concat();
    let with = |extra: (String, tar::EntryType, Vec<u8>)| [whole.clone(), vec![extra]].concat();
    let mut edited = whole.clone();
    let words = edited.iter_mut().find(|(name, ..)| name == "b/REPRODUCE.md").unwrap();
    words.2.make_ascii_uppercase();
    let huge = |text: &str| {
        let mut index: Json = serde_json::from_str(text).unwrap();
        index["files"]["run.json"]["size"] = (u64::MAX / 2).into();
        index.to_string()
    };
    let huge = huge(std::str::from_utf8(&index).unwrap());
    let other_format = String::from_utf8(index.clone()).unwrap().replace("bundle/1", "bundle/9");
    for (members, why) in [
        (whole[..whole.len() - 1].to_vec(), "it lacks `"),
        (edited, "`b/REPRODUCE.md` has other bytes than its index says"),
        (with(member("b/extra", b"x")), "`b/extra` is not in its index"),
        (with(member("b/../../escaped", b"x")), "leads out of the archive"),
        (with(member("/escaped", b"x")), "leads out of the archive"),
        (with(member("c/run.json", b"x")), "lies outside of its folder"),
        (with(member("b/run.json", &files["b/run.json"])), "`b/run.json` comes twice"),
        (with(("b/link".to_owned(), tar::EntryType::Symlink, Vec::new())), "`b/link` is no regular file"),
        (with(("b/long".to_owned(), tar::EntryType::GNULongName, vec![b'a'; 300])), "is no regular file"),
        (whole[1..].to_vec(), "it does not begin with bundle.json"),
        (vec![member("b/bundle.json", other_format.as_bytes())], "it has the format `bundle/9`"),
        (vec![member("b/bundle.json", b"[]")], "it has the format `none`"),
    ] {
        repack(&space, "bad.tar.zst", &members);
        for args in [["bundle", "check"], ["bundle", "unpack"]] {
            let ran = space.run(&[args[0], args[1], "bad.tar.zst"]);
            assert_eq!(ran.code, Some(2), "{why}: {}", ran.seen());
            assert!(tells(&ran, why), "{why}: {}", ran.stderr);
        }
        assert!(!space.path().join("bad").exists() && !space.path().join("escaped").exists(), "{why}");
    }
    // What would fill the disk is not begun.
    repack(&space, "bad.tar.zst", &[vec![member("b/bundle.json", huge.as_bytes())], whole[1..].to_vec()].concat());
    let ran = space.run(&["bundle", "unpack", "bad.tar.zst"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("it unfolds to"), "{}", ran.seen());
    let bundle = std::fs::read(space.path().join("b.tar.zst")).unwrap();
    for bytes in [&bundle[..bundle.len() / 2], b"no archive", b""] {
        space.write("bad.tar.zst", bytes);
        let ran = space.run(&["bundle", "unpack", "bad.tar.zst"]);
        assert!(ran.code == Some(2) && ran.stderr.contains("is refused"), "{}", ran.seen());
        assert!(!space.path().join("bad").exists());
    }
    let left = std::fs::read_dir(space.path()).unwrap();
    let left = left.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".atflow"));
    assert_eq!(left.count(), 0, "nothing is left of what was refused");
}

#[test]
fn the_command_that_a_bundle_asks_for_is_the_one_that_helps() {
    let space = space();
    let asked = ["exp/p.yaml", "robustness", "--set", "eps=4/255 ", "--cache", "other cache"];
    let packed = || space.run(&[&["bundle", "-o", "b.tar.zst"], &asked[..]].concat());
    good(&space, &["run", "exp/p.yaml", "names", "--cache", "other cache"]);
    let ran = packed();
    let command = "atflow run exp/p.yaml robustness --set 'eps=4/255 ' --cache 'other cache'";
    assert!(ran.code == Some(2) && tells(&ran, command), "{}", ran.seen());
    good(&space, &[&["run"], &asked[..]].concat());
    assert_eq!(packed().code, Some(0));
}

#[test]
fn a_source_at_an_absolute_path_is_in_no_bundle() {
    let space = Space::new();
    let file = space.write("data", "x").display().to_string();
    space.write("p.yaml", format!("stages: {{a: {{kind: file, with: {{source: {{path: {file}}}}}}}}}\n"));
    good(&space, &["run", "p.yaml"]);
    let ran = space.run(&["bundle", "p.yaml", "-o", "b.tar.zst"]);
    assert!(ran.code == Some(2) && tells(&ran, "a path relative to the pipeline file"), "{}", ran.seen());
    assert!(!space.path().join("b.tar.zst").exists());
    // As it is for a source that only a person may fetch: its digest stands for it.
    let with = |more: &str| {
        let source = format!("{{path: data, by_hand: \"ask Ann\"{more}}}");
        space.write("p.yaml", format!("stages: {{a: {{kind: file, with: {{source: {source}}}}}}}\n"));
        good(&space, &["run", "p.yaml"]);
        space.run(&["bundle", "p.yaml", "-o", "b.tar.zst"])
    };
    let ran = with("");
    assert!(ran.code == Some(2) && tells(&ran, "write `sha256:` beside its path"), "{}", ran.seen());
    let sha256 = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    let ran = with(&format!(", sha256: {sha256}"));
    assert!(ran.code == Some(0) && tells(&ran, "not in it: data: ask Ann"), "{}", ran.seen());
    let files = packed(&space, "b.tar.zst");
    assert!(!files.contains_key("b/pipeline/data") && !files.keys().any(|name| name.contains("/objects/")));
    let words = String::from_utf8(files["b/REPRODUCE.md"].clone()).unwrap();
    assert!(words.contains("- `data`: ask Ann"), "{words}");
}

#[test]
fn nothing_private_leaves_in_a_bundle() {
    let space = space();
    let home = space.path().display().to_string();
    let comment = format!("# from https://user:swordfish@host/x?sig=tuna and {home}/private, token-12345678\n");
    space.write("exp/p.yaml", comment + PIPELINE);
    let bundle = |args: &[&str]| {
        let all = [&["bundle", "exp/p.yaml", "-o", "b.tar.zst"], args].concat();
        Ran::of(space.command(&all).env("HF_TOKEN", "token-12345678").output().unwrap())
    };
    let ran = bundle(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    assert!(tells(&ran, "the copy of exp/p.yaml has *** or ~ for what is private"), "{}", ran.stderr);
    let files = packed(&space, "b.tar.zst");
    let text = String::from_utf8_lossy(&files["b/pipeline/p.yaml"]).into_owned();
    assert!(text.starts_with("# from https://***@host/x?*** and ~/private, ***\n"), "{text}");
    for (name, bytes) in &files {
        let text = String::from_utf8_lossy(bytes);
        for secret in ["swordfish", "tuna", "token-12345678", &home] {
            assert!(!text.contains(secret), "{name} has {secret}");
        }
    }
    // The report's data are packed once more.
    let report = String::from_utf8(files["b/report.html"].clone()).unwrap();
    let (_, data) = report.split_once("<script type=\"application/octet-stream\" id=\"data\">").unwrap();
    let packed_data = STANDARD.decode(data.split_once('<').unwrap().0.trim()).unwrap();
    let mut data = String::new();
    flate2::read::GzDecoder::new(packed_data.as_slice()).read_to_string(&mut data).unwrap();
    assert!(data.contains("attacked/pgd") && data.contains("\"~\"") && !data.contains(&home), "{data}");
    // What is private in a command is part of its key: masked, the bundle would not rerun.
    space.write("exp/p.yaml", PIPELINE.replace("# ${eps}", "# ${eps} token-12345678"));
    good(&space, &["run", "exp/p.yaml"]);
    let before = std::fs::read(space.path().join("b.tar.zst")).unwrap();
    let ran = bundle(&[]);
    assert_eq!(ran.code, Some(2), "{}", ran.seen());
    assert!(tells(&ran, "attacked/pgd") && tells(&ran, "take what is private"), "{}", ran.stderr);
    assert!(std::fs::read(space.path().join("b.tar.zst")).unwrap() == before, "the bundle of before is left alone");
}

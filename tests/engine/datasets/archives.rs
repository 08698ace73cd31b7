//! Archives against `tar -x` and Python's tarfile and zipfile: what those leave on a disk is what a stage reads.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use atflow::formats::ImageSet;
use serde_json::json;

use super::pack::{Files, folder, gzip, jpeg, tar, zip};

/// Whether the machine has the programs; a test without them says so and ends.
fn has(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| Command::new(program).arg("--version").output().is_err());
    if let Some(program) = missing {
        let _ = writeln!(std::io::stderr(), "skipped: this machine has no {program}");
    }
    missing.is_none()
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> bool {
    Command::new(program).args(arguments).current_dir(folder).output().unwrap().status.success()
}

/// Makes an archive by a Python script that finds images in the folder `in` and writes `out.tar` or `out.zip`.
fn python(script: &str, folder: &Path) {
    let head = "import io, os, tarfile, zipfile\n\
        def put(t, name, data=b'', **more):\n    i = tarfile.TarInfo(name); i.size = len(data)\n    \
        for k, v in more.items(): setattr(i, k, v)\n    t.addfile(i, io.BytesIO(data))\n\
        J = [open(f'in/{n}.jpg', 'rb').read() for n in range(12)]\n";
    let output = Command::new("python3").args(["-c", &format!("{head}{script}")]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Twelve images that can be told apart by their colour.
fn images(folder: &Path) -> Vec<Vec<u8>> {
    fs::create_dir_all(folder.join("in")).unwrap();
    let images: Vec<Vec<u8>> = (0..12).map(|n| jpeg(8, 8, [n * 15, 200 - n * 15, 90])).collect();
    for (n, image) in images.iter().enumerate() {
        fs::write(folder.join(format!("in/{n}.jpg")), image).unwrap();
    }
    images
}

/// The files of images under a folder, links followed, by their paths; which of the images each is.
fn on_disk(root: &Path, images: &[Vec<u8>]) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root).follow_links(true).into_iter().flatten() {
        let path = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let is_image = path.ends_with(".jpg") && path.contains('/') && entry.path().is_file();
        // A link out of the archive leads to a file of this machine.
        let is_own = |path: &Path| path.canonicalize().is_ok_and(|real| real.starts_with(root.canonicalize().unwrap()));
        if let Some(bytes) = (is_image && is_own(entry.path())).then(|| fs::read(entry.path()).ok()).flatten() {
            // A sparse file may be longer than its image.
            let which = images.iter().position(|image| bytes.starts_with(image));
            found.insert(path, which.unwrap_or(99));
        }
    }
    found
}

/// Labels of images, and which of the known ones each is.
type Labelled = Vec<(i32, usize)>;

/// What a stage makes of an archive: the label and the image of each file, in their order; and its summary and log.
fn staged(archive: &[u8], images: &[Vec<u8>]) -> (Labelled, Vec<String>, String, Vec<String>) {
    let bench = folder(archive, json!({"test_share": 0}));
    let summary = bench.run().unwrap_or_else(|failure| panic!("{failure:?}"));
    let set = ImageSet::from_bytes(&bench.output("train")).unwrap();
    let size = 3 * 64;
    let pixels = |image: &Vec<u8>| {
        let rgb = image::load_from_memory(image).unwrap().into_rgb8();
        (0..3).flat_map(|c| rgb.pixels().map(move |pixel| pixel[c])).collect::<Vec<u8>>()
    };
    let known: Vec<Vec<u8>> = images.iter().map(pixels).collect();
    let which = |image: &[u8]| {
        let off = |known: &[u8]| known.iter().zip(image).map(|(a, b)| usize::from(a.abs_diff(*b))).sum::<usize>();
        (0..known.len()).min_by_key(|&n| off(&known[n])).unwrap()
    };
    let found = set.labels.iter().copied().zip(set.pixels.chunks(size).map(which)).collect();
    (found, set.classes, summary, bench.recorder.log())
}

/// The same out of a folder.
fn expected(disk: &BTreeMap<String, usize>) -> (Labelled, Vec<String>) {
    let mut classes: Vec<String> = disk.keys().map(|path| path.split('/').next().unwrap().to_owned()).collect();
    classes.dedup();
    let label = |path: &String| classes.iter().position(|class| path.starts_with(&format!("{class}/"))).unwrap() as i32;
    (disk.iter().map(|(path, &which)| (label(path), which)).collect(), classes)
}

/// Archives, what is told of each beside its images.
const TARS: [(&str, &str, &str); 13] = [
    ("hard links, before and after their target is replaced", "
t = tarfile.open('out.tar', 'w')
put(t, 'a/1.jpg', J[1]); put(t, 'a/2.jpg', type=tarfile.LNKTYPE, linkname='a/1.jpg')
put(t, 'a/1.jpg', J[3]); put(t, 'b/3.jpg', type=tarfile.LNKTYPE, linkname='./a/1.jpg')
t.close()", ""),
    ("links to files and folders", "
t = tarfile.open('out.tar', 'w')
put(t, 'all/1.jpg', J[1]); put(t, 'b/2.jpg', J[2])
put(t, 'b/l.jpg', type=tarfile.SYMTYPE, linkname='../all/1.jpg'); put(t, 'c', type=tarfile.SYMTYPE, linkname='all')
put(t, 'c/4.jpg', J[4]); put(t, 'h.jpg', type=tarfile.LNKTYPE, linkname='b/l.jpg')
put(t, 'd/deep', type=tarfile.SYMTYPE, linkname='../b'); put(t, 'd/0.jpg', J[5])
t.close()", ", 1 entries of the archive left out"),
    ("links that lead nowhere, out, and round", "
t = tarfile.open('out.tar', 'w')
put(t, 'a/1.jpg', J[1]); put(t, 'b/2.jpg', J[2])
put(t, 'a/n.jpg', type=tarfile.SYMTYPE, linkname='none.jpg'); put(t, 'a/o.jpg', type=tarfile.SYMTYPE, linkname='/etc/passwd')
put(t, 'a/u.jpg', type=tarfile.SYMTYPE, linkname='../../../x.jpg'); put(t, 'a/r', type=tarfile.SYMTYPE, linkname='../a')
put(t, 'a/h.jpg', type=tarfile.LNKTYPE, linkname='a/none.jpg')
put(t, 'a/dev.jpg', type=tarfile.CHRTYPE); put(t, 'a/fifo.jpg', type=tarfile.FIFOTYPE)
t.close()", ", 7 entries of the archive left out"),
    ("duplicates, folders, old types, and names in other forms", "
t = tarfile.open('out.tar', 'w', format=tarfile.USTAR_FORMAT)
put(t, './a/', type=tarfile.DIRTYPE); put(t, './a/1.jpg', J[1]); put(t, 'a//1.jpg', J[2]); put(t, 'a/./3.jpg', J[3], type=b'7')
put(t, 'b/4.jpg', J[4], type=b'Z'); put(t, 'b/empty/', type=tarfile.AREGTYPE); put(t, 'x' * 90 + '/' + 'y' * 90 + '.jpg', J[5])
t.close()", ""),
    ("long names of GNU", "
t = tarfile.open('out.tar', 'w', format=tarfile.GNU_FORMAT)
put(t, 'a/' + 'n' * 180 + '/1.jpg', J[1]); put(t, 'b/2.jpg', type=tarfile.LNKTYPE, linkname='a/' + 'n' * 180 + '/1.jpg')
put(t, 'b/s.jpg', type=tarfile.SYMTYPE, linkname='../a/' + 'n' * 180 + '/1.jpg')
t.close()", ""),
    ("PAX records, of members and of all", "
t = tarfile.open('out.tar', 'w', format=tarfile.PAX_FORMAT, pax_headers={'comment': 'all'})
put(t, 'a/' + '\\u00e9' * 100 + '.jpg', J[1]); put(t, 'b/2.jpg', type=tarfile.LNKTYPE, linkname='a/' + '\\u00e9' * 100 + '.jpg')
put(t, 'b/3.jpg', J[3], pax_headers={'path': 'b/renamed\\n.jpg'})
t.close()", ""),
    ("a file in the place of a link, a link in the place of a file", "
t = tarfile.open('out.tar', 'w')
put(t, 'a/1.jpg', J[1]); put(t, 'a/2.jpg', type=tarfile.SYMTYPE, linkname='1.jpg'); put(t, 'a/2.jpg', J[2])
put(t, 'b/3.jpg', J[3]); put(t, 'b/3.jpg', type=tarfile.SYMTYPE, linkname='../a/1.jpg')
put(t, 'b/4', J[4]); put(t, 'b/4/5.jpg', J[5])
t.close()", ", 1 other files passed over, 1 entries of the archive left out"),
    ("no more than its end", "
t = tarfile.open('out.tar', 'w'); put(t, 'a/1.jpg', J[1]); put(t, 'b/2.jpg', J[2]); t.close()
first = open('out.tar', 'rb').read()
t = tarfile.open('out.tar', 'w'); put(t, 'a/3.jpg', J[3]); t.close()
open('out.tar', 'ab').write(b''); second = open('out.tar', 'rb').read(); open('out.tar', 'wb').write(first + second)", ", 1 entries of the archive left out"),
    ("the rest is made by tar: sparse", "os.makedirs('t/a'); os.makedirs('t/b')
for n, hole in ((1, 0), (2, 1 << 16)):
    for d in 'ab':
        with open(f't/{d}/{n}.jpg', 'wb') as f: f.write(J[n]); f.seek(1 << 18); f.write(b'z'); f.seek(hole + (1 << 20)); f.write(b'e'); f.truncate(3 << 20)
os.system('cd t && tar -c -S --format=gnu -f ../out.tar a b')", ""),
    ("PAX 0.0", "os.makedirs('t/a'); os.makedirs('t/b')
for d in 'ab':
    with open(f't/{d}/1.jpg', 'wb') as f: f.write(J[1]); f.seek(1 << 18); f.write(b'z'); f.truncate(1 << 20)
os.system('cd t && tar -c -S --format=posix --sparse-version=0.0 -f ../out.tar a b')", ""),
    ("PAX 0.1", "os.makedirs('t/a'); os.makedirs('t/b')
for d in 'ab':
    with open(f't/{d}/1.jpg', 'wb') as f: f.write(J[1]); f.seek(1 << 18); f.write(b'z'); f.truncate(1 << 20)
os.system('cd t && tar -c -S --format=posix --sparse-version=0.1 -f ../out.tar a b')", ""),
    ("PAX 1.0", "os.makedirs('t/a'); os.makedirs('t/b')
for d in 'ab':
    with open(f't/{d}/1.jpg', 'wb') as f:
        f.write(J[1])
        for k in range(1, 90): f.seek(k << 16); f.write(b'z')
        f.truncate(6 << 20)
os.system('cd t && tar -c -S --format=posix --sparse-version=1.0 -f ../out.tar a b')", ""),
    ("old V7, with a hard link", "os.makedirs('t/a'); os.makedirs('t/b')
open('t/a/1.jpg', 'wb').write(J[1]); os.link('t/a/1.jpg', 't/b/2.jpg'); open('t/b/3.jpg', 'wb').write(J[3])
os.system('cd t && tar -c --format=v7 -f ../out.tar a b')", ""),
];

#[test]
fn what_tar_extracts_is_read_as_tar_extracts_it() {
    if !has(&["tar", "python3"]) {
        return;
    }
    for (name, script, told) in TARS {
        let work = tempfile::tempdir().unwrap();
        let images = images(work.path());
        python(script, work.path());
        let archive = fs::read(work.path().join("out.tar")).unwrap();
        fs::create_dir(work.path().join("x")).unwrap();
        // It reports members that it cannot make, as this program does.
        run("tar", &["-x", "-f", "../out.tar"], &work.path().join("x"));
        let disk = on_disk(&work.path().join("x"), &images);
        assert!(disk.len() > 1, "{name}: {disk:?}");
        let (found, classes, summary, log) = staged(&archive, &images);
        let (wanted, wanted_classes) = expected(&disk);
        assert_eq!((found, classes), (wanted, wanted_classes), "{name}: {disk:?}, {log:#?}");
        assert!(summary.ends_with(&format!(" classes{told}")), "{name}: {summary}, {log:#?}");
    }
}

#[test]
fn what_is_left_out_is_named_with_the_reason() {
    if !has(&["python3"]) {
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let images = images(work.path());
    python(TARS[2].1, work.path());
    let (_, _, _, log) = staged(&fs::read(work.path().join("out.tar")).unwrap(), &images);
    for line in [
        "train.archive: left out: `a/n.jpg` is a link to nothing in the archive: `none.jpg`",
        "train.archive: left out: `a/o.jpg` is a link that leads out of the archive: `/etc/passwd`",
        "train.archive: left out: `a/u.jpg` is a link that leads out of the archive: `../../../x.jpg`",
        "train.archive: left out: `a/r` is a link that leads back to itself: `../a`",
        "train.archive: left out: `a/h.jpg` is a hard link to a file that the archive has not had before it",
        "train.archive: left out: `a/dev.jpg` is a device",
        "train.archive: left out: `a/fifo.jpg` is a named pipe (FIFO)",
    ] {
        assert!(log.contains(&line.to_owned()), "{line}: {log:#?}");
    }
}

fn two_classes() -> (Files, Vec<Vec<u8>>) {
    let images: Vec<Vec<u8>> = (0..4).map(|n| jpeg(8, 8, [n * 60, 20, 90])).collect();
    let names = ["a/0.jpg", "a/1.jpg", "b/2.jpg", "b/3.jpg"];
    (names.iter().zip(&images).map(|(name, image)| ((*name).to_owned(), image.clone())).collect(), images)
}

#[test]
fn every_compression_is_told_by_its_bytes_and_gives_the_same() {
    let (files, images) = two_classes();
    let plain = tar(&files);
    let wanted = staged(&plain, &images).0;
    assert_eq!(wanted, [(0, 0), (0, 1), (1, 2), (1, 3)]);
    assert_eq!(staged(&[gzip(&plain[..700]), gzip(&plain[700..]), vec![0; 900]].concat(), &images).0, wanted);
    for program in ["xz", "bzip2", "zstd"] {
        if !has(&[program]) {
            continue;
        }
        let work = tempfile::tempdir().unwrap();
        let packed: Vec<u8> = [&plain[..1000], &plain[1000..]]
            .iter()
            .flat_map(|part| {
                fs::write(work.path().join("part"), part).unwrap();
                Command::new(program).args(["-c", "part"]).current_dir(work.path()).output().unwrap().stdout
            })
            .collect();
        assert_eq!(staged(&packed, &images).0, wanted, "{program}");
        for end in [packed.len() / 3, packed.len() - 9] {
            let failure = folder(&packed[..end], json!({"test_share": 0})).failure();
            assert!(failure.message.contains("it is damaged or cut off: after "), "{program}: {failure:?}");
        }
    }
}

#[test]
fn forms_that_are_not_read_are_named() {
    for (start, name) in [
        (&b"7z\xbc\xaf\x27\x1c\x00\x04"[..], "it is a 7z archive, which is not read: repack it as .zip or .tar.gz"),
        (b"Rar!\x1a\x07\x01\x00", "it is a rar archive"),
        (b"\x89HDF\r\n\x1a\n", "it is an HDF5 file"),
        (&gzip(b"no tar archive"), "what it unfolds to is no tar archive: it begins with the bytes 6e 6f 20 74"),
    ] {
        let failure = folder(&[start, &[1; 600]].concat()[..], json!({"test_share": 0}));
        let failure = if start.starts_with(b"\x1f") {
            folder(start, json!({"test_share": 0})).failure()
        } else {
            failure.failure()
        };
        assert!(failure.message.contains(name), "{failure:?}");
    }
}

#[test]
fn zip_archives_of_windows_programs_and_with_links_are_read() {
    let (files, images) = two_classes();
    let wanted = staged(&tar(&files), &images).0;
    let windows: Files =
        files.iter().map(|(name, image)| (format!("data\\{}", name.replace('/', "\\")), image.clone())).collect();
    assert_eq!(staged(&zip(&windows), &images).0, wanted);
    let slip = folder(&zip(&vec![("..\\..\\x.jpg".into(), vec![1])]), json!({"test_share": 0})).failure();
    assert!(slip.message.contains("leads out of the archive"), "{slip:?}");

    let mut writer = zip::ZipWriter::new_append(std::io::Cursor::new(zip(&files))).unwrap();
    writer.add_symlink("c", "a", zip::write::SimpleFileOptions::default()).unwrap();
    let linked = writer.finish().unwrap().into_inner();
    assert_eq!(staged(&linked, &images).0, [(0, 0), (0, 1), (1, 2), (1, 3), (2, 0), (2, 1)]);
}

#[test]
fn holes_and_links_cannot_make_much_of_little() {
    if !has(&["python3"]) {
        return;
    }
    let work = tempfile::tempdir().unwrap();
    images(work.path());
    let hole = "
t = tarfile.open('out.tar', 'w', format=tarfile.PAX_FORMAT)
for n in range(20):
    put(t, f'a/{n}.jpg', J[1], pax_headers={'GNU.sparse.size': str(1 << 29), 'GNU.sparse.map': f'0,{len(J[1])}'})
t.close()";
    let links = "
t = tarfile.open('out.tar', 'w')
put(t, 'd0/1.jpg', J[1])
for n in range(1, 30):
    for k in 'ab': put(t, f'd{n}/{k}', type=tarfile.SYMTYPE, linkname=f'../d{n - 1}')
t.close()";
    for (script, message) in [(hole, "unfold to more than 100 times as many"), (links, "entries")] {
        python(script, work.path());
        let archive = fs::read(work.path().join("out.tar")).unwrap();
        let failure = folder(&archive, json!({"test_share": 0})).failure();
        assert!(failure.message.contains(message), "{failure:?}");
    }
}

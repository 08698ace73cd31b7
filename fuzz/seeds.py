"""Writes the files that fuzzing begins with, one folder for each target in fuzz/corpus: python3 fuzz/seeds.py

Small files, the same bytes every time, and what earlier runs found worth keeping (fuzz/kept/TARGET.tar.xz). `python3 fuzz/seeds.py keep
TARGET FOLDER` writes such an archive from the corpus of a run that `cargo fuzz cmin` made small. The pipelines of tests/cli/bad and the files of weights in tests/worker/fixtures are seeds, too; the
commands in CONTRIBUTING.md name their folders.
"""

import bz2
import gzip
import io
import json
import lzma
import pathlib
import pickle
import struct
import sys
import tarfile
import zipfile

ROOT = pathlib.Path(__file__).parent / "corpus"


def write(target, name, content):
    folder = ROOT / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def idx(shape, elements):
    return bytes([0, 0, 8, len(shape)]) + b"".join(struct.pack(">I", side) for side in shape) + elements


def tar(format, long=False):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        def add(name, content=b"", **fields):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for field, value in fields.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(content))
        add("d", type=tarfile.DIRTYPE)
        add("d/a.bin", b"abc")
        add("d/link", type=tarfile.SYMTYPE, linkname="a.bin")
        add("d/hard", type=tarfile.LNKTYPE, linkname="d/a.bin")
        add("empty", type=tarfile.DIRTYPE)
        if long:
            add("d/" + "n" * 120 + "/ä.bin", b"x" * 600)
    return buffer.getvalue()


def sparse():
    """A sparse file as GNU tar 1.0 writes it: the map stands before the data, the true name in a pax header."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("GNUSparseFile.0/s.bin")
        content = b"1\n4096\n3\n".ljust(512, b"\0") + b"abc"
        member.size = len(content)
        member.pax_headers = {
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s.bin", "GNU.sparse.realsize": "4099",
        }
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zipped(compression):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in [("d/a.bin", b"abc"), ("d/b.bin", b"b" * 300), ("e/", b"")]:
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
    return buffer.getvalue()


def array_pickle(protocol_2):
    """A batch of one image of two bytes, as NumPy pickles its array in Python 2 and in Python 3."""
    text = (lambda text: b"U" + bytes([len(text)]) + text) if protocol_2 else (lambda text: b"\x8c" + bytes([len(text)]) + text)
    data = b"U\x02\x01\x02" if protocol_2 else b"C\x02\x01\x02"
    return b"".join([
        b"\x80\x02}q\x00(", text(b"labels"), b"]q\x01K\x03a", text(b"data"),
        b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nK\x00\x85", text(b"b"), b"\x87Rq\x03",
        b"(K\x01K\x01K\x02\x86cnumpy\ndtype\n", text(b"u1"), b"K\x00K\x01\x87R(K\x03", text(b"|"), b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
        data, b"tb", b"u.",
    ])


def main():
    write("idx", "labels", idx([3], b"\1\2\3"))
    write("idx", "images", idx([2, 2, 2], bytes(range(8))))
    write("idx", "images.gz", gzip.compress(idx([2, 2, 2], bytes(range(8))), mtime=0))
    write("idx", "two-members.gz", gzip.compress(idx([3], b""), mtime=0) + gzip.compress(b"\1\2\3", mtime=0))

    plain = tar(tarfile.USTAR_FORMAT)
    write("archive", "ustar.tar", plain)
    write("archive", "gnu.tar", tar(tarfile.GNU_FORMAT, long=True))
    write("archive", "pax.tar", tar(tarfile.PAX_FORMAT, long=True))
    write("archive", "sparse.tar", sparse())
    write("archive", "tar.gz", gzip.compress(plain, mtime=0))
    write("archive", "tar.bz2", bz2.compress(plain))
    write("archive", "tar.xz", lzma.compress(plain))
    write("archive", "tar.lzma", lzma.compress(plain, format=lzma.FORMAT_ALONE))
    for name, compression in [("stored", 0), ("deflated", 8), ("bzip2", 12), ("lzma", 14)]:
        write("archive", name + ".zip", zipped(compression))

    write("pickle", "python-2", array_pickle(True))
    write("pickle", "python-3", array_pickle(False))
    for protocol in range(2, 6):
        values = {"labels": [1, -1, 1 << 40, 1 << 90, 0.5, None, True], "data": (b"ab", "ä" * 300, {"a": []}), "b": b"c" * 300}
        write("pickle", f"protocol-{protocol}", pickle.dumps(values, protocol))

    digest = "0" * 64
    blob = {"digest": digest, "size": 3}
    write("manifest", "file.json", json.dumps({
        "format": 1,
        "record": {"format": 1, "kind": "file", "version": 1, "params": {"sha256": digest, "x": [1, 0.5, None, True, {"y": "z"}]}, "inputs": {"source": digest}},
        "outputs": {"file": blob},
        "made": {"stage": "s", "pipeline": "p", "at": "2026-01-01T00:00:00Z", "seconds": 0.5, "host": "h", "device": "engine",
                 "threads": 1, "atflow": "0.1.0", "summary": "3 bytes", "log": blob},
    }).encode())


    for path in sorted((ROOT.parent / "kept").glob("*.tar.xz")):
        with tarfile.open(path) as archive:
            for member in archive.getmembers():
                write(path.name.removesuffix(".tar.xz"), member.name, archive.extractfile(member).read())
    for target in ("pipeline", "weights"):
        (ROOT / target).mkdir(parents=True, exist_ok=True)


def keep(target, folder):
    """Packs the files of a folder; the same files give the same bytes."""
    (ROOT.parent / "kept").mkdir(exist_ok=True)
    with tarfile.open(ROOT.parent / "kept" / f"{target}.tar.xz", "w:xz", format=tarfile.USTAR_FORMAT) as archive:
        for file in sorted(pathlib.Path(folder).iterdir()):
            member = tarfile.TarInfo(file.name)
            member.size = file.stat().st_size
            archive.addfile(member, io.BytesIO(file.read_bytes()))


if __name__ == "__main__":
    keep(*sys.argv[2:]) if sys.argv[1:2] == ["keep"] else main()

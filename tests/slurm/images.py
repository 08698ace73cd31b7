"""Small images for stories that train: 12 × 12, in three classes that are told apart by where they are bright."""

from __future__ import annotations

import random
from pathlib import Path

# The stage of a pipeline that reads them.
DATA = """  data:
    kind: dataset
    with:
      format: idx
      train: {images: {path: train.idx}, labels: {path: train.lab}}
      test: {images: {path: test.idx}, labels: {path: test.lab}}
      classes: [left, top, middle]
"""


def write_images(folder: Path, images: int) -> None:
    draws = random.Random(1)
    for name, count in (("train", images), ("test", images // 3)):
        pixels, labels = bytearray(), bytearray()
        for index in range(count):
            labels.append(index % 3)
            for y in range(12):
                for x in range(12):
                    bright = (x < 6, y < 6, 3 <= x < 9 and 3 <= y < 9)[index % 3]
                    pixels.append((120 if bright else 60) + draws.randrange(60))
        sizes = b"".join(size.to_bytes(4, "big") for size in (count, 12, 12))
        (folder / f"{name}.idx").write_bytes(bytes([0, 0, 8, 3]) + sizes + pixels)
        (folder / f"{name}.lab").write_bytes(bytes([0, 0, 8, 1]) + count.to_bytes(4, "big") + labels)

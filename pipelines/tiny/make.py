"""Makes the tiny data sets beside it: four archives in the true layouts of CIFAR-10, Tiny ImageNet, Caltech-256 and a collection of paintings.

    python3 pipelines/tiny/make.py [FOLDER] [--seed 0]

The pictures are drawn: for each class a shape with colours and a texture of its own, at random places and sizes, so that a small network learns them within
an epoch or two and pictures of them look like something. Needs Pillow and numpy; the archives are committed, so that nobody has to run this. The same versions of the
two give the same bytes: entries are sorted and have no times.
"""

import argparse
import io
import math
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy
from PIL import Image, ImageDraw

SHAPES = ["disc", "square", "triangle", "ring", "cross", "star", "bar", "hexagon", "crescent", "checker"]
COLOURS = [(214, 62, 54), (52, 120, 200), (68, 160, 76), (236, 176, 48), (140, 84, 180),
           (40, 168, 176), (232, 120, 60), (120, 128, 140), (204, 92, 150), (150, 108, 62)]
TEXTURES = ["stripes", "dots", "plain", "waves", "grid", "noise", "diagonal", "rings", "bricks", "speckle"]


def texture(kind, height, width, rng):
    """Numbers from 0 to 1 in a pattern that repeats every few pixels."""
    y, x = numpy.mgrid[0:height, 0:width].astype(float)
    scale = max(height, width) / 32 * rng.uniform(0.9, 1.2)
    y, x = y / scale + rng.uniform(0, 8), x / scale + rng.uniform(0, 8)
    if kind == "stripes":
        return (numpy.sin(y * 1.6) > 0).astype(float)
    if kind == "dots":
        return ((numpy.sin(x * 1.5) * numpy.sin(y * 1.5)) > 0.4).astype(float)
    if kind == "waves":
        return 0.5 + 0.5 * numpy.sin(y * 1.3 + 1.5 * numpy.sin(x * 0.7))
    if kind == "grid":
        return ((numpy.mod(x, 4) < 1) | (numpy.mod(y, 4) < 1)).astype(float)
    if kind == "noise":
        return rng.uniform(0, 1, (height, width))
    if kind == "diagonal":
        return (numpy.sin((x + y) * 1.2) > 0).astype(float)
    if kind == "rings":
        return 0.5 + 0.5 * numpy.sin(numpy.hypot(x - 20, y - 20) * 1.4)
    if kind == "bricks":
        shifted = x + 3 * (numpy.floor(y / 3) % 2)
        return ((numpy.mod(y, 3) < 0.7) | (numpy.mod(shifted, 6) < 0.7)).astype(float)
    if kind == "speckle":
        return (rng.uniform(0, 1, (height, width)) > 0.8).astype(float)
    return numpy.full((height, width), 0.5)


def outline(shape, height, width, rng):
    """Where the shape is, 0 or 1, drawn at four times the size so that its edges are smooth."""
    big = Image.new("L", (4 * width, 4 * height), 0)
    draw = ImageDraw.Draw(big)
    side = min(height, width) * 4
    radius = side * rng.uniform(0.28, 0.4)
    cx, cy = (4 * width / 2 + side * rng.uniform(-0.1, 0.1)), (4 * height / 2 + side * rng.uniform(-0.1, 0.1))
    turn = rng.uniform(-0.2, 0.2)

    def polygon(corners, inner=1.0):
        count = corners * (2 if inner < 1 else 1)
        points = []
        for index in range(count):
            length = radius * (inner if inner < 1 and index % 2 else 1)
            angle = turn - math.pi / 2 + 2 * math.pi * index / count
            points.append((cx + length * math.cos(angle), cy + length * math.sin(angle)))
        draw.polygon(points, fill=255)

    box = [cx - radius, cy - radius, cx + radius, cy + radius]
    if shape == "disc":
        draw.ellipse(box, fill=255)
    elif shape == "square":
        draw.rectangle([cx - 0.85 * radius, cy - 0.85 * radius, cx + 0.85 * radius, cy + 0.85 * radius], fill=255)
    elif shape == "triangle":
        polygon(3)
    elif shape == "ring":
        draw.ellipse(box, fill=255)
        draw.ellipse([cx - radius / 2, cy - radius / 2, cx + radius / 2, cy + radius / 2], fill=0)
    elif shape == "cross":
        draw.rectangle([cx - radius / 3, cy - radius, cx + radius / 3, cy + radius], fill=255)
        draw.rectangle([cx - radius, cy - radius / 3, cx + radius, cy + radius / 3], fill=255)
    elif shape == "star":
        polygon(5, 0.45)
    elif shape == "bar":
        draw.rectangle([cx - radius * 1.2, cy - radius / 3, cx + radius * 1.2, cy + radius / 3], fill=255)
    elif shape == "hexagon":
        polygon(6)
    elif shape == "crescent":
        draw.ellipse(box, fill=255)
        draw.ellipse([cx - radius * 0.4, cy - radius, cx + radius * 1.6, cy + radius], fill=0)
    else:
        for row in range(3):
            for column in range(3):
                if (row + column) % 2 == 0:
                    left, top = cx + radius * (column * 0.66 - 1), cy + radius * (row * 0.66 - 1)
                    draw.rectangle([left, top, left + radius * 0.66, top + radius * 0.66], fill=255)
    small = big.resize((width, height), Image.Resampling.BOX)
    return numpy.asarray(small, dtype=float)[..., None] / 255


def picture(kind, height, width, rng):
    """A picture of class `kind`: a textured shape before a pale gradient, with some noise. H × W × 3 bytes."""
    colour = numpy.array(COLOURS[kind % 10], dtype=float) + rng.uniform(-18, 18, 3)
    dark = colour * 0.55
    pattern = texture(TEXTURES[kind % 10], height, width, rng)[..., None]
    inside = pattern * colour + (1 - pattern) * dark
    slope = numpy.linspace(0, 1, height)[:, None, None]
    pale = 170 + rng.uniform(-25, 45, 3) * (1 - slope) + rng.uniform(-45, 25, 3) * slope
    where = outline(SHAPES[kind % 10], height, width, rng)
    image = where * inside + (1 - where) * numpy.broadcast_to(pale, (height, width, 3))
    image = image + rng.normal(0, 3, image.shape)
    return numpy.clip(image + 0.5, 0, 255).astype(numpy.uint8)


def clutter(height, width, rng):
    """Many small shapes of all classes."""
    tile = max(16, min(height, width) // 3)
    rows, columns = -(-height // tile), -(-width // tile)
    parts = [[picture(int(rng.integers(10)), tile, tile, rng) for _ in range(columns)] for _ in range(rows)]
    return numpy.concatenate([numpy.concatenate(row, 1) for row in parts], 0)[:height, :width]


def painting(side, index, rng):
    """Broad strokes of a few colours."""
    height, width = side + int(rng.integers(0, 40)), side + int(rng.integers(0, 40))
    palette = rng.uniform(20, 235, (5, 3))
    image = Image.new("RGB", (width, height), tuple(int(value) for value in palette[0]))
    draw = ImageDraw.Draw(image)
    angle = rng.uniform(0, math.pi)
    for _ in range(160):
        colour = palette[int(rng.integers(5))] + rng.normal(0, 14, 3)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        turn, length = angle + rng.normal(0, 0.5), rng.uniform(8, 26)
        end = (x + length * math.cos(turn), y + length * math.sin(turn))
        draw.line([(x, y), end], fill=tuple(int(value) for value in numpy.clip(colour, 0, 255)), width=3 + index % 4)
    return numpy.asarray(image)


def jpeg(pixels, quality=88):
    out = io.BytesIO()
    image = Image.fromarray(pixels)
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def tar(path, files, compress=False):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    data = raw.getvalue()
    if compress:
        # The header by hand: no time in it.
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        body = packer.compress(data) + packer.flush()
        tail = zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xFFFFFFFF).to_bytes(4, "little")
        data = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff" + body + tail
    path.write_bytes(data)


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, 9)


def cifar10(folder, rng, batch=40, test=40):
    """Ten classes as binary records; records of a batch are in random order, as in the original."""
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    root = "cifar-10-batches-bin/"
    files = [(root + "batches.meta.txt", ("\n".join(names) + "\n\n").encode())]
    for name, count in [(f"data_batch_{index}.bin", batch) for index in range(1, 6)] + [("test_batch.bin", test)]:
        labels = rng.permutation(numpy.arange(count) % 10)
        records = [bytes([int(label)]) + picture(int(label), 32, 32, rng).transpose(2, 0, 1).tobytes() for label in labels]
        files.append((root + name, b"".join(records)))
    files.append((root + "readme.html", b'<meta HTTP-EQUIV="REFRESH" content="0; url=http://www.cs.toronto.edu/~kriz/cifar.html">\n'))
    tar(folder / "cifar-10-binary.tar.gz", files, compress=True)


def tiny_imagenet(folder, rng, classes=5, each=8, tested=10):
    """Classes under WordNet numbers that are out of order in wnids.txt, as in the original; some images are grey."""
    wnids = ["n02124075", "n01443537", "n07749582", "n03444034", "n04067472"][:classes]
    words = ["Egyptian cat", "goldfish, Carassius auratus", "lemon", "go-kart", "reel"][:classes]
    root = "tiny-imagenet-200/"
    files = [(root + "wnids.txt", "\n".join(wnids).encode() + b"\n"),
             (root + "words.txt", "".join(f"{wnid}\t{word}\n" for wnid, word in sorted(zip(wnids, words))).encode())]
    for kind, wnid in enumerate(wnids):
        for index in range(each):
            pixels = picture(kind, 64, 64, rng)
            if index == each - 1 and kind == 0:
                pixels = numpy.asarray(Image.fromarray(pixels).convert("L"))
            files.append((f"{root}train/{wnid}/images/{wnid}_{index}.JPEG", jpeg(pixels)))
        boxes = "".join(f"{wnid}_{index}.JPEG\t0\t0\t62\t63\n" for index in range(each))
        files.append((f"{root}train/{wnid}/{wnid}_boxes.txt", boxes.encode()))
    rows = []
    for index in range(tested):
        kind = index % classes
        files.append((f"{root}val/images/val_{index}.JPEG", jpeg(picture(kind, 64, 64, rng))))
        rows.append(f"val_{index}.JPEG\t{wnids[kind]}\t0\t0\t62\t63\n")
    files.append((root + "val/val_annotations.txt", "".join(rows).encode()))
    files.append((root + "test/images/test_0.JPEG", jpeg(picture(0, 64, 64, rng))))
    zipped(folder / "tiny-imagenet-200.zip", files)


def caltech256(folder, rng, each=10):
    """Five categories of pictures of many sizes, one of them clutter, and the stray file that the original has."""
    names = ["001.ak47", "056.dog", "129.leopards-101", "198.spider", "257.clutter"]
    root = "256_ObjectCategories/"
    files = [(root.rstrip("/"), None)]
    for kind, name in enumerate(names):
        files.append((root + name, None))
        for index in range(1, each + 1):
            height, width = int(rng.integers(80, 106)), int(rng.integers(100, 136))
            if index % 3 == 0:
                height, width = width, height
            pixels = clutter(height, width, rng) if name == "257.clutter" else picture(kind + 5, height, width, rng)
            if kind == 1 and index == 2:
                pixels = numpy.asarray(Image.fromarray(pixels).convert("L"))
            files.append((f"{root}{name}/{name[:3]}_{index:04d}.jpg", jpeg(pixels)))
        if name == "198.spider":
            files.append((f"{root}{name}/RENAME2", b"#!/bin/sh\n"))
    tar(folder / "256_ObjectCategories.tar", files)


def paintings(folder, rng, count=12, side=72):
    """Pictures in one folder, without classes, as in the training set of Painter by Numbers; one is too small to be used."""
    files = [(f"train/{index + 1}.jpg", jpeg(painting(side, index, rng))) for index in range(count)]
    files.append(("train/99.jpg", jpeg(painting(side, 0, rng)[:40, :60])))
    zipped(folder / "paintings.zip", files)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for number, make in enumerate([cifar10, tiny_imagenet, caltech256, paintings]):
        make(arguments.folder, numpy.random.default_rng([arguments.seed, number]))


if __name__ == "__main__":
    main()

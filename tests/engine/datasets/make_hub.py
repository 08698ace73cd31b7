"""Makes `fixtures/hub` with numpy 2.4, datasets 5.2 and pyarrow 26: arrays as MedMNIST and Keras publish them, Parquet
files as the Hugging Face hub has them, and what their pixels are, as SHA-256 sums of N × C × H × W bytes.

    python3 -m venv venv && venv/bin/pip install datasets pillow
    venv/bin/python tests/engine/datasets/make_hub.py
"""

import hashlib
import io
import json
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Pillow

HERE = Path(__file__).parent / "fixtures" / "hub"


def images(count, channels, seed):
    shape = (count, 8, 9) if channels == 1 else (count, 8, 9, channels)
    return numpy.random.default_rng(seed).integers(0, 256, shape, numpy.uint8)


def digest(pixels):
    planes = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    return hashlib.sha256(numpy.ascontiguousarray(planes).tobytes()).hexdigest()


def arrays():
    train, val, test = images(6, 3, 1), images(2, 3, 2), images(3, 3, 3)
    labels = [numpy.array(labels, numpy.uint8)[:, None] for labels in ([0, 1, 2, 2, 1, 0], [1, 1], [2, 0, 1])]
    numpy.savez_compressed(HERE / "medmnist.npz", train_images=train, train_labels=labels[0], val_images=val,
                           val_labels=labels[1], test_images=test, test_labels=labels[2])
    grey, grey_test = images(4, 1, 4), images(2, 1, 5)
    numpy.savez(HERE / "keras.npz", x_train=grey / 255, y_train=numpy.array([0, 1, 1, 0]),
                x_test=(grey_test / 255).astype(numpy.float32), y_test=numpy.array([1, 0], numpy.int32))
    numpy.savez(HERE / "objects.npz", x_train=numpy.array([grey[0], None], object), y_train=numpy.array([0, 1]),
                x_test=grey_test, y_test=numpy.array([1, 0]))
    numpy.save(HERE / "images.npy", grey)
    numpy.save(HERE / "fortran.npy", numpy.asfortranarray(grey))
    numpy.save(HERE / "labels.npy", numpy.array([0, 1, 1, 0], ">i2"))
    return {"medmnist": [digest(train), digest(test), digest(val)], "keras": [digest(grey), digest(grey_test)]}


def png(pixels):
    out = io.BytesIO()
    Pillow.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def parquet():
    features = Features({"id": Value("string"), "image": Image(), "label": ClassLabel(names=["cat", "dog"])})
    train, test = images(6, 3, 6), images(2, 3, 7)
    shards = (("train-0", train[:4], [0, 1, 1, 0]), ("train-1", train[4:], [1, 0]), ("test", test, [0, 1]))
    for name, pixels, labels in shards:
        rows = {"id": list("abcd")[: len(labels)], "label": labels,
                "image": [{"bytes": png(image), "path": f"{at}.png"} for at, image in enumerate(pixels)]}
        Dataset.from_dict(rows, features=features).to_parquet(HERE / f"{name}.parquet", batch_size=2)
    struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    rows = [{"bytes": png(image), "path": None} for image in train[:4]]
    whole = pyarrow.table({"img": pyarrow.array(rows, struct), "fine": pyarrow.array([0, 2, 1, 0], pyarrow.int32())})
    pyarrow.parquet.write_table(whole, HERE / "plain.parquet", compression="zstd")
    pyarrow.parquet.write_table(whole, HERE / "gzip.parquet", compression="gzip")
    paths = pyarrow.table({"image": pyarrow.array([{"bytes": None, "path": "1.png"}], struct), "label": [0]})
    pyarrow.parquet.write_table(paths, HERE / "paths.parquet", compression="snappy")
    return {"hub": [digest(train), digest(test)], "plain": digest(train[:4])}


if __name__ == "__main__":
    HERE.mkdir(parents=True, exist_ok=True)
    (HERE / "digests.json").write_text(json.dumps(arrays() | parquet(), indent=1) + "\n")

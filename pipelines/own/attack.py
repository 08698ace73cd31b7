#!/usr/bin/env python3
"""PGD of torchattacks as a stage of atflow: a checkpoint and images in, predictions and perturbed images out.

    python3 attack.py CHECKPOINT IMAGES --predictions FILE --images FILE --eps 8/255 --step 2/255 --steps 20 --limit 500

Needs `pip install torch torchattacks`. Whatever stands in `perturb` becomes an attack of the pipeline.
"""

import argparse
import json
import os
from fractions import Fraction
from pathlib import Path

import torch
import torchattacks
from torch.nn.functional import cross_entropy

from modeling import load

TYPES = {"U8": torch.uint8, "I32": torch.int32, "F32": torch.float32}
NAMES = {dtype: name for name, dtype in TYPES.items()}


def perturb(model, images, labels, args):
    """Perturbed images: N x C x H x W from 0 to 1, each within `eps` of the original in every pixel."""
    attack = torchattacks.PGD(model, eps=args.eps, alpha=args.step, steps=args.steps, random_start=True)
    return attack(images, labels)


def read(path):
    """The metadata and the arrays of a file of atflow."""
    data = bytearray(Path(path).read_bytes())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8 : 8 + length]))
    metadata = json.loads(header.pop("__metadata__")["atflow"])
    arrays = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        arrays[name] = torch.frombuffer(data[start:end], dtype=TYPES[entry["dtype"]]).view(entry["shape"])
    return metadata, arrays


def write(path, metadata, arrays):
    """Writes a file of atflow, the same bytes for the same content."""
    header, blobs, end = {"__metadata__": {"atflow": json.dumps(metadata)}}, [], 0
    # Types of more bytes first, so that each array begins at a multiple of its type.
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].element_size(), item[0])):
        blob = array.contiguous().numpy().tobytes()
        header[name] = {"dtype": NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [end, end + len(blob)]}
        end += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("set")
    parser.add_argument("--predictions", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--eps", type=lambda text: float(Fraction(text)), required=True)
    parser.add_argument("--step", type=lambda text: float(Fraction(text)), required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()

    # What decides the bytes of the result is told by atflow, or fixed here.
    torch.manual_seed(int(os.environ.get("ATFLOW_SEED", 0)))
    torch.set_num_threads(int(os.environ.get("ATFLOW_THREADS", 1)))

    model = load(args.checkpoint)
    metadata, arrays = read(args.set)
    if metadata["format"] != "images/1":
        raise SystemExit(f"{args.set} is {metadata['format']}, and this script reads images/1")
    originals, labels = arrays["images"][: args.limit], arrays["labels"][: args.limit]

    perturbed, logits = [], []
    for images, truth in zip(originals.split(250), labels.long().split(250)):
        images = images.float() / 255
        perturbed.append(perturb(model, images, truth, args))
        # An attack that leaves its ball is a bug, and its numbers would be too good.
        assert (perturbed[-1] - images).abs().max() <= args.eps + 1e-6
        with torch.no_grad():
            logits.append(model(perturbed[-1]))
        print(f"{sum(map(len, perturbed))} of {len(originals)} images", flush=True)
    perturbed, logits = torch.cat(perturbed), torch.cat(logits)

    attack = {"attack": "torchattacks.PGD", "eps": args.eps, "step": args.step, "steps": args.steps}
    predictions = {
        "labels": labels,
        "predicted": logits.argmax(1).int(),
        "probability": logits.softmax(1).gather(1, labels.long()[:, None]).squeeze(1),
        "loss": cross_entropy(logits, labels.long(), reduction="none"),
    }
    write(args.predictions, {"format": "predictions/1", "attack": attack, "iterate": "last"}, predictions)
    # An image set has bytes. Rounding leaves no pixel outside a ball whose radius is a whole number of 1/255.
    images = (255 * perturbed).round().to(torch.uint8)
    write(args.images, {"format": "images/1", "classes": metadata["classes"]}, {"images": images, "labels": labels})


if __name__ == "__main__":
    main()

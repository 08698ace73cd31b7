"""Makes resnet18.safetensors beside it: weights for a ResNet-18 of a width of 8, under the names of torchvision, for the profile `tiny` of paper.yaml.

    python3 pipelines/tiny/make_weights.py

They are drawn as torchvision draws those that it trains from: no ImageNet was seen. numpy alone is needed; the same version gives the same bytes.
"""

import json
import struct
from pathlib import Path

import numpy

WIDTH, CLASSES = 8, 10
rng = numpy.random.RandomState(0)
tensors = {}


def conv(name, out, into, kernel):
    # Kaiming's normal distribution over the fan-out, as in torchvision.
    tensors[f"{name}.weight"] = rng.normal(0, (2 / (out * kernel * kernel)) ** 0.5, (out, into, kernel, kernel))


def norm(name, width):
    for part, value in [("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)]:
        tensors[f"{name}.{part}"] = numpy.full(width, value)


conv("conv1", WIDTH, 3, 7)
norm("bn1", WIDTH)
into = WIDTH
for group in range(4):
    out = WIDTH << group
    for block in range(2):
        name = f"layer{group + 1}.{block}"
        conv(f"{name}.conv1", out, into, 3)
        norm(f"{name}.bn1", out)
        conv(f"{name}.conv2", out, out, 3)
        norm(f"{name}.bn2", out)
        if into != out:
            conv(f"{name}.downsample.0", out, into, 1)
            norm(f"{name}.downsample.1", out)
        into = out
bound = into**-0.5
tensors["fc.weight"] = rng.uniform(-bound, bound, (CLASSES, into))
tensors["fc.bias"] = rng.uniform(-bound, bound, CLASSES)

header, data = {}, b""
for name in sorted(tensors):
    values = tensors[name].astype("<f4")
    header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [len(data), len(data) + values.nbytes]}
    data += values.tobytes()
text = json.dumps(header, separators=(",", ":")).encode()
text += b" " * (-len(text) % 8)
Path(__file__).with_name("resnet18.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)

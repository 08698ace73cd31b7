"""A predictions file that tests write without a worker."""

from __future__ import annotations

import json
import struct


def predictions(right: int) -> bytes:
    """A predictions file of 200 images, as docs/artifact-formats.md has it: the first so many are right."""
    tensors = {
        "labels": ("I32", struct.pack("<200i", *[0] * 200)),
        "loss": ("F32", struct.pack("<200f", *[1.0] * 200)),
        "predicted": ("I32", struct.pack("<200i", *[int(at >= right) for at in range(200)])),
        "probability": ("F32", struct.pack("<200f", *[0.5] * 200)),
    }
    header: dict[str, object] = {"__metadata__": {"atflow": json.dumps({"format": "predictions/1"})}}
    data = b""
    for name, (kind, values) in tensors.items():
        header[name] = {"dtype": kind, "shape": [200], "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data

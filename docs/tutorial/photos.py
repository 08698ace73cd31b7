#!/usr/bin/env python3
"""Photographs for the tutorial, where there are none of one's own: windows of three photographed surfaces.

    pip install scikit-image
    python3 photos.py FOLDER

Writes FOLDER/train and FOLDER/val with a folder for each of brick, grass and gravel. The photographs are those of
scikit-image, from cc0textures.com (CC0), 512 x 512 pixels each. Test images come from the right quarter of each
photograph and do not overlap; training images come from the rest.
"""

import sys
from pathlib import Path

from skimage import data, io

SIDE = 32


def windows(photograph, stride):
    """Every window of a part of a photograph, `stride` pixels from the one before."""
    height, width = photograph.shape[:2]
    for top in range(0, height - SIDE + 1, stride):
        for left in range(0, width - SIDE + 1, stride):
            yield photograph[top : top + SIDE, left : left + SIDE]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for name in ("brick", "grass", "gravel"):
        photograph = getattr(data, name)()
        for part, pixels, stride in (("train", photograph[:, :384], 16), ("val", photograph[:, 384:], SIDE)):
            folder = Path(sys.argv[1]) / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for index, window in enumerate(windows(pixels, stride)):
                io.imsave(folder / f"{name}-{index:03}.png", window, check_contrast=False)


main()

"""Makes encoder.safetensors and decoder.safetensors: networks of AdaIN's shape, small enough to lie in a repository.

    python pipelines/tiny/make_adain.py          (numpy and safetensors)

They are no trained networks. Their weights are written down so that the decoder gives back, a little blurred, what the encoder saw, and so that
what adaptive instance normalisation exchanges between two images is their colours, their contrast, and how rough they are. That is enough to try a pipeline
with `stylize` and `cue_conflict` on a small machine; for numbers, take vgg_normalised.pth and decoder.pth.

Layers, strides and names are those of pytorch-AdaIN's net.py; only the widths are smaller. How it works:

- The first layer, 1 x 1, turns colours into luma Y and two chroma values, all in [0, 1].
- Before each pooling a channel x is laid down twice, as x and as 1 - x. The maxima of both give maximum and minimum of 2 x 2 pixels, and the layer after
  the pooling takes the middle of the two. ReLU never cuts, since all values stay in [0, 1].
- Before the second and the third pooling Y is laid down four times, moved by no or one pixel down and right; chroma only before the third. So Y keeps half of the image's
  resolution and chroma a quarter: after the last pooling there are 16 channels of Y, each for its own place in a 4 x 4 grid, and 4 of each chroma.
- relu4_1 has the mean of these 16, their differences from it (plus 1/2), and the chroma.
- The decoder puts the places together again. A convolution after a nearest-neighbour enlargement cannot know odd pixels from even ones, but it can interleave two channels so that
  the result is the mean of neighbours in the interleaved signal: it takes half of one channel at the pixel, and half of the other at the pixel before. What lies between two
  pixels because of the pooling thus comes back to where it was. The layers after that sharpen it.
"""

from itertools import product
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

# Luma and chroma of JPEG (ITU-R BT.601).
TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
FROM_YCC = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])
STEPS = list(product((0, 1), (0, 1)))


class Conv:
    """A convolution to be filled in: weight (to, from, kernel, kernel) and bias."""

    def __init__(self, before, after, kernel=3):
        self.weight = np.zeros((after, before, kernel, kernel), np.float32)
        self.bias = np.zeros(after, np.float32)

    def put(self, to, of, factor=1.0, down=0, right=0):
        """Adds a channel, seen `down` and `right` of the pixel, times a factor."""
        middle = self.weight.shape[-1] // 2
        self.weight[to, of, middle + down, middle + right] += factor
        return self


def same(channels):
    conv = Conv(channels, channels)
    for channel in range(channels):
        conv.put(channel, channel)
    return conv


def doubled(before, moved):
    """Each of `before` channels as x and 1 - x, those of `moved` also one pixel down, right, and both."""
    places = [(channel, step) for channel in range(before) for step in (STEPS if channel in moved else STEPS[:1])]
    conv = Conv(before, 2 * len(places))
    for at, (channel, (down, right)) in enumerate(places):
        conv.put(2 * at, channel, 1, down, right)
        conv.put(2 * at + 1, channel, -1, down, right)
        conv.bias[2 * at + 1] = 1
    return conv


def middle(pairs):
    """The middle of maximum and minimum: (max x + 1 - max(1 - x)) / 2."""
    conv = Conv(2 * pairs, pairs)
    for at in range(pairs):
        conv.put(at, 2 * at, 0.5).put(at, 2 * at + 1, -0.5)
        conv.bias[at] = 0.5
    return conv


def interleaved(groups, chroma):
    """Four channels of each group become one, after an enlargement; the others stay."""
    conv = Conv(4 * groups + chroma, groups + chroma)
    along = [0, -1]
    for group in range(groups):
        for step, (y, x) in enumerate(STEPS):
            conv.put(group, 4 * group + step, 0.25, along[y], along[x])
    for at in range(chroma):
        conv.put(groups + at, 4 * groups + at)
    return conv


def sharpened(channels, lumas, amount):
    """Takes a share of the neighbours' mean away from the first channels."""
    conv = same(channels)
    for at in range(lumas):
        conv.put(at, at, amount)
        for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            conv.put(at, at, -amount / 4, down, right)
    return conv


# Encoder. Channels: Y, Cb, Cr.
colours = Conv(3, 3, 1)
colours.weight[:, :, 0, 0] = TO_YCC
colours.bias[1:] = 0.5
features = Conv(48, 25)  # of 16 Ys and 8 chromas, each as maximum of x and of 1 - x
split = middle(24)
for at in range(16):
    features.weight[0] += split.weight[at] / 16
    features.weight[1 + at] += split.weight[at]
features.weight[1:17] -= features.weight[0]
features.weight[17:] = split.weight[16:]
features.bias[:] = 0.5
encoder = {
    0: colours,
    2: same(3),
    5: doubled(3, moved=()),
    9: middle(3),
    12: doubled(3, moved=(0,)),
    16: middle(6),
    19: same(6),
    22: same(6),
    25: doubled(6, moved=range(6)),
    29: features,
}

# Decoder. The 16 Ys: of each of the four of the second pooling, four of the third.
joined = Conv(25, 24)
for at in range(16):
    joined.put(at, 0).put(at, 1 + at)
    joined.bias[at] = -0.5
for at in range(8):
    joined.put(16 + at, 17 + at)
back = Conv(3, 3)
back.weight[:, :, 1, 1] = FROM_YCC
back.bias[:] = -FROM_YCC[:, 1:].sum(1) / 2
decoder = {
    1: joined,
    5: interleaved(6, 0),
    8: sharpened(6, 4, 1.0),
    11: same(6),
    14: same(6),
    18: interleaved(1, 2),
    21: sharpened(3, 1, 2.0),
    25: same(3),
    28: back,
}

for name, network in [("encoder", encoder), ("decoder", decoder)]:
    tensors = {}
    for number, conv in network.items():
        tensors[f"{number}.weight"], tensors[f"{number}.bias"] = conv.weight, conv.bias
    save_file(tensors, Path(__file__).with_name(f"{name}.safetensors"))

"""The networks of atflow in PyTorch, and their checkpoints.

    from modeling import load

    model = load("model.safetensors")                 # in evaluation mode
    logits = model(images)                            # images: N x C x H x W, floats from 0 to 1

Needs PyTorch and nothing else. A checkpoint holds data only, and loading one runs no code of its own. The one exception
is a TorchScript network (`net.arch` is `torchscript`): its program is in the checkpoint, and may read and write files.
"""

import io
import json
import math
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F


# Names of safetensors. Networks of this file have F32 alone; the buffers of a TorchScript network may be of any type.
TYPES = {
    "F32": torch.float32, "F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16, "BOOL": torch.bool,
    "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
}


def load(path, device="cpu"):
    """The network of a checkpoint, in evaluation mode. `path` is the file, or the folder with `model.safetensors`."""
    path = Path(path)
    metadata, weights = read(path / "model.safetensors" if path.is_dir() else path)
    model = build(metadata, weights.pop("torchscript/program", None))
    lacking, unknown = model.network.load_state_dict(weights, strict=False)
    lacking = [name for name in lacking if not name.endswith("num_batches_tracked")]
    if lacking or unknown:
        raise ValueError(f"{path} has other tensors than its network: without {lacking}, beyond it {unknown}")
    return model.to(device).eval()


def build(metadata, program=None):
    """A network with initial weights, from the metadata of a checkpoint: `net`, `channels`, `classes`.

    `program` holds the bytes of a TorchScript file, for a network that has one.
    """
    net = dict(metadata["net"])
    arch, mean, std = net.pop("arch"), net.pop("mean", []), net.pop("std", [])
    standardise = net.pop("standardise", False)
    logits = net.pop("classes", None) or len(metadata["classes"])
    if program is not None:
        network = torch.jit.load(io.BytesIO(program.numpy().tobytes()), map_location="cpu")
    elif arch in NETWORKS:
        network = NETWORKS[arch](channels=metadata["channels"], logits=logits, **net)
    else:
        raise ValueError(f"this file knows no network `{arch}`, only {', '.join(NETWORKS)}")
    model = Classifier(network, mean, std, standardise)
    model.classes = metadata["classes"]
    return model


def read(path):
    """The metadata and the tensors of a safetensors file that atflow wrote."""
    data = bytearray(Path(path).read_bytes())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8 : 8 + length]))
    metadata = json.loads(header.pop("__metadata__")["atflow"])
    if metadata["format"] != "checkpoint/1":
        raise ValueError(f"{path} is no checkpoint that this file can read, but `{metadata['format']}`")
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in TYPES:
            raise ValueError(f"the tensor {name} is of type {entry['dtype']}, which this file cannot read")
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        if start == end:
            tensors[name] = torch.empty(entry["shape"], dtype=TYPES[entry["dtype"]])
        else:
            # Aligned, as a view into the file need not be.
            tensors[name] = torch.frombuffer(data[start:end], dtype=TYPES[entry["dtype"]]).view(entry["shape"])
    return metadata, tensors


class Classifier(nn.Module):
    """A network with its normalisation: images from 0 to 1 go in, logits come out."""

    def __init__(self, network, mean, std, standardise):
        super().__init__()
        self.network = network
        self.standardise = standardise
        self.register_buffer("mean", torch.tensor(mean or [0.0]).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std or [1.0]).view(1, -1, 1, 1), persistent=False)

    def forward(self, images):
        if self.standardise:
            return self.network(standardised(images))
        return self.network((images - self.mean) / self.std)


def standardised(images):
    """Each image less its mean, divided by its deviation, as `tf.image.per_image_standardization` does."""
    centred = images - images.mean((1, 2, 3), keepdim=True)
    variance = (centred * centred).mean((1, 2, 3), keepdim=True)
    return centred / variance.clamp(min=1 / images[0].numel()).sqrt()


def conv(source, target, kernel, stride=1):
    return nn.Conv2d(source, target, kernel, stride, kernel // 2, bias=False)


class Basic(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016, figure 2)."""

    expansion = 1

    def __init__(self, source, width, stride, shortcut):
        super().__init__()
        self.conv1, self.bn1 = conv(source, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
        project(self, shortcut, source, width, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + getattr(self, self.shortcut_name)(x))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 with the stride, 1 x 1, and a shortcut."""

    expansion = 4

    def __init__(self, source, width, stride, shortcut):
        super().__init__()
        self.conv1, self.bn1 = conv(source, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        project(self, shortcut, source, 4 * width, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + getattr(self, self.shortcut_name)(x))


def project(block, name, source, target, stride):
    """Gives a block its shortcut: a projection where the shape changes."""
    block.shortcut_name = name
    changes = stride != 1 or source != target
    layers = [conv(source, target, 1, stride), nn.BatchNorm2d(target)] if changes else []
    setattr(block, name, nn.Sequential(*layers))


def blurred(x, sigma):
    """A Gaussian blur of each channel, divided at the border by the part of the kernel that lies inside."""
    radius = math.ceil(3 * sigma)
    heights = [math.exp(-0.5 * (at / sigma) ** 2) for at in range(-radius, radius + 1)]
    kernel = torch.tensor([height / sum(heights) for height in heights], dtype=x.dtype, device=x.device)
    ones = torch.ones_like(x[:1, :1])
    for size in ((1, len(kernel)), (len(kernel), 1)):
        of_one = kernel.view(1, 1, *size)
        padding = (size[0] // 2, size[1] // 2)
        part = F.conv2d(ones, of_one, padding=padding)
        x = F.conv2d(x, of_one.expand(x.shape[1], 1, *size), padding=padding, groups=x.shape[1]) / part
    return x


class ResNet(nn.Module):
    """A residual network; names of the CIFAR code or of torchvision, as the stem is."""

    def __init__(self, block, blocks, width, stem, channels, logits, smooth=None):
        super().__init__()
        self.smooth = smooth
        cifar = stem == "cifar"
        self.conv1 = conv(channels, width, 3) if cifar else conv(channels, width, 7, 2)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.Identity() if cifar else nn.MaxPool2d(3, 2, 1)
        source = width
        self.groups = len(blocks)
        for group, count in enumerate(blocks):
            layers = []
            for index in range(count):
                stride = 2 if group > 0 and index == 0 else 1
                layers.append(block(source, width << group, stride, "shortcut" if cifar else "downsample"))
                source = block.expansion * (width << group)
            setattr(self, f"layer{group + 1}", nn.Sequential(*layers))
        self.head = "linear" if cifar else "fc"
        setattr(self, self.head, nn.Linear(source, logits))

    def forward(self, x):
        x = self.blur("stem", self.pool(F.relu(self.bn1(self.conv1(x)))))
        for group in range(self.groups):
            x = self.blur("groups", getattr(self, f"layer{group + 1}")(x))
        return getattr(self, self.head)(x.mean((2, 3)))

    def blur(self, after, x):
        return blurred(x, self.smooth["sigma"]) if self.smooth and self.smooth["after"] == after else x


class WideBlock(nn.Module):
    """Batch norm and ReLU before each convolution (Zagoruyko and Komodakis 2016)."""

    def __init__(self, source, target, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(source), conv(source, target, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(target), conv(target, target, 3)
        self.convShortcut = conv(source, target, 1, stride) if source != target else None

    def forward(self, x):
        active = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return y + (x if self.convShortcut is None else self.convShortcut(active))


class WideGroup(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    """A wide residual network without dropout."""

    def __init__(self, depth, widen, channels, logits):
        super().__init__()
        self.conv1 = conv(channels, 16, 3)
        source = 16
        for group, stride in enumerate((1, 2, 2)):
            target = (16 << group) * widen
            blocks = []
            for index in range((depth - 4) // 6):
                blocks.append(WideBlock(source, target, stride if index == 0 else 1))
                source = target
            setattr(self, f"block{group + 1}", WideGroup(blocks))
        self.bn1 = nn.BatchNorm2d(source)
        self.fc = nn.Linear(source, logits)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


class PreactBlock(nn.Module):
    """Batch norm and ReLU before each convolution (He et al. 2016b)."""

    def __init__(self, source, target, stride, of_input):
        super().__init__()
        self.of_input = of_input
        self.bn1, self.conv1 = nn.BatchNorm2d(source), conv(source, target, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(target), conv(target, target, 3)
        changes = stride != 1 or source != target
        self.shortcut = nn.Sequential(conv(source, target, 1, stride)) if changes else None

    def forward(self, x):
        active = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return y + (x if self.shortcut is None else self.shortcut(x if self.of_input else active))


class PreactResNet18(nn.Module):
    """A pre-activation ResNet-18, in the builds of Rice et al. 2020, Wong et al. 2020, and kuangliu."""

    def __init__(self, channels, logits, build="rice", width=64):
        super().__init__()
        self.conv1 = conv(channels, width, 3)
        source = width
        for group in range(4):
            blocks = []
            for index in range(2):
                stride = 2 if group > 0 and index == 0 else 1
                blocks.append(PreactBlock(source, width << group, stride, build == "wong"))
                source = width << group
            setattr(self, f"layer{group + 1}", nn.Sequential(*blocks))
        self.bn = nn.BatchNorm2d(source) if build == "rice" else None
        self.linear = nn.Linear(source, logits)

    def forward(self, x):
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        x = x if self.bn is None else F.relu(self.bn(x))
        return self.linear(x.mean((2, 3)))


class DmBlock(nn.Module):
    """The block of DeepMind's wide residual networks: at stride 2 the zeros are below and to the right."""

    def __init__(self, source, target, stride, activation):
        super().__init__()
        self.activation = activation
        self.zeros = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)
        self.batchnorm_0 = nn.BatchNorm2d(source)
        self.conv_0 = nn.Conv2d(source, target, 3, stride, bias=False)
        self.batchnorm_1, self.conv_1 = nn.BatchNorm2d(target), conv(target, target, 3)
        self.shortcut = conv(source, target, 1, stride) if source != target else None

    def forward(self, x):
        active = self.activation(self.batchnorm_0(x))
        y = self.conv_0(F.pad(active, self.zeros))
        y = self.conv_1(self.activation(self.batchnorm_1(y)))
        return y + (x if self.shortcut is None else self.shortcut(active))


class DmGroup(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.block = nn.Sequential(*blocks)

    def forward(self, x):
        return self.block(x)


class DmWideResNet(nn.Module):
    """A wide residual network as in DeepMind's code (Gowal et al. 2020)."""

    def __init__(self, channels, logits, depth=28, widen=10, activation="swish"):
        super().__init__()
        self.activation = {"relu": F.relu, "swish": F.silu}[activation]
        self.init_conv = conv(channels, 16, 3)
        source, groups = 16, []
        for group in range(3):
            blocks = []
            for index in range((depth - 4) // 6):
                stride, target = 2 if group > 0 and index == 0 else 1, (16 << group) * widen
                blocks.append(DmBlock(source, target, stride, self.activation))
                source = target
            groups.append(DmGroup(blocks))
        self.layer = nn.Sequential(*groups)
        self.batchnorm = nn.BatchNorm2d(source)
        self.logits = nn.Linear(source, logits)

    def forward(self, x):
        x = self.layer(self.init_conv(x))
        return self.logits(self.activation(self.batchnorm(x)).mean((2, 3)))


class Perceptron(nn.Module):
    def __init__(self, size, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(size, hidden), nn.Linear(hidden, size)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Attention(nn.Module):
    def __init__(self, size, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(size, 3 * size), nn.Linear(size, size)

    def forward(self, x):
        n, count, size = x.shape
        query, key, value = self.qkv(x).view(n, count, 3, self.heads, size // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(n, count, size))


class VitBlock(nn.Module):
    def __init__(self, size, heads, mlp):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(size, eps=1e-6), Attention(size, heads)
        self.norm2, self.mlp = nn.LayerNorm(size, eps=1e-6), Perceptron(size, mlp * size)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Patches(nn.Module):
    def __init__(self, channels, size, patch):
        super().__init__()
        self.proj = nn.Conv2d(channels, size, patch, patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """A vision transformer with a class token (Dosovitskiy et al. 2021); names of timm."""

    def __init__(self, side, patch, channels, logits, dim=192, depth=12, heads=3, mlp=4):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (side // patch) ** 2, dim))
        self.patch_embed = Patches(channels, dim, patch)
        self.blocks = nn.Sequential(*(VitBlock(dim, heads, mlp) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, logits)

    def forward(self, x):
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x)[:, 0]))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of N x C x H x W."""

    def __init__(self, channels):
        super().__init__(channels, eps=1e-6)

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.conv_dw = nn.Conv2d(size, size, 7, padding=3, groups=size)
        self.norm, self.mlp = nn.LayerNorm(size, eps=1e-6), Perceptron(size, 4 * size)
        self.gamma = nn.Parameter(torch.ones(size))

    def forward(self, x):
        y = self.mlp(self.norm(self.conv_dw(x).permute(0, 2, 3, 1))) * self.gamma
        return x + y.permute(0, 3, 1, 2)


class ConvNextStage(nn.Module):
    def __init__(self, source, target, count, halves):
        super().__init__()
        halving = [ChannelNorm(source), nn.Conv2d(source, target, 2, 2)] if halves else []
        self.downsample = nn.Sequential(*halving)
        self.blocks = nn.Sequential(*(ConvNextBlock(target) for _ in range(count)))

    def forward(self, x):
        return self.blocks(self.downsample(x))


class ConvNextHead(nn.Module):
    def __init__(self, size, logits):
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(size, eps=1e-6), nn.Linear(size, logits)

    def forward(self, x):
        return self.fc(self.norm(x.mean((2, 3))))


class ConvNext(nn.Module):
    """A ConvNeXt (Liu et al. 2022); names of timm."""

    def __init__(self, channels, logits, patch=4, width=96, blocks=(3, 3, 9, 3)):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, patch, patch), ChannelNorm(width))
        source, stages = width, []
        for index, count in enumerate(blocks):
            target = width << index
            stages.append(ConvNextStage(source, target, count, index > 0 or patch == 2))
            source = target
        self.stages = nn.Sequential(*stages)
        self.head = ConvNextHead(source, logits)

    def forward(self, x):
        return self.head(self.stages(self.stem(x)))


def resnet(width, blocks, **sizes):
    return ResNet(Basic, blocks, width, "cifar", **sizes)


def standard(block, blocks):
    return lambda stem, width=64, **sizes: ResNet(block, blocks, width, stem, **sizes)


NETWORKS = {
    "resnet": resnet,
    "resnet18": standard(Basic, [2, 2, 2, 2]),
    "resnet34": standard(Basic, [3, 4, 6, 3]),
    "resnet50": standard(Bottleneck, [3, 4, 6, 3]),
    "wideresnet": lambda depth=28, widen=10, **sizes: WideResNet(depth, widen, **sizes),
    "preact_resnet18": PreactResNet18,
    "dm_wide_resnet": DmWideResNet,
    "vit": VisionTransformer,
    "convnext": ConvNext,
}

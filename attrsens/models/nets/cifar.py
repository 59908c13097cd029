"""Residual networks for CIFAR, in the layouts of the two collections whose checkpoints are about.

Both call their ReLU as a function and end in a layer `linear`, so the weights of robustness' CIFAR networks fit too.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from attrsens.images import Preprocess
from attrsens.models.nets import net

# each collection's own normalisation (methods 6)
IMAGENET_STATISTICS = Preprocess(32, 32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CIFAR_STATISTICS = Preprocess(32, 32, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))

# blocks of each of the four stages, and whether they are bottlenecks
DEPTHS = {
    "cifar-resnet18": ((2, 2, 2, 2), False),
    "cifar-resnet34": ((3, 4, 6, 3), False),
    "cifar-resnet50": ((3, 4, 6, 3), True),
    "cifar-resnet101": ((3, 4, 23, 3), True),
    "cifar-resnet152": ((3, 8, 36, 3), True),
}


class PadShortcut(nn.Module):
    """Option A: every second pixel, new channels of zeros on both sides."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))


class Basic(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(self, inp: int, out: int, stride: int, pad: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inp, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = _shortcut(inp, out, stride, pad)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions around a shortcut; four times the channels come out."""

    def __init__(self, inp: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inp, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.shortcut = _shortcut(inp, 4 * planes, stride, pad=False)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


def _shortcut(inp: int, out: int, stride: int, pad: bool) -> nn.Module:
    if stride == 1 and inp == out:
        return nn.Sequential()
    if pad:
        return PadShortcut((out - inp) // 2)
    return nn.Sequential(nn.Conv2d(inp, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class CifarResNet(nn.Module):
    """3 x 3 stem, stages of residual blocks, global average, linear; over normalised images (N, 3, 32, 32)."""

    def __init__(self, widths: tuple[int, ...], blocks: tuple[int, ...], kind: str, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages = len(widths)
        inp = widths[0]
        for i, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            layers: list[nn.Module] = []
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                if kind == "bottleneck":
                    layers.append(Bottleneck(inp, width, stride))
                    inp = 4 * width
                else:
                    layers.append(Basic(inp, width, stride, pad=kind == "pad"))
                    inp = width
            setattr(self, f"layer{i + 1}", nn.Sequential(*layers))
        self.linear = nn.Linear(inp, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


@net(
    "cifar-resnet20",
    "cifar-resnet32",
    "cifar-resnet44",
    "cifar-resnet56",
    "cifar-resnet110",
    preprocess=IMAGENET_STATISTICS,
    labels="cifar10",
    classes=10,
)
def thin(name: str, classes: int) -> nn.Module:
    """CIFAR ResNet of 16, 32, 64 channels, option A shortcuts (He et al. 2016; akamaster's layout)."""
    blocks = (int(name.removeprefix("cifar-resnet")) - 2) // 6
    return CifarResNet((16, 32, 64), (blocks,) * 3, "pad", classes)


@net(
    "cifar-resnet18",
    "cifar-resnet34",
    "cifar-resnet50",
    "cifar-resnet101",
    "cifar-resnet152",
    preprocess=CIFAR_STATISTICS,
    labels="cifar10",
    classes=10,
)
def wide(name: str, classes: int) -> nn.Module:
    """CIFAR ResNet of 64 to 512 channels, convolution shortcuts (kuangliu's layout; also robustness' and CURE's)."""
    blocks, bottleneck = DEPTHS[name]
    return CifarResNet((64, 128, 256, 512), blocks, "bottleneck" if bottleneck else "conv", classes)

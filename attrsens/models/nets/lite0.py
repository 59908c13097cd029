"""EfficientNet-Lite0 (Tan & Le 2019; TensorFlow's lite variant), the default classifier.

Defined here so that the default path imports neither torchvision nor timm. Logits equal those of timm's
`tf_efficientnet_lite0` bit for bit at 224 px (tested). The modules are registered in the order of that
architecture's state dict, so weights of either naming load by position.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attrsens.images import Preprocess
from attrsens.models.nets import net

LITE0 = Preprocess(256, 224, "bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

# (blocks, kernel, stride of the first, expansion, output channels) of each stage
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class ConvNorm(nn.Module):
    """Convolution with TensorFlow's SAME padding, BatchNorm, and ReLU6 unless `act` is false."""

    def __init__(self, inp: int, out: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True) -> None:
        super().__init__()
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(inp, out, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        stride = self.conv.stride[0]
        if stride > 1:  # SAME: the odd pixel of padding goes to the right and the bottom
            pads = [max((-(-n // stride) - 1) * stride + self.conv.kernel_size[0] - n, 0) for n in x.shape[-2:]]
            x = F.pad(x, [pads[1] // 2, pads[1] - pads[1] // 2, pads[0] // 2, pads[0] - pads[0] // 2])
        x = self.bn(self.conv(x))
        return F.relu6(x, inplace=not torch.is_grad_enabled()) if self.act else x


class Block(nn.Module):
    """Inverted residual: expand, depthwise, project; a skip where the shape allows it."""

    def __init__(self, inp: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        mid = inp * expansion
        layers = [ConvNorm(inp, mid, 1)] if expansion > 1 else []
        layers += [ConvNorm(mid, mid, kernel, stride, groups=mid), ConvNorm(mid, out, 1, act=False)]
        self.layers = nn.Sequential(*layers)
        self.skip = stride == 1 and inp == out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out + x if self.skip else out


class Lite0(nn.Module):
    """EfficientNet-Lite0 over normalised images (N, 3, H, W); logits (N, classes)."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 32, 3, 2)
        blocks, inp = [], 32
        for count, kernel, stride, expansion, out in STAGES:
            for i in range(count):
                blocks.append(Block(inp, out, kernel, stride if i == 0 else 1, expansion))
                inp = out
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(inp, 1280, 1)
        self.classifier = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.stem(x)))
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits

    def batchnorm_pairs(self) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """Every (convolution, BatchNorm behind it): what may be folded without tracing the network."""
        for module in self.modules():
            if isinstance(module, ConvNorm):
                yield module.conv, module.bn


def in_order(state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Weights in this architecture's names; where they have others they are taken by position."""
    tensors = [tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")]
    with torch.device("meta"):
        names = [name for name in Lite0().state_dict() if not name.endswith("num_batches_tracked")]
    if set(names) <= set(state):
        tensors = [state[name] for name in names]
        extra = [(name, state[name]) for name in state if name not in names and not name.endswith("tracked")]
    else:
        extra = [(f"tensor {i}", tensor) for i, tensor in enumerate(tensors) if i >= len(names)]
    # laid out anew: the file holds one matrix transposed, which changes the last bit of its product
    return OrderedDict([(name, t.contiguous()) for name, t in zip(names, tensors, strict=False)] + extra)


@net("lite0", preprocess=LITE0, labels="imagenet", classes=1000, adapt=in_order)
def lite0(name: str, classes: int) -> nn.Module:
    """EfficientNet-Lite0 for ImageNet, 224 px."""
    return Lite0(classes)

"""Small networks whose explanations are known, and networks that use their ReLUs in awkward ways."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrsens


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers from a generator of their own."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class Linear(nn.Module):
    """f(x) = W x + b over flattened images."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), self.weight, self.bias)


class Quadratic(nn.Module):
    """Logits (x'Ax/2, 0) over flattened images, A symmetric."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        first = 0.5 * torch.einsum("ni,ij,nj->n", flat, self.matrix, flat)
        return torch.stack([first, torch.zeros_like(first)], 1)


class OnePixel(nn.Module):
    """Logits (value of one pixel of channel 0, 0)."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.row, self.column = row, column

    def forward(self, x: Tensor) -> Tensor:
        value = x[:, 0, self.row, self.column]
        return torch.stack([value, torch.zeros_like(value)], 1)


class SmallNet(nn.Module):
    """Two convolutions with BatchNorm and a linear layer; `style` says how the ReLU is called.

    With style "relu6" it is cut at 6, and signals are large enough for that.
    """

    def __init__(self, style: str, channels: int = 3, classes: int = 5) -> None:
        super().__init__()
        self.style = style
        self.conv1, self.bn1 = nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=style == "inplace")
        self.fc = nn.Linear(8, classes)
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(draw(*p.shape, seed=i) * 0.3)
            for bn in (self.bn1, self.bn2):
                bn.running_mean.copy_(draw(8, seed=50) * 0.1)
                bn.running_var.copy_(uniform(8, seed=51) + 0.5)
            if style == "relu6":
                self.bn1.weight.mul_(15)
                self.bn2.weight.mul_(4)

    def activate(self, x: Tensor) -> Tensor:
        if self.style == "relu6":
            return F.relu6(x)
        return F.relu(x) if self.style == "functional" else self.relu(x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activate(self.bn1(self.conv1(x)))
        x = self.activate(self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


STYLES = ("functional", "inplace", "reused")
KINDS = ("reused", "relu6")  # ReLU and ReLU6, for what is compared with an oracle on both


def small(style: str = "reused", channels: int = 3, **options: object) -> attrsens.Classifier:
    """A classifier over 16 x 16 images."""
    net = SmallNet(style, channels)
    return attrsens.Classifier(net, [0.45] * channels, [0.25] * channels, crop=16, device="cpu", **options)


def linear(seed: int = 0, side: int = 6, classes: int = 4, **options: object) -> tuple[attrsens.Classifier, Tensor]:
    """(classifier, weights (classes, 3, side, side)) of a linear network, not normalising."""
    weight = draw(classes, 3 * side * side, seed=seed)
    net = Linear(weight, draw(classes, seed=seed + 1))
    classifier = attrsens.Classifier(net, [0.0] * 3, [1.0] * 3, crop=side, device="cpu", **options)
    return classifier, weight.reshape(classes, 3, side, side)


def mean_gradient(f: attrsens.Classifier, images: Tensor, target: int = 0) -> tuple[Tensor, Tensor]:
    """The mean gradient over images, and their scores."""
    gradients, scores = (torch.cat(parts) for parts in zip(*f.gradients(images, target), strict=True))
    return gradients.mean(0), scores


def explain(f: attrsens.Classifier, method: str, x: Tensor, target: int = 0, **parameters: object) -> Tensor:
    """The raw map of a method, before sign and reduction."""
    spec = attrsens.METHODS[method]
    return attrsens.Explainer(f, spec, target, spec.complete(parameters), image="toy").raw(x).map

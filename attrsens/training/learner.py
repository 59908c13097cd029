"""The network while it learns, and the batch that a step sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attrsens.boundary.losses import unit
from attrsens.models.surgery import first_output
from attrsens.seeds import Stream

NORMS = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class Batch:
    """What one step sees.

    Attributes:
        x: pixels in [0, 1], (N, C, H, W), channels last in memory.
        y: class indices, (N,).
        step: counted from 0 over the whole run.
        seed: the user's.
        progress: share of the run that lies behind, in [0, 1).
        purpose: what draws are for: to train, or to measure.
    """

    x: Tensor
    y: Tensor
    step: int
    seed: int
    progress: float = 0.0
    purpose: str = "train"

    def uniform(self, purpose: str, per_image: bool = False) -> Tensor:
        """Draws from U[0, 1) as large as the batch, or one an image."""
        shape = (len(self.x),) if per_image else tuple(self.x.shape)
        return self._placed(self._stream(purpose).uniform([self.step], shape)[0])

    def normal(self, purpose: str) -> Tensor:
        """Draws from N(0, 1) as large as the batch."""
        return self._placed(self._stream(purpose).normal([self.step], tuple(self.x.shape))[0])

    def _stream(self, purpose: str) -> Stream:
        return Stream(self.seed, "", f"{self.purpose} {purpose}")

    def _placed(self, drawn: object) -> Tensor:
        tensor = torch.as_tensor(drawn).to(self.x.device)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


class Learner:
    """A network over pixels in [0, 1], as training sees it.

    Args:
        module: maps normalised images to logits; it is trained in place.
        mean, std: one number a channel.
        precision: fp32, or bf16 for convolutions and matrices (autocast).
        smoothing: of labels, in `loss`.
    """

    def __init__(
        self,
        module: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        precision: str = "fp32",
        smoothing: float = 0.0,
    ) -> None:
        self.module, self.precision, self.smoothing = module, precision, smoothing
        self.device = next(module.parameters()).device
        self._mean, self._std = (torch.tensor(tuple(v), device=self.device).reshape(-1, 1, 1) for v in (mean, std))
        self._norms = [m for m in module.modules() if isinstance(m, NORMS)]

    def normalised(self, x: Tensor) -> Tensor:
        """Pixels as the network takes them, (N, C, H, W)."""
        return (x - self._mean) / self._std

    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, classes) in float32, of pixels, in whatever mode the network is."""
        return self.of_normalised(self.normalised(x))

    def of_normalised(self, x: Tensor) -> Tensor:
        """As `logits`, of normalised images."""
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            out = first_output(self.module(x))
        return out.float()

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy with smoothed labels; BatchNorm learns from the batch."""
        self.module.train()
        return F.cross_entropy(self.logits(x), y, label_smoothing=self.smoothing)

    def input_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of each image's cross-entropy to its pixels, (N, C, H, W), by the batch's own statistics, which
        BatchNorm does not remember."""
        self.module.train()
        with self.forgetful(), torch.enable_grad():
            x = x.detach().requires_grad_()
            loss = F.cross_entropy(self.logits(x), y, reduction="sum")
            (found,) = torch.autograd.grad(loss, x)
        return found

    @contextmanager
    def forgetful(self) -> Iterator[None]:
        """While active, no forward pass moves the running statistics of BatchNorm."""
        kept = [(m, m.momentum) for m in self._norms]
        for module in self._norms:
            module.momentum = 0.0
        try:
            yield
        finally:
            for module, momentum in kept:
                module.momentum = momentum


def curvature(net: Learner, batch: Batch, reach: float) -> Tensor:
    """Mean over images of |grad l(x + z) - grad l(x)|, z = reach * s / |s|, s = sign(grad l(x)), in normalised pixels.

    The running statistics of BatchNorm are used, so that every image has a loss of its own. `z` is a constant.
    """
    net.module.eval()
    precision, net.precision = net.precision, "fp32"  # a difference of gradients drowns in the rounding of bf16
    try:
        with torch.enable_grad():
            x = net.normalised(batch.x).detach().requires_grad_()
            loss = F.cross_entropy(net.of_normalised(x), batch.y, reduction="sum")
            (here,) = torch.autograd.grad(loss, x, create_graph=True)
            z = unit(here.detach().sign()) * reach
            moved = (x + z).detach().requires_grad_()
            loss = F.cross_entropy(net.of_normalised(moved), batch.y, reduction="sum")
            (there,) = torch.autograd.grad(loss, moved, create_graph=True)
            # the square root has no slope at 0; the shift is far below any curvature that is seen
            return ((there - here).square().flatten(1).sum(1) + 1e-12).sqrt().mean()
    finally:
        net.precision = precision

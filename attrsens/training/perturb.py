"""Perturbations of a batch of pixels: random starts, directions of ascent, projections, and PGD from these."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from attrsens.boundary.losses import norms, unit, wide

if TYPE_CHECKING:
    from attrsens.training.learner import Batch


def random_start(batch: Batch, norm: str, radius: float) -> Tensor:
    """Draws that are uniform in the ball of the norm, (N, C, H, W); keyed by the step that the batch is of."""
    if norm == "linf":
        return batch.uniform("start").mul_(2 * radius).sub_(radius)
    share = batch.uniform("length", per_image=True) ** (1 / batch.x[0].numel())
    return unit(batch.normal("start")) * wide(radius * share)


def direction(gradient: Tensor, norm: str) -> Tensor:
    """Where a step of length 1 in the norm climbs most: the sign (L-infinity) or the gradient at length 1 (L2)."""
    return gradient.sign() if norm == "linf" else unit(gradient)


def project(delta: Tensor, norm: str, eps: float) -> Tensor:
    """The nearest perturbation in the ball, for every image."""
    if norm == "linf":
        return delta.clamp(-eps, eps)
    return delta * wide((eps / norms(delta).clamp(min=1e-30)).clamp(max=1))


def ascend(
    gradient: Callable[[Tensor], Tensor],
    x: Tensor,
    delta: Tensor,
    norm: str,
    eps: float,
    steps: int,
    step_size: float,
) -> Tensor:
    """Projected gradient ascent from x + delta; the end of it, in the ball and in [0, 1].

    Args:
        gradient: of the loss to the pixels of a batch.
    """
    at = (x + delta).clamp(0, 1)
    for _ in range(steps):
        climbed = at + step_size * direction(gradient(at), norm)
        at = (x + project(climbed - x, norm, eps)).clamp(0, 1)
    return at

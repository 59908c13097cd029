"""Losses that grow towards another class, and lengths, one number an image."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from attrsens.errors import AttrsensError

Loss = Callable[[Tensor, Tensor], Tensor]  # (logits, classes) -> one number an image, larger nearer to another class


def others(logits: Tensor, classes: Tensor) -> Tensor:
    """The logits without the class of each image, which becomes minus infinity.

    Raises:
        AttrsensError: there is one class only.
    """
    if logits.shape[1] < 2:
        raise AttrsensError("a network with one class has no decision boundary")
    return logits.scatter(1, classes[:, None], -math.inf)


def odds(logits: Tensor, classes: Tensor) -> Tensor:
    """log((1 - p) / p): its gradient has the direction of the cross-entropy's, and no p near 1 that rounds it away."""
    return others(logits, classes).logsumexp(1) - logits.gather(1, classes[:, None])[:, 0]


def margin(logits: Tensor, classes: Tensor) -> Tensor:
    """Logit of the best other class less that of the class: positive beyond the boundary."""
    return others(logits, classes).amax(1) - logits.gather(1, classes[:, None])[:, 0]


def logit_ratio(logits: Tensor, classes: Tensor) -> Tensor:
    """The margin over the span from the first to the third logit (DLR); with two classes, the margin."""
    if logits.shape[1] < 3:
        return margin(logits, classes)
    top = logits.topk(3, 1).values
    return margin(logits, classes) / (top[:, 0] - top[:, 2] + 1e-12)


def norms(x: Tensor) -> Tensor:
    """L2 norm of every image."""
    found: Tensor = x.flatten(1).norm(dim=1)
    return found


def wide(values: Tensor) -> Tensor:
    """One number an image, to be multiplied with images."""
    return values.reshape(-1, 1, 1, 1)


def unit(x: Tensor) -> Tensor:
    """Every image at length 1; zeros stay."""
    return x / wide(norms(x).clamp(min=1e-30))

"""Standard training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrsens.training import RECIPES

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.training.learner import Batch, Learner


@RECIPES("std", version=1, start=False)
def standard(net: Learner, batch: Batch) -> Tensor:
    """Standard training: the cross-entropy of the pictures as they are."""
    return net.loss(batch.x, batch.y)

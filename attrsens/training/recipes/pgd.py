"""Adversarial training with a multi-step attack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from attrsens.params import Param
from attrsens.training import RECIPES

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.training.learner import Batch, Learner


@RECIPES("pgd", version=1, start=False)
def adversarial(
    net: Learner,
    batch: Batch,
    *,
    norm: Annotated[str, Param("of the budget", choices=("linf", "l2"))] = "linf",
    eps: Annotated[float, Param("budget in pixels from 0 to 1; 8/255 is read as such", min=0)] = 8 / 255,
    steps: Annotated[int, Param("of the attack", min=1, source="methods 6")] = 7,
    step_size: Annotated[float, Param("of the attack; 0: 2.5 eps / steps", min=0)] = 0.0,
) -> Tensor:
    """Adversarial training: the cross-entropy where projected gradient ascent ends (Madry et al. 2018).

    Starts at random in the ball; the library robustness starts at the picture, which matters for few steps only.
    """
    from attrsens.training.perturb import ascend, random_start

    delta = random_start(batch, norm, eps)
    size = step_size or 2.5 * eps / steps
    x = ascend(lambda at: net.input_gradient(at, batch.y), batch.x, delta, norm, eps, steps, size)
    return net.loss(x, batch.y)

"""Adversarial training with a single step from a random start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from attrsens.params import Param
from attrsens.training import RECIPES

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.training.learner import Batch, Learner


@RECIPES("fast", version=1, start=False, guard=("pgd", {"steps": 2}))
def single_step(
    net: Learner,
    batch: Batch,
    *,
    norm: Annotated[str, Param("of the budget", choices=("linf", "l2"))] = "linf",
    eps: Annotated[float, Param("budget in pixels from 0 to 1; 8/255 is read as such", min=0)] = 8 / 255,
    noise: Annotated[float, Param("radius of the random start, in units of eps", min=0)] = 2.0,
    step_size: Annotated[float, Param("of the one step; 0: eps", min=0)] = 0.0,
) -> Tensor:
    """Fast adversarial training: one step behind unclipped noise (N-FGSM, de Jorge et al. 2022).

    x' = x + n + a sign(grad l(x + n)), n uniform in the ball of radius noise * eps (for L2: uniform in the L2 ball, and
    the gradient at length 1 for its sign). Neither n nor the sum is drawn back into the ball of radius eps, which is
    what keeps single steps from catastrophic overfitting; pixels are cut at 0 and 1 at the end.
    """
    from attrsens.training.perturb import direction, random_start

    delta = random_start(batch, norm, noise * eps)
    gradient = net.input_gradient(batch.x + delta, batch.y)
    delta = delta + (step_size or eps) * direction(gradient, norm)
    return net.loss((batch.x + delta).clamp(0, 1), batch.y)

"""Fine-tuning for low curvature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from attrsens.params import Param
from attrsens.training import RECIPES

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.training.learner import Batch, Learner

RAMP = (0.1, 0.4, 0.8, 1.8, 3.0)  # h by tenths of the run (by epochs of ten or more, in the authors' code)


@RECIPES("cure", version=1, start=True, epochs=10, lr=0.01, augment=False, ema=0.99)
def low_curvature(
    net: Learner,
    batch: Batch,
    *,
    h: Annotated[float, Param("length of the step, normalised pixels", min=0, source="methods 6")] = 3.0,
    penalty: Annotated[float, Param("weight of the curvature term (lambda)", min=0)] = 1.0,
) -> Tensor:
    """Curvature regularisation of a trained network (CURE, Moosavi-Dezfooli et al. 2019).

    CE + penalty * mean over images of |grad l(x + z) - grad l(x)|, z = h s / |s|, s = sign(grad l(x)); gradients are of
    each image's own loss to its normalised pixels, not of the batch's mean as in the authors' code, whose penalty of 4
    is 4 / 128 here. The norm is not squared, as in that code. BatchNorm uses its running statistics in the penalty.
    """
    from attrsens.training.learner import curvature

    reach = h * RAMP[min(int(10 * batch.progress), len(RAMP) - 1)] / RAMP[-1]
    return net.loss(batch.x, batch.y) + penalty * curvature(net, batch, reach)

"""Beta-smoothing: the map of the network with softplus in place of its ReLUs; the prediction stays the network's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from attrsens.errors import AttrsensError
from attrsens.spec import WRAPPERS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.explainer import Base
    from attrsens.models.batches import Images
    from attrsens.models.classifier import Classifier
    from attrsens.models.surgery import relu_as


def many(base: Base, f: Classifier, images: Images, target: int, *, beta: float) -> Iterator[Tensor]:
    """The maps of many images: the rule holds while a batch is computed, and not between batches."""
    from attrsens.models.batches import chunks

    if f.dry:
        yield from base.many(images)
        return
    for chunk in chunks(images, f.sizes[1]):
        with _smooth(beta) as mode:
            parts = list(base.many(chunk))
        _check(mode, f)
        yield from parts


@WRAPPERS("softplus", version=2, differentiable=True, cost="base", many=many)
def softplus(
    base: Base,
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    beta: Annotated[
        float,
        Param(
            "sharpness; large beta is ReLU again",
            min=1e-3,
            max=1e6,
            sweep=(0.8, 1.0, 3.0, 10.0),
            reference=0.8,
            scale="ratio",
            range=(0.5, 100),
            source="SMO 4.1; Dombrowski et al. 2019",
        ),
    ] = 0.8,
) -> tuple[Tensor, dict[str, float | None]]:
    """The base on the network with log(1 + exp(beta z)) / beta for every ReLU, ReLU6 as a difference of two.

    Dombrowski et al. 2019; methods 2.15. The class that is explained, its probability and every score stay those of the
    network as it is. Costs what the base costs.
    """
    with _smooth(beta) as mode:
        heatmap = base(x)
    if not f.dry:
        _check(mode, f)
    return heatmap, base.notes


def _smooth(beta: float) -> relu_as:
    from attrsens.models.surgery import softplus_relu

    return softplus_relu(beta)


def _check(mode: relu_as, f: Classifier) -> None:
    if mode.count == 0:
        raise AttrsensError(f"softplus: model {f.name} calls no ReLU, so there is nothing to smooth")

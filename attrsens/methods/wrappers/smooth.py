"""Generalised SmoothGrad: mean or median of any method's maps over a ball around the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from attrsens.spec import WRAPPERS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.explainer import Base
    from attrsens.models.classifier import Classifier


@WRAPPERS("smooth", version=1, cost="n x base")
def smooth(
    base: Base,
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    n: Annotated[
        int, Param("copies of the image", min=1, max=100_000, scale="ratio", range=(10, 500), source="HSE code")
    ] = 50,
    radius: Annotated[
        float, Param("radius of the ball, in the map's space", min=0, scale="ratio", range=(0.05, 0.6), source="HSE 4")
    ] = 0.3,
    ball: Annotated[
        str,
        Param("linf: uniform in the cube; gaussian: normal with sd radius", choices=("linf", "gaussian"), source="HSE"),
    ] = "linf",
    agg: Annotated[
        str,
        Param("mean (closest in L2) or feature-wise median (in L1)", choices=("mean", "median"), source="HSE eq. 3"),
    ] = "mean",
    seed: Annotated[int, Param("seed of the draws", min=0, sweep=(0, 1, 2, 3, 4), reference=0)] = 0,
) -> Tensor:
    """Mean or feature-wise median of the maps of copies drawn from a ball around the image, not clipped.

    argmin_e mean_i ||Phi(x + u_i) - e||: the mean for squared L2, the median for L1. Yeh et al. 2019 and HSE eq. 3;
    methods 2.7. n times the base. Draw i is the same for every n; radius 0 is the base itself.
    """
    import torch

    from attrsens.models.batches import Stack

    if radius == 0:
        return base(x)
    stream = f.stream(seed, "smooth")

    def copies(indices: range) -> Tensor:
        shape = tuple(x.shape)
        draws = stream.normal(indices, shape) if ball == "gaussian" else 2 * stream.uniform(indices, shape) - 1
        return x.new_tensor(draws).mul_(radius).add_(x)

    parts = base.many(Stack(n, copies, like=x))
    if agg == "median":
        ordered = torch.cat(list(parts)).sort(0).values
        return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    total: Tensor | None = None
    for part in parts:
        total = part.sum(0) if total is None else total + part.sum(0)
    assert total is not None
    return total / n

"""Generalised SmoothGrad: mean or median of any method's maps over a ball around the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from attrsens.methods._settings import Points, one
from attrsens.spec import WRAPPERS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.explainer import Base
    from attrsens.models.classifier import Classifier


def _settings(base: Base, f: Classifier, x: Tensor, targets: Sequence[int], points: Points) -> Iterator[Tensor]:
    """Means and medians over the first n of the same maps."""
    import torch

    from attrsens.models.batches import Stack, prefix_sums

    radius, ball = points[0]["radius"], points[0]["ball"]
    if radius == 0:
        heatmap = base(x)
        yield from [heatmap] * len(points)
        return
    stream = f.stream(points[0]["seed"], "smooth")

    def copies(indices: range) -> Tensor:
        shape = tuple(x.shape)
        draws = stream.normal(indices, shape) if ball == "gaussian" else 2 * stream.uniform(indices, shape) - 1
        return x.new_tensor(draws).mul_(radius).add_(x)

    counts = [point["n"] for point in points]
    held: list[Tensor] = []  # a median needs them all
    keep = any(point["agg"] == "median" for point in points)

    def maps() -> Iterator[Tensor]:
        for part in base.many(Stack(counts[-1], copies, like=x)):
            held.extend([part] if keep else [])
            yield part

    for n, point, total in zip(counts, points, prefix_sums(maps(), counts), strict=True):
        if point["agg"] == "median":
            ordered = torch.cat(held)[:n].sort(0).values
            yield (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
        else:
            yield total / n


@WRAPPERS(
    "smooth",
    version=1,
    differentiable=True,
    cost="n x base",
    counts="n",
    still=lambda p: p["radius"] == 0,
    over=("n", "agg"),
    settings=_settings,
)
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
    found: Tensor = one(_settings, base, f, x, target, n=n, radius=radius, ball=ball, agg=agg, seed=seed)
    return found

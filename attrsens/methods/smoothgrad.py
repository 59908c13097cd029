"""SmoothGrad and its relatives: statistics of the gradient over noisy copies of the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from attrsens.methods._settings import Points, one
from attrsens.spec import METHODS, Param, Value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from attrsens.models.batches import Stack
    from attrsens.models.classifier import Classifier
    from attrsens.seeds import Stream


COPIES = Param(
    "noisy copies",
    min=1,
    max=1_000_000,
    sweep=(50, 100, 200, 500, 800),
    reference=50,
    scale="ratio",
    range=(10, 800),
    source="SAM 4.2",
)
SPREAD = Param(
    "noise sd as a fraction of the image's range (max - min over all channels)",
    min=0,
    sweep=(0.1, 0.2, 0.3),
    reference=0.2,
    scale="ratio",
    range=(0.05, 0.4),
    source="SAM 4.2; sweep from its code",
)
SEED = Param("seed of the noise", min=0, sweep=(0, 1, 2, 3, 4), reference=0)


def noiseless(p: Mapping[str, Value]) -> bool:
    """Whether every copy is the image itself."""
    return p["n"] == 0 or p["spread"] == 0


Draw = Callable[["Stream", range, tuple[int, ...]], "NDArray[np.float32]"]


def _normal(stream: Stream, indices: range, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return stream.normal(indices, shape)


def _uniform(stream: Stream, indices: range, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return 2 * stream.uniform(indices, shape) - 1


def _sg(f: Classifier, x: Tensor, targets: Sequence[int], points: Points) -> Iterator[Tensor]:
    return _means(f, x, targets[0], points, "noise", _normal)


def _ug(f: Classifier, x: Tensor, targets: Sequence[int], points: Points) -> Iterator[Tensor]:
    return _means(f, x, targets[0], points, "uniform noise", _uniform)


def _vargrad(f: Classifier, x: Tensor, targets: Sequence[int], points: Points) -> Iterator[Tensor]:
    for mean, square in _moments(f, x, targets[0], points):
        variance = square - mean**2  # rounding can take it below 0; a clamp would be a ReLU to `+softplus`
        yield variance.where(variance > 0, 0).float()


def _sgsq(f: Classifier, x: Tensor, targets: Sequence[int], points: Points) -> Iterator[Tensor]:
    for _, square in _moments(f, x, targets[0], points):
        yield square.float()


@METHODS(
    "sg",
    version=1,
    gradient=True,
    differentiable=True,
    cost="n F + n B",
    counts="n",
    still=noiseless,
    over=("n",),
    settings=_sg,
)
def smoothgrad(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    n: Annotated[
        int,
        replace(
            COPIES,
            help="noisy copies (0: the gradient itself)",
            min=0,
            source="SAM 4.2; to a robust twin also 0, the reference; Fig. 1: 50, 200, 800; its code: 25, 50, 75",
        ),
    ] = 50,
    spread: Annotated[float, SPREAD] = 0.15,
    seed: Annotated[int, SEED] = 0,
) -> Tensor:
    """Mean gradient over copies of the image with Gaussian noise, not clipped.

    (1/n) sum_i g(x + e_i), e_i ~ N(0, s^2), s = spread (max x - min x). Smilkov et al. 2017; methods 2.3.
    n passes forward and back. Draw i is the same for every n.
    """
    found: Tensor = one(_sg, f, x, target, n=n, spread=spread, seed=seed)
    return found


@METHODS(
    "ug",
    version=1,
    gradient=True,
    differentiable=True,
    cost="n F + n B",
    counts="n",
    still=noiseless,
    over=("n",),
    settings=_ug,
)
def uniform_gradient(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    n: Annotated[
        int, Param("noisy copies (0: the gradient itself)", min=0, max=1_000_000, scale="ratio", source="SMO 4.1")
    ] = 10,
    spread: Annotated[
        float,
        Param(
            "half-width of the noise as a fraction of the image's range (its sd is 0.577 of that)",
            min=0,
            scale="ratio",
            range=(0.05, 0.4),
            source="SMO 4.1: 0.2, on CIFAR 0.1",
        ),
    ] = 0.2,
    seed: Annotated[int, SEED] = 0,
) -> Tensor:
    """Mean gradient over copies of the image with uniform noise, not clipped.

    (1/n) sum_i g(x + e_i), e_i ~ U(-s, s), s = spread (max x - min x). SMO 4.1; methods 2.5. n passes forward and back.
    """
    found: Tensor = one(_ug, f, x, target, n=n, spread=spread, seed=seed)
    return found


@METHODS(
    "vargrad",
    version=1,
    gradient=True,
    differentiable=True,
    cost="n F + n B",
    counts="n",
    still=noiseless,
    over=("n",),
    settings=_vargrad,
)
def vargrad(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    n: Annotated[int, COPIES] = 50,
    spread: Annotated[float, SPREAD] = 0.15,
    seed: Annotated[int, SEED] = 0,
) -> Tensor:
    """Variance of the gradient over copies of the image with SmoothGrad's noise, over n, not n - 1.

    mean g^2 - (mean g)^2. Adebayo et al. 2018; methods 2.4. n passes forward and back.
    """
    found: Tensor = one(_vargrad, f, x, target, n=n, spread=spread, seed=seed)
    return found


@METHODS(
    "sgsq",
    version=1,
    gradient=True,
    differentiable=True,
    cost="n F + n B",
    counts="n",
    still=noiseless,
    over=("n",),
    settings=_sgsq,
)
def smoothgrad_squared(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    n: Annotated[int, COPIES] = 50,
    spread: Annotated[float, SPREAD] = 0.15,
    seed: Annotated[int, SEED] = 0,
) -> Tensor:
    """Mean squared gradient over copies of the image with SmoothGrad's noise.

    mean g^2. Hooker et al. 2019; methods 2.4. n passes forward and back.
    """
    found: Tensor = one(_sgsq, f, x, target, n=n, spread=spread, seed=seed)
    return found


def _range(x: Tensor) -> Any:
    """max - min over all channels; with its graph where the image has one."""
    span = x.max() - x.min()
    return span if span.requires_grad else float(span)


def _means(f: Classifier, x: Tensor, target: int, points: Points, purpose: str, draw: Draw) -> Iterator[Tensor]:
    """The mean gradient for each setting, n ascending: over the first n of the same copies."""
    scale = points[0]["spread"] * _range(x)
    counts = [point["n"] for point in points]
    clean = counts.count(0) if scale else len(counts)
    if clean:  # no copy, or every copy is the image itself
        gradient = f.gradient(x, target)
        yield from [gradient] * clean
    if moved := counts[clean:]:
        copies = _copies(x, moved[-1], scale, f.stream(points[0]["seed"], purpose), draw)
        for n, total in zip(moved, _sums(f, copies, target, moved, lambda gradients: gradients), strict=True):
            yield total / n


def _moments(f: Classifier, x: Tensor, target: int, points: Points) -> Iterator[tuple[Tensor, Tensor]]:
    """(mean, mean square) of the gradients for each setting, float64: their difference is small beside either."""
    import torch

    scale = points[0]["spread"] * _range(x)
    counts = [point["n"] for point in points]
    copies = _copies(x, counts[-1], scale, f.stream(points[0]["seed"], "noise"), _normal)

    def both(gradients: Tensor) -> Tensor:
        wide = gradients.double()
        return torch.stack([wide, wide**2], 1)

    for n, (first, second) in zip(counts, _sums(f, copies, target, counts, both), strict=True):
        yield first / n, second / n


def _sums(
    f: Classifier, copies: Stack, target: int, counts: Sequence[int], of: Callable[[Tensor], Tensor]
) -> Iterator[Tensor]:
    """Sums of what `of` makes of the gradients at the first copies, for each count, ascending; zeros in a dry view."""
    from attrsens.models.batches import Stack, prefix_sums

    if not f.dry:
        yield from prefix_sums((of(gradients) for gradients, _ in f.gradients(copies, target)), counts)
        return
    for before, count in zip([0, *counts], counts, strict=False):
        if count > before:
            list(f.gradients(Stack(count - before, copies.build, copies.like), target))
        yield of(copies.like.new_zeros(1, *copies.like.shape))[0]


def _copies(x: Tensor, n: int, scale: float, stream: Stream, draw: Draw) -> Stack:
    """n copies of the image with noise of that scale, made as they are needed."""
    import torch

    from attrsens.models.batches import Stack

    def noisy(indices: range) -> Tensor:
        drawn = torch.from_numpy(draw(stream, indices, tuple(x.shape)))
        return drawn.to(x.device, x.dtype).mul_(scale).add_(x)

    return Stack(n, noisy, like=x)

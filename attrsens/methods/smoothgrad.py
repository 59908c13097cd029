"""SmoothGrad and its relatives: statistics of the gradient over noisy copies of the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from attrsens.spec import METHODS, Param

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


@METHODS("sg", version=1, gradient=True, cost="n F + n B")
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
    sd = spread * float(x.max() - x.min())
    if n == 0 or sd == 0:  # every copy is the image itself
        return f.gradient(x, target)
    mean, _ = f.mean_gradient(_copies(x, n, sd, f.stream(seed, "noise"), _normal), target)
    return mean


@METHODS("ug", version=1, gradient=True, cost="n F + n B")
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
    width = spread * float(x.max() - x.min())
    if n == 0 or width == 0:
        return f.gradient(x, target)
    mean, _ = f.mean_gradient(_copies(x, n, width, f.stream(seed, "uniform noise"), _uniform), target)
    return mean


@METHODS("vargrad", version=1, gradient=True, cost="n F + n B")
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
    mean, square = _moments(f, x, target, n, spread, seed)
    return (square - mean**2).clamp(min=0).float()


@METHODS("sgsq", version=1, gradient=True, cost="n F + n B")
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
    return _moments(f, x, target, n, spread, seed)[1].float()


def _moments(f: Classifier, x: Tensor, target: int, n: int, spread: float, seed: int) -> tuple[Tensor, Tensor]:
    """(mean, mean square) of the gradients, float64: their difference is small beside either."""
    sd = spread * float(x.max() - x.min())
    mean = x.new_zeros(x.shape).double()
    square = mean.clone()
    for gradient, _ in f.gradients(_copies(x, n, sd, f.stream(seed, "noise"), _normal), target):
        wide = gradient.double()
        mean += wide.sum(0) / n
        square += (wide**2).sum(0) / n
    return mean, square


Draw = Callable[["Stream", range, tuple[int, ...]], "NDArray[np.float32]"]


def _normal(stream: Stream, indices: range, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return stream.normal(indices, shape)


def _uniform(stream: Stream, indices: range, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return 2 * stream.uniform(indices, shape) - 1


def _copies(x: Tensor, n: int, scale: float, stream: Stream, draw: Draw) -> Stack:
    """n copies of the image with noise of that scale, made as they are needed."""
    import torch

    from attrsens.models.batches import Stack

    def noisy(indices: range) -> Tensor:
        drawn = torch.from_numpy(draw(stream, indices, tuple(x.shape)))
        return drawn.to(x.device, x.dtype).mul_(scale).add_(x)

    return Stack(n, noisy, like=x)

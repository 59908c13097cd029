"""SmoothGrad: the mean gradient over noisy copies of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from attrsens.spec import METHODS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.classifier import Classifier


@METHODS("sg", version=1, gradient=True, cost="n F + n B")
def smoothgrad(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    n: Annotated[
        int,
        Param(
            "noisy copies (0: the gradient itself)",
            min=0,
            max=1_000_000,
            sweep=(50, 100, 200, 500, 800),
            reference=50,
            scale="ratio",
            range=(10, 800),
            source="SAM 4.2",
        ),
    ] = 50,
    spread: Annotated[
        float,
        Param(
            "noise sd as a fraction of the image's range (max - min over all channels)",
            min=0,
            sweep=(0.1, 0.2, 0.3),
            reference=0.2,
            scale="ratio",
            range=(0.05, 0.4),
            source="SAM 4.2; sweep from its code",
        ),
    ] = 0.15,
    seed: Annotated[int, Param("seed of the noise", min=0, sweep=(0, 1, 2, 3, 4), reference=0)] = 0,
) -> Tensor:
    """Mean gradient over copies of the image with Gaussian noise, not clipped.

    (1/n) sum_i g(x + e_i), e_i ~ N(0, s^2), s = spread (max x - min x). Smilkov et al. 2017; methods 2.3.
    n passes forward and back. Draw i is the same for every n.
    """
    from attrsens.models.batches import Stack

    sd = spread * float(x.max() - x.min())
    if n == 0 or sd == 0:  # every copy is the image itself
        return f.gradient(x, target)
    stream = f.stream(seed, "noise")

    def noisy(indices: range) -> Tensor:
        noise = x.new_tensor(stream.normal(indices, tuple(x.shape)))
        return noise.mul_(sd).add_(x)

    mean, _ = f.mean_gradient(Stack(n, noisy, like=x), target)
    return mean

"""Kernel SHAP: Shapley values of superpixels by weighted least squares over coalitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from attrsens.methods._segments import Algorithm, Compactness, Fill, SegmentBlur, Segments, Superpixels
from attrsens.spec import METHODS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.classifier import Classifier
    from attrsens.seeds import Stream


@METHODS("kshap", version=1, output="prob", gradient=False, cost="n + 2 F; few superpixels: one for each coalition")
def kernel_shap(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    n: Annotated[
        int,
        Param(
            "coalitions, beside none and all; where no more exist, each is taken once and the values are exact",
            min=1,
            max=100_000,
            scale="ratio",
            range=(100, 4000),
            source="as lime",
        ),
    ] = 1000,
    segments: Segments = 50,
    algorithm: Algorithm = "slic",
    compactness: Compactness = 30.0,
    segment_blur: SegmentBlur = 3.0,
    fill: Fill = "black",
    seed: Annotated[int, Param("seed of the coalitions", min=0, sweep=(0, 1, 2, 3, 4), reference=0)] = 0,
) -> Tensor | tuple[Tensor, dict[str, float | None]]:
    """Shapley values of superpixels: what each adds to the score, averaged over the orders in which they come.

    argmin_phi sum_S w(|S|) (f(S) - f(none) - sum_{j in S} phi_j)^2 with sum_j phi_j = f(all) - f(none) exactly, w(k) =
    (M - 1) / (C(M, k) k (M - k)). Lundberg & Lee 2017, theorem 2; science 1. n + 2 passes forward; with M superpixels,
    2^M where 2^M - 2 <= n.

    Sampled coalitions come with probability in proportion to w, each followed by its complement, and count alike. Fewer
    than determine the values leave what they do not tell shared out evenly.
    """
    if f.dry:
        from attrsens.models.batches import Stack

        count = n if algorithm != "slic" else min(n, 2**segments - 2)
        f.score(Stack(count + 2, lambda indices: x.expand(len(indices), *x.shape), like=x), target)
        return x.new_zeros(x.shape[-2:])
    import numpy as np

    parts = Superpixels(
        f,
        x,
        algorithm=algorithm,
        segments=segments,
        compactness=compactness,
        segment_blur=segment_blur,
        fill=fill,
    )
    exact = 2**parts.count - 2 <= n
    coalitions = every(parts.count) if exact else sampled(n, parts.count, f.stream(seed, "coalitions"))
    weights = kernel(parts.count)[coalitions.sum(1)] if exact else np.ones(n)
    ends = np.array([[False], [True]]).repeat(parts.count, 1)
    scores = parts.scores(np.concatenate([ends, coalitions]), target)
    values = solve(coalitions, weights, scores)
    gap = abs(float(values.sum() - (scores[1] - scores[0])))
    return parts.paint(values), {"segments": float(parts.count), "completeness_gap": gap}


def every(count: int) -> Any:
    """All coalitions but none and all, (2^count - 2, count) of bool."""
    import numpy as np

    return (np.arange(1, 2**count - 1)[:, None] >> np.arange(count) & 1).astype(bool)


def kernel(count: int) -> Any:
    """The weight of a coalition by its size, (count + 1,); the ends are constraints and have none."""
    import numpy as np
    from scipy.special import comb

    size = np.arange(1, count)
    inside = (count - 1) / (comb(count, size) * size * (count - size))
    return np.concatenate([[0.0], inside, [0.0]])


def sampled(n: int, count: int, stream: Stream) -> Any:
    """n coalitions (n, count) of bool, drawn in proportion to the kernel; the odd ones complete those before them."""
    import numpy as np

    draws = stream.uniform(range((n + 1) // 2), (count + 1,))
    size = np.arange(1, count)
    mass = np.cumsum(1 / (size * (count - size)))  # of all coalitions of a size together
    sizes = 1 + np.searchsorted(mass[:-1] / mass[-1], draws[:, 0], side="right")
    ranks = draws[:, 1:].argsort(1, kind="stable").argsort(1)
    first = ranks < sizes[:, None]
    return np.stack([first, ~first], 1).reshape(-1, count)[:n]


def solve(coalitions: Any, weights: Any, scores: Any) -> Any:
    """Values that fit the scores of (none, all, *coalitions) best and sum to all - none.

    Around an even share of the total, over deviations that sum to zero: the shortest one, where several fit alike.
    """
    import numpy as np

    count = coalitions.shape[1]
    share = (scores[1] - scores[0]) / count
    size = coalitions.sum(1)
    root = np.sqrt(weights)
    design = (coalitions - size[:, None] / count) * root[:, None]
    rest = (scores[2:] - scores[0] - size * share) * root
    deviation = np.linalg.lstsq(design, rest, rcond=None)[0]
    return share + (deviation - deviation.mean())

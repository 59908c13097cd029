"""Kernel SHAP: Shapley values of superpixels by weighted least squares over coalitions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from attrsens.methods._segments import Algorithm, Compactness, Fill, SegmentBlur, Segments, Superpixels
from attrsens.methods._settings import Notes, Points, classes_of, one, price
from attrsens.spec import METHODS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.classifier import Classifier
    from attrsens.seeds import Stream


def _settings(
    f: Classifier, x: Tensor, targets: Sequence[int], points: Points
) -> Iterator[Tensor | tuple[Tensor, Notes]]:
    """Values from the same scores: of the first n coalitions, of another class."""
    import numpy as np

    from attrsens.models.batches import Rows

    counts, common = [point["n"] for point in points], points[0]
    few = common["algorithm"] == "slic" and 2 ** (common["segments"] // 2) - 2 <= max(counts)
    if f.dry and not few:  # about as many are found as are asked for: none of the settings holds every coalition
        yield from price(f, x, [n + 2 for n in counts])
        return
    parts, classes = Superpixels.of(f, x, common), classes_of(targets)
    most = 2**parts.count - 2
    whole = max(counts) >= most  # one holds every coalition, so those that others sample are among them
    if f.dry:
        yield from price(f, x, [2 + (most if whole else n) for n in counts])
        return
    ends = np.array([[False], [True]]).repeat(parts.count, 1)
    fewer = [n for n in counts if n < most]
    drawn = sampled(max(fewer), parts.count, f.stream(common["seed"], "coalitions")) if fewer else ends[:0]
    scores = Rows(parts.scores(np.concatenate([ends, every(parts.count) if whole else drawn]), classes))
    for target, n in zip(targets, counts, strict=True):
        exact = n >= most
        own = every(parts.count) if exact else drawn[:n]
        weights = kernel(parts.count)[own.sum(1)] if exact else np.ones(n)
        seen = scores.first(2 + (most if whole else n))[:, classes.index(target)].double().cpu().numpy()
        if whole:
            seen = np.concatenate([seen[:2], seen[1 + own @ (1 << np.arange(parts.count))]])
        values = solve(own, weights, seen)
        gap = abs(float(values.sum() - (seen[1] - seen[0])))
        yield parts.paint(values), {"segments": float(parts.count), "completeness_gap": gap}


@METHODS(
    "kshap",
    version=1,
    output="prob",
    gradient=False,
    cost="n + 2 F; few superpixels: one for each coalition",
    counts="n",
    over=("n", "target"),
    settings=_settings,
)
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
) -> Tensor | tuple[Tensor, Notes]:
    """Shapley values of superpixels: what each adds to the score, averaged over the orders in which they come.

    argmin_phi sum_S w(|S|) (f(S) - f(none) - sum_{j in S} phi_j)^2 with sum_j phi_j = f(all) - f(none) exactly, w(k) =
    (M - 1) / (C(M, k) k (M - k)). Lundberg & Lee 2017, theorem 2; science 1. n + 2 passes forward; with M superpixels,
    2^M where 2^M - 2 <= n.

    Sampled coalitions come with probability in proportion to w, each followed by its complement, and count alike. Fewer
    than determine the values leave what they do not tell shared out evenly.
    """
    found: tuple[Tensor, Notes] = one(
        _settings,
        f,
        x,
        target,
        n=n,
        segments=segments,
        algorithm=algorithm,
        compactness=compactness,
        segment_blur=segment_blur,
        fill=fill,
        seed=seed,
    )
    return found


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

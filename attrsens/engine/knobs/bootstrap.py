"""Intervals of numbers that are smooth functions of means over images, such as ratios of pooled sums.

Coverage reached by 95 % intervals of an effect, of 10, 20, 50 and 100 images (800 samples each): 94 / 94 / 95 / 96 %
where the images' effects follow beta(2, 5), 93 / 93 / 93 / 94 % where they are lognormal with sigma 1; of BCa on the
same samples 91 / 92 / 94 / 96 % and 87 / 89 / 91 / 93 %.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.inference.intervals import (
    FEWEST,
    LEAST_SPREAD,
    SEED,
    Floats,
    Interval,
    Studentised,
    resampled,
)

RESAMPLES = 4999  # so that the smallest p value, 0.0004, is significant among 125 pairs
ALIKE = 1e-12  # a standard error below this is rounding
FEW = f"fewer than {FEWEST} images: no interval"
EQUAL = "the same on every image: no interval"


def smooth(
    features: Floats, f: Callable[[Floats], Floats], *, resamples: int = RESAMPLES, seed: int = SEED
) -> Studentised:
    """Studentised bootstrap over images of m functions of the means of q numbers of an image.

    f is computed anew in every resample. Its standard error there is that of the mean of the sample's jackknife
    pseudo-values in the resample, whose spread counts as at least a quarter of the sample's, as in Studentised.
    Resamples in which f is no number count as the estimate.

    Args:
        features: (n images, q), n >= 2.
        f: of means (q, k), columns independent: (m, k).

    Returns:
        The law of the m numbers; error 0 where all images say the same.
    """
    n = len(features)
    mean = features.mean(0)
    estimate = f(mean[:, None])
    without = f((mean[:, None] * n - features.T) / (n - 1))
    pull = np.nan_to_num((n - 1) * (without.mean(1, keepdims=True) - without))
    square = pull * pull
    variance = square.mean(1, keepdims=True)
    error = np.sqrt(variance / (n - 1))
    alike = error <= ALIKE
    t = np.empty((len(pull), resamples))
    at = 0
    rows, m = np.concatenate([pull, square, features.T]), len(pull)
    for counts in resampled(n, resamples, seed):
        means = rows @ counts / n
        shift, squares = means[:m], means[m : 2 * m]
        spread = np.maximum(squares - shift * shift, LEAST_SPREAD**2 * variance)
        gap = np.nan_to_num(f(means[2 * m :]) - estimate, posinf=0.0, neginf=0.0)
        t[:, at : at + counts.shape[1]] = gap / np.sqrt(np.where(alike, 1.0, spread / (n - 1)))
        at += counts.shape[1]
    t.sort(axis=1)
    return Studentised(estimate[:, 0], np.where(alike, 0.0, error)[:, 0], t)


def intervals(law: Studentised, level: float = 0.95) -> list[Interval | None]:
    """Of each number; None where all images say the same."""
    ends = law.intervals(level).tolist()
    return [(low, high) if e > 0 else None for (low, high), e in zip(ends, law.error.tolist(), strict=True)]


def p_values(law: Studentised) -> list[float | None]:
    """Two-sided, against 0: at most 5 % where the 95 % interval excludes it. None where all images say the same."""
    known = np.flatnonzero(law.error > 0)
    some = Studentised(law.mean[known], law.error[known], law.t[known])
    both = np.minimum(1.0, 2 * np.minimum(some.above(0.0), some.below(0.0)))
    out: list[float | None] = [None] * len(law.mean)
    for place, p in zip(known.tolist(), both.tolist(), strict=True):
        out[place] = p
    return out


def by_mask(masks: list[NDArray[np.bool_]]) -> dict[bytes, list[int]]:
    """Places of equal masks, so that one bootstrap serves them."""
    out: dict[bytes, list[int]] = {}
    for place, mask in enumerate(masks):
        out.setdefault(mask.tobytes(), []).append(place)
    return out

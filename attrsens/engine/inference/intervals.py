"""Intervals of a mean over independent images, which also hold on skewed, bounded and 0/1 data.

Coverage reached: docs/statistics.md, written by `python docs/simulations.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

FEWEST = 6  # images for an interval or a p value: with five, no sign-flip test reaches 5 %
RESAMPLES = 9999  # of a bootstrap
SEED = 0
LEAST_SPREAD = 0.25  # of a resample, as a share of the sample's: with ties it can be 0, and t infinite
CHUNK = 1 << 22  # numbers of a block of resamples

Interval = tuple[float, float]
Kind = Literal["auto", "numbers", "hits"]
Floats = NDArray[np.float64]


def mean_interval(values: ArrayLike, level: float = 0.95, kind: Kind = "auto", seed: int = SEED) -> Interval | None:
    """The interval of the mean of n independent numbers.

    Wilson's for 0/1 data, the studentised bootstrap's otherwise (9,999 resamples drawn by `seed`).

    Args:
        values: shape (n,), finite.
        kind: "hits" promises 0/1 data; "auto" takes data for that if they hold both 0 and 1 and nothing else, since
            ones alone may be a score at the end of its range.

    Returns:
        (low, high); None for fewer than six numbers, or equal ones that are not known to be hits.

    Raises:
        ValueError: a number that is not finite, or hits that are neither 0 nor 1.
    """
    data = finite(values)
    if kind == "hits" and not is_01(data):
        raise ValueError("hits are 0 or 1")
    if len(data) < FEWEST:
        return None
    if kind == "hits" or (kind == "auto" and is_01(data) and np.ptp(data) > 0):
        return wilson(int(data.sum()), len(data), level)
    return None if np.ptp(data) == 0 else Studentised.of(data, seed=seed).interval(level)


@dataclass(frozen=True)
class Studentised:
    """Bootstrap of t = (mean - truth) / standard error, for m samples of n numbers at once (Efron 1979; Hall 1988).

    The spread of a resample counts as at least a quarter of the sample's (LEAST_SPREAD).

    Attributes:
        mean, error: of each sample, shape (m,); the error is sd / sqrt(n), sd with n - 1.
        t: of every resample, in ascending order, shape (m, resamples).
    """

    mean: Floats
    error: Floats
    t: Floats

    @classmethod
    def of(cls, data: ArrayLike, resamples: int = RESAMPLES, seed: int = SEED) -> Studentised:
        """Of samples in rows, shape (m, n) or (n,), no row of equal numbers."""
        rows = np.atleast_2d(np.asarray(data, np.float64))
        n = rows.shape[1]
        mean = rows.mean(1, keepdims=True)
        gaps = rows - mean
        scale = np.abs(gaps).max(1, keepdims=True)
        unit = gaps / scale  # squares neither vanish nor overflow
        square = unit * unit
        variance = square.mean(1, keepdims=True)
        t = np.empty((len(rows), resamples))
        at = 0
        for counts in resampled(n, resamples, seed):
            shift = unit @ counts / n
            spread = np.maximum(square @ counts / n - shift * shift, LEAST_SPREAD**2 * variance)
            t[:, at : at + counts.shape[1]] = shift / np.sqrt(spread / (n - 1))
            at += counts.shape[1]
        t.sort(axis=1)
        return cls(mean[:, 0], (np.sqrt(variance / (n - 1)) * scale)[:, 0], t)

    def intervals(self, level: float = 0.95) -> Floats:
        """Low and high ends, shape (m, 2)."""
        resamples = self.t.shape[1]
        tail = max(1, round((1 - level) / 2 * (resamples + 1)))
        low, high = self.t[:, tail - 1], self.t[:, resamples - tail]
        return np.stack([self.mean - high * self.error, self.mean - low * self.error], 1)

    def interval(self, level: float = 0.95) -> Interval:
        """Of the first sample."""
        low, high = self.intervals(level)[0]
        return float(low), float(high)

    def above(self, bound: float) -> Floats:
        """One-sided p value against "the mean is at most `bound`", shape (m,); below 2.5 % exactly where the 95 %
        interval lies above it."""
        observed = (self.mean - bound) / self.error
        return np.asarray((1 + (self.t >= observed[:, None]).sum(1)) / (1 + self.t.shape[1]), np.float64)

    def below(self, bound: float) -> Floats:
        """One-sided p value against "the mean is at least `bound`", shape (m,)."""
        observed = (self.mean - bound) / self.error
        return np.asarray((1 + (self.t <= observed[:, None]).sum(1)) / (1 + self.t.shape[1]), np.float64)


def wilson(hits: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (1927)."""
    z = quantile(level)
    share, width = hits / n, z * z / n
    centre = (share + width / 2) / (1 + width)
    half = z / (1 + width) * np.sqrt(share * (1 - share) / n + width / (4 * n))
    return (float(centre - half) if hits else 0.0), (float(centre + half) if hits < n else 1.0)


def adjusted(differences: Floats) -> tuple[float, float]:
    """Difference of two paired proportions and its standard error after one more disagreement either way (Bonett and
    Price 2012), from differences of 0/1 data, each -1, 0 or 1."""
    n = len(differences) + 2
    up, down = ((differences == sign).sum() + 1 for sign in (1, -1))
    centre = (up - down) / n
    return float(centre), float(np.sqrt(((up + down) / n - centre**2) / n))


def difference_of_hits(differences: Floats, level: float = 0.95) -> Interval:
    """Bonett and Price's interval of the difference of two paired proportions."""
    centre, error = adjusted(differences)
    half = quantile(level) * error
    return max(-1.0, centre - half), min(1.0, centre + half)


def resampled(n: int, resamples: int, seed: int | Sequence[int]) -> Iterator[Floats]:
    """How often each of n numbers is in each resample, in blocks of shape (n, a part of the resamples)."""
    generator = np.random.default_rng(seed)
    block = max(1, CHUNK // n)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        places = generator.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(places.ravel(), minlength=size * n).reshape(size, n).T.astype(np.float64)


def quantile(level: float) -> float:
    """Of the normal law: a share `level` lies within so many standard deviations."""
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))


def is_01(data: Floats) -> bool:
    return bool(np.isin(data, (0.0, 1.0)).all())


def finite(values: ArrayLike | Sequence[Any]) -> Floats:
    """As float64, shape (n,).

    Raises:
        ValueError: another shape, or a number that is not finite.
    """
    data = np.asarray(values, np.float64)
    if data.ndim != 1 or not np.isfinite(data).all():
        raise ValueError(f"statistics want one row of finite numbers, not {data.tolist()!r}"[:200])
    return data

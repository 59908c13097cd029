"""Networks trained with several seeds: a regime has as many independent networks as seeds, however many images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attrsens.engine.inference.intervals import FEWEST, RESAMPLES, SEED, Floats, Interval, quantile, resampled

FEWEST_SEEDS = 3
DEFINITION = (
    "mean over seeds and images; interval: bootstrap over seeds and over images, the spread of k seeds widened by "
    "sqrt(k / (k - 1)) t(df) / z, df = k - 1, or Welch's for two regimes"
)
Table = Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class Clustered:
    """What networks of several seeds say on the same images.

    Attributes:
        estimate: mean of a, or of a less that of b.
        ci95: None for fewer than three seeds of either, fewer than six images, or equal numbers; then `reason` says so.
        seed_difference: mean magnitude of the difference between the means of two seeds of one regime; None for one.
        beyond_seeds: the interval excludes 0 and the estimate is larger than the seed difference; None where either
            is unknown. Only for a difference.
        seeds: how many, of a and of b (0 without b). n, missing: images, and those without a value in every network.
    """

    estimate: float | None
    ci95: Interval | None
    seed_difference: float | None
    beyond_seeds: bool | None
    seeds: tuple[int, int]
    n: int
    missing: int
    reason: str | None = None
    definition: str = DEFINITION


def cluster_bootstrap(
    a: Table, b: Table | None = None, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = SEED
) -> Clustered:
    """The mean over training seeds and images, or the difference of two regimes, and what seeds alone do to it.

    Args:
        a, b: values[seed][image] of each regime: (seeds of it, images), the same images; None or NaN is missing and
            takes its image out of all.

    Raises:
        ValueError: rows of different lengths, no seed, or an infinite value.
    """
    tables = [_table(values) for values in ((a,) if b is None else (a, b))]
    if len({table.shape[1] for table in tables}) > 1:
        raise ValueError("both regimes want the same images")
    known = np.logical_and.reduce([~np.isnan(table).any(0) for table in tables])
    tables = [table[:, known] for table in tables]
    n, missing = int(known.sum()), int((~known).sum())
    seeds = (len(tables[0]), len(tables[1]) if b is not None else 0)
    if n == 0:
        return Clustered(None, None, None, None, seeds, 0, missing, "no image has a value in every network")
    columns = tables[0].mean(0) - (tables[1].mean(0) if b is not None else 0.0)
    estimate = float(columns.mean())
    apart = _apart(tables)
    reason = None
    if min(len(table) for table in tables) < FEWEST_SEEDS:
        reason = f"fewer than {FEWEST_SEEDS} training seeds"
    elif n < FEWEST:
        reason = f"fewer than {FEWEST} images"
    elif all(np.ptp(table) == 0 for table in tables):
        reason = "all numbers are equal"
    if reason is not None:
        return Clustered(estimate, None, apart, None, seeds, n, missing, reason)
    of_seeds = [table.mean(1) for table in tables]
    by_seeds = [_draw(values, resamples, [seed, i + 1]) for i, values in enumerate(of_seeds)]
    of_regimes = by_seeds[0] - by_seeds[1] if b is not None else by_seeds[0]
    means = estimate + _draw(columns, resamples, [seed, 0]) + _widening(of_seeds, level) * of_regimes
    low, high = (float(q) for q in np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))
    beyond = None if b is None or apart is None else abs(estimate) > apart and not low <= 0 <= high
    return Clustered(estimate, (low, high), apart, beyond, seeds, n, missing)


def _draw(values: Floats, resamples: int, seed: Sequence[int]) -> Floats:
    """Means of resamples of k values, less the mean of all, brought to the variance s^2 / k."""
    k = len(values)
    gaps = (values - values.mean()) / np.sqrt(k * (k - 1))
    return np.concatenate([gaps @ counts for counts in resampled(k, resamples, seed)])


def _widening(of_seeds: Sequence[Floats], level: float) -> float:
    """How much wider than a normal interval one is whose variance comes from so few numbers (Welch 1947 for two)."""
    from scipy.special import stdtrit

    variances = np.asarray([values.var(ddof=1) / len(values) for values in of_seeds])
    if not variances.any():
        return 1.0
    shares = variances / variances.sum()
    df = 1 / sum(share**2 / (len(values) - 1) for share, values in zip(shares, of_seeds, strict=True))
    return float(stdtrit(df, (1 + level) / 2)) / quantile(level)


def _apart(tables: Sequence[Floats]) -> float | None:
    gaps = []
    for table in tables:
        means = table.mean(1)
        first, second = np.triu_indices(len(means), 1)
        gaps.append(np.abs(means[first] - means[second]))
    every = np.concatenate(gaps)
    return float(every.mean()) if len(every) else None


def _table(values: Table) -> Floats:
    if not len(values) or len({len(row) for row in values}) > 1:
        raise ValueError("a regime wants one row a seed, with one value for every image")
    data = np.asarray([[np.nan if v is None else v for v in row] for row in values], np.float64)
    if np.isinf(data).any():
        raise ValueError("an infinite value cannot be averaged")
    return data

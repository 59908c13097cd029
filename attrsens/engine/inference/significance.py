"""p values without a law of the data, Holm's correction of a table, and the smallest difference a sample can show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from attrsens.engine.inference.intervals import CHUNK, FEWEST, SEED, Floats, finite

EXACT = 20  # differences that are not 0: up to so many, every flip of signs is tried
FLIPS = 99_999  # else so many are drawn, and the smallest p value is 1 / 100,000


def sign_flip_p(differences: ArrayLike, flips: int = FLIPS, seed: int = SEED) -> float | None:
    """Two-sided p value of the mean of paired differences, shape (n,), if their signs could as well be the other way.

    Exact, by enumeration, for up to 20 differences that are not 0; otherwise (1 + as extreme) / (1 + flips) over signs
    drawn by `seed`. None for fewer than six images. Fisher 1935.
    """
    data = finite(differences)
    return None if len(data) < FEWEST else _flipped(data, flips, seed)


def signed_rank_p(differences: ArrayLike, flips: int = FLIPS, seed: int = SEED) -> float | None:
    """Wilcoxon's signed-rank test, two-sided, as the sign-flip test of signed ranks: exact with ties, too.

    Ranks are shared by ties; zeros are ranked, then left out (Pratt 1959). None for fewer than six images.
    """
    from scipy.stats import rankdata

    data = finite(differences)
    return None if len(data) < FEWEST else _flipped(np.sign(data) * rankdata(np.abs(data)), flips, seed)


def rank_biserial(differences: ArrayLike) -> float | None:
    """(R+ - R-) / (R+ + R-) of the signed ranks, in [-1, 1] (Kerby 2014); None if all are 0."""
    from scipy.stats import rankdata

    data = finite(differences)
    ranks = rankdata(np.abs(data)) * (data != 0)
    return float((np.sign(data) * ranks).sum() / ranks.sum()) if ranks.any() else None


def _flipped(data: Floats, flips: int, seed: int) -> float:
    data = data[data != 0]  # a sign does nothing to them
    if len(data) == 0:
        return 1.0
    data = data / np.abs(data).max()
    if len(data) > EXACT:
        return float(sign_flips(data[None], flips, seed)[0])
    sums = data[:1]  # its sign may stay: turning all of them leaves the magnitude
    for value in data[1:]:
        sums = np.concatenate([sums + value, sums - value])
    return float((np.abs(sums) >= _least(data[None])[0]).mean())


def sign_flips(data: Floats, flips: int = FLIPS, seed: int = SEED) -> Floats:
    """p values of m samples with the same drawn signs; data (m, n), result (m,)."""
    extreme = np.zeros(len(data))
    least = _least(data)[:, None]
    for signs in _signs(data.shape[1], flips, seed):
        extreme += (np.abs(data @ signs) >= least).sum(1)
    return (1 + extreme) / (1 + flips)


def _least(data: Floats) -> Floats:
    """From which magnitude on a sum is as extreme as the one observed, but for rounding."""
    slack = np.abs(data).sum(1) * data.shape[1] * np.finfo(np.float64).eps
    return np.asarray(np.abs(data.sum(1)) - slack, np.float64)


def _signs(n: int, flips: int, seed: int) -> Iterator[Floats]:
    generator = np.random.default_rng(seed)
    block = max(1, CHUNK // n)
    for start in range(0, flips, block):
        coins = generator.integers(2, size=(n, min(block, flips - start)), dtype=np.int8)
        yield 1.0 - 2.0 * coins.astype(np.float64)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's p values (1979) of a family, in its order: rows at most a are significant, and the chance of one
    false row in the whole family is at most a. None stays None and does not count."""
    order = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    out: list[float | None] = [None] * len(ps)
    least = 0.0
    for rank, (p, place) in enumerate(order):
        least = max(least, min(1.0, p * (len(order) - rank)))
        out[place] = least
    return out


def smallest_detectable(sd: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """The mean difference that a two-sided paired t test at level `alpha` finds with probability `power`, for n paired
    differences of standard deviation `sd`: sd / sqrt(n) times the noncentrality for which that holds.

    None for fewer than six images or sd 0.
    """
    from scipy.special import nctdtr, stdtrit

    if n < FEWEST or sd <= 0:
        return None
    df = n - 1
    bound = stdtrit(df, 1 - alpha / 2)
    low, high = 0.0, bound + 10.0
    for _ in range(60):
        middle = (low + high) / 2
        found = 1 - nctdtr(df, middle, bound) + nctdtr(df, middle, -bound)
        low, high = (middle, high) if found < power else (low, middle)
    return float(high * sd / np.sqrt(n))

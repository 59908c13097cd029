"""Metrics are knobs too: do rankings of methods survive another convention (science S-2)?"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from attrsens.engine.inference import FEWEST, Interval, mean_interval
from attrsens.engine.inference.intervals import Floats
from attrsens.engine.knobs.bootstrap import ALIKE, EQUAL, FEW, intervals, smooth

TAU = (
    "Kendall's tau-b of the methods' order under both conventions, better first: of means over images, of mean ranks "
    "within an image, and the mean of the images' own tau with its studentised bootstrap interval; 1: the same order"
)
ALPHA = (
    "Krippendorff's alpha, interval data: metrics rate every method on every image by its rank there, best 1; "
    "1 - observed / expected disagreement; interval: studentised bootstrap over images"
)
CURVE = "mean over images of how much better a scores than b under a convention, positive for better, in its units"


@dataclass(frozen=True)
class Scores:
    """A metric under one convention: values[image][method], (n, m); None or NaN is missing."""

    name: str
    values: Sequence[Sequence[float | None]] | Floats
    direction: Literal["higher", "lower"]

    def better(self) -> Floats:
        """As numbers of which the higher is better.

        Raises:
            ValueError: rows of different lengths, or an infinite score.
        """
        data = np.asarray([[np.nan if v is None else v for v in row] for row in self.values], np.float64)
        if data.ndim != 2 or np.isinf(data).any():
            raise ValueError(f"{self.name}: every image wants one finite score a method, or None")
        return data if self.direction == "higher" else -data


@dataclass(frozen=True)
class RankStability:
    """Kendall's tau-b between the rankings of methods under two conventions of a metric.

    Attributes:
        of_means: between rankings by mean score. of_mean_ranks: by mean rank in an image.
        per_image, ci95: mean over images of tau within the image, and its interval.
    """

    a: str
    b: str
    methods: int
    n: int
    missing: int
    of_means: float | None = None
    of_mean_ranks: float | None = None
    per_image: float | None = None
    ci95: Interval | None = None
    definition: str = TAU
    reason: str | None = None
    group: dict[str, Any] = field(default_factory=dict)
    kind: Literal["rank_stability"] = "rank_stability"


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha of metrics as raters of methods; 1 is agreement, 0 chance."""

    metrics: list[str]
    methods: list[str]
    alpha: float | None
    ci95: Interval | None
    n: int
    missing: int
    definition: str = ALPHA
    reason: str | None = None
    group: dict[str, Any] = field(default_factory=dict)
    kind: Literal["metric_agreement"] = "metric_agreement"


@dataclass(frozen=True)
class Convention:
    """How much better a is than b under one convention, in its units, positive for better whatever its direction."""

    name: str
    better_by: float | None
    ci95: Interval | None
    n: int
    reason: str | None = None


@dataclass(frozen=True)
class SpecificationCurve:
    """ "a is better than b" under every convention of a metric, the most favourable first.

    Attributes:
        holds, of: conventions in which the mean says so, and those that have a mean.
        surely, surely_not: whose 95 % interval is above 0, and below.
    """

    a: str
    b: str
    holds: int
    of: int
    surely: int
    surely_not: int
    text: str
    conventions: list[Convention]
    definition: str = CURVE
    group: dict[str, Any] = field(default_factory=dict)
    kind: Literal["specification_curve"] = "specification_curve"


def tau_b(a: ArrayLike, b: ArrayLike) -> float | None:
    """Kendall's tau-b of two rows (1945), in [-1, 1]; None if one of them is all ties."""
    from scipy.stats import kendalltau

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(kendalltau(a, b).statistic)
    return value if np.isfinite(value) else None


def rank_stability(a: Scores, b: Scores) -> RankStability:
    """Do two conventions rank the methods alike? Images with a score of every method under both.

    Raises:
        ValueError: other images or methods.
    """
    left, right = _alike([a, b])
    m = left.shape[1]
    known = np.isfinite(left + right).all(1)
    n, missing = int(known.sum()), int((~known).sum())
    left, right = left[known], right[known]
    if n == 0 or m < 2:
        reason = "fewer than two methods" if m < 2 else "no image has all scores"
        return RankStability(a.name, b.name, m, n, missing, reason=reason)
    own = np.asarray([np.nan if (t := tau_b(x, y)) is None else t for x, y in zip(left, right, strict=True)])
    own = own[np.isfinite(own)]
    notes = [f"on {n - len(own)} images one convention ties all methods"] if len(own) < n else []
    interval = mean_interval(own, kind="numbers") if len(own) and np.ptp(own) > ALIKE else None
    if interval is None:
        notes.append(FEW if len(own) < FEWEST else EQUAL)
    return RankStability(
        a=a.name,
        b=b.name,
        of_means=tau_b(left.mean(0), right.mean(0)),
        of_mean_ranks=tau_b(_ranks(left).mean(0), _ranks(right).mean(0)),
        per_image=float(own.mean()) if len(own) else None,
        ci95=interval,
        methods=m,
        n=n,
        missing=missing,
        reason="; ".join(notes) or None,
    )


def krippendorff_alpha(ratings: ArrayLike) -> float | None:
    """Alpha of interval data (Krippendorff 2011), at most 1; ratings (raters, units), NaN where there is none.

    None without a unit that two have rated, or if all ratings are equal.
    """
    data = np.asarray(ratings, np.float64)
    return _finite(_alpha(_unit_sums(data).sum(1)[:, None])[0, 0])


def metric_agreement(metrics: Sequence[Scores], methods: Sequence[str]) -> Agreement:
    """Do metrics, or conventions of one, agree which methods are better? A metric rates an image if it has a score of
    every method there; an image that fewer than two rate is missing.

    Raises:
        ValueError: other images or methods.
    """
    tables = _alike(metrics)
    if tables[0].shape[1] != len(methods):
        raise ValueError(f"{len(methods)} names of {tables[0].shape[1]} methods")
    ranks = np.stack([_ranks(table) for table in tables])  # metrics, images, methods; NaN spreads over the row
    known = np.isfinite(ranks).all(2).sum(0) > 1
    n, names = int(known.sum()), [metric.name for metric in metrics]
    missing = int((~known).sum())
    if n == 0:
        return Agreement(names, list(methods), None, None, 0, missing, reason="no image is rated by two metrics")
    features = np.stack([_unit_sums(ranks[:, i]).sum(1) for i in np.flatnonzero(known)])
    alpha = _finite(_alpha(features.sum(0)[:, None])[0, 0])
    interval = None
    if n >= FEWEST and alpha is not None:
        interval = intervals(smooth(features, lambda means: _alpha(means * n)))[0]
    reason: str | None = "all methods are tied" if alpha is None else None
    if alpha is not None and interval is None:
        reason = FEW if n < FEWEST else EQUAL
    return Agreement(names, list(methods), alpha, interval, n, missing, reason=reason)


def specification_curves(conventions: Sequence[Scores], methods: Sequence[str]) -> list[SpecificationCurve]:
    """For every pair of methods, under how many conventions the first is better (Simonsohn et al. 2020).

    Raises:
        ValueError: other images or methods.
    """
    tables = _alike(conventions)
    if tables[0].shape[1] != len(methods):
        raise ValueError(f"{len(methods)} names of {tables[0].shape[1]} methods")
    out = []
    for i, j in combinations(range(len(methods)), 2):
        rows = [_convention(c.name, t[:, i] - t[:, j]) for c, t in zip(conventions, tables, strict=True)]
        rows.sort(key=lambda r: (r.better_by is None, -_sureness(r)))
        told = [r for r in rows if r.better_by is not None]
        holds = sum(r.better_by > 0 for r in told if r.better_by is not None)
        ends = [r.ci95 for r in told if r.ci95]
        out.append(
            SpecificationCurve(
                a=methods[i],
                b=methods[j],
                holds=holds,
                of=len(told),
                surely=sum(low > 0 for low, _ in ends),
                surely_not=sum(high < 0 for _, high in ends),
                text=f"{methods[i]} better than {methods[j]}: holds in {holds} of {len(told)} conventions",
                conventions=rows,
            )
        )
    return out


def _convention(name: str, gaps: Floats) -> Convention:
    gaps = gaps[np.isfinite(gaps)]
    n = len(gaps)
    if n == 0:
        return Convention(name, None, None, 0, "no image has both scores")
    interval = mean_interval(gaps, kind="numbers") if np.ptp(gaps) > ALIKE * np.abs(gaps).max() else None
    return Convention(name, float(gaps.mean()), interval, n, None if interval else FEW if n < FEWEST else EQUAL)


def _sureness(row: Convention) -> float:
    """Conventions have units of their own: order by the difference in units of its interval."""
    value = row.better_by or 0.0
    if row.ci95 is None:
        return float(np.sign(value)) * (np.inf if value else 0.0)
    return value / (row.ci95[1] - row.ci95[0])


def _alike(scores: Sequence[Scores]) -> list[Floats]:
    tables = [s.better() for s in scores]
    if not tables or len({t.shape for t in tables}) > 1:
        raise ValueError("conventions are compared on the same images and methods")
    return tables


def _ranks(better: Floats) -> Floats:
    """Within each image, best 1, ties shared; NaN in a row with a missing score."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(-better, axis=1, nan_policy="propagate"), np.float64)


def _unit_sums(ratings: Floats) -> Floats:
    """Of every unit that two have rated: disagreement, ratings, their sum and that of their squares; (4, units)."""
    known = np.isfinite(ratings)
    m = known.sum(0)
    some = m > 1
    data = np.where(known, ratings, 0.0)[:, some]
    m = m[some]
    total, squares = data.sum(0), (data**2).sum(0)
    return np.stack([2 * (m * squares - total**2) / (m - 1), m.astype(np.float64), total, squares])


def _alpha(sums: Floats) -> Floats:
    disagreement, n, total, squares = sums
    expected = 2 * (n * squares - total**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = 1 - (n - 1) * disagreement / np.where(expected > ALIKE * n * squares, expected, np.nan)
    return np.asarray(value[None], np.float64)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

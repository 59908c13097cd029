"""Two groups on the same images: the difference, how sure it is, and how large it would have had to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attrsens.engine.inference.intervals import (
    FEWEST,
    SEED,
    Floats,
    Interval,
    difference_of_hits,
    is_01,
    mean_interval,
)
from attrsens.engine.inference.significance import rank_biserial, sign_flip_p, signed_rank_p, smallest_detectable

MEANS = (
    "difference: mean of a - b over images; effect size: d_z = mean / sd of the differences; "
    "p: sign-flip test, two-sided"
)
RANKS = (
    "difference: mean of a - b over images; effect size: matched-pairs rank-biserial correlation; "
    "p: Wilcoxon signed-rank test, two-sided"
)
Values = Sequence[float | None]


@dataclass(frozen=True)
class Paired:
    """What n pairs say.

    Attributes:
        difference: mean of a - b; None without a pair.
        ci95: its interval; None for fewer than six pairs or equal differences.
        effect_size, p: as `definition` says; p None for fewer than six pairs.
        smallest_detectable: mean difference that a two-sided paired t test at 5 % finds with 80 % power.
        n, missing, reasons: pairs, images without both values, and why.
        differences: the n of them; those of rounding are 0.
    """

    difference: float | None
    ci95: Interval | None
    effect_size: float | None
    p: float | None
    smallest_detectable: float | None
    n: int
    missing: int
    reasons: dict[str, int]
    definition: str
    differences: Floats


def paired(
    a: Values, b: Values, *, ranks: bool = False, reasons: Sequence[str | None] | None = None, seed: int = SEED
) -> Paired:
    """Compare two groups image by image.

    Args:
        a, b: values of the same n images; None or NaN is missing, and takes its image out of both.
        ranks: test and measure by ranks, for values whose distances mean nothing.
        reasons: for each image why a value is missing, if one is.

    Raises:
        ValueError: lengths differ, or a value is infinite.
    """
    if len(a) != len(b) or (reasons is not None and len(reasons) != len(a)):
        raise ValueError(f"pairs want one value of each for every image, not {len(a)} and {len(b)}")
    left, right = _numbers(a), _numbers(b)
    known = ~(np.isnan(left) | np.isnan(right))
    counts: dict[str, int] = {}
    for place in np.flatnonzero(~known).tolist():
        given = reasons[place] if reasons is not None else None
        which = "both" if np.isnan(left[place]) and np.isnan(right[place]) else "a" if np.isnan(left[place]) else "b"
        reason = given or f"no value in {which}"
        counts[reason] = counts.get(reason, 0) + 1
    left, right = left[known], right[known]
    gaps = left - right
    rounding = 8 * np.finfo(np.float64).eps * max(np.abs(left).max(initial=0), np.abs(right).max(initial=0))
    gaps[np.abs(gaps) <= rounding] = 0
    n = len(gaps)
    alike = n < 2 or np.ptp(gaps) <= rounding
    sd = 0.0 if alike else float(gaps.std(ddof=1))
    mean = float(gaps.mean()) if n else None
    if ranks:
        effect, p = (rank_biserial(gaps) if n else None), signed_rank_p(gaps, seed=seed)
    else:
        effect = mean / sd if mean is not None and sd > 0 else 0.0 if n > 1 and not gaps.any() else None
        p = sign_flip_p(gaps, seed=seed)
    return Paired(
        mean,
        _interval(left, right, gaps, alike, seed),
        effect,
        p,
        smallest_detectable(sd, n),
        n,
        int((~known).sum()),
        counts,
        RANKS if ranks else MEANS,
        gaps,
    )


def _interval(left: Floats, right: Floats, gaps: Floats, alike: bool, seed: int) -> Interval | None:
    both = np.concatenate([left, right])
    if len(gaps) >= FEWEST and is_01(both) and np.ptp(both) > 0:
        return difference_of_hits(gaps)
    return None if alike else mean_interval(gaps, kind="numbers", seed=seed)


def _numbers(values: Values) -> Floats:
    data = np.asarray([np.nan if value is None else value for value in values], np.float64)
    if np.isinf(data).any():
        raise ValueError("an infinite value cannot be compared")
    return data

"""What may be said: of a change against a margin, and of a published effect. Rules are fixed before the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from attrsens.engine.inference.intervals import (
    FEWEST,
    SEED,
    Floats,
    Interval,
    Studentised,
    adjusted,
    difference_of_hits,
    finite,
)

Change = Literal["moved", "equivalent", "cannot tell"]
Claim = Literal["holds", "in direction", "does not hold", "inconclusive", "cannot be tested here"]


@dataclass(frozen=True)
class Equivalence:
    """A change against a margin.

    Attributes:
        verdict: "equivalent": both one-sided tests at 5 % say that the mean is within the margin, which is that the
            90 % interval is. "moved": the 95 % interval lies beyond the margin, on one side. Else "cannot tell".
        mean, margin: of the differences; the largest mean that counts as none.
        ci90, ci95: of the mean; both ends are the difference itself where all are equal.
        p: the larger p value of the two one-sided tests; None for fewer than six or equal differences.
        differs: the 95 % interval excludes 0: something changed, be it within the margin.
        reason: what "cannot tell" is due to, or a remark.
    """

    verdict: Change
    mean: float | None
    margin: float
    ci90: Interval | None
    ci95: Interval | None
    p: float | None
    differs: bool | None
    n: int
    missing: int = 0
    reason: str | None = None


def equivalence(
    differences: Sequence[float | None] | Floats, margin: float, *, hits: bool = False, seed: int = SEED
) -> Equivalence:
    """Did the mean of n paired differences move, by two one-sided tests (Schuirmann 1987)?

    Args:
        differences: of independent images; None or NaN is missing.
        margin: >= 0, in the unit of the differences. With 0 only "moved" remains, unless all differences are 0.
        hits: they are differences of 0/1 data (Bonett and Price's interval, else the studentised bootstrap's).

    Raises:
        ValueError: the margin is negative or no number; an infinite difference; hits that are none of -1, 0, 1.
    """
    if not 0 <= margin < np.inf:
        raise ValueError(f"a margin is a number from 0 on, not {margin}")
    given = np.asarray([np.nan if d is None else d for d in differences], np.float64)
    data = finite(given[~np.isnan(given)])
    n, missing = len(data), len(given) - len(data)
    if hits and not np.isin(data, (-1.0, 0.0, 1.0)).all():
        raise ValueError("differences of hits are -1, 0 or 1")
    mean = float(data.mean()) if n else None
    if n < FEWEST:
        return Equivalence("cannot tell", mean, margin, None, None, None, None, n, missing, "fewer than six images")
    if hits:
        ci90, ci95, p = *(difference_of_hits(data, level) for level in (0.90, 0.95)), _p_of_hits(data, margin)
    elif np.ptp(data) == 0:
        value = float(data[0])
        verdict: Change = "equivalent" if abs(value) <= margin else "moved"
        ends = (value, value)
        return Equivalence(verdict, mean, margin, ends, ends, None, value != 0, n, missing, "all differences are equal")
    else:
        law = Studentised.of(data, seed=seed)
        ci90, ci95 = law.interval(0.90), law.interval(0.95)
        p = max(float(law.below(margin)[0]), float(law.above(-margin)[0]))
    verdict = change(ci90, ci95, margin)
    reason = "the interval reaches over the margin" if verdict == "cannot tell" else None
    return Equivalence(verdict, mean, margin, ci90, ci95, p, not ci95[0] <= 0 <= ci95[1], n, missing, reason)


def change(ci90: Interval, ci95: Interval, margin: float) -> Change:
    """The rule of Equivalence.verdict."""
    if -margin < ci90[0] and ci90[1] < margin:
        return "equivalent"
    return "moved" if ci95[0] > margin or ci95[1] < -margin else "cannot tell"


def _p_of_hits(data: Floats, margin: float) -> float:
    from scipy.special import ndtr

    centre, error = adjusted(data)
    return float(max(ndtr((centre - margin) / error), ndtr((-margin - centre) / error)))


def claim(
    interval: Interval | None,
    published: float | None,
    *,
    direction: Literal[-1, 1] | None = None,
    negligible: float = 0.5,
) -> Claim:
    """A published effect, held against the 95 % interval of ours.

    - holds: the same sign, the interval excludes 0 and contains the published effect;
    - in direction: the same sign, and the interval excludes 0;
    - does not hold: the interval excludes 0 on the other side; or it contains 0 and all of it is less than a share
      `negligible` of the published effect;
    - inconclusive: it contains 0, and more of the published effect;
    - cannot be tested here: no interval.

    Args:
        published: the effect in the unit of the interval; None if only a direction was published.
        direction: its sign, where `published` is None.

    Raises:
        ValueError: neither says a sign; a claim of no effect is one for `equivalence`.
    """
    sign = np.sign(published) if published is not None else direction or 0
    if sign == 0:
        raise ValueError("a claim has a sign; test one of no difference by equivalence with a margin")
    if interval is None:
        return "cannot be tested here"
    low, high = sorted(float(sign) * end for end in interval)
    size = abs(published) if published is not None else None
    if low > 0:
        return "holds" if size is not None and low <= size <= high else "in direction"
    if high < 0 or (size is not None and max(-low, high) < negligible * size):
        return "does not hold"
    return "inconclusive"


def decide(samples: ArrayLike, margin: float, resamples: int) -> list[Change]:
    """Verdicts on m samples at once, shape (m, n), by `resamples` resamples; for simulations."""
    law = Studentised.of(samples, resamples)
    ends = zip(law.intervals(0.90).tolist(), law.intervals(0.95).tolist(), strict=True)
    return [change((a, b), (c, d), margin) for (a, b), (c, d) in ends]

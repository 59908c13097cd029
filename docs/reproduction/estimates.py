"""From numbers by image to a number with its interval, and from that to a verdict (rules fixed beforehand).

The image is the unit. With several nets of a regime the bootstrap is over nets and images; where both sides are of the
same nets, it is of the difference in each net. A claim about twins made with one net a regime is about these two nets.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from reading import Numbers

from attrsens.engine.inference import Interval, claim, cluster_bootstrap, mean_interval, paired

CANNOT = "cannot be tested here"
FEWEST = 6  # images, for an interval
INSTEAD = "difference instead of a ratio"


@dataclass(frozen=True)
class Estimate:
    """A number of ours.

    Attributes:
        kind: mean, difference, ratio, correlation, or INSTEAD: where a ratio's interval has no end.
        null: what no effect would be.
        a, b: means of the two sides of a difference or ratio.
        nets: how many, of either side. n: images.
    """

    kind: str
    value: float | None
    ci95: Interval | None
    n: int
    nets: tuple[int, int]
    null: float = 0.0
    a: float | None = None
    b: float | None = None
    reason: str | None = None

    def data(self) -> dict[str, Any]:
        """Plain values, four digits."""
        return {k: _rounded(v) for k, v in asdict(self).items()}

    @classmethod
    def of(cls, data: dict[str, Any]) -> Estimate:
        """From plain values."""
        pairs = {k: tuple(data[k]) if data[k] is not None else None for k in ("ci95", "nets")}
        return cls(**data | pairs)


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(v) for v in value]
    return float(f"{value if abs(value) > 1e-12 else 0:.4g}") if isinstance(value, float) else value


def level(numbers: Numbers, null: float = 0.0) -> Estimate:
    """The mean over nets and images."""
    table = _tables(numbers)[0]
    if len(table) == 1:
        data = np.asarray([v for v in table[0] if v is not None], np.float64)
        mean = float(data.mean()) if len(data) else None
        alike = len(data) >= FEWEST and np.ptp(data) == 0
        ci95 = (float(data[0]), float(data[0])) if alike else mean_interval(data)
        return Estimate("mean", mean, ci95, len(data), (1, 0), null)
    found = cluster_bootstrap(table)
    return Estimate("mean", found.estimate, found.ci95, found.n, found.seeds, null, reason=found.reason)


def share(numbers: Numbers, null: float) -> Estimate:
    """How many of one net's images have something, of numbers that are 0 or 1; the interval is Wilson's."""
    data = np.asarray([v for values in numbers.values() for v in values.values() if v is not None], np.float64)
    mean = float(data.mean()) if len(data) else None
    return Estimate("mean", mean, mean_interval(data, kind="hits"), len(data), (len(numbers), 0), null)


def difference(a: Numbers, b: Numbers) -> Estimate:
    """Mean of a less mean of b, on the images that have both."""
    value, ci95, n, nets, reason, (left, right) = _contrast(a, b, 1.0)
    return Estimate("difference", value, ci95, n, nets, 0.0, left, right, reason)


def ratio(a: Numbers, b: Numbers) -> Estimate:
    """Mean of a over mean of b. The interval holds every r for which that of mean(a) - r mean(b) holds 0 (Fieller's
    argument, by bootstrap); where it is not bounded, since b may be 0, the difference takes its place."""
    *_, n, nets, reason, (left, right) = _contrast(a, b, 1.0)
    if left is None or right is None or right == 0:
        return Estimate("ratio", None, None, n, nets, 1.0, left, right, reason or "the mean below is 0")
    value = left / right

    def inside(r: float) -> bool:
        interval = _contrast(a, b, r)[1]
        return interval is not None and interval[0] <= 0 <= interval[1]

    ends = [_end(inside, value, side) for side in (-1, 1)]
    if inside(value) and None not in ends:
        return Estimate("ratio", value, (float(ends[0]), float(ends[1])), n, nets, 1.0, left, right, reason)  # type: ignore[arg-type]
    gap, ci95, *_ = _contrast(a, b, 1.0)
    return Estimate(INSTEAD, gap, ci95, n, nets, 0.0, left, right, reason)


def _end(inside: Any, start: float, side: int) -> float | None:
    near, step = start, abs(start) * 0.1 or 0.1
    for _ in range(20):
        far = near + side * step
        if not inside(far):
            break
        near, step = far, step * 2
    else:
        return None
    for _ in range(20):
        middle = (near + far) / 2
        near, far = (middle, far) if inside(middle) else (near, middle)
    return near


def correlation(a: Numbers, b: Numbers) -> Estimate:
    """Pearson's over images, of one net; the interval by the percentile bootstrap over images.

    At a true correlation near .4 and 30 to 90 images it covers 93 to 95 % on normal data and 92 to 93 % on lognormal
    ones, where studentising Fisher's z covers 85 to 88 % (2,000 draws each); at 13 images it covers about 90 %.
    """
    (net,) = a
    images = [i for i in a[net] if a[net][i] is not None and b[net].get(i) is not None]
    x, y = (np.asarray([part[net][i] for i in images], np.float64) for part in (a, b))
    n = len(images)
    if n < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        reason = f"fewer than {FEWEST} images" if n < FEWEST else "one of them is the same on every image"
        return Estimate("correlation", None, None, n, (1, 1), reason=reason)
    picks = np.random.Generator(np.random.Philox(20260101)).integers(0, n, (9999, n))
    xs, ys = x[picks], y[picks]
    xs, ys = xs - xs.mean(1, keepdims=True), ys - ys.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        rs = (xs * ys).sum(1) / np.sqrt((xs**2).sum(1) * (ys**2).sum(1))
    low, high = np.nanquantile(rs, [0.025, 0.975])
    return Estimate("correlation", float(np.corrcoef(x, y)[0, 1]), (float(low), float(high)), n, (1, 1))


def _tables(*parts: Numbers) -> list[list[list[float | None]]]:
    images = dict.fromkeys(image for part in parts for values in part.values() for image in values)
    return [[[values.get(image) for image in images] for values in part.values()] for part in parts]


def _contrast(
    a: Numbers, b: Numbers, r: float
) -> tuple[float | None, Interval | None, int, tuple[int, int], str | None, tuple[float | None, float | None]]:
    """(mean(a) - r mean(b), its interval, images, nets, reason, the two means), on the images that all have."""
    left, right = _tables(a, b)
    known = [i for i in range(len(left[0])) if all(row[i] is not None for row in [*left, *right])]
    left, right = ([[row[i] for i in known] for row in rows] for rows in (left, right))
    scaled = [[v * r for v in row if v is not None] for row in right]
    sides = tuple(float(np.mean(rows)) if known else None for rows in (left, right))
    if list(a) == list(b) and len(left) > 1:  # the same nets on both sides
        gaps = [[v - w for v, w in zip(*rows, strict=True)] for rows in zip(left, scaled, strict=True)]  # type: ignore[operator]
        found = cluster_bootstrap(gaps)
        return found.estimate, found.ci95, found.n, (len(left), len(right)), found.reason, sides  # type: ignore[return-value]
    if len(left) == len(right) == 1:
        pair = paired(left[0], scaled[0])
        reason = next(iter(pair.reasons), None)
        alike = pair.n >= FEWEST and pair.ci95 is None
        ci95 = (pair.difference, pair.difference) if alike else pair.ci95
        return pair.difference, ci95, pair.n, (1, 1), reason, sides  # type: ignore[return-value]
    found = cluster_bootstrap(left, scaled)
    return found.estimate, found.ci95, found.n, found.seeds, found.reason, sides  # type: ignore[return-value]


def verdict(
    estimate: Estimate | None,
    effect: float | None,
    direction: int | None,
    margin: float | None = None,
    within: float | None = None,
) -> str:
    """One of the five words (`attrsens.engine.inference.claim`), of an effect in the estimate's own unit.

    Args:
        effect: the published number, in the estimate's unit (of a ratio: the ratio).
        direction: its sign, where only that is published.
        margin: of a claim that something is no larger than `null` + margin: it is "in direction" where the whole
            interval lies below, "does not hold" where it lies above.
        within: of a claim that something is as large as `null`: it is "in direction" where the whole interval is
            nearer to it than this, "does not hold" where it is further away.
    """
    if estimate is None or estimate.value is None or estimate.ci95 is None:
        return CANNOT
    low, high = (end - estimate.null for end in estimate.ci95)
    if within is not None:
        inside, outside = -within < low and high < within, low > within or high < -within
        return "in direction" if inside else "does not hold" if outside else "inconclusive"
    if margin is not None:
        return "in direction" if high < margin else "does not hold" if low > margin else "inconclusive"
    if estimate.kind == INSTEAD and effect is not None:
        effect, direction = None, 1 if effect > 1 else -1
    size = None if effect is None else effect - estimate.null
    return claim((low, high), size, direction=direction)  # type: ignore[arg-type]

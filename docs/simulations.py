"""How often intervals cover and tests err, by simulation: `python docs/simulations.py [FILE.md]`; two minutes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtr, ndtri

from attrsens.engine.inference import Studentised, cluster_bootstrap, smallest_detectable, wilson
from attrsens.engine.inference.intervals import RESAMPLES, difference_of_hits, resampled
from attrsens.engine.inference.significance import sign_flips
from attrsens.engine.inference.verdicts import decide

OUT = Path(__file__).parent / "statistics.md"
TRIALS = 2000
SIZES = (20, 50, 100)
BLOCK = 250  # samples at once
FLIPS = 1999  # of the sign-flip test here
Data = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Data]


@dataclass(frozen=True)
class Law:
    """Where numbers come from; `draw` fills a shape, `mean` and `sd` are the law's own."""

    name: str
    mean: float
    sd: float
    draw: Draw


def _of(name: str, law: stats.rv_continuous) -> Law:
    return Law(name, float(law.mean()), float(law.std()), lambda g, shape: law.rvs(shape, random_state=g))


def _rare(generator: np.random.Generator, shape: tuple[int, int]) -> Data:
    return generator.beta(2, 5, shape) * (generator.random(shape) < 0.3)


NUMBERS = (
    _of("normal", stats.norm()),
    _of("lognormal, sigma 1", stats.lognorm(1)),
    _of("lognormal, sigma 0.5", stats.lognorm(0.5)),
    _of("bounded: beta(8, 2)", stats.beta(8, 2)),
    _of("bounded: beta(0.5, 5)", stats.beta(0.5, 5)),
    _of("bounded: beta(0.5, 0.5)", stats.beta(0.5, 0.5)),
    Law("0 on 70 %, else beta(2, 5)", 0.6 / 7, float(np.sqrt(0.3 * 3 / 28 - (0.6 / 7) ** 2)), _rare),
    _of("heavy tails: t(3)", stats.t(3)),
)
SHARES = (0.5, 0.2, 0.1, 0.02)
PAIRED = ((0.0, 0.0), (0.02, 0.02), (0.1, 0.1), (0.25, 0.05))  # shares that only one and only the other hits


def samples(law: Law, n: int, trials: int = TRIALS, seed: int = 1) -> Iterator[Data]:
    """Samples of n numbers, in blocks of rows; those whose numbers are all equal, which have no interval, left out."""
    generator = np.random.default_rng([seed, n])
    for start in range(0, trials, BLOCK):
        block = law.draw(generator, (min(BLOCK, trials - start), n))
        yield block[np.ptp(block, axis=1) > 0]


def covered(ends: Data, truth: float) -> tuple[int, int, int]:
    """Intervals that hold the truth, that lie below it, that lie above it."""
    below, above = int((ends[:, 1] < truth).sum()), int((ends[:, 0] > truth).sum())
    return len(ends) - below - above, below, above


def coverage(law: Law, n: int, trials: int = TRIALS, resamples: int = RESAMPLES) -> Data:
    """Shares of samples of n whose interval holds the mean, lies below it and above it."""
    found = [covered(Studentised.of(rows, resamples).intervals(), law.mean) for rows in samples(law, n, trials)]
    counts = np.sum(found, 0)
    return counts / counts.sum()


def peers(law: Law, n: int, trials: int = TRIALS) -> tuple[float, float]:
    """Shares of Student's and of BCa intervals that hold the mean."""
    hits = []
    for rows in samples(law, n, trials):
        mean, error = rows.mean(1), rows.std(1, ddof=1) / np.sqrt(n)
        half = stats.t.ppf(0.975, n - 1) * error
        student = covered(np.stack([mean - half, mean + half], 1), law.mean)[0]
        hits.append((student, covered(bca(rows), law.mean)[0], len(rows)))
    student, theirs, total = np.sum(hits, 0)
    return student / total, theirs / total


def bca(rows: Data, resamples: int = 1999, level: float = 0.95) -> Data:
    """Efron's bias-corrected, accelerated bootstrap interval (1987) of the means of m samples, (m, 2)."""
    n, mean = rows.shape[1], rows.mean(1, keepdims=True)
    gaps = rows - mean
    shift = np.sort(np.concatenate([gaps @ counts / n for counts in resampled(n, resamples, 0)], 1), 1)
    slack = 1e-12 * np.abs(gaps).max(1, keepdims=True)
    bias = ndtri(((shift < -slack).sum(1) + 0.5 * (np.abs(shift) <= slack).sum(1)) / resamples)
    skew = (gaps**3).sum(1) / (6 * (gaps**2).sum(1) ** 1.5)
    ends = []
    for z in ndtri([(1 - level) / 2, (1 + level) / 2]):
        share = ndtr(bias + (bias + z) / (1 - skew * (bias + z)))
        place = np.clip(share * resamples, 0, resamples - 1).astype(int)
        ends.append(mean[:, 0] + shift[np.arange(len(rows)), place])
    return np.stack(ends, 1)


def exact_wilson(share: float, n: int) -> float:
    """Chance that Wilson's interval holds the share: no simulation, a sum over all counts."""
    counts = np.arange(n + 1)
    ends = np.array([wilson(int(k), n) for k in counts])
    return float(stats.binom.pmf(counts, n, share)[(ends[:, 0] <= share) & (share <= ends[:, 1])].sum())


def exact_pairs(up: float, down: float, n: int) -> float:
    """Chance that the interval of a difference of paired 0/1 data holds up - down: a sum over all counts."""
    chance = 0.0
    for a in range(n + 1):
        for b in range(n + 1 - a):
            p = float(stats.multinomial.pmf([a, b, n - a - b], n, [up, down, 1 - up - down]))
            if p > 1e-9:
                low, high = difference_of_hits(np.repeat([1.0, -1.0, 0.0], [a, b, n - a - b]))
                chance += p * (low <= up - down <= high)
    return chance


def false_positives(law: Law, n: int, trials: int = TRIALS, flips: int = FLIPS) -> tuple[float, float]:
    """Shares of samples whose mean is 0 and whose sign-flip test, and whose 95 % interval, says that it is not."""
    found = []
    for rows in samples(law, n, trials, seed=2):
        centred = rows - law.mean
        ends = Studentised.of(centred, flips).intervals()
        found.append(((sign_flips(centred, flips) <= 0.05).sum(), len(rows) - covered(ends, 0)[0], len(rows)))
    tests, intervals, total = np.sum(found, 0)
    return tests / total, intervals / total


def verdicts(law: Law, n: int, at: float, margin: float, trials: int = TRIALS, resamples: int = FLIPS) -> Data:
    """Shares of "moved", "equivalent" and "cannot tell"; the mean is `at`, it and the margin in sd of the law."""
    found = []
    for rows in samples(law, n, trials, seed=3):
        found += decide((rows - law.mean) / law.sd + at, margin, resamples)
    return np.array([found.count(verdict) for verdict in ("moved", "equivalent", "cannot tell")]) / len(found)


def power(law: Law, n: int, trials: int = TRIALS, flips: int = FLIPS) -> float:
    """Share of samples, moved by the smallest detectable difference, whose sign-flip test finds it."""
    gap = smallest_detectable(law.sd, n) or 0.0
    found = [(sign_flips(rows - law.mean + gap, flips) <= 0.05) for rows in samples(law, n, trials, seed=4)]
    return float(np.concatenate(found).mean())


def seeds(count: int, sds: tuple[float, float, float], two: bool, trials: int = TRIALS // 2) -> float:
    """Coverage of the bootstrap over seeds and 50 images; sd between seeds, images, and what is left of each."""
    generator = np.random.default_rng([5, count])
    hits = 0
    for _ in range(trials):
        image = sds[1] * generator.normal(size=(1, 50))
        tables = [
            image + sds[0] * generator.normal(size=(count, 1)) + sds[2] * generator.normal(size=(count, 50))
            for _ in range(1 + two)
        ]
        ends = cluster_bootstrap(*tables, resamples=999).ci95
        hits += ends is not None and ends[0] <= 0 <= ends[1]
    return hits / trials


def plain(count: int, sds: tuple[float, float, float], trials: int = TRIALS // 2) -> float:
    """Coverage of the percentile interval when seeds and images are resampled and nothing is widened."""
    generator = np.random.default_rng([6, count])
    hits = 0
    for _ in range(trials):
        shapes = ((count, 1), (1, 50), (count, 50))
        values = sum(sd * generator.normal(size=shape) for sd, shape in zip(sds, shapes, strict=True))
        of_seeds, of_images = (np.concatenate([*resampled(k, 999, [6, k])], 1) / k for k in (count, 50))
        means = ((of_seeds.T @ values).T * of_images).sum(0)
        low, high = np.quantile(means, [0.025, 0.975])
        hits += low <= 0 <= high
    return hits / trials


# -- the page ------------------------------------------------------------------------------------------------------


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def page() -> str:
    """The whole page."""
    sizes = [f"n = {n}" for n in SIZES]
    fifty, spread = NUMBERS[:7], ((0.0, 1.0, 1.0), (0.3, 1.0, 1.0), (1.0, 0.5, 0.5))
    intervals = []
    for law in NUMBERS:
        ours = {n: coverage(law, n) for n in SIZES}
        sides = f"{percent(ours[50][1])} / {percent(ours[50][2])}"
        others = [percent(share) for share in peers(law, 50)]
        intervals.append([law.name, *(percent(ours[n][0]) for n in SIZES), sides, *others])
    errors = []
    for law in NUMBERS:
        rates = {n: false_positives(law, n) for n in SIZES}
        errors.append([law.name, *(f"{percent(rates[n][0])} / {percent(rates[n][1])}" for n in SIZES)])
    tost = []
    for law in fifty:
        settings = ((0.0, 0.5), (0.5, 0.5), (-0.5, 0.5), (1.0, 0.5))
        shares = [verdicts(law, 50, at, margin) for at, margin in settings]
        tost.append([law.name, *(" / ".join(percent(s) for s in share) for share in shares)])
    return TEXT.format(
        trials=TRIALS,
        error=percent(np.sqrt(0.95 * 0.05 / TRIALS)),
        intervals=table(["law", *sizes, "n = 50: below / above", "Student, n = 50", "BCa, n = 50"], intervals),
        wilson=table(
            ["share of 1", *sizes],
            [[str(share), *(percent(exact_wilson(share, n)) for n in SIZES)] for share in SHARES],
        ),
        pairs=table(
            ["1 and 0 / 0 and 1", *sizes],
            [[f"{up} / {down}", *(percent(exact_pairs(up, down, n)) for n in SIZES)] for up, down in PAIRED],
        ),
        errors=table(["law", *sizes], errors),
        tost=table(["law", "mean 0", "mean 0.5 = margin", "mean -0.5 = -margin", "mean 1"], tost),
        power=table(
            ["law", *sizes], [[law.name, *(percent(power(law, n)) for n in SIZES)] for law in (NUMBERS[0], NUMBERS[3])]
        ),
        plain=percent(plain(3, spread[-1])),
        seeds=table(
            ["sd of seeds / images / rest", *(f"{k} seeds" for k in (3, 5, 10)), "two regimes of 5"],
            [
                [
                    " / ".join(map(str, sds)),
                    *(percent(seeds(k, sds, two=False)) for k in (3, 5, 10)),
                    percent(seeds(5, sds, two=True)),
                ]
                for sds in spread
            ],
        ),
    )


TEXT = """\
# Statistics

*Written by `python docs/simulations.py`; do not edit.* The image is the unit: draws and targets are averaged first.
Every interval is at 95 %, every number below is in percent. Each cell is {trials} samples, so that 95.0 is known to
within {error} (one standard error); fewer than six images have neither an interval nor a p value.

## Intervals of a mean

Numbers, and paired differences: the studentised bootstrap, 9,999 resamples, the spread of a resample counted as at
least a quarter of the sample's (with many ties it can be 0). How many intervals hold the true mean; for n = 50 also how
many lie below and above it, and how many of Student's and of BCa intervals hold it.

{intervals}
BCa was the other candidate, and covers less on every law here. Very skewed data (the first lognormal) and heavy tails
stay below 95 %.

0/1 data: Wilson's interval, by a sum over all counts instead of a simulation.

{wilson}
Differences of paired 0/1 data: Bonett and Price's interval, by a sum, too; rows are the shares of images that only the
one and only the other hits.

{pairs}
## Tests

How often, at a true mean difference of 0, the sign-flip test has p <= 5 % / the interval excludes 0. The test asks
whether signs could as well be the other way, which is more than a mean of 0: it rejects too often where single
differences are very skewed. Where it and the interval disagree, trust the interval.

{errors}
Power: how often the sign-flip test finds a difference as large as `smallest_detectable` says (80 % by definition).

{power}
## Moved, equivalent, cannot tell

n = 50, in units of the differences' standard deviation; margin 0.5. Moved / equivalent / cannot tell. By definition a
mean on the margin is called equivalent in at most 5 %, and moved in at most 2.5 %; what is more is due to skew.

{tost}
## Training seeds

Coverage of the bootstrap over seeds and 50 images, from half as many samples. Seeds are few, so their part is widened
by sqrt(k / (k - 1)) t(df) / z, df = k - 1 (Welch's for two regimes); without that, three seeds covered {plain} in the
last row. Where seeds hardly differ the interval is too long, since what is left of images counts twice.

{seeds}"""


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else OUT).write_text(page(), encoding="utf-8")

"""How far two runs are apart: which records belong together, one distance an image, and a verdict on all of them.

Pure functions on what reports hold: nothing here runs a network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.inference import FEWEST, Studentised
from attrsens.engine.report import HeatmapInfo, ImageInfo, InputInfo, MethodInfo, ModelInfo, Record, TargetInfo, Value
from attrsens.heatmaps import unsketch

LEVEL = 0.05  # of each one-sided test; of `moved`, over all rows of a table together
BEYOND = 2.0  # how many margins every one of fewer than six images must be away to have moved
DEFINITIONS = {
    "l2": "relative L2 of the 28 x 28 sketches of both maps, ||b - a|| / max(||a||, ||b||), 0 to 2: size and pattern",
    "cosine": "1 - cosine similarity of the sketches, 0 to 2: pattern alone; where one map is zero 1, where both are 0",
    "probability": "|change| of the softmax probability of the class that is explained",
    "top1": "1 where the top class is another one, else 0",
}
MARGINS = {"l2": 1e-3, "cosine": 5e-7, "probability": 1e-3, "top1": 1e-2}  # the smallest, see `baseline`
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Entry:
    """What is compared of a record."""

    image: ImageInfo
    input: InputInfo
    model: ModelInfo
    target: TargetInfo
    method: MethodInfo
    heatmap: HeatmapInfo

    @classmethod
    def of(cls, record: Record) -> Entry:
        """Of a record of this run."""
        r = record
        return cls(r.image, r.input, r.model, r.target, r.method, r.heatmap)

    @property
    def place(self) -> tuple[Any, ...]:
        """What two records of one thing share: image, model's name, class, input, names of method and wrappers."""
        return self.shown, self.target.index, self.method.title

    @property
    def shown(self) -> tuple[Any, ...]:
        """What was shown to what: image, model's name, input."""
        return self.image.sha256, self.model.name, self.input.noise, self.input.erased

    def __str__(self) -> str:
        seen = "".join([f", noise {self.input.noise:g}" if self.input.noise else "",
                        f", {self.input.erased} erased" if self.input.erased else ""])  # fmt: skip
        return f"{self.image.path}, {self.model.name}, class {self.target.index}, {self.method.expression}{seen}"


Pair = tuple[Entry, Entry]


@dataclass
class Matched:
    """Pairs (before, after), and what is on one side only."""

    pairs: list[Pair] = field(default_factory=list)
    before: list[Entry] = field(default_factory=list)
    after: list[Entry] = field(default_factory=list)


def match(before: Iterable[Entry], after: Iterable[Entry]) -> Matched:
    """Pairs of entries about the same image (by its pixels), model name, class, input and method call.

    A call is the same if its expression is. What is left over is paired where exactly one call on each side has the
    same names and the same values of the parameters that both know, seeds aside: another seed is a repeat, and a
    parameter that a later version added is no other method.
    """
    sides: tuple[dict[Any, dict[str, Entry]], ...] = ({}, {})
    for side, entries in zip(sides, (before, after), strict=True):
        for entry in entries:  # a picture that was given twice counts once
            side.setdefault(entry.place, {}).setdefault(entry.method.expression, entry)
    out = Matched()
    for place in dict.fromkeys([*sides[0], *sides[1]]):
        a, b = (dict(side.get(place, {})) for side in sides)
        for expression in [e for e in a if e in b]:
            out.pairs.append((a.pop(expression), b.pop(expression)))
        for one in list(a.values()):
            fits = [other for other in b.values() if _alike(one.method, other.method)]
            back = [other for other in a.values() if len(fits) == 1 and _alike(other.method, fits[0].method)]
            if len(back) == 1:
                out.pairs.append((a.pop(one.method.expression), b.pop(fits[0].method.expression)))
        out.before += a.values()
        out.after += b.values()
    return out


def _alike(a: MethodInfo, b: MethodInfo) -> bool:
    def same(one: dict[str, Value], other: dict[str, Value]) -> bool:
        return all(one[k] == other[k] for k in one.keys() & other.keys() if k != "seed")

    if len(a.wrappers) != len(b.wrappers):  # a file may call a method `grad+smooth`
        return False
    wrapped = all(same(v.parameters, w.parameters) for v, w in zip(a.wrappers, b.wrappers, strict=True))
    return same(a.parameters, b.parameters) and wrapped


def relative_l2(a: Vector, b: Vector) -> float:
    """||b - a|| / max(||a||, ||b||); 0 for two zero maps."""
    peak = max(float(np.abs(a).max()), float(np.abs(b).max()))
    if not peak:
        return 0.0
    a, b = a / peak, b / peak  # squares neither vanish nor overflow
    return float(np.linalg.norm(b - a) / max(np.linalg.norm(a), np.linalg.norm(b)))


def cosine_distance(a: Vector, b: Vector) -> float:
    """1 - cosine similarity: half the squared distance of the unit vectors, which keeps the digits of small changes.
    1 where one map is zero, 0 where both are."""
    peaks = float(np.abs(a).max()), float(np.abs(b).max())
    if not all(peaks):
        return float(any(peaks))
    a, b = a / peaks[0], b / peaks[1]
    return float(np.square(a / np.linalg.norm(a) - b / np.linalg.norm(b)).sum() / 2)


@dataclass
class Row:
    """The distances of one quantity: by image, each the mean over its classes.

    Attributes:
        group: model, and for maps the method's names and expression, noise and what is erased.
        missing: images without a counterpart.
    """

    quantity: str
    group: dict[str, Any]
    images: dict[str, list[float]] = field(default_factory=dict)
    missing: int = 0

    @property
    def values(self) -> Vector:
        """(images,), in the order of the run."""
        return np.asarray([sum(v) / len(v) for v in self.images.values()], np.float64)


def map_rows(matched: Matched) -> list[Row]:
    """l2 and cosine of every model, input and method call of the later run."""
    rows: dict[tuple[Any, ...], Row] = {}
    known: dict[tuple[Any, ...], set[str]] = {}
    for a, b in matched.pairs:
        first, second = _map(a), _map(b)
        for quantity, distance in (("l2", relative_l2), ("cosine", cosine_distance)):
            group = {**_seen(b), "method": b.method.title, "expression": b.method.expression}
            row = rows.setdefault((quantity, *group.values()), Row(quantity, group))
            row.images.setdefault(b.image.sha256, []).append(distance(first, second))
            known.setdefault((quantity, *group.values()), set()).add(b.image.sha256)
    for entry in matched.after:
        for quantity in ("l2", "cosine"):
            place = (quantity, *_seen(entry).values(), entry.method.title, entry.method.expression)
            if place in rows and entry.image.sha256 not in known[place]:
                known[place].add(entry.image.sha256)
                rows[place].missing += 1
    return list(rows.values())


def prediction_rows(before: Sequence[Entry], after: Sequence[Entry]) -> list[Row]:
    """probability and top1 of every model and input, from the records' targets."""
    old, new = _predictions(before), _predictions(after)
    rows: dict[tuple[Any, ...], Row] = {}
    for shown, (group, now) in new.items():
        image = shown[0]
        then = old[shown][1] if shown in old else {}
        shared = [index for index in now if index in then]
        changes = [abs(now[index][0] - then[index][0]) for index in shared]
        for quantity, values in (("probability", changes), ("top1", _flipped(then, now))):
            row = rows.setdefault((quantity, *group.values()), Row(quantity, group))
            if values:
                row.images[image] = values
            elif then:
                row.missing += 1
    return [row for row in rows.values() if row.images]


def _predictions(entries: Sequence[Entry]) -> dict[Any, tuple[dict[str, Any], dict[int, tuple[float, int]]]]:
    out: dict[Any, tuple[dict[str, Any], dict[int, tuple[float, int]]]] = {}
    for e in entries:
        known = out.setdefault(e.shown, (_seen(e), {}))[1]
        known.setdefault(e.target.index, (e.target.probability, e.target.rank))
    return out


def _flipped(then: dict[int, tuple[float, int]], now: dict[int, tuple[float, int]]) -> list[float]:
    """[1] if the top class changed, [0] if not, [] where the records do not say."""
    first = {index for index, (_, rank) in then.items() if rank == 1}
    second = {index for index, (_, rank) in now.items() if rank == 1}
    if first and second:
        return [float(not first & second)]
    known = first & now.keys() or second & then.keys()  # the top class of one, known not to be on top in the other
    return [1.0] if known else []


def _seen(entry: Entry) -> dict[str, Any]:
    return {"model": entry.model.name, "noise": entry.input.noise, "erased": entry.input.erased}


def _map(entry: Entry) -> Vector:
    return unsketch(entry.heatmap.sketch, entry.heatmap.sketch_scale)


@dataclass(frozen=True)
class Finding:
    """verdict: moved, equivalent or cannot tell; mean and its two-sided 95 % interval; reason: what it rests on."""

    verdict: str
    mean: float | None
    ci95: tuple[float, float] | None
    reason: str | None = None


def judge(values: Vector, margin: float, tests: int = 1, binary: bool = False) -> Finding:
    """Whether a mean distance over images is beyond the margin, within it, or neither can be said.

    moved: at level 0.05 / tests, so that over `tests` rows together at most 5 % of runs whose means are at the margin
    raise an alarm. Half of the level goes to the one-sided lower bound of the mean, which must lie above the margin;
    half to a test that holds for any number of images and any distances of 0 or more (see `evidence`).
    equivalent: the one-sided upper bound at level 0.05 lies below the margin. (A distance is 0 or more, so that of the
    two one-sided tests only this one can fail.)
    Bounds are the studentised bootstrap's or Student's, whichever is wider, from six images on; of 0/1 data Clopper and
    Pearson's, which are exact.

    Where none of this decides, it may still be said of these images alone, and the reason says so: equivalent if none
    is beyond the margin; with fewer than six images moved if every one is beyond twice it.

    Args:
        values: (images,), 0 or more. binary: they are 0 or 1.
    """
    n = len(values)
    if not n:
        return Finding("cannot tell", None, None, "no image of the baseline was met again")
    mean, level = float(values.mean()), LEVEL / tests
    ci95 = None
    if binary or (n >= FEWEST and float(np.ptp(values)) > 0):
        find = proportion_bounds if binary else mean_bounds
        low, high = find(values, level if binary else level / 2)[0], find(values, LEVEL)[1]
        ends = find(values, 0.025)
        ci95 = max(0.0, ends[0]), ends[1]
        if low > margin:
            return Finding("moved", mean, ci95)
        if high < margin:
            return Finding("equivalent", mean, ci95)
    if not binary and evidence(values, margin) > 2 / level:
        return Finding("moved", mean, ci95, "by a test that needs no interval (evidence)")
    these = f"on {'this image' if n == 1 else f'these {n} images'}; nothing is said of others"
    if float(values.max()) == 0:
        return Finding("equivalent", mean, ci95, f"exactly the same {these}")
    if float(values.max()) <= margin:
        return Finding("equivalent", mean, ci95, f"each is within the margin {these}")
    if n < FEWEST and not binary:
        if float(values.min()) > BEYOND * margin:
            return Finding("moved", mean, ci95, f"each is beyond twice the margin {these}")
        return Finding("cannot tell", mean, ci95, f"{n} {'image' if n == 1 else 'images'}; an interval needs {FEWEST}")
    return Finding("cannot tell", mean, ci95, "the interval holds the margin")


def evidence(values: Vector, margin: float) -> float:
    """Product over images of (1 + value / margin) / 2: for independent numbers of 0 or more with a mean of at most the
    margin its expectation is at most 1, so that it exceeds 1 / p with a probability of at most p (Markov; Ville 1939,
    testing by betting: Waudby-Smith and Ramdas 2024). Any number of images, any skew."""
    return float(np.exp(min(700.0, float(np.log((1 + values / margin) / 2).sum()))))


def mean_bounds(values: Vector, level: float) -> tuple[float, float]:
    """One-sided lower and upper bounds of a mean, each at this level: the wider of Student's and the studentised
    bootstrap's."""
    from scipy.special import stdtrit

    n, mean = len(values), float(values.mean())
    error = float(values.std(ddof=1)) / n**0.5
    if not error:
        return mean, mean
    low, high = Studentised.of(values).interval(1 - 2 * level)
    half = float(stdtrit(n - 1, 1 - level)) * error
    return min(low, mean - half), max(high, mean + half)


def proportion_bounds(values: Vector, level: float) -> tuple[float, float]:
    """Clopper and Pearson's one-sided bounds of a proportion from 0/1 numbers, each at this level."""
    from scipy.stats import beta

    n, k = len(values), round(float(values.sum()))
    low = float(beta.ppf(level, k, n - k + 1)) if k else 0.0
    high = float(beta.ppf(1 - level, k + 1, n - k)) if k < n else 1.0
    return low, high

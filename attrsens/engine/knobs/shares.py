"""Shares of variance over the ranges in use: total indices of map-valued outputs, the secondary view (science 2.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from attrsens.engine.inference import FEWEST, Interval
from attrsens.engine.inference.intervals import Floats
from attrsens.engine.knobs.bootstrap import FEW, intervals, smooth
from attrsens.engine.knobs.results import Share
from attrsens.engine.knobs.study import ImageGram, placed
from attrsens.params import Hyper, Scale, Value
from attrsens.seeds import Stream

LEVELS = 4  # of a numeric knob: midpoints of the quarters of its range; the inner two are those of the halved range
INNER = (1, 2)
SEED = "seed"
NO_VARIANCE = "all maps are the same"
SAME = 1e-9  # a total variance below this is rounding


@dataclass(frozen=True)
class PracticeRange:
    """The values of a knob that are in use, and where that is known from.

    Attributes:
        low, high: of a numeric knob, low < high, 0 < low for a ratio. choices: of a nominal one.
    """

    knob: str
    scale: Scale
    low: float = 0.0
    high: float = 0.0
    integer: bool = False
    choices: tuple[Value, ...] = ()
    source: str = ""

    @classmethod
    def of(cls, hyper: Hyper) -> PracticeRange | None:
        """The declared range of a method's hyperparameter; None without one."""
        p = hyper.param
        if p.scale == "nominal":
            choices: tuple[Value, ...] = (False, True) if hyper.type is bool else p.choices or p.sweep
            return cls(hyper.name, p.scale, choices=choices, source=p.source) if len(choices) > 1 else None
        if p.range is None:
            return None
        return cls(hyper.name, p.scale, *p.range, integer=hyper.type is int, source=p.source)

    def levels(self) -> tuple[Value, ...]:
        """The values that are tried, ascending; integers are rounded, so that two levels may be one value.

        Raises:
            ValueError: no range, or fewer than two choices.
        """
        if self.scale == "nominal":
            if len(self.choices) < 2:
                raise ValueError(f"{self.knob}: shares want two choices")
            return self.choices
        if not self.low < self.high or (self.scale == "ratio" and self.low <= 0):
            raise ValueError(f"{self.knob}: from {self.low} to {self.high} is no range of a {self.scale} knob")
        parts = [(2 * q + 1) / (2 * LEVELS) for q in range(LEVELS)]
        if self.scale == "ratio":
            values = [self.low * math.pow(self.high / self.low, part) for part in parts]
        else:
            values = [self.low + (self.high - self.low) * part for part in parts]
        return tuple(round(v) if self.integer else v for v in values)

    @property
    def ends(self) -> list[Value]:
        return list(self.choices) if self.scale == "nominal" else [self.low, self.high]


@dataclass(frozen=True)
class Design:
    """Cells of one image: base points, and each with one knob replaced (Jansen 1999; radial: Campolongo et al. 2011).

    Attributes:
        cells: knob to value, each once. bases: cell of each base point, (b,); replaced: of its replacements, (b, k).
        base_levels, replaced_levels: of the k knobs there, (b, k); the replaced level is another one.
    """

    ranges: tuple[PracticeRange, ...]
    cells: list[dict[str, Value]]
    bases: list[int]
    replaced: list[list[int]]
    base_levels: list[list[int]]
    replaced_levels: list[list[int]]


def radial_design(ranges: Sequence[PracticeRange], bases: int = 4, *, seed: int = 0, image: str = "") -> Design:
    """Independent base points with all their one-knob replacements: at most bases x (1 + knobs) cells.

    Args:
        bases: at least 2.
        image: hash of the image. Every image should have its own design, so that the choice of cells is averaged out
            over images and covered by the interval.

    Raises:
        ValueError: fewer than two bases, no knob, or no range.
    """
    if bases < 2 or not ranges:
        raise ValueError(f"a design has a knob and two base points, not {len(ranges)} and {bases}")
    levels = [r.levels() for r in ranges]
    sizes = np.asarray([len(own) for own in levels])
    u = Stream(seed, image, "shares").uniform(range(2), (bases, len(ranges)))
    base = np.minimum((u[0] * sizes).astype(int), sizes - 1)
    other = np.minimum((u[1] * (sizes - 1)).astype(int), sizes - 2)
    other = other + (other >= base)
    index: dict[str, int] = {}
    cells: list[dict[str, Value]] = []

    def cell(places: Sequence[int]) -> int:
        values = {r.knob: own[place] for r, own, place in zip(ranges, levels, places, strict=True)}
        key = repr(values)
        if key not in index:
            index[key] = len(cells)
            cells.append(values)
        return index[key]

    starts, replaced = [], []
    for row, new in zip(base.tolist(), other.tolist(), strict=True):
        starts.append(cell(row))
        replaced.append([cell([*row[:k], new[k], *row[k + 1 :]]) for k in range(len(ranges))])
    return Design(tuple(ranges), cells, starts, replaced, base.tolist(), other.tolist())


def variance_shares(designs: Sequence[Design], grams: Sequence[ImageGram], draws: bool) -> list[Share]:
    """Total index of every knob, then the seed's share, over the full ranges and with each numeric range halved.

    Args:
        designs: of each image, over the same ranges. grams: their maps, rows labelled (cell, draw).
        draws: whether the method draws; if so, every cell needs two draws.

    Returns:
        An image that lacks a map of a cell has no part in any share.

    Raises:
        ValueError: another number of designs than of images, different ranges, or matrices that `cosines` refuses.
    """
    if len(designs) != len(grams) or not designs or any(d.ranges != designs[0].ranges for d in designs):
        raise ValueError("shares want one design an image, over the same ranges")
    ranges = designs[0].ranges
    halves = [None, *(k for k, r in enumerate(ranges) if r.scale != "nominal")]
    rows, lost = [], list[str]()
    for design, gram in zip(designs, grams, strict=True):
        found = _products(design, gram, draws)
        if isinstance(found, str):
            lost.append(found)
        else:
            rows.append(np.concatenate([_features(design, found, half) for half in halves]))
    n, width = len(rows), len(ranges) + 1
    reasons = {reason: lost.count(reason) for reason in dict.fromkeys(lost)}
    every: list[float | None] = [None] * (width * len(halves))
    ends: list[Interval | None] = [None] * len(every)
    if n:
        features, f = np.stack(rows), _function(ranges, halves)
        values = f(features.mean(0)[:, None])[:, 0]
        every = [float(v) if np.isfinite(v) else None for v in values]
        if n >= FEWEST:
            counts = (features.reshape(n, len(halves), width + 1, 2)[..., 1] > 0).sum(0)
            seen = np.minimum(counts[:, :1], counts[:, 1:]).ravel() >= FEWEST
            ends = [e if s else None for e, s in zip(intervals(smooth(features, f)), seen.tolist(), strict=True)]
    out = []
    for k, name in enumerate([*(r.knob for r in ranges), SEED]):
        at = {ranges[h].knob: width * i + k for i, h in enumerate(halves) if h is not None}
        value, reason = every[k], None
        if value is None:
            reason = NO_VARIANCE if n else "no image has a map of every cell"
        elif ends[k] is None:
            reason = FEW if n < FEWEST else "no spread over images: no interval"
        out.append(
            Share(
                knob=name,
                share=value,
                ci95=ends[k] if value is not None else None,
                halved={knob: every[i] for knob, i in at.items()},
                halved_ci95={knob: ends[i] if every[i] is not None else None for knob, i in at.items()},
                range=ranges[k].ends if k < len(ranges) else [],
                source=ranges[k].source if k < len(ranges) else "",
                n=n,
                missing=len(lost),
                reasons=reasons,
                reason=reason,
            )
        )
    return out


def _products(design: Design, gram: ImageGram, draws: bool) -> Floats | str:
    """Mean cosine of different draws between all cells, (c, c), 1 on the diagonal without draws; or what is missing."""
    count = len(design.cells)
    numbers = sorted({draw for _, draw in gram.rows})
    index = {(cell, draw): i for i, (cell, draw) in enumerate((c, d) for c in range(count) for d in numbers)}
    if any(row not in index for row in gram.rows):
        raise ValueError(f"{gram.image}: a row of a cell that its design does not have")
    known, at, there = placed(gram, index)
    if not there.all() or not numbers:
        lacking = int(np.flatnonzero(~there)[0]) // len(numbers) if numbers else 0
        named = ", ".join(f"{k}={v}" for k, v in design.cells[lacking].items())
        return gram.reasons.get(lacking, f"no map of {named}")
    if draws and len(numbers) < 2:
        return "fewer than two draws of a cell"
    d = len(numbers)
    full = np.empty((len(index), len(index)))
    full[np.ix_(at, at)] = known
    blocks = full.reshape(count, d, count, d)
    sums = blocks.sum((1, 3))
    if not draws:
        out = sums / d**2
        np.fill_diagonal(out, 1.0)
        return np.asarray(out, np.float64)
    return np.asarray((sums - np.einsum("iaja->ij", blocks)) / (d * (d - 1)), np.float64)


def _features(design: Design, products: Floats, half: int | None) -> Floats:
    """Sums and counts: products of cells of two base points, products within a cell, and of each knob
    |m(x) - m(x')|^2 / 2; with the range of knob `half` halved, of cells inside it. Shape (2 (2 + knobs),)."""
    base, other = np.asarray(design.base_levels), np.asarray(design.replaced_levels)
    cells = np.column_stack([design.bases, design.replaced])  # of a base point and all its replacements
    inside = np.ones(cells.shape, bool)
    if half is not None:
        inside[:] = np.isin(base[:, half], INNER)[:, None]
        inside[:, 1 + half] = np.isin(other[:, half], INNER)
    star = np.repeat(np.arange(len(cells)), inside.sum(1))
    within = np.diagonal(products)
    apart = star[:, None] != star
    every = cells[inside]
    out = [products[np.ix_(every, every)][apart].sum(), apart.sum(), within[every].sum(), len(every)]
    for k in range(base.shape[1]):
        both = inside[:, 0] & inside[:, 1 + k]
        x, y = cells[both, 0], cells[both, 1 + k]
        out += [((within[x] + within[y]) / 2 - products[x, y]).sum(), len(x)]
    return np.asarray(out, np.float64)


def _function(ranges: Sequence[PracticeRange], halves: Sequence[int | None]) -> Callable[[Floats], Floats]:
    """From means of the features to the shares, by range: of every knob, then of the seed."""
    knobs = len(ranges)
    sizes = [len(r.levels()) for r in ranges]
    chance = np.asarray([[0.5 if k == half else 1 - 1 / size for k, size in enumerate(sizes)] for half in halves])

    def f(means: Floats) -> Floats:
        sums = means.reshape(len(halves), knobs + 2, 2, -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = sums[:, :, 0] / sums[:, :, 1]
            total = 1 - ratio[:, :1]  # maps have norm 1
            parts = np.concatenate([chance[:, :, None] * ratio[:, 2:], 1 - ratio[:, 1:2]], 1)
            out = np.where(total > SAME, parts / total, np.nan)
        return np.asarray(out.reshape(len(halves) * (knobs + 1), -1), np.float64)

    return f

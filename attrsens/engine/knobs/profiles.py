"""A knob's profile 1 - c*(t), and the numbers read off it: each is a fixed sum of the settings' effects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.inference import FEWEST
from attrsens.engine.inference.intervals import Floats, Studentised
from attrsens.engine.knobs.bootstrap import by_mask
from attrsens.engine.knobs.results import Reach
from attrsens.engine.knobs.study import Cosines, Knob

NOBODY = "no image has all maps of the knob"
LEAST_R = 0.1  # reliability below which c* is refused
TOLERATED = 0.1  # effect at which a tolerance ends
FLOOR_R = 1e-3  # of a resample's reliability, so that its root exists
SLACK = 1e-9  # of positions


@dataclass(frozen=True)
class Profile:
    """What is measured of a knob.

    Attributes:
        columns: its settings that some image has, or all if there is none such.
        images: who has all of them and t0, (n,).
        r_low: lower 95 % bound of r, by column; the estimate for fewer than six images.
        refused: by column, why it has no c*.
        effect, down, up, full, half: weights of the settings' effects, (s,); None where not measured.
        reason: why not, or what there is to know.
    """

    knob: Knob
    columns: list[int]
    images: NDArray[np.bool_]
    r_low: dict[int, float]
    refused: dict[int, str]
    effect: Floats | None
    down: Floats | None
    up: Floats | None
    full: Floats | None
    half: Floats | None
    reason: str | None


def pooled(within: Floats, cross: Floats, home: NDArray[np.intp]) -> Floats:
    """1 - c* of s settings from pooled r and c, each (s, k)."""
    r = np.maximum(within, FLOOR_R)
    return np.asarray(1 - cross / np.sqrt(r[home] * r), np.float64)


def effects_of(table: Cosines, weights: Floats) -> tuple[Floats, Callable[[Floats], Floats]]:
    """Features of each image, and the function of their means that gives m weighted sums of effects, weights (m, s)."""
    used = np.flatnonzero((weights != 0).any(0))
    columns = np.union1d(used, table.home[used]).astype(np.intp)
    home = np.searchsorted(columns, table.home[columns]).astype(np.intp)
    of_used = weights[:, columns]
    k = len(columns)

    def f(means: Floats) -> Floats:
        return np.asarray(of_used @ pooled(means[:k], means[k:], home), np.float64)

    return np.hstack([table.within[:, columns], table.cross[:, columns]]), f


def profiles(table: Cosines) -> list[Profile]:
    """One for each declared knob."""
    columns = []
    for knob in table.knobs:
        own = [i for i, s in enumerate(table.settings) if s.knob == knob.name]
        columns.append([i for i in own if np.isfinite(table.cross[:, i]).any()] or own)
    homes = [sorted({int(table.home[i]) for i in own}) for own in columns]
    masks = [
        table.complete([*own, *home]) if own else np.zeros(len(table.images), bool)
        for own, home in zip(columns, homes, strict=True)
    ]
    lows: list[dict[int, float]] = [{} for _ in columns]
    for places in by_mask(masks).values():
        wanted = sorted({i for place in places for i in (*columns[place], *homes[place])})
        found = _lower_r(table, wanted, masks[places[0]])
        for place in places:
            lows[place] = {i: found[i] for i in (*columns[place], *homes[place])}
    return [_profile(table, k, c, m, low) for k, c, m, low in zip(table.knobs, columns, masks, lows, strict=True)]


def _lower_r(table: Cosines, columns: Sequence[int], images: NDArray[np.bool_]) -> dict[int, float]:
    values = table.within[images][:, list(columns)].T
    if values.shape[1] == 0:
        return dict.fromkeys(columns, float("nan"))
    low = values.mean(1)
    unequal = np.ptp(values, axis=1) > SLACK
    if values.shape[1] >= FEWEST and unequal.any():
        low[unequal] = Studentised.of(values[unequal]).intervals()[:, 0]
    return dict(zip(columns, low.tolist(), strict=True))


def _profile(
    table: Cosines, knob: Knob, columns: list[int], images: NDArray[np.bool_], r_low: dict[int, float]
) -> Profile:
    refused: dict[int, str] = {}
    if images.any():
        bound = "the lower 95 % bound of r" if images.sum() >= FEWEST else "r"
        for i, low in r_low.items():
            if low < LEAST_R:
                where = "t0" if table.settings[i].knob is None else f"{knob.name}={table.settings[i].value}"
                refused[i] = f"draws hide the expected map: {bound} is {low:.2g} at {where}, below {LEAST_R}"
    home = next((int(table.home[i]) for i in columns), -1)
    if home in refused:
        refused |= dict.fromkeys(columns, refused[home])
    usable = [i for i in columns if i not in refused]
    why = None
    if not columns:
        why = "no setting besides t0"
    elif not images.any():
        why = NOBODY
    elif not usable:
        why = refused[columns[0]]
    if why is not None:
        return Profile(knob, columns, images, r_low, refused, None, None, None, None, None, f"not measured: {why}")
    notes = [refused[i] for i in columns if i in refused]
    size = len(table.settings)
    if knob.scale == "nominal":
        mean = np.zeros(size)
        mean[usable] = 1 / len(usable)
        return Profile(knob, columns, images, r_low, refused, mean, None, None, mean, mean, "; ".join(notes) or None)
    at = {i: p for i in usable if (p := table.settings[i].position) is not None} | {home: 0.0}
    notes += [f"{knob.name}={table.settings[i].value} has no position" for i in usable if i not in at]
    order = sorted(at, key=at.__getitem__)
    hats = _Hats(np.asarray([at[i] for i in order]), order, size)
    sides: list[Floats | None] = []
    lacking, gone = [], []
    for sign, limit, name in ((-1, knob.lowest, "down"), (1, knob.highest, "up")):
        admissible = limit is None or sign * limit >= 1 - SLACK
        sides.append(hats.at(float(sign)) if admissible else None)
        if not admissible:
            gone.append(f"one step {name} is not admissible: the effect is that of the other side")
        elif sides[-1] is None:
            lacking.append(f"one step {name} is not bracketed")
    known = [side for side in sides if side is not None]
    effect = np.mean(known, axis=0) if known and not lacking else None
    if lacking or not known:
        notes = ["not measured: " + " and ".join(lacking or ["no step is admissible"]), *notes]
    elif gone:
        notes = [*gone, *notes]
    low, high = hats.knots[0], hats.knots[-1]
    full, half = hats.mean(low, high), hats.mean(low / 2, high / 2)
    down, up = sides
    return Profile(knob, columns, images, r_low, refused, effect, down, up, full, half, "; ".join(notes) or None)


@dataclass(frozen=True)
class _Hats:
    """Weights of piecewise linear interpolation between knots, in ascending order."""

    knots: Floats
    columns: list[int]
    size: int

    def at(self, place: float) -> Floats | None:
        """Of the value at a place; None outside of the knots."""
        nearest = self.knots[np.abs(self.knots - place).argmin()]
        place = float(nearest) if abs(nearest - place) < SLACK else place
        return self._row(place) if self.knots[0] <= place <= self.knots[-1] else None

    def mean(self, low: float, high: float) -> Floats | None:
        """Of the mean height between two places; None if they are one."""
        if high - low < SLACK:
            return None
        nodes = np.unique([low, high, *self.knots[(self.knots > low) & (self.knots < high)]])
        rows = np.stack([self._row(float(node)) for node in nodes])
        return np.asarray(((rows[1:] + rows[:-1]) / 2 * np.diff(nodes)[:, None]).sum(0) / (high - low), np.float64)

    def _row(self, place: float) -> Floats:
        out = np.zeros(self.size)
        out[self.columns] = [np.interp(place, self.knots, unit) for unit in np.eye(len(self.knots))]
        return out


def reaches(places: Sequence[float], heights: Sequence[float]) -> tuple[Reach | None, Reach | None, Reach | None]:
    """How far from t0 the profile reaches 0.1: on the nearest side, downwards and upwards; None for a side without a
    setting, nearest of those that have one."""
    sides: list[Reach | None] = []
    for sign in (-1, 1):
        points = sorted((abs(p), h) for p, h in zip(places, heights, strict=True) if p * sign > 0)
        sides.append(_reach(points) if points else None)
    found = [side for side in sides if side is not None]
    at = min((side.at for side in found if side.at is not None), default=None)
    beyond = min((side.beyond for side in found if side.beyond is not None), default=None)
    nearest = None
    if at is not None and beyond is not None and beyond < at:
        nearest = Reach(None, beyond, f"{beyond:.2g} to {at:.2g}")
    elif at is not None:
        nearest = Reach(at, None, f"{at:.2g}")
    elif beyond is not None:
        nearest = Reach(None, beyond, f"> {beyond:.2g}")
    return nearest, sides[0], sides[1]


def _reach(points: Sequence[tuple[float, float]]) -> Reach:
    before, height = 0.0, 0.0
    for place, value in points:
        if value >= TOLERATED:
            at = before + (place - before) * (TOLERATED - height) / (value - height)
            return Reach(at, None, f"{at:.2g}")
        before, height = place, value
    return Reach(None, before, f"> {before:.2g}")

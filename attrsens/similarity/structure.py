"""Similarities of what maps look like: local means and variances (SSIM), directions of edges (HOG)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from attrsens.similarity._pairs import (
    SCALE,
    Floats,
    Ready,
    correlations,
    each,
    every_pair,
    shrink,
    take,
    tiled,
)
from attrsens.spec import SIMILARITIES, Param

Maps = NDArray[np.floating]

K1, K2 = 0.01, 0.03
STRIP = 25_000  # entries of the strips in which maps are compared: high ones have less of their neighbours to add up
ROWS = 16  # of a strip, at least
TILE = 4 * STRIP  # entries that are computed at a time: enough to outweigh the calls, few enough for the cache


Step = tuple[Floats, Floats, Floats]  # two arrays to add, and where to


def _doubling(count: int, stride: int, length: int, room: list[Floats]) -> list[Step]:
    """Additions after which the first of three arrays' `room` holds sums of `count` entries `stride` apart.

    Entries lie along the last axis; there are `length` sums. The array that has them comes first in `room` afterwards.
    """
    steps: list[Step] = []
    here, total, span, done = room[0], None, 1, 0
    while True:
        if count & span:
            if total is None:
                total = here
            else:
                sums = total[..., :length]
                steps.append((sums, here[..., done * stride : done * stride + length], sums))
            done += span
        if 2 * span > count:
            room.sort(key=lambda array: array is not total)
            return steps
        free = next(array for array in room if array is not here and array is not total)
        reach = length + (count - 2 * span) * stride
        steps.append((here[..., :reach], here[..., span * stride : span * stride + reach], free[..., :reach]))
        here, span = free, 2 * span


def _evenly(count: int, most: int) -> int:
    """How many of `count` go into each of the fewest parts of at most `most`."""
    return -(-count // -(-count // most))


class _Windows:
    """Local statistics of maps of one shape, and pairs of them.

    A map is a row of numbers, so that a step down is `across` entries. With N the entries of a window, k = N / (N - 1),
    c1 = k C1 and c2 = C2 + c1, a map x comes as `values` x sqrt(2 k / N), `means` x_mean sqrt(2 k), `levels` (means^2 +
    c1) / 2, infinite where no window fits, and `spreads` sample variance + C2 / 2. Then, at each place,

        luminance = means means' + c1,    contrast = window sum of values values' - luminance + c2,
        SSIM = luminance contrast / ((levels + levels') (spreads + spreads')).
    """

    def __init__(self, shape: tuple[int, int], window: int, data_range: float) -> None:
        self.across, self.window = shape[1], window
        self.high, self.wide = shape[0] - window + 1, shape[1] - window + 1
        self.rows = _evenly(self.high, max(ROWS, STRIP // self.across))
        self.size = window * window
        self.k = self.size / (self.size - 1)
        self.c1 = self.k * (K1 * data_range) ** 2
        self.c2 = (K2 * data_range) ** 2 + self.c1

    def strips(self, maps: int) -> Iterator[tuple[slice, slice, _Strip]]:
        """Strips of rows: where each lies in values and in statistics, and the room to compute in."""
        room = [np.zeros((maps, (self.rows + self.window - 1) * self.across)) for _ in range(3)]
        for top in range(0, self.high, self.rows):
            rows = min(self.rows, self.high - top)
            start = top * self.across
            # the last row's end is left out: no window fits there, and its sums would need one entry more
            stop = start + rows * self.across - (self.window - 1)
            reach = slice(start, start + (rows + self.window - 1) * self.across)
            yield reach, slice(start, stop), _Strip(self, rows, list(room))

    def prepare(self, maps: Floats) -> tuple[Floats, ...]:
        n, places = len(maps), self.high * self.across
        values = maps.reshape(n, -1) * np.sqrt(2 * self.k / self.size)
        means, levels, spreads = np.zeros((n, places)), np.full((n, places), np.inf), np.ones((n, places))
        fits = np.arange(places) % self.across < self.wide

        def measure(i: int) -> None:
            for reach, at, strip in self.strips(1):
                x = values[i, reach]
                means[i, at] = strip.sums(x, 1.0)[0] / self.window
                strip.compare(x, x, means[i, at], means[i, at])
                levels[i, at] = np.where(fits[at], strip.luminance[0] / 2, np.inf)
                spreads[i, at] = np.where(fits[at], strip.contrast[0] / 2, 1)

        each(measure, range(n))
        return values, means, levels, spreads

    def compare(self, rows: Ready, columns: Ready) -> Floats:
        return tiled(rows, columns, max(1, TILE // (self.rows * self.across)), self.tile) / (self.high * self.wide)

    def tile(self, rows: Ready, columns: Ready, count: int, at: slice) -> Floats:
        values, means, levels, spreads = rows.parts
        total = np.zeros((count, at.stop - at.start))
        for reach, here, strip in self.strips(at.stop - at.start):
            y, mean, level, spread = (
                part[at, cut] for part, cut in zip(columns.parts, (reach, *3 * [here]), strict=True)
            )
            contrast, luminance, free = strip.contrast, strip.luminance, strip.free
            for i in range(count):
                strip.compare(values[i, reach], y, means[i, here], mean)
                np.multiply(contrast, luminance, out=contrast)
                np.add(levels[i, here], level, out=luminance)
                np.add(spreads[i, here], spread, out=free)
                np.multiply(luminance, free, out=luminance)
                np.divide(contrast, luminance, out=contrast)
                total[i] += np.add.reduce(contrast, axis=1)
        return total


class _Strip:
    """Some rows of maps, and the room to compare them in: `contrast` and `luminance` after `compare`, and `free`."""

    def __init__(self, windows: _Windows, rows: int, room: list[Floats]) -> None:
        across, window = windows.across, windows.window
        self.c1, self.c2 = windows.c1, windows.c2
        self.product = room[0][..., : (rows + window - 1) * across]
        self.steps = _doubling(window, across, rows * across, room)
        self.steps += _doubling(window, 1, rows * across - (window - 1), room)
        self.contrast, self.luminance, self.free = (array[..., : rows * across - (window - 1)] for array in room)

    def sums(self, x: Floats, y: Floats | float) -> Floats:
        """Window sums of products."""
        np.multiply(x, y, out=self.product)
        for left, right, out in self.steps:
            np.add(left, right, out=out)
        return self.contrast

    def compare(self, x: Floats, y: Floats, mean: Floats, other: Floats) -> None:
        sums = self.sums(x, y)
        np.multiply(mean, other, out=self.luminance)
        np.add(self.luminance, self.c1, out=self.luminance)
        np.subtract(sums, self.luminance, out=sums)
        np.add(sums, self.c2, out=sums)


def _windows(maps: Maps, *, window: int, data_range: float, scale: str) -> Ready:
    planes, reasons = take(maps, plane=True)
    if window > min(planes.shape[1:]):
        why = f"the map, {planes.shape[2]} x {planes.shape[1]}, is smaller than the window of {window}"
        return Ready((), [reason or why for reason in reasons])
    shrink(planes, reasons, scale)
    return Ready(_Windows(planes.shape[1:], window, data_range).prepare(planes), reasons)


@SIMILARITIES(
    "ssim",
    version=1,
    formula="structural similarity, uniform {window} x {window} window, K1 .01, K2 .03, sample covariance, data range "
    "{data_range}, mean over all whole windows, of channel means divided by {scale}",
    direction="higher",
    range=(-1.0, 1.0),
    source="SAM; methods 3; science C-1",
    floor="shuffle",
    prepare=_windows,
)
def ssim(
    a: Maps,
    b: Maps,
    *,
    window: Annotated[int, Param("side of the window, pixels", min=2, scale="ratio", source="SAM code", pixels=1)] = 5,
    data_range: Annotated[
        float, Param("span of values, after scaling: 2 from -1 to 1, 1 from 0 to 1 (SAM, mp)", min=1e-6)
    ] = 2.0,
    scale: Annotated[str, SCALE] = "max",
) -> Floats:
    """Structural similarity of two maps: local means, variances and covariances (Wang et al. 2004).

    Its zero means nothing: independent maps of heavy tails, scaled by their maxima, score up to .9 (science C-1). Maps
    with channels are averaged over them first. NaN where a map is zero, if scaled, or smaller than the window.
    """

    def compare(rows: Ready, columns: Ready) -> Floats:
        if not rows.parts:
            return np.full((len(rows.reasons), len(columns.reasons)), np.nan)
        down, across = a.shape[-2:]
        return _Windows((down, across), window, data_range).compare(rows, columns)

    return every_pair(a, b, partial(_windows, window=window, data_range=data_range, scale=scale), compare, copies=4)


def _gradients(maps: Maps, *, cell: int, orientations: int, scale: str) -> Ready:
    from skimage.feature import hog as histograms

    planes, reasons = take(maps, plane=True)
    short = min(planes.shape[1:])
    side = cell or (16 if short >= 48 else max(2, short // 14))
    if 3 * side > short:
        why = f"the map, {planes.shape[2]} x {planes.shape[1]}, is smaller than 3 cells of {side} pixels"
        return Ready((np.zeros((len(maps), 1)), np.zeros(len(maps))), [reason or why for reason in reasons])
    shrink(planes, reasons, scale)
    blocks = [length // side - 2 for length in planes.shape[1:]]
    out = np.zeros((len(planes), blocks[0] * blocks[1] * 9 * orientations))

    def describe(i: int) -> None:
        out[i] = histograms(
            planes[i], orientations, pixels_per_cell=(side, side), cells_per_block=(3, 3), block_norm="L2-Hys"
        )
        if out[i].max() == out[i].min():
            reasons[i] = reasons[i] or "the map has no gradients to make histograms of"
        out[i] -= out[i].mean()

    each(describe, range(len(planes)))
    return Ready((out, np.einsum("ij,ij->i", out, out)), reasons)


@SIMILARITIES(
    "hog",
    version=1,
    formula="Pearson correlation of histograms of oriented gradients, {orientations} orientations, cells of {cell} px "
    "(0: 16, or a 14th of the short side and at least 2 where that is below 48), 3 x 3 cells a block, L2-Hys, of "
    "channel means divided by {scale}",
    direction="higher",
    range=(-1.0, 1.0),
    source="SAM; methods 3",
    floor="phase",
    prepare=_gradients,
)
def hog(
    a: Maps,
    b: Maps,
    *,
    cell: Annotated[
        int,
        Param(
            "side of a cell, pixels (0: 16, or side // 14 and at least 2 on maps below 48)",
            min=0,
            source="SAM code",
            pixels=1,
        ),
    ] = 0,
    orientations: Annotated[int, Param("directions that are told apart", min=1, source="SAM code")] = 9,
    scale: Annotated[str, SCALE] = "max",
) -> Floats:
    """Correlation of two maps' histograms of oriented gradients (Dalal & Triggs 2005).

    Maps with channels are averaged over them first. NaN where a map is flat or has fewer than 3 cells a side.
    """
    return every_pair(a, b, partial(_gradients, cell=cell, orientations=orientations, scale=scale), correlations)

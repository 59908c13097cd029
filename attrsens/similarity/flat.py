"""Similarities that know no places: every entry of one map against the same entry of the other."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from attrsens.similarity._pairs import (
    CHUNK,
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


def _ranks(maps: Maps, **_: Any) -> Ready:
    """Twice the average ranks less their mean, which are integers, so that products of ranks are exact."""
    values, reasons = take(maps)
    n, count = len(values), values[0].size if len(values) else 0
    flat, ranks = values.reshape(n, count), np.empty((n, count))

    def rank(i: int) -> None:
        row = flat[i].astype(np.float32) if maps.dtype == np.float32 else flat[i]  # sorts faster
        order = np.argsort(row)
        row = row[order]
        starts = np.concatenate([[0], np.flatnonzero(row[1:] != row[:-1]) + 1, [count]])
        ranks[i, order] = np.repeat(starts[:-1] + starts[1:] - count, np.diff(starts))
        if len(starts) == 2:
            reasons[i] = reasons[i] or "the map is constant"

    each(rank, range(n))
    return Ready((ranks, np.einsum("ij,ij->i", ranks, ranks)), reasons)


@SIMILARITIES(
    "spearman",
    version=1,
    formula="Pearson correlation of the ranks of all entries, ties at their mean rank",
    direction="higher",
    range=(-1.0, 1.0),
    source="SAM; methods 3",
    floor="phase",
    prepare=_ranks,
)
def spearman(a: Maps, b: Maps) -> Floats:
    """Rank correlation of two maps.

    All entries count, channels apart where there are channels. NaN where a map is constant. Methods 3.
    """
    return every_pair(a, b, _ranks, correlations)


def _centred(maps: Maps, **_: Any) -> Ready:
    values, reasons = take(maps)
    for i, m in enumerate(values):
        if m.max() == m.min():
            reasons[i] = reasons[i] or "the map is constant"
            m[...] = 0
        else:
            m /= np.abs(m).max()
            m -= m.mean()
    flat = values.reshape(len(values), -1)
    return Ready((flat, np.einsum("ij,ij->i", flat, flat)), reasons)


@SIMILARITIES(
    "pearson",
    version=1,
    formula="Pearson correlation of all entries",
    direction="higher",
    range=(-1.0, 1.0),
    source="methods 3",
    floor="phase",
    prepare=_centred,
)
def pearson(a: Maps, b: Maps) -> Floats:
    """Linear correlation of two maps.

    All entries count, channels apart where there are channels. NaN where a map is constant.
    """
    return every_pair(a, b, _centred, correlations)


def _unit(maps: Maps, **_: Any) -> Ready:
    values, reasons = take(maps)
    shrink(values, reasons, "max")
    flat = values.reshape(len(values), -1)
    return Ready((flat, np.einsum("ij,ij->i", flat, flat)), reasons)


@SIMILARITIES(
    "cosine",
    version=1,
    formula="sum h1 h2 / (||h1|| ||h2||) over all entries",
    direction="higher",
    range=(-1.0, 1.0),
    source="methods 3; science 2",
    floor="phase",
    prepare=_unit,
)
def cosine(a: Maps, b: Maps) -> Floats:
    """Cosine of the angle between two maps: a similarity, 1 for equal directions.

    SMO reports a distance instead, 1 - cosine of |h| summed over channels, in [0, 1] since nothing is negative there.
    Here the maps keep their signs, and 1 - cosine lies in [0, 2]. All entries count. NaN where a map is zero.
    """
    return every_pair(a, b, _unit, correlations)


def _scaled(maps: Maps, *, scale: str, **_: Any) -> Ready:
    values, reasons = take(maps)
    shrink(values, reasons, scale)
    return Ready((values.reshape(len(values), -1),), reasons)


def _distances(rows: Ready, columns: Ready, *, square: bool) -> Floats:
    """Sums of |h1 - h2|, or of its square."""
    size = np.square if square else np.abs

    def tile(rows: Ready, columns: Ready, count: int, at: slice) -> Floats:
        (x,), (y,) = rows.parts, columns.parts
        total = np.zeros((count, at.stop - at.start))
        room = np.empty((at.stop - at.start, CHUNK))
        for start in range(0, x.shape[1], CHUNK):
            part = y[at, start : start + CHUNK]
            gap = room[:, : part.shape[1]]
            for i in range(count):
                np.subtract(part, x[i, start : start + CHUNK], out=gap)
                size(gap, out=gap)
                total[i] += np.add.reduce(gap, axis=1)
        return total

    return tiled(rows, columns, 4, tile)


@SIMILARITIES(
    "l1",
    version=1,
    formula="sum of |h1 - h2| over all entries (average = {average}: over their number), maps divided by {scale}",
    direction="lower",
    range=(0.0, None),
    source="SAM; methods 1.9, 3",
    floor="shuffle",
    prepare=_scaled,
)
def l1(
    a: Maps,
    b: Maps,
    *,
    scale: Annotated[str, SCALE] = "max",
    average: Annotated[bool, Param("the mean over the entries, instead of their sum")] = False,
) -> Floats:
    """Sum of the absolute differences of two maps.

    All entries count, channels apart where there are channels. NaN where a map that is to be scaled is zero.
    """
    total = every_pair(a, b, partial(_scaled, scale=scale), partial(_distances, square=False))
    return total / max(1, int(np.prod(a.shape[1:]))) if average else total


@SIMILARITIES(
    "l2",
    version=1,
    formula="root of the sum of (h1 - h2)^2 over all entries, maps divided by {scale}",
    direction="lower",
    range=(0.0, None),
    source="HSE; methods 1.9, 3",
    floor="shuffle",
    prepare=_scaled,
)
def l2(a: Maps, b: Maps, *, scale: Annotated[str, SCALE] = "unit") -> Floats:
    """Euclidean distance of two maps.

    At unit norm it lies in [0, 2], and its square is 2 - 2 cosine. NaN where a map that is to be scaled is zero.
    """
    return np.sqrt(every_pair(a, b, partial(_scaled, scale=scale), partial(_distances, square=True)))

"""All pairs of two sets of maps: blocks that bound the memory, tiles that stay in the cache, threads.

A pair's number does not depend on the maps that are compared beside it, save for the last bits of matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrsens.errors import AttrsensError
from attrsens.spec import Param

Floats = NDArray[np.float64]
Reasons = list[str | None]

BLOCK = 1 << 28  # bytes of one block of prepared maps
CHUNK = 4096  # entries of a map that are looked at together

SCALE = Param(
    "what divides a map first: max (its largest magnitude), p99.9 (their 99.9th percentile, then clipped to [-1, 1]), "
    "unit (its L2 norm), none",
    choices=("max", "p99.9", "unit", "none"),
    source="SAM code; HSE; science C-1",
)


@dataclass(frozen=True)
class Ready:
    """Maps made ready to be compared.

    Attributes:
        parts: what the comparison needs; the first axis of each counts the maps.
        reasons: why a map cannot be compared, None where it can.
    """

    parts: tuple[NDArray[Any], ...]
    reasons: Reasons


Compare = Callable[[Ready, Ready], Floats]


def every_pair(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    prepare: Callable[[NDArray[np.floating]], Ready],
    compare: Compare,
    copies: int = 1,
) -> Floats:
    """The matrix of all pairs, NaN in the row or column of a map that cannot be compared.

    Args:
        compare: gives a block's matrix; handed the same object twice, a symmetric one.
        copies: float64 numbers that `prepare` keeps for each entry of a map.
    """
    if a.shape[1:] != b.shape[1:] or a.ndim not in (3, 4):
        raise AttrsensError(f"maps of shapes {a.shape[1:]} and {b.shape[1:]} cannot be compared")
    size = max(1, BLOCK // max(1, 8 * copies * int(np.prod(a.shape[1:]))))
    matrix = np.full((len(a), len(b)), np.nan)
    for i in range(0, len(a), size):
        rows = prepare(a[i : i + size])
        for j in range(i if a is b else 0, len(b), size):
            columns = rows if a is b and i == j else prepare(b[j : j + size])
            found = compare(rows, columns)
            found[[reason is not None for reason in rows.reasons]] = np.nan
            found[:, [reason is not None for reason in columns.reasons]] = np.nan
            matrix[i : i + size, j : j + size] = found
            if a is b:
                matrix[j : j + size, i : i + size] = found.T
    return matrix


def each(task: Callable[[int], None], items: Iterable[int]) -> None:
    """Run a task on every item, on as many threads as torch has; NumPy lets go of the lock in its loops."""
    import torch

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for _ in pool.map(task, items):
            pass


def tiled(rows: Ready, columns: Ready, width: int, tile: Callable[[Ready, Ready, int, slice], Floats]) -> Floats:
    """A matrix by tiles of `width` columns, each a task for a thread, half of them if both are the same object.

    Args:
        tile: of rows, columns, a number of rows, a slice of columns, the matrix of the first so many rows with these
            columns. It must not matter to a number which of its two maps is the row.
    """
    n, m = len(rows.reasons), len(columns.reasons)
    if n > m:
        return tiled(columns, rows, width, tile).T.copy()
    matrix = np.empty((n, m))

    def fill(start: int) -> None:
        stop = min(m, start + width)
        count = stop if rows is columns else n
        matrix[:count, start:stop] = tile(rows, columns, count, slice(start, stop))

    each(fill, reversed(range(0, m, width)))  # the longest first
    return mirrored(matrix) if rows is columns else matrix


def products(a: NDArray[Any], b: NDArray[Any], dtype: type = np.float64) -> Floats:
    """The inner products of all rows of `a` with all rows of `b`; symmetric if they are one object."""
    import torch

    total = np.zeros((len(a), len(b)))
    for i in range(0, a.shape[1], CHUNK):
        # copies of torch's own lie alike in memory each time, on which the last bits of a product may depend
        left = torch.tensor(a[:, i : i + CHUNK].astype(dtype))
        right = left if a is b else torch.tensor(b[:, i : i + CHUNK].astype(dtype))
        total += (left @ right.T).numpy()
    return mirrored(total) if a is b else total


def mirrored(matrix: Floats) -> Floats:
    """The upper triangle, and the lower one equal to it."""
    upper = np.triu(matrix)
    return upper + np.triu(upper, 1).T


def correlations(rows: Ready, columns: Ready) -> Floats:
    """Inner products over the norms, of parts (values, squared norm)."""
    (x, x2), (y, y2) = rows.parts, columns.parts
    norms = np.sqrt(x2[:, None] * y2[None])
    norms[norms == 0] = 1
    matrix: Floats = np.clip(products(x, y) / norms, -1, 1)
    return matrix


def take(maps: NDArray[np.floating], plane: bool = False) -> tuple[Floats, Reasons]:
    """A float64 copy, with zeros for maps that are not finite; with `plane` the mean of the channels."""
    reasons: Reasons = [None if np.isfinite(m).all() else "the map is not finite" for m in maps]
    out = maps.astype(np.float64)
    out[[reason is not None for reason in reasons]] = 0
    return (out.mean(1) if plane and out.ndim == 4 else out), reasons


def shrink(maps: Floats, reasons: Reasons, scale: str) -> None:
    """Divide each map, in place, by what `scale` names."""
    for i, m in enumerate(maps):
        if scale == "none" or reasons[i]:
            continue
        peak = np.abs(m).max()
        if peak == 0:
            reasons[i] = "the map is zero everywhere"
            continue
        m /= peak
        if scale == "p99.9":
            size = np.percentile(np.abs(m), 99.9)
            if size == 0:
                reasons[i] = "more than 99.9 % of the map is zero, which leaves nothing to scale by"
                continue
            np.clip(m / size, -1, 1, out=m)
        elif scale == "unit":
            m /= np.sqrt(np.square(m).sum())

"""Similarities of where maps point: the pixels on top, their signs, the centre of mass."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from attrsens.similarity._pairs import Floats, Ready, each, every_pair, products, take
from attrsens.spec import SIMILARITIES, Param

Maps = NDArray[np.floating]

K = Param(
    "entries of largest magnitude that count (0: 1,000 of 224 x 224, as many in proportion of other sizes)",
    min=0,
    scale="ratio",
    source="Ghorbani et al. 2019; methods 3",
    pixels=2,
)


def _kinds(maps: Maps, *, k: int, signed: bool) -> Ready:
    """Parts: the kind of each entry above the k-th magnitude, 0 elsewhere; of each entry that ties with it, unless all
    of those belong to the top; the share of them that does; k. Kinds are 1, or with `signed` 1 positive, 2 negative, 3
    zero."""
    values, reasons = take(maps)
    if signed:
        flat = values.reshape(len(values), -1)
    else:
        magnitudes = np.abs(values)
        flat = (magnitudes.sum(1) if values.ndim == 4 else magnitudes).reshape(len(values), -1)
    n, count = flat.shape
    k = k or max(1, round(1000 * count / 224**2))
    if k > count:
        none = np.zeros((n, 1), np.int8)
        why = f"k = {k}, and the map has {count} {'entries' if signed else 'pixels'}"
        return Ready((none, none, np.zeros(n), np.ones(n)), [reason or why for reason in reasons])
    top, ties, share = np.zeros((n, count), np.int8), np.zeros((n, count), np.int8), np.zeros(n)

    def sort(i: int) -> None:
        size = np.abs(flat[i])
        least = np.partition(size, count - k)[count - k]
        kind = np.select([flat[i] > 0, flat[i] < 0], [1, 2], 3).astype(np.int8) if signed else np.int8(1)
        above, equal = size > least, size == least
        left, tied = k - np.count_nonzero(above), np.count_nonzero(equal)
        if left == tied:
            top[i] = (above | equal) * kind
        else:
            top[i], ties[i], share[i] = above * kind, equal * kind, left / tied

    each(sort, range(n))
    for i in range(n):
        if not reasons[i] and not flat[i].any():
            reasons[i] = "the map is zero everywhere"
    return Ready((top, ties, share, np.full(n, k)), reasons)


def _overlap(rows: Ready, columns: Ready) -> Floats:
    """Sum over entries of the smaller of the two memberships in the top, over k."""
    (top, ties, share, k), (top2, ties2, share2, _) = rows.parts, columns.parts
    total = np.zeros((len(top), len(top2)))
    for kind in (1, 2, 3):
        x, u = top == kind, ties == kind
        y, v = (x, u) if rows is columns else (top2 == kind, ties2 == kind)
        for left, right, weight in (
            (x, y, 1.0),
            (x, v, share2[None]),
            (u, y, share[:, None]),
            (u, v, np.minimum(share[:, None], share2[None])),
        ):
            if left.any() and right.any():
                total += weight * products(left, right, np.float32)  # counts, exact
    shared: Floats = total / k[:, None]
    return shared


@SIMILARITIES(
    "topk_overlap",
    version=1,
    formula="share of the k = {k} pixels (0: 1000 per 224 x 224) of largest |h|, summed over channels, that two maps "
    "have in common; pixels that tie for the last places belong in part",
    direction="higher",
    range=(0.0, 1.0),
    source="Ghorbani et al. 2019; methods 3",
    floor="phase",
    prepare=partial(_kinds, signed=False),
)
def topk_overlap(a: Maps, b: Maps, *, k: Annotated[int, K] = 0) -> Floats:
    """Share of the most important pixels that two maps have in common (Ghorbani et al. 2019).

    |top_k(h1) and top_k(h2)| / k. Where t pixels tie for the last r places, as in a superpixel, each of them belongs
    with weight r / t, and a pixel counts with the smaller of its two weights. Chance is k over the number of pixels.
    NaN where a map is zero, or has fewer than k pixels.
    """
    return every_pair(a, b, partial(_kinds, k=k, signed=False), _overlap)


@SIMILARITIES(
    "sign_agreement",
    version=1,
    formula="share of the k = {k} entries (0: 1000 per 224 x 224) of largest |h| that two maps have in common with "
    "equal sign; entries that tie for the last places belong in part",
    direction="higher",
    range=(0.0, 1.0),
    source="Krishna et al. 2024; science S-6",
    floor="phase",
    prepare=partial(_kinds, signed=True),
)
def sign_agreement(a: Maps, b: Maps, *, k: Annotated[int, K] = 0) -> Floats:
    """Share of the most important entries that two maps have in common, with the same sign (Krishna et al. 2024).

    With k = the number of entries it is the share of entries of equal sign. All entries count, channels apart; ties as
    in topk_overlap. NaN where a map is zero, or has fewer than k entries.
    """
    return every_pair(a, b, partial(_kinds, k=k, signed=True), _overlap)


def _centres(maps: Maps, **_: Any) -> Ready:
    values, reasons = take(maps)
    mass = np.abs(values)
    mass = mass.sum(1) if mass.ndim == 4 else mass
    centres = np.zeros((len(mass), 2))
    for i, m in enumerate(mass):
        if not m.any():
            reasons[i] = reasons[i] or "the map is zero everywhere"
            continue
        m /= m.max()
        down, across = np.arange(m.shape[0]), np.arange(m.shape[1])
        centres[i] = m.sum(1) @ down / m.sum(), m.sum(0) @ across / m.sum()
    return Ready((centres,), reasons)


def _shifts(rows: Ready, columns: Ready) -> Floats:
    gap = rows.parts[0][:, None] - columns.parts[0][None]
    shifts: Floats = np.hypot(gap[..., 0], gap[..., 1])
    return shifts


@SIMILARITIES(
    "centre_shift",
    version=1,
    formula="distance in pixels between the centres of mass of |h|, summed over channels",
    direction="lower",
    range=(0.0, None),
    source="Ghorbani et al. 2019; methods 3",
    floor="phase",
    unit="px",
    prepare=_centres,
)
def centre_shift(a: Maps, b: Maps) -> Floats:
    """How far apart the centres of mass of two maps are, in pixels (Ghorbani et al. 2019).

    Pixels weigh |h|, summed over channels: with signs a centre may lie anywhere. NaN where a map is zero.
    """
    return every_pair(a, b, _centres, _shifts)

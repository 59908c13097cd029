"""Weakly supervised localisation: one box from the map, against the annotated boxes."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Annotated

import numpy as np

from attrsens.regions import Box, extent
from attrsens.scores._case import Case, Finding, NoValue
from attrsens.scores.localisation import ON_REGIONS, plane
from attrsens.spec import SCORES, Param

if TYPE_CHECKING:
    from numpy.typing import NDArray

PERCENTS = range(10, 51, 5)


@SCORES(
    "wsl",
    version=1,
    formula="IoU of the box ({box}) around the pixels >= {alpha} of the map's maximum with the annotated boxes ({gt})",
    source="SAM 3.3; Zhou et al. 2016; methods 4.1; science C-11",
    **ON_REGIONS,
)
def wsl(
    case: Case,
    *,
    alpha: Annotated[
        float,
        Param(
            "threshold, as a fraction of the map's maximum",
            min=0,
            max=1,
            sweep=tuple(p / 100 for p in PERCENTS),
            reference=0.2,
            scale="bounded",
            range=(0.1, 0.5),
            source="Zhou et al. 2016; science C-11",
        ),
    ] = 0.2,
    box: Annotated[
        str,
        Param(
            "exact: the pixels' extent; sam: without its first row and column, as SAM's code slices",
            choices=("exact", "sam"),
            source="methods 4.1",
        ),
    ] = "exact",
    gt: Annotated[
        str,
        Param(
            "union: of the boxes of the class, painted together; any: the best of them",
            choices=("union", "any"),
            source="methods 4.1; science C-11",
        ),
    ] = "union",
) -> Finding:
    """Weakly supervised localisation: IoU of the map's box with the object's.

    The box is the extent of all positive pixels that reach alpha times the maximum, not of their largest connected
    part; without a positive value the IoU is 0. Of masks the objects' extents are the boxes. One alpha serves every
    setting that is compared; details have the IoU at nine (`iou_10` to `iou_50`), the localisation errors (1 if IoU <=
    0.5), the largest IoU that one box can have with the boxes (`ceiling`), and that of the whole frame (`frame`), which
    a shuffled map gets. SAM thresholds a small map before enlarging it; the maps here are of the image's size already,
    so that the order does not arise, but a method that enlarges its own is thresholded after.

    Raises:
        NoValue: no annotation of this class.
    """
    a = plane(case.map)
    boxes = case.region.boxes()
    if not boxes:
        raise NoValue("the objects of this class cover too little of any pixel of the crop")

    def iou(share: float) -> float:
        found = extent((a > 0) & (a >= share * a.max()))
        if found is not None and box == "sam":
            found = (found[0] + 1, found[1] + 1, found[2], found[3])
        return overlap(found, boxes, a.shape, gt) if found else 0.0

    value = iou(alpha)
    each = {p: iou(p / 100) for p in PERCENTS}
    details = {"error": float(value <= 0.5)}
    details |= {f"iou_{p}": each[p] for p in PERCENTS} | {f"error_{p}": float(each[p] <= 0.5) for p in PERCENTS}
    details["ceiling"] = ceiling(boxes) if gt == "union" else 1.0
    details["frame"] = overlap((0, 0, *a.shape), boxes, a.shape, gt)
    return Finding(value, details=details)


def painted(boxes: tuple[Box, ...], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The union of boxes."""
    inside = np.zeros(shape, bool)
    for top, left, bottom, right in boxes:
        inside[top:bottom, left:right] = True
    return inside


def overlap(found: Box, boxes: tuple[Box, ...], shape: tuple[int, ...], gt: str) -> float:
    """IoU of a box with the union of others, or with the best of them."""
    if gt == "any":
        return max(overlap(found, (one,), shape, "union") for one in boxes)
    one, all_ = painted((found,), shape), painted(boxes, shape)
    return float((one & all_).sum() / (one | all_).sum())


@lru_cache(maxsize=256)
def ceiling(boxes: tuple[Box, ...]) -> float:
    """The largest IoU of one box with a union of boxes. As a function of one side of the box it is monotone between the
    edges of the union, so the best box has all four sides on such edges."""
    if len(boxes) == 1:
        return 1.0
    inside = painted(boxes, (max(b[2] for b in boxes), max(b[3] for b in boxes)))
    summed = np.pad(inside.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows = np.unique([(b[0], b[2]) for b in boxes])
    columns = np.unique([(b[1], b[3]) for b in boxes])
    best = 0.0
    for i, top in enumerate(rows):
        for bottom in rows[i + 1 :]:
            strip = (summed[bottom] - summed[top])[columns]
            shared = strip[None, :] - strip[:, None]
            area = (bottom - top) * (columns[None, :] - columns[:, None])
            union = inside.sum() + area - shared
            iou = np.where(area > 0, shared / union.clip(min=1), 0)
            best = max(best, float(iou.max()))
    return best

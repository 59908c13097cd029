"""How much of a map lies on the object of the explained class: box and mask measures.

All of them compare with the annotation after the image's own resize and crop, where a pixel belongs to an object that
covers half of it. Each gives in its details what a map without any knowledge of places would get (`chance`), since all
of them depend on how much of the image the object takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from attrsens.regions import extent
from attrsens.scores._case import Case, Finding, NoValue
from attrsens.spec import SCORES, Param

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

UNIT = {"direction": "higher", "range": (0.0, 1.0), "cost": "none", "judges": "map", "floor": "shuffle"}
ON_REGIONS: dict[str, Any] = {**UNIT, "regional": True}
FULL = 1 - 1e-5  # covers that are 1 but for the rounding of a resize


def plane(heatmap: Tensor) -> NDArray[np.float64]:
    """A map of one number a pixel, (H, W).

    Raises:
        NoValue: it has channels.
    """
    if heatmap.dim() != 2:
        raise NoValue("it needs one number a pixel; choose reduce=mean, sum or max")
    found: NDArray[np.float64] = heatmap.double().numpy()
    return found


def inside(case: Case, least: float = 0.5) -> NDArray[np.bool_]:
    """The pixels of the target's objects.

    Raises:
        NoValue: there is none.
    """
    found = case.region.inside(least)
    if not found.any():
        raise NoValue("the objects of this class cover too little of any pixel of the crop")
    return found


@SCORES(
    "pointing",
    version=1,
    formula="1 if the map's maximum lies in the region or at most {tolerance} px from it, else 0; share of tied maxima",
    source="Zhang et al. 2018; science 1 (missing formulas)",
    **ON_REGIONS,
)
def pointing(
    case: Case,
    *,
    tolerance: Annotated[
        int,
        Param(
            "how far from the region still counts, pixels between centres",
            min=0,
            sweep=(0, 15),
            reference=0,
            source="science 1; Zhang et al. 2018 use 15",
            pixels=1,
        ),
    ] = 0,
) -> Finding:
    """Pointing game: whether the map's largest value lies on the object.

    Of several equal maxima it is the share that does, so that no corner is favoured. Details: the chance, which is the
    share of pixels that would count, and the first maximum.

    Raises:
        NoValue: no annotation of this class.
    """
    from scipy.ndimage import distance_transform_edt

    a, region = plane(case.map), inside(case)
    hit = distance_transform_edt(~region) <= tolerance if tolerance else region
    rows, columns = np.nonzero(a == a.max())
    details = {"chance": hit.mean(), "row": rows[0], "column": columns[0], "maxima": len(rows)}
    return Finding(float(hit[rows, columns].mean()), details=details)


@SCORES(
    "loc",
    version=1,
    formula="|P and B| / |P or B|, P the pixels of positive value, B the region",
    source="Wang et al. 2022 (BND) Def. 8; Chattopadhay et al. 2018; methods 4.3; science C-10",
    **ON_REGIONS,
)
def loc(case: Case) -> Finding:
    """Loc: intersection over union of the positive pixels and the region; 0 without a positive pixel.

    Details: the share p of positive pixels, the share b of the region, and the chance of a map whose positive pixels
    lie anywhere, b p / (b + p (1 - b)).

    Raises:
        NoValue: no annotation of this class.
    """
    positive, region = plane(case.map) > 0, inside(case)
    p, b = positive.mean(), region.mean()
    value = (positive & region).sum() / (positive | region).sum()
    return Finding(float(value), details={"chance": b * p / (b + p * (1 - b)), "positive": p, "region": b})


@SCORES(
    "eg",
    version=1,
    formula="sum of the positive values in the region / sum of all positive values",
    source="Wang et al. 2020 (Score-CAM); BND Def. 9; methods 4.3",
    **ON_REGIONS,
)
def eg(case: Case) -> Finding:
    """Energy game: the share of the positive values that lies in the region.

    Details: the chance, which is the region's share of the pixels.

    Raises:
        NoValue: no annotation of this class, or no positive value.
    """
    a, region = plane(case.map).clip(min=0), inside(case)
    if not a.any():
        raise NoValue("the map has no positive value")
    return Finding(float(a[region].sum() / a.sum()), details={"chance": region.mean()})


@SCORES(
    "pp",
    version=1,
    formula="sum of the positive values in the region / sum of magnitudes in the region",
    source="BND Def. 10; methods 4.3; science C-10",
    **ON_REGIONS,
)
def pp(case: Case) -> Finding:
    """Positive percentage: how much of the magnitude in the region is positive.

    A method whose values add up to a positive number, such as big, is near 1 everywhere. So details have the same
    share outside the region, and everywhere: the chance of a map that has its values in any order.

    Raises:
        NoValue: no annotation of this class, or the map is zero in the region.
    """
    a, region = plane(case.map), inside(case)
    value = _positive_share(a[region])
    if value is None:
        raise NoValue("the map is zero in the region")
    return Finding(value, details={"outside": _positive_share(a[~region]), "chance": _positive_share(a)})


def _positive_share(values: NDArray[np.float64]) -> float | None:
    total = np.abs(values).sum()
    return float(values.clip(min=0).sum() / total) if total > 0 else None


@SCORES(
    "con",
    version=1,
    formula="sum over the region of w / distance, w the magnitude normalised to sum 1 there, distance to the centre of "
    "mass of w in units of the region's sides (x / width, y / height), at least half a pixel of the longer side",
    source="BND Def. 11 and Eq. 22, symbols lost; methods 4.3; not comparable with its tables",
    **{**ON_REGIONS, "range": (0.0, None)},
)
def con(case: Case) -> Finding:
    """Concentration: how close to their centre of mass the magnitudes in the region lie.

    The published equation is lost; this reading gives numbers of its size, but not its numbers. Details: the chance,
    which equal magnitudes give (4 ln(1 + sqrt 2) = 3.53 in a whole box of many pixels).

    Raises:
        NoValue: no annotation of this class, or the map is zero in the region.
    """
    a, region = np.abs(plane(case.map)), inside(case)
    if not a[region].any():
        raise NoValue("the map is zero in the region")
    chance = _concentration(np.ones_like(a), region)
    return Finding(_concentration(a, region), details={"chance": chance})


def _concentration(a: NDArray[np.float64], region: NDArray[np.bool_]) -> float:
    top, left, bottom, right = extent(region) or (0, 0, 1, 1)
    height, width = bottom - top, right - left
    rows, columns = np.nonzero(region)
    w = a[region] / a[region].sum()
    y, x = rows / height, columns / width
    distance = np.hypot(y - (w * y).sum(), x - (w * x).sum())
    return float((w / distance.clip(min=0.5 / max(height, width))).sum())


@SCORES(
    "class_top20",
    version=1,
    formula="share of the {k} largest signed entries of the (C, H, W) map whose pixel lies wholly in the region",
    source="SMO 4.2; methods 4.4",
    sign="signed",
    reduce="none",
    **ON_REGIONS,
)
def class_top20(
    case: Case,
    *,
    k: Annotated[
        int, Param("largest entries", min=1, sweep=(20, 100, 1000), reference=20, scale="ratio", source="SMO")
    ] = 20,
) -> Finding:
    """Class sensitivity: how many of the map's largest entries lie on the object of the explained class.

    Entries, not pixels: the three channels of a pixel count apart, as long as the method keeps them. Of equal entries
    the first ones count. For the published measure explain both annotated classes of an image. Details: the chance,
    which is the share of pixels wholly in the region.

    Raises:
        NoValue: no annotation of this class, or fewer entries than k.
    """
    a, region = case.map, inside(case, FULL)
    if a.numel() < k:
        raise NoValue(f"the map has {a.numel()} entries, fewer than k={k}")
    places = a.flatten().sort(descending=True, stable=True).indices[:k].numpy() % region.size
    return Finding(float(region.flat[places].mean()), details={"chance": region.mean()})

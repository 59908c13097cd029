"""How few pixels carry a map."""

from __future__ import annotations

from typing import Annotated

from attrsens.scores._case import Case, NoValue
from attrsens.spec import SCORES, Param


@SCORES(
    "gini",
    version=1,
    formula="sum_i (2i - n - 1) a_i / (n sum a), a the magnitudes in rising order plus {offset}",
    direction="higher",
    range=(0.0, 1.0),
    source="Chalasani et al. 2020; SMO; methods 4.5",
    cost="none",
    judges="map",
    floor="phase",
    reduce="none",
)
def gini(
    case: Case,
    *,
    offset: Annotated[
        float, Param("added to every magnitude; SMO adds 1e-7, which small maps feel", min=0, source="methods 4.5")
    ] = 0.0,
) -> float:
    """Gini index of the map's magnitudes: 0 if all are equal, near 1 if one entry holds them all.

    With offset=0 it does not depend on the map's scale; the published 1e-7 is absolute.

    Raises:
        NoValue: the map is zero.
    """
    import torch

    magnitudes = case.map.flatten().double().abs()
    if not bool(magnitudes.any()):
        raise NoValue("the map is zero everywhere")
    a = (magnitudes + offset).sort().values
    n = len(a)
    weights = 2 * torch.arange(1, n + 1, dtype=torch.float64) - n - 1
    return float((weights * a).sum() / (n * a.sum()))

"""How much a hyperparameter varies scores: the two aggregations of SAM (Bansal et al. 2020, 4.5 and 4.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from attrsens.engine.inference.intervals import Floats

NOTE = (
    "a seed's marginal standard deviation is a standard error: it falls as 1 / sqrt(n) with n images, a knob's does not"
)
Table = Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class Within:
    """SAM 4.5, of one classifier: variation of an image's score over variants, then over images.

    Attributes:
        mean: over images of the mean over variants.
        mean_std: mean over images of the standard deviation over variants (the paper).
        rms_std: root of the mean over images of the variance (the published code).
        n, missing: images, and those without a value in every variant, which are left out.
        std: of each image, shape (n,), for intervals.
    """

    mean: float | None
    mean_std: float | None
    rms_std: float | None
    n: int
    missing: int
    std: Floats


def within_image(scores: Table) -> Within:
    """Of scores[image][variant], (images, variants), the reference among the variants; standard deviations divide by
    the number of variants, as published.

    Raises:
        ValueError: rows of different lengths, or an infinite score.
    """
    table, missing = _complete(scores)
    if not table.size:
        return Within(None, None, None, 0, missing, np.empty(0))
    std = table.std(1)
    return Within(float(table.mean()), float(std.mean()), float(np.sqrt((std**2).mean())), len(table), missing, std)


@dataclass(frozen=True)
class Marginal:
    """SAM 4.6: variation of the data set's mean score over variants.

    Attributes:
        std: mean over classifiers of their standard deviations; None if one of them has no images.
        by_classifier: standard deviation over variants of the mean over images.
        n, missing: images of each classifier, and those without a value in every variant, which are left out.
        note: how the number depends on n.
    """

    std: float | None
    by_classifier: dict[str, float | None]
    n: dict[str, int]
    missing: dict[str, int]
    note: str = NOTE


def marginal(scores: Mapping[str, Table]) -> Marginal:
    """Of scores[classifier][image][variant]; standard deviations divide by the number of variants, as published.

    Raises:
        ValueError: as within_image.
    """
    tables = {name: _complete(table) for name, table in scores.items()}
    stds = {name: float(table.mean(0).std()) if table.size else None for name, (table, _) in tables.items()}
    known = [std for std in stds.values() if std is not None]
    return Marginal(
        sum(known) / len(known) if known and len(known) == len(stds) else None,
        stds,
        {name: len(table) for name, (table, _) in tables.items()},
        {name: missing for name, (_, missing) in tables.items()},
    )


def _complete(scores: Table) -> tuple[Floats, int]:
    """Images with a value in every variant, and how many have not."""
    if len({len(row) for row in scores}) > 1:
        raise ValueError("every image wants one score for every variant")
    data = np.asarray([[np.nan if v is None else v for v in row] for row in scores], np.float64)
    if np.isinf(data).any():
        raise ValueError("an infinite score cannot be averaged")
    known = ~np.isnan(data).any(1) if data.size else np.zeros(len(data), bool)
    return data[known], int((~known).sum())

"""Rows about many images: the correlation of alignment with localisation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_api import picture
from toys import small

import attrsens
from attrsens.engine.report import Record, ScoreInfo
from attrsens.engine.stats import aggregates


@pytest.fixture(scope="module")
def record() -> Record:
    return attrsens.score(picture(), model=small(), metrics=["gini"], calibrate=False, cache=False).records[0]


def with_scores(record: Record, i: int, **values: float | None) -> Record:
    reason = "the search found no boundary"
    scores = {
        name: replace(record.scores["gini"], value=value, reason=None if value is not None else reason)
        for name, value in values.items()
    }
    assert all(isinstance(score, ScoreInfo) for score in scores.values())
    return replace(record, scores=scores, image=replace(record.image, sha256=f"{i:064}"))


def test_alignment_is_correlated_with_localisation_by_its_negative(record: Record) -> None:
    distances, places = [0.1, 0.4, 0.2, 0.9], [0.7, 0.5, 0.8, 0.1]
    records = [
        with_scores(record, i, alignment=d, eg=p, gini=0.5)
        for i, (d, p) in enumerate(zip(distances, places, strict=True))
    ]
    (row,) = (a for a in aggregates(records) if a.quantity.startswith("correlation"))
    assert row.quantity == "correlation(-alignment, eg)"
    assert row.mean == pytest.approx(-np.corrcoef(distances, places)[0, 1])
    assert row.mean > 0.9, "near the boundary's map and on the object"
    assert (row.n, row.missing, row.reasons) == (4, 0, {})


def test_images_without_a_boundary_are_counted(record: Record) -> None:
    pairs = [(0.1, 0.7), (None, 0.5), (0.2, 0.8), (0.9, 0.1), (0.3, None)]
    records = [with_scores(record, i, alignment=d, loc=p) for i, (d, p) in enumerate(pairs)]
    (row,) = (a for a in aggregates(records) if a.quantity.startswith("correlation"))
    assert (row.n, row.missing) == (3, 2)
    assert row.reasons == {"the search found no boundary": 2}
    assert row.mean is not None
    (row,) = (a for a in aggregates(records[:3]) if a.quantity.startswith("correlation"))
    assert (row.mean, row.n, row.missing) == (None, 2, 1)
    assert row.reasons["fewer than three images"] == 1

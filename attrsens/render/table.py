"""Records as a flat table: one row each, in CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

from attrsens.engine.report import Record

COLUMNS = (
    "key image sha256 model model_id target label probability rank true method expression min max mean "
    "forward backward png npy"
).split()


def row(record: Record) -> dict[str, Any]:
    """The flat view of a record; a missing value is empty."""
    r = record
    values = (
        r.key, r.image.path, r.image.sha256, r.model.name, r.model.id, r.target.index, r.target.label,
        r.target.probability, r.target.rank, r.target.true, r.method.title, r.method.expression, r.heatmap.min,
        r.heatmap.max, r.heatmap.mean, r.passes.forward, r.passes.backward, r.heatmap.png, r.heatmap.npy,
    )  # fmt: skip
    return {name: "" if value is None else value for name, value in zip(COLUMNS, values, strict=True)}


def to_csv(records: list[Record]) -> bytes:
    """The table with a header line, UTF-8."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row(r) for r in records)
    return out.getvalue().encode()

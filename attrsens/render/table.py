"""Records as a flat table: one row each, in CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from attrsens.engine.report import Record

COLUMNS = (
    "key image sha256 model model_id target label probability rank true method expression min max mean "
    "forward backward png npy attack"
).split()


def row(record: Record) -> dict[str, Any]:
    """The flat view of a record; a missing value is empty."""
    r = record
    values = (
        r.key, r.image.path, r.image.sha256, r.model.name, r.model.id, r.target.index, r.target.label,
        r.target.probability, r.target.rank, r.target.true, r.method.title, r.method.expression, r.heatmap.min,
        r.heatmap.max, r.heatmap.mean, r.passes.forward, r.passes.backward, r.heatmap.png, r.heatmap.npy,
        r.attack.expression if r.attack else None,
    )  # fmt: skip
    return {name: "" if value is None else value for name, value in zip(COLUMNS, values, strict=True)}


def to_csv(records: list[Record]) -> bytes:
    """The table with a header line, UTF-8."""
    return _encoded(COLUMNS, map(row, records))


SCORE_COLUMNS = (
    "key image sha256 model model_id target label method expression metric to value floor ceiling rescaled direction "
    "reason forward backward definition attack"
).split()


def scores_csv(records: list[Record]) -> bytes:
    """A row for every score and similarity of every record, with a header line, UTF-8; a missing value is empty."""
    return _encoded(SCORE_COLUMNS, (line for record in records for line in _score_rows(record)))


def _score_rows(record: Record) -> Iterator[dict[str, Any]]:
    whose = row(record)
    shared = {name: whose[name] for name in SCORE_COLUMNS if name in whose}
    both: list[tuple[str, str, Any]] = [(name, "", score) for name, score in record.scores.items()]
    both += [(similarity.name, similarity.to, similarity) for similarity in record.similarities]
    for name, to, found in both:
        passes = getattr(found, "passes", None)
        values = {
            "key": getattr(found, "key", record.key),
            "metric": name,
            "to": to,
            "forward": passes.forward if passes else 0,
            "backward": passes.backward if passes else 0,
        }
        for column in ("value", "floor", "ceiling", "rescaled", "direction", "reason", "definition"):
            value = getattr(found, column)
            values[column] = "" if value is None else value
        yield shared | values


def _encoded(columns: list[str], rows: Iterable[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()

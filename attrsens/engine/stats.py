"""From numbers of single images to rows about all of them: the image is the unit (science 3)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from attrsens.engine.report import Aggregate, Record

FEWEST = 6  # images for an interval
RESAMPLES = 9999
LOCALISATION = ("loc", "eg", "pp", "con", "pointing")


def aggregates(records: Sequence[Record]) -> list[Aggregate]:
    """A row for every score and pair of maps, of each model and method: over images, targets averaged first;
    then the correlation of alignment with localisation, where both are there."""
    rows: dict[tuple[str, ...], tuple[dict[str, Any], dict[str, list[float | None]], list[str]]] = {}
    by_key = {record.key: record for record in records}
    for record in records:
        for quantity, group, value, reason in _values(record, by_key):
            place = (quantity, *(repr(v) for v in group.values()))
            _, images, reasons = rows.setdefault(place, (group, {}, []))
            images.setdefault(record.image.sha256, []).append(value)
            if value is None:
                reasons.append(reason or "no value")
    out = []
    for (quantity, *_), (group, images, reasons) in rows.items():
        known = [[v for v in values if v is not None] for values in images.values()]
        means = [sum(values) / len(values) for values in known if values]
        out.append(summary(quantity, group, means, len(known) - len(means), reasons))
    return out + correlations(records)


def summary(
    quantity: str, group: dict[str, Any], values: Sequence[float], missing: int = 0, reasons: Iterable[str] = ()
) -> Aggregate:
    """Mean, sd (n - 1) and 95 % interval of numbers of independent images.

    The interval is the BCa bootstrap's (9,999 resamples, drawn by a fixed seed); None for fewer than six images or
    where all are equal.
    """
    data = np.asarray(values, np.float64)
    n = len(data)
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    mean = float(data.mean()) if n else None
    sd = float(data.std(ddof=1)) if n > 1 else None
    return Aggregate(quantity, group, mean, sd, interval(data), n, missing, counts)


def interval(data: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float] | None:
    """The 95 % BCa bootstrap interval of a mean; None for fewer than six numbers or equal ones."""
    from scipy.stats import bootstrap

    if len(data) < FEWEST or float(np.ptp(data)) == 0:
        return None
    found = bootstrap(
        (data,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=np.random.default_rng(0), batch=1000
    ).confidence_interval
    low, high = float(found.low), float(found.high)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def correlations(records: Sequence[Record]) -> list[Aggregate]:
    """Pearson correlation over images of the negative distance to the boundary's map with every localisation score
    (BND; methods 4.11): one row for each model, method and pair of scores; n images, no interval."""
    groups: dict[tuple[str, ...], tuple[dict[str, Any], list[tuple[float, float]], list[str]]] = {}
    for record in records:
        for name, score in record.scores.items():
            if name.partition(":")[0] != "alignment":
                continue
            for other, place in record.scores.items():
                if other.partition(":")[0] not in LOCALISATION:
                    continue
                quantity, group = f"correlation(-{name}, {other})", _group(record)
                key = (quantity, *(repr(v) for v in group.values()))
                _, pairs, reasons = groups.setdefault(key, (group, [], []))
                if score.value is None or place.value is None:
                    reasons.append((score if score.value is None else place).reason or "no value")
                else:
                    pairs.append((-score.value, place.value))
    out = []
    for (quantity, *_), (group, pairs, reasons) in groups.items():
        a, b = np.asarray(pairs, np.float64).reshape(-1, 2).T
        value, counts = None, {reason: reasons.count(reason) for reason in reasons}
        if len(pairs) < 3:
            counts["fewer than three images"] = 1
        elif np.ptp(a) == 0 or np.ptp(b) == 0:
            counts["one of them is the same on every image"] = 1
        else:
            value = float(np.corrcoef(a, b)[0, 1])
        out.append(Aggregate(quantity, group, value, None, None, len(pairs), len(reasons), counts))
    return out


def _values(
    record: Record, by_key: dict[str, Record]
) -> Iterator[tuple[str, dict[str, Any], float | None, str | None]]:
    for name, score in record.scores.items():
        yield name, _group(record), score.value, score.reason
        if score.rescaled is not None:
            yield f"{name} (rescaled)", _group(record), score.rescaled, None
    for similarity in record.similarities:
        group = _group(record)
        if similarity.to in by_key:
            group["to"] = by_key[similarity.to].method.expression
        yield similarity.name, group, similarity.value, similarity.reason


def _group(record: Record) -> dict[str, Any]:
    """What numbers must have in common to stand in one row."""
    return {
        "model": record.model.name,
        "method": record.method.title,
        "noise": record.input.noise,
        "parameters": {**record.method.parameters},
        "expression": record.method.expression,
    }

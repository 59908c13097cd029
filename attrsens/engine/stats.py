"""From numbers of single images to rows about all of them: the image is the unit (science 3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attrsens.engine.inference import FEWEST, Interval, holm, mean_interval, paired
from attrsens.engine.inference.intervals import Kind
from attrsens.engine.report import Aggregate, Comparison, Record

__all__ = ["FEWEST", "Sample", "aggregates", "comparisons", "correlations", "interval", "samples", "summary"]

LOCALISATION = ("loc", "eg", "pp", "con", "pointing")
HITS = ("pointing", "prediction_kept", "label_flip")  # 0 or 1 by definition, so that ones alone have an interval, too


@dataclass
class Sample:
    """A quantity of one group: `values` by image, targets averaged; None where there is none, with the first reason in
    `reasons`. `lost`: the reason of every single value that is missing."""

    quantity: str
    group: dict[str, Any]
    values: dict[str, float | None]
    reasons: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


def samples(records: Sequence[Record]) -> list[Sample]:
    """Every score and similarity of each model, method and input, by image (sha256 of its pixels)."""
    rows: dict[tuple[str, ...], tuple[Sample, dict[str, list[float | None]]]] = {}
    by_key = {record.key: record for record in records}
    for record in records:
        image = record.image.sha256
        for quantity, group, value, reason in _values(record, by_key):
            place = (quantity, *(repr(v) for v in group.values()))
            sample, images = rows.setdefault(place, (Sample(quantity, group, {}), {}))
            images.setdefault(image, []).append(value)
            if value is None:
                sample.lost.append(reason or "no value")
                sample.reasons.setdefault(image, reason or "no value")
    for sample, images in rows.values():
        for image, values in images.items():
            known = [v for v in values if v is not None]
            sample.values[image] = sum(known) / len(known) if known else None
    return [sample for sample, _ in rows.values()]


def aggregates(records: Sequence[Record]) -> list[Aggregate]:
    """A row for every score and pair of maps, of each model and method: over images, targets averaged first;
    then the correlation of alignment with localisation, where both are there."""
    out = []
    for sample in samples(records):
        known = [v for v in sample.values.values() if v is not None]
        missing = len(sample.values) - len(known)
        out.append(summary(sample.quantity, sample.group, known, missing, sample.lost))
    return out + correlations(records)


def comparisons(pairs: Iterable[tuple[Sample, Sample]], *, ranks: bool = False) -> list[Comparison]:
    """One row for each pair of samples of the same quantity, a - b on the images that both have a value of; Holm's
    correction is over all of them, so a call is a printed table.

    Args:
        ranks: Wilcoxon's test and the rank-biserial correlation instead of sign flips and d_z.

    Raises:
        ValueError: two quantities in one pair.
    """
    rows = []
    for a, b in pairs:
        if a.quantity != b.quantity:
            raise ValueError(f"{a.quantity} and {b.quantity} are two quantities")
        images = list(dict.fromkeys([*a.values, *b.values]))
        left, right = ([side.values.get(image) for image in images] for side in (a, b))
        reasons = [_why(a, image) or _why(b, image) for image in images]
        found = paired(left, right, ranks=ranks, reasons=reasons)
        rows.append((a, b, found))
    corrected = holm([found.p for _, _, found in rows])
    return [
        Comparison(
            quantity=a.quantity,
            a=a.group,
            b=b.group,
            difference=found.difference,
            ci95=found.ci95,
            effect_size=found.effect_size,
            p=found.p,
            p_holm=p_holm,
            n=found.n,
            smallest_detectable=found.smallest_detectable,
            missing=found.missing,
            reasons=found.reasons,
            definition=found.definition,
        )
        for (a, b, found), p_holm in zip(rows, corrected, strict=True)
    ]


def _why(sample: Sample, image: str) -> str | None:
    return sample.reasons.get(image) if sample.values.get(image) is None else None


def summary(
    quantity: str, group: dict[str, Any], values: Sequence[float], missing: int = 0, reasons: Iterable[str] = ()
) -> Aggregate:
    """Mean, sd (n - 1) and 95 % interval of numbers of independent images.

    The interval is the studentised bootstrap's (9,999 resamples, drawn by a fixed seed), and Wilson's for 0/1 data;
    None for fewer than six images or where all are equal.
    """
    data = np.asarray(values, np.float64)
    n = len(data)
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    mean = float(data.mean()) if n else None
    sd = float(data.std(ddof=1)) if n > 1 else None
    hits = quantity.partition(":")[0] in HITS and bool(np.isin(data, (0, 1)).all())
    return Aggregate(quantity, group, mean, sd, interval(data, "hits" if hits else "auto"), n, missing, counts)


def interval(data: np.ndarray[Any, np.dtype[np.float64]], kind: Kind = "auto") -> Interval | None:
    """The 95 % interval of a mean; None for fewer than six numbers or equal ones (`inference.mean_interval`)."""
    return mean_interval(data, kind=kind)


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

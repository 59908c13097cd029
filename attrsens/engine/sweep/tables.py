"""From the records of a sweep to rows over images: every setting, the whole sweep, and differences between models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations
from typing import Any

from attrsens.engine.report import Aggregate, Comparison, Record, Swept
from attrsens.engine.stats import Sample, comparisons, summary
from attrsens.engine.sweep.design import Sweep

NEIGHBOUR, MEAN = " (neighbour)", " (mean over values)"
RESCALED, FLOOR = " (rescaled)", " (floor)"


@dataclass(frozen=True)
class Place:
    """What numbers must have in common to stand in one row. `values`: of the knobs, as text, in order."""

    quantity: str
    model: str
    study: int
    values: tuple[tuple[str, str], ...]
    to: tuple[tuple[str, str], ...] = ()


@dataclass
class Cell:
    """The numbers of one place by image, draws and targets averaged."""

    group: dict[str, Any]
    values: dict[str, list[float]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def add(self, image: str, value: float | None, reason: str | None) -> None:
        if value is None:
            self.lost.append(reason or "no value")
            self.reasons.setdefault(image, reason or "no value")
        else:
            self.values.setdefault(image, []).append(value)

    def sample(self, quantity: str) -> Sample:
        """By image."""
        images = dict.fromkeys([*self.values, *self.reasons])
        means = {i: sum(v) / len(v) if (v := self.values.get(i)) else None for i in images}
        return Sample(quantity, self.group, means, self.reasons, self.lost)


class Tables:
    """The rows of a sweep."""

    def __init__(self, records: Sequence[Record], sweep: Sweep, names: Mapping[str, str]) -> None:
        self.sweep, self.names = sweep, names
        self.cells: dict[Place, Cell] = {}
        self.images = list(dict.fromkeys(record.image.sha256 for record in records))
        by_key = {(r.image.sha256, r.target.index, r.key): r for r in records}
        for record in records:
            for place in record.swept:
                self._scores(record, place)
                if place.main:
                    self._similarities(record, place, by_key)
        self._fill(records)

    def _fill(self, records: Sequence[Record]) -> None:
        """Say of the images that have other maps of a sweep that this one is missing."""
        images: dict[tuple[str, int], dict[str, None]] = {}
        for record in records:
            for place in record.swept:
                images.setdefault((record.model.id, place.study), {})[record.image.sha256] = None
        for at, cell in self.cells.items():
            if not at.quantity.endswith((RESCALED, FLOOR)):
                for image in images[at.model, at.study]:
                    if image not in cell.values and image not in cell.reasons:
                        cell.add(image, None, "there is no map")

    def _scores(self, record: Record, place: Swept) -> None:
        for name, score in record.scores.items():
            cell = self._cell(name, record, place)
            cell.add(record.image.sha256, score.value, score.reason)

    def _similarities(self, record: Record, place: Swept, by_key: Mapping[tuple[str, int, str], Record]) -> None:
        for s in record.similarities:
            other = by_key.get((record.image.sha256, record.target.index, s.to))
            there = next((p for p in other.swept if p.study == place.study and p.main), None) if other else None
            if there is None or (place.reference and s.role == "reference"):
                continue
            if s.role == "reference" and there.reference:
                self._cell(s.name, record, place).add(record.image.sha256, s.value, s.reason)
                for suffix, value in ((RESCALED, s.rescaled), (FLOOR, s.floor)):
                    if value is not None:
                        self._cell(s.name + suffix, record, place).add(record.image.sha256, value, None)
            elif s.role == "neighbour" and self._neighbours(place, there):
                self._cell(s.name + NEIGHBOUR, record, place, there).add(record.image.sha256, s.value, s.reason)

    def _neighbours(self, place: Swept, there: Swept) -> bool:
        study = self.sweep.studies[place.study]
        values = [dict(point.values) for point in study.shown]
        return (values.index(there.values), values.index(place.values)) in study.neighbours

    def _cell(self, quantity: str, record: Record, place: Swept, to: Swept | None = None) -> Cell:
        values = tuple((k, str(v)) for k, v in place.values.items())
        there = tuple((k, str(v)) for k, v in to.values.items()) if to else ()
        at = Place(quantity, record.model.id, place.study, values, there)
        if at not in self.cells:
            study = self.sweep.studies[place.study]
            group: dict[str, Any] = {
                "model": self.names[record.model.id],
                "method": study.title,
                "noise": record.input.noise,
                "parameters": dict(place.values),
                "base": study.base.expression,
            }
            if place.reference:
                group["reference"] = True
            if to:
                group["to"] = dict(to.values)
            self.cells[at] = Cell(group)
        return self.cells[at]

    def samples(self) -> list[tuple[Place, Sample]]:
        """Every place by image."""
        return [(place, cell.sample(place.quantity)) for place, cell in self.cells.items()]

    def aggregates(self) -> list[Aggregate]:
        """A row for every quantity and setting: similarity to the reference and to the neighbour, scores; and of the
        similarity to the reference its mean over the settings, image by image."""
        rows = [_row(sample) for _, sample in self.samples()]
        return rows + [_row(sample) for sample in self.means()]

    def means(self) -> list[Sample]:
        """The mean over a sweep's settings, the reference left out, of the similarity to it (methods 3): by image, of
        the images that have all of them."""
        groups: dict[tuple[str, str, int], list[Sample]] = {}
        for place, sample in self.samples():
            if self._is_similarity(place.quantity):
                groups.setdefault((place.quantity, place.model, place.study), []).append(sample)
        out = []
        for (quantity, _, number), parts in groups.items():
            group = {k: v for k, v in parts[0].group.items() if k not in ("parameters", "reference")}
            group["knobs"] = [axis.name for axis in self.sweep.studies[number].axes]
            group["settings"] = len(parts)
            values: dict[str, float | None] = {}
            for image in dict.fromkeys(i for part in parts for i in part.values):
                known = [v for part in parts if (v := part.values.get(image)) is not None]
                values[image] = sum(known) / len(known) if len(known) == len(parts) else None
            reasons = {i: "a setting has no value" for i, v in values.items() if v is None}
            out.append(Sample(quantity + MEAN, group, values, reasons, list(reasons.values())))
        return out

    def comparisons(self) -> list[Comparison]:
        """Paired differences over images, Holm over the rows of each quantity: of one setting in two models; of a score
        at a setting and at the reference; of a sweep's mean in two models, and of two methods in one."""
        pairs: dict[str, list[tuple[Sample, Sample]]] = {}
        groups: dict[tuple[str, int], list[tuple[Place, Sample]]] = {}
        for place, sample in self.samples():
            if not place.quantity.endswith(FLOOR):
                groups.setdefault((place.quantity, place.study), []).append((place, sample))
        for (a, left), (b, right) in chain.from_iterable(combinations(group, 2) for group in groups.values()):
            models = a.model != b.model and a.values == b.values and a.to == b.to
            score = not (self._is_similarity(a.quantity) or a.quantity.endswith((NEIGHBOUR, RESCALED)))
            moved = (
                score and a.model == b.model and bool(left.group.get("reference")) != bool(right.group.get("reference"))
            )
            if models:
                pairs.setdefault(a.quantity, []).append((left, right))
            elif moved:
                pairs.setdefault(a.quantity, []).append((right, left) if left.group.get("reference") else (left, right))
        for one, other in combinations(self.means(), 2):
            same = [one.group[k] == other.group[k] for k in ("model", "base")]
            if one.quantity == other.quantity and sum(same) == 1:
                pairs.setdefault(one.quantity, []).append((one, other))
        return [row for found in pairs.values() for row in comparisons(found)]

    def _is_similarity(self, quantity: str) -> bool:
        from attrsens.spec import SIMILARITIES

        return quantity.partition(":")[0] in SIMILARITIES and not quantity.endswith((NEIGHBOUR, RESCALED, FLOOR))


def _row(sample: Sample) -> Aggregate:
    known = [value for value in sample.values.values() if value is not None]
    return summary(sample.quantity, sample.group, known, len(sample.values) - len(known), sample.lost)


def quantities_of(names: Iterable[str]) -> list[str]:
    """The rows that a sweep has besides those that metrics always have."""
    return [name + suffix for name in names for suffix in (RESCALED, FLOOR, NEIGHBOUR, MEAN)]

"""From the records of attacks to rows over images: damage against budget, its area, and who resists more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from attrsens.engine.metrics import Judging, short
from attrsens.engine.report import Aggregate, Comparison, Record
from attrsens.engine.stats import Sample, comparisons, summary
from attrsens.spec import Spec

NOISE = " (floor)"  # of noise of the attack's norm
AREA = "damage_area"
DAMAGE = "original_distance"
SCORES = ("original_distance", "prediction_kept", "prediction_drift", "linf", "l2", "lpips")
AIMED = ("target_distance", "target_distance_before")


def quantities(judging: Judging, spec: Spec, curve: bool) -> list[str]:
    """Those that the rows about all images can have, for conditions."""
    similar = [short(call) for call in judging.similarities]
    if not spec.traits.get("maps", True):
        return ["boundary_distance", "prediction_kept", "prediction_drift", "linf", "l2", *similar]
    names = [*SCORES, *(AIMED if spec.traits.get("target") else ()), *similar]
    single = ("linf", "l2", "lpips", "prediction_drift", "target_distance_before")  # which noise has none of
    names += [n + NOISE for n in (*names,) if n not in single]
    return names + ([AREA, AREA + NOISE] if curve else [])


class Tables:
    """The rows of a run of attacks.

    Args:
        names: what models are called, by id.
    """

    def __init__(self, records: Sequence[Record], names: dict[str, str]) -> None:
        self.names = names
        self.samples: dict[tuple[str, str], Sample] = {}
        self._lists: dict[tuple[str, str, str], list[float]] = {}
        for record in records:
            if record.attack is not None:
                for quantity, value, reason in _values(record):
                    self._add(quantity, self.group(record), record.image.sha256, value, reason)
        self._areas([record for record in records if record.attack is not None])

    def group(self, record: Record) -> dict[str, Any]:
        """What records must have in common to stand in one row."""
        attack = record.attack
        assert attack is not None
        return {
            "model": self.names.get(record.model.id, record.model.name),
            "method": record.method.title,
            "noise": record.input.noise,
            "parameters": {**record.method.parameters},
            "expression": record.method.expression,
            "attack": attack.kind,
            "budget": {**attack.budget},
            "attack_parameters": {**attack.parameters},
        }

    def aggregates(self) -> list[Aggregate]:
        """Means over images, targets averaged first."""
        out = []
        for sample in self.samples.values():
            known = [v for v in sample.values.values() if v is not None]
            out.append(summary(sample.quantity, sample.group, known, len(sample.values) - len(known), sample.lost))
        return out

    def comparisons(self) -> list[Comparison]:
        """Paired differences over images: each attack against noise of its norm; methods within a model and models
        within a method, under one budget and by area. Holm over the rows of each quantity."""
        tables: dict[str, list[tuple[Sample, Sample]]] = {}
        for (quantity, place), sample in self.samples.items():
            noise = self.samples.get((quantity + NOISE, place))
            if noise and quantity in (DAMAGE, "target_distance", AREA):
                plain = Sample(quantity, noise.group | {"control": "noise"}, noise.values, noise.reasons, noise.lost)
                tables.setdefault(f"{quantity} noise", []).append((sample, plain))
        for (qa, _), a in self.samples.items():
            if qa not in (DAMAGE, "target_distance", AREA):
                continue
            for (qb, _), b in self.samples.items():
                if qa == qb and _beside(a.group, b.group):
                    tables.setdefault(qa, []).append((a, b))
        out = []
        for pairs in tables.values():
            unique = {frozenset((id(a), id(b))): (a, b) for a, b in reversed(pairs)}
            out += comparisons(reversed(unique.values()))
        return out

    def _add(self, quantity: str, group: dict[str, Any], image: str, value: float | None, reason: str | None) -> None:
        place = quantity, repr(group)
        sample = self.samples.setdefault(place, Sample(quantity, group, {}))
        found = self._lists.setdefault((*place, image), [])
        if value is None:
            sample.lost.append(reason or "no value")
            sample.reasons.setdefault(image, reason or "no value")
        else:
            found.append(value)
        sample.values[image] = sum(found) / len(found) if found else None

    def _areas(self, records: Sequence[Record]) -> None:
        """The mean damage over budgets from 0 to the largest: the area under the curve through (0, 0), by the trapezoid
        rule, over the largest eps. One number a method and model; low where explanations are robust."""
        curves: dict[tuple[str, str, int], tuple[dict[str, Any], str, dict[float, Record]]] = {}
        for record in records:
            attack = record.attack
            if attack is None or "eps" not in attack.budget or DAMAGE not in record.scores:
                continue
            group = self.group(record)
            group["budget"] = {k: v for k, v in group["budget"].items() if k != "eps"}
            group["attack_parameters"] = {k: v for k, v in group["attack_parameters"].items() if k != "eps"}
            course = repr(group), record.image.sha256, record.target.index
            curves.setdefault(course, (group, record.image.sha256, {}))[2][attack.budget["eps"]] = record
        budgets: dict[str, set[float]] = {}
        for (place, _, _), (_, _, found) in curves.items():
            budgets.setdefault(place, set()).update(found)
        for (place, _, _), (group, image, found) in curves.items():
            if len(budgets[place] - {0.0}) < 2:
                continue
            whole = set(found) == budgets[place]  # every image means the same budgets
            own: dict[str, list[tuple[float, float | None]]] = {"": [(0.0, 0.0)], NOISE: [(0.0, 0.0)]}
            for eps, record in sorted(found.items()):
                score = record.scores[DAMAGE]
                own[""].append((eps, score.value))
                own[NOISE].append((eps, score.controls.get("noise", 0.0 if score.value == 0 else None)))
            for suffix, points in own.items():
                value = _area(points) if whole else None
                named = group | {"eps": sorted(budgets[place])}
                self._add(AREA + suffix, named, image, value, "an attack of the curve has no result")


def _values(record: Record) -> Iterator[tuple[str, float | None, str | None]]:
    for name, score in record.scores.items():
        if name == "lpips" and score.value is None:
            continue  # it was not asked for
        if name in (*SCORES, *AIMED, "boundary_distance"):
            yield name, score.value, score.reason
            if "noise" in score.controls:
                yield name + NOISE, score.controls["noise"], None
    for stage in record.attack.stages if record.attack else ():
        yield f"boundary_distance ({stage.name})", stage.distance, "the search found no other class"
        yield f"success ({stage.name})", float(stage.distance is not None), None
    for similarity in record.similarities:
        yield similarity.name, similarity.value, similarity.reason
        if "noise" in similarity.controls:
            yield similarity.name + NOISE, similarity.controls["noise"], None


def _area(points: Sequence[tuple[float, float | None]]) -> float | None:
    total, last = 0.0, points[-1][0]
    for (x0, y0), (x1, y1) in pairwise(points):
        if y0 is None or y1 is None:
            return None
        total += (x1 - x0) * (y0 + y1) / 2
    return total / last if last > 0 else None


def _beside(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two rows differ in their method or in their model alone."""
    if a is b:
        return False
    same = all(a.get(k) == b.get(k) for k in ("noise", "attack", "attack_parameters", "eps"))
    return same and (a["model"] != b["model"]) + (a["expression"] != b["expression"]) == 1

"""From the records of attacks to rows over images: damage against budget, its area, and who resists more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from attrsens.engine.aims import MAPS, aim_of
from attrsens.engine.budgets import alone
from attrsens.engine.metrics import Judging, short
from attrsens.engine.report import Aggregate, Comparison, Record
from attrsens.engine.stats import Sample, comparisons, summary
from attrsens.spec import Spec

NOISE = " (floor)"  # of noise of the attack's norm
BEST = " (best)"  # of the attacks under this budget and all smaller ones, whose images are allowed under it as well
AREA = "damage_area"
CHANGED = "the class changed"
BEGINNING = "the curve has no beginning: what delta stands beside acts at eps 0 as well; give eps 0, too"
DAMAGE = "original_distance"
SCORES = ("original_distance", "prediction_kept", "prediction_drift", "linf", "l2", "lpips")
BEFORE = ("target_distance_before", "top_share_before")
COMPARED = (*MAPS, AREA)


def quantities(judging: Judging, spec: Spec, curve: bool) -> list[str]:
    """Those that the rows about all images can have, for conditions."""
    similar = [short(call) for call in judging.similarities]
    if not spec.traits.get("maps", True):
        return ["boundary_distance", "prediction_kept", "prediction_drift", "linf", "l2", *similar]
    aims = list(dict.fromkeys([DAMAGE, aim_of(spec)]))
    names = [*SCORES, *aims[1:], *(n for n in BEFORE if n.removesuffix("_before") in aims), *similar]
    names += [n + BEST for n in aims] if curve else []
    single = ("linf", "lpips", "prediction_drift", *BEFORE)  # which noise has none of
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
        self._courses([record for record in records if record.attack is not None])

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
            if noise and quantity in COMPARED:
                plain = Sample(quantity, noise.group | {"control": "noise"}, noise.values, noise.reasons, noise.lost)
                tables.setdefault(f"{quantity} noise", []).append((sample, plain))
        for (qa, _), a in self.samples.items():
            if qa not in COMPARED:
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

    def _courses(self, records: Sequence[Record]) -> None:
        """Of attacks under several budgets: the best under each or any smaller one, and the mean damage over budgets
        from 0 to the largest, which is the area under that curve, by the trapezoid rule, over the largest eps. It
        begins at (0, 0) where eps bounds all that is done, else at what was measured at eps 0. One number a method and
        model; low where explanations are robust."""
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
            for quantity in MAPS:
                for record, values in _best(found, quantity):
                    for suffix, value in zip(("", NOISE), values, strict=True):
                        self._add(quantity + BEST + suffix, self.group(record), image, value, CHANGED)
            reason = None if set(found) == budgets[place] else "an attack of the curve has no result"
            if any(_lost(record) for record in found.values()):
                reason = reason or CHANGED
            start = [(0.0, 0.0)] if alone(group["attack_parameters"]) else []
            reason = reason or (None if start or 0.0 in found else BEGINNING)
            named = group | {"eps": sorted(budgets[place])}
            for k, suffix in enumerate(("", NOISE)):
                points = [*start, *zip(sorted(found), (v[k] for _, v in _best(found, DAMAGE)), strict=True)]
                self._add(AREA + suffix, named, image, None if reason else _area(points), reason)


def _best(found: dict[float, Record], quantity: str) -> Iterator[tuple[Record, tuple[float | None, float | None]]]:
    """The records of several eps, ascending, with the value that is worst for the explanation under this budget and
    all smaller ones, and of noise as large as that attack; None where the class was lost."""
    best: tuple[float | None, float | None] = None, None
    for _, record in sorted(found.items()):
        score = record.scores.get(quantity)
        if score is None:
            continue
        if _lost(record):
            yield record, (None, None)
            continue
        if score.value is not None and (best[0] is None or MAPS[quantity] * (score.value - best[0]) > 0):
            best = score.value, score.controls.get("noise")
        yield record, best


def _lost(record: Record) -> bool:
    """Whether an attacked map is one of an image of another class, which shows nothing about the explanation."""
    return DAMAGE in record.scores and record.scores["prediction_kept"].value == 0


def _values(record: Record) -> Iterator[tuple[str, float | None, str | None]]:
    """(quantity, value, reason). Where the class was lost, how far maps are has no value, of noise neither: the rows
    are then about the same images."""
    lost = _lost(record)
    for name, score in record.scores.items():
        if name == "lpips" and score.value is None:
            continue  # it was not asked for
        if name in (*SCORES, *MAPS, *BEFORE, "boundary_distance"):
            void = lost and name in MAPS
            yield name, None if void else score.value, CHANGED if void else score.reason
            if "noise" in score.controls:
                yield name + NOISE, None if void else score.controls["noise"], CHANGED if void else None
    for stage in record.attack.stages if record.attack else ():
        yield f"boundary_distance ({stage.name})", stage.distance, "the search found no other class"
        yield f"success ({stage.name})", float(stage.distance is not None), None
    for similarity in record.similarities:
        yield similarity.name, None if lost else similarity.value, CHANGED if lost else similarity.reason
        if "noise" in similarity.controls:
            yield similarity.name + NOISE, None if lost else similarity.controls["noise"], CHANGED if lost else None


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

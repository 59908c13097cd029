"""What a sweep says of its knobs (science 2): effects, tolerances, verdicts, shares; scores; metrics as knobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from attrsens.engine.controls import seeded
from attrsens.engine.knobs.effects import knob_effects, seed_effect
from attrsens.engine.knobs.ranks import Scores, rank_stability, specification_curves
from attrsens.engine.knobs.results import KnobEffect, KnobVerdict
from attrsens.engine.knobs.scores import score_effect, stability
from attrsens.engine.knobs.shares import variance_shares
from attrsens.engine.knobs.study import Cosines, ImageGram, Knob, Setting, cosines, position
from attrsens.engine.knobs.study import Study as Maps
from attrsens.engine.knobs.verdicts import knob_verdicts, method_verdicts
from attrsens.engine.report import Record
from attrsens.engine.sweep.axes import Axis
from attrsens.engine.sweep.design import SEED, Study, Sweep
from attrsens.engine.sweep.mover import Gram

ONE_DRAW = "the method draws, and one draw of a setting does not tell the knob from the draws; give --replicates 2"


def findings(sweep: Sweep, grams: Sequence[Gram], records: Sequence[Record], names: Mapping[str, str]) -> list[Any]:
    """Everything that goes into the report's `effects`.

    Args:
        names: of the models, by id.
    """
    out: list[Any] = []
    for model, name in names.items():
        tables: dict[str, Cosines] = {}
        for number, study in enumerate(sweep.studies):
            own = averaged([g for g in grams if g.model == model and g.study == number])
            group = {"model": name, "method": study.title, "base": study.base.expression}
            if not own:
                continue
            found, table = of_maps(study, own)
            out += [replace(one, group=group) for one in found]
            out += [replace(one, group=group) for one in of_shares(study, own)]
            if table:
                tables[study.base.expression if _twice(sweep, study) else study.title] = table
        if len(tables) > 1:
            ranks, verdicts = method_verdicts(tables)
            out += [replace(one, group={"model": name}) for one in ranks]
            out += [replace(one, group={"model": name}) for one in verdicts]
    return [*out, *of_scores(sweep, records), *of_conventions(sweep, records)]


def averaged(grams: Sequence[Gram]) -> list[ImageGram]:
    """One matrix an image: the mean over its classes, of those that have the maps of the first."""
    groups: dict[str, list[Gram]] = {}
    for gram in grams:
        groups.setdefault(gram.image, []).append(gram)
    out = []
    for image, found in groups.items():
        same = [g.products for g in found if g.rows == found[0].rows]
        out.append(ImageGram(image, np.mean(same, axis=0), found[0].rows))
    return out


def of_maps(study: Study, grams: Sequence[ImageGram]) -> tuple[list[Any], Cosines | None]:
    """Effects of the knobs and of the seed, and which knob matters more."""
    if [axis.hyper.name for axis in study.axes] == [SEED]:  # its values are draws of one setting
        rows = [[(0, point) for point, _ in g.rows] for g in grams]
        again = [ImageGram(g.image, g.gram, own) for g, own in zip(grams, rows, strict=True)]
        return [seed_effect(cosines(Maps([Setting(None, "")], [], again, True)))], None
    draws = seeded(study.base)
    settings, index = settings_of(study)
    knobs = [_knob(axis) for axis in study.axes if axis.hyper.name != SEED]
    moved = [ImageGram(g.image, *_picked(g, index)) for g in grams]
    table = cosines(Maps(settings, knobs, moved, draws))
    effects = knob_effects(table)
    if draws and all(len(point.calls) < 2 for point in study.shown):
        effects = [replace(e, reason=ONE_DRAW) for e in effects]
    effects += [_unmeasured(name, why) for name, why in study.unmeasured.items()]
    found: list[KnobEffect | KnobVerdict | Any] = [seed_effect(table), *effects]
    if len(knobs) > 1:
        found += knob_verdicts(table)
    return found, table


def settings_of(study: Study) -> tuple[list[Setting], dict[int, int]]:
    """The settings that differ from the reference in one knob at most, and of each of these points its setting."""
    start = {axis.name: axis.reference for axis in study.axes}
    by_name = {axis.name: axis for axis in study.axes}
    settings: list[Setting] = []
    index: dict[int, int] = {}
    for i, point in enumerate(study.shown):
        differs = {k: v for k, v in point.values.items() if v != start[k]}
        if i == study.reference:
            index[i], setting = len(settings), Setting(None, "reference")
        elif len(differs) == 1:
            ((name, value),) = differs.items()
            axis = by_name[name]
            index[i] = len(settings)
            setting = Setting(name, value, position(axis.hyper, axis.reference, value))
        else:
            continue
        settings.append(setting)
    return settings, index


def of_shares(study: Study, grams: Sequence[ImageGram]) -> list[Any]:
    """The shares of variance, where cells for them were drawn."""
    if study.design is None:
        return []
    index = {study.cells + k: k for k in range(len(study.design.cells))}
    own = [ImageGram(g.image, *_picked(g, index)) for g in grams]
    return list(variance_shares([study.design] * len(own), own, seeded(study.base)))


def of_scores(sweep: Sweep, records: Sequence[Record]) -> Iterator[Any]:
    """What every setting does to every score, and SAM's aggregations over the values of a knob."""
    values: dict[tuple[str, str, int], dict[tuple[str, int, int], list[float | None]]] = {}
    index = [{_place(p.values): i for i, p in enumerate(study.shown)} for study in sweep.studies]
    for record in records:
        for place in record.swept:
            point = index[place.study].get(_place(place.values))
            for name, score in record.scores.items() if point is not None else ():
                at = values.setdefault((name, record.model.name, place.study), {})
                at.setdefault((record.image.sha256, point or 0, place.draw), []).append(score.value)
    for number, study in enumerate(sweep.studies):
        settings, placed = settings_of(study)
        for quantity in dict.fromkeys(name for name, _, s in values if s == number):
            models = {m: found for (q, m, s), found in values.items() if (q, s) == (quantity, number)}
            for model, found in models.items():
                images = list(dict.fromkeys(image for image, _, _ in found))
                group = {"model": model, "method": study.title, "base": study.base.expression}
                start = _draws(found, images, study.reference, study)
                for i, k in placed.items():
                    if i != study.reference:
                        setting = settings[k]
                        there = _draws(found, images, i, study)
                        drawn = seeded(study.base)
                        one = score_effect(quantity, setting.knob or "", setting.value, start, there, draws=drawn)
                        yield replace(one, group=group)
            for axis in study.axes:
                along = [i for i, k in placed.items() if i == study.reference or settings[k].knob == axis.name]
                table = {m: _table(found, along, study) for m, found in models.items()}
                if len(along) > 1:
                    group = {"method": study.title, "base": study.base.expression}
                    yield replace(stability(quantity, axis.name, table), group=group)


def of_conventions(sweep: Sweep, records: Sequence[Record]) -> Iterator[Any]:
    """How the order of methods, best first, depends on a metric's own knob."""
    methods = [study.title for study in sweep.studies]
    if len(set(methods)) < len(methods):
        methods = [study.base.expression for study in sweep.studies]
    for axis in sweep.metrics if len(methods) > 1 else ():
        for model in dict.fromkeys(r.model.name for r in records):
            own = [r for r in records if r.model.name == model]
            images = list(dict.fromkeys(r.image.sha256 for r in own))
            tables = [_convention(axis, name, own, images, sweep) for name in _names(axis, own)]
            group = {"model": model, "knob": axis.name}
            start = next((t for t in tables if _has(t.name, axis)), tables[0] if tables else None)
            for table in tables:
                if start is not None and table is not start:
                    yield replace(rank_stability(start, table), group=group)
            if len(tables) > 1:
                for curve in specification_curves(tables, methods):
                    yield replace(curve, group=group)


def _convention(axis: Axis, name: str, records: Sequence[Record], images: Sequence[str], sweep: Sweep) -> Scores:
    """Of every image and method the mean score under one convention, over its settings' references."""
    found: dict[tuple[str, int], list[float]] = {}
    direction = "higher"
    for record in records:
        score = record.scores.get(name)
        for place in record.swept:
            if score is not None and place.reference and score.value is not None:
                found.setdefault((record.image.sha256, place.study), []).append(score.value)
            direction = score.direction if score is not None else direction
    rows = [
        [sum(v) / len(v) if (v := found.get((image, s))) else None for s in range(len(sweep.studies))]
        for image in images
    ]
    return Scores(name, rows, "lower" if direction == "lower" else "higher")


def _names(axis: Axis, records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(n for r in records for n in r.scores if n.partition(":")[0] == axis.owner))


def _has(name: str, axis: Axis) -> bool:
    """Whether a score's name says that the knob is at its reference."""
    told = dict(part.split("=") for part in name.partition(":")[2].split(",") if "=" in part)
    value = told.get(axis.hyper.name, str(axis.hyper.default))
    return value == str(axis.reference)


def _knob(axis: Axis) -> Knob:
    return replace(Knob.of(axis.hyper, axis.reference), name=axis.name)


def _unmeasured(name: str, why: str) -> KnobEffect:
    return KnobEffect(
        name, "", "", None, None, None, None, None, None, None, None, None, [], 0, 0, {}, "", f"not measured: {why}"
    )


def _picked(g: ImageGram, index: Mapping[int, int]) -> tuple[Any, list[tuple[int, int]]]:
    """The rows of some points, under other numbers."""
    kept = [k for k, (point, _) in enumerate(g.rows) if point in index]
    return g.gram[np.ix_(kept, kept)], [(index[g.rows[k][0]], g.rows[k][1]) for k in kept]


def _draws(
    found: Mapping[tuple[str, int, int], list[float | None]], images: Sequence[str], point: int, study: Study
) -> list[list[float | None]]:
    """scores[image][draw] of a setting, classes averaged."""
    count = len(study.points[point].calls)
    return [[_mean(found.get((image, point, d), [])) for d in range(count)] for image in images]


def _table(
    found: Mapping[tuple[str, int, int], list[float | None]], points: Sequence[int], study: Study
) -> list[list[float | None]]:
    """scores[image][setting], draws averaged."""
    images = list(dict.fromkeys(image for image, _, _ in found))
    by_point = [[_mean(draws) for draws in _draws(found, images, i, study)] for i in points]
    return [list(row) for row in zip(*by_point, strict=True)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _place(values: Mapping[str, Any]) -> str:
    return repr(sorted(values.items()))


def _twice(sweep: Sweep, study: Study) -> bool:
    return sum(other.title == study.title for other in sweep.studies) > 1

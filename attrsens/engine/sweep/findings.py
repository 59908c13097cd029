"""What a sweep says of its knobs (science 2): effects, tolerances, verdicts, shares; scores; metrics as knobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from attrsens.engine.controls import seeded
from attrsens.engine.knobs.effects import knob_effects, seed_effect
from attrsens.engine.knobs.ranks import Scores, metric_agreement, rank_stability, specification_curves
from attrsens.engine.knobs.results import KnobEffect
from attrsens.engine.knobs.scores import score_effect, stability
from attrsens.engine.knobs.shares import variance_shares
from attrsens.engine.knobs.study import Cosines, ImageGram, Knob, Setting, cosines, position
from attrsens.engine.knobs.study import Study as Maps
from attrsens.engine.knobs.verdicts import knob_verdicts, method_verdicts
from attrsens.engine.report import Record
from attrsens.engine.sweep.axes import Axis
from attrsens.engine.sweep.design import SEED, Study, Sweep
from attrsens.engine.sweep.mover import Gram
from attrsens.spec import SCORES, Value

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
    out += [*of_scores(sweep, records, names), *of_conventions(sweep, records, names)]
    return [*out, *of_metrics(sweep, records, names)]


def averaged(grams: Sequence[Gram]) -> list[ImageGram]:
    """One matrix an image: the mean over its classes, of those that have the maps of the first."""
    groups: dict[str, list[Gram]] = {}
    for gram in grams:
        groups.setdefault(gram.image, []).append(gram)
    out = []
    for image, found in groups.items():
        same = [g.products for g in found if g.rows == found[0].rows]
        out.append(ImageGram(image, np.mean(same, axis=0), found[0].rows, found[0].reasons))
    return out


def of_maps(study: Study, grams: Sequence[ImageGram]) -> tuple[list[Any], Cosines | None]:
    """Effects of the knobs and of the seed, and which knob matters more; the cosines that say so, where knobs vary."""
    settings, index = settings_of(study)
    draws = any(seeded(point.call) for point in study.shown)
    moved = [ImageGram(g.image, *_picked(g, index), _reasons(g, index)) for g in grams]
    if draws:
        moved = [_repeated(g, settings, study, index) for g in moved]
    knobs = [_knob(axis) for axis in study.axes if axis.hyper.name != SEED]
    table = cosines(Maps(settings, knobs, moved, draws))
    still = not seeded(study.points[study.reference].call)
    found: list[Any] = [seed_effect(_without_draws(settings, moved) if still else table)]
    effects = knob_effects(table)
    if draws and all(draw == 0 for g in moved for _, draw in g.rows):
        effects = [replace(e, reason=ONE_DRAW) for e in effects]
        found = [e if e.effect is not None else replace(e, reason=ONE_DRAW) for e in found]
    found += [_left_out(e, settings, moved) for e in effects]
    found += [_unmeasured(name, why) for name, why in study.unmeasured.items()]
    if len(knobs) > 1:
        found += knob_verdicts(table)
    return found, table if knobs else None


def settings_of(study: Study) -> tuple[list[Setting], dict[int, tuple[int, int]]]:
    """The settings that differ from the reference in one knob at most, and of each of these points (setting, draw): the
    values of a seed that is swept are draws."""
    start = {axis.name: axis.reference for axis in study.axes}
    by_name = {axis.name: axis for axis in study.axes}
    seeds = [axis.name for axis in study.axes if axis.hyper.name == SEED]
    settings = [Setting(None, "reference")]
    places: dict[object, int] = {(): 0}
    draws: dict[tuple[Value, ...], int] = {}
    index: dict[int, tuple[int, int]] = {}
    for i, point in enumerate(study.shown):
        differs = {k: v for k, v in point.values.items() if v != start[k] and k not in seeds}
        if len(differs) > 1:
            continue
        own: object = ()
        if differs:
            ((name, value),) = differs.items()
            axis = by_name[name]
            at = position(axis.hyper, axis.reference, value)
            own = name, repr(value) if at is None else round(at, 9)
            if at is not None and round(at, 9) == 0:
                continue  # the reference, to the last digits
            if own not in places:
                places[own] = len(settings)
                settings.append(Setting(name, value, at))
        draw = draws.setdefault(tuple(point.values[k] for k in seeds), len(draws)) if seeds else 0
        if (places[own], draw) not in index.values() or not seeds:
            index[i] = places[own], draw
    return settings, index


def _repeated(
    g: ImageGram, settings: Sequence[Setting], study: Study, index: Mapping[int, tuple[int, int]]
) -> ImageGram:
    """With the one map of a setting that draws nothing in the place of every draw that the others have."""
    still = {s for point, (s, _) in index.items() if not seeded(study.points[point].call)}
    draws = sorted({draw for s, draw in g.rows if s not in still}) or [0]
    rows: list[tuple[int, int]] = []
    kept: list[int] = []
    for k, (s, draw) in enumerate(g.rows):
        for d in draws if s in still else [draw]:
            if (s, d) not in rows:
                rows.append((s, d))
                kept.append(k)
    return ImageGram(g.image, g.gram[np.ix_(kept, kept)], rows, g.reasons)


def _left_out(effect: KnobEffect, settings: Sequence[Setting], grams: Sequence[ImageGram]) -> KnobEffect:
    """With the settings that no image has a map of."""
    there = {s for g in grams for s, _ in g.rows}
    lost = {
        k: next((g.reasons[k] for g in grams if k in g.reasons), "no map") for k in set(range(len(settings))) - there
    }
    told = [
        f"{settings[k].value} is left out: {why}" for k, why in sorted(lost.items()) if settings[k].knob == effect.knob
    ]
    return replace(effect, reason="; ".join([*([effect.reason] if effect.reason else []), *told])) if told else effect


def _without_draws(settings: Sequence[Setting], grams: Sequence[ImageGram]) -> Cosines:
    """The reference alone, of a method that draws nothing there."""
    own = [ImageGram(g.image, np.ones((1, 1)), [(0, 0)]) for g in grams if any(s == 0 for s, _ in g.rows)]
    lost = [ImageGram(g.image, np.zeros((0, 0)), [], g.reasons) for g in grams if all(s for s, _ in g.rows)]
    return cosines(Maps([settings[0]], [], [*own, *lost], False))


def _reasons(g: ImageGram, index: Mapping[int, tuple[int, int]]) -> dict[int, str]:
    return {index[point][0]: why for point, why in g.reasons.items() if point in index}


def of_shares(study: Study, grams: Sequence[ImageGram]) -> list[Any]:
    """The shares of variance, where cells for them were drawn."""
    if study.design is None:
        return []
    index = {study.cells + k: (k, 0) for k in range(len(study.design.cells))}
    own = [ImageGram(g.image, *_picked(g, index)) for g in grams]
    found = variance_shares([study.design] * len(own), own, seeded(study.base))
    return [replace(one, definition=f"{one.definition}; the same cells for every image") for one in found]


def of_scores(sweep: Sweep, records: Sequence[Record], names: Mapping[str, str]) -> Iterator[Any]:
    """What every setting does to every score, and SAM's aggregations over the values of a knob, t0 among them."""
    values: dict[tuple[str, str, int], Scored] = {}
    placed = [settings_of(study) for study in sweep.studies]
    index = [{_place(p.values): i for i, p in enumerate(study.shown)} for study in sweep.studies]
    for record in records:
        for place in record.swept:
            point = index[place.study].get(_place(place.values))
            at = placed[place.study][1].get(point) if point is not None else None
            for name, score in record.scores.items() if at else ():
                assert at
                cell = values.setdefault((name, record.model.id, place.study), {})
                cell.setdefault((record.image.sha256, at[0], at[1] + place.draw), []).append(score.value)
    for number, study in enumerate(sweep.studies):
        settings = placed[number][0]
        where = {"method": study.title, "base": study.base.expression}
        for quantity in dict.fromkeys(name for name, _, s in values if s == number):
            models = {m: found for (q, m, s), found in values.items() if (q, s) == (quantity, number)}
            for model, found in models.items():
                images = list(dict.fromkeys(image for image, _, _ in found))
                for k, setting in enumerate(settings[1:], 1):
                    pair = [_draws(found, images, s) for s in (0, k)]
                    most = max(len(rows[0]) for rows in pair)
                    pair = [[row * most if len(row) == 1 else row for row in rows] for rows in pair]
                    drawn = any(seeded(point.call) for point in study.shown)
                    one = score_effect(quantity, setting.knob or "", setting.value, *pair, draws=drawn)
                    yield replace(one, group={"model": names[model], **where})
            for axis in study.axes:
                along = [0, *(k for k, setting in enumerate(settings) if setting.knob == axis.name)]
                table = {names[m]: _table(found, along) for m, found in models.items()}
                if axis.hyper.name == SEED and len(study.axes) == 1:
                    table = {names[m]: _by_draw(found) for m, found in models.items()}
                    along = list(range(len(axis.values)))
                if len(along) > 1:
                    yield replace(stability(quantity, axis.name, table), group=where)


def of_conventions(sweep: Sweep, records: Sequence[Record], names: Mapping[str, str]) -> Iterator[Any]:
    """How the order of methods, best first, depends on a metric's own knobs: tau between each value of a knob and its
    reference, all else equal; and under how many conventions one method is better than another."""
    methods = _titles(sweep)
    for owner in dict.fromkeys(axis.owner for axis in sweep.metrics) if len(methods) > 1 else ():
        axes = [axis for axis in sweep.metrics if axis.owner == owner]
        for model, name in names.items():
            own = [r for r in records if r.model.id == model]
            images = list(dict.fromkeys(r.image.sha256 for r in own))
            found = {n: _parameters(n) for r in own for n in r.scores if n.partition(":")[0] == owner}
            tables = {n: _convention(n, own, images, sweep) for n in found}
            start = {axis.hyper.name: axis.reference for axis in axes}
            for axis in axes:
                rest = {k: v for k, v in start.items() if k != axis.hyper.name}
                alike = [n for n, p in found.items() if all(p[k] == v for k, v in rest.items())]
                first = next((n for n in alike if found[n][axis.hyper.name] == axis.reference), None)
                for n in alike if first else ():
                    if first and n != first:
                        one = rank_stability(tables[first], tables[n])
                        yield replace(one, group={"model": name, "knob": axis.name})
            knobs = ", ".join(axis.name for axis in axes)
            for curve in specification_curves(list(tables.values()), methods) if len(tables) > 1 else ():
                yield replace(curve, group={"model": name, "knob": knobs})


def of_metrics(sweep: Sweep, records: Sequence[Record], names: Mapping[str, str]) -> Iterator[Any]:
    """How far scores agree on which method is better, image by image, each method at its sweep's reference."""
    for model, name in names.items():
        own = [r for r in records if r.model.id == model]
        images = list(dict.fromkeys(r.image.sha256 for r in own))
        directed = [n for n in dict.fromkeys(n for r in own for n in r.scores) if _direction(n) in ("higher", "lower")]
        if len(directed) > 1 and len(sweep.studies) > 1:
            tables = [_convention(n, own, images, sweep) for n in directed]
            yield replace(metric_agreement(tables, _titles(sweep)), group={"model": name})


def _direction(name: str) -> str:
    return str(SCORES[name.partition(":")[0]].traits["direction"])


def _titles(sweep: Sweep) -> list[str]:
    """The methods' names; where they repeat, their expressions."""
    titles = [study.title for study in sweep.studies]
    return titles if len(set(titles)) == len(titles) else [study.base.expression for study in sweep.studies]


def _convention(name: str, records: Sequence[Record], images: Sequence[str], sweep: Sweep) -> Scores:
    """Of every image and method the mean score under one convention, at its sweep's reference."""
    found: dict[tuple[str, int], list[float]] = {}
    for record in records:
        score = record.scores.get(name)
        for place in record.swept:
            if score is not None and place.reference and score.value is not None:
                found.setdefault((record.image.sha256, place.study), []).append(score.value)
    count = range(len(sweep.studies))
    rows = [[sum(v) / len(v) if (v := found.get((image, s))) else None for s in count] for image in images]
    return Scores(name, rows, "lower" if _direction(name) == "lower" else "higher")


def _parameters(name: str) -> dict[str, Value]:
    """All of a score's parameters, from its name in a report."""
    return SCORES.parse(name)[1]


def _knob(axis: Axis) -> Knob:
    return replace(Knob.of(axis.hyper, axis.reference), name=axis.name)


def _unmeasured(name: str, why: str) -> KnobEffect:
    return KnobEffect(
        name, "", "", None, None, None, None, None, None, None, None, None, [], 0, 0, {}, "", f"not measured: {why}"
    )


def _picked(g: ImageGram, index: Mapping[int, tuple[int, int]]) -> tuple[Any, list[tuple[int, int]]]:
    """The rows of some points, as (setting, draw)."""
    kept = [k for k, (point, _) in enumerate(g.rows) if point in index]
    rows = [(index[point][0], index[point][1] + draw) for point, draw in (g.rows[k] for k in kept)]
    return g.gram[np.ix_(kept, kept)], rows


Scored = dict[tuple[str, int, int], list[float | None]]  # by image, setting and draw: the classes' scores


def _draws(found: Scored, images: Sequence[str], setting: int) -> list[list[float | None]]:
    """scores[image][draw] of a setting, classes averaged."""
    count = 1 + max((d for _, s, d in found if s == setting), default=0)
    return [[_mean(found.get((image, setting, d), [])) for d in range(count)] for image in images]


def _table(found: Scored, settings: Sequence[int]) -> list[list[float | None]]:
    """scores[image][setting], draws averaged."""
    images = list(dict.fromkeys(image for image, _, _ in found))
    by_setting = [[_mean(draws) for draws in _draws(found, images, s)] for s in settings]
    return [list(row) for row in zip(*by_setting, strict=True)]


def _by_draw(found: Scored) -> list[list[float | None]]:
    """scores[image][draw] of the reference."""
    return _draws(found, list(dict.fromkeys(image for image, _, _ in found)), 0)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _place(values: Mapping[str, Any]) -> str:
    return repr(sorted(values.items()))


def _twice(sweep: Sweep, study: Study) -> bool:
    return sum(other.title == study.title for other in sweep.studies) > 1

"""Pictures of a sweep: the settings of an image in a row, where its maps disagree, how numbers follow the knobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.agreement import brief
from attrsens.engine.report import Swept
from attrsens.heatmaps import flat
from attrsens.render.figures import FigureWriter
from attrsens.render.montage import Strip, label_of, panel
from attrsens.render.picture import colour_limit, heatmap_png
from attrsens.render.writer import Result, caption, heatmap_name, our_png

if TYPE_CHECKING:
    from attrsens.engine.report import Report

ACROSS = 10  # panels of a row

Singles = dict[tuple[object, ...], dict[str, list[float]]]


class SweepWriter(FigureWriter):
    """Also draws montages, lines and effects and, beside the maps of an image, where they disagree."""

    def strips(self, results: list[Result]) -> Iterator[Strip]:
        for group in studies(results):
            self._stability(group)
            yield from strips(group)

    def drawn(self, report: Report) -> Iterator[tuple[str, bytes]]:
        from attrsens.render.plots import plots

        return plots(report)

    def _stability(self, group: Sequence[tuple[Swept, Result]]) -> None:
        spread = disagreement(group)
        if spread is None:
            return
        place, (record, attribution) = next(((p, r) for p, r in group if p.reference), group[0])
        which = f"-{place.study + 1}" if place.study else ""
        name = f"heatmaps/{heatmap_name(record)}.stability{which}.png"
        first = caption(record)[0]
        said = (
            f"sd over {len(group)} settings of each map divided by its largest magnitude; full red {spread.max():.3g}"
        )
        data = heatmap_png(
            spread, float(spread.max()), [first, said, record.method.expression], pixels=attribution.input
        )
        self._guard(self.folder / name, our_png)
        self._write(name, data)
        record.artifacts["stability" if place.study == 0 else f"stability {place.study}"] = name


def studies(results: Sequence[Result]) -> list[list[tuple[Swept, Result]]]:
    """The main maps of each of the sweeps and classes of an image, in the order of their settings."""
    groups: dict[tuple[int, int], list[tuple[Swept, Result]]] = {}
    for result in results:
        for place in result[0].swept:
            if place.main:
                groups.setdefault((place.study, result[0].target.index), []).append((place, result))
    return list(groups.values())


def disagreement(group: Sequence[tuple[Swept, Result]]) -> NDArray[np.float32] | None:
    """Per pixel the sd (over the settings, not n - 1) of the maps, each divided by its largest magnitude; None for maps
    of several shapes, or fewer than two."""
    maps = [flat(attribution.map) for _, (_, attribution) in group]
    if len(maps) < 2 or len({m.shape for m in maps}) > 1:
        return None
    mean, squares = np.zeros(maps[0].shape), np.zeros(maps[0].shape)
    for count, heatmap in enumerate(maps, 1):  # Welford: equal maps give 0 to the last digit
        away = heatmap.astype(np.float64) / (float(np.abs(heatmap).max()) or 1.0) - mean
        mean += away / count
        squares += away**2 * ((count - 1) / count)
    return np.sqrt(squares / len(maps)).astype(np.float32)


def strips(group: Sequence[tuple[Swept, Result]]) -> list[Strip]:
    """The rows of one image, class and sweep: the input, every setting on one scale, and where they disagree."""
    limit = colour_limit([flat(a.map) for _, (_, a) in group])
    record, attribution = group[0][1]
    panels: list[tuple[NDArray[np.uint8], list[str]]] = []
    if attribution.input is not None:
        panels.append(panel(attribution.input, [record.model.name, f"p = {record.target.probability:.3f}"]))
    for place, (_, a) in group:
        star = " *" if place.reference else ""
        panels.append(panel(flat(a.map), [f"{setting(place)}{star}", f"{limit:.3g}"], limit))
    spread = disagreement(group)
    if spread is not None:
        panels.append(panel(spread, ["sd over settings", f"{spread.max():.3g}"], float(spread.max())))
    start = next((r.method for place, (r, _) in group if place.reference), record.method)
    title = f"{record.image.path.rsplit('/', 1)[-1]}: {label_of(record)}, {brief(start.expression)}"
    rows = range(0, len(panels), ACROSS)
    return [Strip(title + (" (continued)" if i else ""), panels[i : i + ACROSS]) for i in rows]


def setting(place: Swept) -> str:
    """The values of a setting: `n=100, spread=0.2`; of the reference of one knob at a time, `reference`."""
    return (
        ", ".join(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in place.values.items()) or "reference"
    )


def singles(report: Report, starts: Mapping[str, dict[str, Any]]) -> Singles:
    """By quantity, base, model and the values of all knobs: the numbers of every image, as the rows average them."""
    bases = [base for base in starts if base != "metrics"]
    by_key = {(r.image.sha256, r.target.index, r.key): r for r in report.records}
    out: Singles = {}
    for record in report.records:
        for place in record.swept:
            values = key_of(starts[bases[place.study]] | place.values)
            found = [(name, score.value) for name, score in record.scores.items()]
            for s in record.similarities if place.main and not place.reference else ():
                other = by_key.get((record.image.sha256, record.target.index, s.to))
                here = other is not None and any(p.reference and p.main and p.study == place.study for p in other.swept)
                if s.role == "reference" and here:
                    found.append((s.name, s.value))
            for name, value in found:
                for model in {record.model.name, record.model.id} if value is not None else ():
                    cell = out.setdefault((name, bases[place.study], model, *values), {})
                    cell.setdefault(record.image.sha256, []).append(value or 0.0)
    return out


def key_of(values: Mapping[str, Any]) -> tuple[object, ...]:
    return tuple(sorted((k, repr(v)) for k, v in values.items()))

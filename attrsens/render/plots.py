"""Plots of a sweep: every quantity over every knob with intervals and single images, and the effect of every knob."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from attrsens.engine.sweep.tables import FLOOR, MEAN, NEIGHBOUR, RESCALED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from attrsens.engine.report import Aggregate, Report

COLOURS = ("#2166ac", "#b2182b", "#4d9221", "#762a83", "#e08214", "#35978f")
MOST = 12  # settings that a distribution is drawn of


def plots(report: Report) -> Iterator[tuple[str, bytes]]:
    """(name, PNG) of every plot."""
    rows = [r for r in report.aggregates if "parameters" in r.group and not r.quantity.endswith((MEAN, RESCALED))]
    for quantity in dict.fromkeys(r.quantity for r in rows if not r.quantity.endswith((NEIGHBOUR, FLOOR))):
        own = [r for r in rows if r.quantity == quantity]
        for method in dict.fromkeys(r.group["base"] for r in own):
            part = [r for r in own if r.group["base"] == method]
            knobs = list(dict.fromkeys(k for r in part for k in r.group["parameters"]))
            for knob in knobs:
                lines = [r for r in part if set(r.group["parameters"]) in ({knob}, set())]
                if len({str(r.group["parameters"]) for r in lines}) > 1 and len(knobs) <= MOST:
                    name = f"sweep-{_safe(quantity)}-{_safe(part[0].group['method'])}-{_safe(knob)}"
                    yield name, _lines(quantity, knob, lines, report)
    effects = [e for e in report.effects if e.kind == "knob_effect" and e.effect is not None]
    for method in dict.fromkeys(e.group["base"] for e in effects):
        mine = [e for e in effects if e.group["base"] == method]
        yield f"effects-{_safe(mine[0].group['method'])}", _effects(mine)


def _lines(quantity: str, knob: str, rows: Sequence[Aggregate], report: Report) -> bytes:
    """Left the mean of each model with its 95 % interval, right the single images."""
    figure, (left, right) = _figure(2)
    values = [_value(r, knob, report) for r in rows]
    order = list(dict.fromkeys(v for v in values if v is not None))
    numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in order)
    order = sorted(order) if numeric else order
    log = numeric and min(order) > 0 and max(order) / min(order) >= 5
    places = {v: (float(v) if numeric else float(i)) for i, v in enumerate(order)}
    for axes in (left, right):
        axes.set_xscale("log" if log and axes is left else "linear")
    models = list(dict.fromkeys(r.group["model"] for r in rows))
    for k, model in enumerate(models):
        colour = COLOURS[k % len(COLOURS)]
        mine = [(v, r) for v, r in zip(values, rows, strict=True) if r.group["model"] == model and r.mean is not None]
        mine.sort(key=lambda pair: places.get(pair[0], 0.0))
        xs = [places[v] for v, _ in mine]
        left.plot(xs, [r.mean or 0.0 for _, r in mine], "-o", color=colour, label=model, ms=4)
        bands = [(x, r.ci95) for x, (_, r) in zip(xs, mine, strict=True) if r.ci95]
        if len(bands) > 1:
            low, high = ([ci[end] for _, ci in bands] for end in (0, 1))
            left.fill_between([x for x, _ in bands], low, high, color=colour, alpha=0.2)
        for x, ci in bands if len(bands) == 1 else ():
            left.plot([x, x], ci, color=colour)
        floors = {_value(r, knob, report): r.mean for r in report.aggregates if _floor_of(r, quantity, rows[0], model)}
        known = [(places[v], y) for v in order if (y := floors.get(v)) is not None]
        left.plot([x for x, _ in known], [y for _, y in known], ":", color=colour, lw=1)
        for i, value in enumerate(order[:MOST]):
            single = _singles(report, quantity, knob, value, model)
            if single:
                at = i + (k - (len(models) - 1) / 2) * 0.25
                jitter = [at + 0.16 * ((j * 0.618) % 1 - 0.5) for j in range(len(single))]
                right.plot(jitter, single, ".", color=colour, alpha=0.6, ms=5)
                right.plot([at - 0.1, at + 0.1], [sum(single) / len(single)] * 2, color=colour, lw=2)
    left.set_xticks([places[v] for v in order], [_short(v) for v in order])
    left.minorticks_off()
    right.set_xticks(range(len(order[:MOST])), [_short(v) for v in order[:MOST]])
    for axes in (left, right):
        axes.set_xlabel(knob)
    left.set_ylabel(quantity)
    dotted = "; dotted: floor" if any(r.quantity == quantity + FLOOR for r in report.aggregates) else ""
    left.set_title(f"mean, 95 % interval over images{dotted}", fontsize=9)
    right.set_title("single images", fontsize=9)
    if len(models) > 1:
        left.legend(fontsize=8)
    images = max(r.n for r in rows)
    figure.suptitle(f"{rows[0].group['method']}: {quantity} over {knob}, {images} images", fontsize=10)
    return _png(figure)


def _effects(effects: Sequence[Any]) -> bytes:
    """A dot and whisker a knob and model, the largest on top."""
    figure, (axes,) = _figure(1, 1.2 + 0.3 * len(effects))
    shown = sorted(effects, key=lambda e: e.effect)
    models = list(dict.fromkeys(e.group["model"] for e in effects))
    names = list(dict.fromkeys(e.knob for e in shown))
    for e in shown:
        k = models.index(e.group["model"])
        y = names.index(e.knob) + (k - (len(models) - 1) / 2) * 0.2
        colour = COLOURS[k % len(COLOURS)]
        if e.ci95:
            axes.plot(e.ci95, [y, y], color=colour)
        axes.plot(
            [e.effect], [y], "o", color=colour, label=e.group["model"] if names.index(e.knob) == 0 else None, ms=5
        )
    axes.set_yticks(range(len(names)), names)
    axes.axvline(0, color="#888", lw=0.8)
    axes.set_xlabel("effect: 1 - c* one step away (0: nothing moves)")
    if len(models) > 1:
        axes.legend(fontsize=8)
    figure.suptitle(f"{effects[0].group['method']}: which knob moves its maps", fontsize=10)
    return _png(figure)


def _singles(report: Report, quantity: str, knob: str, value: object, model: str) -> list[float]:
    """The numbers of single images at a setting."""
    out = []
    for record in report.records:
        for place in record.swept:
            here = place.values.get(knob, report.config["reference"].get(knob))
            if record.model.name != model or not place.main or here != value or len(place.values) > 1:
                continue
            found = [s.value for s in record.similarities if s.role == "reference" and s.name == quantity]
            found += [score.value for name, score in record.scores.items() if name == quantity]
            out += [v for v in found if v is not None]
    return out


def _floor_of(row: Aggregate, quantity: str, like: Aggregate, model: str) -> bool:
    """Whether a row is the floor of a quantity, along the same knob of the same method."""
    same = all(row.group.get(k) == v for k, v in (("model", model), ("base", like.group["base"])))
    knobs = set(row.group.get("parameters", ())) == set(like.group["parameters"])
    return row.quantity == quantity + FLOOR and same and knobs


def _value(row: Aggregate, knob: str, report: Report) -> Any:
    return row.group["parameters"].get(knob, report.config["reference"].get(knob))


def _figure(panels: int, height: float = 3.4) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6 if panels > 1 else 6.4, min(height, 12)), dpi=110, layout="constrained")
    found = figure.subplots(1, panels, squeeze=False)[0]
    for axes in found:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(True, color="#eee")
        axes.set_axisbelow(True)
    return figure, found


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": "attrsens"})
    return out.getvalue()


def _short(value: object) -> str:
    number = isinstance(value, float) and math.isfinite(value)
    return f"{value:.4g}" if number else str(value)


def _safe(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._" else "-" for c in text)

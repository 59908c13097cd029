"""Plots of a sweep: every quantity over every knob with intervals and single images, and the effect of every knob."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from attrsens.engine.sweep.tables import FLOOR, MEAN, NEIGHBOUR, RESCALED
from attrsens.render.markdown import labels
from attrsens.render.sweep import key_of, singles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from attrsens.engine.report import Aggregate, Report

COLOURS = ("#2166ac", "#b2182b", "#4d9221", "#762a83", "#e08214", "#35978f")
MOST = 12  # settings that a distribution is drawn of
LINES = 6  # of one model: more, and only the slice at the reference is drawn
ACROSS = 3  # panels beside each other
WIDE = 58  # letters of tick labels that fit below a panel

Values = dict[str, Any]


@dataclass
class Line:
    """What is measured along a knob in one model, the other knobs standing still.

    Attributes:
        others: their values. usual: those are the reference's.
        rows, floors: by the knob's value.
    """

    model: str
    others: Values
    usual: bool
    rows: dict[Any, Aggregate] = field(default_factory=dict)
    floors: dict[Any, float] = field(default_factory=dict)


@dataclass
class Chart:
    """A quantity over one knob of one method.

    Attributes:
        order: the knob's values as they are shown. start: the setting of the reference.
        singles: by model and value, at the reference of the other knobs, the numbers of single images.
    """

    quantity: str
    knob: str
    title: str
    order: list[Any]
    start: Values
    lines: list[Line]
    singles: dict[tuple[str, Any], list[float]]


def plots(report: Report) -> Iterator[tuple[str, bytes]]:
    """(name, PNG) of every plot; no name comes twice, whatever the file system thinks of case."""
    taken: set[str] = set()
    for wanted, data in _drawn(report):
        name, count = wanted, 1
        while name.lower() in taken:
            count += 1
            name = f"{wanted}-{count}"
        taken.add(name.lower())
        yield name, data


def charts(report: Report) -> Iterator[Chart]:
    """What there is to draw along the knobs."""
    said = labels(report)
    starts: Mapping[str, Values] = report.config.get("reference", {})
    rows = [r for r in report.aggregates if "parameters" in r.group and r.group["base"] in starts]
    numbers = singles(report, starts) if rows else {}
    derived = MEAN, RESCALED, NEIGHBOUR, FLOOR
    for quantity in dict.fromkeys(r.quantity for r in rows if not r.quantity.endswith(derived)):
        for base in dict.fromkeys(r.group["base"] for r in rows if r.quantity == quantity):
            start = starts[base]
            part = [r for r in rows if r.quantity == quantity and r.group["base"] == base]
            under = [r for r in rows if r.quantity == quantity + FLOOR and r.group["base"] == base]
            for knob in start:
                values = report.config["values"][base]
                lines = _lines_of(part, under, knob, start, values)
                order = _ordered(values[knob])
                order = [v for v in order if v == start[knob] or any(v in line.rows for line in lines)]
                own = {
                    (line.model, value): [
                        sum(v) / len(v)
                        for v in numbers.get((quantity, base, line.model, *key_of(start | {knob: value})), {}).values()
                    ]
                    for line in lines
                    for value in order
                }
                if lines:
                    yield Chart(quantity, knob, said[base], order, start, lines, own)


def _drawn(report: Report) -> Iterator[tuple[str, bytes]]:
    said = labels(report)
    titles = {r.group["base"]: r.group["method"] for r in [*report.aggregates, *report.effects] if "base" in r.group}
    files: dict[str, str] = {}
    for i, (base, title) in enumerate(titles.items()):
        count = list(titles.values())[:i].count(title)
        files[said[base]] = _safe(title) + (f"-{count + 1}" if count else "")
    for chart in charts(report):
        yield f"sweep-{_safe(chart.quantity)}-{files[chart.title]}-{_safe(chart.knob)}", _along(chart)
    effects = [e for e in report.effects if e.kind == "knob_effect" and e.effect is not None]
    for base in dict.fromkeys(e.group["base"] for e in effects):
        yield f"effects-{files[said[base]]}", _effects([e for e in effects if e.group["base"] == base], said[base])


def _lines_of(
    rows: Sequence[Aggregate], floors: Sequence[Aggregate], knob: str, start: Values, values: Values
) -> list[Line]:
    """The lines along a knob that have two values or, at the reference of the other knobs, one beside it; in the order
    of the others' values."""
    found: dict[tuple[object, ...], Line] = {}
    usual = {k: v for k, v in start.items() if k != knob}
    for row in rows:
        others = start | row.group["parameters"]
        value = others.pop(knob)
        key = row.group["model"], *key_of(others)
        line = found.setdefault(key, Line(row.group["model"], others, others == usual))
        if row.mean is not None:
            line.rows[value] = row
    for row in floors:
        others = start | row.group["parameters"]
        value = others.pop(knob)
        key = row.group["model"], *key_of(others)
        if row.mean is not None and key in found:
            found[key].floors[value] = row.mean
    lines = [
        line for line in found.values() if line.rows and len({*line.rows, *([start[knob]] if line.usual else [])}) > 1
    ]
    if len({key_of(line.others) for line in lines}) > LINES:
        return [line for line in lines if line.usual]
    return sorted(lines, key=lambda line: [values[k].index(v) for k, v in line.others.items()])


def _along(chart: Chart) -> bytes:
    """The means with their 95 % intervals, a panel for each model where there are several lines; then single images at
    the reference of the other knobs."""
    models = list(dict.fromkeys(line.model for line in chart.lines))
    kinds = list(dict.fromkeys(key_of(line.others) for line in chart.lines))
    several = len(kinds) > 1
    panels = models if several and len(models) > 1 else [None]
    figure, found = _figure(len(panels) + 1)
    *lefts, right = found
    numeric = _numeric(chart.order)
    log = numeric and min(chart.order) > 0 and max(chart.order) / min(chart.order) >= 5
    places = {v: (float(v) if numeric else float(i)) for i, v in enumerate(chart.order)}
    for axes, model in zip(lefts, panels, strict=True):
        axes.set_xscale("log" if log else "linear")
        mine = [line for line in chart.lines if model in (None, line.model)]
        for i, line in enumerate(mine):
            colour = COLOURS[(kinds.index(key_of(line.others)) if several else models.index(line.model)) % 6]
            name = _named(line, chart) if several else line.model
            _draw(axes, chart, line, _apart(places, (i + 0.5) / len(mine) - 0.5, numeric, log), colour, name)
        axes.axvline(places[chart.start[chart.knob]], color="#555", lw=1, ls="--", zorder=1.5, label="reference")
        _ticks(axes, [places[v] for v in chart.order], chart.order, log, chart.order.index(chart.start[chart.knob]))
        axes.set_ylabel(textwrap.fill(chart.quantity.replace(",", ", "), 36))
        dotted = "; dashes: floor" if any(line.floors for line in chart.lines) else ""
        title = f"{model + ': ' if model else ''}mean, 95 % interval{dotted}"
        axes.set_title("\n".join(textwrap.wrap(title, 60)), fontsize=9)
    low, high = min(a.get_ylim()[0] for a in lefts), max(a.get_ylim()[1] for a in lefts)
    for axes in lefts:
        axes.set_ylim(low, high)
    _cloud(right, chart, models, several)
    for axes in found:
        axes.set_xlabel(chart.knob)
    handles = {name: h for axes in lefts for h, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    for model in models if several and len(models) > 1 else ():
        at = models.index(model)
        handles[f"single images: {model}"] = right.plot([], [], ".", color=_grey(at, len(models)))[0]
    names = [textwrap.fill(name, 60) for name in handles]
    figure.legend(handles.values(), names, loc="outside lower center", ncol=min(3, len(names)), fontsize=8)
    images = max(row.n for line in chart.lines for row in line.rows.values())
    title = f"{chart.title}: {chart.quantity} over {chart.knob}, {images} image{'s' * (images > 1)}"
    figure.suptitle(textwrap.fill(title, 95), fontsize=10)
    return _png(figure)


def _draw(axes: Axes, chart: Chart, line: Line, places: Mapping[Any, float], colour: str, name: str) -> None:
    """One line, broken where the reference stands, of a similarity to it; choices are not joined."""
    joined = _numeric(chart.order)
    here = [v for v in chart.order if v in line.rows or (line.usual and v == chart.start[chart.knob])]
    means = [math.nan if (row := line.rows.get(v)) is None or row.mean is None else row.mean for v in here]
    axes.plot([places[v] for v in here], means, "-o" if joined else "o", color=colour, label=name, ms=4)
    for v, row in line.rows.items():
        if row.ci95:
            axes.plot([places[v]] * 2, row.ci95, color=colour, lw=1.2, alpha=0.7)
    known = [v for v in chart.order if v in line.floors]
    style: dict[str, Any] = {"color": colour, "lw": 1, "ls": ":" if joined else "", "marker": "_", "ms": 7}
    axes.plot([places[v] for v in known], [line.floors[v] for v in known], **style)


def _apart(places: Mapping[Any, float], share: float, numeric: bool, log: bool) -> dict[Any, float]:
    """Moved a little, so that the intervals of lines, -0.5 <= share <= 0.5, do not lie over each other."""
    if not numeric:
        return {v: x + 0.5 * share for v, x in places.items()}
    at = sorted(math.log(x) if log else x for x in places.values())
    step = share * min(0.05 * (at[-1] - at[0]), 0.6 * min(b - a for a, b in pairwise(at)))
    return {v: x * math.exp(step) if log else x + step for v, x in places.items()}


def _cloud(axes: Axes, chart: Chart, models: Sequence[str], several: bool) -> None:
    """The single images, and their mean as a bar."""
    some = _some(chart.order, chart.start[chart.knob])
    for k, model in enumerate(models):
        colour = _grey(k, len(models)) if several else COLOURS[k % 6]
        for i, value in enumerate(some):
            single = chart.singles.get((model, value), [])
            if single:
                step = min(0.25, 0.8 / len(models))
                at = i + (k - (len(models) - 1) / 2) * step
                jitter = [at + 0.64 * step * ((j * 0.618) % 1 - 0.5) for j in range(len(single))]
                axes.plot(jitter, single, ".", color=colour, alpha=0.6, ms=5)
                axes.plot([at - 0.4 * step, at + 0.4 * step], [sum(single) / len(single)] * 2, color=colour, lw=2)
    axes.set_xlim(-0.5, len(some) - 0.5)
    axes.axvline(some.index(chart.start[chart.knob]), color="#555", lw=1, ls="--", zorder=1.5)
    _ticks(axes, [float(i) for i in range(len(some))], some, False, some.index(chart.start[chart.knob]))
    count = f", {len(some)} of {len(chart.order)} values" if len(some) < len(chart.order) else ""
    rest = {k: v for k, v in chart.start.items() if k != chart.knob} if several else {}
    told = f"\nat {', '.join(f'{k}={_short(v)}' for k, v in rest.items())}" if rest else ""
    axes.set_title(f"single images{count}{told}", fontsize=9)


def _effects(effects: Sequence[Any], title: str) -> bytes:
    """A dot and whisker a knob and model, the largest on top."""
    models = list(dict.fromkeys(e.group["model"] for e in effects))
    names = list(dict.fromkeys(e.knob for e in sorted(effects, key=lambda e: -e.effect)))[::-1]
    figure, (axes,) = _figure(1, 1.6 + len(names) * max(0.3, 0.16 * len(models)) + 0.2 * len(models))
    step = min(0.2, 0.8 / len(models))
    for e in effects:
        k = models.index(e.group["model"])
        y = names.index(e.knob) + ((len(models) - 1) / 2 - k) * step
        colour = COLOURS[k % 6]
        if e.ci95:
            axes.plot(e.ci95, [y, y], color=colour)
        axes.plot([e.effect], [y], "o", color=colour, label=e.group["model"], ms=5)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.axvline(0, color="#888", lw=0.8)
    axes.set_xlabel("effect: 1 - c* one step away (0: nothing moves)")
    if len(models) > 1:
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        shown = [(textwrap.fill(model, 60), handles[model]) for model in models]
        figure.legend([h for _, h in shown], [n for n, _ in shown], loc="outside lower center", ncol=2, fontsize=8)
    bars = "; bars: 95 % intervals" if any(e.ci95 for e in effects) else "; too few images for intervals"
    figure.suptitle(textwrap.fill(f"{title}: which knob moves its maps{bars}", 75), fontsize=10)
    return _png(figure)


def _named(line: Line, chart: Chart) -> str:
    """The other knobs' values that lines differ in."""
    kinds = [other.others for other in chart.lines]
    told = [f"{k}={_short(v)}" for k, v in line.others.items() if len({repr(o[k]) for o in kinds}) > 1]
    return ", ".join(told) + (" (reference)" if line.usual else "")


def _ordered(values: list[Any]) -> list[Any]:
    return sorted(values) if _numeric(values) else values


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)


def _some(order: list[Any], start: Any) -> list[Any]:
    """At most MOST of the values, evenly, both ends and the reference among them."""
    if len(order) <= MOST:
        return order
    kept = {round(i * (len(order) - 1) / (MOST - 2)) for i in range(MOST - 1)} | {order.index(start)}
    return [order[i] for i in sorted(kept)]


def _ticks(axes: Axes, places: Sequence[float], values: Sequence[Any], log: bool, first: int) -> None:
    """Labels that do not lie over each other: words are turned where they would; of numbers some stay without, never
    the reference and the ends."""
    texts = [_short(v) for v in values]
    axes.minorticks_off()
    if not _numeric(values):
        tight = sum(len(t) + 2 for t in texts) > WIDE or max(map(len, texts)) * len(texts) > WIDE
        turned: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if tight else {}
        axes.set_xticks(places, texts, fontsize=8, **turned)
        axes.margins(x=0.08)
        return
    at = [math.log(p) if log else p for p in places]
    span = (max(at) - min(at)) or 1.0
    kept: list[int] = []
    for i in dict.fromkeys([first, 0, len(at) - 1, *range(len(at))]):
        if all(abs(at[i] - at[j]) / span * WIDE > (len(texts[i]) + len(texts[j])) / 2 + 1 for j in kept):
            kept.append(i)
    axes.set_xticks(places, [t if i in kept else "" for i, t in enumerate(texts)], fontsize=8)


def _figure(panels: int, height: float = 3.8) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.figure import Figure

    across = min(panels, ACROSS)
    down = -(-panels // across)
    figure = Figure(figsize=(4.8 * across if panels > 1 else 6.4, min(height, 12) * down), dpi=110)
    figure.set_layout_engine("constrained")
    found = list(figure.subplots(down, across, squeeze=False).ravel())
    for axes in found[panels:]:
        axes.remove()
    for axes in found[:panels]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(True, color="#eee")
        axes.set_axisbelow(True)
    return figure, found[:panels]


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": "attrsens"})
    return out.getvalue()


def _grey(k: int, count: int) -> str:
    """A shade for a model where colours are the lines'."""
    return str(round(0.15 + 0.5 * k / max(1, count - 1), 2))


def _short(value: object) -> str:
    number = isinstance(value, float) and math.isfinite(value)
    return f"{value:.4g}" if number else str(value).lower() if isinstance(value, bool) else str(value)


def _safe(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._" else "-" for c in text)

"""Pictures of an attack: image and map before and after, what was changed, and damage against budget."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.agreement import brief
from attrsens.engine.attack_tables import AREA, BEST, DAMAGE, NOISE
from attrsens.engine.budgets import alone
from attrsens.engine.report import Aggregate, AttackInfo, Record
from attrsens.heatmaps import Attribution, flat
from attrsens.render.figures import FigureWriter
from attrsens.render.montage import Strip, label_of, montage_png, panel
from attrsens.render.picture import colour_limit
from attrsens.render.plots import COLOURS, _figure, _png
from attrsens.render.writer import Result, heatmap_name, our_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from attrsens.engine.report import Report

KINDS = ("attacked", "perturbation", "strip")
CURVES = {  # what their axes say
    DAMAGE + BEST: "cosine distance to the clean map",
    "target_distance" + BEST: "cosine distance to the target",
    "top_share" + BEST: "share on the clean map's top",
    "centre_distance" + BEST: "way of the centre, px",
}
Picture = NDArray[np.uint8]
Panels = list[tuple[Picture, list[str]]]


class AttackWriter(FigureWriter):
    """Also writes every attacked image, what was changed, and a strip of both with their maps; and the curves."""

    def strips(self, results: list[Result]) -> Iterator[Strip]:
        by_key = {record.key: (record, attribution) for record, attribution in results if not _moved(record)}
        for record, attribution in results:
            attack = record.attack
            if attack is None or (clean := by_key.get(attack.of)) is None:
                continue
            others = [r for r in results if not _moved(r[0]) and r[0].target.index == record.target.index]
            if not _moved(record) and record is not others[0][0]:  # one search for all methods
                record.artifacts |= {k: v for k, v in others[0][0].artifacts.items() if k in KINDS}
                continue
            stem = f"heatmaps/{heatmap_name(record)}"
            before = _image(clean[1].input)
            after = _image(attribution.extras.get("attacked", attribution.input))
            change, factor = amplified(before, after)
            self._picture(record, "attacked", f"{stem}.attacked.png", after, {})
            self._picture(record, "perturbation", f"{stem}.perturbation.png", change, {"factor": f"{factor:g}"})
            told: Panels = [
                panel(before, ["the image", f"p = {record.target.probability:.3f}"]),
                panel(after, ["attacked", *_after(record)]),
                panel(change, [f"change x {factor:g}", *_size(record)]),
                *_ways(attribution, attack),
            ]
            told += _maps(record, attribution, clean, others)
            strip = Strip(f"{record.image.path.rsplit('/', 1)[-1]}: {label_of(record)}, {_title(record)}", told)
            name = f"{stem}.strip.png"
            self._guard(self.folder / name, our_png)
            self._write(name, montage_png([strip]))
            record.artifacts["strip"] = name
            yield strip

    def drawn(self, report: Report) -> Iterator[tuple[str, bytes]]:
        yield from curves(report.aggregates)

    def _picture(self, record: Record, kind: str, name: str, pixels: Picture, facts: dict[str, str]) -> None:
        self._guard(self.folder / name, our_png)
        self._write(name, exact_png(pixels, facts))
        record.artifacts[kind] = name


def exact_png(pixels: Picture, facts: dict[str, str]) -> bytes:
    """A picture pixel for pixel, without loss, with facts as text beside it."""
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    for key, value in ({"Software": "attrsens"} | facts).items():
        info.add_text(key, value)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", pnginfo=info)
    return out.getvalue()


def amplified(before: Picture, after: Picture) -> tuple[Picture, float]:
    """(the change around middle grey, the factor): the largest power of two that cuts nothing, at least 1."""
    change = after.astype(np.float64) - before
    largest = float(np.abs(change).max())
    factor = 2.0 ** max(0, math.floor(math.log2(127 / largest))) if largest else 1.0
    return np.clip(128 + factor * change, 0, 255).round().astype(np.uint8), factor


def flow_colours(flow: NDArray[np.float32]) -> Picture:
    """A flow (2, H, W), right and down, as colours: the hue is the direction, white stands still, full colour is the
    longest way."""
    from PIL import Image

    right, down = flow.astype(np.float64)
    length = np.hypot(right, down)
    hue = (np.arctan2(down, right) / (2 * np.pi) % 1) * 255
    most = float(length.max()) or 1.0
    planes = [hue, 255 * length / most, np.full_like(length, 255)]
    return np.asarray(Image.fromarray(np.stack(planes, -1).round().astype(np.uint8), "HSV").convert("RGB"))


def _moved(record: Record) -> bool:
    """Whether the record is of an attacked map."""
    return record.attack is not None and record.attack.of != record.key


def _image(pixels: NDArray[Any] | None) -> Picture:
    assert pixels is not None
    return np.asarray(pixels, np.uint8)


def _title(record: Record) -> str:
    assert record.attack
    if not _moved(record):
        return record.attack.title
    return f"{record.model.name}, {brief(record.method.expression)}, {record.attack.title}"


def _after(record: Record) -> list[str]:
    said = record.input.prediction
    if said is not None:
        return [f"p = {said.probability:.3f}" + (f", top {said.label or said.top}" if said.flipped else "")]
    other = record.attack.notes.get("other_class") if record.attack else None
    return [f"nearest of another class{f', {other:.0f}' if other is not None else ''}"]


def _size(record: Record) -> list[str]:
    values = {name: score.value for name, score in record.scores.items()}
    return [f"Linf {_short(values.get('linf'), 255)}/255, L2 {_short(values.get('l2'))}"]


def _short(value: float | None, times: float = 1.0) -> str:
    return "-" if value is None else f"{value * times:.3g}"


def _ways(attribution: Attribution, attack: AttackInfo) -> Panels:
    """What the parts of the perturbation did: the flow, the colours."""
    out: Panels = []
    if "recoloured" in attribution.extras:
        image = (attribution.extras["recoloured"].transpose(1, 2, 0) * 255).round().clip(0, 255).astype(np.uint8)
        out.append(panel(image, ["colours alone", f"Delta E {_short(attack.sizes.get('delta_e'))}"]))
    if "flow" in attribution.extras:
        far = f"up to {_short(attack.sizes.get('flow_max'))} px"
        out.append(panel(flow_colours(attribution.extras["flow"]), ["flow: hue its direction", far]))
    return out


def _maps(record: Record, attribution: Attribution, clean: Result, others: Sequence[Result]) -> Panels:
    """The map before, after, and the target; of a boundary search, the maps of all methods."""
    if not _moved(record):
        beside = [(flat(a.map), brief(r.method.expression)) for r, a in others]
        return [panel(m, [name, f"{colour_limit([m]):.3g}"], colour_limit([m])) for m, name in beside]
    extras = attribution.extras
    if "before" in extras:  # magnitudes, as the attack sees them
        limit = colour_limit([extras["before"], extras["after"]])
        told = [(extras["before"], "share of the map"), (extras["after"], "attacked")]
    else:
        limit = colour_limit([flat(clean[1].map), flat(attribution.map)])
        told = [(flat(clean[1].map), "map"), (flat(attribution.map), "attacked")]
    far, near = record.scores[DAMAGE], record.scores.get("target_distance")
    noise = f", noise {_short(far.floor)}" if far.floor is not None else ""
    lines = [[f"{limit:.3g}"], [f"{_short(far.value)} from it{noise}"]]
    if near is not None:
        lines[0].append(f"{_short(record.scores['target_distance_before'].value)} from the target")
        lines[1].append(f"{_short(near.value)} from the target")
    out = [panel(m, [name, *more], limit) for (m, name), more in zip(told, lines, strict=True)]
    if "target" in extras:
        own = colour_limit([extras["target"]])
        out.append(panel(extras["target"], ["target", f"{own:.3g}"], own))
    return out


def curves(rows: Sequence[Aggregate]) -> Iterator[tuple[str, bytes]]:
    """Damage against budget, a figure for each kind of attack that has several budgets; of every budget what was worst
    under it or a smaller one."""
    kinds: dict[str, list[Aggregate]] = {}
    for row in rows:
        if "attack" in row.group and row.quantity.removesuffix(NOISE) in (*CURVES, AREA):
            kinds.setdefault(row.group["attack"], []).append(row)
    for kind, mine in kinds.items():
        if len({row.group["budget"].get("eps") for row in mine if row.quantity == DAMAGE + BEST}) > 1:
            yield f"damage-{kind}", _curves(kind, mine)


def _curves(kind: str, rows: Sequence[Aggregate]) -> bytes:
    quantities = [q for q in CURVES if any(row.quantity == q for row in rows)]
    figure, found = _figure(len(quantities), 4.6)
    several = len({row.group["model"] for row in rows}) > 1
    lines = list(dict.fromkeys((row.group["model"], row.group["expression"]) for row in rows))
    areas = {(r.group["model"], r.group["expression"]): r.mean for r in rows if r.quantity == AREA}
    for axes, quantity in zip(found, quantities, strict=True):
        for k, line in enumerate(lines):
            name = (f"{line[0]}: " if several else "") + brief(line[1])
            if quantity == DAMAGE + BEST and areas.get(line) is not None:
                name += f" (area {areas[line]:.3f})"
            _line(axes, [r for r in rows if (r.group["model"], r.group["expression"]) == line], quantity, k, name)
        axes.set_xlabel("eps, 1/255")
        axes.set_ylabel(CURVES[quantity])
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    handles, names = found[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncol=2 if len(names) < 9 else 3, fontsize=8)
    n = max(row.n for row in rows)
    said = f"{kind}: best up to each budget, mean of {n} image{'s' * (n > 1)}, bands are 95 % intervals; "
    said += "dashes: noise of the same L2 norm"
    figure.suptitle(said, fontsize=9)
    return _png(figure)


def _line(axes: Axes, rows: Sequence[Aggregate], quantity: str, k: int, name: str) -> None:
    colour, marker = COLOURS[k % len(COLOURS)], "os^Dv"[k // len(COLOURS) % 5]
    whole = quantity.removesuffix(BEST) in (DAMAGE, "centre_distance") and alone(rows[0].group["attack_parameters"])
    start = [(0.0, 0.0)] if whole else []
    for suffix, style in (("", "-"), (NOISE, "--")):
        mine = sorted(
            (r.group["budget"]["eps"], r) for r in rows if r.quantity == quantity + suffix and r.mean is not None
        )
        points = [*start, *((255 * eps, float(r.mean or 0)) for eps, r in mine)]
        if not points:
            continue
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, style, color=colour, marker=None if suffix else marker, ms=4, lw=1 if suffix else 1.6,
                  label=None if suffix else name)  # fmt: skip
        band = [(255 * eps, *r.ci95) for eps, r in mine if r.ci95] if not suffix else []
        if band:
            axes.fill_between(
                [b[0] for b in band], [b[1] for b in band], [b[2] for b in band], color=colour, alpha=0.12, lw=0
            )

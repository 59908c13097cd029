"""All maps of every image in a row, the inputs above them where they differ."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.agreement import brief
from attrsens.engine.report import Record
from attrsens.heatmaps import Attribution, flat
from attrsens.render.picture import FRAME, GAP, INK, PAPER, RLE, TEXT, colours, font_of, wrapped
from attrsens.render.writer import Result, changed, scales

SIDE = 160  # of a panel
PER_PAGE = 8  # rows
LINE = TEXT + 4


@dataclass(frozen=True)
class Strip:
    """A row: an image and class, and its panels with what stands below each."""

    title: str
    panels: list[tuple[NDArray[np.uint8], list[str]]]


def strips(results: Sequence[Result]) -> list[Strip]:
    """The rows of one image, one for each class; maps of one model and method share a scale, which each panel states.
    Every input is shown before its maps."""
    limits = {id(record): limit for group, limit in scales(list(results)) for record, _ in group}
    out = []
    for target in dict.fromkeys(record.target.index for record, _ in results):
        mine = [(r, a) for r, a in results if r.target.index == target]
        first = mine[0][0]
        panels: list[tuple[NDArray[np.uint8], list[str]]] = []
        before: tuple[object, ...] = ()
        for record, attribution in mine:
            place = record.model.id, record.input.noise, record.input.erased
            if place != before and attribution.input is not None:
                panels.append(panel(attribution.input, _about(record)))
            before = place
            panels.append(_map(record, attribution, limits[id(record)]))
        out.append(Strip(f"{first.image.path.rsplit('/', 1)[-1]}: {label_of(first)}", panels))
    return out


def montage_png(rows: Sequence[Strip]) -> bytes:
    """PNG bytes: the rows below each other."""
    from PIL import Image, ImageDraw, PngImagePlugin

    font = font_of()
    texts = [[_fitted(lines) for _, lines in row.panels] for row in rows]
    deep = max(len(lines) for row in texts for lines in row)
    note = (
        "Blue is negative, white zero, red positive; full colour is the number below the map, shared by a model's maps "
    )
    note += "of one method and image."
    across = max(len(row.panels) for row in rows)
    width = max(GAP + across * (SIDE + GAP), 480)
    high = LINE + SIDE + 4 + deep * LINE + GAP
    last = wrapped(note, font, width)
    canvas = Image.new("RGB", (width, GAP + len(rows) * high + len(last) * LINE + GAP), PAPER)
    draw = ImageDraw.Draw(canvas)
    for i, (row, under) in enumerate(zip(rows, texts, strict=True)):
        y = GAP + i * high
        draw.text((GAP, y), wrapped(row.title, font, width)[0], INK, font)
        for k, ((panel, _), lines) in enumerate(zip(row.panels, under, strict=True)):
            x, top = GAP + k * (SIDE + GAP), y + LINE + 2
            picture = Image.fromarray(panel).convert("RGB")
            draw.rectangle((x - 1, top - 1, x + picture.width, top + picture.height), outline=FRAME)
            canvas.paste(picture, (x, top))
            for n, line in enumerate(lines):
                draw.text((x, top + SIDE + 4 + n * LINE), line, INK, font)
    for n, line in enumerate(last):
        draw.text((GAP, GAP + len(rows) * high + n * LINE), line, INK, font)
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "attrsens")
    out = io.BytesIO()
    canvas.save(out, "PNG", pnginfo=info, compress_type=RLE)
    return out.getvalue()


def panel(
    pixels: NDArray[np.uint8] | NDArray[np.float32], lines: list[str], limit: float | None = None
) -> tuple[NDArray[np.uint8], list[str]]:
    """A panel with what stands below it: a picture, or with a limit a map in colours."""
    return _small(pixels.astype(np.uint8) if limit is None else colours(pixels.astype(np.float32), limit)), lines


def label_of(record: Record) -> str:
    """The class in words."""
    t = record.target
    return f"{t.label} ({t.index})" if t.label else f"class {t.index}"


def _map(record: Record, attribution: Attribution, limit: float) -> tuple[NDArray[np.uint8], list[str]]:
    return panel(flat(attribution.map), [brief(record.method.expression), f"{limit:.3g}"], limit)


def _about(record: Record) -> list[str]:
    said = record.input.prediction
    p = said.probability if said else record.target.probability
    flipped = f", top {said.label or said.top}" if said and said.flipped else ""
    return [record.model.name + changed(record), f"p = {p:.3f}{flipped}"]


def _small(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture with its long side SIDE: enlarged pixel by pixel, or shrunk by area."""
    from PIL import Image

    image = Image.fromarray(pixels).convert("RGB")
    share = SIDE / max(image.size)
    size = max(1, round(image.width * share)), max(1, round(image.height * share))
    how = Image.Resampling.NEAREST if share >= 1 else Image.Resampling.BOX
    return np.asarray(image.resize(size, how))


def _fitted(lines: Sequence[str]) -> list[str]:
    """Broken at spaces, commas, and where a word is too long, between letters."""
    font, out = font_of(), []
    for text in lines:
        for line in wrapped(text, font, SIDE + 2 * GAP):
            rest = line
            while font.getlength(rest) > SIDE:
                cut = max(1, int(len(rest) * SIDE / font.getlength(rest)))
                out.append(rest[:cut])
                rest = rest[cut:]
            out.append(rest)
    return out

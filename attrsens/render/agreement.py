"""Pictures of a comparison: who agrees with whom as a table of colours, and all maps of every image in a row."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from attrsens.engine.agreement import CHANGE, FLIP, Matrix, labels, matrices
from attrsens.render.figures import FigureWriter
from attrsens.render.montage import Strip, strips
from attrsens.render.picture import FRAME, GAP, INK, PAPER, RLE, TEXT, font_of, palette, wrapped
from attrsens.render.writer import Result

if TYPE_CHECKING:
    from attrsens.engine.report import Report

CELL = 52
LINES = {
    FLIP: "share of images whose top class the change of the input flips",
    CHANGE: "change of the explained class's probability, changed input less input",
}
NOTE = (
    "Above the diagonal the mean similarity, below it (s - floor) / (best - floor). Colours follow the rescaled value: "
    "white is the floor, red is more alike than that, blue less."
)


class CompareWriter(FigureWriter):
    """Also draws a table of colours for each similarity, and the maps of every image in a row."""

    def strips(self, results: list[Result]) -> list[Strip]:
        return strips(results)

    def drawn(self, report: Report) -> Iterator[tuple[str, bytes]]:
        for i, matrix in enumerate(matrices(report), 1):
            yield f"compare-{i}-{matrix.quantity.partition(':')[0]}", heat_png(matrix)


def says(quantity: str) -> str:
    """What a quantity of one place is, in words."""
    if quantity.startswith("agreement ("):
        return f"{quantity}: mean rescaled similarity to the other methods of the same model and input"
    return LINES.get(quantity, quantity)


def colour_of(matrix: Matrix, i: int, j: int) -> tuple[int, int, int] | None:
    """The colour of a pair i < j: of its rescaled value, -1 (blue) over 0 (white) to 1 (red)."""
    value = matrix.rescaled.get((i, j))
    if value is None:
        return None
    r, g, b = palette()[round(float(np.clip(value, -1, 1)) * 128) + 128]
    return int(r), int(g), int(b)


def heat_png(matrix: Matrix) -> bytes:
    """PNG bytes of a table of colours."""
    from PIL import Image, ImageDraw, PngImagePlugin

    names, size, font = labels(matrix.groups), len(matrix.groups), font_of()
    numbered = ["".join(c if c.isprintable() else "?" for c in f"{i + 1}  {name}") for i, name in enumerate(names)]
    left = GAP + int(max(font.getlength(name) for name in numbered)) + GAP
    width = max(left + size * CELL + GAP, 480)
    lines = wrapped(f"{matrix.quantity}, n = {matrix.images} images. {NOTE}", font, width)
    top = GAP + TEXT + 6
    canvas = Image.new("RGB", (width, top + size * CELL + GAP + len(lines) * (TEXT + 5) + 4), PAPER)
    draw = ImageDraw.Draw(canvas)
    for i, name in enumerate(numbered):
        draw.text((GAP, top + i * CELL + CELL // 2), name, INK, font, anchor="lm")
        draw.text((left + i * CELL + CELL // 2, GAP), str(i + 1), INK, font, anchor="ma")
        for j in range(size):
            x, y = left + j * CELL, top + i * CELL
            pair = min(i, j), max(i, j)
            value = matrix.mean.get(pair) if i < j else matrix.rescaled.get(pair)
            colour = (colour_of(matrix, *pair) if i != j else None) or PAPER
            draw.rectangle((x, y, x + CELL - 1, y + CELL - 1), fill=colour, outline=FRAME)
            text = "" if i == j else "-" if value is None else f"{value:.2f}"
            ink = INK if sum(colour) > 330 else PAPER
            draw.text((x + CELL // 2, y + CELL // 2), text, ink, font, anchor="mm")
    for k, line in enumerate(lines):
        draw.text((GAP, top + size * CELL + GAP + k * (TEXT + 5)), line, INK, font)
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "attrsens")
    out = io.BytesIO()
    canvas.save(out, "PNG", pnginfo=info, compress_type=RLE)
    return out.getvalue()

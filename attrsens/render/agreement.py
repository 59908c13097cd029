"""Pictures of a comparison: who agrees with whom as a table of colours, and all maps of every image in a row."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attrsens.engine.agreement import CHANGE, FLIP, Matrix, labels, matrices
from attrsens.render.montage import PER_PAGE, Strip, montage_png, strips
from attrsens.render.picture import FRAME, GAP, INK, PAPER, RLE, TEXT, font_of, palette, wrapped
from attrsens.render.writer import Result, Writer, our_png

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


class CompareWriter(Writer):
    """Also writes `figures/`: a table of colours for each similarity, and the maps of every image in a row."""

    def __init__(self, folder: str | Path, *arguments: Any, **options: Any) -> None:
        super().__init__(folder, *arguments, **options)
        self._strips: list[Strip] = []
        self._figures: list[str] = []

    def add(self, results: list[Result]) -> None:
        """As `Writer.add`, for all maps of an image."""
        super().add(results)
        if "png" in self.formats:
            self._strips += strips(results)
            while len(self._strips) >= PER_PAGE:
                self._page(self._strips[:PER_PAGE])
                del self._strips[:PER_PAGE]

    def finish(self, report: Report) -> None:
        """As `Writer.finish`."""
        if "png" in self.formats:
            if self._strips:
                self._page(self._strips)
                self._strips = []
            for i, matrix in enumerate(matrices(report), 1):
                self._figure(f"figures/compare-{i}-{matrix.quantity.partition(':')[0]}.png", heat_png(matrix))
        report.figures = self._figures
        super().finish(report)

    def _page(self, rows: list[Strip]) -> None:
        count = sum("montage" in name for name in self._figures)
        self._figure(f"figures/montage-{count + 1}.png", montage_png(rows))

    def _figure(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        self._guard(path, our_png)
        self._write(name, data)
        self._figures.append(name)


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
    lines = wrapped(f"{matrix.quantity}, mean over {matrix.images} images. {NOTE}", font, width)
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

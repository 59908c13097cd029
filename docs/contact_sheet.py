"""Every method on two samples, in one picture: `python docs/contact_sheet.py [FILE.png]`; minutes on two cores."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import attrsens
from attrsens.engine.cell import parse_call
from attrsens.engine.plan import cost
from attrsens.render import picture

SAMPLES = ("chelsea", "coffee")
SHORTER = {"bsg": "n=10", "kshap": "n=500", "lime": "n=500", "mp": "steps=100", "rise": "n=1000", "sp": "stride=8"}
COLUMNS, GAP, TITLE, LINE = 4, 12, 18, 17
OUT = Path(__file__).parent / "images" / "contact-sheet.png"


def expression(name: str) -> str:
    """The method, with what is cheaper here than its defaults."""
    return f"{name}:{SHORTER[name]}" if name in SHORTER else name


def ordered(f: attrsens.Classifier) -> list[str]:
    """Every method beside those of its module, those that take gradients first, and what costs fewer passes first.

    A module that has methods without any pass holds controls, and comes last.
    """
    shape = (f.preprocess.crop or 0,) * 2
    passes = {}
    for name in attrsens.METHODS:
        spent = cost(f, parse_call(expression(name)), shape)
        passes[name] = spent.forward + spent.backward
    families: dict[str, list[str]] = {}
    for name in sorted(passes, key=lambda n: (passes[n], n)):
        families.setdefault(attrsens.METHODS[name].function.__module__, []).append(name)

    def place(module: str) -> tuple[bool, bool, int, str]:
        first = families[module][0]
        total = sum(passes[name] for name in families[module])
        return passes[first] == 0, not attrsens.METHODS[first].traits["gradient"], total, module

    return [name for module in sorted(families, key=place) for name in families[module]]


def halved(heatmap: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over 2 x 2 pixels."""
    height, width = (side // 2 for side in heatmap.shape)
    return heatmap[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean((1, 3))


def sheet(report: attrsens.Report, names: list[str]) -> Image.Image:
    """The photos, then a pair of maps for every method, in rows."""
    found = list(zip(report.records, report.attributions, strict=True))
    first = [next((r, a) for r, a in found if r.image.path == f"sample:{s}") for s in SAMPLES]
    photos = [np.asarray(Image.fromarray(a.input).reduce(2)) for _, a in first]
    tiles = [([f"{r.target.label}, p = {r.target.probability:.2f}" for r, _ in first], photos)]
    for name in names:
        maps = [halved(a.map) for r, a in found if r.method.name == name]
        tiles.append(([expression(name)], [picture.colours(m, picture.colour_limit([m])) for m in maps]))

    side = photos[0].shape[0]
    width, rows = 2 * side + 2, -(-len(tiles) // COLUMNS)
    caption = textwrap.wrap(
        "Red supports the model's top class, blue opposes it, white is zero. Every map has its own scale, which ends "
        "at the 99.5th percentile of its magnitude: colours say nothing of strength. Model lite0; methods at their "
        "defaults but for what a title names; maps are means of 2 x 2 pixels.",
        width=150,
    )
    canvas = Image.new(
        "RGB",
        (GAP + COLUMNS * (width + GAP), GAP + rows * (TITLE + side + GAP) + len(caption) * LINE + GAP),
        picture.PAPER,
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for i, (titles, pair) in enumerate(tiles):
        left = GAP + i % COLUMNS * (width + GAP)
        top = GAP + i // COLUMNS * (TITLE + side + GAP) + TITLE
        for k, title in enumerate(titles):
            draw.text((left + k * (side + 2), top - TITLE), title, picture.INK, font)
        for k, panel in enumerate(pair):
            corner = (left + k * (side + 2), top)
            draw.rectangle((corner[0] - 1, top - 1, corner[0] + side, top + side), outline=picture.FRAME)
            canvas.paste(Image.fromarray(panel), corner)
    for i, line in enumerate(caption):
        draw.text((GAP, canvas.height - GAP - (len(caption) - i) * LINE), line, picture.INK, font)
    return canvas


def main(out: Path = OUT) -> None:
    """Explain, draw, write."""
    f = attrsens.load("lite0")
    names = ordered(f)
    report = attrsens.explain([f"sample:{s}" for s in SAMPLES], model=f, method=[expression(name) for name in names])
    if report.failures:
        raise SystemExit(f"contact sheet: {report.failures[0]}")
    image = sheet(report, names).quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    image.save(out, optimize=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

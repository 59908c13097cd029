"""Curves of scores as PNG: one panel a score, its value beside its name."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from attrsens.engine.report import ScoreInfo
from attrsens.render.picture import FRAME, GAP, INK, PAPER, RLE, TEXT, font_of, wrapped

WIDTH, HEIGHT, LEFT, COLUMNS = 300, 180, 52, 3
LINE, FILL = (33, 102, 172), (209, 229, 240)


def curves_png(scores: Mapping[str, ScoreInfo], caption: Sequence[str]) -> bytes:
    """PNG bytes: every score that has a curve, first point to last, over an axis that holds zero."""
    from PIL import Image, ImageDraw, PngImagePlugin

    shown = [(name, score) for name, score in scores.items() if score.curve]
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    font = font_of()
    cell_w, cell_h = LEFT + WIDTH + GAP, HEIGHT + 3 * (TEXT + 6) + GAP
    lines = [line for text in caption for line in wrapped(text, font, max(columns * cell_w, 480))]
    size = (max(columns * cell_w, 480) + GAP, rows * cell_h + GAP + len(lines) * (TEXT + 5) + 4)
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    for i, (name, score) in enumerate(shown):
        curve = score.curve or []
        left, top = GAP + i % columns * cell_w + LEFT, GAP + i // columns * cell_h + TEXT + 6
        low, high = min(0.0, *curve), max(0.0, *curve)
        high = high if high > low else low + 1
        ys = [top + HEIGHT * (high - v) / (high - low) for v in (*curve, 0.0, low, high)]
        points = [(left + WIDTH * k / max(1, len(curve) - 1), y) for k, y in enumerate(ys[: len(curve)])]
        zero = ys[len(curve)]
        if len(points) > 1:
            draw.polygon([(points[0][0], zero), *points, (points[-1][0], zero)], fill=FILL)
            draw.line(points, fill=LINE, width=2)
        else:
            draw.ellipse((points[0][0] - 2, points[0][1] - 2, points[0][0] + 2, points[0][1] + 2), fill=LINE)
        draw.line((left, zero, left + WIDTH, zero), fill=INK)
        draw.rectangle((left, top, left + WIDTH, top + HEIGHT), outline=FRAME)
        value = "no value" if score.value is None else f"{score.value:.4g}"
        draw.text((left, top - TEXT - 5), f"{name}: {value}", INK, font)
        for v, y in zip((low, high), ys[-2:], strict=True):
            draw.text((left - 5, y), f"{v:.3g}", INK, font, anchor="rm")
        draw.text((left, top + HEIGHT + 4), "first", INK, font)
        draw.text((left + WIDTH, top + HEIGHT + 4), f"last of {len(curve)}", INK, font, anchor="ra")
    for i, line in enumerate(lines):
        draw.text((GAP, rows * cell_h + GAP + i * (TEXT + 5)), line, INK, font)
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "attrsens")
    out = io.BytesIO()
    canvas.save(out, "PNG", pnginfo=info, compress_type=RLE)
    return out.getvalue()

"""Heatmap PNGs: the picture, the map in diverging colours with zero white, a colour bar and a caption."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image as PIL
    from PIL import ImageFont

PANEL = 320  # smallest side of a panel on screen
GAP, TEXT = 10, 12
RLE = 3  # the zlib strategy: on pixels drawn twice, as small as the default at a sixth of its time
INK, FRAME, PAPER = (40, 40, 40), (200, 200, 200), (255, 255, 255)
# RdBu_r of ColorBrewer (Cynthia Brewer), blue through white to red: perceptually even and safe for colour-blind readers
_STOPS = (
    (5, 48, 97), (33, 102, 172), (67, 147, 195), (146, 197, 222), (209, 229, 240), (255, 255, 255),
    (253, 219, 199), (244, 165, 130), (214, 96, 77), (178, 24, 43), (103, 0, 31),
)  # fmt: skip


@cache
def palette() -> NDArray[np.uint8]:
    """257 colours from -1 to 1; the middle one is exactly white."""
    at = np.linspace(0, len(_STOPS) - 1, 257)
    stops = np.array(_STOPS, np.float64)
    channels = [np.interp(at, np.arange(len(_STOPS)), stops[:, c]) for c in range(3)]
    return np.stack(channels, 1).round().astype(np.uint8)


def colours(heatmap: NDArray[np.float32], limit: float) -> NDArray[np.uint8]:
    """(H, W, 3) colours of a map, from -limit (blue) over 0 (white) to limit (red); values beyond are cut."""
    scaled = np.clip(heatmap.astype(np.float64) / limit, -1, 1) if limit > 0 else np.zeros(heatmap.shape)
    return palette()[(np.round(scaled * 128) + 128).astype(np.int64)]


def colour_limit(heatmaps: list[NDArray[np.float32]]) -> float:
    """One limit for maps that are compared: the largest of their 99.5th percentiles of magnitude.

    A few extreme pixels would otherwise whiten the rest; the bar prints the limit. A map with fewer than 0.5 %
    non-zero pixels is scaled by its maximum.
    """
    limits = []
    for heatmap in heatmaps:
        magnitude = np.abs(heatmap).ravel()
        rank = int(0.995 * (magnitude.size - 1))
        limits.append(float(np.partition(magnitude, rank)[rank]) or float(magnitude.max()))
    return max(limits, default=0.0)


def overlay(heatmap: NDArray[np.float32], limit: float, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The colours over the grey picture, as opaque as the map is strong."""
    grey = pixels.mean(2, keepdims=True) if pixels.ndim == 3 else pixels[..., None].astype(np.float64)
    alpha = np.clip(np.abs(heatmap) / limit, 0, 1)[..., None] if limit > 0 else np.zeros((*heatmap.shape, 1))
    faded = 255 - (255 - grey) * 0.6
    return np.asarray((1 - alpha) * faded + alpha * colours(heatmap, limit)).round().astype(np.uint8)


def heatmap_png(
    heatmap: NDArray[np.float32],
    limit: float,
    caption: list[str],
    *,
    pixels: NDArray[np.uint8] | None = None,
    blend: bool = False,
) -> bytes:
    """PNG bytes: the classifier's input beside the map, a colour bar and lines of caption.

    Args:
        heatmap: (H, W).
        limit: value of full red.
        pixels: the input, (H, W, 3) or (H, W) uint8, of the map's size.
        blend: draw the map over the grey picture.
    """
    from PIL import Image, ImageDraw, PngImagePlugin

    height, width = heatmap.shape
    zoom = max(1, -(-PANEL // max(height, width)))
    face = overlay(heatmap, limit, pixels) if blend and pixels is not None else colours(heatmap, limit)
    panels = [_panel(p, zoom) for p in ([pixels] if pixels is not None else []) + [face]]
    font = font_of()
    h, w = height * zoom, width * zoom
    bar_width, label_width = 14, 64
    lines = [
        line for text in caption for line in wrapped(text, font, len(panels) * (w + GAP) + bar_width + label_width)
    ]
    canvas = Image.new(
        "RGB",
        (
            GAP + len(panels) * (w + GAP) + bar_width + label_width,
            GAP + h + GAP + len(lines) * (TEXT + 5) + 4,
        ),
        PAPER,
    )
    left = GAP
    draw = ImageDraw.Draw(canvas)
    for panel in panels:
        draw.rectangle((left - 1, GAP - 1, left + w, GAP + h), outline=FRAME)
        canvas.paste(panel, (left, GAP))
        left += w + GAP
    ramp = palette()[np.linspace(256, 0, h).round().astype(np.int64)][:, None, :].repeat(bar_width, 1)
    canvas.paste(Image.fromarray(ramp), (left, GAP))
    draw.rectangle((left, GAP, left + bar_width - 1, GAP + h - 1), outline=INK)
    for text, y in ((f"{limit:+.2g}", GAP), ("0", GAP + h // 2), (f"{-limit:+.2g}", GAP + h - 1)):
        draw.text((left + bar_width + 5, y), text, INK, font, anchor="lm" if 0 < y - GAP < h - 1 else None)
    for i, line in enumerate(lines):
        draw.text((GAP, GAP + h + GAP + i * (TEXT + 5)), line, INK, font)
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "attrsens")
    out = io.BytesIO()
    canvas.save(out, "PNG", pnginfo=info, compress_type=RLE)
    return out.getvalue()


def _panel(pixels: NDArray[np.uint8], zoom: int) -> PIL.Image:
    from PIL import Image

    image = Image.fromarray(pixels).convert("RGB")
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)


@cache
def font_of() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(TEXT)


def wrapped(text: str, font: Any, width: int) -> list[str]:
    """Break at spaces and commas so that every line fits; unprintable characters become question marks."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    lines, line = [], ""
    for word in text.replace(",", ",\0").replace(" ", " \0").split("\0"):
        if line and font.getlength(line + word) > width - 2 * GAP:
            lines.append(line)
            line = ""
        line += word
    return [*lines, line]

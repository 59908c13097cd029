"""What annotations draw, painted at the image's own size and brought into the classifier's frame.

Coordinates are continuous: pixel i reaches from i to i + 1. A box covers the pixels at its border in part; polygons and
run lengths cover a pixel or do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attrsens.images import Preprocess

Size = tuple[int, int]  # height, width
FAR = 1e7  # no coordinate lies farther out


def box(corners: Sequence[float], size: Size) -> NDArray[np.float32]:
    """The share of each pixel inside (left, top, right, bottom).

    Raises:
        ValueError: a coordinate is not finite, or the box is turned around.
    """
    left, top, right, bottom = _finite(corners)
    if right < left or bottom < top:
        raise ValueError(f"the box {list(corners)} ends before it begins")
    return np.outer(_covered(top, bottom, size[0]), _covered(left, right, size[1])).astype(np.float32)


def _covered(start: float, end: float, side: int) -> NDArray[np.float64]:
    at = np.arange(side)
    share: NDArray[np.float64] = np.clip(np.minimum(at + 1, end) - np.maximum(at, start), 0, 1)
    return share


def polygon(numbers: Sequence[float], size: Size) -> NDArray[np.bool_]:
    """The pixels whose centres lie inside the polygon x0, y0, x1, y1, ... by the even-odd rule.

    Raises:
        ValueError: fewer than three points, half a point, or a coordinate that is not finite.
    """
    if len(numbers) < 6 or len(numbers) % 2:
        raise ValueError(f"a polygon is x, y of three or more points; got {len(numbers)} numbers")
    points = _finite(numbers).reshape(-1, 2)
    crossings = np.zeros((size[0], size[1] + 1), bool)  # from this pixel on, one more edge lies to the left
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
        first, last = (int(np.clip(np.ceil(y - 0.5), 0, size[0])) for y in sorted((y0, y1)))
        if first < last:
            rows = np.arange(first, last)
            x = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            crossings[rows, np.clip(np.ceil(x - 0.5), 0, size[1]).astype(np.intp)] ^= True
    inside: NDArray[np.bool_] = np.logical_xor.accumulate(crossings, 1)[:, : size[1]]
    return inside


def run_lengths(counts: Sequence[int], size: Size) -> NDArray[np.bool_]:
    """COCO's run lengths: pixels column by column, outside first.

    Raises:
        ValueError: they do not add up to the image.
    """
    lengths = np.asarray(counts, dtype=np.int64)
    if (lengths < 0).any() or lengths.max(initial=0) > size[0] * size[1] or lengths.sum() != size[0] * size[1]:
        raise ValueError(f"the run lengths do not add up to {size[1]} x {size[0]} pixels")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(size, order="F")


def unpack(text: str) -> list[int]:
    """COCO's compressed run lengths: 5 bits a character, lowest first, bit 6 says that more follow; from the fourth
    number on, the difference to the number before the last.

    Raises:
        ValueError: not such a text.
    """
    counts: list[int] = []
    value = shift = 0
    for byte in text.encode():
        code = byte - 48
        if not 0 <= code < 64 or shift > 35:
            raise ValueError("the compressed run lengths are damaged")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (code & 16 and 1) << shift  # the sign
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("the compressed run lengths are cut off")
    return counts


def framed(painted: NDArray[np.generic], preprocess: Preprocess) -> NDArray[np.float32]:
    """The share of each pixel of the classifier's input that is painted: resized as the image is (always bilinear
    with antialiasing, Pillow's, whatever the image's own filter: a share has no overshoot), then cropped."""
    from PIL import Image as PIL

    (h, w), crop = preprocess.geometry((painted.shape[0], painted.shape[1]))
    picture = PIL.fromarray(np.ascontiguousarray(painted, np.float32))
    if picture.size != (w, h):
        picture = picture.resize((w, h), PIL.Resampling.BILINEAR)
    top, left, bottom, right = crop
    share: NDArray[np.float32] = np.clip(np.asarray(picture.crop((left, top, right, bottom))), 0, 1)
    return share


def _finite(numbers: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(numbers, dtype=np.float64)
    if not (np.abs(array) < FAR).all():  # false for nan
        raise ValueError("a coordinate is not finite")
    return array

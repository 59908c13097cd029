"""Maps as arrays: from a method's raw output to the heatmap that is shown, compared and stored."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

SKETCH = 28
A = TypeVar("A", bound=Any)  # a numpy array or torch tensor


@dataclass(frozen=True)
class Attribution:
    """One explanation.

    Attributes:
        map: float32, (H, W), or (C, H, W) with reduce=none; signed as the method gives it, never rescaled.
        target: class index that is explained; `label` its name, None where names are unknown.
        probability: softmax probability of the target on the clean image.
        notes: numbers the method reports of its own run, such as `completeness_gap`.
        input: what the classifier saw, uint8, (H, W, 3) or (H, W).
        extras: further arrays that pictures show, by name.
    """

    map: NDArray[np.float32]
    target: int
    label: str | None
    probability: float
    notes: dict[str, float | None] = field(default_factory=dict)
    input: NDArray[np.uint8] | None = None
    extras: dict[str, NDArray[Any]] = field(default_factory=dict)


def finish(raw: A, sign: str, reduce: str) -> A:
    """Apply `sign`, then `reduce` over channels, to a raw map (C, H, W); a raw (H, W) has nothing to reduce.

    Takes and returns a numpy array or a torch tensor. The order matters: mean |g| is not |mean g|.
    """
    array: Any = abs(raw) if sign == "abs" else raw
    if reduce != "none" and array.ndim == 3:
        if reduce == "max":
            array = array.max(0) if isinstance(array, np.ndarray) else array.amax(0)
        else:
            array = array.mean(0) if reduce == "mean" else array.sum(0)
    return cast(A, array)


def flat(heatmap: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) for drawing and sketching: the channel mean of a (C, H, W) map."""
    return heatmap if heatmap.ndim == 2 else heatmap.mean(0)


def sketch(heatmap: NDArray[np.float32]) -> tuple[str, float]:
    """Area means on a 28 x 28 grid as (base64 of little-endian float16, scale); map ~ float16 * scale.

    The scale is the largest magnitude, so that small gradients keep their digits in half precision.
    """
    plane = flat(heatmap).astype(np.float64)
    small = _area(plane.shape[0]) @ plane @ _area(plane.shape[1]).T
    scale = float(np.abs(small).max())
    half = (small / scale if scale > 0 else small).astype("<f2")
    return base64.b64encode(half.tobytes()).decode(), scale


def unsketch(text: str, scale: float) -> NDArray[np.float64]:
    """The (28, 28) means that `sketch` wrote, signed, in the map's units.

    Raises:
        ValueError: it is not base64 of 28 x 28 finite half-precision numbers, or the scale is not a finite size.
    """
    data = base64.b64decode(text, validate=True)
    if len(data) != 2 * SKETCH * SKETCH:
        raise ValueError(f"a sketch has {2 * SKETCH * SKETCH} bytes, not {len(data)}")
    values = np.frombuffer(data, "<f2").astype(np.float64)
    if not (np.isfinite(values).all() and 0 <= scale < 1e300):
        raise ValueError("a sketch holds finite numbers and a finite scale of 0 or more")
    return values.reshape(SKETCH, SKETCH) * scale


def _area(side: int) -> NDArray[np.float64]:
    """(28, side) weights, rows summing to 1: each output cell averages the stretch of input it covers."""
    edges = np.linspace(0, side, SKETCH + 1)
    left = np.maximum(edges[:-1, None], np.arange(side)[None, :])
    right = np.minimum(edges[1:, None], np.arange(1, side + 1)[None, :])
    weights: NDArray[np.float64] = np.clip(right - left, 0, None) * (SKETCH / side)
    return weights


def resize_spline(values: NDArray[np.floating], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Order-5 spline resize stretched over the whole frame, clipped to the range of `values`.

    Equals `skimage.transform.resize(values, shape, order=5)` when no side shrinks.
    """
    from scipy.ndimage import zoom

    factors = (shape[0] / values.shape[0], shape[1] / values.shape[1])
    out = zoom(values.astype(np.float64), factors, order=5, mode="mirror", grid_mode=True)
    clipped: NDArray[np.float32] = np.clip(out, values.min(), values.max()).astype(np.float32)
    return clipped

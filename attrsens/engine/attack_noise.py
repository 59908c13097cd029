"""Noise as large as what an attack did: what a change of no skill does to a map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrsens.seeds import Stream

if TYPE_CHECKING:
    from torch import Tensor

CONTROLS = 3  # draws


def noisy_images(pixels: Tensor, image: str, size: float) -> list[Tensor]:
    """The image with Gaussian noise, cut to [0, 1] and rounded to 8 bits, that is `size` in L2 as it then stands.

    Cutting and rounding change the norm, so that the draw is scaled by bisection until what is left of it has the norm,
    as near as 8 bits allow.

    Args:
        pixels: (C, H, W) in [0, 1], on the CPU.
        image: hash that keys the draws.
    """
    import torch

    stream = Stream(0, image, "attack noise")
    draws = [torch.from_numpy(stream.normal([i], tuple(pixels.shape))[0]) for i in range(CONTROLS)]
    return [_scaled(pixels, draw / draw.norm(), size) for draw in draws]


def _scaled(pixels: Tensor, direction: Tensor, size: float) -> Tensor:
    def at(scale: float) -> Tensor:
        return ((pixels + scale * direction).clamp(0, 1) * 255).round() / 255

    def gap(image: Tensor) -> float:
        return float((image - pixels).norm()) - size

    low, high = 0.0, size
    best = at(high)
    for _ in range(40):  # until it is large enough, or all is black or white
        if gap(best) >= 0:
            break
        low, high = high, 2 * high
        best = at(high)
    for _ in range(40):
        middle = (low + high) / 2
        tried = at(middle)
        off = gap(tried)
        if abs(off) < abs(gap(best)):
            best = tried
        low, high = (middle, high) if off < 0 else (low, middle)
    return best

"""CIELUV, and lattices of colours that are looked up between their nodes.

Colours are channels first, (B, 3, ...). sRGB is in [0, 1], white is D65 (CIE 1931, 2 degrees). CIELUV is scaled as in
ReColorAdv: (L / 100, (u + 100) / 200, (v + 100) / 200), so that L is in [0, 1] and 1 unit of it is 100, of the others
200. Colours of sRGB have u in [-83, 175] and v in [-134, 107]: saturated reds and blues lie outside [0, 1] when scaled.

Constants are those of skimage.color (IEC 61966-2-1, rounded), with which `luv` agrees to rounding. The white there is
(u', v') = (0.19784, 0.46834), which ReColorAdv rounds to (0.1978, 0.4683); that shifts its greys by u, v < 0.06.

Laidlaw & Feizi 2019; CIE 15:2004; methods 5.4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LATTICE = (16, 32, 32)  # nodes along L, u and v
FROM_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
TO_RGB = torch.linalg.inv(torch.tensor(FROM_RGB, dtype=torch.float64)).tolist()
WHITE = (0.95047, 1.0, 1.08883)  # X, Y, Z of D65
WHITE_U = 4 * WHITE[0] / (WHITE[0] + 15 * WHITE[1] + 3 * WHITE[2])
WHITE_V = 9 * WHITE[1] / (WHITE[0] + 15 * WHITE[1] + 3 * WHITE[2])
BEND, SLOPE = 0.008856, 903.3  # below this luminance lightness is a line, of this slope
TINY = 1e-10
# (u', v') that sRGB can show lie within; beyond, near v' = 0, a dark colour would turn into a glaring one
U_RANGE, V_RANGE = (0.12, 0.46), (0.15, 0.57)


def luv(rgb: Tensor) -> Tensor:
    """sRGB (B, 3, ...) in [0, 1] as scaled CIELUV of the same shape. Black is (0, 0.5, 0.5), with finite gradients."""
    high = ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    x, y, z = _mixed(torch.where(rgb > 0.04045, high, rgb / 12.92), FROM_RGB)
    lightness = torch.where(y > BEND, 116 * y.clamp(min=BEND) ** (1 / 3) - 16, SLOPE * y)
    total = (x + 15 * y + 3 * z).clamp(min=TINY)
    u = 13 * lightness * (4 * x / total - WHITE_U)
    v = 13 * lightness * (9 * y / total - WHITE_V)
    return torch.stack([lightness / 100, (u + 100) / 200, (v + 100) / 200], 1)


def rgb(luv: Tensor) -> Tensor:
    """Scaled CIELUV (B, 3, ...) as sRGB in [0, 1]: the inverse of `luv`, and cut to what sRGB can show: (u', v') to the
    rectangle around its colours, then each channel. Gradients are finite, and 0 along what is cut."""
    lightness, u, v = 100 * luv[:, 0], 200 * luv[:, 1] - 100, 200 * luv[:, 2] - 100
    low = SLOPE * BEND  # of the lightness
    y = torch.where(lightness > low, ((lightness.clamp(min=low) + 16) / 116) ** 3, lightness / SLOPE)
    scale = 13 * lightness.clamp(min=1e-6)
    across, up = (u / scale + WHITE_U).clamp(*U_RANGE), (v / scale + WHITE_V).clamp(*V_RANGE)
    x, z = y * 9 * across / (4 * up), y * (12 - 3 * across - 20 * up) / (4 * up)
    linear = within(torch.stack(_mixed(torch.stack([x, y, z], 1), TO_RGB), 1))
    high = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return within(torch.where(linear > 0.0031308, high, linear * 12.92))


def within(values: Tensor) -> Tensor:
    """Values cut to [0, 1]. Gradients pass from 0 to 1 with both ends and what rounding puts beyond them, so that black
    and white can be moved; `clamp` stops them at the ends."""
    cut = values.detach().clamp(0, 1)
    return torch.where((values - cut).abs() <= 1e-4, values + (cut - values.detach()), cut)


def _mixed(channels: Tensor, rows: tuple[tuple[float, ...], ...] | list[list[float]]) -> list[Tensor]:
    a, b, c = channels.unbind(1)
    return [p * a + q * b + r * c for p, q, r in rows]


def delta_e(one: Tensor, other: Tensor) -> Tensor:
    """CIELUV's difference of two pictures (B, 3, H, W) in sRGB, the mean over pixels, (B,); 1 is barely seen."""
    step = luv(one) - luv(other)
    units = step.new_tensor([100.0, 200.0, 200.0]).reshape(1, 3, 1, 1)
    return (step * units).square().sum(1).sqrt().flatten(1).mean(1)


def nodes(like: Tensor) -> Tensor:
    """The colours at the nodes, (16, 32, 32, 3) in [0, 1], scaled CIELUV."""
    axes = [torch.linspace(0, 1, n, dtype=like.dtype, device=like.device) for n in LATTICE]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def lookup(lattices: Tensor, colours: Tensor) -> Tensor:
    """What lattices (B, 16, 32, 32, K) hold at colours (B, 3, H, W): trilinear between nodes, (B, K, H, W).

    Every image has a lattice of its own. A colour outside [0, 1] gets what the nearest face holds.
    """
    at = 2 * colours.flip(1).permute(0, 2, 3, 1)[:, None] - 1  # grid_sample names the last axis first
    found = F.grid_sample(lattices.permute(0, 4, 1, 2, 3), at, padding_mode="border", align_corners=True)
    return found[:, :, 0]

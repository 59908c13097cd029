"""sRGB and CIELUV, differentiable: the space in which ReColor maps colours."""

from __future__ import annotations

import torch
from torch import Tensor

# linear sRGB to XYZ (IEC 61966-2-1), and the white of D65 in u', v' (methods 5.4)
TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.19783982, 0.46833630)
TINY = 1e-10


def to_luv(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1], (B, 3, ...), as (L/100, (u + 100)/200, (v + 100)/200); black has u = v = 0."""
    low, high = rgb / 12.92, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    linear = torch.where(rgb <= 0.04045, low, high)
    x, y, z = torch.einsum("ij,bj...->ib...", linear.new_tensor(TO_XYZ), linear)
    whole = (x + 15 * y + 3 * z).clamp(min=TINY)
    small, large = 903.2963 * y, 116 * y.clamp(min=0.008856) ** (1 / 3) - 16
    lightness = torch.where(y <= 0.008856, small, large)
    u = 13 * lightness * (4 * x / whole - WHITE[0])
    v = 13 * lightness * (9 * y / whole - WHITE[1])
    return torch.stack([lightness / 100, (u + 100) / 200, (v + 100) / 200], 1)


def to_rgb(luv: Tensor) -> Tensor:
    """The inverse of `to_luv`, cut to sRGB's gamut."""
    lightness = (100 * luv[:, 0]).clamp(min=1e-6)
    u = (200 * luv[:, 1] - 100) / (13 * lightness) + WHITE[0]
    v = ((200 * luv[:, 2] - 100) / (13 * lightness) + WHITE[1]).clamp(min=1e-4)
    small, large = lightness / 903.2963, ((lightness.clamp(min=8) + 16) / 116) ** 3
    y = torch.where(lightness <= 8, small, large)
    x = 9 * y * u / (4 * v)
    z = y * (12 - 3 * u - 20 * v) / (4 * v)
    back = torch.linalg.inv(torch.tensor(TO_XYZ, dtype=torch.float64)).tolist()
    linear = torch.stack([a * x + b * y + c * z for a, b, c in back], 1)
    low, high = 12.92 * linear, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, low, high).clamp(0, 1)


def difference(a: Tensor, b: Tensor) -> Tensor:
    """CIELUV Delta E of two stacks of sRGB images, (B, H, W)."""
    scale = torch.tensor([100.0, 200.0, 200.0]).to(a).reshape(1, 3, 1, 1)
    found: Tensor = ((to_luv(a) - to_luv(b)) * scale).norm(dim=1)
    return found

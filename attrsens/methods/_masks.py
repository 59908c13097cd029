"""What masks of meaningful perturbation are made of: blurs and enlargements as matrices, discs, total variation.

A blur or an enlargement of (..., H, W) is `rows @ images @ columns.T`, with the edges inside the matrices; the
transposed matrices take gradients back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

RADII = range(0, 175, 5)  # of the discs tried for the first mask, pixels
DISC_SD = 10.0  # their soft edge
Edge = Literal["reflect", "symmetric", "replicate"]


def within(places: Tensor, side: int, edge: Edge) -> Tensor:
    """Indices into `side` of places that may lie outside: the last pixel once (reflect) or twice (symmetric) or for
    ever (replicate)."""
    if edge == "replicate" or side == 1:
        return places.clamp(0, side - 1)
    if edge == "reflect":
        places = places.abs() % (2 * side - 2)
        return (side - 1 - (places - (side - 1)).abs()).long()
    places = places % (2 * side)
    return places.minimum(2 * side - 1 - places)


def gaussian(side: int, sd: float, edge: Edge) -> Tensor:
    """(side, side) float32: blur with a Gaussian of `sd` pixels, cut at four of them; each row sums to 1."""
    import torch

    reach = int(4 * sd + 0.5)
    if reach == 0:
        return torch.eye(side)
    taps = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (taps.double() / sd) ** 2)
    places = within(torch.arange(side)[:, None] + taps, side, edge)
    out = torch.zeros(side, side, dtype=torch.float64)
    return out.scatter_add_(1, places, (weights / weights.sum()).expand(side, -1)).float()


def blur(images: Tensor, sd: float | tuple[float, float], edge: Edge = "replicate") -> Tensor:
    """Gaussian blur of (..., H, W), by one sd or one down and one across, pixels. `sd` is the radius of Pillow's
    GaussianBlur, which approximates it by three boxes and continues the edges anew for each: 3 of 255 levels apart
    inside, up to 11 at edges."""
    down, across = sd if isinstance(sd, tuple) else (sd, sd)
    height, width = images.shape[-2:]
    return gaussian(height, down, edge).to(images) @ images @ gaussian(width, across, edge).to(images).T


def enlarge(cells: int, side: int, sd: float = 0.0) -> Tensor:
    """(side, cells) float32: nearest enlargement, then a blur of `sd` pixels."""
    import torch

    nearest = torch.eye(cells)[torch.arange(side) * cells // side]
    return gaussian(side, sd, "replicate") @ nearest if sd else nearest


def discs(height: int, width: int, like: Tensor) -> Tensor:
    """(35, height, width): 1 minus a disc of each of `RADII` pixels around the centre, edges softened by 10 pixels."""
    import torch

    rows, columns = (torch.arange(side, device=like.device) - side // 2 for side in (height, width))
    square = rows[:, None] ** 2 + columns**2
    inside = torch.stack([square <= radius**2 for radius in RADII]).to(like)
    return 1 - blur(inside, DISC_SD, "symmetric").clamp_(0, 1)


def variation(masks: Tensor, power: float, kind: str) -> tuple[Tensor, Tensor]:
    """Total variation (B,) of masks (B, h, w) over forward differences dy and dx, and its gradient (B, h, w).

    aniso: sum |dy|^power + |dx|^power; iso: sum (dy^2 + dx^2)^(power/2), a difference across the border being 0. Where
    a difference is 0 so is the gradient.
    """
    import torch
    import torch.nn.functional as F

    dy, dx = F.pad(masks.diff(dim=1), (0, 0, 0, 1)), F.pad(masks.diff(dim=2), (0, 1))
    if kind == "aniso":
        sizes = torch.stack([dy.abs(), dx.abs()])
        slopes = power * sizes.pow(power - 1) * torch.stack([dy.sign(), dx.sign()])
    else:
        sizes = torch.hypot(dy, dx)
        factor = torch.where(sizes > 0, power * sizes.pow(power - 2), 0.0)
        slopes = factor * torch.stack([dy, dx])
        sizes = sizes[None]
    down, right = slopes  # of the value, by each difference: it rises with the further pixel, falls with the nearer
    gradient = F.pad(down, (0, 0, 1, 0))[:, :-1] - down + F.pad(right, (1, 0))[:, :, :-1] - right
    return sizes.pow(power).sum((0, 2, 3)), gradient

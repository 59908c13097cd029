"""What attacks on explanations may do to an image: add to it, move its pixels, map its colours.

Each family is made for a batch of images (B, C, H, W) in [0, 1] and one bound an image, (B,). Its parameters are the
distance from doing nothing, so that they start at 0, and `bound` is how far each entry may go either way. Nothing in a
batch looks at a neighbour: images, bounds, penalties and sizes are one an image. Types are kept, float64 included.

- recolor: a function of colour, on a lattice in CIELUV, the same for all pixels (ReColorAdv: Laidlaw & Feizi 2019)
- stadv: a flow of pixels (StAdv: Xiao et al. 2018)
- delta: something added

Several are applied in this order, each to what the one before gave, and optimised jointly (SMO; methods 5.2 to 5.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
from torch import Tensor

from attrsens.attacks._colours import LATTICE, delta_e, lookup, luv, nodes, rgb, within
from attrsens.errors import AttrsensError, InputError, unknown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROUND = 1e-10  # under the roots of penalties, so that they have a slope at 0


class Family(Protocol):
    """One way to change images.

    Attributes:
        name: delta, stadv or recolor.
        bound: (B, 1, ...), which multiplies parameters: how far an entry may go from 0.
    """

    name: ClassVar[str]
    bound: Tensor

    def start(self) -> Tensor:
        """The parameters that change nothing: zeros, one row an image."""

    def project(self, params: Tensor, images: Tensor | None = None) -> Tensor:
        """The nearest parameters that are allowed. Twice is once; gradients pass where nothing is cut.

        `images` are those to which the parameters will be applied, if not those that the family was made for.
        """

    def apply(self, params: Tensor, images: Tensor) -> Tensor:
        """The images (B, C, H, W) changed by parameters that are allowed."""

    def penalty(self, params: Tensor) -> Tensor:
        """The published regulariser, small where the parameters are smooth: a sum, (B,)."""

    def size(self, params: Tensor) -> dict[str, Tensor]:
        """How large the change is, by name, each (B,)."""

    def pictures(self, params: Tensor) -> dict[str, NDArray[np.float32]]:
        """What a report may show, by name, each (B, ...)."""


class Delta:
    """x + d, the most by which a channel changes bounded by eps in pixel units.

    Parameters are d, (B, C, H, W). It is shortened so that x + d stays in [0, 1], x being the image before d is added.
    """

    name: ClassVar[str] = "delta"

    def __init__(self, images: Tensor, eps: Tensor) -> None:
        self.images, self.bound = images.detach(), _wide(eps, images, 3)

    def start(self) -> Tensor:
        return torch.zeros_like(self.images)

    def project(self, params: Tensor, images: Tensor | None = None) -> Tensor:
        x = self.images if images is None else images
        return _cut(params, torch.maximum(-x, -self.bound), torch.minimum(1 - x, self.bound))

    def apply(self, params: Tensor, images: Tensor) -> Tensor:
        return within(images + params)

    def penalty(self, params: Tensor) -> Tensor:
        return params.new_zeros(len(params))

    def size(self, params: Tensor) -> dict[str, Tensor]:
        """Largest change of a channel, and length of the whole, in pixel units."""
        flat = params.detach().flatten(1)
        return {"delta_linf": flat.abs().amax(1), "delta_l2": flat.norm(dim=1)}

    def pictures(self, params: Tensor) -> dict[str, NDArray[np.float32]]:
        return {}


class StAdv:
    """Every pixel reads the image at a place near its own, between pixels by bilinear interpolation.

    Parameters are the displacement of that place, (B, H, W, 2), to the right and down, in `grid_sample`'s coordinates
    with align_corners: 2 is from the middle of the first pixel to that of the last, so that 1 is (W - 1)/2 or (H - 1)/2
    pixels. The bound holds for each axis. A place never leaves the image, so nothing is padded; that is also the slope
    at the edge, where `grid_sample`'s would be towards black.

    The penalty is the sum over pixels and their 4 neighbours of sqrt(du^2 + dv^2 + 1e-10), the neighbours of an edge
    being the edge itself. Differences are of places as integers plus a displacement, so that 0 gives the image back
    exactly, which `grid_sample` in float32 does not.
    """

    name: ClassVar[str] = "stadv"

    def __init__(self, images: Tensor, bound: Tensor) -> None:
        self.shape, self.bound = images.shape, _wide(bound, images, 3)
        height, width = images.shape[-2:]
        self.pixels = images.new_tensor([(width - 1) / 2, (height - 1) / 2])  # a unit, right and down
        down, right = (torch.arange(n, device=images.device) for n in (height, width))
        self.own = torch.stack(torch.meshgrid(right, down, indexing="xy"), -1)  # (H, W, 2), whole pixels
        at = self.own / self.pixels.clamp(min=0.5)
        self.low, self.high = -at, at.flip(0, 1)  # to the left and upper, to the right and lower end

    def start(self) -> Tensor:
        batch, _, height, width = self.shape
        return self.bound.new_zeros(batch, height, width, 2)

    def project(self, params: Tensor, images: Tensor | None = None) -> Tensor:
        return _cut(params, torch.maximum(self.low, -self.bound), torch.minimum(self.high, self.bound))

    def apply(self, params: Tensor, images: Tensor) -> Tensor:
        channels, height, width = images.shape[1:]
        step = params * self.pixels
        last = step.new_tensor([width - 2, height - 2]).clamp(min=0)
        whole = (step.detach().floor() + self.own).clamp(torch.zeros_like(last), last)
        share = step - (whole - self.own)  # of the next pixel
        left, top = whole.long().unbind(-1)
        right, down = int(width > 1), width * int(height > 1)
        corner = (top * width + left).flatten(1)
        flat = images.flatten(2)

        def read(offset: int) -> Tensor:
            return flat.gather(2, (corner + offset)[:, None].expand(-1, channels, -1))

        across, up = (part.flatten(1)[:, None] for part in share.unbind(-1))
        upper = torch.lerp(read(0), read(right), across)
        lower = torch.lerp(read(down), read(down + right), across)
        return torch.lerp(upper, lower, up).reshape(images.shape)

    def penalty(self, params: Tensor) -> Tensor:
        return _roughness(params)

    def size(self, params: Tensor) -> dict[str, Tensor]:
        """Mean and largest length of a pixel's way, in pixels."""
        ways = (params.detach() * self.pixels).norm(dim=-1).flatten(1)
        return {"flow_mean": ways.mean(1), "flow_max": ways.amax(1)}

    def pictures(self, params: Tensor) -> dict[str, NDArray[np.float32]]:
        """The displacement in pixels, right and down, (B, 2, H, W)."""
        return {"flow": _array((params * self.pixels).permute(0, 3, 1, 2))}


class ReColor:
    """Every colour becomes another, by a lattice of its own for each image; places do not matter.

    Parameters are what is added at the nodes, (B, 16, 32, 32, 3), in scaled CIELUV (`_colours`), interpolated linearly
    in between. The bound holds for each coordinate; a node stays in [0, 1]. Results are cut to sRGB.

    A lattice that holds colours gives the same as one that holds changes, but for those of sRGB that lie outside it
    (u above 100, v below -100): the changes of the nearest face leave them their saturation.

    The penalty is the sum over nodes and their 6 neighbours of the root of the squared difference plus 1e-10, the
    neighbours of a face being the face itself.

    Raises:
        InputError: the images have not 3 channels.
    """

    name: ClassVar[str] = "recolor"

    def __init__(self, images: Tensor, bound: Tensor, space: str = "luv") -> None:
        if images.shape[1] != 3:
            raise InputError(f"recolor maps colours; an image of {images.shape[1]} channel(s) has none: needs 3")
        if space != "luv":
            raise unknown("colour space", space, ["luv"])
        self.images, self.bound = images.detach(), _wide(bound, images, 4)
        own = nodes(images)
        self.low, self.high = -own, 1 - own

    def start(self) -> Tensor:
        return self.images.new_zeros(len(self.images), *LATTICE, 3)

    def project(self, params: Tensor, images: Tensor | None = None) -> Tensor:
        return _cut(params, torch.maximum(self.low, -self.bound), torch.minimum(self.high, self.bound))

    def apply(self, params: Tensor, images: Tensor) -> Tensor:
        colours = luv(images)
        return rgb(colours + lookup(params, colours))

    def penalty(self, params: Tensor) -> Tensor:
        return _roughness(params)

    def size(self, params: Tensor) -> dict[str, Tensor]:
        """Mean and largest change of a coordinate over the lattice, scaled; the image's mean CIELUV difference."""
        step = params.detach().abs().flatten(1)
        seen = delta_e(self.apply(params.detach(), self.images), self.images)
        return {"colour_mean": step.mean(1), "colour_max": step.amax(1), "delta_e": seen}

    def pictures(self, params: Tensor) -> dict[str, NDArray[np.float32]]:
        """The images in their new colours alone, (B, 3, H, W)."""
        return {"recoloured": _array(self.apply(params.detach(), self.images))}


def families(names: str, images: Tensor, eps: Tensor, flow_eps: Tensor, colour_eps: Tensor) -> list[Family]:
    """The families of a name like "delta-stadv-recolor", in the order in which they are applied.

    Args:
        images: (B, C, H, W) in [0, 1].
        eps, flow_eps, colour_eps: the bounds of delta, stadv and recolor, one an image, (B,).

    Raises:
        AttrsensError: a family is unknown or named twice; as InputError, recolor is asked for without colours.
    """
    asked = names.split("-")
    for name in asked:
        if name not in ("delta", "stadv", "recolor"):
            raise unknown("perturbation", name, ["delta", "stadv", "recolor"])
    if len(set(asked)) < len(asked):
        raise AttrsensError(f"perturbation {names!r} names one family twice")
    found: list[Family] = []
    if "recolor" in asked:
        found.append(ReColor(images, colour_eps))
    if "stadv" in asked:
        found.append(StAdv(images, flow_eps))
    if "delta" in asked:
        found.append(Delta(images, eps))
    return found


def perturbed(families: Sequence[Family], params: Sequence[Tensor], images: Tensor) -> Tensor:
    """The images (B, C, H, W) after every family in turn, in [0, 1]; parameters are first cut to what is allowed."""
    for family, own in zip(families, params, strict=True):
        images = family.apply(family.project(own, images), images)
    return within(images)


def projected(families: Sequence[Family], params: Sequence[Tensor], images: Tensor) -> list[Tensor]:
    """All parameters cut to what is allowed, each for the image that the families before it give, without a graph."""
    found = []
    with torch.no_grad():
        for family, own in zip(families, params, strict=True):
            found.append(family.project(own, images))
            images = family.apply(found[-1], images)
    return found


def _wide(bound: Tensor, images: Tensor, axes: int) -> Tensor:
    """One number an image, (B,), to be multiplied with parameters that have more axes."""
    if bound.shape != images.shape[:1]:
        raise AttrsensError(f"bounds are one an image, {len(images)}; got the shape {tuple(bound.shape)}")
    return bound.detach().to(images).reshape(-1, *[1] * axes)


def _cut(params: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Parameters between two bounds. On a bound the whole gradient passes, of which `clamp` lets half or none through,
    so that what was cut before can come back."""
    return torch.where(params > high, high, torch.where(params < low, low, params))


def _roughness(field: Tensor) -> Tensor:
    """Of a field of vectors (B, *grid, K): the sum over points and neighbours along axes of sqrt(|difference|^2 +
    1e-10), (B,). At an end the neighbour is the point itself."""
    total = field.new_zeros(len(field))
    for axis in range(1, field.dim() - 1):
        steps = (field.diff(dim=axis).square().sum(-1) + ROUND).sqrt().flatten(1)
        ends = 2 * field[0].numel() // (field.shape[axis] * field.shape[-1])
        total = total + 2 * steps.sum(1) + ends * ROUND**0.5
    return total


def _array(values: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = values.detach().float().cpu().numpy()
    return found

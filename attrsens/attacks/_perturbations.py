"""What attacks do to images: add to them (Delta), move their pixels (StAdv), map their colours (ReColor).

Each is a class over a batch of images (B, C, H, W) in [0, 1]; parameters are displacements from the identity, which is
zero, so that the identity returns the image exactly (ReColor: but for the way to CIELUV and back). Nothing couples the
images of a batch, and every image has its own bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from attrsens.attacks._colours import difference, to_luv, to_rgb
from attrsens.errors import InputError

LATTICE = (16, 32, 32)  # of L, u and v
FLAT = 1e-10  # under the roots of the regularisers


class Perturbation:
    """A family of perturbations.

    Attributes:
        bound: largest magnitude of a parameter, (B, 1, ...).
    """

    name: ClassVar[str]

    def __init__(self, images: Tensor, bound: Tensor) -> None:
        self.images = images
        self.bound = bound.reshape(-1, *(1,) * (len(self.shape()) - 1)).to(images)

    def shape(self) -> tuple[int, ...]:
        """Of the parameters, (B, ...)."""
        raise NotImplementedError

    def start(self) -> Tensor:
        """The identity."""
        return self.images.new_zeros(self.shape())

    def project(self, params: Tensor) -> Tensor:
        """Parameters within their bounds; inside them the identity, which gradients pass."""
        return torch.minimum(torch.maximum(params, -self.bound), self.bound)

    def apply(self, params: Tensor, images: Tensor) -> Tensor:
        """The perturbed images, in [0, 1]."""
        raise NotImplementedError

    def penalty(self, params: Tensor) -> Tensor:
        """How rough the perturbation is, (B,)."""
        return params.new_zeros(len(params))

    def size(self, params: Tensor) -> dict[str, Tensor]:
        """Magnitudes for reports, (B,) each."""
        raise NotImplementedError

    def pictures(self, params: Tensor) -> Mapping[str, NDArray[np.float32]]:
        """What pictures show of it, (B, ...) each."""
        return {}


class Delta(Perturbation):
    """Adds: x + d, |d| <= bound in pixels' units, cut so that the sum stays in [0, 1] (methods 5.2)."""

    name = "delta"

    def shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape)

    def apply(self, params: Tensor, images: Tensor) -> Tensor:
        return (images + self.project(params)).clamp(0, 1)

    def size(self, params: Tensor) -> dict[str, Tensor]:
        return {"delta_linf": params.flatten(1).abs().amax(1)}


class StAdv(Perturbation):
    """Moves pixels: the image is sampled, bilinearly, at its own places plus a flow (B, H, W, 2), (right, down), where
    the image spans [-1, 1] from the centre of the first pixel to that of the last; sampling places stay inside.

    Xiao et al. 2018; methods 5.3. A bound of .05 is .05 (W - 1)/2 pixels, 5.6 of 224. Any aspect.
    """

    name = "stadv"

    def shape(self) -> tuple[int, ...]:
        count, _, height, width = self.images.shape
        return count, height, width, 2

    def pixels(self, params: Tensor) -> Tensor:
        """The flow in pixels, (B, H, W, 2), cut so that it points into the image."""
        height, width = self.images.shape[-2:]
        scale = params.new_tensor([(width - 1) / 2, (height - 1) / 2])
        return self.project(params) * scale

    def apply(self, params: Tensor, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        flow = self.pixels(params)
        down = torch.arange(height, device=images.device, dtype=flow.dtype)[:, None]
        right = torch.arange(width, device=images.device, dtype=flow.dtype)[None]
        x, y = (right + flow[..., 0]).clamp(0, width - 1), (down + flow[..., 1]).clamp(0, height - 1)
        left, top = x.detach().floor().clamp(max=max(width - 2, 0)), y.detach().floor().clamp(max=max(height - 2, 0))
        a, b = (x - left)[:, None], (y - top)[:, None]
        flat = images.flatten(2)

        def at(i: Tensor, j: Tensor) -> Tensor:
            places = (i.clamp(max=height - 1) * width + j.clamp(max=width - 1)).long().flatten(1)[:, None]
            return flat.gather(2, places.expand(-1, images.shape[1], -1)).reshape(images.shape)

        upper = at(top, left) * (1 - a) + at(top, left + 1) * a
        lower = at(top + 1, left) * (1 - a) + at(top + 1, left + 1) * a
        return (upper * (1 - b) + lower * b).clamp(0, 1)

    def penalty(self, params: Tensor) -> Tensor:
        """Sum over pixels and their four neighbours, edges repeated, of the length of the difference of their flows."""
        return _roughness(self.project(params).permute(0, 3, 1, 2))

    def size(self, params: Tensor) -> dict[str, Tensor]:
        length = self.pixels(params).norm(dim=-1).flatten(1)
        return {"flow_mean": length.mean(1), "flow_max": length.amax(1)}

    def pictures(self, params: Tensor) -> Mapping[str, NDArray[np.float32]]:
        return {"flow": self.pixels(params).float().cpu().numpy()}


class ReColor(Perturbation):
    """Maps colours: each colour of the image moves by what a lattice of 16 x 32 x 32 displacements over CIELUV says at
    its place, trilinearly; each axis is scaled to [0, 1] (methods 5.4). Colours stay in [0, 1] and in sRGB's gamut.

    Laidlaw and Feizi 2019. Parameters are (B, 3, 16, 32, 32), the displacements of L, u and v.

    Raises:
        InputError: the images are not RGB.
    """

    name = "recolor"

    def __init__(self, images: Tensor, bound: Tensor) -> None:
        if images.shape[1] != 3:
            raise InputError(f"recolor maps colours, of which this input with {images.shape[1]} channel has none")
        super().__init__(images, bound)
        self.luv = to_luv(images)

    def shape(self) -> tuple[int, ...]:
        return len(self.images), 3, *LATTICE

    def apply(self, params: Tensor, images: Tensor) -> Tensor:
        luv = self.luv if images is self.images else to_luv(images)
        places = (2 * luv - 1).clamp(-1, 1).permute(0, 2, 3, 1).flip(-1)[:, None]  # (v, u, L), as the sampler has it
        shift = F.grid_sample(self.project(params), places, mode="bilinear", padding_mode="border", align_corners=True)
        return to_rgb((luv + shift[:, :, 0]).clamp(0, 1))

    def penalty(self, params: Tensor) -> Tensor:
        """Sum over lattice points and their six neighbours, edges repeated, of the length of the difference of their
        displacements."""
        return _roughness(self.project(params))

    def size(self, params: Tensor) -> dict[str, Tensor]:
        length = self.project(params).norm(dim=1).flatten(1)
        shift = difference(self.apply(params, self.images), self.images).flatten(1).mean(1)
        return {"colour_mean": length.mean(1), "colour_max": length.amax(1), "delta_e": shift}

    def pictures(self, params: Tensor) -> Mapping[str, NDArray[np.float32]]:
        return {"recoloured": self.apply(params, self.images).float().cpu().numpy()}


FAMILIES: tuple[type[Perturbation], ...] = (ReColor, StAdv, Delta)  # in the order in which they act (methods 5.5)


def families(names: str, images: Tensor, eps: Tensor, flow_eps: Tensor, colour_eps: Tensor) -> list[Perturbation]:
    """Those that `names`, such as "delta-stadv", holds, in the order in which they act: ReColor, StAdv, Delta.

    Args:
        eps, flow_eps, colour_eps: the bound of each image, (B,).
    """
    wanted = names.split("-")
    bounds = {"delta": eps, "stadv": flow_eps, "recolor": colour_eps}
    return [family(images, bounds[family.name]) for family in FAMILIES if family.name in wanted]


def perturbed(moves: Sequence[Perturbation], params: Sequence[Tensor], images: Tensor) -> Tensor:
    """The images after one family after the other, in [0, 1]."""
    for move, own in zip(moves, params, strict=True):
        images = move.apply(own, images)
    return images


def _roughness(field: Tensor) -> Tensor:
    """For a field (B, C, ...): the sum over places and neighbours along every axis, both ways, of the length of the
    difference; at the edges, whose neighbour is themselves, sqrt(1e-10)."""
    total = field.new_zeros(len(field))
    for axis in range(2, field.dim()):
        steps = field.diff(dim=axis).square().sum(1).add(FLAT).sqrt().flatten(1).sum(1)
        edges = 2 * field[:, 0].numel() / len(field) / field.shape[axis] * FLAT**0.5
        total = total + 2 * steps + edges
    return total

"""The spaces of a classifier's input: pixels in [0, 1], normalised, and as the network takes them."""

from __future__ import annotations

import torch
from torch import Tensor

from attrsens.models.form import Form


class Spaces:
    """What a `Classifier` knows of them.

    Attributes:
        space: "pixel" or "normalized": of what goes in, and of what gradients refer to.
        dtype: of passes; float64 is for tests of derivatives.
    """

    space: str
    dtype: torch.dtype
    device: torch.device
    _mean: Tensor
    _std: Tensor
    _clamps: bool

    @property
    def form(self) -> Form | None:
        """What was done to the network for speed; None before its first pass, which settles it."""
        raise NotImplementedError

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1], (..., C, H, W), as this view's input space has them, on the device."""
        pixels = pixels.to(self.device, self.dtype)
        return pixels if self.space == "pixel" else (pixels - self._mean) / self._std

    def decode(self, images: Tensor) -> Tensor:
        """The inverse of `encode`."""
        return images if self.space == "pixel" else images * self._std + self._mean

    def colour(self, name: str) -> Tensor:
        """black, white, grey (0.5) or mean (the normaliser's) as (C, 1, 1) in this view's space."""
        values = {"black": 0.0, "white": 1.0, "grey": 0.5}
        pixel = self._mean if name == "mean" else torch.full_like(self._mean, values[name])
        return self.encode(pixel)

    def normalised(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in this view's space as the network takes them, in plain layout, on the device."""
        return self._normalised(images.to(self.device, self.dtype), Form())

    def laid_out(self, images: Tensor) -> Tensor:
        """As `normalised`, in the layout that passes run in, with the graph of the images."""
        return self._normalised(images, self.form or Form())

    def back(self, gradients: Tensor, images: Tensor) -> Tensor:
        """Gradients with respect to `laid_out(images)` as gradients with respect to the images."""
        found = gradients / self._std if self.space == "pixel" else gradients
        if self._clamps:
            pixels = self.decode(images)
            found = found * ((pixels >= 0) & (pixels <= 1))
        return found

    def _normalised(self, x: Tensor, form: Form) -> Tensor:
        """The network's own input, a copy, since it may work in place."""
        if self.space == "pixel":  # laid out last: few channels side by side make slow arithmetic
            x = ((x.clamp(0, 1) if self._clamps else x) - self._mean).div_(self._std)
            return x.contiguous(memory_format=form.layout)
        if self._clamps:
            x = x.clamp(min=-self._mean / self._std, max=(1 - self._mean) / self._std)
        return x.clone(memory_format=form.layout)

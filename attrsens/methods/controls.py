"""Controls: maps that explain nothing, to know what a similarity or a score gives for nothing (science C-1)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from attrsens.errors import AttrsensError
from attrsens.spec import METHODS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.classifier import Classifier
    from attrsens.seeds import Stream

OF = Param(
    "method whose map is taken, its own parameters at their defaults; output and space are those given here, so where "
    "its own default is prob, give output=prob",
    source="science C-1",
)
SEED = Param("seed of the draw", min=0, sweep=(0, 1, 2, 3, 4), reference=0)


@METHODS("random", version=1, gradient=False, cost="none")
def random(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    signed: Annotated[bool, Param("from -1 to 1; false: from 0 to 1, as mp's maps")] = True,
    seed: Annotated[int, SEED] = 0,
) -> Tensor:
    """Uniform noise, independent of image content, class and network.

    Methods 2.22. No pass.
    """
    draws = x.new_tensor(f.stream(seed, "random map").uniform([0], tuple(x.shape[-2:]))[0])
    return 2 * draws - 1 if signed else draws


@METHODS("constant", version=1, gradient=False, cost="none")
def constant(f: Classifier, x: Tensor, target: int) -> Tensor:
    """Ones everywhere.

    Methods 2.22. No pass.
    """
    return x.new_ones(x.shape[-2:])


@METHODS("edges", version=1, gradient=False, cost="none")
def edges(f: Classifier, x: Tensor, target: int) -> Tensor:
    """Sobel magnitude of the luminance: an edge detector that knows no network.

    sqrt(Gx^2 + Gy^2), kernels (1 2 1) x (1 0 -1) / 4, luminance .299 R + .587 G + .114 B of the pixels, edges repeated.
    Science C-1. No pass.
    """
    return sobel(f.decode(x))


def sobel(pixels: Tensor) -> Tensor:
    """Sobel magnitude (H, W) of the luminance of pixels (C, H, W)."""
    import torch
    import torch.nn.functional as F

    weights = pixels.new_tensor([0.299, 0.587, 0.114] if len(pixels) == 3 else [1.0])
    grey = F.pad((weights[:, None, None] * pixels).sum(0)[None, None], (1, 1, 1, 1), mode="replicate")
    kernel = pixels.new_tensor([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]]) / 4
    slopes = F.conv2d(grey, torch.stack([kernel, kernel.T])[:, None])[0]
    return slopes.square().sum(0).sqrt()


@METHODS("shuffle", version=1, gradient=True, cost="as the method it shuffles")
def shuffle(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    of: Annotated[str, OF] = "grad",
    seed: Annotated[int, SEED] = 0,
) -> Tensor:
    """A method's map with its pixels in random order: the same values, no places.

    All channels move together, so that a reduced map is shuffled as such. Science C-1.
    """
    return shuffled(_map_of(f, x, target, of), f.stream(seed, "shuffle"))


def shuffled(heatmap: Tensor, stream: Stream, index: int = 0) -> Tensor:
    """A map (..., H, W) with its pixels in random order, all channels alike; `index` tells draws apart."""
    import numpy as np
    import torch

    keys = stream.uniform([index], (heatmap.shape[-2] * heatmap.shape[-1],))[0]
    order = torch.from_numpy(np.argsort(keys, kind="stable")).to(heatmap.device)
    return heatmap.flatten(-2)[..., order].reshape(heatmap.shape)


@METHODS("phase", version=1, gradient=True, cost="as the method it scrambles")
def phase(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    of: Annotated[str, OF] = "grad",
    seed: Annotated[int, SEED] = 0,
) -> Tensor:
    """A method's map with its Fourier phases drawn anew: the same power spectrum and mean, no places.

    The phases are those of white noise, which makes the map real; all channels share them. Science C-1.
    """
    return scrambled(_map_of(f, x, target, of), f.stream(seed, "phase"))


def scrambled(heatmap: Tensor, stream: Stream, index: int = 0) -> Tensor:
    """A map (..., H, W) with its phases drawn anew, all channels alike; `index` tells draws apart."""
    import torch

    noise = heatmap.new_tensor(stream.normal([index], tuple(heatmap.shape[-2:]))[0])
    angles = torch.fft.rfft2(noise.double())
    turn = angles / angles.abs().clamp(min=1e-300)
    turn[0, 0] = 1  # the mean stays
    spectrum = torch.fft.rfft2(heatmap.double()) * turn
    turned: Tensor = torch.fft.irfft2(spectrum, s=tuple(heatmap.shape[-2:]))
    return turned.float()


@METHODS("other", version=1, gradient=True, cost="as the method it takes")
def other(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    of: Annotated[str, OF] = "grad",
    picture: Annotated[
        Path, Param("the other picture; without one, a packaged sample that is not this image")
    ] = Path(),
) -> Tensor:
    """A method's map of another picture, for the same class: what maps share that have seen other pixels.

    Science C-1. Its draws are the other picture's.
    """
    import copy

    from attrsens.images import decode
    from attrsens.samples import samples

    paths = [Path(picture)] if str(picture) not in ("", ".") else [s.path for s in samples().values()]
    for path in paths:
        image = decode(path)
        pixels = x.new_tensor(f.preprocess.apply(image))
        if pixels.shape != x.shape:
            raise AttrsensError(f"other: the other picture is {tuple(pixels.shape)} here; {tuple(x.shape)} needed")
        encoded = f.encode(pixels)
        if not f.dry and (encoded - x).abs().max() < 1e-3:
            continue
        there = copy.copy(f)  # counts on the same meter
        there.image, there.zoom = image.sha256, f.preprocess.zoom(image.size)
        return _map_of(there, encoded, target, of)
    raise AttrsensError("other: the other picture is this image itself; give another with picture=FILE")


def _map_of(f: Classifier, x: Tensor, target: int, name: str) -> Tensor:
    """The raw map of a method at its defaults, under this view's conventions."""
    from attrsens.explainer import Base

    spec = METHODS[name]
    parameters = spec.complete()
    own = {hyper.name: parameters[hyper.name] for hyper in spec.own()}
    return Base(spec, own, f, target)(x)

"""Sliding patch (occlusion): how far the score falls when a patch hides a place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from attrsens.errors import AttrsensError
from attrsens.methods._settings import Points, classes_of, one
from attrsens.spec import METHODS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.classifier import Classifier


def _settings(f: Classifier, x: Tensor, targets: Sequence[int], points: Points) -> Iterator[Tensor]:
    """Falls of several classes on the same images, and other maps of the same falls."""
    import torch

    from attrsens.models.batches import Stack

    patch_size, stride = points[0]["patch_size"], points[0]["stride"]
    height, width = x.shape[-2:]
    if patch_size > min(height, width):
        raise AttrsensError(f"sp: patch_size {patch_size} is larger than the image, {width} x {height}")
    rows = (height - patch_size) // stride + 1
    columns = (width - patch_size) // stride + 1
    colour, classes = f.colour(points[0]["fill"]), classes_of(targets)

    def hidden(indices: range) -> Tensor:
        batch = x.repeat(len(indices), 1, 1, 1)
        for image, i in zip(batch, indices, strict=True):
            top, left = i // columns * stride, i % columns * stride
            image[:, top : top + patch_size, left : left + patch_size] = colour
        return batch

    (clean,) = f.scores(x[None], classes)
    falls = clean - torch.cat(list(f.scores(Stack(rows * columns, hidden, like=x), classes)))
    for target, point in zip(targets, points, strict=True):
        grid = falls[:, classes.index(target)].reshape(rows, columns)
        yield {"stretch": _stretch, "center": _center, "accumulate": _accumulate}[point["align"]](
            grid, (height, width), patch_size, stride
        )


@METHODS(
    "sp",
    version=1,
    output="prob",
    gradient=False,
    cost="places + 1 F",
    over=("align", "target"),
    settings=_settings,
)
def sliding_patch(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    patch_size: Annotated[
        int,
        Param(
            "side of the patch, pixels",
            min=1,
            sweep=(5, 17, 29, 41, 53),
            reference=29,
            scale="ratio",
            range=(5, 80),
            source="SAM 4.4, SP-L; SP-S: 52, 53 (reference), 54; its code: 5, 6, 7",
            pixels=1,
        ),
    ] = 29,
    stride: Annotated[
        int, Param("step between patches, pixels", min=1, scale="ratio", range=(1, 16), source="SAM code", pixels=1)
    ] = 3,
    fill: Annotated[
        str, Param("colour of the patch", choices=("black", "white", "grey", "mean"), source="methods 1.3")
    ] = "black",
    align: Annotated[
        str,
        Param(
            "from the grid of falls to the map: stretch (spline, whole frame; SAM), center (at the patches' centres), "
            "accumulate (mean of the patches over a pixel; Captum)",
            choices=("stretch", "center", "accumulate"),
            source="methods 2.12",
        ),
    ] = "stretch",
) -> Tensor:
    """Fall of the target's score when a patch hides each place.

    map[i, j] = f(x) - f(x with the patch at (i stride, j stride) filled), on a grid of floor((side - patch) / stride)
    + 1 places a side. Zeiler & Fergus 2014; methods 2.12. One pass forward a place, and one for the clean image.
    """
    found: Tensor = one(_settings, f, x, target, patch_size=patch_size, stride=stride, fill=fill, align=align)
    return found


def _stretch(falls: Tensor, shape: tuple[int, int], patch: int, stride: int) -> Tensor:
    """Order-5 spline over the whole frame, as SAM does; up to half a patch off near the edges."""
    from attrsens.heatmaps import resize_spline

    return falls.new_tensor(resize_spline(falls.cpu().numpy(), shape))


def _center(falls: Tensor, shape: tuple[int, int], patch: int, stride: int) -> Tensor:
    """Linear between the patches' centres, constant outside them."""
    import torch

    out = falls
    for axis, side in enumerate(shape):
        at = (torch.arange(side, device=falls.device) - (patch - 1) / 2) / stride
        at = at.clamp(0, falls.shape[axis] - 1)
        low = at.floor().long()
        high = (low + 1).clamp(max=falls.shape[axis] - 1)
        share = (at - low).reshape(-1, 1) if axis == 0 else at - low
        out = out.index_select(axis, low) * (1 - share) + out.index_select(axis, high) * share
    return out


def _accumulate(falls: Tensor, shape: tuple[int, int], patch: int, stride: int) -> Tensor:
    """Mean over the patches that cover a pixel; 0 where none does: the margin, and gaps of a wide stride."""
    import torch
    import torch.nn.functional as F

    kernel = falls.new_ones(1, 1, patch, patch)
    total = F.conv_transpose2d(falls[None, None], kernel, stride=stride)[0, 0]
    count = F.conv_transpose2d(torch.ones_like(falls)[None, None], kernel, stride=stride)[0, 0]
    out = falls.new_zeros(shape)
    out[: total.shape[0], : total.shape[1]] = total / count.clamp(min=1)
    return out

"""RISE: the mean of random soft masks, weighted by the score of the image seen through each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from attrsens.methods._settings import Points, classes_of, one, price
from attrsens.spec import METHODS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.classifier import Classifier


def _settings(f: Classifier, x: Tensor, targets: Sequence[int], points: Points) -> Iterator[Tensor]:
    """Means over the first n of the same masks, weighted by the scores of other classes."""
    import torch

    from attrsens.models.batches import Rows, Stack

    counts, common = [point["n"] for point in points], points[0]
    if f.dry:
        yield from price(f, x, counts)
        return
    most, cells, classes = max(counts), common["cells"], classes_of(targets)
    tall, wide = (_windows(x, side, cells) for side in x.shape[-2:])
    draws = torch.from_numpy(f.stream(common["seed"], "masks").uniform(range(most), (cells * cells + 2,)))
    grids: Tensor = (draws[:, 2:] < common["keep"]).to(x).reshape(most, cells, cells)
    down, right = ((draws[:, i] * len(v)).long().clamp(max=len(v) - 1).to(x.device) for i, v in enumerate((tall, wide)))
    colour = f.colour(common["fill"])
    contrast = x - colour

    def seen(indices: range) -> Tensor:
        part = slice(indices.start, indices.stop)
        masks = tall[down[part]] @ grids[part] @ wide[right[part]].mT
        return (masks[:, None] * contrast).add_(colour)

    scores = Rows(f.scores(Stack(most, seen, like=x), classes))
    for target, n in zip(targets, counts, strict=True):
        weights = scores.first(n)[:, classes.index(target)].double()
        # masks with one shift are linear in their grids: the weighted grids are added shift by shift, and enlarged once
        shifts = torch.zeros(len(tall) * len(wide), cells * cells, dtype=torch.float64, device=x.device)
        shifts.index_add_(0, (down * len(wide) + right)[:n], weights[:, None] * grids[:n].flatten(1))
        total = shifts.reshape(len(tall), len(wide), cells, cells)
        rows = torch.einsum("dhi,drij->rhj", tall.double(), total)
        yield (torch.einsum("rhj,rwj->hw", rows, wide.double()) / (n * common["keep"])).to(x.dtype)


@METHODS(
    "rise", version=1, output="prob", gradient=False, cost="n F", counts="n", over=("n", "target"), settings=_settings
)
def rise(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    n: Annotated[
        int, Param("masks", min=1, max=100_000, scale="ratio", range=(500, 8000), source="Petsiuk et al. 2018, 4.1")
    ] = 4000,
    cells: Annotated[
        int,
        Param(
            "cells a side of a mask", min=1, max=224, scale="ratio", range=(4, 16), source="Petsiuk et al. 2018, 4.1"
        ),
    ] = 7,
    keep: Annotated[
        float,
        Param(
            "probability that a cell is kept",
            min=0.01,
            max=1,
            scale="bounded",
            range=(0.1, 0.9),
            source="Petsiuk et al. 2018, 4.1",
        ),
    ] = 0.5,
    fill: Annotated[
        str, Param("colour behind the mask", choices=("black", "white", "grey", "mean"), source="methods 1.3")
    ] = "black",
    seed: Annotated[int, Param("seed of the masks", min=0, sweep=(0, 1, 2, 3, 4), reference=0)] = 0,
) -> Tensor:
    """Mean of random soft masks, each weighted by the score of the image seen through it.

    (1 / (n keep)) sum_i f(M_i x + (1 - M_i) fill) M_i, where M_i is a grid of cells x cells zeros and ones, enlarged
    bilinearly to one cell more than the image and cut at a random shift below a cell. Petsiuk et al. 2018, eq. 6;
    science 1. n passes forward. Draw i is the same for every n.
    """
    found: Tensor = one(_settings, f, x, target, n=n, cells=cells, keep=keep, fill=fill, seed=seed)
    return found


def _windows(x: Tensor, side: int, cells: int) -> Tensor:
    """What each cell gives each pixel of an axis, for every shift: (shifts, side, cells), rows summing to 1."""
    import torch
    import torch.nn.functional as F

    shifts = -(-side // cells)  # a cell's size in pixels
    identity = torch.eye(cells, dtype=x.dtype, device=x.device)
    whole = F.interpolate(identity[None], (cells + 1) * shifts, mode="linear", align_corners=False)[0]
    return whole.unfold(1, side, 1)[:, :shifts].permute(1, 2, 0).contiguous()

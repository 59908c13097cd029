"""The grid pointing game: a localisation score that needs no annotation."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated

from attrsens.errors import InputError
from attrsens.scores._case import Answers, Case, Finding, Look, Maps, NoValue, stack
from attrsens.scores.localisation import plane
from attrsens.spec import SCORES, Param

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from attrsens.images import Preprocess

Place = tuple[slice, slice]


@SCORES(
    "grid_pointing",
    version=1,
    formula="share of the positive values on a 2 x 2 grid of images (cells {cell}) that lies in the image's own cell, "
    "its class explained; the other cells are packaged pictures of other top-1 classes",
    direction="higher",
    range=(0.0, 1.0),
    source="Rao et al. 2022, Eq. 2; science S-7",
    cost="10 F + 1 x method, on a grid",
    judges="grid",
    floor="shuffle",
)
def grid_pointing(
    case: Case,
    *,
    cell: Annotated[
        str,
        Param(
            "full: every image at its own size, so that the input's sides double; half: shrunk by area means to "
            "keep the input's size, for networks that take no other",
            choices=("full", "half"),
            source="Rao et al. 2022: full",
        ),
    ] = "full",
    seed: Annotated[int, Param("seed of the image's place on the grid", min=0, sweep=(0, 1, 2, 3, 4), reference=0)] = 0,
) -> Answers:
    """Grid pointing game: whether the map of a class finds its image among three others.

    The others are the packaged photographs that the network is surest of, one a class, none of them of the explained
    class or the image itself; they go through the classifier's own resize and crop. Chance is 0.25. Details: the
    image's cell (0 to 3 in reading order), and the class's probability on the grid, where four objects share it.

    Raises:
        NoValue: the network does not take the grid, finds too few classes in the pictures, or the map has no positive
            value.
    """
    import torch

    height, width = case.pixels.shape[-2:]
    pictures = packaged(case)
    key = ("packaged photographs", height, width)
    logits = yield Look(key, stack(len(pictures), lambda at: pictures[at.start : at.stop], case.pixels), "logits")
    others = rivals(case, pictures, logits)
    own = int(4 * float(case.stream(seed, "cell of the grid").uniform([0], (1,))[0, 0]))
    members = [pictures[i] for i in others]
    members.insert(own, case.pixels)
    places = cells(2 * height, 2 * width) if cell == "full" else cells(height, width)
    image = compose(members, places)
    grid = ("grid of pictures", cell, seed)
    copies = stack(1, lambda at: image[None].expand(len(at), *image.shape), image)
    try:
        probability = yield Look(grid, copies, "prob")
        maps = yield Maps(grid, copies, pool=True)
    except InputError as error:
        hint = "; cell=half keeps the input's size" if cell == "full" else ""
        raise NoValue(f"on a grid of {image.shape[-1]} x {image.shape[-2]} pixels: {error}{hint}") from None
    a = torch.from_numpy(plane(maps[0])).clamp(min=0)
    if not bool(a.any()):
        raise NoValue("the map of the grid has no positive value")
    details = {"chance": 0.25, "cell": float(own), "probability": float(probability[0])}
    return Finding(float(a[places[own]].sum() / a.sum()), details=details)


def packaged(case: Case) -> Tensor:
    """The packaged photographs at the size of the image, (n, C, H, W) on its device."""
    import torch

    size = case.pixels.shape[-2], case.pixels.shape[-1]
    return torch.from_numpy(photographs(case.classifier.preprocess, size)).to(case.pixels.device)


@lru_cache(maxsize=4)
def photographs(preprocess: Preprocess, size: tuple[int, int]) -> NDArray[np.float32]:
    """The packaged photographs as a classifier sees them: by its own resize and crop, and where these leave another
    size than the image's, the largest centred part that fits, resized to it."""
    import numpy as np
    from PIL import Image as PIL
    from PIL import ImageOps

    from attrsens.images import Image, decode
    from attrsens.samples import samples

    out = []
    for sample in samples().values():
        if sample.photo:
            photo = decode(sample.path, name=sample.name)
            _, (top, left, bottom, right) = preprocess.geometry(photo.size)
            if (bottom - top, right - left) == size and min(top, left) >= 0:
                out.append(preprocess.apply(photo))
            else:
                part = ImageOps.fit(PIL.fromarray(photo.pixels), size[::-1], PIL.Resampling.BILINEAR)
                out.append(replace(preprocess, resize=None, crop=None).apply(Image(photo.name, np.asarray(part))))
    return np.stack(out)


def rivals(case: Case, pictures: Tensor, logits: Tensor) -> list[int]:
    """The three pictures of other classes that the network is surest of, the surest first.

    Raises:
        NoValue: it finds fewer than three other classes in them.
    """
    sure, top = logits.double().softmax(1).max(1)
    chosen: dict[int, int] = {}  # picture by class
    for i in sure.sort(descending=True, stable=True).indices.tolist():
        if int(top[i]) != case.target and not bool((pictures[i] == case.pixels).all()):
            chosen.setdefault(int(top[i]), i)
    if len(chosen) < 3:
        raise NoValue(f"the network finds {len(chosen)} other classes in the packaged pictures; the grid takes three")
    return list(chosen.values())[:3]


def cells(height: int, width: int) -> list[Place]:
    """The four cells of a frame in reading order; of an odd side the second half is the longer."""
    rows = slice(0, height // 2), slice(height // 2, height)
    columns = slice(0, width // 2), slice(width // 2, width)
    return [(row, column) for row in rows for column in columns]


def compose(members: list[Tensor], places: list[Place]) -> Tensor:
    """Four images (C, H, W) in their cells, shrunk by area means where a cell is smaller."""
    import torch.nn.functional as F

    height, width = places[-1][0].stop, places[-1][1].stop
    image = members[0].new_zeros(len(members[0]), height, width)
    for member, (rows, columns) in zip(members, places, strict=True):
        image[:, rows, columns] = F.adaptive_avg_pool2d(member, (rows.stop - rows.start, columns.stop - columns.start))
    return image

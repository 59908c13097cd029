"""Superpixels, and the scores of an image some of whose superpixels are hidden: what lime and kshap share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from attrsens.spec import Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.classifier import Classifier

Algorithm = Annotated[
    str,
    Param(
        "how superpixels are found; quickshift (kernel 4, distance 200, ratio 0.2) chooses their number itself",
        choices=("slic", "quickshift"),
        source="SAM code; the lime package",
    ),
]
Segments = Annotated[
    int,
    Param(
        "superpixels asked for; about as many are found (slic only)",
        min=1,
        max=10_000,
        sweep=(25, 50, 100),
        reference=50,
        scale="ratio",
        range=(10, 200),
        source="SAM code; the sweep is ours, SAM's is not recorded",
    ),
]
Compactness = Annotated[
    float,
    Param(
        "weight of distance against colour (slic only)",
        min=0.001,
        scale="ratio",
        range=(1, 100),
        source="SAM code",
    ),
]
SegmentBlur = Annotated[
    float,
    Param(
        "sd of the Gaussian blur before the search, pixels (slic only)",
        min=0,
        max=1000,
        scale="ratio",
        range=(0.5, 6),
        source="SAM code",
        pixels=1,
    ),
]
Fill = Annotated[
    str,
    Param(
        "what hides a superpixel: a colour, or the superpixel's own mean, whole grey levels",
        choices=("black", "white", "grey", "mean", "segment"),
        source="SAM code; segment: the lime package",
    ),
]


class Superpixels:
    """An image cut into superpixels that can be hidden.

    Attributes:
        labels: the superpixel of every pixel, (H, W), numbered from 0.
        count: how many there are.
    """

    def __init__(
        self,
        f: Classifier,
        x: Tensor,
        *,
        algorithm: str,
        segments: int,
        compactness: float,
        segment_blur: float,
        fill: str,
    ) -> None:
        import numpy as np
        import torch
        from skimage.segmentation import quickshift, slic

        picture = _picture(f, x)
        colours = picture if picture.shape[2] == 3 else np.repeat(picture[..., :1], 3, axis=2)
        found = (
            slic(colours, segments, compactness, sigma=segment_blur, start_label=0)
            if algorithm == "slic"
            else quickshift(colours, kernel_size=4, max_dist=200, ratio=0.2)  # type: ignore[no-untyped-call]
        )
        numbers, flat = np.unique(found, return_inverse=True)
        self.count = len(numbers)
        self.labels = torch.from_numpy(flat.reshape(found.shape)).to(x.device)
        self._f, self._image = f, x
        if fill == "segment":
            flat = flat.reshape(-1)
            sums = np.stack([np.bincount(flat, plane.reshape(-1)) for plane in picture.transpose(2, 0, 1)])
            means = np.floor(sums / np.bincount(flat)) / 255  # down, as assigning to a picture of bytes does
            self._hidden = f.encode(torch.from_numpy(means)[:, :, None])[:, :, 0][:, self.labels]
        else:
            self._hidden = f.colour(fill).expand_as(x)

    @classmethod
    def of(cls, f: Classifier, x: Tensor, parameters: Mapping[str, Any]) -> Superpixels:
        """Those that a method's parameters ask for."""
        names = ("algorithm", "segments", "compactness", "segment_blur", "fill")
        return cls(f, x, **{name: parameters[name] for name in names})

    def scores(self, kept: Any, targets: Sequence[int]) -> Iterator[Tensor]:
        """Scores of several classes for every row of `kept`, (n, count) of 0 and 1: (b, classes), batch by batch. One
        forward pass a row."""
        import torch

        from attrsens.models.batches import Stack

        rows = torch.from_numpy(kept).to(self._image.device, torch.bool)
        flat = self.labels.reshape(-1)

        def images(indices: range) -> Tensor:
            mask = rows[indices.start : indices.stop].index_select(1, flat).reshape(-1, 1, *self.labels.shape)
            return torch.where(mask, self._image, self._hidden)

        return self._f.scores(Stack(len(rows), images, like=self._image), targets)

    def paint(self, values: Any) -> Tensor:
        """The map (H, W) that has a superpixel's value at each of its pixels."""
        import torch

        return torch.from_numpy(values).to(self._image)[self.labels]


def _picture(f: Classifier, x: Tensor) -> Any:
    """The image (C, H, W) of a view as a picture of bytes, (H, W, C)."""
    if f.space == "normalized":
        mean, std = (x.new_tensor(v).reshape(-1, 1, 1) for v in (f.preprocess.mean, f.preprocess.std))
        x = x * std + mean
    return (x.detach() * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()

"""Training images in memory: their order, their augmentation, and batches of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attrsens.seeds import Stream
from attrsens.training.learner import Batch


@dataclass(frozen=True)
class Data:
    """Decoded images with their classes.

    Attributes:
        name: for people.
        images: uint8, (N, H, W, 3), all of one size.
        labels: int64, (N,).
        classes: class names in order of index.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def sha256(self) -> str:
        """Of shape, decoded pixels and labels: the same pictures in another file are the same data."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels, "<i8").data)
        return digest.hexdigest()

    def part(self, places: NDArray[np.int64] | slice, name: str | None = None) -> Data:
        """Some of the images."""
        return Data(name or self.name, self.images[places], self.labels[places], self.classes)

    def sample(self, count: int) -> Data:
        """So many of the images, always the same ones, from anywhere in the data."""
        if count >= len(self):
            return self
        return self.part(np.sort(order(len(self), 0, "sample", 0)[:count]))

    def split(self, held: int, seed: int) -> tuple[Data, Data]:
        """(the rest, `held` images drawn by the seed), both in the order they came."""
        drawn = order(len(self), seed, "holdout", 0)
        return self.part(np.sort(drawn[held:])), self.part(np.sort(drawn[:held]), f"{self.name}, held out")

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, standard deviation) of every channel, pixels in [0, 1], rounded to four digits."""
        counts = [np.bincount(self.images[..., c].reshape(-1), minlength=256) for c in range(self.images.shape[3])]
        values = np.arange(256) / 255
        means = [float((n * values).sum() / n.sum()) for n in counts]
        spreads = [float(np.sqrt((n * (values - m) ** 2).sum() / n.sum())) for n, m in zip(counts, means, strict=True)]
        return tuple(round(m, 4) for m in means), tuple(max(round(s, 4), 1e-4) for s in spreads)

    def pixels(self, places: slice | NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """(pixels in [0, 1] (n, 3, H, W), labels (n,))."""
        x = torch.from_numpy(self.images[places]).to(device).permute(0, 3, 1, 2).float().div_(255)
        return x, torch.from_numpy(self.labels[places]).to(device)


def order(count: int, seed: int, purpose: str, epoch: int) -> NDArray[np.int64]:
    """A permutation, keyed by seed, purpose and epoch."""
    drawn = Stream(seed, "", f"train {purpose}").uniform([epoch], (count,))[0]
    return np.argsort(drawn, kind="stable")


class Batches:
    """Batches by step. A step's batch depends on data, seed and step only; what does not fill a batch waits for the
    next epoch's order.

    Args:
        augment: crop at random from the picture with a black border of an eighth of its side, and flip half of them.
    """

    def __init__(
        self, data: Data, batch: int, epochs: int, seed: int, augment: bool, device: torch.device
    ) -> None:  # fmt: skip
        self.data, self.batch, self.seed, self.augment, self.device = data, min(batch, len(data)), seed, augment, device
        self.steps = len(data) // self.batch
        self.total = epochs * self.steps
        self.pad = max(1, data.images.shape[1] // 8) if augment else 0
        border = ((0, 0), (self.pad, self.pad), (self.pad, self.pad), (0, 0))
        self._images = torch.from_numpy(np.pad(data.images, border)).to(device)
        self._labels = torch.from_numpy(data.labels).to(device)
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __getitem__(self, step: int) -> Batch:
        epoch, within = divmod(step, self.steps)
        if self._order[0] != epoch:
            self._order = epoch, order(len(self.data), self.seed, "order", epoch)
        at = torch.from_numpy(self._order[1][within * self.batch : (within + 1) * self.batch]).to(self.device)
        x = self._cropped(at, step) if self.augment else self._images[at]
        # the images lie with their channels last, and stay so
        x = x.permute(0, 3, 1, 2).float().div_(255)
        return Batch(x, self._labels[at], step, self.seed, step / self.total)

    def _cropped(self, at: Tensor, step: int) -> Tensor:
        height, width = self.data.images.shape[1:3]
        drawn = torch.from_numpy(Stream(self.seed, "", "train crop").uniform([step], (len(at), 3))[0]).to(self.device)
        shift = (drawn[:, :2] * (2 * self.pad + 1)).long()
        columns = torch.arange(width, device=self.device).expand(len(at), -1)
        columns = torch.where(drawn[:, 2:] < 0.5, columns.flip(1), columns) + shift[:, 1:]
        rows = torch.arange(height, device=self.device) + shift[:, :1]
        return self._images[at[:, None, None], rows[:, :, None], columns[:, None, :]]

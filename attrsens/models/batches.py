"""Stacks of images, whole or made as they are needed, and the passes they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

# On a CPU, the activations that a backward pass keeps outgrow the allocator's cache at 16 images (measured: 8 is up
# to a quarter faster with gradients, 16 a little faster without).
CPU_BATCH, CPU_GRADIENT_BATCH, GPU_BATCH = 16, 8, 64


def batch_sizes(device: str, batch: int | str) -> tuple[int, int]:
    """Images a batch: (forward only, with gradients)."""
    if batch != "auto":
        return int(batch), int(batch)
    return (CPU_BATCH, CPU_GRADIENT_BATCH) if device == "cpu" else (GPU_BATCH, GPU_BATCH)


@dataclass
class Passes:
    """Images that went forward and backward through the network."""

    forward: int = 0
    backward: int = 0


class Stack:
    """A stack of images that is never held whole: `build(indices)` makes the ones a batch needs.

    Args:
        count: how many images.
        build: from a range of indices to their images (len(indices), C, H, W).
        like: one image (C, H, W), for shape, dtype and device.
    """

    def __init__(self, count: int, build: Callable[[range], Tensor], like: Tensor) -> None:
        self.count, self.build, self.like = count, build, like

    def __len__(self) -> int:
        return self.count


Images = Tensor | Stack | Iterable[Tensor]


def measure(images: Images) -> tuple[int, Tensor]:
    """How many images, and one of them; nothing of a `Stack` is built.

    Raises:
        ValueError: there is none.
    """
    if isinstance(images, Stack):
        return images.count, images.like
    if isinstance(images, Tensor):
        return len(images), images[0]
    count, like = 0, None
    for count, image in enumerate(images, 1):  # noqa: B007
        like = image if like is None else like
    if like is None:
        raise ValueError("no images")
    return count, like


def chunks(images: Images, size: int) -> Iterator[Tensor]:
    """The images in stacks of at most `size`, in order."""
    if isinstance(images, Tensor):
        if images.dim() != 4:
            raise ValueError(f"a stack of images is (N, C, H, W); got {tuple(images.shape)}")
        yield from torch.split(images, size)
    elif isinstance(images, Stack):
        at = 0
        while at < images.count:
            indices = range(at, min(at + size, images.count))
            yield images.build(indices)
            at = indices.stop
    else:
        each = iter(images)
        while part := list(islice(each, size)):
            yield torch.stack(part)


def prefix_sums(parts: Iterable[Tensor], counts: Sequence[int]) -> Iterator[Tensor]:
    """Sums of the first counts[0], counts[1], ... of rows that come in stacks, each as soon as its last row is there.

    Args:
        counts: positive and ascending.

    Raises:
        ValueError: they are not, or there are fewer rows.
    """
    waiting = list(counts)
    if waiting[0] < 1 or waiting != sorted(waiting):
        raise ValueError(f"counts of rows are positive and ascending; got {waiting}")
    total: Tensor | None = None
    seen = 0
    for part in parts:
        while waiting and waiting[0] <= seen + len(part):
            head = part[: waiting.pop(0) - seen].sum(0)
            yield head if total is None else total + head
        if not waiting:
            return
        whole = part.sum(0)
        total = whole if total is None else total + whole
        seen += len(part)
    raise ValueError(f"{seen} rows, {waiting[-1]} needed")


class Rows:
    """Rows that come in stacks, drawn only as far as they are asked for, and kept."""

    def __init__(self, parts: Iterable[Tensor]) -> None:
        self._parts, self._held, self._count = iter(parts), list[Tensor](), 0

    def first(self, count: int) -> Tensor:
        """The first `count` rows.

        Raises:
            StopIteration: there are fewer.
        """
        while self._count < count:
            self._held.append(next(self._parts))
            self._count += len(self._held[-1])
        self._held = [torch.cat(self._held)]
        return self._held[0][:count]

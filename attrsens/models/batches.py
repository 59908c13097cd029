"""Stacks of images, whole or made as they are needed, and the passes they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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


def add_up(parts: Iterable[tuple[Tensor, Tensor]], weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean, or weighted sum, of gradients that come in stacks with their scores, and every score.

    Raises:
        ValueError: there is none.
    """
    total: Tensor | None = None
    scores: list[Tensor] = []
    seen = 0
    for gradient, score in parts:
        part = gradient.sum(0)
        if weights is not None:
            w = weights[seen : seen + len(gradient)].to(gradient)
            part = torch.einsum("n,nchw->chw", w, gradient)
        total = part if total is None else total + part
        seen += len(gradient)
        scores.append(score)
    if total is None:
        raise ValueError("no images")
    return (total if weights is not None else total / seen), torch.cat(scores)

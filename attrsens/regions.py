"""What an annotation says of an image, in the classifier's frame: where its objects are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]  # top, left, bottom, right; the last two outside


@dataclass(frozen=True)
class Thing:
    """One annotated object.

    Attributes:
        label: its category's name.
        classes: the class indices that it may be; () where it is none of the classifier's classes, None where the
            annotation does not say what it is.
        cover: float32 (H, W), the share of each pixel of the crop that it covers, after the image's own resize and
            crop. All zero where the crop missed it.
    """

    label: str
    classes: tuple[int, ...] | None
    cover: NDArray[np.float32]

    def box(self, least: float = 0.5) -> Box | None:
        """The extent of the pixels of which it covers at least this share; None without any."""
        return extent(self.cover >= least)


@dataclass(frozen=True)
class Region:
    """Where the objects that count are.

    Attributes:
        kind: "box" or "mask": what the annotation draws.
        things: the objects that count, at least one.
    """

    kind: str
    things: tuple[Thing, ...]

    def inside(self, least: float = 0.5) -> NDArray[np.bool_]:
        """(H, W): the pixels of which some object covers at least this share."""
        inside: NDArray[np.bool_] = np.zeros(self.things[0].cover.shape, bool)
        for thing in self.things:
            inside |= thing.cover >= least
        return inside

    def boxes(self) -> tuple[Box, ...]:
        """The boxes of the objects that the crop shows, of masks their extents; equal ones once."""
        return tuple(dict.fromkeys(box for thing in self.things if (box := thing.box())))

    def of(self, target: int) -> Region | None:
        """The region of a class: its objects, or all of them where none says what it is; None without any."""
        told = any(t.classes is not None for t in self.things)
        things = tuple(t for t in self.things if target in (t.classes or ())) if told else self.things
        return Region(self.kind, things) if things else None

    @cached_property
    def sha256(self) -> str:
        """Hash of all that a score may depend on."""
        digest = hashlib.sha256(self.kind.encode())
        for thing in self.things:
            digest.update(repr((thing.label, thing.classes, thing.cover.shape)).encode())
            digest.update(np.ascontiguousarray(thing.cover, "<f4").data)
        return digest.hexdigest()


def extent(inside: NDArray[np.bool_]) -> Box | None:
    """The smallest box around the true pixels; None without any."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return None
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1

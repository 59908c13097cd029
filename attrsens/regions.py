"""What an annotation says of an image, in the classifier's frame: where its objects are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Thing:
    """One annotated object.

    Attributes:
        label: its category's name.
        classes: the class indices that it may be; empty where that is not known.
        cover: float32 (H, W), the share of each pixel of the crop that it covers, after the image's own resize and
            crop. All zero where the crop missed it.
    """

    label: str
    classes: tuple[int, ...]
    cover: NDArray[np.float32]


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
        inside: NDArray[np.bool_] = np.max([thing.cover for thing in self.things], 0) >= least
        return inside

    def of(self, target: int) -> Region | None:
        """The region of a class: its objects, or all of them where no classes are known; None without any."""
        known = [t for t in self.things if t.classes]
        things = tuple(t for t in self.things if target in t.classes) if known else self.things
        return Region(self.kind, things) if things else None

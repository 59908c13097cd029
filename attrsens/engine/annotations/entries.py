"""What every annotation format comes down to: which image, which objects, what they are and what is drawn of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from attrsens.errors import InputError

if TYPE_CHECKING:
    from attrsens.engine.inputs import Source

T = TypeVar("T")
Size = tuple[int, int]  # height, width
Paint = Callable[[Size], NDArray[np.generic]]


@dataclass(frozen=True)
class Category:
    """What an annotation calls a kind of object: a name, and in COCO's JSON perhaps an id, a wnid, ImageNet indices."""

    name: str
    id: int | str | None = None
    wnid: str | None = None
    imagenet: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Drawn:
    """One object; `paint` gives the share of each pixel it covers, at the image's own size."""

    category: Category
    paint: Paint


@dataclass(frozen=True)
class Entry:
    """What is annotated of one image.

    Attributes:
        size: (height, width) that the annotation was made at; None where it does not say.
        known: every category that the annotation distinguishes.
    """

    kind: str
    size: Size | None
    objects: Sequence[Drawn]
    known: Sequence[Category]


class Index(Generic[T]):
    """Things by name, told apart by their folders."""

    def __init__(self) -> None:
        self._kept: dict[str, list[tuple[tuple[str, ...], T]]] = {}

    def __iter__(self) -> Iterator[T]:
        return (thing for several in self._kept.values() for _, thing in several)

    def add(self, name: str, folder: PurePosixPath | Path, thing: T) -> None:
        self._kept.setdefault(name, []).append((folder.parts, thing))

    def find(self, name: str, folder: Path) -> T | None:
        """The thing of this name; of several, the one that shares the most folders with the image, from its own up.

        Raises:
            InputError: several share equally many.
        """
        several = self._kept.get(name, [])
        if len(several) <= 1:
            return several[0][1] if several else None
        shared = [_shared(parts, folder.parts) for parts, _ in several]
        best = [thing for count, (_, thing) in zip(shared, several, strict=True) if count == max(shared)]
        if len(best) > 1:
            raise InputError(f"{len(best)} images are called {name}, and the folders do not tell them apart")
        return best[0]


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count


def place(source: Source) -> tuple[str, str, Path]:
    """(file name, name without suffix, folder) of an image; of one in an archive or an array the name is whole."""
    path = source.file
    if path is None or path.suffix.lower() == ".npz":
        whole = PurePosixPath(source.name).name
        return whole, whole, path.absolute().parent if path else Path()
    return path.name, path.stem, path.absolute().parent

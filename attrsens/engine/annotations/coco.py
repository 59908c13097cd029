"""COCO's JSON: boxes, polygons and run lengths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from attrsens.engine.annotations import drawing
from attrsens.engine.annotations.entries import Category, Drawn, Entry, Index, Paint, Size, place
from attrsens.engine.inputs import printable
from attrsens.errors import AttrsensError, InputError
from attrsens.images import read_bytes

if TYPE_CHECKING:
    from attrsens.engine.inputs import Source

MAX_BYTES = 2**30  # COCO's own largest is 470 MB
MAX_NUMBERS = 200_000  # of the polygons of one object
ABSENT = msgspec.Raw(b"null")


class _Image(msgspec.Struct):
    id: int | str
    file_name: str
    width: int | None = None
    height: int | None = None


class _Object(msgspec.Struct):
    image_id: int | str
    category_id: int | str | None = None
    iscrowd: int | bool | None = 0
    bbox: msgspec.Raw = ABSENT  # read when the image is
    segmentation: msgspec.Raw = ABSENT


class _Category(msgspec.Struct):
    id: int | str
    name: str | None = None
    wnid: str | None = None
    imagenet_indices: list[int] | None = None


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Object]
    categories: list[_Category] = []


class _Lengths(msgspec.Struct):
    size: tuple[int, int]
    counts: list[int] | str


class Coco:
    """A COCO file.

    Raises:
        AttrsensError: it is none.
        InputError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        data = read_bytes(path, MAX_BYTES, "annotations")
        try:
            file = msgspec.json.decode(data, type=_File)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise AttrsensError(
                f"annotations: {printable(str(path))} is not a COCO file ({str(error)[:200]})"
            ) from None
        self._images: Index[_Image] = Index()
        self._objects: dict[int | str, list[_Object]] = {}
        for image in file.images:
            if image.id in self._objects:
                raise AttrsensError(
                    f"annotations: {printable(str(path))}: two images have the id {str(image.id)[:40]!r}"
                )
            self._objects[image.id] = []
            name = PurePosixPath(image.file_name.replace("\\", "/"))
            self._images.add(name.name, name.parent, image)
        for item in file.annotations:
            if item.image_id in self._objects and not item.iscrowd:
                self._objects[item.image_id].append(item)
        self._categories = {
            c.id: Category(
                c.name or "", c.id, c.wnid, tuple(c.imagenet_indices) if c.imagenet_indices is not None else None
            )
            for c in file.categories
        }

    def entry(self, source: Source) -> Entry | None:
        """What is annotated of an image.

        Raises:
            InputError: damaged, or two images may be meant.
        """
        name, _, folder = place(source)
        image = self._images.find(name, folder)
        if image is None:
            return None
        objects, kinds = [], set()
        for i, item in enumerate(self._objects[image.id], 1):
            try:
                kind, paint = _read(item)
            except (ValueError, OverflowError, RecursionError) as error:  # msgspec's errors are ValueErrors
                raise InputError(f"object {i} of {name}: {str(error)[:200]}") from None
            kinds.add(kind)
            known = self._categories.get(item.category_id) if item.category_id is not None else None
            objects.append(Drawn(known or Category(str(item.category_id)[:40]), paint))
        size = (image.height, image.width) if image.height and image.width else None
        return Entry("mask" if kinds == {"mask"} else "box", size, objects, list(self._categories.values()))


def _read(item: _Object) -> tuple[str, Paint]:
    shape = bytes(item.segmentation).lstrip()
    if shape.startswith(b"{"):
        lengths = msgspec.json.decode(item.segmentation, type=_Lengths)
        return "mask", lambda size: _painted_lengths(lengths, size)
    polygons = msgspec.json.decode(item.segmentation, type=list[list[float]] | None)
    if polygons:
        if sum(map(len, polygons)) > MAX_NUMBERS:
            raise ValueError(f"its polygons have more than {MAX_NUMBERS:,} numbers")
        return "mask", lambda size: _painted_polygons(polygons, size)
    left, top, width, height = msgspec.json.decode(item.bbox, type=tuple[float, float, float, float])
    return "box", lambda size: drawing.box((left, top, left + width, top + height), size)


def _painted_lengths(lengths: _Lengths, size: Size) -> NDArray[np.bool_]:
    if tuple(lengths.size) != size:
        raise ValueError(f"its run lengths are of {lengths.size[1]} x {lengths.size[0]} pixels")
    counts = drawing.unpack(lengths.counts) if isinstance(lengths.counts, str) else lengths.counts
    return drawing.run_lengths(counts, size)


def _painted_polygons(polygons: Sequence[Sequence[float]], size: Size) -> NDArray[np.bool_]:
    inside = np.zeros(size, bool)
    for one in polygons:
        inside |= drawing.polygon(one, size)
    return inside

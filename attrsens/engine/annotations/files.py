"""Annotations that lie beside the images: PASCAL VOC's XML, and masks as PNG."""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.annotations import drawing
from attrsens.engine.annotations.entries import Category, Drawn, Entry, Index, Size, place
from attrsens.engine.inputs import printable
from attrsens.errors import AttrsensError, InputError
from attrsens.images import MAX_PIXELS, read_bytes

if TYPE_CHECKING:
    from attrsens.engine.inputs import Source

MAX_XML = 4 * 2**20
MAX_DEPTH = 50
VOID = 255
SIDES = ("xmin", "ymin", "xmax", "ymax")


class Files:
    """XML files or masks, found by the images' names without suffix.

    Raises:
        AttrsensError: a folder without such files, or with both kinds.
        InputError: the one file that is named cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._files: Index[Path] = Index()
        if path.is_dir():
            self._scan(path)
        else:
            names = {path.stem}
            if path.suffix.lower() == ".png":
                read_mask(path)
            else:
                names.add(PurePosixPath((read_xml(path).findtext("filename") or "").strip()).stem)
            for name in names - {""}:
                self._files.add(name, path.absolute().parent, path)
        self._values = _read_values((path if path.is_dir() else path.parent) / "classes.csv")

    def _scan(self, root: Path) -> None:
        kinds = set()
        for folder, folders, files in os.walk(root):
            folders.sort()
            for name in sorted(files):
                file = Path(folder) / name
                if file.suffix.lower() in (".xml", ".png") and not name.startswith("."):
                    self._files.add(file.stem, file.absolute().parent, file)
                    kinds.add(file.suffix.lower())
        if len(kinds) != 1:
            what = "both .xml and .png files; give the folder of one kind" if kinds else "no .xml or .png file"
            raise AttrsensError(f"annotations: {printable(str(root))} holds {what}")

    def entry(self, source: Source) -> Entry | None:
        """What is annotated of an image.

        Raises:
            InputError: damaged, or two files may be meant.
        """
        _, stem, folder = place(source)
        file = self._files.find(stem, folder)
        if file is None:
            return None
        return _of_xml(file) if file.suffix.lower() == ".xml" else self._of_mask(file)

    def _of_mask(self, file: Path) -> Entry:
        mask = read_mask(file)
        values = [int(v) for v in np.unique(mask) if v]
        if mask.dtype == np.uint8 and len(values) > 1:
            values = [v for v in values if v != VOID]
        objects = [Drawn(Category(self._values.get(v, str(v))), partial(_equal, mask, v)) for v in values]
        return Entry(
            "mask", (mask.shape[0], mask.shape[1]), objects, [Category(name) for name in self._values.values()]
        )


def _equal(mask: NDArray[Any], value: int, size: Size) -> NDArray[np.bool_]:
    equal: NDArray[np.bool_] = mask == value
    return equal


def _of_xml(file: Path) -> Entry:
    root = read_xml(file)
    objects = []
    for i, item in enumerate(root.findall("object"), 1):
        name = (item.findtext("name") or "").strip()
        for bounds in item.findall("bndbox"):
            try:
                corners = [float(bounds.findtext(side) or "") for side in SIDES]
                drawing.box(corners, (1, 1))
            except ValueError as error:
                raise InputError(
                    f"{printable(str(file))}: object {i}, {name[:40]!r}: bndbox: {str(error)[:80]}"
                ) from None
            objects.append(Drawn(Category(name), partial(drawing.box, corners)))
    try:
        height, width = (int(root.findtext(f"size/{side}") or 0) for side in ("height", "width"))
    except ValueError:
        raise InputError(f"{printable(str(file))}: its size is not in whole pixels") from None
    size = (height, width) if height and width else None
    return Entry("box", size, objects, [drawn.category for drawn in objects])


def read_xml(file: Path) -> ElementTree.Element:
    """The root of a VOC file. Document types, and with them every entity, are refused.

    Raises:
        InputError: not such a file.
    """
    from xml.parsers import expat

    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise InputError(f"{printable(str(file))}: elements more than {MAX_DEPTH} deep")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise InputError(f"{printable(str(file))}: declares a document type, which is not read")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    try:
        parser.Parse(read_bytes(file, MAX_XML, "annotations"), True)
        root = builder.close()
    except InputError:
        raise
    except Exception as error:  # a parser's complaint about untrusted bytes, of any type
        raise InputError(f"{printable(str(file))}: not XML that is read ({str(error)[:80]})") from None
    if root.tag != "annotation":
        raise InputError(f"{printable(str(file))}: not a VOC annotation (its root is <{root.tag[:40]}>)")
    return root


def read_mask(file: Path) -> NDArray[Any]:
    """The values of a one-channel PNG, (H, W), of a palette its indices.

    Raises:
        InputError: damaged, too large or of several channels.
    """
    from PIL import Image as PIL

    data = read_bytes(file, what="masks")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = PIL.open(io.BytesIO(data), formats=("PNG",))
            if picture.width * picture.height > MAX_PIXELS:
                raise InputError(f"{printable(str(file))}: more than {MAX_PIXELS // 10**6} million pixels")
            if picture.mode not in ("1", "L", "P", "I", "I;16"):
                raise InputError(f"{printable(str(file))}: pixel mode {picture.mode}; a mask has one channel")
            values = np.asarray(picture)
    except InputError:
        raise
    except Exception as error:  # a decoder's complaint about untrusted bytes, of any type
        raise InputError(f"{printable(str(file))}: not a PNG that is read ({str(error)[:80]})") from None
    return values


def _read_values(file: Path) -> dict[int, str]:
    """What the values of masks mean, from rows of value,class; nothing where there is no such file."""
    if not file.is_file():
        return {}
    try:
        text = read_bytes(file, MAX_XML, "class lists").decode("utf-8-sig")
        rows: Sequence[list[str]] = [row for row in csv.reader(io.StringIO(text)) if row]
        rows = rows[1:] if rows and rows[0][0].strip() == "value" else rows
        return {int(row[0]): row[1].strip() for row in rows}
    except (ValueError, IndexError, csv.Error) as error:
        raise AttrsensError(
            f"annotations: {printable(str(file))} needs rows of value,class ({str(error)[:80]})"
        ) from None

"""Where the objects of an image are: COCO's JSON, PASCAL VOC's XML, masks as PNG. All of it untrusted."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from attrsens.engine.annotations.coco import Coco
from attrsens.engine.annotations.drawing import framed
from attrsens.engine.annotations.entries import Category, Entry
from attrsens.engine.annotations.files import Files
from attrsens.engine.inputs import printable
from attrsens.errors import AttrsensError, InputError
from attrsens.models.labels import load_labels
from attrsens.regions import Region, Thing

if TYPE_CHECKING:
    from attrsens.engine.inputs import Source
    from attrsens.images import Image, Preprocess
    from attrsens.models.classifier import Classifier

MAX_OBJECTS = 500
MAX_COVER = 2**28  # numbers that the objects of one image may take
FORMS = "a COCO .json, a VOC .xml, a mask .png, or a folder of .xml or of .png files named as the images"


class Annotations:
    """Annotated objects by image.

    Args:
        path: a COCO file (.json); a VOC file (.xml) or a mask (.png); or a folder, at any depth, of either.

    *Which image.* COCO: the one whose `file_name` ends in the image's file name. XML and masks: the file of the image's
    name without suffix. Where several have it, the one that shares the most folders with the image, from its own up.
    An image in an archive is called FILE.npz#INDEX, its mask FILE.npz#INDEX.png. The sizes must be equal: nothing is
    rescaled by guess, and a photograph that decoding turned upright does not match boxes drawn before.

    *Which class.* A COCO category is, for a model of ImageNet's classes, what its `imagenet_indices` say, else its
    `wnid`; else what its name says. A VOC object is what its name says. A name is a label of the model (one that
    several classes share is all of them, unless the category's id is one of those; of "tench, Tinca tinca" the first
    name may be it), a wnid, or a class index in digits. A COCO id alone is never a class index. Once a category is a
    class of the model, those that are not are none of its classes; where no category is, nothing is known of the
    classes and every object counts for every class. That is decided over all categories of a COCO file, and over the
    objects of a VOC file. The values of masks are looked up in `classes.csv` (value,class) beside them; without it,
    nothing is known.

    *What counts.* Of COCO, every object but those with `iscrowd`, drawn by its segmentation, else by its box. Of VOC,
    every `object` by its own `bndbox`, the corners as written (xmin to xmax, without adding a pixel). Of a mask, every
    value but 0; in 8 bits, 255 is VOC's border and no object, unless no other value is there.

    Raises:
        AttrsensError: no such file, or none of these formats.
    """

    def __init__(self, path: str | Path) -> None:
        if not os.path.exists(path):  # noqa: PTH110 (Path raises on names that are too long)
            raise AttrsensError(f"annotations: no file or folder {printable(str(path))}; give {FORMS}")
        self.path = Path(path)
        kind = self.path.suffix.lower()
        if not self.path.is_dir() and kind not in (".json", ".xml", ".png"):
            raise AttrsensError(f"annotations: {printable(str(path))} is none of these: {FORMS}")
        try:
            self._format = Files(self.path) if self.path.is_dir() or kind != ".json" else Coco(self.path)
        except InputError as error:
            raise AttrsensError(f"annotations: {error}") from None

    def of(self, source: Source, image: Image, classifier: Classifier) -> Region | None:
        """The objects of an image in the classifier's frame; None where the annotation lacks the image, or has no
        object in it.

        Raises:
            InputError: its annotation is damaged, of another size than the image, or not certainly its own.
        """
        try:
            entry = self._format.entry(source)
            if entry is None or not entry.objects:
                return None
            if entry.size is not None and entry.size != image.size:
                there, here = (f"{w} x {h}" for h, w in (entry.size, image.size))
                raise InputError(f"was made at {there} pixels, but the image has {here}")
            return Region(entry.kind, _things(entry, image, classifier))
        except InputError as error:
            raise InputError(f"{source.name}: annotation: {error}") from None


def _things(entry: Entry, image: Image, classifier: Classifier) -> tuple[Thing, ...]:
    preprocess: Preprocess = classifier.preprocess
    _, (top, left, bottom, right) = preprocess.geometry(image.size)
    count = len(entry.objects)
    if count > MAX_OBJECTS or count * (bottom - top) * (right - left) > MAX_COVER:
        raise InputError(f"{count} objects; up to {MAX_OBJECTS} are read, fewer in inputs of many pixels")
    classes = classes_of(entry.known, classifier)
    things = []
    for i, drawn in enumerate(entry.objects, 1):
        try:
            cover = framed(drawn.paint(image.size), preprocess)
        except (ValueError, OverflowError) as error:
            raise InputError(f"object {i}: {str(error)[:200]}") from None
        told = classes[drawn.category] if drawn.category in classes else () if any(classes.values()) else None
        things.append(Thing(drawn.category.name, told, cover))
    return tuple(things)


def classes_of(known: Sequence[Category], classifier: Classifier) -> dict[Category, tuple[int, ...] | None]:
    """The class indices of every category that an annotation distinguishes: () of one that is none of the model's
    classes, None of all where none is."""
    labels: dict[str, list[int]] = {}
    for i, name in enumerate(classifier.classes or ()):
        labels.setdefault(name.strip().lower(), []).append(i)
    found = {c: _class(c, labels, classifier) for c in dict.fromkeys(known)}
    if any(found.values()):
        return {c: indices or () for c, indices in found.items()}
    return found


def _class(category: Category, labels: dict[str, list[int]], f: Classifier) -> tuple[int, ...] | None:
    """() where the annotation says it is no class of the model, None where the model does not know the word."""
    imagenet = bool(f.wnids) or f.class_count == len(_standard())
    if category.imagenet is not None and imagenet:
        known = [_standard()[i] for i in category.imagenet if 0 <= i < len(_standard())]
        return tuple(i for wnid in known for i in _synset(wnid, f))
    if category.wnid and imagenet:
        return _synset(category.wnid, f)
    for word in dict.fromkeys((category.name, category.name.split(",")[0])):
        word = word.strip().lower()
        if shared := labels.get(word):
            return (int(category.id),) if category.id in shared else tuple(shared)
        if re.fullmatch("n[0-9]{8}", word):
            return _synset(word, f)
        if re.fullmatch("[0-9]{1,9}", word) and int(word) < f.class_count:
            return (int(word),)
    return None


def _synset(wnid: str, f: Classifier) -> tuple[int, ...]:
    """The class of a synset, whatever the order of the classes; ImageNet's order where the model has no names."""
    if f.wnids:
        return (f.wnids.index(wnid),) if wnid in f.wnids else ()
    standard = _standard()
    return (standard.index(wnid),) if wnid in standard and f.class_count == len(standard) else ()


@cache
def _standard() -> tuple[str, ...]:
    return load_labels("imagenet").wnids

"""Data sets to train on: a folder by class, an npz, or CIFAR-10 by name; decoded once, into one array."""

from __future__ import annotations

import logging
import os
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.inputs import Source, expand, printable
from attrsens.errors import AttrsensError
from attrsens.images import Image, Preprocess
from attrsens.models.cards import NAMED
from attrsens.models.labels import load_labels
from attrsens.places import cache_folder

if TYPE_CHECKING:
    from attrsens.training.data import Data

log = logging.getLogger("attrsens")

SIDE = 64  # the largest side that is taken without being asked for
BYTES = 8 * 2**30  # of decoded pictures
NAMES = ("cifar10",)
Tick = Callable[[int, int], None]


def check_dataset(name: str) -> None:
    """Raise unless there is such a data set.

    Raises:
        AttrsensError: it is neither a folder, nor an npz, nor a known name.
    """
    if name not in NAMES and not Path(name).is_dir() and not (Path(name).is_file() and name.endswith(".npz")):
        what = "no such folder or file" if not Path(name).exists() else "neither a folder nor an .npz"
        raise AttrsensError(
            f"data set {name}: {what}; give a folder with one folder a class, a FILE.npz of images and labels, or "
            f"{' or '.join(NAMES)}"
        )


def read_dataset(
    name: str,
    *,
    train: bool = True,
    size: int | None = None,
    classes: str | None = None,
    limit: int | None = None,
    offline: bool = False,
    tick: Tick = lambda done, total: None,
) -> Data:
    """Images and labels.

    Args:
        train: which half of a named data set.
        size: side of the square that every picture is brought to (short side, then the centre); None where they are
            squares of one side already, of at most `SIDE` px.
        classes: names for an npz that has none ("cifar10", "mnist", or a file).
        limit: use so many: the first ones; of a folder, one class after the other in turn.
        offline: never download.

    Raises:
        AttrsensError: no labels, several sizes, or a class that has no name. InputError: a picture cannot be decoded.
    """
    check_dataset(name)
    if name in NAMES:
        return _cifar10(name, train, size, limit, offline)
    sources, folders = expand([name]), Path(name).is_dir()
    names = _folders(Path(name), sources) if folders else _archived(Path(name), classes)
    kept = _in_turn(Path(name), sources, limit) if folders else sources[:limit]
    images, labels = _decoded(name, kept, names if folders else (), size, tick)
    count = int(labels.max()) + 1
    if not names:
        names = tuple(str(i) for i in range(count))
    if int(labels.min()) < 0 or count > len(names):
        raise AttrsensError(f"data set {name}: labels from {labels.min()} to {labels.max()} for {len(names)} classes")
    plain = tuple(n.encode("utf-8", "backslashreplace").decode() for n in names)  # names of folders are bytes
    return _data(title(name), images, labels, plain)


def title(name: str) -> str:
    """What a data set is called: its folder or file, without suffix."""
    return printable(Path(os.path.abspath(name)).stem)  # noqa: PTH100 (a link keeps its own name)


def _data(name: str, images: NDArray[np.uint8], labels: NDArray[np.int64], names: tuple[str, ...]) -> Data:
    from attrsens.training.data import Data

    if not 2 <= len(names) <= NAMED:
        what = f"{len(names):,} class{'es' * (len(names) != 1)}"
        raise AttrsensError(f"data set {name}: {what}; at least two are needed, and {NAMED:,} at most")
    return Data(name, images, labels, names)


def _class_of(root: Path, source: Source) -> str:
    """The folder below the root that a picture lies in; empty where it lies in none."""
    parts = source.file.relative_to(root).parts if source.file else ()
    return parts[0] if len(parts) > 1 else ""


def _folders(root: Path, sources: list[Source]) -> tuple[str, ...]:
    """Class names: the folders below the root that have pictures, sorted."""
    loose = next((s.name for s in sources if not _class_of(root, s)), None)
    if loose:
        raise AttrsensError(f"data set {root}: {loose} lies in no class; put every picture in the folder of its class")
    names = {_class_of(root, s) for s in sources}
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and folder.name not in names and not folder.name.startswith("."):
            log.warning("data set %s: no picture in its folder %s, which is no class then", root, folder.name)
    return tuple(sorted(names))


def _in_turn(root: Path, sources: list[Source], limit: int | None) -> list[Source]:
    """So many of the pictures, in the order they came: the first of every class, then the second of every class, ..."""
    seen: dict[str, int] = {}
    turns = []
    for place, source in enumerate(sources):
        own = _class_of(root, source)
        seen[own] = seen.get(own, -1) + 1
        turns.append((seen[own], place))
    return [sources[place] for place in sorted(place for _, place in sorted(turns)[:limit])]


def _archived(path: Path, classes: str | None) -> tuple[str, ...]:
    """Class names of an npz: its own array `classes`, else those that were named, else none."""
    if classes:
        return load_labels(classes).names
    try:
        with np.load(path, allow_pickle=False) as file:
            found = file["classes"] if "classes" in file.files else np.empty(0, str)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise AttrsensError(f"{path}: not an npz archive that is read ({str(error)[:100]})") from None
    if found.ndim != 1 or (len(found) and found.dtype.kind != "U"):
        raise AttrsensError(f"{path}: classes must be a list of names; got {found.dtype} {found.shape}")
    names = tuple(str(c) for c in found)
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise AttrsensError(f"{path}: several of its classes are called {twice!r}; give every one a name of its own")
    return names


def _decoded(
    name: str, sources: list[Source], folders: tuple[str, ...], size: int | None, tick: Tick
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(N, S, S, 3) and (N,)."""
    labels = np.empty(len(sources), np.int64)
    images: NDArray[np.uint8] | None = None
    for i, source in enumerate(sources):
        image = source.load()
        picture = _square(image, size)
        if images is None:
            if size is None and (picture.shape[0] != picture.shape[1] or picture.shape[0] > SIDE):
                raise AttrsensError(
                    f"data set {name}: {source.name} is {picture.shape[1]} x {picture.shape[0]}; say with --size to "
                    "what square the pictures are brought"
                )
            if len(sources) * picture.size > BYTES:
                raise AttrsensError(f"data set {name}: more than {BYTES >> 30} GiB decoded; choose a smaller --size")
            images = np.empty((len(sources), *picture.shape), np.uint8)
        if picture.shape != images.shape[1:]:
            raise AttrsensError(
                f"data set {name}: {source.name} is {picture.shape[1]} x {picture.shape[0]}, others are "
                f"{images.shape[2]} x {images.shape[1]}; say with --size to what square they are brought"
            )
        images[i] = picture
        if folders and source.file:
            labels[i] = folders.index(_class_of(Path(name), source))
        elif image.label is not None:
            if abs(image.label) >= NAMED:
                raise AttrsensError(
                    f"data set {name}: {source.name} has label {image.label}; labels are indices of at most {NAMED:,} "
                    "classes, from 0"
                )
            labels[i] = image.label
        else:
            raise AttrsensError(f"data set {name}: an npz to train on needs an array of labels")
        tick(i + 1, len(sources))
    assert images is not None  # `expand` has found some
    return images, labels


def _square(image: Image, size: int | None) -> NDArray[np.uint8]:
    """The picture in colour, brought to size x size where one is given."""
    if size is None:
        pixels = image.pixels
    else:
        steps = Preprocess(size, size)
        pixels = np.rint(steps.apply(image) * 255).astype(np.uint8).transpose(1, 2, 0)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, 2)
    return pixels


def _cifar10(name: str, train: bool, size: int | None, limit: int | None, offline: bool) -> Data:
    """CIFAR-10 as torchvision keeps it, in the cache folder."""
    from torchvision.datasets import CIFAR10

    if size not in (None, 32):
        raise AttrsensError(f"data set {name}: its pictures are 32 x 32; drop --size")
    root = cache_folder() / "datasets"
    try:
        found = CIFAR10(root, train=train, download=False)
    except RuntimeError:
        if offline:
            raise AttrsensError(f"data set {name}: not in {root}, and --offline forbids its download") from None
        try:
            found = CIFAR10(root, train=train, download=True)
        except Exception as error:  # the network may fail in any way
            raise AttrsensError(f"data set {name}: cannot be downloaded ({type(error).__name__}: {error})") from None
    images, labels = np.asarray(found.data[:limit]), np.asarray(found.targets[:limit], np.int64)
    return _data(name, images, labels, tuple(found.classes))

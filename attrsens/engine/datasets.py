"""Data sets to train on: a folder by class, an npz, or CIFAR-10 by name; decoded once, into one array."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.inputs import Source, expand
from attrsens.errors import AttrsensError
from attrsens.images import Image, Preprocess
from attrsens.models.labels import load_labels
from attrsens.places import cache_folder

if TYPE_CHECKING:
    from attrsens.training.data import Data

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
        limit: use the first so many.
        offline: never download.

    Raises:
        AttrsensError: no labels, several sizes, or a class that has no name. InputError: a picture cannot be decoded.
    """
    check_dataset(name)
    if name in NAMES:
        return _cifar10(name, train, size, limit, offline)
    sources = expand([name], limit=limit)
    names = _folders(Path(name), sources) if Path(name).is_dir() else _archived(Path(name), classes)
    images, labels = _decoded(name, sources, names if Path(name).is_dir() else (), size, tick)
    count = int(labels.max()) + 1
    if not names:
        names = tuple(str(i) for i in range(count))
    if int(labels.min()) < 0 or count > len(names):
        raise AttrsensError(f"data set {name}: labels from {labels.min()} to {labels.max()} for {len(names)} classes")
    return _data(Path(name).stem, images, labels, names)


def _data(name: str, images: NDArray[np.uint8], labels: NDArray[np.int64], names: tuple[str, ...]) -> Data:
    from attrsens.training.data import Data

    if len(names) < 2:
        raise AttrsensError(f"data set {name}: {len(names)} class; at least two are needed")
    return Data(name, images, labels, names)


def _folders(root: Path, sources: list[Source]) -> tuple[str, ...]:
    """Class names: the folders below the root, sorted."""
    loose = next((s.name for s in sources if s.file is None or len(s.file.relative_to(root).parts) < 2), None)
    if loose:
        raise AttrsensError(f"data set {root}: {loose} lies in no class; put every picture in the folder of its class")
    return tuple(sorted({s.file.relative_to(root).parts[0] for s in sources if s.file}))


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
    return tuple(str(c) for c in found)


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
            labels[i] = folders.index(source.file.relative_to(Path(name)).parts[0])
        elif image.label is not None:
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

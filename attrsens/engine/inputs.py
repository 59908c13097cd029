"""What a command is given: files, folders, patterns, samples, npz archives, arrays; and the ground truth."""

from __future__ import annotations

import csv
import fnmatch
import glob
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attrsens.errors import AttrsensError, InputError, NothingFound
from attrsens.images import SUFFIXES, Image, decode, decode_bytes, from_picture
from attrsens.models.labels import find_class
from attrsens.samples import sample, samples

if TYPE_CHECKING:
    from attrsens.models.classifier import Classifier

MAX_ARCHIVE = 8 * 2**30
Given = Any  # str, Path, numpy array or Pillow image


@dataclass(frozen=True)
class Source:
    """An image that has not been decoded yet; `file` is where it lies, None for an array."""

    name: str
    load: Callable[[], Image]
    file: Path | None = None


def expand(given: Iterable[Given], *, limit: int | None = None, frame: int | None = None) -> list[Source]:
    """The images meant, in order; folders recursively and sorted. Nothing given: the first sample.

    Raises:
        AttrsensError: a named path or sample that does not exist.
        NothingFound: a folder or pattern without an image.
    """
    out: list[Source] = []
    for i, item in enumerate(list(given) or [f"sample:{next(iter(samples()))}"]):
        out += _expand(os.fspath(item) if isinstance(item, Path) else item, i, frame)
    return out[:limit] if limit is not None else out


def _expand(item: Given, position: int, frame: int | None) -> list[Source]:
    if not isinstance(item, str):
        return [_from_memory(item, f"array-{position}")]
    if item.startswith("sample:"):
        return [_packaged(name) for name in _samples(item.removeprefix("sample:"))]
    if os.path.isdir(item):  # noqa: PTH112 (Path raises on names that are too long)
        found = _scan(Path(item))
        if not found:
            raise NothingFound(f"{item}: no image in this folder ({' '.join(SUFFIXES)})")
        return [_file(p, frame) for p in found]
    if os.path.lexists(item):
        return _archive(Path(item)) if item.endswith(".npz") else [_file(Path(item), frame)]
    if any(c in item for c in "*?["):
        paths = sorted(Path(p) for p in glob.glob(item, recursive=True))  # noqa: PTH207 (absolute patterns too)
        matched = [s for p in paths if p.is_file() for s in (_archive(p) if p.suffix == ".npz" else [_file(p, frame)])]
        if not matched:
            raise NothingFound(f"{item}: the pattern matches no file")
        return matched
    raise AttrsensError(f"{item}: no such file, folder or pattern; 'attrsens list samples' names packaged pictures")


def _samples(name: str) -> list[str]:
    """Names of packaged samples: one, or those that a pattern matches, in their order."""
    if not any(c in name for c in "*?["):
        return [name]
    found = fnmatch.filter(samples(), name)
    if not found:
        raise NothingFound(f"sample:{name}: the pattern matches no sample; they are {', '.join(samples())}")
    return found


def _packaged(name: str) -> Source:
    path = sample(name).path
    return Source(f"sample:{name}", lambda: decode(path, name=f"sample:{name}"), path)


def _scan(root: Path) -> list[Path]:
    """Image files below a folder, sorted; links that lead out of it are left out."""
    real = Path(os.path.realpath(root))
    found = []
    for folder, folders, files in os.walk(root):
        if "report.json" in files and "heatmaps" in folders:
            folders[:] = [f for f in folders if f not in ("heatmaps", "figures")]  # the pictures of an earlier run
        folders.sort()
        for name in sorted(files):
            path = Path(folder) / name
            inside = not path.is_symlink() or Path(os.path.realpath(path)).is_relative_to(real)
            if path.suffix.lower() in SUFFIXES and inside:
                found.append(path)
    return sorted(found)


def _file(path: Path, frame: int | None) -> Source:
    name = printable(os.fspath(path))
    return Source(name, lambda: decode(path, frame=frame, name=name), path)


def _from_memory(item: Given, name: str) -> Source:
    def load() -> Image:
        from PIL import Image as PIL

        return from_picture(item, name) if isinstance(item, PIL.Image) else _from_array(np.asarray(item), name)

    return Source(name, load)


def _from_array(array: np.ndarray[Any, Any], name: str, label: int | None = None) -> Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] != 3)
        or 0 in array.shape
    ):
        raise InputError(f"{name}: {array.dtype} {array.shape}; images are uint8, (H, W, 3), (H, W, 1) or (H, W)")
    return Image(name, array, label=label)


def _archive(path: Path) -> list[Source]:
    """Images of an npz: `images` and perhaps `labels`, or JPEG scans behind a shared header (`header`, `data`,
    `offsets`, `labels`)."""

    if not path.is_file():
        raise AttrsensError(f"{path}: not a regular file")
    try:
        with path.open("rb") as raw:
            if sum(info.file_size for info in zipfile.ZipFile(raw).infolist()) > MAX_ARCHIVE:
                raise ValueError(f"more than {MAX_ARCHIVE >> 30} GiB unpacked")
            raw.seek(0)
            file = np.load(raw, allow_pickle=False)
            parts = {k: file[k] for k in file.files if k in ("images", "labels", "header", "data", "offsets")}
    except Exception as error:  # damage in an untrusted file, of any type
        raise AttrsensError(f"{path}: not an npz archive that is read ({str(error)[:100]})") from None
    packed = {"header", "data", "offsets"} <= set(parts)
    images = parts["offsets"] if packed else parts.get("images")
    if not isinstance(images, np.ndarray) or images.ndim == 0:
        raise AttrsensError(f"{path}: an npz needs an array 'images' (uint8, N x H x W x 3) and may have 'labels'")
    count = len(images) - packed
    if count < 1:
        raise NothingFound(f"{path}: holds no image")
    labels = parts.get("labels")
    if labels is not None:
        if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or labels.ndim == 0:
            raise AttrsensError(f"{path}: labels must be integers, one an image")
        if len(labels) < count:
            raise AttrsensError(f"{path}: {len(labels)} labels for {count} images")
        if labels.size != len(labels):
            raise AttrsensError(f"{path}: labels must be one integer an image; got {labels.shape}")
        labels = labels.reshape(-1)

    def load(i: int, name: str) -> Image:
        label = int(labels[i]) if labels is not None else None
        if not packed:
            return _from_array(parts["images"][i], name, label)
        try:
            scan = parts["header"].tobytes() + parts["data"][int(images[i]) : int(images[i + 1])].tobytes()
        except (ValueError, IndexError, TypeError) as error:
            raise InputError(f"{name}: damaged archive ({error})") from None
        return replace(decode_bytes(scan, name), label=label)

    names = [f"{printable(str(path))}#{i}" for i in range(count)]
    return [Source(name, lambda i=i, name=name: load(i, name), path) for i, name in enumerate(names)]  # type: ignore[misc]


class Truth:
    """Ground truth by image, from `folders`, a csv of (file, class), or the images themselves (npz).

    Args:
        kind: "folders" (the name of the folder an image lies in), a csv file, or None.

    Raises:
        AttrsensError: the csv is missing or unreadable.
    """

    def __init__(self, kind: str | None) -> None:
        self.kind = kind
        self._rows: Mapping[str, str] = {}
        if kind not in (None, "folders"):
            self._rows = _read_csv(Path(str(kind)))

    def of(self, source: Source, image: Image, classifier: Classifier) -> int | None:
        """The class index, or None where nothing is known.

        Raises:
            InputError: the csv lacks the image, or its class is none of the model's.
        """
        if self.kind is None:
            return image.label
        path = source.file
        if self.kind == "folders":
            word = path.parent.name if path else None
        else:
            names = [source.name, *([path.as_posix(), path.name] if path else [])]
            word = next((self._rows[n] for n in names if n in self._rows), None)
        if word is None:
            raise InputError(f"{source.name}: {self.kind} gives no class for it")
        try:
            return class_of(word, classifier, "label")
        except AttrsensError as error:
            raise InputError(f"{source.name}: {error}") from None


def printable(path: str) -> str:
    """A path as text that any report can hold: bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def class_of(word: str, classifier: Classifier, what: str = "target") -> int:
    """The class index that a word means to this classifier."""
    names = tuple(classifier.classes or ())
    return find_class(word, classifier.class_count, names, classifier.wnids, what)


def _read_csv(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise AttrsensError(f"labels: no file {path}; give a csv of file,class or the word folders")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AttrsensError(f"labels: {path} cannot be read ({error})") from None
    if any(len(row) < 2 for row in rows) or not rows:
        raise AttrsensError(f"labels: {path} needs two columns, file and class index or name")
    return {row[0].strip(): row[1].strip() for row in rows}

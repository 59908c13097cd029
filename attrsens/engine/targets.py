"""What a manipulated map is to become: another picture's map, a file, a shape."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.cell import Call
from attrsens.engine.compute import Ready, Tally, compute, predict
from attrsens.engine.inputs import Source, printable
from attrsens.engine.store import Store
from attrsens.errors import AttrsensError, InputError

if TYPE_CHECKING:
    from attrsens.models.classifier import Classifier

Map = NDArray[np.float32]
MOST = 2**26  # entries of a target file


@dataclass(frozen=True)
class Goal:
    """A target: its shares (H, W), which sum to 1, a name for reports, and what identifies it in keys."""

    shares: Map
    name: str
    mark: str


def goal_of(
    call: Call, method: Call, classifier: Classifier, ready: Ready, other: Source, store: Store | None, tally: Tally
) -> Goal:
    """The target of an attack on one map.

    Args:
        call: the attack; its target_image, target_map or target_shape says which; without any, `other`'s map.

    Raises:
        InputError: the target cannot be read, or does not fit the input.
    """
    p = call.parameters
    size = ready.pixels.shape[1:]
    if p["target_shape"] != "none":
        return _goal(shape(str(p["target_shape"]), size), str(p["target_shape"]))
    if p["target_map"]:
        return _goal(_from_file(str(p["target_map"]), size), printable(str(p["target_map"])))
    from attrsens.images import decode
    from attrsens.samples import located

    given = str(p["target_image"])
    image = decode(located(given), name=printable(given)) if given else other.load()
    pixels = classifier.preprocess.apply(image)
    if pixels.shape != ready.pixels.shape:
        raise InputError(f"target {image.name} is {pixels.shape[1:]} after preprocessing, the input {size}")
    logits = predict(classifier, image, pixels, store, tally)
    there = Ready(image, pixels, logits, [], None)
    top = int(logits.argmax())
    raw, _, _ = compute(classifier, there.cell(classifier, top, method), method, there, top, store, tally)
    label = classifier.classes[top] if classifier.classes else str(top)
    return _goal(shares(raw), f"map of {image.name} for {label}")


def shares(raw: Map) -> Map:
    """Magnitudes summed over channels, divided by their total, (H, W): `attacks._case.shares` of an array."""
    size = np.abs(raw.astype(np.float64))
    size = size.sum(0) if size.ndim == 3 else size
    total = size.sum()
    return np.asarray(size / total if total > 0 else size, np.float32)


def shape(name: str, size: tuple[int, ...]) -> Map:
    """A shape as a map of zeros and ones, (H, W), centred, sides half of the image's."""
    height, width = size
    y = (np.arange(height)[:, None] + 0.5) / height * 2 - 1
    x = (np.arange(width)[None] + 0.5) / width * 2 - 1
    radius = np.hypot(x, y)
    largest = np.maximum(np.abs(x), np.abs(y))
    inside = {
        "disc": radius < 0.5,
        "square": largest < 0.5,
        "ring": (radius > 0.4) & (radius < 0.7),
        "cross": (np.minimum(np.abs(x), np.abs(y)) < 0.12) & (largest < 0.8),
        "frame": largest > 0.8,
    }[name]
    return inside.astype(np.float32)


def checked(call: Call) -> None:
    """Raise where the attack's targets contradict each other, or a target file is no map.

    Raises:
        AttrsensError: they do, or it is not.
    """
    p = call.parameters
    if "target_shape" not in p:
        return
    given = [k for k in ("target_image", "target_map", "target_shape") if p[k] not in ("", "none")]
    if len(given) > 1:
        raise AttrsensError(f"{' and '.join(given)}: a map can become one target; give one of them")
    if p["target_map"]:
        try:
            _from_file(str(p["target_map"]), None)
        except InputError as error:
            raise AttrsensError(str(error)) from None


def following(sources: Sequence[Source], position: int) -> Source:
    """The next image of a run that can be read and is another picture, after the last the first; where there is none, a
    packaged picture that is another."""
    own = sources[position].load().sha256
    for source in (*sources[position + 1 :], *sources[:position]):
        with suppress(InputError):
            if source.load().sha256 != own:
                return source
    from attrsens.images import decode
    from attrsens.samples import samples

    for name, sample in samples().items():
        if decode(sample.path).sha256 != own:
            return Source(f"sample:{name}", lambda path=sample.path, name=name: decode(path, name=f"sample:{name}"))  # type: ignore[misc]
    raise InputError("no packaged picture is another; give --target-image")


def _goal(raw: Map, name: str) -> Goal:
    found = shares(raw)
    if not float(found.sum()) > 0:
        raise InputError(f"target {name} is zero everywhere")
    return Goal(found, name, hashlib.sha256(np.ascontiguousarray(found, "<f4").data).hexdigest())


def _from_file(path: str, size: tuple[int, ...] | None) -> Map:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # a file of any size is looked at first
    except Exception as error:  # a header that is no header fails in many ways
        why = " ".join(str(error).split())[:80]
        raise InputError(f"target map {path} cannot be read as .npy ({why})") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub" or array.ndim not in (2, 3):
        raise InputError(f"target map {path}: an array of numbers (H, W) or (C, H, W) is needed")
    if array.size > MOST:
        raise InputError(f"target map {path}: {array.shape} numbers; at most {MOST:,} are read")
    if size is not None and array.shape[-2:] != tuple(size):
        raise InputError(f"target map {path} is {array.shape[-2:]}, the input {tuple(size)}")
    with np.errstate(over="ignore"):
        found = np.asarray(array, np.float32)
    if not np.isfinite(found).all():
        raise InputError(f"target map {path} holds numbers that are not finite, as float32")
    if not found.any():
        raise InputError(f"target map {path} is {'zero everywhere' if found.size else 'empty'}")
    return found

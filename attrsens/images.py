"""Images from untrusted files: decoding within limits, and the geometry that a classifier asks for.

Decoding is Pillow's alone, and every pixel mode has a stated outcome. Geometry is torchvision's on a Pillow image.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import stat
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attrsens.errors import AttrsensError, InputError

if TYPE_CHECKING:
    from PIL import Image as PIL

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000
MAX_SIDE = 7000  # of the classifier's input
INTERPOLATION = ("nearest", "bilinear", "bicubic", "lanczos")


@dataclass(frozen=True)
class Image:
    """One decoded image.

    Attributes:
        name: the path as given, `sample:NAME`, or `FILE.npz#INDEX`.
        pixels: uint8, (H, W, 3) or (H, W) for grey.
        notes: what decoding had to decide, such as "alpha composited on white".
        label: class index known from the file itself (npz), or None.
    """

    name: str
    pixels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()
    label: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @cached_property
    def sha256(self) -> str:
        """Hash of shape and decoded pixels: the same picture in another file format is the same image."""
        digest = hashlib.sha256(repr(self.pixels.shape).encode())
        digest.update(np.ascontiguousarray(self.pixels).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Preprocess:
    """From a picture to the classifier's pixels: resize, centre crop, then (inside the classifier) normalise.

    Attributes:
        resize: length of the short side after resizing; None keeps the size.
        crop: side of the central square; None keeps everything.
        interp: nearest, bilinear, bicubic or lanczos (Pillow's filters).
        squash: resize to a square of side `resize`, whatever the aspect.
        mean, std: one number a channel; their count is the number of channels.
        clamp: cut pixels at 0 and 1 first, as the normaliser of robustness' checkpoints does; noisy or overshooting
            inputs then have no gradient out there.
    """

    resize: int | None = None
    crop: int | None = None
    interp: str = "bilinear"
    squash: bool = False
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    clamp: bool = False

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise AttrsensError(
                f"preprocess: mean and std need one number a channel (1 or 3); got {len(self.mean)} and {len(self.std)}"
            )
        if not all(math.isfinite(v) for v in (*self.mean, *self.std)):
            raise AttrsensError(f"preprocess: mean and std must be finite; got {self.mean} and {self.std}")
        if min(self.std) <= 0:
            raise AttrsensError(f"preprocess: std must be above 0; got {min(self.std):g}")
        if self.interp not in INTERPOLATION:
            raise AttrsensError(f"preprocess: interp must be one of {', '.join(INTERPOLATION)}; got {self.interp!r}")
        for name in ("resize", "crop"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MAX_SIDE:
                raise AttrsensError(f"preprocess: {name} must be from 1 to {MAX_SIDE}; got {value}")

    @property
    def channels(self) -> int:
        return len(self.mean)

    def describe(self) -> dict[str, Any]:
        """Plain values, for hashing and reports."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def updated(self, text: str) -> Preprocess:
        """This preprocessing with the settings of `resize=256,crop=224,mean=0.5,0.5,0.5,...` replaced.

        Raises:
            AttrsensError: an unknown setting or an unreadable value.
        """
        settings: dict[str, list[str]] = {}
        key = ""
        for token in text.split(","):
            if "=" in token:
                key, token = (part.strip() for part in token.split("=", 1))
            settings.setdefault(key, []).append(token.strip())
        known = [f.name for f in fields(self)]
        changes: dict[str, Any] = {}
        for key, tokens in settings.items():
            if key not in known:
                raise AttrsensError(f"preprocess has no setting {key!r}; it has: {', '.join(known)}")
            try:
                changes[key] = _setting(key, tokens)
            except ValueError:
                raise AttrsensError(f"preprocess: cannot read {key}={','.join(tokens)}") from None
        for key, other in (("mean", "std"), ("std", "mean")):
            if key in changes and other not in changes and len(changes[key]) != self.channels:
                raise AttrsensError(f"preprocess: {key} has {len(changes[key])} channels; give {other} too")
        return replace(self, **changes)

    def geometry(self, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
        """((height, width) after resizing, (top, left, bottom, right) of the crop), as torchvision computes them."""
        h, w = size
        if self.resize is not None:
            short, long = (w, h) if w <= h else (h, w)
            new_long = int(self.resize * long / short)
            h, w = (new_long, self.resize) if size[1] <= size[0] else (self.resize, new_long)
            if self.squash:
                h = w = self.resize
        if self.crop is None:
            return (h, w), (0, 0, h, w)
        top, left = round((h - self.crop) / 2.0), round((w - self.crop) / 2.0)
        return (h, w), (top, left, top + self.crop, left + self.crop)

    def zoom(self, size: tuple[int, int]) -> tuple[float, float]:
        """Pixels after resizing a pixel of a picture of (height, width), down and across."""
        (h, w), _ = self.geometry(size)
        return h / size[0], w / size[1]

    def apply(self, image: Image) -> NDArray[np.float32]:
        """The classifier's pixels, (channels, H, W) float32 in [0, 1].

        Raises:
            InputError: the picture is smaller than the crop.
        """
        from PIL import Image as PIL

        picture = PIL.fromarray(image.pixels)
        (h, w), (top, left, bottom, right) = self.geometry(image.size)
        if h * w > MAX_PIXELS:
            raise InputError(f"{image.name}: resizing makes it {w} x {h}; up to {MAX_PIXELS // 10**6} million pixels")
        if top < 0 or left < 0:
            raise InputError(f"{image.name}: {w} x {h} pixels are fewer than the crop of {self.crop}; add resize=")
        if self.channels == 3:
            picture = picture.convert("RGB")
        elif picture.mode != "L":
            picture = picture.convert("L")
        if (w, h) != picture.size:
            picture = picture.resize((w, h), PIL.Resampling[self.interp.upper()])
        pixels = np.asarray(picture.crop((left, top, right, bottom)), dtype=np.float32) / np.float32(255)
        return pixels[None] if self.channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _setting(key: str, tokens: list[str]) -> Any:
    if key in ("mean", "std"):
        return tuple(float(t) for t in tokens)
    (token,) = tokens
    if key == "interp":
        return token
    if key in ("squash", "clamp"):
        return {"true": True, "false": False}[token] if token in ("true", "false") else int(token) > 0
    return None if token == "none" else int(token)


def read_bytes(path: str | Path, limit: int = MAX_BYTES, what: str = "images") -> bytes:
    """The bytes of a regular file; devices, pipes, directories and large files are refused without reading them.

    Raises:
        InputError: says which file and why.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from None
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise InputError(f"{path}: not a regular file")
    with os.fdopen(handle, "rb") as file:
        if status.st_size > limit:
            raise InputError(f"{path}: {status.st_size / 2**20:.0f} MiB; {what} up to {limit / 2**20:.0f} MiB are read")
        try:
            return file.read(limit + 1)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def decode(path: str | Path, *, frame: int | None = None, name: str | None = None) -> Image:
    """Decode an image file.

    Args:
        frame: which frame of an animated or multi-page file, from 0; without it such files are refused.
        name: what to call it in reports; the path by default.

    Raises:
        InputError: not an image, damaged, animated, too large, or a pixel mode without a defined outcome.
    """
    return decode_bytes(read_bytes(path), name or os.fspath(path), frame=frame)


def decode_bytes(data: bytes, name: str, *, frame: int | None = None) -> Image:
    """As `decode`, from bytes in memory."""
    from PIL import Image as PIL
    from PIL import ImageOps, UnidentifiedImageError

    if not data:
        raise InputError(f"{name}: the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", PIL.DecompressionBombWarning)
            picture = PIL.open(io.BytesIO(data), formats=FORMATS)
            _check_size(picture, name)
            notes = _select_frame(picture, name, frame)
            _check_size(picture, name)
            picture.load()
            pixels, note = _to_uint8(ImageOps.exif_transpose(picture), name)
    except InputError:
        raise
    except (PIL.DecompressionBombWarning, PIL.DecompressionBombError):
        raise InputError(f"{name}: more pixels than are read (up to {MAX_PIXELS // 10**6} million)") from None
    except UnidentifiedImageError:
        raise InputError(f"{name}: not an image that is read ({', '.join(FORMATS)})") from None
    except MemoryError:
        raise InputError(f"{name}: too large for the memory") from None
    except Exception as error:  # a decoder's complaint about untrusted bytes, of any type
        raise InputError(f"{name}: damaged image ({type(error).__name__}: {str(error)[:120]})") from None
    return Image(name, pixels, (*notes, *note))


def from_picture(picture: PIL.Image, name: str) -> Image:
    """A Pillow picture by the same table of modes.

    Raises:
        InputError: a pixel mode without a defined outcome.
    """
    pixels, notes = _to_uint8(picture, name)
    return Image(name, pixels, notes)


def _check_size(picture: PIL.Image, name: str) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        size = f"{picture.width} x {picture.height} pixels"
        raise InputError(f"{name}: {size}; up to {MAX_PIXELS // 10**6} million are read")


def _select_frame(picture: PIL.Image, name: str, frame: int | None) -> tuple[str, ...]:
    count = getattr(picture, "n_frames", 1)
    if picture.format == "MPO" and frame is None:  # a photograph with a preview behind it
        return ("first picture of an MPO file",)
    if frame is None:
        if count > 1:
            raise InputError(f"{name}: has {count} frames; choose one with --frame 0..{count - 1}")
        return ()
    if not 0 <= frame < count:
        raise InputError(f"{name}: has no frame {frame} (frames 0 to {count - 1})")
    picture.seek(frame)
    return (f"frame {frame} of {count}",) if count > 1 else ()


def _convert(mode: str, note: str | None = None) -> Callable[[PIL.Image], tuple[NDArray[np.uint8], tuple[str, ...]]]:
    return lambda picture: (np.asarray(picture.convert(mode)), (note,) if note else ())


def _on_white(picture: PIL.Image) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    from PIL import Image as PIL

    picture = picture.convert("RGBA")
    white = PIL.new("RGBA", picture.size, (255, 255, 255, 255))
    return np.asarray(PIL.alpha_composite(white, picture).convert("RGB")), ("alpha composited on white",)


def _from_16_bit(picture: PIL.Image) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    wide = np.asarray(picture).astype(np.uint32)
    pixels = ((wide + 128) // 257).astype(np.uint8)
    if "transparency" not in picture.info:
        return pixels, ("16 bits divided by 257",)
    pixels[wide == picture.info["transparency"]] = 255
    return pixels, ("16 bits divided by 257", "alpha composited on white")


_MODES = {
    "1": _convert("L"),
    "L": _convert("L"),
    "P": _convert("RGB"),
    "RGB": _convert("RGB"),
    "YCbCr": _convert("RGB"),
    "CMYK": _convert("RGB", "CMYK converted without a colour profile"),
    "RGBA": _on_white,
    "RGBa": _on_white,
    "LA": _on_white,
    "La": _on_white,
    "PA": _on_white,
    "I;16": _from_16_bit,
    "I;16L": _from_16_bit,
    "I;16B": _from_16_bit,
}


def _to_uint8(picture: PIL.Image, name: str) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    if picture.mode not in _MODES:
        raise InputError(f"{name}: pixel mode {picture.mode} has no defined range; save it as 8 or 16 bits")
    if "transparency" in picture.info and not picture.mode.startswith("I"):
        return _on_white(picture)
    return _MODES[picture.mode](picture)

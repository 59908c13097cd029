"""What is done to a classifier's pixels before they are explained: an object is removed, noise is added."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.compute import Marks, Ready, Tally, predict
from attrsens.engine.inputs import Source, printable
from attrsens.engine.report import Failure, InputInfo
from attrsens.errors import AttrsensError, InputError, told
from attrsens.images import Image
from attrsens.params import Hyper, Param
from attrsens.seeds import Stream

if TYPE_CHECKING:
    from attrsens.engine.annotations import Annotations
    from attrsens.engine.store import Store
    from attrsens.models.classifier import Classifier

FILLS = ("mean", "black", "grey", "white", "blur")
BLUR = 10 / 224  # sd of the blur, as a share of the short side: Fong and Vedaldi's 10 pixels of 224
NOISE = Hyper(
    "noise",
    float,
    0.0,
    Param("sd of Gaussian noise on the pixels, in units of their range", min=0, max=1, source="SAM; methods 5.8"),
)
NOISE_AT = Hyper("noise_at", str, "crop", Param("what noise is added to", choices=("crop", "picture")))
FILL = Hyper("fill", str, "mean", Param("what stands in an erased object's place", choices=FILLS))


class Erasure:
    """An object that is removed from images: where a mask covers a pixel by the share c, the pixel becomes
    (1 - c) pixel + c fill. The mask goes through the image's own resizing and crop (see `annotations.drawing.framed`).

    Args:
        path: a mask PNG, for every image of its size: every value but 0 is erased (in 8 bits, 255 is VOC's border and
            stays, unless no other value is there); or what `Annotations` reads, by image: all its objects.
        fill: mean (the normaliser's), black, grey, white; or blur, the crop itself under a Gaussian of `BLUR`.

    Raises:
        AttrsensError: no such file, not a mask, or an unknown fill.
    """

    def __init__(self, path: str | Path, fill: str = "mean") -> None:
        self.fill = str(FILL.check(fill, "erase"))
        self.name = printable(str(path))
        self._mask: NDArray[np.bool_] | None = None
        self._annotations: Annotations | None = None
        file = Path(path)
        if file.suffix.lower() == ".png" and file.is_file():
            from attrsens.engine.annotations.files import VOID, read_mask

            try:
                values = read_mask(file)
            except InputError as error:
                raise AttrsensError(f"erase: {error}") from None
            border = values.dtype == np.uint8 and not set(np.unique(values)) <= {0, VOID}
            self._mask = (values != 0) & ~(border & (values == VOID))
            if not self._mask.any():
                raise AttrsensError(f"erase: {self.name} marks no pixel")
        else:
            from attrsens.engine.annotations import Annotations

            try:
                self._annotations = Annotations(path)
            except AttrsensError as error:
                raise AttrsensError(f"erase: {str(error).removeprefix('annotations: ')}") from None

    def cover(self, source: Source, image: Image, classifier: Classifier) -> NDArray[np.float32]:
        """The share (H, W) of each pixel of the crop that is erased.

        Raises:
            InputError: there is no mask for the image, one of another size, or the crop misses what it marks.
        """
        if self._mask is None:
            assert self._annotations is not None
            region = self._annotations.of(source, image, classifier)
            if region is None:
                raise InputError(f"{source.name}: {self.name} marks nothing in it")
            cover = np.max([thing.cover for thing in region.things], 0)
        else:
            from attrsens.engine.annotations.drawing import framed

            if self._mask.shape != image.size:
                there, here = (f"{w} x {h}" for h, w in (self._mask.shape, image.size))
                raise InputError(f"{source.name}: {self.name} is {there} pixels, but the image has {here}")
            cover = framed(self._mask, classifier.preprocess)
        if not cover.any():
            raise InputError(f"{source.name}: the crop misses what {self.name} marks")
        return np.asarray(cover, np.float32)

    def apply(
        self, pixels: NDArray[np.float32], cover: NDArray[np.float32], classifier: Classifier
    ) -> NDArray[np.float32]:
        """The pixels (C, H, W) with what the mask covers replaced."""
        import torch

        if self.fill == "blur":
            from attrsens.methods._masks import blur

            sd = BLUR * min(pixels.shape[1:])
            fill = blur(torch.from_numpy(pixels), sd).numpy()
        else:
            fill = classifier.view().colour(self.fill).cpu().numpy()
        return np.asarray(pixels * (1 - cover) + fill * cover, np.float32)

    def mark(self, cover: NDArray[np.float32]) -> str:
        """What identifies the erasure in the keys of cells."""
        digest = hashlib.sha256(repr((self.fill, BLUR if self.fill == "blur" else 0, cover.shape)).encode())
        digest.update(np.ascontiguousarray(cover, "<f4").data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Change:
    """Noise is added, and an object erased.

    Attributes:
        noise: sd of N(0, sd^2), added to every entry in [0, 1], before the classifier normalises; the sum is cut to
            [0, 1], so that it remains a picture. Its standard normal draw depends on `seed`, the image and the shape
            alone: levels differ by the factor only, and models of one input size see the same noise.
        seed: of the noise. The draws of methods stay those of the unchanged image.
        at: crop: what the classifier sees, after erasing. picture: the decoded picture at its own size, rounded to 8
            bits, then resized and cropped, then erased; resizing takes most of the noise out of a large picture. (SAM's
            code; its variance of .1 is an sd of .316.)
    """

    noise: float = 0.0
    seed: int = 0
    erasure: Erasure | None = None
    at: str = "crop"

    def marks(self, cover: NDArray[np.float32] | None) -> Marks:
        """What joins the key of cells, given what is erased."""
        out: Marks = {"noise": self.noise, "noise_seed": self.seed} if self.noise else {}
        if self.noise and self.at != "crop":
            out["noise_at"] = self.at
        if self.erasure and cover is not None:
            out["erased"] = self.erasure.mark(cover)
        return out

    def cover(self, source: Source, image: Image, classifier: Classifier) -> NDArray[np.float32] | None:
        """What is erased; None for nothing.

        Raises:
            InputError: see `Erasure.cover`.
        """
        return self.erasure.cover(source, image, classifier) if self.erasure else None

    def apply(
        self, pixels: NDArray[np.float32], image: Image, cover: NDArray[np.float32] | None, classifier: Classifier
    ) -> NDArray[np.float32]:
        """Changed pixels (C, H, W) in [0, 1].

        Args:
            pixels: the image's, as the classifier sees them.
        """
        if self.noise and self.at == "picture":
            noisy = self._noisy(image.pixels.astype(np.float32) / np.float32(255), image)
            pixels = classifier.preprocess.apply(replace(image, pixels=(noisy * 255).round().astype(np.uint8)))
        if self.erasure and cover is not None:
            pixels = self.erasure.apply(pixels, cover, classifier)
        return self._noisy(pixels, image) if self.noise and self.at == "crop" else pixels

    def _noisy(self, values: NDArray[np.float32], image: Image) -> NDArray[np.float32]:
        draw = Stream(self.seed, image.sha256, "input noise").normal([0], values.shape)[0]
        return np.asarray(np.clip(values + np.float32(self.noise) * draw, 0, 1), np.float32)

    def of(
        self, source: Source, clean: Ready, classifier: Classifier, store: Store | None, tally: Tally
    ) -> Ready | None:
        """The changed input, with the classes of the clean one; None where it fails, which `tally` is told."""
        stage = "erase"
        try:
            cover = self.cover(source, clean.image, classifier)
            pixels = self.apply(clean.pixels, clean.image, cover, classifier)
            marks, stage = self.marks(cover), "predict"
            logits = predict(classifier, clean.image, pixels, store, tally, marks)
        except Exception as error:
            tally.failures.append(Failure(source.name, stage, told(error), classifier.name))
            return None
        erasure = self.erasure
        info = InputInfo(self.noise, erasure.name if erasure else None, erasure.fill if erasure else None)
        return replace(clean, pixels=pixels, logits=logits, change=info, marks=marks, before=clean.logits)


def changes(noise: Iterable[object], erasure: Erasure | None, seed: int = 0, at: str = "crop") -> tuple[Change, ...]:
    """Every change that is asked for: each noise level with nothing erased, then each with the object erased, without
    the input as it is, which always belongs to a comparison.

    Raises:
        AttrsensError: a level outside [0, 1], or no place for it.
    """
    at = str(NOISE_AT.check(at, "input"))
    levels = dict.fromkeys([0.0, *(float(NOISE.check(level, "input")) for level in noise)])
    found = [
        Change(level, seed if level else 0, erased, at)
        for erased in ([None, erasure] if erasure else [None])
        for level in levels
    ]
    return tuple(found[1:])

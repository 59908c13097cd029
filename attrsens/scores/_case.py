"""What a score is given, what it may ask for, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from attrsens.heatmaps import finish

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.explainer import Explainer
    from attrsens.models.batches import Stack
    from attrsens.models.classifier import Classifier
    from attrsens.regions import Region
    from attrsens.seeds import Stream

Key = tuple[Hashable, ...]


@dataclass(frozen=True)
class Look:
    """Asks what the network says of images.

    The answer is a float32 tensor on the CPU: (n,), the target's logit or softmax probability; with output=logits
    (n, classes), and with output=features (n, features), what the layer that makes the logits is given.

    Attributes:
        key: what the images are. Within an image and class, asks with equal keys and outputs have the same images, and
            are answered once, whichever map or score asks.
        images: pixels in [0, 1] or beyond, (C, H, W) each, on the classifier's device.
        output: logit, prob, logits or features.
    """

    key: Key
    images: Stack
    output: str = "prob"


@dataclass(frozen=True)
class Maps:
    """Asks for maps of the case's method: of other images, of another network.

    The answer is a float32 tensor on the CPU, (n, H, W) or (n, C, H, W), with the score's sign and reduction.

    Attributes:
        key: what the images are. Within a method call, asks with equal keys and of equal networks share their maps; one
            that has fewer images takes the first of the other's.
        images: as in `Look`.
        fresh: every image draws for itself what the method draws; else all draw what the clean image drew.
        pool: these are maps of copies of the image, which a control may replace to find the score's floor.
        network: the classifier to explain, instead of the case's; `name` tells networks apart.
        targets: the class of each image, instead of the case's.
    """

    key: Key
    images: Stack
    fresh: bool = False
    pool: bool = False
    network: Classifier | None = None
    name: str = ""
    targets: tuple[int, ...] | None = None

    def part(self, rows: range) -> Maps:
        """The same question about some of the images."""
        first, targets = rows.start, self.targets[rows.start : rows.stop] if self.targets else None

        def build(at: range) -> Tensor:
            return self.images.build(range(first + at.start, first + at.stop))

        return replace(self, images=stack(len(rows), build, self.images.like), targets=targets)


@dataclass(frozen=True)
class Beside:
    """Asks for another method's map of the same image, network and class, with the score's sign and reduction, as
    (map, notes)."""

    expression: str


Ask = Look | Maps | Beside


@dataclass(frozen=True)
class Finding:
    """What a score found.

    Attributes:
        curve: what the value is the area under or the summary of, in order.
        details: further numbers by name; None where one does not exist.
    """

    value: float
    curve: Sequence[float] | None = None
    details: Mapping[str, float | None] = field(default_factory=dict)


class NoValue(Exception):
    """The score does not exist for this explanation; the message says why."""


Answers = Generator[Ask | tuple[Ask, ...], Any, Finding | float]  # several asks at once get a list of answers
Judged = Finding | float | Answers


@dataclass(frozen=True)
class Case:
    """One explanation to be judged.

    Attributes:
        explainer: the method bound to classifier, target, parameters and image hash.
        pixels: what was explained, (C, H, W) in [0, 1], on the classifier's device.
        logits: (classes,) of the clean image, on the CPU.
        raw: the method's output, (C, H, W) or (H, W), signed, float32 on the CPU.
        notes: numbers the method gave of its own run.
        annotated: every annotated object of the image, or None.
        sign, reduce: of the map that is judged: signed or abs; mean, sum, max or none.
    """

    explainer: Explainer
    pixels: Tensor
    logits: Tensor
    raw: Tensor
    notes: Mapping[str, float | None] = field(default_factory=dict)
    annotated: Region | None = None
    sign: str = "signed"
    reduce: str = "mean"

    @property
    def classifier(self) -> Classifier:
        return self.explainer.classifier

    @property
    def target(self) -> int:
        return self.explainer.target

    @property
    def space(self) -> str:
        """The space that the method's gradients, noise and fills refer to: pixel or normalized."""
        return str(self.explainer.complete()["space"])

    @property
    def method_output(self) -> str:
        """The scalar that the method explains: logit or prob."""
        return str(self.explainer.complete()["output"])

    @cached_property
    def map(self) -> Tensor:
        """The map that is judged: (H, W), or (C, H, W) with reduce=none. Float32 on the CPU."""
        return self.finish(self.raw)

    @cached_property
    def order(self) -> Tensor:
        """(H W,) the pixels from the largest value of the map (the mean of its channels) to the smallest; equal ones by
        position."""
        import torch

        plane = self.map if self.map.dim() == 2 else self.map.mean(0)
        return torch.argsort(plane.flatten(), descending=True, stable=True)

    def finish(self, raw: Tensor) -> Tensor:
        """A raw map with the score's sign and reduction."""
        found: Tensor = finish(raw, self.sign, self.reduce)
        return found

    @property
    def clean(self) -> dict[str, float]:
        """The target's logit and softmax probability on the clean image."""
        wide = self.logits.double()
        return {"logit": float(wide[self.target]), "prob": float(wide.softmax(0)[self.target])}

    @property
    def region(self) -> Region:
        """The target's objects (all of them where the annotation knows no classes).

        Raises:
            NoValue: there is no annotation of this image, or none of this class.
        """
        if self.annotated is None:
            raise NoValue("the image has no annotation")
        found = self.annotated.of(self.target)
        if found is None:
            raise NoValue("the annotation has no object of this class")
        if not any(bool(thing.cover.any()) for thing in found.things):
            raise NoValue("the crop misses every object of this class")
        return found

    def unit(self, space: str) -> Tensor:
        """(C, 1, 1) on the device: how many pixel units one unit of a space is."""
        import torch

        f = self.classifier
        ones = torch.ones(len(self.pixels), 1, 1, device=f.device)
        if space == "pixel":
            return ones
        view = f.view(space="normalized")
        return view.decode(ones) - view.decode(torch.zeros_like(ones))

    def colour(self, name: str) -> Tensor:
        """black, white, grey or mean (zero of the normalised tensor) as (C, 1, 1) pixels on the device."""
        return self.classifier.view().colour(name)

    def stream(self, seed: int, purpose: str) -> Stream:
        """The random draws of this image for this purpose."""
        from attrsens.seeds import Stream

        return Stream(seed, self.explainer.image, purpose)


def stack(count: int, build: Callable[[range], Tensor], like: Tensor) -> Stack:
    """Images that are made as a batch needs them."""
    from attrsens.models.batches import Stack

    return Stack(count, build, like)

"""A method bound to a classifier, a target and its parameters: what scores and attacks are handed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from attrsens.errors import InputError
from attrsens.heatmaps import finish
from attrsens.spec import Spec, Value

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.batches import Images, Passes, Stack
    from attrsens.models.classifier import Classifier


@dataclass(frozen=True)
class Raw:
    """A method's own output, before `sign` and `reduce`: (C, H, W) or (H, W), with its notes and its cost."""

    map: Tensor
    notes: dict[str, float | None]
    passes: Passes


class Base:
    """A method, or a wrapped method, as a wrapper sees it.

    Calling it on an image (C, H, W) in the view's space gives its raw map. `many(images)` gives those of many images in
    stacks, in order: in as few passes as the entry's trait `many` knows how to, else one image after the other.
    """

    def __init__(
        self, spec: Spec, arguments: Mapping[str, Value], f: Classifier, target: int, inner: Base | None = None
    ) -> None:
        self.spec, self.arguments, self.f, self.target, self.inner = spec, arguments, f, target, inner
        self.notes: dict[str, float | None] = {}

    def __call__(self, x: Tensor) -> Tensor:
        before = (self.inner, self.f) if self.inner else (self.f,)
        result: Any = self.spec.function(*before, x, self.target, **self.arguments)
        heatmap, self.notes = result if isinstance(result, tuple) else (result, {})
        found: Tensor = heatmap
        return found

    def many(self, images: Images) -> Iterator[Tensor]:
        """Raw maps (b, C, H, W) or (b, H, W), batch by batch."""
        import torch

        from attrsens.models.batches import chunks

        together = self.spec.traits.get("many")
        if together:
            before = (self.inner, self.f) if self.inner else (self.f,)
            yield from together(*before, images, self.target, **self.arguments)
        else:
            for chunk in chunks(images, self.f.sizes[1]):
                yield torch.stack([self(image) for image in chunk])


@dataclass(frozen=True)
class Explainer:
    """Calling it on pixels in [0, 1], (C, H, W), gives the heatmap.

    Attributes:
        parameters: complete, as `Spec.complete` returns them.
        image: hash that keys the random draws. It stays the same when the pixels are perturbed, so that a map and
            the map of a perturbed image share their draws.
        dry: count passes without running them.
        wrappers: (spec, parameters) of each, innermost first.
        zoom: pixels of the image a pixel of the picture before resizing (`Preprocess.zoom`), down and across.
    """

    classifier: Classifier
    spec: Spec
    target: int
    parameters: Mapping[str, Value] = field(default_factory=dict)
    image: str = ""
    dry: bool = False
    wrappers: tuple[tuple[Spec, Mapping[str, Value]], ...] = ()
    zoom: tuple[float, float] = (1.0, 1.0)

    def __call__(self, pixels: Tensor) -> Tensor:
        p = self.complete()
        return finish(self.raw(pixels).map, str(p["sign"]), str(p["reduce"]))

    def raw(self, pixels: Tensor) -> Raw:
        """The method's output before `sign` and `reduce`.

        Raises:
            InputError: the map is not finite or not of the image's shape.
        """
        f = self.view()
        base = self._base(f)
        heatmap = base(f.encode(pixels))
        return Raw(self.checked(heatmap, pixels), _finite(base.notes), f.passes)

    def many(self, images: Stack) -> tuple[Tensor, Passes]:
        """The raw maps (n, C, H, W) or (n, H, W) of images of one size, all with this explainer's target and draws, on
        the CPU; and the passes that were made. Up to `width` go through the network at a time.

        Raises:
            InputError: a map is not finite or not of the images' shape.
        """
        import torch

        f = self.view()
        if "together" in self.spec.traits and not self.wrappers:
            found = [images.build(range(i, i + 1))[0] for i in range(len(images))]
            raws, passes = raw_together([self] * len(found), found, f.sizes[1])
            return torch.stack([raw.map.float().cpu() for raw in raws]), passes
        base, size = self._base(f), self.width
        out = []
        for start in range(0, len(images), size):
            part = torch.cat(list(base.many(f.encode(images.build(range(start, min(start + size, len(images))))))))
            for heatmap in part:
                self.checked(heatmap, images.like)
            out.append(part.detach().float().cpu())
        return torch.cat(out), f.passes

    @property
    def width(self) -> int:
        """How many images `many` passes at a time, on which a map's last bits may depend; 1 where each is by itself."""
        outermost = self.wrappers[-1][0] if self.wrappers else self.spec
        return self.classifier.sizes[1] if "many" in outermost.traits else 1

    def _base(self, f: Classifier) -> Base:
        """The method with its wrappers, on a view."""
        base = Base(self.spec, self.own(), f, self.target)
        for spec, parameters in self.wrappers:
            base = Base(spec, spec.complete(parameters), f, self.target, base)
        return base

    def view(self) -> Classifier:
        """The classifier under this call's conventions, with a pass count of its own."""
        p = self.complete()
        return self.classifier.view(
            output=str(p["output"]),
            space=str(p["space"]),
            sign=str(p["sign"]),
            image=self.image,
            zoom=self.zoom,
            dry=self.dry,
        )

    def own(self) -> dict[str, Value]:
        """The parameters of the method's function, without those that act through the view and after it."""
        p = self.complete()
        return {hyper.name: p[hyper.name] for hyper in self.spec.own()}

    @property
    def draws(self) -> bool:
        """Whether the method or a wrapper draws random numbers."""
        return any(h.name == "seed" for spec in (self.spec, *(w for w, _ in self.wrappers)) for h in spec.hypers)

    def redrawn(self, index: int) -> Explainer:
        """The same call with other draws of its own: another for each index, none of them this one's."""
        image = f"{self.image}/{index}"
        if self.spec.traits.get("draws") != "seed":
            return replace(self, image=image)
        p = self.complete()  # its draws know no image
        text = f"{p['seed']}\n{image}".encode()
        seed = int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")
        return replace(self, image=image, parameters={**p, "seed": seed})

    def checked(self, heatmap: Tensor, pixels: Tensor) -> Tensor:
        """The map, if it is finite and of the image's shape.

        Raises:
            InputError: it is not.
        """
        if heatmap.shape not in (pixels.shape, pixels.shape[-2:]):
            raise InputError(f"{self.spec.name} gave a map of shape {tuple(heatmap.shape)} for {tuple(pixels.shape)}")
        if not self.dry and not bool(heatmap.isfinite().all()):
            raise InputError(f"{self.spec.name} gave a map that is not finite")
        return heatmap

    def complete(self) -> dict[str, Value]:
        """Every parameter with its value."""
        return self.spec.complete(self.parameters)


def raw_together(explainers: Sequence[Explainer], pixels: Sequence[Tensor], width: int) -> tuple[list[Raw], Passes]:
    """What `raw` gives for each of several images of one size under one call, of which `width` advance at a time (the
    trait `together`); and the passes that were made. The last batch is filled up with copies, so that a result does not
    depend on its company, to the last bit.

    Args:
        explainers: of one classifier, method and parameters, for each image its target, hash and zoom.

    Raises:
        InputError: a map is not finite or not of the image's shape.
    """
    import torch

    first = explainers[0]
    f, together = first.view(), first.spec.traits["together"]
    alone = replace(first, dry=True).raw(pixels[0]).passes  # what an image costs by itself
    out = []
    for start in range(0, len(pixels), width):
        pairs = list(zip(explainers, pixels, strict=True))[start : start + width]
        full = pairs + pairs[-1:] * (width - len(pairs))
        encoded = torch.stack([f.encode(image) for _, image in full])
        targets, images, zooms = zip(*((e.target, e.image, e.zoom) for e, _ in full), strict=True)
        results = together(f, encoded, targets, images, zooms, **first.own())
        for (explainer, image), result in zip(pairs, results, strict=False):
            heatmap, notes = result if isinstance(result, tuple) else (result, {})
            out.append(Raw(explainer.checked(heatmap, image), _finite(notes), alone))
    return out, f.passes


def _finite(notes: Mapping[str, float | None]) -> dict[str, float | None]:
    return {k: v if v is not None and math.isfinite(v) else None for k, v in notes.items()}

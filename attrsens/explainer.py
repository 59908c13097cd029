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
        self._before = (inner, f) if inner else (f,)

    def __call__(self, x: Tensor) -> Tensor:
        result = self.spec.function(*self._before, x, self.target, **self.arguments)
        heatmap, self.notes = _noted(result)
        return heatmap

    def across(
        self, x: Tensor, targets: Sequence[int], points: Sequence[Mapping[str, Value]]
    ) -> Iterator[tuple[Tensor, dict[str, float | None]]]:
        """Raw maps and notes of an image for each of several settings, by the entry's trait `settings`, or as one row
        of its trait `together`."""
        if "settings" in self.spec.traits:
            results = self.spec.traits["settings"](*self._before, x, targets, points)
        else:
            f, together = self.f, self.spec.traits["together"]
            (results,) = together(f, x[None], targets[:1], [f.image], [f.zoom], [points], width=1)
        yield from map(_noted, results)

    def many(self, images: Images) -> Iterator[Tensor]:
        """Raw maps (b, C, H, W) or (b, H, W), batch by batch."""
        import torch

        from attrsens.models.batches import chunks

        together = self.spec.traits.get("many")
        if together:
            yield from together(*self._before, images, self.target, **self.arguments)
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
        graph: maps can be differentiated with respect to the pixels, where every part is `differentiable`.
    """

    classifier: Classifier
    spec: Spec
    target: int
    parameters: Mapping[str, Value] = field(default_factory=dict)
    image: str = ""
    dry: bool = False
    wrappers: tuple[tuple[Spec, Mapping[str, Value]], ...] = ()
    zoom: tuple[float, float] = (1.0, 1.0)
    graph: bool = False

    def __call__(self, pixels: Tensor) -> Tensor:
        p = self.complete()
        return finish(self.raw(pixels).map, str(p["sign"]), str(p["reduce"]))

    def raw(self, pixels: Tensor) -> Raw:
        """The method's output before `sign` and `reduce`.

        Raises:
            InputError: the map is not finite or not of the image's shape.
        """
        f = self.view()
        base = self.base(f)
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
            rows, passes = raw_together([([self], pixels) for pixels in found], f.sizes[1])
            return torch.stack([raw.map.float().cpu() for (raw,) in rows]), passes
        base, size = self.base(f), self.width
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
        return self.classifier.sizes[1] if "many" in self.outermost[0].traits else 1

    @property
    def outermost(self) -> tuple[Spec, dict[str, Value]]:
        """The last wrapper, else the method, with its own parameters."""
        if not self.wrappers:
            return self.spec, self.own()
        spec, parameters = self.wrappers[-1]
        return spec, spec.complete(parameters)

    def common(self, beside: bool = False) -> tuple[object, ...]:
        """What explainers must have alike for their settings to share one run (`raw_across`) or, `beside`, one batch
        (`raw_together`), where images and targets may differ as well."""
        spec, own = self.outermost
        p = self.complete()
        view = p["output"], p["space"], p["sign"] == "abs_sample", self.dry
        inner = [] if not self.wrappers else [self.own(), *(w.complete(values) for w, values in self.wrappers[:-1])]
        names = [self.spec.name, *(w.name for w, _ in self.wrappers)]
        shared = spec.shared(own, beside)
        alike: tuple[object, ...] = (names, view, inner, own if shared is None else shared)
        if beside:
            return alike
        free = "target" in spec.traits.get("over", ()) and not self.wrappers
        return (*alike, self.image, self.zoom, None if free else self.target)

    def base(self, f: Classifier, target: Any = None) -> Base:
        """The method with its wrappers, on a view; for its own class, or for one an image of `Base.many`."""
        target = self.target if target is None else target
        base = Base(self.spec, self.own(), f, target)
        for spec, parameters in self.wrappers:
            base = Base(spec, spec.complete(parameters), f, target, base)
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
            graph=self.graph,
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


def raw_across(explainers: Sequence[Explainer], pixels: Tensor) -> Iterator[tuple[Raw, Passes]]:
    """What `raw` gives for one image under each of several settings that share a run, in order and each as soon as it
    is known; and the passes that were made for it, which are few where settings before it made them (a `Raw` says what
    its setting costs by itself).

    Args:
        explainers: of one classifier, alike but for what the trait `over` of the outermost wrapper, else of the method,
            names, and ascending in that. Without that trait they must be equal.

    Raises:
        InputError: a map is not finite or not of the image's shape.
        ValueError: they differ in something else.
    """
    from attrsens.models.batches import Passes

    first = explainers[0]
    _check_alike(explainers)
    f = first.view()
    base, x = first.base(f), f.encode(pixels)
    if "over" in base.spec.traits:
        points = [explainer.outermost[1] for explainer in explainers]
        found = base.across(x, [explainer.target for explainer in explainers], points)
    else:
        found = ((base(x), base.notes) for _ in explainers)
    before = Passes()
    for explainer, (heatmap, notes) in zip(explainers, found, strict=True):
        made = Passes(f.passes.forward - before.forward, f.passes.backward - before.backward)
        before = replace(f.passes)
        alone = made if len(explainers) == 1 else replace(explainer, dry=True).raw(pixels).passes
        yield Raw(explainer.checked(heatmap, pixels), _finite(notes), alone), made


def raw_together(rows: Sequence[tuple[Sequence[Explainer], Tensor]], width: int) -> tuple[list[list[Raw]], Passes]:
    """What `raw` gives for images of one size, each under several settings, of which `width` advance at a time (the
    trait `together`); and the passes that were made. The last batch is filled up with copies, so that a result does not
    depend on its company, to the last bit.

    Args:
        rows: an image's pixels and the explainers of its settings, which differ in what the trait `over` names and
            ascend in it. Rows may differ in target, hash, zoom, and what the trait `beside` names.

    Raises:
        InputError: a map is not finite or not of the image's shape.
        ValueError: the explainers differ in something else.
    """
    first = rows[0][0][0]
    for explainers, _ in rows:
        _check_alike(explainers)
    _check_alike([explainers[0] for explainers, _ in rows], beside=True)
    f, together = first.view(), first.spec.traits["together"]
    alone: dict[str, Passes] = {}  # what a setting costs by itself
    out: list[list[Raw]] = []
    for start in range(0, len(rows), width):
        part = list(rows[start : start + width])
        full = part + part[-1:] * (width - len(part))
        places = [(pixels.data_ptr(), pixels.shape, pixels.stride()) for _, pixels in full]
        once = dict(zip(places, (pixels for _, pixels in full), strict=True))  # what is one image is one tensor
        encoded = {place: f.encode(pixels) for place, pixels in once.items()}
        targets, images, zooms = zip(*((e[0].target, e[0].image, e[0].zoom) for e, _ in full), strict=True)
        points = [[explainer.own() for explainer in explainers] for explainers, _ in full]
        results = together(f, [encoded[place] for place in places], targets, images, zooms, points, width=width)
        for (explainers, pixels), own, found in zip(part, points, results, strict=False):
            raws = []
            for explainer, point, (heatmap, notes) in zip(explainers, own, map(_noted, found), strict=True):
                if str(point) not in alone:
                    alone[str(point)] = replace(explainer, dry=True).raw(pixels).passes
                raws.append(Raw(explainer.checked(heatmap, pixels), _finite(notes), alone[str(point)]))
            out.append(raws)
    return out, f.passes


def _check_alike(explainers: Sequence[Explainer], beside: bool = False) -> None:
    """Raise unless they can share a run."""
    first = explainers[0]
    for other in explainers:
        if other.classifier is not first.classifier or other.common(beside) != first.common(beside):
            raise ValueError(f"{first.spec.name}: these settings cannot share a run")


def _noted(result: Any) -> tuple[Tensor, dict[str, float | None]]:
    """A map with its notes, whether or not there are any."""
    return result if isinstance(result, tuple) else (result, {})


def _finite(notes: Mapping[str, float | None]) -> dict[str, float | None]:
    """Sorted, as the store gives them back."""
    return {k: v if v is not None and math.isfinite(v) else None for k, v in sorted(notes.items())}

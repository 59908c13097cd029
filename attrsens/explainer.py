"""A method bound to a classifier, a target and its parameters: what scores and attacks are handed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from attrsens.errors import InputError
from attrsens.heatmaps import finish
from attrsens.spec import Spec, Value

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.batches import Passes
    from attrsens.models.classifier import Classifier


@dataclass(frozen=True)
class Raw:
    """A method's own output, before `sign` and `reduce`: (C, H, W) or (H, W), with its notes and its cost."""

    map: Tensor
    notes: dict[str, float | None]
    passes: Passes


@dataclass(frozen=True)
class Explainer:
    """Calling it on pixels in [0, 1], (C, H, W), gives the heatmap.

    Attributes:
        parameters: complete, as `Spec.complete` returns them.
        image: hash that keys the random draws. It stays the same when the pixels are perturbed, so that a map and
            the map of a perturbed image share their draws.
        dry: count passes without running them.
    """

    classifier: Classifier
    spec: Spec
    target: int
    parameters: Mapping[str, Value] = field(default_factory=dict)
    image: str = ""
    dry: bool = False

    def __call__(self, pixels: Tensor) -> Tensor:
        p = self.complete()
        return finish(self.raw(pixels).map, str(p["sign"]), str(p["reduce"]))

    def raw(self, pixels: Tensor) -> Raw:
        """The method's output before `sign` and `reduce`.

        Raises:
            InputError: the map is not finite or not of the image's shape.
        """
        p = self.complete()
        f = self.classifier.view(
            output=str(p["output"]),
            space=str(p["space"]),
            sign=str(p["sign"]),
            image=self.image,
            dry=self.dry,
        )
        own = {hyper.name: p[hyper.name] for hyper in self.spec.own()}
        result = self.spec.function(f, f.encode(pixels), self.target, **own)
        heatmap, notes = result if isinstance(result, tuple) else (result, {})
        if heatmap.shape not in (pixels.shape, pixels.shape[-2:]):
            raise InputError(f"{self.spec.name} gave a map of shape {tuple(heatmap.shape)} for {tuple(pixels.shape)}")
        if not self.dry and not bool(heatmap.isfinite().all()):
            raise InputError(f"{self.spec.name} gave a map that is not finite")
        finite = {k: v if v is not None and math.isfinite(v) else None for k, v in notes.items()}
        return Raw(heatmap, finite, f.passes)

    def complete(self) -> dict[str, Value]:
        """Every parameter with its value."""
        return self.spec.complete(self.parameters)

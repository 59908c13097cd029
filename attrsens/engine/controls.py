"""Further maps of an image: of other methods, and of the controls that tell what a number is worth (science C-1)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from attrsens.engine.bench import Control
from attrsens.engine.cell import Call, parse_call
from attrsens.engine.compute import Computed, Ready, Tally, compute, explainer
from attrsens.engine.report import PassInfo
from attrsens.engine.store import Store
from attrsens.errors import InputError
from attrsens.explainer import Raw
from attrsens.scores._case import Case
from attrsens.seeds import Stream
from attrsens.spec import METHODS, WRAPPERS, Value

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.classifier import Classifier

# In place of a map: its pixels in random order; its phases drawn anew; edges of the image; noise; the same method's map
# of another picture, for the same class; and, for the ceiling, the same method's with another seed.
CONTROLS = ("shuffle", "phase", "edges", "random", "other", "seed")
FREE = ("shuffle", "phase", "edges", "random")  # those that need no pass
KEPT = 64  # maps
DRAWS = 5  # of a control that is drawn, where the score needs no pass: the floor is their mean
DRAWN = ("shuffle", "phase", "random")


@dataclass
class Maps:
    """Further maps of one image.

    Attributes:
        memo: maps that several images need, such as those of the other picture; shared between images.
        dry: count passes instead of making them; maps are noise.
    """

    classifier: Classifier
    ready: Ready
    store: Store | None
    tally: Tally
    memo: dict[str, Computed]
    dry: bool = False
    _other: Ready | None = None
    _drawn: dict[tuple[str, str, int, int], Tensor] = field(default_factory=dict)
    _cases: dict[Hashable, Case] = field(default_factory=dict)

    @property
    def pixels(self) -> Tensor:
        """(C, H, W) on the classifier's device."""
        import torch

        return torch.from_numpy(self.ready.pixels).to(self.classifier.device)

    def beside(self, expression: str, target: int) -> Raw:
        """Another method's map of this image."""
        return self.map_of(parse_call(expression), target, self.ready)

    def control(self, name: str, call: Call, target: int) -> Control:
        """From a raw map of the call, and its place among the copies, to what takes its place.

        Raises:
            InputError: there is no such control for this image.
        """
        import torch

        from attrsens.methods.controls import scrambled, shuffled, sobel

        stream = Stream(0, self.ready.image.sha256, f"control {name}")
        if name == "shuffle":
            return lambda heatmap, i: shuffled(heatmap, stream, i)
        if name == "phase":
            return lambda heatmap, i: scrambled(heatmap, stream, i)
        if name == "edges":
            edges = sobel(self.pixels).cpu()
            return lambda heatmap, i: edges.expand(heatmap.shape)
        if name == "random":

            def noise(heatmap: Tensor, i: int) -> Tensor:
                draw = torch.from_numpy(stream.uniform([i], tuple(heatmap.shape))[0])
                return 2 * draw - 1 if bool((heatmap < 0).any()) else draw

            return noise
        there = self.map_of(*((reseeded(call), target, self.ready) if name == "seed" else (call, target, self.other())))
        return lambda heatmap, i: there.map

    def case(self, place: Hashable, make: Callable[[], Case]) -> Case:
        """The case of a place, which all scores that judge the same map share, with what they work out of it."""
        if place not in self._cases:
            self._cases[place] = make()
        return self._cases[place]

    def drawn(self, name: str, call: Call, target: int, raw: Tensor, draw: int) -> Tensor:
        """A control in the place of a call's raw map; kept, since several scores judge it."""
        place = name, call.expression, target, draw
        if place not in self._drawn:
            self._drawn[place] = self.control(name, call, target)(raw, draw)
        return self._drawn[place]

    def map_of(self, call: Call, target: int, ready: Ready) -> Raw:
        """The raw map of a call on this image or another, from memory, from the store, or computed: searches and
        optimisers in a batch of one, since a wider one would be filled up with copies."""
        import torch

        from attrsens.models.batches import Passes

        f = self.classifier
        cell = ready.cell(f, target, call, width=1)
        key = cell.raw().key
        if self.dry:
            bound = explainer(f, call, target, dry=True)
            raw = bound.raw(torch.from_numpy(ready.pixels))
            passes = raw.passes
            if key not in self.memo and not (self.store and key in self.store):
                self.memo[key] = np.empty(0, np.float32), {}, PassInfo()  # counted
                self.tally.passes.forward += passes.forward
                self.tally.passes.backward += passes.backward
            draw = Stream(0, call.expression, "dry").normal([0], tuple(raw.map.shape))[0]
            return Raw(torch.from_numpy(draw), {}, passes)
        if key not in self.memo:
            if len(self.memo) >= KEPT:
                self.memo.pop(next(iter(self.memo)))
            self.memo[key] = compute(f, cell, call, ready, target, self.store, self.tally)
        heatmap, notes, cost = self.memo[key]
        return Raw(torch.from_numpy(heatmap), notes, Passes(cost.forward, cost.backward))

    def other(self) -> Ready:
        """The first packaged picture that is another and comes out in the same size.

        Raises:
            InputError: there is none.
        """
        from attrsens.images import decode
        from attrsens.samples import samples

        if self._other:
            return self._other
        for sample in samples().values():
            image = decode(sample.path)
            if image.sha256 == self.ready.image.sha256:
                continue
            try:
                pixels = self.classifier.preprocess.apply(image)
            except InputError:
                continue
            if pixels.shape == self.ready.pixels.shape:
                self._other = Ready(image, pixels, self.ready.logits, [], None)
                return self._other
        raise InputError("no packaged picture comes out in this size")


def seeded(call: Call) -> bool:
    """Whether the call, or a wrapper around it, draws."""
    entries = [(METHODS[call.name], call), *((WRAPPERS[w.name], w) for w in call.wrappers)]
    return any("seed" in c.parameters and not spec.traits.get("still", _never)(c.parameters) for spec, c in entries)


def _never(parameters: Mapping[str, Value]) -> bool:
    return False


def reseeded(call: Call) -> Call:
    """The call with the next seed everywhere."""

    def next_seed(parameters: Mapping[str, Value]) -> dict[str, Value]:
        return {k: int(v) + 1 if k == "seed" else v for k, v in parameters.items()}

    wrappers = tuple(replace(w, parameters=next_seed(w.parameters)) for w in call.wrappers)
    return replace(call, parameters=next_seed(call.parameters), wrappers=wrappers)

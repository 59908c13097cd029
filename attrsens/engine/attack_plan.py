"""What attacks will cost, counted by running every one of them with passes that are counted instead of made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attrsens.engine.attack import Attacker, explains
from attrsens.engine.attack_noise import CONTROLS
from attrsens.engine.cell import Call
from attrsens.engine.compute import Ready, Tally, cell_of, explainer
from attrsens.engine.inputs import Source
from attrsens.engine.report import PassInfo
from attrsens.engine.targets import Goal, following, goal_of
from attrsens.errors import AttrsensError, InputError
from attrsens.images import Image
from attrsens.spec import ATTACKS

if TYPE_CHECKING:
    from attrsens.engine.prepare import Prepared
    from attrsens.models.classifier import Classifier


@dataclass(frozen=True)
class _Place:
    """An image under attack, and the class; None where it is not known yet."""

    classifier: Classifier
    source: Source
    image: Image
    shape: tuple[int, int]
    target: int | None


class Attacks:
    """The attacks of a run. One that finds nothing is measured without noise beside it, and costs less than planned.

    Attributes:
        cells, cached: how many there are, and how many of them need no pass.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.attacker = Attacker.around(prepared, Tally())
        self.store = prepared.store
        self.cells = self.cached = 0
        self._places: list[_Place] = []
        self._seen: set[object] = set()  # predictions, maps and attacks that are made once
        self._prices: dict[object, PassInfo] = {}

    def add(
        self,
        classifier: Classifier,
        source: Source,
        image: Image,
        shape: tuple[int, int],
        targets: list[int | None],
        top: int | None,
    ) -> None:
        """An image whose maps are explained and attacked, for classes of which `top` is the predicted one."""
        self._seen.add((classifier.id, image.sha256))
        for target in dict.fromkeys(targets):
            for method in self.attacker.methods:
                self._seen.add(_map(classifier, image, target if target != top else None, method))
            self._places.append(_Place(classifier, source, image, shape, target))

    def cost(self) -> Iterator[tuple[Classifier, PassInfo]]:
        """The passes of every attack, its goal and the measuring."""
        for place in self._places:
            for method in self.attacker.methods:
                for call in self.attacker.calls:
                    try:
                        yield place.classifier, self._row(place, method, call)
                    except AttrsensError:  # will be a failure of this image
                        continue

    def _row(self, place: _Place, method: Call, call: Call) -> PassInfo:
        classifier, image = place.classifier, place.image
        self.cells += 1
        goal, spent = None, PassInfo()
        if ATTACKS[call.name].traits.get("target"):
            goal, spent = self._goal(place, method, call)
        known = place.target is not None or not explains(call)
        if self.store and known and (goal or not ATTACKS[call.name].traits.get("target")):
            cell = self.attacker.cell(classifier, method, call, cell_of(classifier, image.sha256, place.target), goal)
            if cell.key in self.store:
                self.cached += 1
                return spent
        once: tuple[object, ...] = classifier.id, image.sha256, call.expression
        once += (method.raw().expression, place.target) if explains(call) else ()
        once += () if self.store else (id(place.source),)
        if once in self._seen:
            return spent
        self._seen.add(once)
        return _sum(spent, self._price(classifier, method, call, place.shape))

    def _goal(self, place: _Place, method: Call, call: Call) -> tuple[Goal | None, PassInfo]:
        """The goal, if it can be told without a pass, and the passes for it."""
        import numpy as np

        from attrsens.engine.plan import cost
        from attrsens.images import decode
        from attrsens.samples import located

        classifier, store = place.classifier, self.store
        pixels = np.zeros((classifier.preprocess.channels, *place.shape), np.float32)
        ready = Ready(place.image, pixels, np.zeros(1, np.float32), [], None)
        p = call.parameters
        other = following(self.attacker.sources, self.attacker.sources.index(place.source))
        spent = PassInfo()
        if p["target_shape"] == "none" and not p["target_map"]:
            image = decode(located(str(p["target_image"]))) if p["target_image"] else other.load()
            _, (top, left, bottom, right) = classifier.preprocess.geometry(image.size)
            if (bottom - top, right - left) != place.shape:
                raise InputError("a target of another size")
            kept = store.get(cell_of(classifier, image.sha256).key) if store else None
            if self._new((classifier.id, image.sha256), there=kept is not None):
                spent.forward += classifier.copies
            best = int(kept.arrays["logits"].argmax()) if kept else None
            there = bool(store and kept and cell_of(classifier, image.sha256, best, method).raw().key in store)
            if self._new(_map(classifier, image, None, method), there=there):
                spent = _sum(spent, cost(classifier, method, place.shape))
            if not there:
                return None, spent
        return goal_of(call, method, classifier, ready, other, store, Tally()), spent

    def _new(self, what: object, there: bool) -> bool:
        """Whether it has to be made: without a store every time."""
        if there or (self.store and what in self._seen):
            return False
        self._seen.add(what)
        return True

    def _price(self, classifier: Classifier, method: Call, call: Call, shape: tuple[int, int]) -> PassInfo:
        """The passes of one attack, and of measuring what it found and noise of its size."""
        import torch

        from attrsens.attacks._case import Case

        place = classifier.id, method.expression, call.expression, shape
        if place not in self._prices:
            pixels = torch.zeros(classifier.preprocess.channels, *shape, device=classifier.device)
            pixels[..., 0, 0] = 1.0  # an image with a range
            bound = explainer(classifier, method, 0, dry=True)
            case = Case(bound, pixels, 0, pixels.new_zeros(2), pixels)
            (outcome,) = ATTACKS[call.name].function([case], **call.parameters)
            measured = 1 + CONTROLS if explains(call) else 1
            one = bound.raw(pixels).passes if explains(call) else PassInfo()
            forward = outcome.passes.forward + measured * (classifier.copies + one.forward)
            self._prices[place] = PassInfo(forward, outcome.passes.backward + measured * one.backward)
        return self._prices[place]


def _map(classifier: Classifier, image: Image, target: int | None, method: Call) -> object:
    """A map, of the class that is predicted if None."""
    return classifier.id, image.sha256, target, method.raw().expression


def _sum(a: PassInfo, b: PassInfo) -> PassInfo:
    return PassInfo(a.forward + b.forward, a.backward + b.backward)

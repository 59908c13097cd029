"""Who agrees with whom: similarities of all maps of an image, whatever their methods, models and inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.cell import Call
from attrsens.engine.compute import Ready
from attrsens.engine.controls import CONTROLS, Maps, seeded
from attrsens.engine.inputs import Source
from attrsens.engine.judge import Judge, shown
from attrsens.engine.metrics import attainable, definition, rescaled, short, spec_of
from attrsens.engine.report import SimilarityInfo
from attrsens.engine.run import Found, Result
from attrsens.errors import AttrsensError
from attrsens.similarity import why_not

if TYPE_CHECKING:
    from attrsens.models.classifier import Classifier

Map = NDArray[np.float32]
Floats = NDArray[np.float64]
FREE = ("shuffle", "phase", "edges", "random")  # controls that need no pass
FRAMES = "the models see different parts of the image; give both the same --preprocess resize and crop"


@dataclass
class Item:
    """One map among those of an image.

    Attributes:
        map: as its method's sign and reduction show it; `controls` what takes its place, by name, "seed" among them
            where the method draws.
        frame: which part of the image its model sees: maps of different frames have no pixels in common.
    """

    found: Found
    map: Map
    controls: dict[str, Map]
    frame: object


@dataclass
class Comparer:
    """Judges the maps of one input at a time, and compares those of an image once they are all there.

    Attributes:
        judge: of scores; it holds what is asked for.
        similarities: calls.
    """

    judge: Judge
    similarities: Sequence[Call]
    _items: list[Item] = field(default_factory=list)

    @classmethod
    def around(cls, judge: Judge) -> Comparer:
        """With the similarities that the judge was asked for, who is left the scores."""
        similarities = judge.judging.similarities
        return cls(replace(judge, judging=replace(judge.judging, similarities=())), similarities)

    def __call__(self, classifier: Classifier, source: Source, ready: Ready, part: Sequence[Found]) -> None:
        self.judge(classifier, source, ready, part)
        if not self.similarities:
            return
        maps = self.judge.maps(classifier, ready)
        p = classifier.preprocess
        frame = p.geometry(ready.image.size), p.squash
        for found in part:
            controls = calibration(maps, found, self.judge.judging.calibrate)
            self._items.append(Item(found, shown(found, found.raw), controls, frame))

    def grouped(self, parts: Iterator[list[Result]], size: int) -> Iterator[list[Result]]:
        """The results of whole images, with their similarities.

        Args:
            parts: of one input and classifier after the other.
            size: parts of an image.
        """
        whole: list[Result] = []
        count = 0
        try:
            for part in parts:
                whole += part
                count += 1
                if count == size:
                    self.settle()
                    yield whole
                    whole, count = [], 0
        except KeyboardInterrupt:
            yield whole  # what is finished of this image
            raise

    def settle(self) -> None:
        """Write the similarities of the maps that have been judged into their records, each pair into the first's."""
        items, self._items = self._items, []
        for target in dict.fromkeys(item.found.target for item in items):
            same = [item for item in items if item.found.target == target]
            for call in self.similarities:
                _write(call, same)


def calibration(maps: Maps, found: Found, calibrate: bool | None) -> dict[str, Map]:
    """What takes a map's place, by the name of the control; those that fail for this input are left out.

    Args:
        calibrate: False: only what needs no pass.
    """
    import torch

    out: dict[str, Map] = {}
    for name in FREE if calibrate is False else CONTROLS:
        if name == "seed" and not seeded(found.call):
            continue
        try:
            control = maps.control(name, found.call, found.target)(torch.from_numpy(found.raw), 0)
        except AttrsensError:
            continue
        if not maps.dry:
            out[name] = shown(found, control.cpu().numpy())
    return out


def matrix(call: Call, a: Sequence[Map | None], b: Sequence[Map | None], frames: Sequence[object]) -> Floats:
    """Similarities (n, n) of every map of `a` with every map of `b`; NaN where there is none.

    Args:
        frames: one for each place: only places with equal frames and shapes are compared. With `b is a` the matrix is
            symmetric.
    """
    spec = spec_of(call)
    parameters = {h.name: call.parameters[h.name] for h in spec.own()}
    out = np.full((len(a), len(b)), np.nan)

    def groups(maps: Sequence[Map | None]) -> dict[Any, list[int]]:
        found: dict[Any, list[int]] = {}
        for i, m in enumerate(maps):
            if m is not None:
                found.setdefault((m.shape, frames[i]), []).append(i)
        return found

    columns = groups(b)
    for place, rows in groups(a).items():
        if place in columns:
            left = np.stack([m for i in rows if (m := a[i]) is not None])
            right = left if b is a else np.stack([m for j in columns[place] if (m := b[j]) is not None])
            out[np.ix_(rows, columns[place])] = spec.function(left, right, **parameters)
    return out


def compare(call: Call, a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[float | None, str | None]:
    """(similarity of two maps, None), or (None, why there is none)."""
    spec = spec_of(call)
    if a.shape != b.shape:
        return None, f"the maps differ in shape: {a.shape} and {b.shape}"
    parameters = {h.name: call.parameters[h.name] for h in spec.own()}
    value = float(spec.function(a[None], b[None], **parameters)[0, 0])
    if math.isfinite(value):
        return value, None
    reasons = [reason for heatmap in (a, b) for reason in why_not(call.name, heatmap[None], **parameters) if reason]
    return None, reasons[0] if reasons else "not a finite number"


def _write(call: Call, items: Sequence[Item]) -> None:
    maps, frames = [item.map for item in items], [item.frame for item in items]
    values = matrix(call, maps, maps, frames)
    replaced = {
        name: matrix(call, maps, [item.controls.get(name) for item in items], frames)
        for name in dict.fromkeys(name for item in items for name in item.controls)
    }
    again = replaced.pop("seed", None)
    own = spec_of(call).traits
    ceilings = [
        values[i, i] if not seeded(item.found.call) else again[i, i] if again is not None else np.nan
        for i, item in enumerate(items)
    ]
    reasons = _reasons(call, items) if np.isnan(values).any() else [None] * len(items)
    for i, a in enumerate(items):
        for j in range(i + 1, len(items)):
            b = items[j]
            if not a.found.result or not b.found.result:
                continue
            value = _number(values[i, j])
            controls = {name: _mean(found[i, j], found[j, i]) for name, found in replaced.items()}
            floor = controls.get(own.get("floor", "phase"))
            ceiling = attainable([_number(ceilings[i]), _number(ceilings[j])], own["direction"])
            reason = None if value is not None else _reason(a, b) or reasons[i] or reasons[j] or "not a finite number"
            info = SimilarityInfo(
                name=short(call),
                value=value,
                to=b.found.result[0].key,
                role="pair",
                floor=floor if value is not None else None,
                ceiling=ceiling if value is not None else None,
                definition=definition(call, a.found.call, a.found.target, b.found.call),
                direction=own["direction"],
                reason=reason,
                rescaled=rescaled(call, value, floor),
                controls=controls,
            )
            a.found.result[0].similarities.append(info)


def _reason(a: Item, b: Item) -> str | None:
    if a.frame != b.frame:
        return FRAMES
    return f"the maps differ in shape: {a.map.shape} and {b.map.shape}" if a.map.shape != b.map.shape else None


def _reasons(call: Call, items: Sequence[Item]) -> list[str | None]:
    parameters = {h.name: call.parameters[h.name] for h in spec_of(call).own()}
    return [why_not(call.name, item.map[None], **parameters)[0] for item in items]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _mean(*values: float) -> float | None:
    """None unless all exist."""
    return _number(sum(values) / len(values))

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
from attrsens.engine.controls import CONTROLS, FREE, Maps, seeded
from attrsens.engine.inputs import Source
from attrsens.engine.judge import Judge, shown
from attrsens.engine.metrics import Judging, attainable, definition, rescaled, short, spec_of
from attrsens.engine.report import SimilarityInfo
from attrsens.engine.run import Found, Result
from attrsens.errors import AttrsensError
from attrsens.similarity import why_not

if TYPE_CHECKING:
    from attrsens.models.classifier import Classifier

Map = NDArray[np.float32]
Floats = NDArray[np.float64]
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
            controls = calibration(maps, found, self.judge.judging)
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


def calibration(maps: Maps, found: Found, judging: Judging) -> dict[str, Map]:
    """What takes a map's place, by the name of the control; those that fail for this input are left out."""
    import torch

    out: dict[str, Map] = {}
    for name in FREE if judging.calibrate is False or judging.spares else CONTROLS:
        if name == "seed" and not seeded(found.call):
            continue
        try:
            control = maps.control(name, found.call, found.target)(torch.from_numpy(found.raw), 0)
        except AttrsensError:
            continue
        if not maps.dry:
            out[name] = shown(found, control.cpu().numpy())
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
    pairs = [(a, b) for i, a in enumerate(items) for b in items[i + 1 :] if a.found.result and b.found.result]
    for (a, _), info in zip(pairs, likeness(call, pairs, "pair"), strict=True):
        assert a.found.result
        a.found.result[0].similarities.append(info)


def likeness(
    call: Call, pairs: Sequence[tuple[Item, Item]], role: str | Sequence[str], note: str = ""
) -> list[SimilarityInfo]:
    """The similarity of the first map of every pair to the second, with floors and ceilings.

    Args:
        role: of all pairs, or of each. note: joins the definition.
    """
    if not pairs:
        return []
    own = spec_of(call).traits
    items = list({id(item): item for pair in pairs for item in pair}.values())
    names = dict.fromkeys(name for item in items for name in item.controls if name != "seed")
    rows: list[Aligned] = [(a, a.map, b, b.map) for a, b in pairs]
    for name in names:
        rows += [(a, a.map, b, b.controls.get(name)) for a, b in pairs]
        rows += [(b, b.map, a, a.controls.get(name)) for a, b in pairs]
    rows += [(i, i.map, i, i.controls.get("seed") if seeded(i.found.call) else i.map) for i in items]
    found = _aligned(call, rows)
    count = len(pairs)
    values, retests = found[:count], dict(zip(map(id, items), found[len(found) - len(items) :], strict=True))
    sides = {n: (found[(2 * k + 1) * count :], found[(2 * k + 2) * count :]) for k, n in enumerate(names)}
    reasons = dict(zip(map(id, items), _reasons(call, items), strict=True)) if np.isnan(values).any() else {}
    roles = [role] * count if isinstance(role, str) else role
    out = []
    for k, (a, b) in enumerate(pairs):
        assert b.found.result
        value = _number(values[k])
        controls = {name: _mean(*(side[k] for side in both)) for name, both in sides.items()}
        floor = controls.get(own.get("floor", "phase"))
        ceiling = attainable([_number(retests[id(a)]), _number(retests[id(b)])], own["direction"])
        why = _reason(a, b) or reasons.get(id(a)) or reasons.get(id(b)) or "not a finite number"
        text = definition(call, a.found.call, a.found.target, b.found.call)
        out.append(
            SimilarityInfo(
                name=short(call),
                value=value,
                to=b.found.result[0].key,
                role=roles[k],
                floor=floor if value is not None else None,
                ceiling=ceiling if value is not None else None,
                definition=f"{text}; {note}" if note else text,
                direction=own["direction"],
                reason=None if value is not None else why,
                rescaled=rescaled(call, value, floor),
                controls=controls,
            )
        )
    return out


Aligned = tuple[Item, Map | None, Item, Map | None]
AT_ONCE = 600  # pairs of maps that are looked at together even where few of them are asked for


def _aligned(call: Call, rows: Sequence[Aligned]) -> Floats:
    """The similarity of the maps of each row, NaN where one lacks or their frames or shapes differ. Rows share work:
    all at once where they are few or most of the pairs of their maps, else those with one map in common."""
    spec = spec_of(call)
    parameters = {h.name: call.parameters[h.name] for h in spec.own()}
    groups: dict[Any, list[tuple[int, Map, Map]]] = {}
    for k, (a, left, b, right) in enumerate(rows):
        if left is not None and right is not None and a.frame == b.frame and left.shape == right.shape:
            groups.setdefault((a.frame, left.shape), []).append((k, left, right))
    parts: list[list[tuple[int, Map, Map]]] = []
    for group in groups.values():
        size = len({id(row[1]) for row in group}) * len({id(row[2]) for row in group})
        if 3 * len(group) > size or size <= AT_ONCE:
            parts.append(group)
        else:
            by_left: dict[int, list[tuple[int, Map, Map]]] = {}
            for row in group:
                by_left.setdefault(id(row[1]), []).append(row)
            parts += by_left.values()
    out = np.full(len(rows), np.nan)
    for part in parts:
        lefts, rights = ({id(row[side]): row[side] for row in part} for side in (1, 2))
        both = lefts | rights
        if len(both) * len(both) < 2 * len(lefts) * len(rights):  # symmetric: half of it is enough
            lefts = rights = both
        left = np.stack(list(lefts.values()))
        right = left if rights is lefts else np.stack(list(rights.values()))
        values = spec.function(left, right, **parameters)
        places = [{name: i for i, name in enumerate(side)} for side in (lefts, rights)]
        for k, a_map, b_map in part:
            out[k] = values[places[0][id(a_map)], places[1][id(b_map)]]
    return out


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

"""How far the maps of an image move: similarities to the reference and between neighbours, and their Gram matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.cell import Call
from attrsens.engine.compare import Item, calibration, likeness
from attrsens.engine.compute import Ready
from attrsens.engine.inputs import Source
from attrsens.engine.judge import Judge, shown
from attrsens.engine.report import Swept
from attrsens.engine.run import Found
from attrsens.engine.sweep.design import Study, Sweep

if TYPE_CHECKING:
    from attrsens.models.classifier import Classifier

Floats = NDArray[np.float64]
BLOCK = 8192  # pixels of all maps that are multiplied at a time


@dataclass(frozen=True)
class Gram:
    """Inner products of an image's maps, each as its method's sign and reduction show it and scaled to unit length.

    Attributes:
        products: (m, m). rows: for each, its point in the study and its draw. reasons: by point, why it has no map that
            can be compared.
    """

    model: str
    study: int
    image: str
    target: int
    products: Floats
    rows: list[tuple[int, int]]
    reasons: dict[int, str] = field(default_factory=dict)


@dataclass
class Mover:
    """Judges the maps of one image and classifier, writes their similarities, and keeps their Gram matrices.

    Attributes:
        judge: of scores; it holds what is asked for.
    """

    judge: Judge
    similarities: Sequence[Call]
    sweep: Sweep
    grams: list[Gram] = field(default_factory=list)

    @classmethod
    def around(cls, judge: Judge, sweep: Sweep) -> Mover:
        """With the similarities that the judge was asked for, who is left the scores."""
        similarities = judge.judging.similarities
        return cls(replace(judge, judging=replace(judge.judging, similarities=())), similarities, sweep)

    def __call__(self, classifier: Classifier, source: Source, ready: Ready, part: Sequence[Found]) -> None:
        self.judge(classifier, source, ready, part)
        maps = self.judge.maps(classifier, ready)
        by_call = {(found.call.expression, found.target): found for found in part}
        for number, study in enumerate(self.sweep.studies):
            for target in dict.fromkeys(found.target for found in part):
                places = [(i, d) for i, point in enumerate(study.points) for d in range(len(point.calls))]
                there = {
                    (i, d): found
                    for i, d in places
                    if (found := by_call.get((study.points[i].calls[d].expression, target))) and found.result
                }
                heatmaps = {place: shown(found, found.raw) for place, found in there.items()}
                for (i, d), found in there.items():
                    if i < len(study.shown) and found.result:
                        own = study.points[i]
                        swept = Swept(number, dict(own.values), d, i == study.reference, d == own.main)
                        found.result[0].swept.append(swept)
                items = {}
                for i, point in enumerate(study.shown):
                    place = i, 0 if i == study.reference else point.main
                    if self.similarities and place in there:
                        found = there[place]
                        controls = calibration(maps, found, self.judge.judging)
                        items[i] = Item(found, heatmaps[place], controls, None)
                _write(self.similarities, study, items)
                if heatmaps:
                    whose = classifier.id, number, ready.image.sha256, target
                    self.grams.append(gram_of(whose, heatmaps, study.reference))


def _write(similarities: Sequence[Call], study: Study, items: dict[int, Item]) -> None:
    """Into the record of each setting its similarity to the reference, into the later of two neighbours that to the
    earlier."""
    starts = [(i, study.reference) for i in items if i != study.reference and study.reference in items]
    steps = [(j, i) for i, j in study.neighbours if i in items and j in items]
    roles = ["reference"] * len(starts) + ["neighbour"] * len(steps)
    for call in similarities:
        pairs = [(items[a], items[b]) for a, b in starts + steps]
        for (a, _), info in zip(starts + steps, likeness(call, pairs, roles, f"draws: {study.draws}"), strict=True):
            result = items[a].found.result
            assert result
            result[0].similarities.append(info)


def gram_of(
    whose: tuple[str, int, str, int], heatmaps: dict[tuple[int, int], NDArray[np.float32]], reference: int
) -> Gram:
    """Of maps by point and draw; those that are zero, or have another shape than the reference's, are left out.

    Args:
        whose: model id, study, image and class.
    """
    first = next((m for (point, _), m in heatmaps.items() if point == reference), next(iter(heatmaps.values())))
    lengths = {row: float(np.linalg.norm(m.astype(np.float64))) for row, m in heatmaps.items()}
    reasons = {
        point: "the map is zero" if m.shape == first.shape else f"the map's shape {m.shape} is not the reference's"
        for (point, draw), m in heatmaps.items()
        if m.shape != first.shape or lengths[point, draw] == 0
    }
    rows = [row for row, m in heatmaps.items() if m.shape == first.shape and lengths[row] > 0]
    flat = [heatmaps[row].ravel() for row in rows]
    scale = np.asarray([lengths[row] for row in rows])
    products = np.zeros((len(rows), len(rows)))
    for start in range(0, first.size, BLOCK):
        part = np.stack([m[start : start + BLOCK] for m in flat]) if flat else np.zeros((0, 1))
        part = part.astype(np.float64) / scale[:, None]
        products += part @ part.T
    return Gram(*whose, products, rows, reasons)

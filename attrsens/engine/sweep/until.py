"""How much is enough: draws until two halves of the sample agree, or until a score's mean over draws is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from attrsens.engine.cell import Call
from attrsens.engine.compare import Item, compare, likeness
from attrsens.engine.compute import Computed, Ready, Tally, compute
from attrsens.engine.controls import reseeded
from attrsens.engine.inputs import Source
from attrsens.engine.judge import Judge, Row, shown
from attrsens.engine.metrics import mean_of, parse_metrics, short, spec_of
from attrsens.engine.report import Aggregate, Record, Swept
from attrsens.engine.run import Found
from attrsens.engine.stats import summary
from attrsens.engine.store import Store
from attrsens.engine.sweep.axes import Axis
from attrsens.engine.together import Asked
from attrsens.errors import AttrsensError
from attrsens.explainer import Raw, raw_across
from attrsens.heatmaps import finish
from attrsens.spec import SIMILARITIES, canonical

if TYPE_CHECKING:
    from attrsens.models.classifier import Classifier

A_OCTAVE = 4  # sample sizes tried between n and 2 n
FEWEST = 8  # draws before an interval is believed: of fewer, some are narrow by luck
LEVEL = 0.95
WIDTH = ".width"
REACHED, DRAWS, NEARNESS = "goal reached", "draws", "nearness"


@dataclass(frozen=True)
class Goal:
    """What ends the sampling.

    Attributes:
        metric: a similarity, of the maps of two halves of the sample; or a score, of which the 95 % t interval of the
            mean over draws may be no wider than `target`.
        most: draws of each half, or in all, at which it ends in any case.
    """

    metric: Call
    target: float
    most: int

    @property
    def halves(self) -> bool:
        return self.metric.kind == SIMILARITIES.kind

    @property
    def text(self) -> str:
        """As it is typed."""
        return f"{self.quantity}={self.target:g}"

    @property
    def quantity(self) -> str:
        """What is measured."""
        return short(self.metric) + ("" if self.halves else WIDTH)

    def met(self, value: float | None) -> bool:
        """Whether the goal is reached by a similarity of halves, or a width."""
        if value is None or not math.isfinite(value):
            return False
        low = not self.halves or spec_of(self.metric).traits["direction"] == "lower"
        return value <= self.target if low else value >= self.target

    @property
    def definition(self) -> str:
        """In words."""
        if self.halves:
            return (
                f"{short(self.metric)} of the maps of two samples of n draws each, with successive seeds; the first n, "
                f"{A_OCTAVE} an octave, at which it is {self.target:g}"
            )
        return (
            f"width of the 95 % t interval of the mean of {short(self.metric)} over draws with successive seeds, "
            f"{FEWEST} at the least"
        )


def parse_goal(text: str, most: int) -> Goal:
    """From `METRIC=NUMBER`, a similarity's name, or `SCORE.width=NUMBER`.

    Raises:
        AttrsensError: it is neither.
    """
    name, equals, number = text.rpartition("=")
    try:
        target = float(number)
    except ValueError:
        target = math.nan
    if not equals or not math.isfinite(target):
        raise AttrsensError(f"until: cannot read {text!r}; write ssim=0.95, or gini.width=0.02 for a score")
    width = name.endswith(WIDTH)
    scores, similarities = parse_metrics([name.removesuffix(WIDTH)])
    metric = (*scores, *similarities)[0]
    if width != bool(scores):
        form = f"{name}{WIDTH}=..." if scores else f"{name.removesuffix(WIDTH)}=..."
        raise AttrsensError(f"until: {metric.name} is a {metric.kind}; write {form}")
    if width and target <= 0:
        raise AttrsensError(f"until: a width is more than 0; got {target:g}")
    return Goal(metric, target, most)


def sizes(most: int, least: int = 2) -> list[int]:
    """The sample sizes that are tried, up to `most`."""
    count = math.floor(A_OCTAVE * math.log2(most / least) + 1e-9) if most > least else 0
    return sorted({least, *(round(least * 2 ** (k / A_OCTAVE)) for k in range(count + 1)), most})


@dataclass
class Sampled:
    """What came of one image, class and method: the calls, and (draws, how near the goal) at every size tried."""

    calls: list[Call]
    trace: list[tuple[int, float | None]]
    rows: list[Row] = field(default_factory=list)


@dataclass
class Sampler:
    """Samples every image as far as the goal needs, and judges what came of it.

    Attributes:
        bases: the methods, each with the knob that counts its draws; None where replicates are sampled.
    """

    judge: Judge
    goal: Goal
    bases: Sequence[tuple[Call, Axis | None]]
    store: Store | None
    tally: Tally
    _found: dict[tuple[int, int], Sampled] = field(default_factory=dict)

    def calls(
        self, classifier: Classifier, source: Source, ready: Ready, target: int, done: dict[str, Computed]
    ) -> list[Call]:
        """The calls of one image and class; their maps are in `done` or in the store."""
        out: list[Call] = []
        for number, (base, axis) in enumerate(self.bases):
            try:
                if axis:
                    found = self._halves(classifier, ready, target, base, axis, done)
                else:
                    found = self._replicates(classifier, source, ready, target, base, done)
            except AttrsensError:
                out.append(base)  # which will say for itself what is wrong
                continue
            self._found[number, target] = found
            out += found.calls
        return out

    def _halves(
        self, classifier: Classifier, ready: Ready, target: int, base: Call, axis: Axis, done: dict[str, Computed]
    ) -> Sampled:
        import torch

        seeds = (base, reseeded(base))
        rule = [self.goal.metric.identity, self.goal.target, self.goal.most, axis.name, A_OCTAVE]
        place = ready.cell(classifier, target, base, Call("until", canonical(rule), 1, {})).key
        entry = self.store.get(place) if self.store else None
        if entry:
            trace = [(int(n), value) for n, value in entry.data["trace"]]
            calls = [axis.set(call, trace[-1][0]) for call in seeds]
            if all(self.store and ready.cell(classifier, target, call).raw().key in self.store for call in calls):
                return Sampled(calls, trace)
        tried, pixels = sizes(self.goal.most), torch.from_numpy(ready.pixels)
        runs = [
            raw_across([ready.bound(classifier, axis.set(call, n), target) for n in tried], pixels) for call in seeds
        ]
        trace, raws = [], []
        for n, *halves in zip(tried, *runs, strict=True):
            raws = [raw for raw, _ in halves]
            for _, made in halves:
                self.tally.passes.forward += made.forward
                self.tally.passes.backward += made.backward
            maps = [np.asarray(finished(call, raw), np.float32) for call, raw in zip(seeds, raws, strict=True)]
            trace.append((n, compare(self.goal.metric, maps[0], maps[1])[0]))
            if self.goal.met(trace[-1][1]):
                break
        calls = [axis.set(call, trace[-1][0]) for call in seeds]
        for call, raw in zip(calls, raws, strict=True):
            Asked(ready.cell(classifier, target, call).raw(), call, ready, target).keep(
                raw, classifier, self.store, done
            )
        if self.store:
            data = {"trace": trace, "model": classifier.name, "image": ready.image.name, "method": base.expression}
            self.store.put(place, {}, data)
        return Sampled(calls, trace)

    def _replicates(
        self,
        classifier: Classifier,
        source: Source,
        ready: Ready,
        target: int,
        base: Call,
        done: dict[str, Computed],
    ) -> Sampled:
        from scipy.stats import t

        out = Sampled([], [])
        values: list[float] = []
        call, region = base, self.judge.region(classifier, source, ready)
        while len(out.calls) < self.goal.most:
            cell = ready.cell(classifier, target, call)
            key = cell.raw().key
            done[key] = done.get(key) or compute(classifier, cell, call, ready, target, self.store, self.tally)
            rows = self.judge.rows(classifier, ready, [Found(None, call, target, *done[key])], *region)
            out.calls.append(call)
            out.rows += rows
            own = next(r.outcome for r in rows if r.control is None and r.call == self.goal.metric)
            width = None
            if own and own.value is not None:
                values.append(own.value)
                if len(values) >= FEWEST:
                    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
                    width = 2 * float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * error
            out.trace.append((len(out.calls), width))
            if self.goal.met(width) or own is None or own.value is None:
                break
            call = reseeded(call)
        return out

    def __call__(self, classifier: Classifier, source: Source, ready: Ready, part: Sequence[Found]) -> None:
        by_call = {(found.call.expression, found.target): found for found in part}
        if self.goal.halves:
            self.judge(classifier, source, ready, part)
        for (number, target), sampled in self._found.items():
            own = [by_call[key] for c in sampled.calls if (key := (c.expression, target)) in by_call]
            for row in sampled.rows:
                row.found = by_call.get((row.found.call.expression, target), row.found)
            self.judge.write(classifier, source, ready, [row for row in sampled.rows if row.found.result])
            n, value = sampled.trace[-1]
            axis = self.bases[number][1]
            for k, found in enumerate(own):
                assert found.result
                record = found.result[0]
                record.swept.append(Swept(number, {axis.name if axis else DRAWS: n}, k, k == 0, True))
                record.notes |= {DRAWS: float(n), REACHED: float(self.goal.met(value)), NEARNESS: value}
            if axis and len(own) == 2 and own[1].result:
                pair = [Item(found, shown(found, found.raw), {}, None) for found in own]
                own[1].result[0].similarities += likeness(
                    self.goal.metric, [(pair[1], pair[0])], "half", self.goal.definition
                )
        self._found.clear()


def finished(call: Call, raw: Raw) -> Any:
    """The map as the call's sign and reduction show it."""
    p = call.parameters
    return finish(raw.map.detach().float().cpu().numpy(), str(p["sign"]), str(p["reduce"]))


def enough(goal: Goal, records: Sequence[Record], bases: Sequence[Call], names: Mapping[str, str]) -> list[Aggregate]:
    """How many draws each method took, the share of images that reached the goal, where they ended, and every score,
    draws averaged; over images.

    Args:
        names: of the models, by id.
    """
    groups: dict[tuple[str, int], list[Record]] = {}
    every: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        for place in record.swept:
            every.setdefault((record.model.id, place.study), []).append(record)
            if place.reference:
                groups.setdefault((record.model.id, place.study), []).append(record)
    out = []
    for (model, study), part in groups.items():
        base = bases[study].expression
        group = {"model": names[model], "method": part[0].method.title, "noise": 0.0, "until": goal.text, "base": base}
        for quantity in dict.fromkeys(name for record in every[model, study] for name in record.scores):
            found: dict[str, list[float | None]] = {}
            for record in every[model, study]:
                found.setdefault(record.image.sha256, []).append(record.scores[quantity].value)
            known = [mean for values in found.values() if (mean := mean_of(values)) is not None]
            out.append(summary(quantity, group, known, len(found) - len(known)))
        for quantity, note in ((DRAWS, DRAWS), (REACHED, REACHED), (goal.quantity, NEARNESS)):
            values: dict[str, list[float]] = {record.image.sha256: [] for record in part}
            for record in part:
                number = record.notes.get(note)
                if number is not None:
                    values[record.image.sha256].append(number)
            means = [sum(v) / len(v) for v in values.values() if v]
            out.append(summary(quantity, group, means, len(values) - len(means)))
    return out

"""Judging maps: scores, similarities, and what controls reach on the same images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.bench import Bench, Job, Outcome
from attrsens.engine.cell import Call, parse_call
from attrsens.engine.compute import Computed, Ready, Tally, explainer
from attrsens.engine.controls import CONTROLS, DRAWN, DRAWS, FREE, Maps, reseeded, seeded
from attrsens.engine.inputs import Source
from attrsens.engine.metrics import Judging, definition, free, mean_of, rescaled, short
from attrsens.engine.report import Failure, PassInfo, ScoreInfo
from attrsens.engine.run import Found
from attrsens.engine.store import Store
from attrsens.errors import AttrsensError, InputError
from attrsens.explainer import Explainer, Raw
from attrsens.heatmaps import finish
from attrsens.regions import Region
from attrsens.scores._case import Case
from attrsens.spec import SCORES

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.classifier import Classifier

SEEN = ("sign", "reduce")


@dataclass
class Row:
    """A score of a map, or of a control in its place."""

    found: Found
    call: Call
    control: str | None
    draw: int = 0
    outcome: Outcome | None = None
    job: Job | None = None


@dataclass
class Judge:
    """Adds scores to the records of one image and classifier.

    Attributes:
        judging: what is asked for.
        width: of a call that is a search or an optimiser (see `width_of`).
        dry: count passes, in `tally`, instead of making them; records stay as they are.
    """

    judging: Judging
    width: Callable[[Classifier, Call], int]
    store: Store | None
    tally: Tally
    dry: bool = False
    memo: dict[str, Computed] = field(default_factory=dict)

    def __call__(self, classifier: Classifier, source: Source, ready: Ready, part: Sequence[Found]) -> None:
        rows = self.rows(classifier, ready, part, *self.region(classifier, source, ready))
        self.write(classifier, source, ready, rows)

    def region(self, classifier: Classifier, source: Source, ready: Ready) -> tuple[Region | None, str | None]:
        """Where the objects are, and why an image that has an annotation cannot use it."""
        if self.judging.annotations is None:
            return None, None
        try:
            return self.judging.annotations.of(source, ready.image, classifier), None
        except InputError as error:
            self.tally.failures.append(Failure(source.name, "annotation", str(error), classifier.name))
            return None, f"the annotation cannot be used: {error}"

    def maps(self, classifier: Classifier, ready: Ready) -> Maps:
        """Further maps of an input, for controls."""
        return Maps(classifier, ready, self.store, self.tally, self.memo, self.dry)

    # -- scores ------------------------------------------------------------------------------------------------

    def rows(
        self,
        classifier: Classifier,
        ready: Ready,
        part: Sequence[Found],
        annotated: Region | None = None,
        unread: str | None = None,
    ) -> list[Row]:
        """Every score of every map, and of the controls in its place, settled together. `unread`: why there is no
        annotation although the image has one."""
        rows: list[Row] = []
        maps = self.maps(classifier, ready)
        for found in part:
            for call in self.judging.scores:
                rows.append(Row(found, call, None))
                names = FREE if self.judging.spares else CONTROLS
                for name in names if self._calibrates(call) else ():
                    draws = DRAWS if free(call) and name in DRAWN else 1
                    rows += [Row(found, call, name, draw) for draw in range(draws)]
        for row in rows:
            row.outcome = self._stored(classifier, ready, row)
            if unread and SCORES[row.call.name].traits.get("regional"):
                row.outcome = Outcome(None, unread)
            if row.outcome is None:
                try:
                    row.job = self._job(maps, row, annotated)
                except AttrsensError as error:
                    row.outcome = Outcome(None, str(error))
        bench = Bench(classifier, maps.beside, self.dry)
        bench.settle([row.job for row in rows if row.job])
        self.tally.passes.forward += bench.passes.forward
        self.tally.passes.backward += bench.passes.backward
        for row in rows:
            if row.job:
                row.outcome = row.job.outcome
                self._keep(classifier, ready, row)
        return rows

    def _calibrates(self, call: Call) -> bool:
        wanted = self.judging.calibrate
        possible = SCORES[call.name].traits["judges"] != "none"
        return possible and (wanted is True or (wanted is None and free(call)))

    def _job(self, maps: Maps, row: Row, annotated: Region | None) -> Job | None:
        import torch

        from attrsens.models.batches import Passes

        found, control, draw = row.found, row.control, row.draw
        if control == "seed" and not seeded(found.call):
            return None
        judges = SCORES[row.call.name].traits["judges"]
        place = found.call.expression, found.target, *(row.call.parameters[k] for k in SEEN)

        def own() -> Case:
            bound = maps.ready.bound(maps.classifier, found.call, found.target)
            raw = Raw(torch.from_numpy(found.raw), found.notes, Passes())
            return case_of(bound, row.call, maps.pixels, torch.from_numpy(maps.ready.logits), raw, annotated)

        case = maps.case(place, own)
        if control is None:
            return Job(case, row.call)
        if judges == "grid" and control in ("edges", "other", "seed"):  # all of another image
            if control == "other":
                raise InputError("three quarters of the grid are other pictures already")
            call = reseeded(found.call) if control == "seed" else parse_call("edges")
            return Job(replace(case, explainer=maps.ready.bound(maps.classifier, call, found.target)), row.call)
        if judges in ("pool", "grid"):
            return Job(case, row.call, maps.control(control, found.call, found.target))

        def controlled() -> Case:
            drawn = maps.drawn(control, found.call, found.target, case.raw, draw)
            return replace(case, raw=drawn, notes={})

        return Job(maps.case((*place, control, draw), controlled), row.call)

    # -- what is kept ------------------------------------------------------------------------------------------

    def _key(self, classifier: Classifier, ready: Ready, row: Row) -> str:
        """Of the score's cell: one for all calls that judge the same map in the same way."""
        seen = seen_by(row.call, row.found.call.parameters)
        score = replace(row.call, parameters={**row.call.parameters, **seen})
        calls = [row.found.call.raw(), score, *([Call("control", row.control, 1, {})] if row.control else [])]
        width = self.width(classifier, row.found.call)
        return ready.cell(classifier, row.found.target, *calls, width=width).key

    def _stored(self, classifier: Classifier, ready: Ready, row: Row) -> Outcome | None:
        if free(row.call) or not self.store:
            return None
        entry = self.store.get(self._key(classifier, ready, row))
        if entry is None:
            return None
        if row.control is None:
            self.tally.cached_cells += 1
        data = dict(entry.data["outcome"])
        return Outcome(**data | {"passes": PassInfo(**data["passes"])})

    def _keep(self, classifier: Classifier, ready: Ready, row: Row) -> None:
        outcome = row.outcome
        if self.store and not self.dry and outcome and not free(row.call) and not outcome.failed:
            data: dict[str, Any] = {"outcome": asdict(outcome), "model": classifier.name, "image": ready.image.name}
            data |= {"method": row.found.call.raw().expression, "target": row.found.target, "score": short(row.call)}
            self.store.put(self._key(classifier, ready, row), {}, data)

    # -- records -----------------------------------------------------------------------------------------------

    def write(self, classifier: Classifier, source: Source, ready: Ready, rows: Sequence[Row]) -> None:
        """The rows into the records of their maps."""
        groups: dict[tuple[int, str], list[Row]] = {}
        for row in rows:
            groups.setdefault((id(row.found), row.call.expression), []).append(row)
        for own, *controls in groups.values():
            assert own.found.result
            assert own.outcome
            record, outcome = own.found.result[0], own.outcome
            values = _means(controls)
            if controls and not seeded(own.found.call):
                judges = SCORES[own.call.name].traits["judges"]
                values["seed"] = outcome.value if judges in ("map", "grid") else None  # another seed changes nothing
            floor = values.get(SCORES[own.call.name].traits.get("floor", "shuffle"))
            record.scores[short(own.call)] = ScoreInfo(
                key=self._key(classifier, ready, own),
                value=outcome.value,
                floor=floor,
                ceiling=values.get("seed"),
                definition=definition(own.call, own.found.call, own.found.target),
                direction=SCORES[own.call.name].traits["direction"],
                curve=outcome.curve,
                reason=outcome.reason,
                rescaled=rescaled(own.call, outcome.value, floor),
                controls={str(k): v for k, v in values.items() if k != "seed"},
                details=outcome.details,
                passes=outcome.passes,
            )
            if outcome.failed:
                message = f"{short(own.call)}: {outcome.reason}"
                expression, target = own.found.call.expression, own.found.target
                self.tally.failures.append(Failure(source.name, "score", message, classifier.name, expression, target))


def case_of(
    bound: Explainer, call: Call, pixels: Tensor, logits: Tensor, raw: Raw, annotated: Region | None = None
) -> Case:
    """An explanation as a score sees it.

    Args:
        bound: the method.
        call: the score; its `sign` and `reduce` say which map is judged.
    """
    seen = seen_by(call, bound.complete())
    heatmap = raw.map.detach().float().cpu()
    return Case(bound, pixels, logits.cpu(), heatmap, raw.notes, annotated, seen["sign"], seen["reduce"])


def seen_by(call: Call, method: Mapping[str, object]) -> dict[str, str]:
    """The sign and reduction of the map that a score judges, given the method's parameters: what is done to the raw
    map, so that sign=abs_sample, which the method itself has taken, is signed here."""
    seen = {k: str(method[k] if call.parameters[k] == "method" else call.parameters[k]) for k in SEEN}
    return seen | ({"sign": "signed"} if seen["sign"] == "abs_sample" else {})


def judge(
    f: Classifier,
    pixels: Tensor,
    target: int,
    method: str,
    scores: list[str],
    *,
    image: str = "",
    annotated: Region | None = None,
) -> list[Outcome]:
    """Scores of one explanation, in order.

    Args:
        pixels: (C, H, W) in [0, 1].
        method, scores: expressions, such as "sg:n=20" and "deletion:fill=black".
        image: hash that keys the random draws.
    """
    pixels = pixels.to(f.device)
    logits = f.view().logits(pixels[None])[0]
    bound = explainer(f, parse_call(method), target, image)
    raw = bound.raw(pixels)
    bench = Bench(f, lambda text, t: explainer(f, parse_call(text), t, image).raw(pixels))
    calls = [parse_call(text, registry=SCORES) for text in scores]
    jobs = [Job(case_of(bound, call, pixels, logits, raw, annotated), call) for call in calls]
    bench.settle(jobs)
    return [job.outcome for job in jobs if job.outcome]


def _means(rows: Sequence[Row]) -> dict[str | None, float | None]:
    """The value of each control, averaged over its draws; None where every draw has none."""
    values: dict[str | None, list[float | None]] = {}
    for row in rows:
        values.setdefault(row.control, []).append(row.outcome.value if row.outcome else None)
    return {name: mean_of(found) for name, found in values.items()}


def shown(found: Found, raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """The map as the method's own sign and reduction show it."""
    p = found.call.parameters
    return np.asarray(finish(raw, str(p["sign"]), str(p["reduce"])), np.float32)

"""Judging the maps of one image: what all scores ask for is gathered, asked once, and looked at in full batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from attrsens.engine.cell import Call
from attrsens.engine.report import PassInfo
from attrsens.errors import AttrsensError, InputError
from attrsens.scores._case import Answers, Ask, Beside, Case, Finding, Look, Maps, NoValue
from attrsens.spec import SCORES

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.explainer import Explainer, Raw
    from attrsens.models.classifier import Classifier

Control = Callable[["Tensor", int], "Tensor"]


@dataclass(frozen=True)
class Outcome:
    """What came of a score: a value, or the reason why there is none. `passes` is what it costs by itself."""

    value: float | None
    reason: str | None = None
    curve: list[float] | None = None
    details: dict[str, float | None] = field(default_factory=dict)
    passes: PassInfo = field(default_factory=PassInfo)


@dataclass
class Job:
    """A score of a case, on its way.

    Attributes:
        control: replaces the maps of perturbed copies, by a function of a map and its index.
    """

    case: Case
    call: Call
    control: Control | None = None
    passes: PassInfo = field(default_factory=PassInfo)
    outcome: Outcome | None = None
    run: Answers | None = None
    ask: Ask | None = None

    def start(self) -> None:
        spec = SCORES[self.call.name]
        own = {h.name: self.call.parameters[h.name] for h in spec.own()}
        try:
            result = spec.function(self.case, **own)
        except (NoValue, InputError) as error:
            self.outcome = Outcome(None, str(error))
            return
        if isinstance(result, Iterator):
            self.run = result  # type: ignore[assignment]
            self.go_on(None)
        else:
            self.end(result)

    def go_on(self, answer: Any, error: Exception | None = None) -> None:
        """Hand in an answer, or what went wrong with it, and run to the next question or the end."""
        assert self.run is not None
        try:
            self.ask = self.run.throw(error) if error else self.run.send(answer)
        except StopIteration as stop:
            self.end(stop.value)
        except (NoValue, InputError) as reason:
            self.ask, self.outcome = None, Outcome(None, str(reason), passes=self.passes)

    def end(self, result: Finding | float) -> None:
        finding = result if isinstance(result, Finding) else Finding(float(result))
        value = float(finding.value)
        details = {k: _number(v) for k, v in finding.details.items()}
        curve = [float(v) for v in finding.curve] if finding.curve is not None else None
        self.ask = None
        if curve is not None and not all(map(math.isfinite, curve)):
            curve = None
        if not math.isfinite(value):
            self.outcome = Outcome(None, "not a finite number", curve, details, self.passes)
        else:
            self.outcome = Outcome(value, None, curve, details, self.passes)


class Bench:
    """Where the scores of one image and network get their answers.

    Args:
        classifier: the network.
        beside: another method's raw map of the image, from its expression and class; the caller counts its passes.
        dry: count passes without running any; answers are random numbers.

    Attributes:
        passes: images that went through the network here, those that fill up a batch among them.
    """

    def __init__(self, classifier: Classifier, beside: Callable[[str, int], Raw], dry: bool = False) -> None:
        self.classifier, self.beside, self.dry = classifier, beside, dry
        self.passes = PassInfo()
        self._seen: dict[Any, Tensor | InputError] = {}
        self._maps: dict[Any, Tensor | InputError] = {}
        self._beside: dict[tuple[str, int], Raw] = {}

    def settle(self, jobs: Iterable[Job]) -> None:
        """Run every job to its outcome."""
        jobs = list(jobs)
        for job in jobs:
            if self.dry:
                job.case = replace(job.case, explainer=replace(job.case.explainer, dry=True))
            job.start()
        while waiting := [job for job in jobs if job.ask is not None]:
            self._look([job for job in waiting if isinstance(job.ask, Look)])
            self._explain([job for job in waiting if isinstance(job.ask, Maps)])
            for job in waiting:
                self._answer(job)

    # -- asking the network ------------------------------------------------------------------------------------

    def _look(self, jobs: Sequence[Job]) -> None:
        """See to it that every image asked about has been looked at, all in one stream of full batches."""
        wanted: dict[Any, tuple[Look, int]] = {}
        for job in jobs:
            ask = job.ask
            assert isinstance(ask, Look)
            place = (ask.key, ask.output, job.case.target)
            if not _has(self._seen, place, len(ask.images)) and _longer(ask, wanted, place, 0):
                wanted[place] = ask, job.case.target
        shapes = dict.fromkeys(ask.images.like.shape for ask, _ in wanted.values())
        for shape in shapes:
            group = {place: pair for place, pair in wanted.items() if pair[0].images.like.shape == shape}
            try:
                self._stream(group)
            except InputError:
                for place, pair in group.items():  # whose fault it is
                    try:
                        self._stream({place: pair})
                    except InputError as error:
                        self._seen[place] = error

    def _stream(self, wanted: dict[Any, tuple[Look, int]]) -> None:
        import torch

        places: dict[Any, list[Any]] = {}  # equal images with several outputs are looked at once
        for place, (ask, _) in wanted.items():
            places.setdefault((ask.key, len(ask.images)), []).append(place)
        asks = [wanted[same[0]][0] for same in places.values()]
        owners = [(i, k) for i, ask in enumerate(asks) for k in range(len(ask.images))]
        size = self.classifier.sizes[0]
        view = self.classifier.view(dry=self.dry)
        found: list[list[list[Tensor]]] = [[[] for _ in same] for same in places.values()]
        for start in range(0, len(owners), size):
            part = owners[start : start + size]
            runs = [(i, [k for j, k in part if j == i]) for i in dict.fromkeys(j for j, _ in part)]
            if self.dry:
                view.score(asks[0].images.like.expand(size, *asks[0].images.like.shape), 0)
                logits = None
            else:
                chunk = torch.cat([asks[i].images.build(range(ks[0], ks[-1] + 1)) for i, ks in runs])
                full = torch.cat([chunk, chunk[-1:].expand(size - len(chunk), *chunk.shape[1:])])
                logits = view.logits(full)[: len(chunk)].cpu()
            at = 0
            for i, ks in runs:
                for slot, place in enumerate(list(places.values())[i]):
                    ask, target = wanted[place]
                    rows = logits[at : at + len(ks)] if logits is not None else self._invented(ask, target, len(ks))
                    found[i][slot].append(_pick(rows, target, ask.output))
                at += len(ks)
        self._count(view.passes)
        for i, same in enumerate(places.values()):
            for slot, place in enumerate(same):
                self._seen[place] = torch.cat(found[i][slot])

    def _explain(self, jobs: Sequence[Job]) -> None:
        """See to it that every map asked for is there: of equal questions the longest."""
        wanted: dict[Any, tuple[Explainer, Maps]] = {}
        for job in jobs:
            ask, place = job.ask, _place(job)
            assert isinstance(ask, Maps)
            if not _has(self._maps, place, len(ask.images)) and _longer(ask, wanted, place, 1):
                wanted[place] = job.case.explainer, ask
        for place, (explainer, ask) in wanted.items():
            try:
                self._maps[place] = self._maps_of(explainer, ask)
            except InputError as error:
                self._maps[place] = error

    def _maps_of(self, explainer: Explainer, ask: Maps) -> Tensor:
        import torch

        explainer = replace(explainer, dry=self.dry)
        if ask.network is not None:
            explainer = replace(explainer, classifier=ask.network)
        fresh = ask.fresh and explainer.draws
        if not fresh and ask.targets is None:
            maps, passes = explainer.many(ask.images)
            self._count(passes)
        else:
            out = []
            for i in range(len(ask.images)):
                one = explainer.redrawn(i) if fresh else explainer
                if ask.targets:
                    one = replace(one, target=ask.targets[i])
                raw = one.raw(ask.images.build(range(i, i + 1))[0])
                self._count(raw.passes)
                out.append(raw.map.detach().float().cpu())
            maps = torch.stack(out)
        return _noise(repr(ask.key), maps.shape) if self.dry else maps

    def _answer(self, job: Job) -> None:
        ask = job.ask
        try:
            if isinstance(ask, Look):
                answer = self._seen[(ask.key, ask.output, job.case.target)]
                if isinstance(answer, Exception):
                    raise answer
                job.passes.forward += len(ask.images)
                job.go_on(answer[: len(ask.images)])
            elif isinstance(ask, Maps):
                maps = self._maps[_place(job)]
                if isinstance(maps, Exception):
                    raise maps
                count = len(ask.images)
                cost = _cost(job.case.explainer, ask)
                job.passes.forward += cost.forward * count
                job.passes.backward += cost.backward * count
                control = job.control if ask.pool else None
                job.go_on(_finished(job.case, [control(m, i) if control else m for i, m in enumerate(maps[:count])]))
            elif isinstance(ask, Beside):
                place = ask.expression, job.case.target
                if place not in self._beside:
                    self._beside[place] = self.beside(*place)
                raw = self._beside[place]
                job.passes.forward += raw.passes.forward
                job.passes.backward += raw.passes.backward
                job.go_on((job.case.finish(raw.map.detach().float().cpu()), raw.notes))
        except AttrsensError as error:
            job.go_on(None, error if isinstance(error, InputError) else InputError(str(error)))

    def forget_maps(self) -> None:
        """Let go of the maps of copies, which are large; later questions would ask for them again."""
        self._maps.clear()

    def _count(self, passes: Any) -> None:
        self.passes.forward += passes.forward
        self.passes.backward += passes.backward

    def _invented(self, ask: Look, target: int, count: int) -> Tensor:
        return _noise(repr((ask.key, target)), (count, max(2, target + 1)))


def _has(kept: Mapping[Any, Any], place: Any, count: int) -> bool:
    """Whether an answer is there, or known to be impossible."""
    return place in kept and (isinstance(kept[place], Exception) or len(kept[place]) >= count)


def _longer(ask: Look | Maps, wanted: Mapping[Any, Any], place: Any, slot: int) -> bool:
    return place not in wanted or len(wanted[place][slot].images) < len(ask.images)


def _place(job: Job) -> Any:
    """Where maps are kept: by method call, network and what the images are."""
    ask, e = job.ask, job.case.explainer
    assert isinstance(ask, Maps)
    wrappers = tuple((s.name, tuple(p.items())) for s, p in e.wrappers)
    call = (e.spec.name, tuple((k, v) for k, v in e.complete().items() if k not in ("reduce",)), wrappers)
    return call, e.target, ask.targets, ask.name, ask.key, ask.fresh


def _cost(explainer: Explainer, ask: Maps) -> PassInfo:
    passes = replace(explainer, dry=True).raw(ask.images.like).passes
    return PassInfo(passes.forward, passes.backward)


def _finished(case: Case, maps: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.stack([case.finish(m) for m in maps])


def _pick(logits: Tensor, target: int, output: str) -> Tensor:
    if output == "logits":
        return logits.clone()
    wide = logits.double() if output == "logit" else logits.double().softmax(1)
    return wide[:, target].float() if output == "logit" else wide[:, target]


def _noise(name: str, shape: Sequence[int]) -> Tensor:
    import torch

    from attrsens.seeds import Stream

    return torch.from_numpy(Stream(0, name, "dry").normal([0], tuple(shape))[0])


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)

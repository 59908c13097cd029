"""Judging the maps of one image: what all scores ask for is gathered, asked once, and looked at in full batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from attrsens.engine.cell import Call
from attrsens.engine.report import PassInfo
from attrsens.errors import AttrsensError, InputError
from attrsens.scores._case import Answers, Ask, Case, Finding, Look, Maps, NoValue
from attrsens.spec import SCORES

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.explainer import Explainer, Raw
    from attrsens.models.classifier import Classifier

KEPT = 10**9  # bytes of maps of copies, beyond which the oldest go
Control = Callable[["Tensor", int], "Tensor"]


@dataclass(frozen=True)
class Outcome:
    """What came of a score: a value, or the reason why there is none: it does not exist, or computing it failed.
    `passes` is what it costs by itself."""

    value: float | None
    reason: str | None = None
    curve: list[float] | None = None
    details: dict[str, float | None] = field(default_factory=dict)
    passes: PassInfo = field(default_factory=PassInfo)
    failed: bool = False


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
    ask: Ask | tuple[Ask, ...] | None = None

    @property
    def asks(self) -> tuple[Ask, ...]:
        """What it waits for."""
        return self.ask if isinstance(self.ask, tuple) else (self.ask,) if self.ask else ()

    def start(self) -> None:
        spec = SCORES[self.call.name]
        own = {h.name: self.call.parameters[h.name] for h in spec.own()}
        try:
            result = spec.function(self.case, **own)
        except (NoValue, InputError) as error:
            self.outcome = Outcome(None, str(error), failed=isinstance(error, InputError))
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
            failed = isinstance(reason, InputError)
            self.ask, self.outcome = None, Outcome(None, str(reason), passes=self.passes, failed=failed)

    def end(self, result: Finding | float) -> None:
        finding = result if isinstance(result, Finding) else Finding(float(result))
        value = float(finding.value)
        details = {k: _number(v) for k, v in sorted(finding.details.items())}  # as the store gives them back
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
        self._classes = 1

    def settle(self, jobs: Iterable[Job]) -> None:
        """Run every job to its outcome."""
        jobs = list(jobs)
        self._classes = max((len(job.case.logits) for job in jobs), default=1)
        for job in jobs:
            if self.dry:
                top = int(job.case.logits.argmax())
                logits = self._invented("image", job.case.target, 1)[0]  # as many as copies are given
                logits[top] = logits.max() + 1
                job.case = replace(job.case, explainer=replace(job.case.explainer, dry=True), logits=logits)
            job.start()
        while waiting := [job for job in jobs if job.asks]:
            self._look([(job, ask) for job in waiting for ask in job.asks if isinstance(ask, Look)])
            self._explain([(job, ask) for job in waiting for ask in job.asks if isinstance(ask, Maps)])
            for job in waiting:
                self._answer(job)

    # -- asking the network ------------------------------------------------------------------------------------

    def _look(self, pairs: Sequence[tuple[Job, Look]]) -> None:
        """See to it that every image asked about has been looked at, all in one stream of full batches."""
        wanted: dict[Any, tuple[Look, int]] = {}
        for job, ask in pairs:
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
        size = self.classifier.sizes[1]  # on a CPU as fast as the larger one, and there is less to fill up
        view = self.classifier.view(dry=self.dry)
        found: list[list[list[Tensor]]] = [[[] for _ in same] for same in places.values()]
        deep = not self.dry and any(ask.output == "features" for ask, _ in wanted.values())
        for start in range(0, len(owners), size):
            part = owners[start : start + size]
            runs = [(i, [k for j, k in part if j == i]) for i in dict.fromkeys(j for j, _ in part)]
            if self.dry:
                view.score(asks[0].images.like.expand(size, *asks[0].images.like.shape), 0)
                logits = features = None
            else:
                parts = [asks[i].images.build(range(ks[0], ks[-1] + 1)) for i, ks in runs]
                if len(part) < size:
                    parts.append(parts[-1][-1:].expand(size - len(part), *parts[-1].shape[1:]))
                full = parts[0] if len(parts) == 1 else torch.cat(parts)
                logits, features = _seen_of(view, full, len(part), deep)
            at = 0
            for i, ks in runs:
                for slot, place in enumerate(list(places.values())[i]):
                    ask, target = wanted[place]
                    what = features if ask.output == "features" else logits
                    rows = (
                        what[at : at + len(ks)] if what is not None else self._invented(repr(ask.key), target, len(ks))
                    )
                    found[i][slot].append(_pick(rows, target, ask.output))
                at += len(ks)
        self._count(view.passes)
        for i, same in enumerate(places.values()):
            for slot, place in enumerate(same):
                self._seen[place] = torch.cat(found[i][slot])

    def _explain(self, pairs: Sequence[tuple[Job, Maps]]) -> None:
        """See to it that every map asked for is there. Equal questions share full batches; what is left over at the end
        of each is its own, so that no map depends on what else is asked, to the last bit, and no batch is filled up."""
        wanted: dict[Any, tuple[Explainer, Maps, range]] = {}
        needed = set()
        for job, ask in pairs:
            place, count, explainer = _place(job, ask), len(ask.images), job.case.explainer
            full = _full(explainer, ask)
            needed |= {place, (place, count)}
            if full and not _has(self._maps, place, full) and (place not in wanted or wanted[place][2].stop < full):
                wanted[place] = explainer, ask, range(full)
            if full < count and (place, count) not in self._maps:
                wanted[place, count] = explainer, ask, range(full, count)
        old = [place for place in self._maps if place not in needed]
        while old and sum(m.nbytes for m in self._maps.values() if not isinstance(m, Exception)) > KEPT:
            del self._maps[old.pop(0)]
        for place, (explainer, ask, rows) in wanted.items():
            try:
                self._maps[place] = self._maps_of(explainer, ask.part(rows), rows.start)
            except InputError as error:
                self._maps[place] = error

    def _maps_of(self, explainer: Explainer, ask: Maps, first: int) -> Tensor:
        """The maps of a part of what is asked, which begins at the first-th."""
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
                one = explainer.redrawn(first + i) if fresh else explainer
                if ask.targets:
                    one = replace(one, target=ask.targets[i])
                raw = one.raw(ask.images.build(range(i, i + 1))[0])
                self._count(raw.passes)
                out.append(raw.map.detach().float().cpu())
            maps = torch.stack(out)
        return _noise(repr((ask.key, first)), maps.shape) if self.dry else maps

    def _answer(self, job: Job) -> None:
        try:
            answers = [self._answer_to(job, ask) for ask in job.asks]
            job.go_on(answers if isinstance(job.ask, tuple) else answers[0])
        except AttrsensError as error:
            job.go_on(None, error if isinstance(error, InputError) else InputError(str(error)))

    def _answer_to(self, job: Job, ask: Ask) -> Any:
        if isinstance(ask, Look):
            answer = self._seen[(ask.key, ask.output, job.case.target)]
            if isinstance(answer, Exception):
                raise answer
            job.passes.forward += len(ask.images)
            return answer[: len(ask.images)]
        if isinstance(ask, Maps):
            place, count, full = _place(job, ask), len(ask.images), _full(job.case.explainer, ask)
            maps: list[Tensor] = []
            for where, last in ((place, full), ((place, count), count - full)):
                part = self._maps[where] if last else ()
                if isinstance(part, Exception):
                    raise part
                maps += part[:last]
            cost = _cost(job.case.explainer, ask)
            job.passes.forward += cost.forward * count
            job.passes.backward += cost.backward * count
            control = job.control if ask.pool else None
            return _finished(job.case, [control(m, i) if control else m for i, m in enumerate(maps)])
        place = ask.expression, job.case.target
        if place not in self._beside:
            self._beside[place] = self.beside(*place)
        raw = self._beside[place]
        job.passes.forward += raw.passes.forward
        job.passes.backward += raw.passes.backward
        return job.case.finish(raw.map.detach().float().cpu()), raw.notes

    def _count(self, passes: Any) -> None:
        self.passes.forward += passes.forward
        self.passes.backward += passes.backward

    def _invented(self, key: str, target: int, count: int) -> Tensor:
        return _noise(repr((key, target)), (count, max(self._classes, 100)))  # classes that differ


def _has(kept: Mapping[Any, Any], place: Any, count: int) -> bool:
    """Whether an answer is there, or known to be impossible."""
    return place in kept and (isinstance(kept[place], Exception) or len(kept[place]) >= count)


def _longer(ask: Look | Maps, wanted: Mapping[Any, Any], place: Any, slot: int) -> bool:
    return place not in wanted or len(wanted[place][slot].images) < len(ask.images)


def _place(job: Job, ask: Maps) -> Any:
    """Where maps are kept: by method call, network and what the images are."""
    e = job.case.explainer
    p = e.complete()
    p = {**p, "reduce": "none", "sign": "signed" if p["sign"] == "abs" else p["sign"]}  # what acts on maps afterwards
    wrappers = tuple((s.name, tuple(p.items())) for s, p in e.wrappers)
    call = e.spec.name, tuple(p.items()), wrappers
    return call, e.target, ask.targets, ask.name, ask.key, ask.fresh


def _full(explainer: Explainer, ask: Maps) -> int:
    """How many of the images asked about fill batches."""
    alone = ask.targets is not None or (ask.fresh and explainer.draws)
    return len(ask.images) if alone else len(ask.images) // explainer.width * explainer.width


def _cost(explainer: Explainer, ask: Maps) -> PassInfo:
    passes = replace(explainer, dry=True).raw(ask.images.like).passes
    return PassInfo(passes.forward, passes.backward)


def _finished(case: Case, maps: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.stack([case.finish(m) for m in maps])


def _seen_of(view: Classifier, images: Tensor, count: int, deep: bool) -> tuple[Tensor, Tensor | None]:
    """Logits, and where asked penultimate features, of the first images of a batch, on the CPU."""
    import torch

    from attrsens.models.layers import features_of

    if not deep:
        return view.logits(images)[:count].cpu(), None
    with features_of(view, images[0]) as given:
        logits = view.logits(images)
    return logits[:count].cpu(), torch.cat(given)[:count].cpu()


def _pick(logits: Tensor, target: int, output: str) -> Tensor:
    if output in ("logits", "features"):
        return logits.clone()
    wide = logits.double() if output == "logit" else logits.double().softmax(1)
    return wide[:, target].float() if output == "logit" else wide[:, target]


def _noise(name: str, shape: Sequence[int]) -> Tensor:
    import torch

    from attrsens.seeds import Stream

    return torch.from_numpy(Stream(0, name, "dry").normal([0], tuple(shape))[0])


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)

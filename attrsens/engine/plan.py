"""What a request will cost, counted by running every method with passes that are counted instead of made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from attrsens.engine.cell import Call, over_names, over_values, run_key
from attrsens.engine.compute import Computed, Marks, Ready, Tally, cell_of, explainer, shares
from attrsens.engine.inputs import class_of
from attrsens.engine.metrics import Judging
from attrsens.engine.report import PassInfo
from attrsens.engine.run import Request
from attrsens.engine.store import Entry, Store
from attrsens.engine.throughput import peak_memory, throughput
from attrsens.engine.together import ahead_of, runs_of, width_of
from attrsens.errors import AttrsensError, InputError
from attrsens.explainer import raw_across, raw_together
from attrsens.images import Image

if TYPE_CHECKING:
    from attrsens.engine.attack_plan import Attacks
    from attrsens.engine.prepare import Prepared
    from attrsens.models.classifier import Classifier

CALIBRATION = 2.0  # seconds at most


@dataclass
class Plan:
    """What would run.

    Attributes:
        cells: maps and attacks that were asked for; `cached` of them need no pass. Images whose top-1 is not in the
            store count as not cached.
        forward, backward: passes that would be made, predictions included.
        memory_mb: peak of the process while calibrating; None where the system does not tell.
        seconds: expected, from the throughput measured in the calibration.
        unshared: what the maps that lack would cost one by one; `sharing` says which of them share a run.
    """

    images: int
    models: int
    methods: list[str]
    cells: int
    cached: int
    forward: int
    backward: int
    memory_mb: float | None
    seconds: float
    unshared: PassInfo = field(default_factory=PassInfo)
    sharing: list[str] = field(default_factory=list)


def cost(classifier: Classifier, call: Call, shape: tuple[int, int]) -> PassInfo:
    """The passes of one call on an image of (height, width).

    Raises:
        AttrsensError: the call does not suit the image, such as a patch larger than it.
    """
    import torch

    pixels = torch.zeros(classifier.preprocess.channels, *shape, device=classifier.device)
    pixels[..., 0, 0] = 1.0  # an image with a range
    passes = explainer(classifier, call, 0, dry=True).raw(pixels).passes
    return PassInfo(passes.forward, passes.backward)


def run_cost(classifier: Classifier, calls: Sequence[Call], shape: tuple[int, int]) -> PassInfo:
    """The passes of calls that share a run, on an image of (height, width).

    Raises:
        AttrsensError: one of them does not suit the image.
    """
    import torch

    if len(calls) == 1:
        return cost(classifier, calls[0], shape)
    pixels = torch.zeros(classifier.preprocess.channels, *shape, device=classifier.device)
    pixels[..., 0, 0] = 1.0
    made = [spent for _, spent in raw_across([explainer(classifier, call, 0, dry=True) for call in calls], pixels)]
    return PassInfo(sum(m.forward for m in made), sum(m.backward for m in made))


def sharing_of(calls: Sequence[Call]) -> list[str]:
    """In words, which calls share a run."""
    out = []
    for run in runs_of(calls, [None]):
        if len(run) > 1:
            names = [name for name in over_names(run[0][0]) if name != "target"]
            told = [str(value[0]) if len(value) == 1 else str(value) for value in map(over_values, (c for c, _ in run))]
            seed = run[0][0].parameters.get("seed")
            of = f", seed {seed}" if seed is not None else ""
            out.append(f"{run[0][0].name} over {', '.join(names)}: one run gives {', '.join(told)}{of}")
    return out


def check(request: Request, store: Store | None) -> None:
    """Raise now what would stop every image later: classes out of range, calls that do not suit the crop."""
    for classifier in request.classifiers:
        if classifier.probe and not _predicted(classifier, request, store):
            classifier.probe()
        if store and classifier.classes is None and not set(request.targets) <= {"top1", "true"}:
            _recall_classes(classifier, request, store)
        for word in request.targets:
            if word not in ("top1", "true"):
                class_of(word, classifier)
        side = classifier.preprocess.crop
        if side is not None:
            for call in request.calls:
                try:
                    cost(classifier, call, (side, side))
                except InputError as error:
                    raise AttrsensError(str(error)) from None


def _predicted(classifier: Classifier, request: Request, store: Store | None) -> bool:
    """Whether the first image's prediction is in the store: then the model has worked before."""
    try:
        return store is not None and cell_of(classifier, request.sources[0].load().sha256).key in store
    except (InputError, IndexError):
        return False


def _recall_classes(classifier: Classifier, request: Request, store: Store) -> None:
    """Learn the number of classes from a prediction that is in the store, which saves the pass that would tell it."""
    try:
        entry = store.get(cell_of(classifier, request.sources[0].load().sha256).key)
    except (InputError, IndexError):
        return
    if entry:
        classifier.class_count = len(entry.arrays["logits"])


Row = tuple[int, int, tuple[Call, ...]]  # of a batch: image, class, and the settings that are snapshots of one course


class _Rows:
    """What searches and optimisers cost whose images and settings advance in batches of fixed width."""

    def __init__(self, request: Request) -> None:
        self.request, self.ahead = request, ahead_of(request)
        self.windows: dict[tuple[Any, ...], list[Row]] = {}

    def add(self, classifier: Classifier, run: Sequence[tuple[Call, int | None]], image: int, shape: object) -> None:
        """A row that is to be computed, of the image-th image."""
        calls = tuple(call for call, _ in run)
        place = classifier, run_key(calls[0], beside=True), image // self.ahead, shape
        self.windows.setdefault(place, []).append((image % self.ahead, run[0][1] or 0, calls))

    def cost(self) -> Iterator[tuple[Classifier, PassInfo]]:
        """The passes of every window, counted by running its batches without any."""
        import torch

        known: dict[tuple[Any, ...], PassInfo] = {}
        for (classifier, _, _, shape), rows in self.windows.items():
            place = classifier.id, shape, tuple((i, t, tuple(c.expression for c in calls)) for i, t, calls in rows)
            if place not in known:
                width = width_of(self.request, classifier, rows[0][2][0])
                pictures = [torch.zeros(classifier.preprocess.channels, *shape) for _ in range(self.ahead)]
                given = [([explainer(classifier, c, t, dry=True) for c in calls], pictures[i]) for i, t, calls in rows]
                parts = [given[at : at + width] for at in range(0, len(given), width)]
                made = [raw_together(part, width)[1] for part in parts]
                known[place] = PassInfo(sum(m.forward for m in made), sum(m.backward for m in made))
            yield classifier, known[place]


def plan_of(prepared: Prepared, timed: bool = True) -> Plan:
    """`plan` of all that a prepared request asks for."""
    if not prepared.attacks:
        return plan(prepared.request, prepared.store, prepared.judging, timed)
    from attrsens.engine.attack_plan import Attacks

    return plan(prepared.request, prepared.store, timed=timed, attacks=Attacks(prepared))


def plan(
    request: Request,
    store: Store | None,
    judging: Judging | None = None,
    timed: bool = True,
    attacks: Attacks | None = None,
) -> Plan:
    """Count cells and passes, then measure the throughput for at most two seconds; nothing else is computed.

    Args:
        timed: without it nothing is measured, and no time expected.
        judging: scores that are asked for besides the maps. Where an image's class is not known yet, none of them count
            as finished.
        attacks: on the maps.
    """
    cells = cached = images = 0
    apart = PassInfo()
    spending: dict[str, PassInfo] = {}
    memo: dict[str, Computed] = {}  # maps of other pictures for classes that are known, which are counted once

    rows = _Rows(request)
    prices: dict[tuple[object, ...], PassInfo] = {}

    def price(classifier: Classifier, run: Sequence[tuple[Call, int | None]], shape: tuple[int, int]) -> PassInfo:
        place = classifier.id, tuple(call.expression for call, _ in run), shape
        if place not in prices:
            prices[place] = run_cost(classifier, [call for call, _ in run], shape)
        return prices[place]

    def spend(classifier: Classifier, passes: PassInfo) -> None:
        mine = spending.setdefault(classifier.id, PassInfo())
        mine.forward, mine.backward = mine.forward + passes.forward, mine.backward + passes.backward

    for source in request.sources:
        try:
            image = source.load()
        except InputError:
            continue
        shared: list[int] | None = None
        own: dict[str, Computed] = {}
        for classifier, change in request.views:
            entry = store.get(cell_of(classifier, image.sha256).key) if store else None
            known = [int(entry.arrays["logits"].argmax())] if entry else []
            shared = known if shared is None else shared
            known = shared if request.one_class and not request.only_correct else known
            _, (top, left, bottom, right) = classifier.preprocess.geometry(image.size)
            try:
                marks = change.marks(change.cover(source, image, classifier)) if change else {}
            except InputError:
                continue
            run_forward, run_backward = int(entry is None), 0
            if change:
                seen = replace(cell_of(classifier, image.sha256), **marks).key
                run_forward = int(store is None or seen not in store)
            targets = [_resolve(word, classifier, known) for word in request.targets]
            shape = (bottom - top, right - left)
            for run in runs_of(request.calls, list(dict.fromkeys(targets))):
                cells += len(run)
                found = [
                    cell_of(classifier, image.sha256, target, call, width=width_of(request, classifier, call))
                    for call, target in run
                ]
                there = [
                    bool(store and cell.target is not None and replace(cell, **marks).raw().key in store)
                    for cell in found
                ]
                cached += sum(there)
                if all(there):
                    continue
                try:
                    spent = price(classifier, run, shape)
                    for pair in (pair for pair, kept in zip(run, there, strict=True) if not kept):
                        alone = price(classifier, [pair], shape)
                        apart.forward, apart.backward = apart.forward + alone.forward, apart.backward + alone.backward
                except AttrsensError:
                    continue
                if shares(run[0][0]):
                    rows.add(classifier, run, images, shape)
                    spent = PassInfo()
                run_forward += spent.forward
                run_backward += spent.backward
            if judging:
                kept = memo if entry else own
                more = _judging_cost(request, judging, classifier, image, shape, targets, entry, store, marks, kept)
                run_forward, run_backward = run_forward + more.forward, run_backward + more.backward
            if attacks:
                attacks.add(classifier, source, image, shape, targets, known[0] if known else None)
            spend(classifier, PassInfo(run_forward, run_backward))
        images += 1
    for classifier, made in rows.cost():
        spend(classifier, made)
    for classifier, made in attacks.cost() if attacks else ():
        spend(classifier, made)
    cells, cached = (cells + attacks.cells, cached + attacks.cached) if attacks else (cells, cached)
    seconds = 0.0
    for classifier in request.classifiers if timed else ():
        made = spending.get(classifier.id, PassInfo())
        if made.forward:
            per_forward, per_gradient = throughput(classifier, CALIBRATION / len(request.classifiers))
            seconds += (made.forward - made.backward) / per_forward + made.backward / per_gradient
    forward, backward = (sum(getattr(made, k) for made in spending.values()) for k in ("forward", "backward"))
    methods = [c.expression for c in request.calls]
    memory = peak_memory(request.classifiers)
    models = len(request.classifiers)
    sharing = sharing_of(request.calls)
    return Plan(images, models, methods, cells, cached, forward, backward, memory, round(seconds, 2), apart, sharing)


def _judging_cost(
    request: Request,
    judging: Judging,
    classifier: Classifier,
    image: Image,
    shape: tuple[int, int],
    targets: list[int | None],
    entry: Entry | None,
    store: Store | None,
    marks: Marks,
    memo: dict[str, Computed],
) -> PassInfo:
    """The passes of the scores and similarities of one image: they run, on invented maps, with passes that are
    counted. `memo`: maps that images whose class is known share, such as those of the other picture."""
    import torch

    from attrsens.engine.judge import Judge
    from attrsens.engine.run import Found
    from attrsens.seeds import Stream

    size = (classifier.preprocess.channels, *shape)
    pixels = Stream(0, image.sha256, "dry").uniform([0], size)[0]
    known = entry.arrays["logits"] if entry else None
    classes = [t or 0 for t in dict.fromkeys(targets)]
    logits = known if known is not None else np.eye(max(classes) + 2, dtype=np.float32)[classes[0]]
    tally = Tally()
    judge = Judge(judging, partial(width_of, request), store if known is not None else None, tally)
    judge.dry, judge.memo = True, memo
    part = []
    for target in classes:
        for call in request.calls:
            try:
                shape_of = explainer(classifier, call, target, dry=True).raw(torch.from_numpy(pixels)).map.shape
            except AttrsensError:  # will be a failure of this image
                continue
            raw = Stream(0, f"{image.sha256} {target} {call.expression}", "dry").normal([0], tuple(shape_of))[0]
            part.append(Found(None, call, target, raw, {}, PassInfo()))
    ready = Ready(image, pixels, logits, classes, None, marks=marks)
    judge.rows(classifier, ready, part)
    if judging.similarities and not judging.spares and (judging.across or len(request.calls) > 1):
        from attrsens.engine.compare import calibration

        maps = judge.maps(classifier, ready)
        for found in part:
            calibration(maps, found, judging)
    return tally.passes


def _resolve(word: str, classifier: Classifier, known: list[int]) -> int | None:
    if word in ("top1", "true"):
        return known[0] if word == "top1" and known else None
    return class_of(word, classifier)

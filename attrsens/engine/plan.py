"""What a request will cost, counted by running every method with passes that are counted instead of made."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from attrsens.engine.cell import Call
from attrsens.engine.compute import Computed, Marks, Ready, Tally, cell_of, explainer
from attrsens.engine.inputs import class_of
from attrsens.engine.metrics import Judging
from attrsens.engine.report import PassInfo
from attrsens.engine.run import Request, width_of
from attrsens.engine.store import Entry, Store
from attrsens.errors import AttrsensError, InputError
from attrsens.images import Image, Preprocess

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.classifier import Classifier

CALIBRATION = 2.0  # seconds at most
FLOOR_BATCHES = (4, 8, 16)


@dataclass
class Plan:
    """What would run.

    Attributes:
        cells: maps that were asked for; `cached` of them need no pass. Images whose top-1 is not in the store count as
            not cached.
        forward, backward: passes that would be made, predictions included.
        memory_mb: peak of the process while calibrating; None where the system does not tell.
        seconds: expected, from the throughput measured in the calibration.
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


def plan(request: Request, store: Store | None, judging: Judging | None = None) -> Plan:
    """Count cells and passes, then measure the throughput for at most two seconds; nothing else is computed.

    Args:
        judging: scores that are asked for besides the maps. Where an image's class is not known yet, none of them count
            as finished.
    """
    forward = backward = cells = cached = images = 0
    speeds: dict[str, tuple[float, float]] = {}
    seconds = 0.0
    memo: dict[str, Computed] = {}  # maps of other pictures for classes that are known, which are counted once

    @cache
    def passes(classifier: Classifier, position: int, shape: tuple[int, int]) -> PassInfo:
        return cost(classifier, request.calls[position], shape)

    for source in request.sources:
        try:
            image = source.load()
        except InputError:
            continue
        images += 1
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
            for target in dict.fromkeys(targets):
                for position, call in enumerate(request.calls):
                    cells += 1
                    cell = cell_of(classifier, image.sha256, target, call, width=width_of(request, classifier))
                    if store and target is not None and replace(cell, **marks).raw().key in store:
                        cached += 1
                        continue
                    try:
                        found = passes(classifier, position, (bottom - top, right - left))
                    except AttrsensError:
                        continue
                    run_forward += found.forward
                    run_backward += found.backward
            if judging:
                shape = (bottom - top, right - left)
                kept = memo if entry else own
                spent = _judging_cost(request, judging, classifier, image, shape, targets, entry, store, marks, kept)
                run_forward, run_backward = run_forward + spent.forward, run_backward + spent.backward
            if run_forward and classifier.id not in speeds:
                speeds[classifier.id] = throughput(classifier, CALIBRATION / len(request.classifiers))
            per_forward, per_gradient = speeds.get(classifier.id, (math.inf, math.inf))
            seconds += (run_forward - run_backward) / per_forward + run_backward / per_gradient
            forward, backward = forward + run_forward, backward + run_backward
    methods = [c.expression for c in request.calls]
    memory = peak_memory(request.classifiers)
    return Plan(images, len(request.classifiers), methods, cells, cached, forward, backward, memory, round(seconds, 2))


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
    judge = Judge(judging, {classifier.id: width_of(request, classifier)}, store if known is not None else None, tally)
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
    if judging.similarities and (judging.across or len(request.calls) > 1):
        from attrsens.engine.compare import calibration

        maps = judge.maps(classifier, ready)
        for found in part:
            calibration(maps, found, judging.calibrate)
    return tally.passes


def throughput(classifier: Classifier, budget: float) -> tuple[float, float]:
    """(passes a second forward, and forward and back) over random images, within the budget of seconds."""
    import torch

    steps: Preprocess = classifier.preprocess
    side = steps.crop or steps.resize or 224
    view = classifier.view()
    start = time.perf_counter()
    noise = view.stream(0, "calibration").uniform(range(classifier.sizes[0]), (steps.channels, side, side))
    batch = view.encode(torch.from_numpy(noise))

    def rate(run: object, count: int, until: float) -> float:
        best = math.inf
        while True:
            begin = time.perf_counter()
            run()  # type: ignore[operator]
            _wait(classifier)
            now = time.perf_counter()
            best = min(best, now - begin)
            if now + (now - begin) > until:
                return count * classifier.copies / best

    view.logits(batch[:1])  # folding and first-use costs
    began = time.perf_counter()
    view.logits(batch[:1])
    _wait(classifier)
    fits = max(1, int(budget / 8 / (time.perf_counter() - began)))  # images that a quarter of each half lasts for
    batch = batch[:fits]
    middle = start + budget / 2
    forward = rate(lambda: view.logits(batch), len(batch), middle)
    try:
        part = batch[: classifier.sizes[1]]
        both = rate(lambda: list(view.gradients(part, 0)), len(part), start + budget)
    except AttrsensError:
        both = forward / 3
    return forward, both


def floor(fast: Classifier, pixels: Tensor, budget: float, back: bool) -> dict[str, float]:
    """Passes a second, forward and (if there is a way back) with gradient, of the bare network in its form: the best
    over the batches."""
    import torch

    from attrsens.models.surgery import first_output

    form, best = fast.form, dict.fromkeys(("forward", "gradient") if back else ("forward",), 0.0)
    assert form is not None

    def forward(x: Tensor) -> None:
        with torch.inference_mode():
            fast.network(x)

    def gradient(x: Tensor) -> None:
        given = x.detach().requires_grad_()
        torch.autograd.grad(first_output(fast.network(given))[:, 0].sum(), given)

    runs = {"forward": forward, "gradient": gradient}
    for kind in best:
        for size in FLOOR_BATCHES if fast.copies == 1 else (1,):
            repeats = -(-size // len(pixels))
            x = fast.normalised(pixels.repeat(repeats, 1, 1, 1)[:size]).contiguous(memory_format=form.layout)
            until = time.perf_counter() + budget / 2 / len(FLOOR_BATCHES)
            while True:
                begin = time.perf_counter()
                runs[kind](x)
                _wait(fast)
                now = time.perf_counter()
                best[kind] = max(best[kind], size * fast.copies / (now - begin))
                if now + (now - begin) > until:
                    break
    return best


def peak_memory(classifiers: object = ()) -> float | None:
    """Peak memory of this process in MB (of the GPU's tensors where one is in use); None where it is not known."""
    import torch

    if any(c.device.type == "cuda" for c in classifiers):  # type: ignore[attr-defined]
        return float(torch.cuda.max_memory_allocated() / 1e6)
    try:
        import resource
        import sys
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / 1e6 if sys.platform == "darwin" else peak / 1e3)


def _resolve(word: str, classifier: Classifier, known: list[int]) -> int | None:
    if word in ("top1", "true"):
        return known[0] if word == "top1" and known else None
    return class_of(word, classifier)


def _wait(classifier: Classifier) -> None:
    import torch

    if classifier.device.type == "cuda":
        torch.cuda.synchronize(classifier.device)

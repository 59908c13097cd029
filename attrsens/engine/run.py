"""Running a request: image by image, every finished cell kept, a failure of one cell never the end of the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.ahead import windows
from attrsens.engine.cell import Call
from attrsens.engine.compute import Computed, Ready, Tally, compute, predict
from attrsens.engine.inputs import Source, class_of
from attrsens.engine.report import (
    Failure,
    HeatmapInfo,
    ImageInfo,
    MethodInfo,
    ModelInfo,
    PassInfo,
    PredictionInfo,
    Record,
    Skipped,
    TargetInfo,
    WrapperInfo,
)
from attrsens.engine.store import Store
from attrsens.engine.together import Request as Request
from attrsens.engine.together import advance, ahead_of, share, width_of
from attrsens.errors import AttrsensError, InputError, told
from attrsens.heatmaps import Attribution, finish
from attrsens.images import Image

if TYPE_CHECKING:
    from attrsens.models.classifier import Classifier

log = logging.getLogger("attrsens")

Result = tuple[Record, Attribution]


@dataclass(frozen=True)
class Found:
    """A finished map, with what is known of it.

    Attributes:
        result: None where passes are only counted.
        raw, notes, passes: what the method gave and cost.
    """

    result: Result | None
    call: Call
    target: int
    raw: NDArray[np.float32]
    notes: dict[str, float | None]
    passes: PassInfo


Judge = Callable[["Classifier", "Source", "Ready", list[Found]], None]


def run(request: Request, store: Store | None, tally: Tally, judge: Judge | None = None) -> Iterator[list[Result]]:
    """The results of one image and classifier after another, in order.

    Args:
        judge: is handed the maps of one image and classifier before they go out, and adds scores to their records.
    """
    for window, loaded in windows(request.sources, ahead_of(request)):
        yield from _window(request, window, loaded, store, tally, judge)


def _window(
    request: Request,
    sources: Sequence[Source],
    loaded: Sequence[Image | InputError],
    store: Store | None,
    tally: Tally,
    judge: Judge | None,
) -> Iterator[list[Result]]:
    """A few images: what can advance together is computed first, then the rest, image by image."""
    images: list[Image | None] = []
    ready: dict[tuple[int, int], Ready] = {}
    done: dict[str, Computed] = {}
    for source, read in zip(sources, loaded, strict=True):
        if isinstance(read, InputError):
            tally.failures.append(Failure(source.name, "decode", str(read)))
        images.append(None if isinstance(read, InputError) else read)
    tops: dict[int, int] = {}
    stopped, clean = False, 0
    try:
        for j, (classifier, change) in enumerate(request.views):
            clean = j if change is None else clean
            for i, (source, image) in enumerate(zip(sources, images, strict=True)):
                found = None
                if change and (i, clean) in ready:
                    found = change.of(source, ready[i, clean], classifier, store, tally)
                elif image and not change:
                    found = _look(request, source, image, classifier, store, tally, tops.get(i))
                if found:
                    if request.one_class and not request.only_correct:
                        tops.setdefault(i, int(found.clean.argmax()))
                    ready[i, j] = found
            waiting = [found for (_, k), found in sorted(ready.items()) if k == j]
            advance(request, classifier, waiting, store, tally, done)
    except KeyboardInterrupt:
        stopped = True  # what is finished is still handed out
    for i, source in enumerate(sources):
        for j, (classifier, _) in enumerate(request.views):
            part: list[Found] = []
            try:
                if (i, j) in ready:
                    for one in _explain_one(request, source, ready[i, j], classifier, store, tally, done, stopped):
                        part.append(one)
                    if judge and not stopped:
                        _judge(judge, classifier, source, ready[i, j], part, tally)
            except KeyboardInterrupt:
                yield [one.result for one in part if one.result]  # what is finished of this image
                raise
            yield [one.result for one in part if one.result]
    if stopped:
        raise KeyboardInterrupt


def _look(
    request: Request,
    source: Source,
    image: Image,
    classifier: Classifier,
    store: Store | None,
    tally: Tally,
    shared: int | None = None,
) -> Ready | None:
    """The pixels, the prediction and the classes to explain; None where one of them fails or the image is left out.

    Args:
        shared: the class that `top1` means, instead of this classifier's own.
    """
    stage = "decode"
    try:
        pixels = classifier.preprocess.apply(image)
        stage = "label"
        true = request.truth.of(source, image, classifier)
        stage = "predict"
        logits = predict(classifier, image, pixels, store, tally)
        stage = "label"
        if true is not None and not 0 <= true < len(logits):
            raise InputError(f"{source.name}: label {true} is none of the {len(logits)} classes")
    except Exception as error:
        if isinstance(error, AttrsensError) and not isinstance(error, InputError):
            raise  # a mistake in what was asked for, such as class names that do not fit the model
        tally.failures.append(Failure(source.name, stage, _failed(error), classifier.name))
        return None
    top = int(logits.argmax())
    if request.only_correct:
        if true is None:
            message = "its true class is not known, so --only-correct cannot judge it; give --labels"
            tally.failures.append(Failure(source.name, "label", message, classifier.name))
            return None
        if top != true:
            tally.skipped.append(Skipped(source.name, classifier.name, f"top-1 is class {top}, the label is {true}"))
            return None
    if shared is not None:
        if shared >= len(logits):
            message = f"class {shared}, the first model's top-1, is none of its {len(logits)}"
            tally.failures.append(Failure(source.name, "label", message, classifier.name))
            return None
        top = shared
    targets: list[int] = []
    for word in request.targets:
        if word == "true" and true is None:
            message = "its true class is not known; give --labels"
            tally.failures.append(Failure(source.name, "label", message, classifier.name))
            continue
        index = top if word == "top1" else true if word == "true" else class_of(word, classifier)
        if index is not None and index not in targets:
            targets.append(index)
    return Ready(image, pixels, logits, targets, true)


def _explain_one(
    request: Request,
    source: Source,
    found: Ready,
    classifier: Classifier,
    store: Store | None,
    tally: Tally,
    done: dict[str, Computed],
    stopped: bool,
) -> Iterator[Found]:
    """The maps of an image. After Ctrl-C only those that are finished follow, before it takes effect."""
    image, pixels = found.image, found.pixels
    shown = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    seen = (shown * 255).round().astype(np.uint8)
    interrupted = False
    try:
        if not stopped and not request.sample:
            share(request, found, classifier, store, tally, done)
    except KeyboardInterrupt:
        stopped = interrupted = True
    for target in found.targets:
        info = _target_info(classifier, found.clean, target, found.true)
        change = found.change
        if found.before is not None:
            now, top = _target_info(classifier, found.logits, target, None), int(found.logits.argmax())
            label = classifier.classes[top] if classifier.classes else None
            flipped = top != int(found.before.argmax())
            change = replace(change, prediction=PredictionInfo(top, label, now.probability, now.rank, flipped))
        calls = request.calls
        if request.sample and not stopped:
            calls = request.sample(classifier, source, found, target, done)
        for call in calls:
            cell = found.cell(classifier, target, call, width=width_of(request, classifier, call))
            key = cell.raw().key
            if stopped and key not in done and not (store and key in store):
                continue
            try:
                computed = done.get(key)
                raw, notes, passes = computed or compute(classifier, cell, call, found, target, store, tally)
            except KeyboardInterrupt:
                stopped = interrupted = True
                continue
            except Exception as error:
                tally.failures.append(
                    Failure(source.name, "compute", _failed(error), classifier.name, call.expression, target)
                )
                continue
            p = call.parameters
            heatmap = np.asarray(finish(raw, str(p["sign"]), str(p["reduce"])), np.float32)
            record = Record(
                key=cell.key,
                image=ImageInfo(source.name, image.sha256, image.size, list(image.notes)),
                input=change,
                model=ModelInfo(classifier.name, classifier.id),
                target=info,
                method=MethodInfo(call.name, call.version, dict(p), call.expression, _wrappers(call)),
                heatmap=HeatmapInfo.of(heatmap),
                passes=passes,
                notes=notes,
            )
            result = record, Attribution(heatmap, target, info.label, info.probability, notes, seen)
            yield Found(result, call, target, raw, notes, passes)
    if interrupted:
        raise KeyboardInterrupt


def _judge(judge: Judge, classifier: Classifier, source: Source, ready: Ready, part: list[Found], tally: Tally) -> None:
    try:
        judge(classifier, source, ready, part)
    except Exception as error:  # the maps are there, and other images have scores
        tally.failures.append(Failure(source.name, "score", _failed(error), classifier.name))


def _failed(error: Exception) -> str:
    """What a failure says; where an exception that nobody foresaw came from goes to the log."""
    if not isinstance(error, AttrsensError):
        log.debug("a cell failed", exc_info=error)
    return told(error)


def _target_info(classifier: Classifier, logits: NDArray[np.float32], target: int, true: int | None) -> TargetInfo:
    wide = logits.astype(np.float64)
    share = np.exp(wide - wide.max())
    probability = float(share[target] / share.sum())
    label = classifier.classes[target] if classifier.classes else None
    return TargetInfo(target, label, probability, int((logits > logits[target]).sum()) + 1, true)


def _wrappers(call: Call) -> list[WrapperInfo]:
    return [WrapperInfo(w.name, w.version, dict(w.parameters)) for w in call.wrappers]


Sink = Callable[[list[Result]], None]

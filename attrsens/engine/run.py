"""Computing: one image at a time, every finished cell kept, a failure of one cell never the end of the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.cell import Call, Cell, torch_version
from attrsens.engine.inputs import Source, Truth, class_of
from attrsens.engine.report import (
    Failure,
    HeatmapInfo,
    ImageInfo,
    InputInfo,
    MethodInfo,
    ModelInfo,
    PassInfo,
    Record,
    Skipped,
    TargetInfo,
    WrapperInfo,
)
from attrsens.engine.store import Store
from attrsens.errors import AttrsensError, InputError
from attrsens.explainer import Explainer
from attrsens.heatmaps import Attribution, finish, flat, sketch
from attrsens.images import Image
from attrsens.spec import METHODS, WRAPPERS

if TYPE_CHECKING:
    from attrsens.models.classifier import Classifier

log = logging.getLogger("attrsens")
Result = tuple[Record, Attribution]


@dataclass(frozen=True)
class Request:
    """What is to be explained: every source x classifier x target x call."""

    sources: Sequence[Source]
    classifiers: Sequence[Classifier]
    targets: Sequence[str]
    calls: Sequence[Call]
    truth: Truth
    only_correct: bool = False


@dataclass
class Tally:
    """What a run did besides its results."""

    failures: list[Failure] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    cached_cells: int = 0
    passes: PassInfo = field(default_factory=PassInfo)


def cell_of(classifier: Classifier, image: str, target: int | None = None, *calls: Call) -> Cell:
    """The cell of a call on an image; without a call, of the prediction."""
    return Cell(
        model=classifier.id,
        image=image,
        target=target,
        calls=calls,
        precision=classifier.precision,
        fold=classifier.fold,
        device=classifier.device.type,
        torch=torch_version(),
    )


def explainer(classifier: Classifier, call: Call, target: int, image: str = "", dry: bool = False) -> Explainer:
    """A call bound to a classifier and a target."""
    wrappers = tuple((WRAPPERS[w.name], w.parameters) for w in call.wrappers)
    return Explainer(classifier, METHODS[call.name], target, call.parameters, image, dry, wrappers)


def run(request: Request, store: Store | None, tally: Tally) -> Iterator[list[Result]]:
    """The results of one image and classifier after another, in order."""
    for source in request.sources:
        try:
            image = source.load()
        except InputError as error:
            tally.failures.append(Failure(source.name, "decode", str(error)))
            yield from ([] for _ in request.classifiers)
            continue
        for classifier in request.classifiers:
            part: list[Result] = []
            try:
                for result in _explain_one(request, source, image, classifier, store, tally):
                    part.append(result)
            except KeyboardInterrupt:
                yield part  # what is finished of this image
                raise
            yield part


def _explain_one(
    request: Request, source: Source, image: Image, classifier: Classifier, store: Store | None, tally: Tally
) -> Iterator[Result]:
    stage = "decode"
    try:
        pixels = classifier.preprocess.apply(image)
        stage = "label"
        true = request.truth.of(source, image, classifier)
        stage = "predict"
        logits = _predict(classifier, image, pixels, store, tally)
        stage = "label"
        if true is not None and not 0 <= true < len(logits):
            raise InputError(f"{source.name}: label {true} is none of the {len(logits)} classes")
    except InputError as error:
        tally.failures.append(Failure(source.name, stage, str(error), classifier.name))
        return
    top = int(logits.argmax())
    if request.only_correct:
        if true is None:
            message = "its true class is not known, so --only-correct cannot judge it; give --labels"
            tally.failures.append(Failure(source.name, "label", message, classifier.name))
            return
        if top != true:
            tally.skipped.append(Skipped(source.name, classifier.name, f"top-1 is class {top}, the label is {true}"))
            return
    shown = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    seen = (shown * 255).round().astype(np.uint8)
    targets: list[int] = []
    for word in request.targets:
        if word == "true" and true is None:
            message = "its true class is not known; give --labels"
            tally.failures.append(Failure(source.name, "label", message, classifier.name))
            continue
        index = top if word == "top1" else true if word == "true" else class_of(word, classifier)
        if index is not None and index not in targets:
            targets.append(index)
    for target in targets:
        info = _target_info(classifier, logits, target, true)
        for call in request.calls:
            cell = cell_of(classifier, image.sha256, target, call)
            try:
                raw, notes, passes = _compute(classifier, cell, call, image, pixels, target, store, tally)
            except AttrsensError as error:
                tally.failures.append(
                    Failure(source.name, "compute", str(error), classifier.name, call.expression, target)
                )
                continue
            p = call.parameters
            heatmap = np.asarray(finish(raw, str(p["sign"]), str(p["reduce"])), np.float32)
            record = Record(
                key=cell.key,
                image=ImageInfo(source.name, image.sha256, image.size, list(image.notes)),
                input=InputInfo(),
                model=ModelInfo(classifier.name, classifier.id),
                target=info,
                method=MethodInfo(call.name, call.version, dict(p), call.expression, _wrappers(call)),
                heatmap=describe(heatmap),
                passes=passes,
                notes=notes,
            )
            yield record, Attribution(heatmap, target, info.label, info.probability, notes, seen)


def _predict(
    classifier: Classifier, image: Image, pixels: NDArray[np.float32], store: Store | None, tally: Tally
) -> NDArray[np.float32]:
    """The logits of one image, (classes,). One image a pass, so that they do not depend on what else runs."""
    import torch

    key = cell_of(classifier, image.sha256).key
    entry = store.get(key) if store else None
    if entry:
        return entry.arrays["logits"]
    view = classifier.view()
    logits = view.logits(view.encode(torch.from_numpy(pixels))[None])[0].cpu().numpy()
    tally.passes.forward += view.passes.forward
    if store:
        store.put(key, {"logits": logits}, {"model": classifier.name, "image": image.name, "method": None})
    return logits


def _compute(
    classifier: Classifier,
    cell: Cell,
    call: Call,
    image: Image,
    pixels: NDArray[np.float32],
    target: int,
    store: Store | None,
    tally: Tally,
) -> tuple[NDArray[np.float32], dict[str, float | None], PassInfo]:
    """The raw map with notes and cost, from the store or by running the method."""
    import torch

    key = cell.raw().key
    entry = store.get(key) if store else None
    if entry:
        tally.cached_cells += 1
        return entry.arrays["map"], entry.data["notes"], PassInfo(**entry.data["passes"])
    result = explainer(classifier, call, target, image.sha256).raw(torch.from_numpy(pixels))
    raw = result.map.detach().float().cpu().contiguous().numpy()
    passes = PassInfo(result.passes.forward, result.passes.backward)
    tally.passes.forward += passes.forward
    tally.passes.backward += passes.backward
    if store:
        data: dict[str, Any] = {"notes": result.notes, "passes": asdict(passes), "model": classifier.name}
        data |= {"image": image.name, "method": call.raw().expression, "target": target}
        store.put(key, {"map": raw}, data)
    return raw, result.notes, passes


def _target_info(classifier: Classifier, logits: NDArray[np.float32], target: int, true: int | None) -> TargetInfo:
    wide = logits.astype(np.float64)
    share = np.exp(wide - wide.max())
    probability = float(share[target] / share.sum())
    label = classifier.classes[target] if classifier.classes else None
    return TargetInfo(target, label, probability, int((logits > logits[target]).sum()) + 1, true)


def _wrappers(call: Call) -> list[WrapperInfo]:
    return [WrapperInfo(w.name, w.version, dict(w.parameters)) for w in call.wrappers]


def describe(heatmap: NDArray[np.float32]) -> HeatmapInfo:
    """Shape, extremes, mean and sketch of a map; the files are the writer's to name."""
    text, scale = sketch(heatmap)
    wide = flat(heatmap).astype(np.float64)
    return HeatmapInfo(
        png=None,
        npy=None,
        shape=list(heatmap.shape),
        min=float(heatmap.min()),
        max=float(heatmap.max()),
        mean=float(wide.mean()),
        sketch=text,
        sketch_scale=scale,
    )


Sink = Callable[[list[Result]], None]

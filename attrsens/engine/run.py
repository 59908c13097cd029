"""Computing: one image at a time, every finished cell kept, a failure of one cell never the end of the others."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
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
from attrsens.explainer import Explainer, Raw, raw_together
from attrsens.heatmaps import Attribution, finish
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


def cell_of(classifier: Classifier, image: str, target: int | None = None, *calls: Call, width: int = 1) -> Cell:
    """The cell of a call on an image; without a call, of the prediction.

    Args:
        width: of the batch that searches and optimisers run in (see `width_of`).
    """
    fixed = len(calls) > 0 and shares(calls[0])
    return Cell(
        model=classifier.id,
        image=image,
        target=target,
        calls=calls,
        precision=classifier.precision,
        fold=classifier.fold,
        device=classifier.device.type,
        torch=torch_version(),
        width=width if fixed else 0,
    )


def shares(call: Call) -> bool:
    """Whether several images advance in one batch of the call."""
    return "together" in METHODS[call.name].traits and not call.wrappers


def width_of(request: Request, classifier: Classifier) -> int:
    """Images in a batch of searches and optimisers: the request's, in the fewest batches that hold them and evenly, so
    that little is filled up. It follows from the request alone: a resumed run computes what an undisturbed one does."""
    count = max(1, len(request.sources) * len(request.targets))
    return math.ceil(count / math.ceil(count / classifier.sizes[1]))


def explainer(classifier: Classifier, call: Call, target: int, image: str = "", dry: bool = False) -> Explainer:
    """A call bound to a classifier and a target."""
    wrappers = tuple((WRAPPERS[w.name], w.parameters) for w in call.wrappers)
    return Explainer(classifier, METHODS[call.name], target, call.parameters, image, dry, wrappers)


@dataclass
class Ready:
    """An image as a classifier sees it, and what is to be explained of it."""

    image: Image
    pixels: NDArray[np.float32]
    logits: NDArray[np.float32]
    targets: list[int]
    true: int | None

    def bound(self, classifier: Classifier, call: Call, target: int) -> Explainer:
        """A call bound to a classifier, a class and this image."""
        zoom = classifier.preprocess.zoom(self.image.size)
        return replace(explainer(classifier, call, target, self.image.sha256), zoom=zoom)


Computed = tuple[NDArray[np.float32], dict[str, float | None], PassInfo]


def run(request: Request, store: Store | None, tally: Tally) -> Iterator[list[Result]]:
    """The results of one image and classifier after another, in order."""
    ahead = 1
    if any(map(shares, request.calls)):
        widest = max((width_of(request, c) for c in request.classifiers), default=1)
        ahead = max(1, widest // max(1, len(request.targets)))
    for start in range(0, len(request.sources), ahead):
        yield from _window(request, request.sources[start : start + ahead], store, tally)


def _window(request: Request, sources: Sequence[Source], store: Store | None, tally: Tally) -> Iterator[list[Result]]:
    """A few images: what can advance together is computed first, then the rest, image by image."""
    images: list[Image | None] = []
    ready: dict[tuple[int, int], Ready] = {}
    done: dict[str, Computed] = {}
    for source in sources:
        try:
            images.append(source.load())
        except InputError as error:
            tally.failures.append(Failure(source.name, "decode", str(error)))
            images.append(None)
    stopped = False
    try:
        for j, classifier in enumerate(request.classifiers):
            for i, (source, image) in enumerate(zip(sources, images, strict=True)):
                found = _look(request, source, image, classifier, store, tally) if image else None
                if found:
                    ready[i, j] = found
            waiting = [found for (_, k), found in sorted(ready.items()) if k == j]
            _advance(request, classifier, waiting, store, tally, done)
    except KeyboardInterrupt:
        stopped = True  # what is finished is still handed out
    for i, source in enumerate(sources):
        for j, classifier in enumerate(request.classifiers):
            part: list[Result] = []
            try:
                if (i, j) in ready:
                    for result in _explain_one(request, source, ready[i, j], classifier, store, tally, done, stopped):
                        part.append(result)
            except KeyboardInterrupt:
                yield part  # what is finished of this image
                raise
            yield part
    if stopped:
        raise KeyboardInterrupt


def _look(
    request: Request, source: Source, image: Image, classifier: Classifier, store: Store | None, tally: Tally
) -> Ready | None:
    """The pixels, the prediction and the classes to explain; None where one of them fails or the image is left out."""
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


def _advance(
    request: Request,
    classifier: Classifier,
    waiting: Sequence[Ready],
    store: Store | None,
    tally: Tally,
    done: dict[str, Computed],
) -> None:
    """Adds to `done` the cells of searches and optimisers that the store lacks, several images of one size a batch."""
    import torch

    width = width_of(request, classifier)
    for call in filter(shares, request.calls):
        groups: dict[tuple[int, ...], list[tuple[Cell, Ready, int]]] = {}
        for found in waiting:
            for target in found.targets:
                cell = cell_of(classifier, found.image.sha256, target, call, width=width).raw()
                if not (store and cell.key in store):
                    groups.setdefault(found.pixels.shape, []).append((cell, found, target))
        batches = [g[at : at + width] for g in groups.values() for at in range(0, len(g), width)]
        for batch in batches:
            explainers = [found.bound(classifier, call, target) for _, found, target in batch]
            pixels = [torch.from_numpy(found.pixels) for _, found, _ in batch]
            try:
                raws, made = raw_together(explainers, pixels, width)
            except AttrsensError:
                continue  # each will say for itself what is wrong with it
            tally.passes.forward += made.forward
            tally.passes.backward += made.backward
            for (cell, found, target), raw in zip(batch, raws, strict=True):
                done[cell.key] = _kept(cell.key, raw, call, classifier, found.image, target, store)


def _explain_one(
    request: Request,
    source: Source,
    found: Ready,
    classifier: Classifier,
    store: Store | None,
    tally: Tally,
    done: dict[str, Computed],
    stopped: bool,
) -> Iterator[Result]:
    image, pixels = found.image, found.pixels
    shown = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    seen = (shown * 255).round().astype(np.uint8)
    width = width_of(request, classifier)
    for target in found.targets:
        info = _target_info(classifier, found.logits, target, found.true)
        for call in request.calls:
            cell = cell_of(classifier, image.sha256, target, call, width=width)
            key = cell.raw().key
            if stopped and key not in done and not (store and key in store):
                continue
            try:
                computed = done.get(key)
                raw, notes, passes = computed or _compute(classifier, cell, call, found, target, store, tally)
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
                heatmap=HeatmapInfo.of(heatmap),
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
    classifier: Classifier, cell: Cell, call: Call, found: Ready, target: int, store: Store | None, tally: Tally
) -> Computed:
    """The raw map with notes and cost, from the store or by running the method."""
    import torch

    key = cell.raw().key
    entry = store.get(key) if store else None
    if entry:
        tally.cached_cells += 1
        return entry.arrays["map"], entry.data["notes"], PassInfo(**entry.data["passes"])
    bound, pixels = found.bound(classifier, call, target), torch.from_numpy(found.pixels)
    if shares(call):
        (raw,), made = raw_together([bound], [pixels], cell.width)
    else:
        raw = bound.raw(pixels)
        made = raw.passes
    tally.passes.forward += made.forward
    tally.passes.backward += made.backward
    return _kept(key, raw, call, classifier, found.image, target, store)


def _kept(
    key: str, raw: Raw, call: Call, classifier: Classifier, image: Image, target: int, store: Store | None
) -> Computed:
    """A result as an array, committed to the store."""
    heatmap = raw.map.detach().float().cpu().contiguous().numpy()
    passes = PassInfo(raw.passes.forward, raw.passes.backward)
    if store:
        data: dict[str, Any] = {"notes": raw.notes, "passes": asdict(passes), "model": classifier.name}
        data |= {"image": image.name, "method": call.raw().expression, "target": target}
        store.put(key, {"map": heatmap}, data)
    return heatmap, raw.notes, passes


def _target_info(classifier: Classifier, logits: NDArray[np.float32], target: int, true: int | None) -> TargetInfo:
    wide = logits.astype(np.float64)
    share = np.exp(wide - wide.max())
    probability = float(share[target] / share.sum())
    label = classifier.classes[target] if classifier.classes else None
    return TargetInfo(target, label, probability, int((logits > logits[target]).sum()) + 1, true)


def _wrappers(call: Call) -> list[WrapperInfo]:
    return [WrapperInfo(w.name, w.version, dict(w.parameters)) for w in call.wrappers]


Sink = Callable[[list[Result]], None]

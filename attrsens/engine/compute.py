"""Computing one cell: a prediction or a map, from the store or by running it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.cell import Call, Cell, torch_version
from attrsens.engine.report import Failure, InputInfo, PassInfo, Skipped
from attrsens.engine.store import Store
from attrsens.explainer import Explainer, Raw, raw_together
from attrsens.images import Image
from attrsens.spec import METHODS, WRAPPERS

if TYPE_CHECKING:
    from attrsens.models.classifier import Classifier


Marks = dict[str, Any]  # fields of a cell


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


def explainer(classifier: Classifier, call: Call, target: int, image: str = "", dry: bool = False) -> Explainer:
    """A call bound to a classifier and a target."""
    wrappers = tuple((WRAPPERS[w.name], w.parameters) for w in call.wrappers)
    return Explainer(classifier, METHODS[call.name], target, call.parameters, image, dry, wrappers)


@dataclass
class Ready:
    """An image as a classifier sees it, and what is to be explained of it.

    Attributes:
        pixels, logits: of the input as it is explained, changed or not.
        change: what was done to the input, `marks` what of that joins the keys, `before` the logits without it.
    """

    image: Image
    pixels: NDArray[np.float32]
    logits: NDArray[np.float32]
    targets: list[int]
    true: int | None
    change: InputInfo = field(default_factory=InputInfo)
    marks: Marks = field(default_factory=dict)
    before: NDArray[np.float32] | None = None

    @property
    def clean(self) -> NDArray[np.float32]:
        """The logits of the input as it was."""
        return self.logits if self.before is None else self.before

    def cell(self, classifier: Classifier, target: int | None, *calls: Call, width: int = 1) -> Cell:
        """The cell of a call on this input."""
        return replace(cell_of(classifier, self.image.sha256, target, *calls, width=width), **self.marks)

    def bound(self, classifier: Classifier, call: Call, target: int) -> Explainer:
        """A call bound to a classifier, a class and this image."""
        zoom = classifier.preprocess.zoom(self.image.size)
        return replace(explainer(classifier, call, target, self.image.sha256), zoom=zoom)


Computed = tuple[NDArray[np.float32], dict[str, float | None], PassInfo]


def predict(
    classifier: Classifier,
    image: Image,
    pixels: NDArray[np.float32],
    store: Store | None,
    tally: Tally,
    marks: Marks | None = None,
) -> NDArray[np.float32]:
    """The logits of one image, (classes,). One image a pass, so that they do not depend on what else runs."""
    import torch

    key = replace(cell_of(classifier, image.sha256), **(marks or {})).key
    entry = store.get(key) if store else None
    if entry:
        return entry.arrays["logits"]
    view = classifier.view()
    logits = view.logits(view.encode(torch.from_numpy(pixels))[None])[0].cpu().numpy()
    tally.passes.forward += view.passes.forward
    if store:
        store.put(key, {"logits": logits}, {"model": classifier.name, "image": image.name, "method": None})
    return logits


def compute(
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
        ((raw,),), made = raw_together([([bound], pixels)], cell.width)
    else:
        raw = bound.raw(pixels)
        made = raw.passes
    tally.passes.forward += made.forward
    tally.passes.backward += made.backward
    return kept(key, raw, call, classifier, found.image, target, store)


def kept(
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

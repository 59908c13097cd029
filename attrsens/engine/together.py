"""What is computed in company: settings of a method that share a run, and images that advance in one batch."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from attrsens.engine.cell import Call, Cell, over_names, over_values, run_key
from attrsens.engine.compute import Computed, Ready, Tally, kept, shares
from attrsens.engine.inputs import Source, Truth
from attrsens.engine.store import Store
from attrsens.errors import AttrsensError
from attrsens.explainer import Explainer, Raw, raw_across, raw_together

if TYPE_CHECKING:
    from attrsens.engine.changes import Change
    from attrsens.models.classifier import Classifier

log = logging.getLogger("attrsens")

T = TypeVar("T")
Sample = Callable[["Classifier", Source, Ready, int, dict[str, Computed]], Sequence[Call]]


@dataclass(frozen=True)
class Request:
    """What is to be explained: every source x classifier x input x target x call.

    Attributes:
        changes: of the input, besides the input as it is.
        one_class: `top1` is that of the first classifier, for all of them.
        sample: gives the calls of an image and class instead, where they depend on what comes of them.
    """

    sources: Sequence[Source]
    classifiers: Sequence[Classifier]
    targets: Sequence[str]
    calls: Sequence[Call]
    truth: Truth
    only_correct: bool = False
    changes: Sequence[Change] = ()
    one_class: bool = False
    sample: Sample | None = None

    @property
    def views(self) -> list[tuple[Classifier, Change | None]]:
        """How every image is looked at: by each classifier, as it is and under every change."""
        return [(classifier, change) for classifier in self.classifiers for change in (None, *self.changes)]

    def settings_of(self, call: Call) -> int:
        """How many settings of the request stand beside each other in a batch of a search or an optimiser."""
        return len(self._settings.get(run_key(call, beside=True), ())) if shares(call) else 1

    @cached_property
    def _settings(self) -> dict[str | None, set[str | None]]:
        out: dict[str | None, set[str | None]] = {}
        for call in filter(shares, self.calls):
            out.setdefault(run_key(call, beside=True), set()).add(run_key(call))
        return out


def width_of(request: Request, classifier: Classifier, call: Call) -> int:
    """Rows in a batch of a search or an optimiser: those of the request, an image, class and setting each, in the
    fewest batches that hold them and evenly, so that little is filled up. It follows from the request alone: a resumed
    run computes what an undisturbed one does."""
    count = max(1, len(request.sources) * len(request.targets) * request.settings_of(call))
    return math.ceil(count / math.ceil(count / classifier.sizes[1]))


def ahead_of(request: Request) -> int:
    """How many images are looked at together, so that searches and optimisers fill their batches."""
    ahead = 1
    for call in filter(shares, request.calls):
        widest = max((width_of(request, c, call) for c in request.classifiers), default=1)
        ahead = max(ahead, widest // max(1, len(request.targets) * request.settings_of(call)))
    return ahead


def advance(
    request: Request,
    classifier: Classifier,
    waiting: Sequence[Ready],
    store: Store | None,
    tally: Tally,
    done: dict[str, Computed],
) -> None:
    """Adds to `done` the cells of searches and optimisers that the store lacks, several images of one size a batch."""
    import torch

    for calls in _groups(request.calls).values():
        width = width_of(request, classifier, calls[0])
        rows: dict[tuple[int, ...], list[list[Asked]]] = {}
        for found in waiting:
            for target in found.targets:
                slots: dict[Hashable, list[Asked]] = {}
                for call in sorted(calls, key=over_values):
                    cell = found.cell(classifier, target, call, width=width).raw()
                    slots.setdefault(run_key(call), []).append(Asked(cell, call, found, target))
                lacking = [slot for slot in slots.values() if not all(store and store.holds(a.cell.key) for a in slot)]
                rows.setdefault(found.pixels.shape, []).extend(lacking)
        batches = [g[at : at + width] for g in rows.values() for at in range(0, len(g), width)]
        for batch in batches:
            asked = [([a.bound(classifier) for a in slot], torch.from_numpy(slot[0].found.pixels)) for slot in batch]
            try:
                raws, made = raw_together(asked, width)
            except Exception as error:
                _alone(error)
                continue
            tally.passes.forward += made.forward
            tally.passes.backward += made.backward
            for slot, results in zip(batch, raws, strict=True):
                for one, raw in zip(slot, results, strict=True):
                    one.keep(raw, classifier, store, done)


@dataclass(frozen=True)
class Asked:
    """A cell that is computed in company."""

    cell: Cell
    call: Call
    found: Ready
    target: int

    def bound(self, classifier: Classifier) -> Explainer:
        return self.found.bound(classifier, self.call, self.target)

    def keep(self, raw: Raw, classifier: Classifier, store: Store | None, done: dict[str, Computed]) -> None:
        """The result, unless the store has one: then that is the one that counts."""
        if not (store and self.cell.key in store):
            image = self.found.image
            done[self.cell.key] = kept(self.cell.key, raw, self.call, classifier, image, self.target, store)


def _groups(calls: Sequence[Call]) -> dict[Hashable, list[Call]]:
    """Calls of searches and optimisers by what may stand in one batch."""
    groups: dict[Hashable, list[Call]] = {}
    for call in filter(shares, calls):
        groups.setdefault(run_key(call, beside=True), []).append(call)
    return groups


def runs_of(calls: Sequence[Call], targets: Sequence[T]) -> list[list[tuple[Call, T]]]:
    """The calls of an image, by class, grouped by the run that they share, each in the order in which its settings
    come; alone, those that share none."""
    groups: dict[Hashable, list[tuple[Call, T]]] = {}
    for target in targets:
        for call in calls:
            key = run_key(call)
            free = "target" in over_names(call) and not call.wrappers
            place = (call.expression, target) if key is None else (key, None if free else target)
            groups.setdefault(place, []).append((call, target))
    return [sorted(group, key=lambda pair: over_values(pair[0])) for group in groups.values()]


def share(
    request: Request,
    found: Ready,
    classifier: Classifier,
    store: Store | None,
    tally: Tally,
    done: dict[str, Computed],
) -> None:
    """Adds to `done` the cells of one image that share a run with others, where any of them lacks."""
    import torch

    for run in runs_of(request.calls, found.targets):
        if shares(run[0][0]):
            continue
        asked = [Asked(found.cell(classifier, target, call).raw(), call, found, target) for call, target in run]
        if len(asked) < 2 or (store and all(store.holds(a.cell.key) for a in asked)):
            continue
        try:
            results = raw_across([a.bound(classifier) for a in asked], torch.from_numpy(found.pixels))
            for one, (raw, made) in zip(asked, results, strict=True):
                tally.passes.forward += made.forward
                tally.passes.backward += made.backward
                one.keep(raw, classifier, store, done)
        except Exception as error:
            _alone(error)


def _alone(error: Exception) -> None:
    """After a failure in company what is not finished is computed by itself, and will say what is wrong with it."""
    if not isinstance(error, AttrsensError):
        log.debug("what shares a run is computed one by one", exc_info=error)

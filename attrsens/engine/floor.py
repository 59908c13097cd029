"""How far maps and predictions move when nothing that matters changes: other seeds, threads, folding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from attrsens.engine.compute import Tally
from attrsens.engine.controls import reseeded, seeded
from attrsens.engine.drift import Entry, Row, map_rows, match, prediction_rows
from attrsens.engine.report import Record
from attrsens.engine.run import Request, run
from attrsens.engine.store import Store
from attrsens.errors import AttrsensError

if TYPE_CHECKING:
    from attrsens.models.classifier import Classifier

IMAGES = 8  # that are computed again
SEEDS = 2  # other ones
QUANTILE = 0.95


@dataclass(frozen=True)
class Floor:
    """What one change that should not matter did to one quantity (see `drift.DEFINITIONS`).

    Attributes:
        method: the expression; None for predictions.
        change: seed, threads, folding or layout; `detail` says from what to what.
        value: the 95 % quantile over images and repeats, the largest of fewer than twenty; the mean of top1.
        n: numbers it was taken from.
    """

    model: str
    method: str | None
    quantity: str
    change: str
    detail: str
    value: float
    n: int


def noise_floor(
    request: Request, records: Sequence[Record], store: Store | None = None, tally: Tally | None = None
) -> list[Floor]:
    """Compute up to eight of the images again: methods that draw with the next two seeds, everything with another
    number of threads (on a CPU) and with BatchNorm folded or not, as the run did not have it; and take the distances
    to the maps and predictions of the run. A network that was handed over folded cannot be unfolded; then its memory
    layout is changed.

    Of inputs that were changed (noise, an erased object) nothing is measured: they share the floor of the others.

    Args:
        request: what was run; records: what it gave.
        store: keeps the repeats, so that another run need not make them. tally: counts their passes.
    """
    count = len(request.sources)
    places = sorted({round(i) for i in np.linspace(0, count - 1, min(count, IMAGES))})
    few = replace(request, sources=[request.sources[i] for i in places], changes=())
    mine = [Entry.of(r) for r in records if not r.input.noise and r.input.erased is None]
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for changes, repeat in _repeats(few, store, tally or Tally()):
        entries = repeat()
        rows = map_rows(match(mine, entries)) + prediction_rows(mine, entries)
        for row in rows:
            change, detail = changes[row.group["model"]]
            if change != "seed" or "expression" in row.group:
                groups.setdefault((row.group["model"], change, detail), []).append(row)
    return [found for whose, rows in groups.items() for found in _summary(*whose, rows)]


def _summary(model: str, change: str, detail: str, rows: Sequence[Row]) -> Iterator[Floor]:
    values: dict[tuple[str | None, str], list[float]] = {}
    for row in rows:
        values.setdefault((row.group.get("expression"), row.quantity), []).extend(row.values)
    for (method, quantity), found in values.items():
        high = np.mean(found) if quantity == "top1" else np.quantile(found, QUANTILE, method="higher")
        yield Floor(model, method, quantity, change, detail, float(high), len(found))


Changes = dict[str, tuple[str, str]]  # by model: what was changed, from what to what


def _repeats(
    request: Request, store: Store | None, tally: Tally
) -> Iterator[tuple[Changes, Callable[[], list[Entry]]]]:
    """What is changed, and what computes it; all models at once, since they may share the first one's class."""
    import torch

    classifiers, drawing = request.classifiers, [c for c in request.calls if seeded(c)]
    calls = drawing
    for _ in range(SEEDS if drawing else 0):
        calls = [reseeded(c) for c in calls]
        names = {new.expression: old.expression for new, old in zip(calls, drawing, strict=True)}
        another = replace(request, calls=calls)
        yield (
            {c.name: ("seed", f"{SEEDS} other seeds") for c in classifiers},
            partial(_entries, another, store, tally, names),
        )
    if classifiers[0].device.type == "cpu":
        usual = torch.get_num_threads()
        other = 1 if usual > 1 else 2

        def threaded() -> list[Entry]:
            twins = [c.view() for c in classifiers]
            for twin in twins:
                twin.id = f"{twin.id}, threads {other}"  # results of its own in the store
            with threads(other):
                return _entries(replace(request, classifiers=twins), store, tally)

        yield {c.name: ("threads", f"{other} instead of {usual}") for c in classifiers}, threaded
    found = {c.name: refolded(c) for c in classifiers}

    def changed() -> list[Entry]:
        return _entries(replace(request, classifiers=[make() for _, _, make in found.values()]), store, tally)

    yield {name: (change, detail) for name, (change, detail, _) in found.items()}, changed


def _entries(
    request: Request, store: Store | None, tally: Tally, names: Mapping[str, str] = MappingProxyType({})
) -> list[Entry]:
    """The repeat's entries; an expression in `names` counts as the one it stands for."""
    out = []
    own = Tally()
    for part in run(request, store, own):
        for record, _ in part:
            entry = Entry.of(record)
            expression = names.get(entry.method.expression, entry.method.expression)
            out.append(replace(entry, method=replace(entry.method, expression=expression)))
    tally.passes.forward += own.passes.forward
    tally.passes.backward += own.passes.backward
    return out


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch's threads within a block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def refolded(classifier: Classifier) -> tuple[str, str, Callable[[], Classifier]]:
    """The same network in the numerics it did not run in: (change, detail, what makes it)."""
    import torch

    from attrsens.models.classifier import Classifier
    from attrsens.models.failures import copied

    f = classifier

    def copy(fold: bool, name: str) -> Classifier:
        p = f.preprocess
        twin = Classifier(
            copied(f.network, f.name), p.mean, p.std, resize=p.resize, crop=p.crop, interp=p.interp, squash=p.squash,
            clamp=p.clamp, classes=f.classes, name=f.name, id=name, device=str(f.device), precision=f.precision,
            fold=fold, batch=f.asked_batch, copy_module=False,
        )  # fmt: skip
        twin.wnids = f.wnids
        return twin

    if not f.fold:
        return "folding", "BatchNorm folded instead of not", lambda: copy(True, f.id)
    if f.reload is None:

        def plain() -> Classifier:
            side = f.preprocess.crop or f.preprocess.resize or 224
            f.settle(torch.full((f.preprocess.channels, side, side), 0.5))
            return copy(False, f"{f.id}, plain")

        return "layout", "plain memory order instead of the fast one", plain

    def unfolded() -> Classifier:
        found: Classifier = f.reload(fold=False)  # type: ignore[misc]
        if found.id != f.id:
            raise AttrsensError(f"model {f.name}: its weights have changed during the run")
        return found

    return "folding", "as with --no-fold: BatchNorm not folded, plain memory order", unfolded

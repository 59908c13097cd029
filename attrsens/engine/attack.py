"""Attacking the maps of a run: several images in a batch, every finished attack kept, the claim measured afresh."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.attack_noise import noisy_images
from attrsens.engine.cell import Call, Cell
from attrsens.engine.claims import Measured, record_of, side_by_side
from attrsens.engine.compute import Ready, Tally
from attrsens.engine.inputs import Source
from attrsens.engine.metrics import Judging
from attrsens.engine.report import Failure, PassInfo
from attrsens.engine.run import Found, Result, _failed
from attrsens.engine.store import Store
from attrsens.engine.targets import Goal, following, goal_of
from attrsens.errors import AttrsensError, InputError
from attrsens.spec import ATTACKS

if TYPE_CHECKING:
    from attrsens.attacks._case import Case, Outcome
    from attrsens.engine.prepare import Prepared
    from attrsens.models.classifier import Classifier
    from attrsens.models.perceptual import Lpips


def explains(call: Call) -> bool:
    """Whether an attack is on maps; a boundary search is on the image alone."""
    return bool(ATTACKS[call.name].traits.get("maps", True))


@dataclass
class Look:
    """The maps of one image and classifier, to be attacked."""

    classifier: Classifier
    source: Source
    ready: Ready
    part: Sequence[Found]


@dataclass
class Row:
    """One attack on one map, `lpips` of its image."""

    look: Look
    found: Found
    call: Call
    goal: Goal | None
    cell: Cell
    measured: Measured | None = None
    lpips: float | None = None

    @property
    def key(self) -> str:
        return self.cell.key


@dataclass
class Attacker:
    """A judge that attacks the maps it is handed, several images at a time.

    Attributes:
        calls: the attacks, on maps of `methods`.
        sources: all images of the run, for goals.
        targets: classes an image.
        lpips: measures how different an attacked image looks; None where that cannot be.
    """

    calls: Sequence[Call]
    methods: Sequence[Call]
    judging: Judging
    sources: Sequence[Source]
    targets: int
    store: Store | None
    tally: Tally
    lpips: Lpips | None = None
    _latest: Look | None = None
    _held: list[tuple[list[Result], Look | None]] = field(default_factory=list)

    @classmethod
    def around(cls, prepared: Prepared, tally: Tally) -> Attacker:
        """Of a request."""
        request = prepared.request
        assert prepared.judging
        data = request.sources, len(request.targets), prepared.store, tally
        return cls(prepared.attacks, request.calls, prepared.judging, *data, prepared.lpips)

    def __call__(self, classifier: Classifier, source: Source, ready: Ready, part: Sequence[Found]) -> None:
        self._latest = Look(classifier, source, ready, list(part))

    def width(self, classifier: Classifier, method: Call, call: Call) -> int:
        """Images in a batch, from the request alone: evenly in the fewest batches that hold them."""
        from attrsens.attacks._case import batched
        from attrsens.engine.compute import explainer

        traits = ATTACKS[call.name].traits
        if not traits.get("rows") and not (traits.get("differentiable") and batched(explainer(classifier, method, 0))):
            return 1
        count = max(1, len(self.sources) * self.targets)
        return math.ceil(count / math.ceil(count / classifier.sizes[1]))

    def cell(self, classifier: Classifier, method: Call, call: Call, clean: Cell, goal: Goal | None) -> Cell:
        """Of an attack on a map, from that of the image and its class."""
        extra = [Call("target", goal.mark, 1, {})] if goal else []
        calls = (method.raw(), call, *extra) if explains(call) else (call,)
        target = clean.target if explains(call) else None
        return replace(clean, target=target, calls=calls, width=self.width(classifier, method, call))

    def grouped(self, parts: Iterator[list[Result]], classifiers: Sequence[Classifier]) -> Iterator[list[Result]]:
        """The results of each image and classifier, followed by its attacked maps."""
        widths = [self.width(c, method, call) for c in classifiers for method in self.methods for call in self.calls]
        ahead = len(classifiers) * max(1, max(widths, default=1) // max(1, self.targets))
        try:
            for part in parts:
                self._held.append((part, self._latest))
                self._latest = None
                if len(self._held) >= ahead:
                    yield from self._settled()
            yield from self._settled()
        except KeyboardInterrupt:
            yield from (part for part, _ in self._held)
            self._held = []
            raise

    def _settled(self) -> Iterator[list[Result]]:
        """What is held, with its attacks; on Ctrl-C with those that were finished."""
        looks = [look for _, look in self._held if look]
        rows: dict[int, list[Row]] = {}
        stopped: KeyboardInterrupt | None = None
        try:
            for row in self._attack(looks):
                rows.setdefault(id(row.found), []).append(row)
        except KeyboardInterrupt as error:
            stopped = error
        held, self._held = self._held, []
        for part, look in held:
            if look is None:
                yield part
                continue
            out: list[Result] = []
            if not all(explains(call) for call in self.calls):
                side_by_side(look.part, self.judging)
            for found in look.part:
                out += [found.result] if found.result else []
                order = {call.expression: i for i, call in enumerate(self.calls)}
                for row in sorted(rows.get(id(found), []), key=lambda row: order[row.call.expression]):
                    row.lpips = self._lpips(row)
                    out += record_of(row, self.judging, self.lpips)
            yield out
        if stopped:
            raise stopped

    def _attack(self, looks: Sequence[Look]) -> Iterator[Row]:
        """Every attack on every map that is held."""
        for call in self.calls:
            groups: dict[Any, list[Row]] = {}
            for look in looks:
                for found in look.part:
                    row = self._row(look, found, call)
                    if row is None:
                        continue
                    if row.measured:
                        yield row
                    else:
                        method = found.call.expression if explains(call) else None
                        place = look.classifier.id, method, look.ready.pixels.shape
                        groups.setdefault(place, []).append(row)
            for group in groups.values():
                width = self.width(group[0].look.classifier, group[0].found.call, call)
                once = list({row.key: row for row in group}.values())
                for start in range(0, len(once), width):
                    for done in self._batch(once[start : start + width], width):
                        for row in group:
                            if row.key == done.key:
                                row.measured = done.measured
                                yield row

    def _row(self, look: Look, found: Found, call: Call) -> Row | None:
        """What is to be done to a map; with its outcome where the store has it; None where it cannot be done."""
        goal = None
        try:
            if ATTACKS[call.name].traits.get("target"):
                other = following(self.sources, self.sources.index(look.source))
                goal = goal_of(call, found.call, look.classifier, look.ready, other, self.store, self.tally)
        except AttrsensError as error:
            self._fail(look, found, call, error)
            return None
        cell = self.cell(look.classifier, found.call, call, look.ready.cell(look.classifier, found.target), goal)
        row = Row(look, found, call, goal, cell)
        entry = self.store.get(row.key) if self.store else None
        if entry:
            self.tally.cached_cells += 1
            row.measured = Measured.read(entry.arrays, entry.data)
        return row

    def _batch(self, rows: Sequence[Row], width: int) -> Iterator[Row]:
        """Attack maps that share a batch, filled up with copies of the last: a result depends on no neighbour."""
        import torch

        call = rows[0].call
        try:
            cases = [self._case(row) for row in rows]
            full = cases + cases[-1:] * (width - len(cases))
            with torch.no_grad():
                outcomes: list[Outcome] = ATTACKS[call.name].function(full, **call.parameters)
        except Exception as error:
            if len(rows) == 1:
                self._fail(rows[0].look, rows[0].found, call, error)
            for row in rows if len(rows) > 1 else ():  # it may be the fault of one
                yield from self._batch([row], width)
            return
        for row, case, outcome in zip(rows, cases, outcomes, strict=False):
            self.tally.passes.forward += outcome.passes.forward
            self.tally.passes.backward += outcome.passes.backward
            try:
                if outcome.failed:
                    raise InputError(outcome.failed)
                row.measured = self._measure(row, case, outcome)
            except Exception as error:
                self._fail(row.look, row.found, call, error)
                continue
            if self.store:
                arrays, data = row.measured.written()
                about = {"model": row.look.classifier.name, "image": row.look.ready.image.name}
                about |= {"method": row.found.call.raw().expression, "attack": call.expression}
                self.store.put(row.key, arrays, data | about)
            yield row

    def _case(self, row: Row) -> Case:
        import torch

        from attrsens.attacks._case import Case

        look, found = row.look, row.found
        f = look.classifier
        bound = look.ready.bound(f, found.call, found.target)
        pixels = torch.from_numpy(look.ready.pixels).to(f.device)
        logits = torch.from_numpy(look.ready.logits).to(f.device)
        goal = torch.from_numpy(row.goal.shares).to(f.device) if row.goal else None
        return Case(bound, pixels, int(look.ready.logits.argmax()), logits, torch.from_numpy(found.raw), goal)

    def _measure(self, row: Row, case: Case, outcome: Outcome) -> Measured:
        """The attack's image as 8 bits, what the network as it is makes of it, and of noise of the same size."""
        import torch

        f, bound = row.look.classifier, case.explainer
        image = (outcome.image * 255).round().clamp(0, 255).to(torch.uint8)
        maps = explains(row.call)
        clean = case.pixels.cpu()
        change = image.float() / 255 - clean
        size = float(change.norm())
        noises = noisy_images(clean, bound.image, size) if maps and size else []
        view = f.view()
        stack = torch.stack([image.float() / 255, *noises]).to(f.device)
        logits = view.logits(stack).cpu()
        passes = PassInfo(view.passes.forward, 0)
        raws: list[NDArray[np.float32]] = []
        for picture in stack if maps else ():
            raw = bound.raw(picture)
            raws.append(raw.map.detach().float().cpu().contiguous().numpy())
            passes = PassInfo(passes.forward + raw.passes.forward, passes.backward + raw.passes.backward)
        self.tally.passes.forward += passes.forward
        self.tally.passes.backward += passes.backward
        cost = PassInfo(outcome.passes.forward + passes.forward, outcome.passes.backward + passes.backward)
        return Measured(
            image=image.numpy(),
            logits=logits.numpy(),
            raws=np.stack(raws) if raws else None,
            linf=float(change.abs().max()),
            l2=size,
            noise=[float((noise - clean).norm()) for noise in noises],
            sizes=outcome.sizes,
            curve=outcome.curve,
            signal=outcome.signal,
            fading=outcome.fading,
            stages=outcome.stages,
            notes=outcome.notes,
            extras=outcome.extras,
            passes=asdict(cost),
        )

    def _lpips(self, row: Row) -> float | None:
        """Between the attacked image and the clean one, kept apart from the attack; None where it cannot be told."""
        import torch

        if self.lpips is None or row.measured is None or len(row.measured.image) != 3:
            return None
        key = replace(row.cell, calls=(*row.cell.calls, Call("lpips", self.lpips.mark, 1, {}))).key
        entry = self.store.get(key) if self.store else None
        if entry:
            return float(entry.data["lpips"])
        image, clean = torch.from_numpy(row.measured.image).float() / 255, torch.from_numpy(row.look.ready.pixels)
        value = self.lpips(image, clean)
        if self.store:
            self.store.put(key, {}, {"lpips": value, "model": row.look.classifier.name, "method": None})
        return value

    def _fail(self, look: Look, found: Found, call: Call, error: Exception) -> None:
        name, method = look.classifier.name, found.call.expression
        self.tally.failures.append(
            Failure(look.source.name, "attack", f"{call.name}: {_failed(error)}", name, method, found.target)
        )

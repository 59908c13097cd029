"""What `sweep.py` measures: the sweeps, how much work each is, attrsens' side, the peers and the floor."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from _peers import Peer, peers
from _sides import Subject, floor
from _timing import Sample
from _works import SEED, SEGMENTS, SIDE, SPREAD, Work
from torch import Tensor

from attrsens.engine.compute import Tally
from attrsens.engine.plan import plan
from attrsens.engine.prepare_sweep import prepare_sweep
from attrsens.engine.report import PassInfo
from attrsens.engine.run import run
from attrsens.engine.verbs import execute
from attrsens.samples import samples

NAMES = ("sg-n", "mp-steps", "mp-blur", "lime-seed", "lime-n", "sp-patch")
DISCS = 36  # passes that find mp's first disc
PATCHES, BLURS, SEEDS, WIDTHS = (5, 17, 29, 41, 53), (5, 10, 30), (0, 1, 2, 3, 4), (0.125, 0.25, 0.5)
STRIDE = 3  # published of sp


@dataclass(frozen=True)
class Task:
    """One row of the table.

    Attributes:
        text: what is stated in the table.
        method, fixed: the method, and what differs from its defaults in every setting.
        varied: the knobs with their values.
        shared, unshared: passes (forward, backward) of the maps, in one sweep and setting by setting.
        title: the peer's name.
        search: passes of `shared` that are made before an optimiser's first step.
        rows: settings that an optimiser moves at once: no batch can hold more. 0 where draws or places fill any batch.
        loop: passes of a peer's loop that keeps the maps of one run on its way; 0 where none can.
    """

    name: str
    text: str
    method: str
    fixed: dict[str, Any]
    varied: dict[str, Sequence[Any]]
    shared: tuple[int, int]
    unshared: tuple[int, int]
    title: str
    search: int = 0
    rows: int = 0
    loop: int = 0

    @property
    def settings(self) -> list[dict[str, Any]]:
        """The parameters of every setting."""
        points = product(*self.varied.values())
        return [{**self.fixed, **dict(zip(self.varied, point, strict=True))} for point in points]

    @property
    def theirs(self) -> int:
        """Passes forward that a peer needs for all settings, one after another; none of them looks for discs."""
        return self.unshared[0] - self.search * len(self.settings)


def tasks(a: Namespace) -> list[Task]:
    """Every row under the sizes that were asked for."""
    logit, pixel = {"space": "pixel", "output": "logit"}, {"space": "pixel"}
    n, steps, blurred, samples_of = a.sg_n, a.mp_steps, a.mp_blur_steps, a.lime_seed_n
    circle: dict[str, Any] = {**pixel, "init": "circle"}
    places, many = sum(places_of(patch, a.sp_stride) for patch in PATCHES), len(BLURS)
    return [
        Task(
            "sg-n",
            f"sg, n {_told(n)}",
            "sg",
            {**logit, "spread": SPREAD, "seed": SEED},
            {"n": n},
            shared=(max(n), max(n)),
            unshared=(sum(n), sum(n)),
            title="Captum",
        ),
        Task(
            "mp-steps",
            f"mp, steps {_told(steps)}",
            "mp",
            circle,
            {"steps": steps},
            shared=(DISCS + max(steps), max(steps)),
            unshared=(DISCS * len(steps) + sum(steps), sum(steps)),
            title="Fong's loop",
            search=DISCS,
            rows=1,
            loop=max(steps),
        ),
        Task(
            "mp-blur",
            f"mp, blur_radius {_told(BLURS)}, steps {blurred}",
            "mp",
            {**circle, "steps": blurred},
            {"blur_radius": BLURS},
            shared=(DISCS + many * blurred, many * blurred),
            unshared=(many * (DISCS + blurred), many * blurred),
            title="Fong's loop",
            search=DISCS,
            rows=many,
        ),
        Task(
            "lime-seed",
            f"lime, seed {_told(SEEDS)}, n {samples_of}",
            "lime",
            {**pixel, **SEGMENTS, "n": samples_of},
            {"seed": SEEDS},
            shared=(len(SEEDS) * samples_of, 0),
            unshared=(len(SEEDS) * samples_of, 0),
            title="lime_image",
        ),
        Task(
            "lime-n",
            f"lime, n {_told(a.lime_n)} x kernel_width {_told(WIDTHS)}",
            "lime",
            {**pixel, **SEGMENTS, "seed": SEED},
            {"n": a.lime_n, "kernel_width": WIDTHS},
            shared=(max(a.lime_n), 0),
            unshared=(len(WIDTHS) * sum(a.lime_n), 0),
            title="lime_image",
        ),
        Task(
            "sp-patch",
            f"sp, patch_size {_told(PATCHES)}, stride {a.sp_stride}",
            "sp",
            {**logit, "fill": "black", "stride": a.sp_stride},
            {"patch_size": PATCHES},
            shared=(places, 0),
            unshared=(places, 0),
            title="Captum",
        ),
    ]


def _told(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def places_of(patch: int, stride: int) -> int:
    """Passes of sp: one a place, and the clean image."""
    return ((SIDE - patch) // stride + 1) ** 2 + 1


class Ours:
    """attrsens' side: `attrsens.sweep(..., draws="nested", cache=False)` once its model is loaded and the request
    checked; and the maps of that alone."""

    def __init__(self, s: Subject, task: Task) -> None:
        self.task = task
        parameters = ",".join(f"{name}={value}" for name, value in task.fixed.items())
        self.prepared = prepare_sweep(
            next(iter(samples().values())).path,
            model=s.classifier,
            method=f"{task.method}:{parameters}",
            param=list(task.varied),
            values=[",".join(map(str, values)) for values in task.varied.values()],
            draws="nested",
            target=s.target,
            cache=False,
        )

    def check(self) -> None:
        """Hold what a plan and a run count against what the maths needs.

        Raises:
            SystemExit: they differ.
        """
        expected = plan(self.prepared.request, None, self.prepared.judging, timed=False)
        self._expect("--plan", expected.forward - 1, expected.backward, self.task.shared)  # 1: the prediction
        self._expect("--plan, unshared", expected.unshared.forward, expected.unshared.backward, self.task.unshared)
        self.whole()

    def whole(self) -> None:
        """The sweep: prediction, maps, their similarities with floors, rows and effects."""
        report = execute(self.prepared)
        if report.failures or len(report.records) != len(self.task.settings):
            raise SystemExit(f"{self.task.name}: {len(report.records)} maps, failures: {report.failures}")
        self._count(report.provenance.passes_run)

    def maps(self) -> list[Tensor]:
        """The same without similarities and what is made of them: picture, prediction and maps."""
        tally = Tally()
        found = [one for part in run(self.prepared.request, None, tally) for one in part]
        self._count(tally.passes)
        return [torch.from_numpy(attribution.map) for _, attribution in found]

    def _count(self, made: PassInfo) -> None:
        self._expect("a run", made.forward - 1, made.backward, self.task.shared)

    def _expect(self, what: str, forward: int, backward: int, needed: tuple[int, int]) -> None:
        if (forward, backward) != needed:
            raise SystemExit(f"{self.task.name}: {what} counts {forward} forward, {backward} back, not {needed}")


def theirs(s: Subject, task: Task, budget: int) -> tuple[Peer, Peer]:
    """The peer on the first setting, which its batch is searched with; and on as many as take no more than `budget`
    passes together, one after another, whose result is that of the first."""
    chosen: list[Peer] = []
    spent = 0
    for parameters in _runnable(task):
        cost = parameters.get("steps") or parameters.get("n") or places_of(parameters["patch_size"], 24)
        if chosen and spent + cost > budget:
            break
        chosen.append(peers(s, Work(task.method, task.text, parameters, 0, 0))[0])
        spent += cost
    first = chosen[0]

    def each(batch: int) -> Tensor:
        found = [peer.run(batch) for peer in chosen]
        return found[0]

    return first, replace(first, name=task.title, run=each)


def _runnable(task: Task) -> Iterator[dict[str, Any]]:
    """The settings that the peer can be asked for: Captum's patches leave no gaps, which takes the smallest minutes."""
    for parameters in task.settings:
        if parameters.get("patch_size") != min(PATCHES):
            yield parameters


def floors(s: Subject, task: Task, window: float) -> Callable[[], Sample]:
    """The passes that the maths needs with sharing; an optimiser's steps in batches of as many rows as it has."""
    forward, backward = task.shared
    own = (task.rows,) if task.rows else ()
    parts = [floor(s, Work(task.method, "", {}, forward - task.search, backward), window, own)]
    if task.search:
        parts.append(floor(s, Work(task.method, "", {}, task.search, 0), window))

    def part() -> Sample:
        found = [one() for one in parts]
        return Sample(sum(one.seconds for one in found), max(one.foreign for one in found))

    return part

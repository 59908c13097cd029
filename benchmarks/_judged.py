"""What `score.py` measures: the scores, how much work each is, attrsens' side, and what both sides are given."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from _sides import Subject
from _works import SEED, SPREAD, Work
from torch import Tensor

import attrsens
from attrsens.engine.compute import Ready, Tally
from attrsens.engine.judge import Judge
from attrsens.engine.prepare import prepare_score
from attrsens.engine.run import Found, run
from attrsens.engine.together import width_of
from attrsens.samples import samples
from attrsens.seeds import Stream

FLOOR = 1.2  # attrsens / floor at most
RADIUS, SIDES = 0.1, (29, 30)  # of copies, in pixel units; of squares, in pixels
SIMILAR = ("spearman", "hog", "ssim")
NAMES = ("curves", "coarse", "maps", "sensitivity", "sensitivity-sg", "infidelity", "faithfulness", *SIMILAR)


@dataclass(frozen=True)
class Task:
    """One row of the table.

    Attributes:
        text: what is stated in the table.
        methods: whose maps are judged.
        metrics: the scores.
        forward, backward: passes that the maths needs; none for a similarity.
        size: what its peers need to know, too: a step, or how many copies, squares or subsets.
    """

    name: str
    text: str
    methods: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    forward: int = 0
    backward: int = 0
    size: int = 0

    @property
    def work(self) -> Work:
        """Its passes, for the floor."""
        return Work(self.name, self.text, {}, self.forward, self.backward)


def tasks(a: Namespace, shape: tuple[int, ...]) -> list[Task]:
    """Every row under the sizes that were asked for."""
    height, width = shape[-2:]
    both = tuple(f"{name}:step={{}}" for name in ("insertion", "deletion"))
    fine, coarse = ({"metrics": tuple(m.format(step) for m in both), "size": step} for step in (a.step, a.coarse))
    between, few = (-(-height * width // step) - 1 for step in (a.step, a.coarse))  # images
    grad = {"methods": ("grad:space=pixel,output=logit",)}
    sg = f"sg:space=pixel,output=logit,n={a.sg_n},spread={SPREAD}"
    pool, draws = f"max_sensitivity:definition=yeh,radius={RADIUS}", a.sg_copies * a.sg_n
    sides = ",".join(f"side_{end}={side / min(height, width)}" for end, side in zip(("min", "max"), SIDES, strict=True))
    rows = [
        Task("curves", f"insertion + deletion, step {a.step}", **grad, **fine, forward=1 + 2 * between),
        Task("coarse", f"insertion + deletion, step {a.coarse}", **grad, **coarse, forward=1 + 2 * few),
        Task(
            "maps",
            f"insertion + deletion of {a.maps} maps of one image, step {a.coarse}",
            methods=tuple(f"{sg},seed={seed}" for seed in range(a.maps)),
            **coarse,
            forward=1 + 2 * few * a.maps,
        ),
        Task(
            "sensitivity",
            f"max_sensitivity of grad, n={a.n}",
            **grad,
            metrics=(f"{pool},n={a.n}",),
            forward=a.n,
            backward=a.n,
            size=a.n,
        ),
        Task(
            "sensitivity-sg",
            f"max_sensitivity of sg (n={a.sg_n}), n={a.sg_copies}",
            methods=(sg,),
            metrics=(f"{pool},n={a.sg_copies},draws=fresh",),
            forward=draws,
            backward=draws,
            size=a.sg_copies,
        ),
        Task(
            "infidelity",
            f"infidelity, n={a.squares} squares",
            **grad,
            metrics=(f"infidelity:n={a.squares},{sides}",),
            forward=a.squares,
            size=a.squares,
        ),
        Task(
            "faithfulness",
            f"faithfulness, n={a.subsets}",
            **grad,
            metrics=(f"faithfulness:n={a.subsets},perturbation=zero",),
            forward=a.subsets,
            size=a.subsets,
        ),
    ]
    return rows + [Task(name, f"{name}, all pairs of {a.similar} maps") for name in SIMILAR]


@dataclass(frozen=True)
class Made:
    """What came of attrsens' side: the values of the first map, and the passes made."""

    values: list[float]
    forward: int
    backward: int


class Judged:
    """attrsens' side: what `attrsens.score(..., cache=False, calibrate=False)` does with an image whose maps and
    prediction are there. Loading and explaining are done here, before any clock starts."""

    def __init__(self, s: Subject, task: Task) -> None:
        self.task = task
        prepared = prepare_score(
            next(iter(samples().values())).path,
            model=s.classifier,
            method=list(task.methods),
            metrics=list(task.metrics),
            target=s.target,
            cache=False,
            calibrate=False,
        )
        kept: list[tuple[Any, ...]] = []
        for _ in run(prepared.request, None, Tally(), lambda *given: kept.append(given)):
            pass
        self.judging, self.width = prepared.judging, partial(width_of, prepared.request)
        self.classifier, self.source, ready, part = kept[0]
        self.ready: Ready = ready
        self.part: list[Found] = part
        if not torch.equal(torch.from_numpy(ready.pixels), s.pixels):
            raise SystemExit(f"{task.name}: the two sides' pixels differ")

    @cached_property
    def map(self) -> Tensor:
        """What the peers judge, (C, H, W), signed."""
        return torch.from_numpy(self.part[0].raw)

    def __call__(self) -> Made:
        """Every map, all together."""
        return self._judge(self.part)

    def apart(self) -> list[float]:
        """One map after another: the values of the first."""
        every = [self._judge([found]).values for found in self.part]
        return every[0]

    def _judge(self, part: list[Found]) -> Made:
        assert self.judging
        tally = Tally()
        judge = Judge(self.judging, self.width, None, tally)
        judge(self.classifier, self.source, self.ready, part)
        assert part[0].result
        scores = part[0].result[0].scores.values()
        lacking = [score.reason for score in scores if score.value is None]
        if lacking:
            raise SystemExit(f"{self.task.name}: {lacking}")
        return Made([float(score.value or 0) for score in scores], tally.passes.forward, tally.passes.backward)


def similar_maps(s: Subject, count: int) -> Tensor:
    """(count, H, W): gradients of noisy copies of the picture, scaled to a largest magnitude of 1."""
    spec = attrsens.METHODS["grad"]
    explain = attrsens.Explainer(s.classifier, spec, s.target, spec.complete({"space": "pixel"}), s.hashes[0])
    stream = Stream(SEED, s.hashes[0], "benchmark")
    draws = (torch.from_numpy(stream.normal([i], tuple(s.pixels.shape))[0]) for i in range(count))
    maps = torch.stack([explain(s.pixels + 0.1 * draw) for draw in draws]).float()
    return maps / maps.abs().amax((1, 2), keepdim=True)


def all_pairs(name: str, maps: Tensor) -> Callable[[], Tensor]:
    """attrsens' similarity of every map with every other, (count, count)."""
    spec = attrsens.SIMILARITIES[name]
    own = {h.name: h.default for h in spec.own()}
    numbers = maps.numpy()
    return lambda: torch.as_tensor(spec.function(numbers, numbers, **own))


def known(task: Task) -> bool:
    """Whether this attrsens has what the row measures."""
    return task.name not in SIMILAR or task.name in attrsens.SIMILARITIES

"""The one optimiser behind the attacks that follow gradients: Adam on the parameters of perturbations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attrsens.attacks._case import Case, Outcome, eight_bit, maps_with_graph, spent, split
from attrsens.attacks._perturbations import Family, families, perturbed, projected
from attrsens.models.batches import Passes
from attrsens.seeds import Stream

Objective = Callable[[Tensor], Tensor]  # shares (B, H, W), times H W so that their mean is 1 -> (B,), to be made small
GENTLE = 0.04  # of a random start, for flows and colours: drawn entry by entry they are rough, and tear the image


@dataclass(frozen=True)
class Settings:
    """How far and how long. Bounds are in the units of `_perturbations`; weights are of the terms of SMO's equation 1,
    where maps have mean 1 and the prediction's term is a sum over classes."""

    perturbation: str
    eps: float
    flow_eps: float
    colour_eps: float
    steps: int
    learning_rate: float
    decay: float
    map_weight: float
    prediction_weight: float
    regulariser: float
    beta: float
    restarts: int
    start: float
    seed: int


@dataclass
class _Best:
    """The best iterate of every image: least objective among those that keep the prediction."""

    image: Tensor
    value: Tensor
    params: list[Tensor]
    found: Tensor

    def take(self, better: Tensor, image: Tensor, value: Tensor, params: Sequence[Tensor]) -> None:
        where = better.nonzero()[:, 0]
        self.image[where], self.value[where] = image[where], value[where]
        for own, new in zip(self.params, params, strict=True):
            own[where] = new[where]
        self.found |= better


@dataclass
class _Run:
    """What a restart met at every step, each (B,): the objective, and whether the class stays. `begins`: the iterate
    from which it follows the slope."""

    values: list[Tensor]
    kept: list[Tensor]
    begins: int = 0

    def course(self, i: int) -> tuple[list[float], list[float]]:
        """Of an image the objective by step, and the same where steps that lose the class count for nothing."""
        values = [float(value[i]) for value in self.values]
        return values, [v if bool(kept[i]) else math.inf for v, kept in zip(values, self.kept, strict=True)]


def optimise(cases: Sequence[Case], objective: Objective, s: Settings) -> list[Outcome]:
    """Perturbations that make an objective of the maps small while the prediction stays.

    Minimises map_weight * objective + prediction_weight * ||p(x') - p(x)||^2 + regulariser * smoothness, each image for
    itself: terms are summed over the images of a batch, never averaged, and Adam works entry by entry. Parameters are
    drawn back into their bounds after every step. The prediction's term and the check that the class stays are of the
    network as it is (ReLUs and all) on the image in 8 bits (within eps, where delta is alone), whose gradient passes
    the rounding unchanged; the map's term is of the network smoothed by `beta`. Every run has the clean image as its
    iterate 0; one with a random start goes there by its first step. Of all iterates and restarts the one with the least
    objective is returned, in 8 bits, among those that keep the class; where none does, the clean image. An image where
    a gradient is not finite has failed and stands still, while its neighbours go on.

    Args:
        cases: of one classifier, method and image size.
    """
    steps = s.steps + 1
    if cases[0].dry:
        return [_dry(case, s, steps) for case in cases]
    images = torch.stack([case.pixels for case in cases])
    bounds = [torch.full((len(cases),), value).to(images) for value in (s.eps, s.flow_eps, s.colour_eps)]
    moves = families(s.perturbation, images, *bounds)
    best = _Best(images.clone(), images.new_full((len(cases),), torch.inf), [], images.new_zeros(len(cases)).bool())
    best.params = [move.start() for move in moves]
    runs: list[_Run] = []
    limit = s.eps if s.perturbation == "delta" else None
    failed = images.new_zeros(len(cases)).bool()
    signal = images.new_zeros(len(cases))
    made = Passes()
    for restart in range(s.restarts):
        params = [move.start() for move in moves]
        share = s.start or (0.5 if restart else 0.0)
        begins = int(share > 0)  # the iterate from which Adam steps
        first = [torch.zeros_like(p) for p in params]
        second = [torch.zeros_like(p) for p in params]
        run = _Run([], [], begins)
        for step in range(steps):
            with torch.enable_grad():
                leaves = [p.detach().requires_grad_() for p in params]
                moved = perturbed(moves, leaves, images)
                at = moved.detach().requires_grad_()
                found, passes = maps_with_graph(cases, at, s.beta, _draw(s, restart, step))
                value = objective(found * found[0].numel())
                (slope,) = torch.autograd.grad(value.sum(), at)
                written = eight_bit(at.detach(), images, limit)
                rounded = at + (written - at).detach()
                drift, kept, more = _prediction(cases, rounded)
                (pull,) = torch.autograd.grad(drift.sum(), at)
                rough = [move.penalty(leaf).sum() for move, leaf in zip(moves, leaves, strict=True)]
                if step <= begins:
                    signal = torch.maximum(signal, slope.flatten(1).norm(dim=1))
                push = s.map_weight * slope + s.prediction_weight * pull
                failed |= ~(value.isfinite() & push.isfinite().flatten(1).all(1))
                push[failed] = 0
                rest = s.regulariser * torch.stack(rough).sum()
                gradients = torch.autograd.grad(
                    (moved * push).sum() + rest, leaves, allow_unused=True, materialize_grads=True
                )
            for gradient in gradients:
                failed |= ~gradient.isfinite().flatten(1).all(1)
            made = spent(made, passes, more)
            value = value.detach()
            best.take(kept & (value < best.value), written, value, params)
            run.values.append(value)
            run.kept.append(kept)
            if step == s.steps:
                break
            if step < begins:
                params = [_drawn(move, cases, s.seed, share, restart) for move in moves]
                continue
            turn = step - begins + 1
            rate = s.learning_rate * (s.decay if step >= s.steps / 2 else 1.0)
            for i in range(len(moves)):
                first[i].lerp_(gradients[i], 0.1)
                second[i].mul_(0.999).addcmul_(gradients[i], gradients[i], value=0.001)
                root = (second[i] / (1 - 0.999**turn)).sqrt_().add_(1e-8)
                params[i] = params[i] - rate / (1 - 0.9**turn) * first[i] / root
                params[i][failed] = 0  # as they begin
            params = projected(moves, params, images)
        runs.append(run)
    outcomes = [_outcome(i, moves, best, runs, signal, split(made, len(cases))) for i in range(len(cases))]
    for outcome, lost in zip(outcomes, failed.tolist(), strict=True):
        outcome.notes["learning_rate"] = s.learning_rate
        outcome.failed = "the objective or its slope is not finite" if lost else None
    return outcomes


def _dry(case: Case, s: Settings, steps: int) -> Outcome:
    """The cost alone: of every step a map with its graph, and a pass each way for the prediction."""
    one = case.explainer.raw(case.pixels).passes  # once with a graph is twice each way
    copies = case.explainer.classifier.copies
    forward, backward = 2 * one.forward + copies, 2 * one.backward + copies
    times = steps * s.restarts
    return Outcome(case.pixels, passes=Passes(times * forward, times * backward))


def _drawn(move: Family, cases: Sequence[Case], seed: int, share: float, restart: int) -> Tensor:
    """The random start of a run: every entry uniform up to `share` of its bound, of flows and colours far less."""
    params: Tensor = move.start()
    share = share if move.name == "delta" else share * GENTLE
    draws = []
    for case, row in zip(cases, params, strict=True):
        stream = Stream(seed, case.explainer.image, f"attack {move.name}")
        draws.append(torch.from_numpy(2 * stream.uniform([restart], tuple(row.shape))[0] - 1))
    moved: Tensor = move.project(params + share * move.bound * torch.stack(draws).to(params))
    return moved


def _draw(s: Settings, restart: int, step: int) -> int:
    """Which draws a step uses: methods that draw do so anew every time (SMO's attack on SmoothGrad)."""
    return 1 + s.seed + restart * (s.steps + 1) + step


def _prediction(cases: Sequence[Case], images: Tensor) -> tuple[Tensor, Tensor, Passes]:
    """(squared distance of the class probabilities from the clean image's, whether the class stays, passes)."""
    f = cases[0].explainer.classifier.view()
    logits = f.logits_of(images)
    clean = torch.stack([case.logits for case in cases]).to(logits)
    drift = (logits.softmax(1) - clean.softmax(1)).square().sum(1)
    own = torch.tensor([case.own for case in cases], device=logits.device)
    return drift, logits.argmax(1) == own, f.passes


def _outcome(
    i: int,
    moves: Sequence[Family],
    best: _Best,
    runs: Sequence[_Run],
    signal: Tensor,
    passes: Passes,
) -> Outcome:
    run = min(runs, key=lambda run: min(run.course(i)[1]))  # which gave the image
    course, valid = run.course(i)
    half = len(course) // 2
    fading = len(course) > 20 and min(valid[half:]) > min(valid[:half])
    sizes: dict[str, float] = {}
    extras: dict[str, Any] = {}
    for move, all_params in zip(moves, best.params, strict=True):
        sizes |= {name: float(value[i]) for name, value in move.size(all_params).items()}
        extras |= {name: array[i] for name, array in move.pictures(all_params).items()}
    notes: dict[str, float | None] = {"objective": float(best.value[i]) if bool(best.found[i]) else None}
    notes["objective_start"] = course[min(run.begins, len(course) - 1)]
    return Outcome(
        best.image[i].cpu(),
        sizes=sizes,
        curve=_thinned(course),
        signal=float(signal[i]),
        fading=fading,
        notes=notes,
        extras=extras,
        passes=passes,
    )


def _thinned(course: Sequence[float], most: int = 101) -> list[float]:
    """At most `most` of the values, evenly, the ends among them."""
    count = len(course)
    if count <= most:
        return list(course)
    return [course[round(k * (count - 1) / (most - 1))] for k in range(most)]

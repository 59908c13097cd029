"""Accuracy: of the pictures as they are, under PGD, and under AutoPGD.

Beside the search for boundaries, which seeks the closest point in L2 and carries every image along, an accuracy needs a
budget in either norm, and forgets an image as soon as it has lost its class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from attrsens.boundary.losses import logit_ratio, odds, unit, wide
from attrsens.seeds import Stream
from attrsens.training.data import Data
from attrsens.training.learner import Batch, Learner
from attrsens.training.perturb import direction, project, random_start

CHUNK = 250  # images a pass
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Budget:
    """What an adversary may do: `norm` linf or l2, `eps` in pixels."""

    norm: str
    eps: float


def clean_accuracy(net: Learner, data: Data) -> float:
    """Share of the images whose top-1 is their class."""
    return _share(net, data, lambda x, y, first: _right(net, x, y))


def pgd_accuracy(net: Learner, data: Data, budget: Budget, steps: int, seed: int = 0) -> float:
    """Share of the images that keep their class at the picture and at every point of one run of PGD (cross-entropy,
    random start, steps of eps / 4 for L-infinity and 2.5 eps / steps for L2)."""
    size = budget.eps / 4 if budget.norm == "linf" else 2.5 * budget.eps / steps
    size = max(size, budget.eps / steps)

    def survive(x: Tensor, y: Tensor, first: int) -> Tensor:
        alive = _right(net, x, y)
        batch = Batch(x, y, first, seed, purpose="measure")
        at = (x + random_start(batch, budget.norm, budget.eps)).clamp(0, 1)
        for _ in range(steps):
            here = alive.nonzero()[:, 0]
            if not len(here):
                break
            gradient, right = _gradient(net, at[here], y[here], _cross_entropy)
            alive[here] &= right
            climbed = at[here] + size * direction(gradient, budget.norm) - x[here]
            at[here] = (x[here] + project(climbed, budget.norm, budget.eps)).clamp(0, 1)
        return alive & _right(net, at, y)

    return _share(net, data, survive)


def autopgd_accuracy(net: Learner, data: Data, budget: Budget, steps: int = 50, seed: int = 0) -> float:
    """Share of the images that keep their class under AutoPGD with the cross-entropy and then the difference of
    logits ratio (Croce & Hein 2020), from one random start each."""

    def survive(x: Tensor, y: Tensor, first: int) -> Tensor:
        alive = _right(net, x, y)
        for turn, loss in enumerate((odds, logit_ratio)):
            here = alive.nonzero()[:, 0]
            if len(here):
                stream = Stream(seed, "", f"autopgd {turn}")
                start = torch.from_numpy(stream.uniform(range(first, first + len(x)), tuple(x.shape[1:])))
                alive[here] = autopgd(net, x[here], y[here], budget, steps, start.to(x)[here] * 2 - 1, loss)
        return alive

    return _share(net, data, survive)


def autopgd(net: Learner, x: Tensor, y: Tensor, budget: Budget, steps: int, start: Tensor, loss: Loss) -> Tensor:
    """Which images keep their class at every point of AutoPGD, (N,): ascent with momentum whose step, 2 eps at first,
    is halved, back at the best point, whenever the loss has stopped to rise (step by the rules of the paper).

    Args:
        start: (N, C, H, W) in [-1, 1]; brought to the norm of the budget.
    """
    eps, norm = budget.eps, budget.norm
    start = start / wide(start.flatten(1).abs().amax(1).clamp(min=1e-30)) if norm == "linf" else unit(start)

    def inside(points: Tensor) -> Tensor:
        return (x + project(points - x, norm, eps)).clamp(0, 1)

    at = inside(x + eps * start)
    alive = torch.ones(len(x), dtype=torch.bool, device=x.device)
    gradient, right, value = _gradient_and_loss(net, at, y, loss)
    alive &= right
    best, best_gradient, best_value = at.clone(), gradient.clone(), value.clone()
    size = torch.full((len(x),), 2 * eps, device=x.device)
    before, rises = at.clone(), torch.zeros_like(size)
    last_size, last_best = size.clone(), best_value.clone()
    last_checkpoint, checkpoints = 0, _checkpoints(steps)
    for step in range(1, steps + 1):
        climbed = inside(at + wide(size) * direction(gradient, norm))
        share = 0.75 if step > 1 else 1.0
        moved = inside(at + share * (climbed - at) + (1 - share) * (at - before))
        before, at = at, moved
        old = value
        gradient, right, value = _gradient_and_loss(net, at, y, loss)
        alive &= right
        rises += value > old
        better = value > best_value
        best_value = torch.where(better, value, best_value)
        best, best_gradient = (torch.where(wide(better), a, b) for a, b in ((at, best), (gradient, best_gradient)))
        if step in checkpoints:
            stuck = rises <= 0.75 * (step - last_checkpoint)
            stuck |= (last_size == size) & (last_best == best_value)
            last_size, last_best, last_checkpoint = size.clone(), best_value.clone(), step
            size = torch.where(stuck, size / 2, size)
            at, gradient = (torch.where(wide(stuck), a, b) for a, b in ((best, at), (best_gradient, gradient)))
            value = torch.where(stuck, best_value, value)
            rises = torch.zeros_like(rises)
    return alive


def _checkpoints(steps: int) -> set[int]:
    """Where AutoPGD looks at its progress: 0.22 of the steps, then gaps that shrink by 0.03 down to 0.06."""
    places, before, here = set[int](), 0.0, 0.22
    while here <= 1:
        places.add(-int(-here * steps // 1))
        before, here = here, here + max(here - before - 0.03, 0.06)
    return places


def _share(net: Learner, data: Data, judge: Callable[[Tensor, Tensor, int], Tensor]) -> float:
    """Part of the images for which `judge` (pixels, labels, index of the first) is true; BatchNorm uses its running
    statistics."""
    net.module.eval()
    kept = 0
    for first in range(0, len(data), CHUNK):
        x, y = data.pixels(slice(first, first + CHUNK), net.device)
        kept += int(judge(x.contiguous(memory_format=torch.channels_last), y, first).sum())
    return kept / max(1, len(data))


def all_finite(net: Learner, data: Data) -> bool:
    """Whether weights, running statistics and the logits of every image are finite."""
    kept = [t for t in net.module.state_dict().values() if t.is_floating_point()]
    if not all(bool(torch.isfinite(t).all()) for t in kept):
        return False
    with torch.no_grad():
        return _share(net, data, lambda x, y, first: net.logits(x).isfinite().all(1)) == 1


def _right(net: Learner, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return _correct(net.logits(x), y)


def _correct(logits: Tensor, y: Tensor) -> Tensor:
    """Whether top-1 is the class; it is none where a logit is no finite number."""
    return (logits.argmax(1) == y) & logits.isfinite().all(1)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def _gradient(net: Learner, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    gradient, right, _ = _gradient_and_loss(net, x, y, loss)
    return gradient, right


def _gradient_and_loss(net: Learner, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
    """(gradient to the pixels, whether top-1 is the class, losses)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = net.logits(x)
        values = loss(logits, y)
        (gradient,) = torch.autograd.grad(values.sum(), x)
    return gradient, _correct(logits.detach(), y), values.detach()

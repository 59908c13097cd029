"""The attacks: each advances every image of a run at once, at a cost that its settings fix."""

from __future__ import annotations

import math

import torch

from attrsens.boundary.losses import Loss, logit_ratio, margin, odds, unit, wide
from attrsens.boundary.state import Run


def pgd(run: Run) -> None:
    """Normalised steps up the cross-entropy in a ball; the first radius that succeeds is found by halving."""
    rungs = torch.tensor(run.s.ladder, device=run.x.device)
    first = torch.zeros(len(run.x), dtype=torch.long, device=run.x.device)
    last = torch.full_like(first, len(rungs))  # the first radius that succeeds lies in [first, last]
    for turn in range(run.s.rounds):
        at = ((first + last) // 2).clamp(max=len(rungs) - 1)
        radius = rungs[at]
        # a radius has draws of its own, and new ones where an image that is done tries again
        direction, share = run.directions("pgd", [turn * len(rungs) + int(i) for i in at])
        points = run.box(run.x + direction * wide(radius * share ** (1 / run.x[0].numel())))
        hit = torch.zeros_like(first, dtype=torch.bool)
        for _ in range(run.s.steps):
            gradients, _, lost = run.climb(points, odds)
            hit |= lost
            points = run.ball(points + unit(gradients) * wide(2 * radius / run.s.steps), radius)
        hit |= run.see(points, run.f.logits(points))
        run.ended(points)
        run.radius = torch.where(hit, torch.fmin(run.radius, radius), run.radius)
        first, last = (
            torch.where((first < last) & ~hit, at + 1, first),
            torch.where((first < last) & hit, at, last),
        )


def cw(run: Run) -> None:
    """min ||x' - x||^2 + c max(0, z_c - max other z), by Adam on w with x' = tanh w in the box; c is searched."""
    middle, half = (run.high + run.low) / 2, (run.high - run.low) / 2
    start = ((run.x - middle) / half * (1 - 1e-6)).atanh()
    c = torch.full((len(run.x),), run.s.constant, device=run.x.device)
    below, above = torch.zeros_like(c), torch.full_like(c, math.inf)
    for _ in range(run.s.searches):
        w, mean, square = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
        hit = torch.zeros_like(c, dtype=torch.bool)
        for step in range(1, run.s.steps + 1):
            bent = w.tanh()
            points = run.box(middle + half * bent)
            gradients, margins, lost = run.climb(points, margin)
            hit |= lost
            slope = 2 * (points - run.x) - wide(c * (margins < 0)) * gradients
            slope *= half * (1 - bent.square())
            mean.lerp_(slope, 0.1)
            square.mul_(0.999).addcmul_(slope, slope, value=0.001)
            root = (square / (1 - 0.999**step)).sqrt_().add_(1e-8)
            w.addcdiv_(mean, root, value=-run.s.learning_rate / (1 - 0.9**step))
        run.ended(points)
        above, below = torch.where(hit, torch.minimum(above, c), above), torch.where(hit, below, c)
        c = torch.where(above.isinf(), c * 10, (below + above) / 2)


def apgd(run: Run) -> None:
    """AutoPGD with the cross-entropy (as odds, which rank points alike), then with the difference of logits ratio."""
    for index, loss in enumerate((odds, logit_ratio)):
        _climb(run, index, loss)
    if not run.s.track_closest:
        last = run.last["apgd"]
        closer = last.distance < run.best.distance
        run.best.take(closer, last.points, last.distance, last.other, last.attack)


def _climb(run: Run, index: int, loss: Loss) -> None:
    """Momentum steps up a loss; an image that stalls goes back to its best point, at half the step."""
    steps, closest = run.s.steps, run.s.track_closest
    radius = torch.full((len(run.x),), run.s.eps, device=run.x.device)
    points = run.box(run.x + run.directions("apgd", [index] * len(run.x))[0] * run.s.eps)
    before, step = points, 2 * radius
    gradients, values, _ = run.climb(points, loss, closest)
    top, top_points, top_gradients = values, points, gradients
    window, least, less = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    since, rises = 0, torch.zeros_like(radius)
    checked, halved = top, torch.zeros_like(radius, dtype=torch.bool)
    for turn in range(steps):
        share = 0.75 if turn else 1.0
        aim = run.ball(points + unit(gradients) * wide(step), radius)
        moved = run.ball(points + share * (aim - points) + (1 - share) * (points - before), radius)
        before, points = points, moved
        gradients, fresh, _ = run.climb(points, loss, closest)
        rises += fresh > values
        values, better = fresh, fresh > top
        top = torch.where(better, values, top)
        top_points = torch.where(wide(better), points, top_points)
        top_gradients = torch.where(wide(better), gradients, top_gradients)
        since += 1
        if since == window:
            halved = (rises <= 0.75 * window) | (~halved & (checked >= top))
            checked, since, window = top, 0, max(window - less, least)
            rises = torch.zeros_like(rises)
            step = torch.where(halved, step / 2, step)
            points = torch.where(wide(halved), top_points, points)
            gradients = torch.where(wide(halved), top_gradients, gradients)
    run.ended(points)

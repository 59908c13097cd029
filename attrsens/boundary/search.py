"""The search itself: attacks, then the bisection and the projections that end it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attrsens.boundary.attacks import apgd, cw, pgd
from attrsens.boundary.losses import margin, norms, wide
from attrsens.boundary.settings import Boundary, Search, Stage
from attrsens.boundary.state import Run
from attrsens.models.batches import Stack
from attrsens.models.classifier import Classifier


def nearest_boundary(
    f: Classifier, pixels: Tensor, classes: Sequence[int] | Tensor, search: Search, images: Sequence[str] | None = None
) -> Boundary:
    """The closest point to every image that the network gives another class than the one stated.

    Args:
        f: pays the passes; whatever its output, space and sign, logits, pixels and signed gradients are used.
        pixels: (N, C, H, W). The box is [0, 1], widened to the image's own value where a pixel lies outside.
        classes: the class that each image must lose.
        images: the hash of each image, which keys its random starts; that of the view if left out.
    """
    view = pixel_view(f)
    if view.dry:
        _spend(view, pixels, search)
        zeros = torch.zeros(len(pixels), device=pixels.device)
        names = (search.attacks[0],) * len(pixels)
        stages = tuple(Stage(name, zeros, zeros.bool()) for name in search.stages)
        return Boundary(pixels, zeros, zeros.bool(), zeros.long(), names, zeros, stages)
    own = torch.as_tensor(classes, device=pixels.device)
    keys = list(images) if images is not None else [f.image] * len(pixels)
    run = Run(view, pixels.detach(), own, search, keys)
    for run.name in search.attacks:
        {"pgd": pgd, "cw": cw, "apgd": apgd}[run.name](run)
        run.staged(run.name)
    if search.bisect:
        bisect(run, [(best.points, best.attack) for best in (run.best, *run.last.values())])
        for _ in range(search.polish):
            polish(run)
        run.staged("bisect")
    return result(run)


def pixel_view(f: Classifier) -> Classifier:
    """The same view on pixels, logits and signed gradients; its passes count as the view's own."""
    view = f.view(image=f.image, dry=f.dry)
    view.passes, view.precision = f.passes, "fp32"  # which class wins near a boundary is a matter of digits
    return view


def to_pixels(f: Classifier, x: Tensor) -> Tensor:
    """Images in the view's space as pixels; undoes `encode`."""
    if f.space == "pixel":
        return x
    black = f.colour("black")
    return (x - black) / (f.colour("white") - black)


def predictions(f: Classifier, x: Tensor) -> Tensor:
    """The winning class of every image (N, C, H, W) in the view's space, (N,). One forward pass an image."""
    if f.dry:
        f.score(x, 0)
        return torch.zeros(len(x), dtype=torch.long, device=x.device)
    return pixel_view(f).logits(to_pixels(f, x)).argmax(1)


def _spend(f: Classifier, pixels: Tensor, search: Search) -> None:
    forward, backward = (n * len(pixels) for n in search.passes)

    def nothing(indices: range) -> Tensor:
        return pixels[:1]

    if backward:
        list(f.gradients(Stack(backward, nothing, pixels[0]), 0))
    if forward > backward:
        f.score(Stack(forward - backward, nothing, pixels[0]), 0)


def bisect(run: Run, ends: Sequence[tuple[Tensor, Sequence[str]]]) -> None:
    """Halve the segments from every image to its ends, each with the names of the attacks that found it."""
    count = len(run.x)
    near, far = run.x.repeat(len(ends), 1, 1, 1), torch.cat([points for points, _ in ends])
    for _ in range(run.s.bisect):
        middle = (near + far) / 2
        logits = run.f.logits(middle)
        for k, (_, names) in enumerate(ends):
            part = slice(k * count, (k + 1) * count)
            run.keep(middle[part], logits[part], names)
        lost = wide(logits.argmax(1) != run.classes.repeat(len(ends)))
        near, far = torch.where(lost, near, middle), torch.where(lost, middle, far)


def polish(run: Run) -> None:
    """Move every point to the foot of its tangent plane: the closest point to the image, in the box, where the
    linearised margin is 0; a little further, and back by bisection. Exact on linear networks."""
    run.name = "polish"
    at = run.best.points.clone()
    gradients, margins, _ = run.climb(at, margin)
    scale, shift = torch.zeros_like(margins), run.x
    for _ in range(10):  # Newton on a concave, piecewise linear function of the scale
        gap = margins + (gradients * (shift - at)).flatten(1).sum(1)
        free = (shift > run.low) & (shift < run.high) | (scale == 0).reshape(-1, 1, 1, 1)
        slope = (gradients.square() * free).flatten(1).sum(1).clamp(min=1e-30)
        scale = (scale - gap / slope).clamp(0, 1e20)
        shift = run.box(run.x + gradients * wide(scale))
    far = run.box(run.x + gradients * wide(1.05 * scale))
    names = [name or run.name for name in run.best.attack]
    run.keep(far, run.f.logits(far), names)
    bisect(run, [(far, names)])


def result(run: Run) -> Boundary:
    """What was kept; where nothing was, the end of the first run."""
    assert run.fallback is not None
    points, other = run.fallback
    success = run.best.distance.isfinite()
    points = torch.where(wide(success), run.best.points, points)
    return Boundary(
        points,
        norms(points - run.x),
        success,
        torch.where(success, run.best.other, other),
        tuple(name or run.s.attacks[0] for name in run.best.attack),
        run.radius,
        tuple(run.stages),
    )

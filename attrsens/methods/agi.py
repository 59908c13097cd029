"""Adversarial gradient integration: the class's gradient along attacks on several other classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from attrsens.errors import AttrsensError
from attrsens.spec import METHODS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.classifier import Classifier


@METHODS("agi", version=1, output="prob", gradient=True, cost="k (steps + 1) F + 2 k steps B")
def adversarial_gradient_integration(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    mode: Annotated[
        str,
        Param(
            "path: each step goes on from the last point, as published; reference: from the image, as the authors do",
            choices=("path", "reference"),
            source="methods 1.12, 2.18",
        ),
    ] = "path",
    eps: Annotated[
        float,
        Param(
            "length of a step, pixels (linf) or pixel L2 (l2)", min=1e-6, scale="ratio", range=(0.01, 0.2), source="AGI"
        ),
    ] = 0.05,
    steps: Annotated[
        int, Param("steps to each class at most", min=1, max=10_000, scale="ratio", range=(5, 50), source="AGI code")
    ] = 15,
    k: Annotated[
        int,
        Param(
            "other classes, at most all of them", min=1, max=100_000, scale="ratio", range=(5, 30), source="AGI code"
        ),
    ] = 15,
    step: Annotated[
        str,
        Param("linf: eps times the gradient's sign; l2: eps along it", choices=("linf", "l2"), source="methods 2.18"),
    ] = "linf",
) -> tuple[Tensor, dict[str, float | None]]:
    """Sum over k other classes t of the class's gradient along an attack that ends where t wins.

    For each t: x_0 = x; until argmax = t, at most `steps` times: d = clip(x_i + eps sign(grad f_t), 0, 1) - x_i,
    A = A - grad f_c * d, x_{i+1} = x_i + d. Pan et al. 2021; methods 2.18. All t advance in one batch; one that has
    arrived is carried along without moving, so that the cost is fixed.

    The classes are spaced evenly over the others by index: the i-th of the C - 1 others is floor(i (C - 1) / k).
    mode=reference takes the authors' range(0, C - 1, C // k), which may hold one class more and the image's own, whose
    steps count nothing. Noted: distance (pixel L2 to the nearest class that was reached), success (one was), the
    share reached, and for mode=path the completeness gap |sum of the map - sum over t of f_c(x) - f_c(x_T)|.
    """
    import torch

    from attrsens.boundary import pixel_view, to_pixels

    if f.class_count < 2:
        raise AttrsensError(f"agi: model {f.name} has one class, and none to attack towards")
    goals = torch.tensor(classes(f.class_count, target, k, mode), device=x.device)
    rows = len(goals)
    view, image = pixel_view(f), to_pixels(f, x)[None].expand(rows, *x.shape)
    low, high = image.clamp(max=0), image.clamp(min=1)

    def scores(logits: Tensor) -> Tensor:
        return logits if f.output == "logit" else logits.softmax(1)

    def own(logits: Tensor, places: Tensor) -> Tensor:
        return scores(logits)[:, target]

    def goal(logits: Tensor, places: Tensor) -> Tensor:
        return scores(logits).gather(1, goals[places, None])[:, 0]

    if f.dry:
        for _ in range(steps):
            list(view.loss_gradients(image, own, goal))
        view.score(image, target)
        return torch.zeros_like(x), {}
    points, total = image, torch.zeros_like(image)
    moving, clean = goals != target, torch.zeros(())
    for turn in range(steps):
        parts = zip(*view.loss_gradients(points, own, goal), strict=True)
        logits, values, down, up = (torch.cat(part) for part in parts)
        clean = values[0, 0] if turn == 0 else clean
        moving &= logits.argmax(1) != goals
        if step == "linf":
            aim = eps * up.sign()
        else:
            aim = eps * up / up.flatten(1).norm(dim=1).clamp(min=1e-30).reshape(-1, 1, 1, 1)
        start = points if mode == "path" else image
        moved = torch.minimum(torch.maximum(start + aim, low), high)
        down = down.abs() if f.sign == "abs_sample" else down
        alive = moving.reshape(-1, 1, 1, 1)
        total -= torch.where(alive, down * (moved - start), 0.0)
        points = torch.where(alive, moved, points)
    logits = view.logits(points)
    reached = (logits.argmax(1) == goals) & (goals != target)
    heatmap = total.sum(0)
    fall = float((clean - scores(logits)[:, target]).sum())
    complete = mode == "path" and f.sign != "abs_sample"
    far = (points - image).flatten(1).norm(dim=1)[reached]
    return heatmap, {
        "distance": float(far.min()) if len(far) else None,
        "success": float(len(far) > 0),
        "reached": float(reached.float().mean()),
        "completeness_gap": abs(float(heatmap.sum()) - fall) if complete else None,
    }


def classes(count: int, target: int, k: int, mode: str) -> list[int]:
    """The classes that are attacked; for mode=reference as the authors choose them."""
    if mode == "reference":
        return list(range(0, count - 1, max(1, count // k))) or [0]
    others = [c for c in range(count) if c != target]
    k = min(k, len(others))
    return [others[i * len(others) // k] for i in range(k)]

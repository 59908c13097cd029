"""Integrated gradients: the gradient averaged along a straight path from a baseline to the image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from attrsens.errors import AttrsensError
from attrsens.methods._settings import Notes, Points, one
from attrsens.spec import METHODS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.batches import Stack
    from attrsens.models.classifier import Classifier

RULES = ("trapezoid", "captum_trapezoid", "left", "right", "middle", "gausslegendre")
BASELINES = ("black", "white", "grey", "mean", "random", "blurred", "image")


def _settings(f: Classifier, x: Tensor, targets: Sequence[int], points: Points) -> Iterator[tuple[Tensor, Notes]]:
    """Integrals of the same path in other numbers of steps. Each setting adds the points that those before it lack, and
    every gradient counts for all settings that have its point, with their own weights."""
    import torch

    from attrsens.models.batches import Stack

    target, p = targets[0], points[0]
    rules = [_weights(p["rule"], point["steps"]) for point in points]
    both_ends = {0.0, 1.0} <= rules[0].keys()  # a rule has them in any number of steps, or in none
    totals = [torch.zeros_like(x) for _ in points]
    count = p["trials"] if p["baseline"] == "random" else 1
    rise, known = 0.0, set[float]()
    for i, rule in enumerate(rules):
        fresh = torch.tensor([t for t in rule if t not in known])
        known |= rule.keys()
        weights = torch.tensor([[later.get(t, 0.0) for t in fresh.tolist()] for later in rules[i:]])
        for x0 in _baselines(f, x, p) if len(fresh) else ():

            def path(indices: range, x0: Tensor = x0, fresh: Tensor = fresh) -> Tensor:
                t = fresh[indices.start : indices.stop].to(x).reshape(-1, 1, 1, 1)
                return x0 + t * (x - x0)

            sums, scores = _sums(f, Stack(len(fresh), path, like=x), target, weights)
            for total, part in zip(totals[i:], sums, strict=True):
                total += (x - x0) * part
            if i == 0:
                ends = scores if both_ends else f.score(torch.stack([x0, x]), target)
                rise += float(ends[-1] - ends[0])
        heatmap = totals[i] / count
        gap = abs(float(heatmap.detach().sum()) - rise / count)
        yield heatmap, {"completeness_gap": None if f.sign == "abs_sample" else gap}  # magnitudes complete nothing


def _weights(rule: str, steps: int) -> dict[float, float]:
    """The points of a rule, float32, with their weights."""
    import numpy as np

    out: dict[float, float] = {}
    for t, weight in zip(*(np.asarray(values, np.float32).tolist() for values in quadrature(rule, steps)), strict=True):
        out[t] = out.get(t, 0.0) + weight
    return out


def _sums(f: Classifier, path: Stack, target: int, weights: Tensor) -> tuple[list[Tensor], Tensor]:
    """Sums of the gradients along a path by several weights (settings, points), and every score; dry, zeros."""
    import torch

    sums, scores, seen = [torch.zeros_like(path.like) for _ in weights], [], 0
    for gradients, score in f.gradients(path, target):
        scores.append(score.detach())
        part = weights[:, seen : seen + len(gradients)].to(gradients)
        seen += len(gradients)
        for total, w in zip(sums, part, strict=True):
            if not f.dry and bool(w.any()):
                total += torch.einsum("n,nchw->chw", w, gradients)
    return sums, torch.cat(scores)


@METHODS(
    "ig",
    version=1,
    output="prob",
    gradient=True,
    differentiable=True,
    cost="points F + points B; random: for each trial",
    still=lambda p: p["baseline"] != "random",
    over=("steps",),
    settings=_settings,
)
def integrated_gradients(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    steps: Annotated[
        int,
        Param(
            "points of the path; for trapezoid, intervals (one point more)",
            min=1,
            max=100_000,
            scale="ratio",
            range=(10, 200),
            source="Sundararajan et al. 2017",
        ),
    ] = 50,
    rule: Annotated[str, Param("quadrature", choices=RULES, source="methods 2.6")] = "trapezoid",
    baseline: Annotated[str, Param("where the path starts", choices=BASELINES, source="methods 2.6")] = "black",
    trials: Annotated[
        int, Param("baselines averaged (random only)", min=1, max=1000, scale="ratio", source="SAM code")
    ] = 10,
    blur_radius: Annotated[
        float,
        Param(
            "sd of the Gaussian blur, pixels (blurred only)", min=0, max=1000, scale="ratio", source="SAM 4.3", pixels=1
        ),
    ] = 10.0,
    baseline_image: Annotated[Path, Param("picture the path starts from (image only)")] = Path(),
    seed: Annotated[int, Param("seed of the random baselines", min=0)] = 0,
) -> tuple[Tensor, Notes]:
    """(x - x0) times the mean gradient on the straight path from a baseline x0 to x.

    (x - x0) * integral_0^1 g(x0 + t (x - x0)) dt. Sundararajan et al. 2017, eq. 1; methods 2.6. One pass forward and
    back a point and baseline; rules without both end points add two passes forward for the completeness gap,
    |sum of the map - (f(x) - f(x0))|, which is noted.
    """
    found: tuple[Tensor, Notes] = one(
        _settings,
        f,
        x,
        target,
        steps=steps,
        rule=rule,
        baseline=baseline,
        trials=trials,
        blur_radius=blur_radius,
        baseline_image=baseline_image,
        seed=seed,
    )
    return found


def quadrature(rule: str, steps: int) -> tuple[list[float], list[float]]:
    """Points in [0, 1] and weights of a rule; captum_trapezoid's weights sum to (steps - 1)/steps, as Captum's do.

    Raises:
        AttrsensError: captum_trapezoid with fewer than two points.
    """
    import numpy as np

    n = steps
    even = np.full(n, 1 / n)
    if rule == "gausslegendre":
        nodes, weights = np.polynomial.legendre.leggauss(n)
        return list((nodes + 1) / 2), list(weights / 2)
    if rule == "trapezoid":
        ends = np.full(n + 1, 1 / n)
        ends[[0, -1]] /= 2
        return list(np.arange(n + 1) / n), list(ends)
    if rule == "captum_trapezoid":
        if n < 2:
            raise AttrsensError("ig: rule captum_trapezoid needs steps of at least 2")
        even[[0, -1]] /= 2
        return list(np.linspace(0, 1, n)), list(even)
    shift = {"left": 0.0, "middle": 0.5, "right": 1.0}[rule]
    return list((np.arange(n) + shift) / n), list(even)


def _baselines(f: Classifier, x: Tensor, parameters: Mapping[str, Any]) -> Iterator[Tensor]:
    """The starting points, (C, H, W) each, in the view's space."""
    kind, picture = parameters["baseline"], str(parameters["baseline_image"])
    if kind == "random":  # uniform in pixel space, whatever the view's space
        stream = f.stream(parameters["seed"], "baseline")
        for trial in range(parameters["trials"]):
            yield f.encode(x.new_tensor(stream.uniform([trial], tuple(x.shape))[0]))
    elif kind == "blurred":
        yield _blur(x, parameters["blur_radius"])
    elif kind == "image":
        if not picture:
            raise AttrsensError("ig: baseline=image needs baseline_image=FILE")
        from attrsens.images import decode
        from attrsens.samples import located

        pixels = x.new_tensor(f.preprocess.apply(decode(located(picture))))
        if pixels.shape != x.shape:
            raise AttrsensError(
                f"ig: baseline_image is {tuple(pixels.shape)} after preprocessing; {tuple(x.shape)} needed"
            )
        yield f.encode(pixels)
    else:
        yield f.colour(kind).expand_as(x)


def _blur(x: Tensor, sd: float) -> Tensor:
    """Gaussian blur of (C, H, W), cut at four standard deviations, edges repeated."""
    import torch
    import torch.nn.functional as F

    radius = int(4 * sd + 0.5)
    if radius == 0:
        return x
    taps = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (taps / sd) ** 2)
    kernel = (kernel / kernel.sum()).reshape(1, 1, 1, -1)
    out = x[:, None]
    for _ in range(2):  # rows, then columns
        out = F.conv2d(F.pad(out, (radius, radius, 0, 0), mode="replicate"), kernel).transpose(-1, -2)
    return out[:, 0]

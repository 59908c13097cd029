"""The descent of meaningful perturbation: many masks in one batch of fixed shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attrsens.errors import AttrsensError
from attrsens.methods._masks import RADII, blur, discs, enlarge, variation, within
from attrsens.seeds import Stream

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.classifier import Classifier

SEARCH_BLUR = 10.0  # radius of the blur that discs are tried with, whatever blur_radius is
GONE = 0.01  # share of the score at which a disc hides enough
NOISE = 1e-5  # relative fall of a score that is no fall
MEAN_DECAY, SQUARE_DECAY, ADAM_EPS = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Problem:
    """One mask to find: an image (C, H, W) in the view's space, its target, the hash that keys its draws, and what may
    differ within a batch; `zoom` is pixels of the image a pixel of what radii are given in, down and across."""

    x: Tensor
    target: int
    image: str
    blur_radius: float
    init: str
    seed: int
    zoom: tuple[float, float] = (1.0, 1.0)

    def sd(self, radius: float) -> tuple[float, float]:
        """Of a blur, on the image, down and across."""
        return radius * self.zoom[0], radius * self.zoom[1]


@dataclass(frozen=True)
class Common:
    """The parameters of `mp` that every mask of a batch shares."""

    circle_at: str
    mask_side: int
    mask_blur: float
    jitter: int
    l1_weight: float
    tv_weight: float
    tv_power: float
    tv: str
    learning_rate: float
    output_blur: float
    quantize: bool


@dataclass(frozen=True)
class Course:
    """How one mask went.

    Attributes:
        maps, masks, notes: after each number of steps that was asked for: the map (H, W), the mask (h, w), the notes.
        terms: of the loss (score, l1, tv) as each step saw them, (steps, 3).
    """

    maps: dict[int, Tensor]
    masks: dict[int, Tensor]
    notes: dict[int, dict[str, float | None]]
    terms: Tensor


def advance(
    f: Classifier, problems: Sequence[Problem], snapshots: Sequence[int], common: Common, width: int = 1
) -> list[Course]:
    """Every problem's course, in one batch of fixed shape, with snapshots after the given numbers of steps.

    A step costs one pass forward and back a problem; `width` fills the batch up to a multiple of it, at that price.
    Problems that hold the same tensor `x`, target and zoom share the 36 passes that find their disc, which make batches
    of their own, so that the disc does not depend on who else looks for one.

    Raises:
        AttrsensError: the view loses the sign of gradients.
    """
    if f.sign == "abs_sample":
        raise AttrsensError("mp: sign=abs_sample is for methods that average gradients; mp descends along them")
    given = len(problems)
    problems = [*problems, *[problems[-1]] * (-given % width)]
    x = problems[0].x
    cells = [min(common.mask_side, side) for side in x.shape[-2:]]
    grow = [enlarge(n, side, common.mask_blur).to(x) for n, side in zip(cells, x.shape[-2:], strict=True)]
    start, radii = _start(f, problems, cells, common.circle_at)
    masks, terms = _descend(f, problems, start, grow, set(snapshots), common)
    maps = {count: _map(grow[0] @ mask @ grow[1].T, common) for count, mask in masks.items()}
    terms = terms.cpu()
    courses = []
    for i in range(given):
        own: dict[str, float | None] = {"mask_side": max(cells), "circle_radius": radii.get(i)}
        courses.append(
            Course(
                {count: stack[i] for count, stack in maps.items()},
                {count: stack[i] for count, stack in masks.items()},
                {count: _losses(terms[i, :count]) | own for count in masks},
                terms[i],
            )
        )
    return courses


def _descend(
    f: Classifier, problems: Sequence[Problem], masks: Tensor, grow: list[Tensor], snapshots: set[int], common: Common
) -> tuple[dict[int, Tensor], Tensor]:
    """Adam on masks (B, h, w), each cut to [0, 1] after a step: the snapshots, and the terms (B, steps, 3)."""
    import torch

    from attrsens.models.batches import Stack

    x, count, steps = problems[0].x, len(problems), max(snapshots)
    targets, (rows, columns) = [p.target for p in problems], grow
    terms = x.new_zeros(steps, 3, count)
    if f.dry:
        if steps:
            list(f.gradients(Stack(steps * count, lambda indices: x[None], x), 0))
        return dict.fromkeys(snapshots, masks), terms.permute(2, 0, 1)
    windows, places = _windows(problems, common.jitter), _places(problems, common.jitter, steps)
    each = torch.arange(count, device=x.device)
    mean, square = torch.zeros_like(masks), torch.zeros_like(masks)
    kept = {}
    for step in range(steps):
        if step in snapshots:
            kept[step] = masks
        blurred, detail = windows[each, :, places[step, 0], places[step, 1]].chunk(2, 1)
        images = torch.addcmul(blurred, (rows @ masks @ columns.T)[:, None], detail)
        parts = list(f.gradients(images, targets))
        gradient, score = (torch.cat(part) for part in zip(*parts, strict=True))
        hidden = 1 - masks
        variations, slope = variation(masks, common.tv_power, common.tv)
        terms[step] = torch.stack([score, common.l1_weight * hidden.abs().sum((1, 2)), common.tv_weight * variations])
        slope = common.tv_weight * slope - common.l1_weight * hidden.sign()
        slope += rows.T @ (gradient * detail).sum(1) @ columns
        mean = mean.lerp(slope, 1 - MEAN_DECAY)
        square = square.lerp(slope**2, 1 - SQUARE_DECAY)
        scale = (square / (1 - SQUARE_DECAY ** (step + 1))).sqrt() + ADAM_EPS
        rate = common.learning_rate / (1 - MEAN_DECAY ** (step + 1))
        masks = (masks - rate * mean / scale).clamp(0, 1)
    return {count: kept.get(count, masks) for count in snapshots}, terms.permute(2, 0, 1)


def _windows(problems: Sequence[Problem], jitter: int) -> Tensor:
    """(B, 2C, jitter + 1, jitter + 1, H, W), a view: every crop of (blurred, image - blurred), the images continued by
    their mirror image."""
    import torch

    height, width = problems[0].x.shape[-2:]
    stacks = []
    for p in problems:
        rows, columns = (
            within(torch.arange(side + jitter, device=p.x.device) - jitter // 2, side, "reflect")
            for side in (height, width)
        )
        wide = p.x[:, rows][:, :, columns]
        blurred = blur(wide, p.sd(p.blur_radius))
        stacks.append(torch.cat([blurred, wide - blurred]))
    return torch.stack(stacks).unfold(2, height, 1).unfold(3, width, 1)


def _places(problems: Sequence[Problem], jitter: int, steps: int) -> Tensor:
    """(steps, 2, B): the crop's row and column at every step, uniform in range(jitter); jitter // 2 is the middle."""
    import torch

    draws = [Stream(p.seed, p.image, "jitter").uniform(range(steps), (2,)) for p in problems]
    places = (torch.from_numpy(np.stack(draws, -1)) * jitter).long()
    return places.clamp_(max=max(jitter - 1, 0)).to(problems[0].x.device)


def _start(
    f: Classifier, problems: Sequence[Problem], cells: list[int], circle_at: str
) -> tuple[Tensor, dict[int, float]]:
    """First masks (B, h, w), and the radius of those that are discs."""
    import torch

    x = problems[0].x
    circles = [i for i, p in enumerate(problems) if p.init == "circle"]
    masks = torch.ones(len(problems), *cells, device=x.device)
    for i, p in enumerate(problems):
        if p.init == "random":
            masks[i] = torch.from_numpy(Stream(p.seed, p.image, "mask").uniform([0], tuple(cells))[0])
    if not circles:
        return masks, {}
    shape = x.shape[-2:]
    height, width = shape if circle_at == "input" else cells
    drawn = discs(height, width, x)
    if circle_at == "input":
        rows, columns = (torch.arange(n, device=x.device) * side // n for n, side in zip(cells, shape, strict=True))
        small, large = drawn[:, rows][:, :, columns], drawn
    else:
        grow = [enlarge(n, side).to(x) for n, side in zip(cells, shape, strict=True)]
        small, large = drawn, grow[0] @ drawn @ grow[1].T
    found = _search(f, [problems[i] for i in circles], large)
    for i, which in zip(circles, found, strict=True):
        masks[i] = small[which]
    return masks, {i: float(RADII[which]) for i, which in zip(circles, found, strict=True)}


def _search(f: Classifier, problems: Sequence[Problem], drawn: Tensor) -> list[int]:
    """Of each problem the first disc (35, H, W) that takes 99 % of what the largest takes; the largest if that takes
    nothing."""
    import torch

    from attrsens.models.batches import Stack

    asks = {(id(p.x), p.target, p.zoom): p for p in problems}
    masks = torch.cat([torch.ones_like(drawn[:1]), drawn])[:, None]

    def scores_of(p: Problem) -> Tensor:
        blurred = blur(p.x, p.sd(SEARCH_BLUR))
        detail = p.x - blurred

        def hidden(indices: range) -> Tensor:
            return torch.addcmul(blurred, masks[indices.start : indices.stop], detail)

        return f.score(Stack(len(masks), hidden, p.x), p.target)

    scores = torch.stack([scores_of(p) for p in asks.values()])
    clean, rest = scores[:, :1], scores[:, 1:]
    last = rest[:, -1:]
    fall = clean - last
    real = fall > NOISE * torch.maximum(clean.abs(), last.abs())
    enough = real & ((rest - last) < GONE * fall)
    enough[:, -1] = True
    which = dict(zip(asks, enough.int().argmax(1).tolist(), strict=True))
    return [which[id(p.x), p.target, p.zoom] for p in problems]


def _map(masks: Tensor, common: Common) -> Tensor:
    """What is shown of enlarged masks (B, H, W): the blur of 1 - mask, within [0, 1]."""
    if common.quantize:
        masks = (masks * 255).floor() / 255
    out = blur(1 - masks, common.output_blur).clamp(0, 1)
    return (out * 255).round() / 255 if common.quantize else out


def _losses(terms: Tensor) -> dict[str, float | None]:
    """The loss and its terms as the last step saw them, from (steps, 3); None without a step."""
    if not len(terms):
        return dict.fromkeys(("loss", "score", "l1", "tv"))
    score, l1, tv = terms[-1].tolist()
    return {"loss": score + l1 + tv, "score": score, "l1": l1, "tv": tv}

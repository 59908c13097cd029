"""What an attack is given, what it gives back, and the form of a map that attacks aim at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attrsens.explainer import Base, Explainer
from attrsens.models.batches import Passes
from attrsens.models.surgery import softplus_relu

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SLACK = 2.5e-4  # levels: eps of 8/255 allows 8 of them, however it is rounded


@dataclass(frozen=True)
class Case:
    """One explanation under attack.

    Attributes:
        explainer: the method, bound to classifier, class and draws.
        pixels: (C, H, W) in [0, 1], on the classifier's device.
        own: the class that the network predicts, which must stay.
        logits: of the clean image, (classes,).
        before: its raw map, (C, H, W) or (H, W), as the network gives it.
        goal: the target's shares, (H, W), for attacks that have one.
    """

    explainer: Explainer
    pixels: Tensor
    own: int
    logits: Tensor
    before: Tensor
    goal: Tensor | None = None

    @property
    def dry(self) -> bool:
        return self.explainer.dry


@dataclass
class Outcome:
    """What an attack found.

    Attributes:
        image: (C, H, W) in [0, 1], which is rounded to 8 bits if it is not yet.
        failed: why there is nothing to be measured, if so.
        sizes: of the perturbation, by name.
        curve: what was minimised, by step, in the run that gave the image, steps that lose the class among them;
            `signal` the norm of its gradient at the start, None where none was taken; `fading`: of the steps that keep
            the class, the second half found nothing as good as the first.
        stages: of a boundary search: (name, distance or None) in order.
        extras: what pictures show: the flow field, the recoloured image.
        passes: of this image.
    """

    image: Tensor
    failed: str | None = None
    sizes: dict[str, float] = field(default_factory=dict)
    curve: list[float] = field(default_factory=list)
    signal: float | None = None
    fading: bool = False
    stages: list[tuple[str, float | None]] = field(default_factory=list)
    notes: dict[str, float | None] = field(default_factory=dict)
    extras: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    passes: Passes = field(default_factory=Passes)


def shares(raw: Tensor) -> Tensor:
    """A raw map (..., C, H, W) as SMO's attacks see it, (..., H, W): magnitudes summed over channels, divided by their
    total, so that they sum to 1 (methods 1.7, 5.1). A map of zeros stays zero."""
    size = raw.abs().sum(-3)
    out: Tensor = size / size.flatten(-2).sum(-1)[..., None, None].clamp(min=1e-30)
    return out


def plane_shares(raw: Tensor, image: Tensor) -> Tensor:
    """`shares` of one raw map, (C, H, W) or, for methods without channels, (H, W) as the image is."""
    return shares(raw if raw.dim() == 3 else raw[None])


def eight_bit(images: Tensor, clean: Tensor, eps: float | None = None) -> Tensor:
    """Images (..., C, H, W) in [0, 1] as 8 bits hold them: the nearest levels, or the nearest within eps of the clean
    image, so that what is written keeps the budget."""
    levels = (images * 255).round()
    if eps is not None:
        low, high = ((clean - eps) * 255 - SLACK).ceil(), ((clean + eps) * 255 + SLACK).floor()
        levels = torch.where(low <= high, torch.minimum(torch.maximum(levels, low), high), (clean * 255).round())
    return levels.clamp(0, 255) / 255


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - cosine of maps (..., H, W): in [0, 1] for shares; 1 where one of them is zero."""
    a, b = a.flatten(-2), b.flatten(-2)
    scale = (a.norm(dim=-1) * b.norm(dim=-1)).clamp(min=1e-30)
    out: Tensor = 1 - (a * b).sum(-1) / scale
    return out


def batched(explainer: Explainer) -> bool:
    """Whether several images' maps come from one batch of passes, with a class each."""
    return "many" in explainer.outermost[0].traits and not explainer.draws


def maps_with_graph(cases: Sequence[Case], images: Tensor, beta: float, step: int | None) -> tuple[Tensor, Passes]:
    """The shares (B, H, W) of images (B, C, H, W), which can be differentiated; and the passes made.

    Args:
        beta: every ReLU is softplus of this sharpness (methods 5.1), but for methods that smooth by themselves.
        step: draws of its own for every step; None: those of the clean map.
    """
    found, passes = [], Passes()
    with softplus_relu(beta):
        if batched(cases[0].explainer):
            first = replace(cases[0].explainer, graph=True)
            f = first.view()
            base: Base = first.base(f, [case.explainer.target for case in cases])
            raw = torch.cat(list(base.many(f.encode(images))))
            passes = f.passes
            found = [shares(raw if raw.dim() == 4 else raw[:, None])]
        else:
            for case, image in zip(cases, images, strict=True):
                bound = case.explainer if step is None or not case.explainer.draws else case.explainer.redrawn(step)
                result = replace(bound, graph=True).raw(image)
                found.append(plane_shares(result.map, image)[None])
                passes = Passes(passes.forward + result.passes.forward, passes.backward + result.passes.backward)
    return torch.cat(found), passes


def split(passes: Passes, count: int) -> Passes:
    """Of one among `count` images."""
    return Passes(passes.forward // count, passes.backward // count)


def spent(*parts: Any) -> Passes:
    return Passes(sum(p.forward for p in parts), sum(p.backward for p in parts))


def clean_shares(cases: Sequence[Case]) -> Tensor:
    """The shares of the clean maps, (B, H, W)."""
    return torch.stack([plane_shares(case.before, case.pixels) for case in cases]).to(cases[0].pixels)

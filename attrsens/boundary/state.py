"""What the attacks share: the image, its box, the draws, the passes, and what was found so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attrsens.boundary.losses import Loss, norms, others, unit, wide
from attrsens.boundary.settings import Search, Stage
from attrsens.models.classifier import Classifier
from attrsens.seeds import Stream


@dataclass
class Best:
    """For every image the success that is kept."""

    points: Tensor
    distance: Tensor
    other: Tensor
    attack: list[str]

    @classmethod
    def none(cls, pixels: Tensor) -> Best:
        far = torch.full((len(pixels),), math.inf, device=pixels.device)
        return cls(pixels.clone(), far, torch.zeros_like(far, dtype=torch.long), [""] * len(pixels))

    def take(self, which: Tensor, points: Tensor, distance: Tensor, other: Tensor, names: Sequence[str]) -> None:
        if bool(which.any()):
            self.points[which] = points[which]
            self.distance = torch.where(which, distance, self.distance)
            self.other = torch.where(which, other, self.other)
            self.attack = [new if taken else old for new, old, taken in zip(names, self.attack, which, strict=True)]


@dataclass
class Run:
    """One search over a batch of images."""

    f: Classifier
    x: Tensor
    classes: Tensor
    s: Search
    images: Sequence[str]
    name: str = ""  # of the attack that runs
    last: dict[str, Best] = field(default_factory=dict)  # of every attack its last success
    stages: list[Stage] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.low, self.high = self.x.clamp(max=0), self.x.clamp(min=1)
        self.best = Best.none(self.x)
        self.fallback: tuple[Tensor, Tensor] | None = None  # where the first run ended: points and other classes
        self.radius = torch.full((len(self.x),), math.nan, device=self.x.device)

    def box(self, points: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(points, self.low), self.high)

    def ball(self, points: Tensor, radius: Tensor) -> Tensor:
        """The points drawn into the ball, then into the box."""
        step = points - self.x
        return self.box(self.x + step * wide((radius / norms(step).clamp(min=1e-30)).clamp(max=1)))

    def directions(self, purpose: str, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """For each image a random direction of length 1, and a number in [0, 1)."""
        shape = tuple(self.x.shape[1:])
        pairs = zip(self.images, indices, strict=True)
        streams = [(Stream(self.s.seed, image, f"boundary {purpose}"), i) for image, i in pairs]
        normal = torch.cat([torch.from_numpy(s.normal([2 * i], shape)) for s, i in streams])
        flat = torch.cat([torch.from_numpy(s.uniform([2 * i + 1], ())) for s, i in streams])
        return unit(normal.to(self.x)), flat.to(self.x)

    def climb(self, points: Tensor, loss: Loss, closest: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """(gradients, losses, which are of another class) at the points, whose successes are kept."""
        parts = self.f.loss_gradients(points, lambda logits, places: loss(logits, self.classes[places]))
        logits, values, gradients = (torch.cat(part) for part in zip(*parts, strict=True))
        return gradients, values[:, 0], self.see(points, logits, closest)

    def see(self, points: Tensor, logits: Tensor, closest: bool = True) -> Tensor:
        """Keep what succeeded; says which did."""
        names = [self.name] * len(points)
        lost = logits.argmax(1) != self.classes
        self.other, distance = others(logits, self.classes).argmax(1), norms(points - self.x)
        self.last.setdefault(self.name, Best.none(self.x)).take(lost, points, distance, self.other, names)
        if closest:
            self.keep(points, logits, names)
        return lost

    def keep(self, points: Tensor, logits: Tensor, names: Sequence[str]) -> None:
        """Keep those that are of another class and closer than what was kept."""
        lost, distance = logits.argmax(1) != self.classes, norms(points - self.x)
        other = others(logits, self.classes).argmax(1)
        self.best.take(lost & (distance < self.best.distance), points, distance, other, names)

    def ended(self, points: Tensor) -> None:
        """Remember where the first run of all ended."""
        if self.fallback is None:
            self.fallback = points.clone(), self.other.clone()

    def staged(self, name: str) -> None:
        """Remember how close the search is now that a part of it is done."""
        self.stages.append(Stage(name, self.best.distance.clone(), self.best.distance.isfinite()))

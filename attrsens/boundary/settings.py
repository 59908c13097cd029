"""How to search, and what a search finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from attrsens.errors import AttrsensError, unknown

RADII = (36 / 255, 64 / 255, 0.3, 0.5, 0.7, 0.9, 1.1)  # BND's repository, pixel L2
ATTACKS = ("pgd", "cw", "apgd")


class Stage(NamedTuple):
    """What a search had found when a part of it was done, over all parts so far, one entry an image.

    Attributes:
        name: of the part that was done: an attack, or `bisect`, which stands for the polish too.
        distance: (N,), pixel L2 from the image to the closest point of another class found so far; infinite where there
            is none, so that it never grows from stage to stage. A dry run's are 0, as all its numbers are.
        success: (N,), whether there is one.
    """

    name: str
    distance: Tensor
    success: Tensor


@dataclass(frozen=True)
class Boundary:
    """What a search found, one entry an image.

    Attributes:
        points: (N, C, H, W), pixels.
        distance: (N,), pixel L2 from the image to its point.
        success: (N,), whether the point is of another class.
        other: (N,), the class that wins there; after a failure the best one but the image's own.
        attack: which attack found it; after a failure the first.
        radius: (N,), the smallest radius at which PGD succeeded; nan where it did not or was not run.
        stages: after each attack in order, as if the search had ended there without bisection (BND's table of searches:
            PGDs, + CW, + AutoPGD); then, unless `bisect` is 0, after the bisection: the distances above, but for
            failures, which are infinite here and there the distance of the last iterate.
    """

    points: Tensor
    distance: Tensor
    success: Tensor
    other: Tensor
    attack: tuple[str, ...]
    radius: Tensor
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True)
class Search:
    """How to search.

    Attributes:
        attacks: any of pgd, cw, apgd, run in this order.
        radii, doublings: PGD's radii; the list times 2, 4, ..., 2^doublings goes on where it ends, for robust nets.
        steps: iterations of every attack; PGD's step is 2 radius / steps.
        learning_rate, searches, constant: CW's Adam, how often its constant is searched, and where that starts.
        eps: AutoPGD's radius.
        track_closest: of AutoPGD keep the closest success; False keeps the last, as the reference does.
        bisect: halvings of the segment from the image to the points found; 0 leaves them where they are.
        polish: moves of the point found to the foot of its tangent plane, each bisected too; none where bisect is 0.
        seed: of the random starts.
    """

    attacks: tuple[str, ...] = ("pgd",)
    radii: tuple[float, ...] = RADII
    doublings: int = 2
    steps: int = 40
    learning_rate: float = 0.01
    searches: int = 9
    constant: float = 1e-3
    eps: float = 1.15
    track_closest: bool = True
    bisect: int = 10
    polish: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.attacks:
            if name not in ATTACKS:
                raise unknown("attack", name, ATTACKS)
        if not self.attacks or not self.radii or min(self.radii) <= 0 or self.steps < 1:
            raise AttrsensError("a boundary search needs an attack, positive radii and at least one step")

    @property
    def ladder(self) -> list[float]:
        """Every radius, ascending."""
        rungs = sorted(self.radii)
        for doubling in range(1, self.doublings + 1):
            rungs += [r * 2**doubling for r in sorted(self.radii) if r * 2**doubling > rungs[-1]]
        return rungs

    @property
    def rounds(self) -> int:
        """Runs of PGD that find the first radius to succeed."""
        return len(self.ladder).bit_length()

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the parts of a search, in order."""
        return (*self.attacks, "bisect") if self.bisect else self.attacks

    @property
    def passes(self) -> tuple[int, int]:
        """(forward, backward) passes an image."""
        both = {"pgd": self.rounds * self.steps, "cw": self.searches * self.steps, "apgd": 2 * (self.steps + 1)}
        ends = {"pgd": self.rounds}
        backward = sum(both[name] for name in self.attacks)
        forward = backward + sum(ends.get(name, 0) for name in self.attacks)
        polish = self.polish if self.bisect else 0
        return forward + self.bisect * (len(self.attacks) + 1) + polish * (2 + self.bisect), backward + polish

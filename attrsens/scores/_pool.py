"""The one pool of perturbed explanations that sensitivity and stability draw from."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from attrsens.scores._case import Ask, Case, Key, Look, Maps, NoValue, stack
from attrsens.spec import Param

if TYPE_CHECKING:
    from torch import Tensor

COPIES = Param("perturbed copies", min=1, max=100_000, scale="ratio", range=(10, 200), source="HSE 4: 50")
RADIUS = Param(
    "half-width of the cube, or sd of the normal draws, that copies come from, in units of the space",
    min=0,
    scale="ratio",
    range=(0.02, 0.4),
    source="HSE 4: 0.1; Yeh et al. 2019: 0.2; SMO: sd 0.1",
)
BALL = Param(
    "linf: uniform in the cube; gaussian: normal with sd radius", choices=("linf", "gaussian"), source="HSE 4; SMO"
)
SPACE = Param(
    "tensor whose units the radius has: pixels in [0, 1] or normalised",
    choices=("pixel", "normalized"),
    source="methods 1.1",
)
SEED = Param("seed of the copies", min=0, sweep=(0, 1, 2, 3, 4), reference=0)
DRAWS = Param(
    "what the method itself draws: common: for a copy as for the image; fresh: for every copy anew",
    choices=("common", "fresh"),
    source="science C-6",
)
DRAWS_OR_ALONE = replace(
    DRAWS, help=f"{DRAWS.help}; alone: anew, and the image stays as it is", choices=(*DRAWS.choices, "alone")
)

COPIES_DRAWN = (
    "y = x + u, u {ball} (linf: uniform in +-radius; gaussian: normal, sd radius), radius {radius} in {space} units, "
    "not clipped, seed {seed}"
)
OWN_DRAWS = "the method's own draws: {draws}"


@dataclass(frozen=True)
class Pool:
    """Copies y_i = x + u_i of an image, not clipped. Copy i is the same for every n.

    Attributes:
        radius, ball: u is uniform in a cube of this half-width (linf), or normal with this sd (gaussian).
        space: pixel or normalized, whose units the radius has.
        draws: common, fresh or alone: what the method draws for a copy; alone leaves the image as it is.
    """

    case: Case
    n: int
    radius: float
    ball: str
    space: str
    seed: int
    draws: str = "common"

    @property
    def key(self) -> Key:
        return "pool", self.ball, self.radius, self.space, self.seed

    @property
    def fresh(self) -> bool:
        """Whether copies draw for themselves; there is no question where the method draws nothing."""
        e = self.case.explainer
        drawing = any(h.name == "seed" for spec in (e.spec, *(w for w, _ in e.wrappers)) for h in spec.hypers)
        return drawing and self.draws != "common"

    def moves(self, indices: range) -> Tensor:
        """The u_i, (len(indices), C, H, W) on the CPU, in units of the space."""
        import torch

        shape = tuple(self.case.pixels.shape)
        stream = self.case.stream(self.seed, f"pool {self.ball}")
        if self.ball == "gaussian":
            return torch.from_numpy(stream.normal(indices, shape)).mul_(self.radius)
        return torch.from_numpy(stream.uniform(indices, shape)).mul_(2).sub_(1).mul_(self.radius)

    def copies(self, indices: range) -> Tensor:
        """The y_i in pixels, on the device."""
        x = self.case.pixels
        return self.moves(indices).to(x).mul_(self.case.unit(self.space)).add_(x)

    def maps(self) -> Generator[Ask, Any, Tensor]:
        """Asks for the copies' maps, (n, H, W) or (n, C, H, W)."""
        x = self.case.pixels
        if self.draws != "alone":
            answer = yield Maps(self.key, stack(self.n, self.copies, x), fresh=self.fresh, pool=True)
        elif self.fresh:
            still = stack(self.n, lambda indices: x.expand(len(indices), *x.shape), x)
            answer = yield Maps(("pool", "alone"), still, fresh=True, pool=True)
        else:  # nothing changes at all
            answer = self.case.map.expand(self.n, *self.case.map.shape)
        maps: Tensor = answer
        return maps

    def logits(self) -> Generator[Ask, Any, Tensor]:
        """Asks for the copies' logits, (n, classes)."""
        if self.draws == "alone":
            return self.case.logits.expand(self.n, -1)
        logits: Tensor = yield Look(self.key, stack(self.n, self.copies, self.case.pixels), "logits")
        return logits

    def features(self) -> Generator[Ask, Any, Tensor]:
        """Asks for the penultimate features of the image itself, in row 0, and of the copies, (1 + n, features)."""
        import torch

        x = self.case.pixels

        def build(indices: range) -> Tensor:
            later = range(max(indices.start - 1, 0), indices.stop - 1)
            return torch.cat([x[None]] * (indices.start == 0) + [self.copies(later)] * bool(later))

        features: Tensor = yield Look((*self.key, "after the image"), stack(1 + self.n, build, x), "features")
        return features


def given_map(case: Case) -> Tensor:
    """The judged map, flat and wide.

    Raises:
        NoValue: it is zero everywhere.
    """
    flat = case.map.flatten().double()
    if not bool(flat.any()):
        raise NoValue("the map is zero everywhere")
    return flat


def changes_of(pool: Pool, definition: str) -> Generator[Ask, Any, list[float]]:
    """The distance of each copy's map from the image's."""
    if definition != "plain":
        given_map(pool.case)
    maps = yield from pool.maps()
    return distances(maps, pool.case.map, definition)


def distances(maps: Iterable[Tensor], base: Tensor, definition: str) -> list[float]:
    """L2 over all entries, in double precision: of both at unit length (hse), over the base's length (yeh, smo), or as
    it is (plain).

    Raises:
        NoValue: a length is 0.
    """
    first = base.flatten().double()
    length = float(first.norm())
    if definition != "plain" and length == 0:
        raise NoValue("the map is zero everywhere")
    out = []
    for heatmap in maps:
        other = heatmap.flatten().double()
        if definition == "hse":
            norm = float(other.norm())
            if norm == 0:
                raise NoValue("the map of a copy is zero everywhere, so it has no unit length")
            out.append(float((other / norm - first / length).norm()))
        else:
            out.append(float((other - first).norm()) / (1.0 if definition == "plain" else length))
    return out

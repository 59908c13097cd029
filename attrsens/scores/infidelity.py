"""Infidelity: how far a map is from telling what a change of the image does to the output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from attrsens.scores._case import Answers, Case, Finding, Key, Look, NoValue, stack
from attrsens.spec import SCORES, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.seeds import Stream


@SCORES(
    "infidelity",
    version=1,
    formula="mean over {n} perturbations I of (f(x) - f(x - I) - b I.Phi)^2, f the class's {output}, b {scaling} "
    "(free: least squares; positive: at least 0; none: 1), divided by the mean of (f(x) - f(x - I))^2: {normalize}; "
    "I {perturbation}: square: sides from {side_min} to {side_max} of the image's, filled with {fill}, I.Phi the sum "
    "of Phi there, times what is removed: {times_x}; gaussian: clip(x + {sigma} N(0, 1), x - 1, x)",
    direction="lower",
    range=(0.0, None),
    source="Yeh et al. 2019; SMO; methods 4.6; science C-9",
    cost="n F",
    judges="map",
    floor="phase",
    reduce="none",
    unit="output squared; none with normalize",
)
def infidelity(
    case: Case,
    *,
    perturbation: Annotated[
        str,
        Param(
            "square: a square is filled; gaussian: every element is replaced by noise above black (Yeh)",
            choices=("square", "gaussian"),
            sweep=("square", "gaussian"),
            reference="square",
            source="methods 4.6",
        ),
    ] = "square",
    n: Annotated[
        int,
        Param(
            "squares drawn out of all, without repeats (0: all of them); gaussian: draws",
            min=0,
            max=1_000_000,
            scale="ratio",
            range=(100, 10_000),
            source="design 4; SMO and Yeh: all",
        ),
    ] = 1000,
    side_min: Annotated[
        float,
        Param(
            "side of the smallest square, share of the image's shorter side, rounded to pixels",
            min=1e-4,
            max=1,
            scale="ratio",
            range=(0.03, 0.4),
            source="SMO code: 29 of 224; Yeh: 1 of 28",
        ),
    ] = 0.1295,
    side_max: Annotated[
        float,
        Param(
            "side of the largest square, likewise; squares of every side between are used",
            min=1e-4,
            max=1,
            scale="ratio",
            range=(0.03, 0.4),
            source="SMO code: 30 of 224; Yeh: 10 of 28",
        ),
    ] = 0.1339,
    stride: Annotated[
        int,
        Param(
            "step between places of a square, pixels", min=1, scale="ratio", range=(1, 16), source="SMO code", pixels=1
        ),
    ] = 1,
    fill: Annotated[
        str,
        Param(
            "what a square is filled with: mean is zero of the normalised tensor",
            choices=("mean", "black", "grey", "white"),
            sweep=("mean", "black"),
            reference="mean",
            source="SMO code",
        ),
    ] = "mean",
    times_x: Annotated[
        bool,
        Param(
            "square: the map times what is removed, x - fill (Yeh; for gradients), not the map alone (SMO; for "
            "attributions)",
            source="methods 4.6",
        ),
    ] = False,
    sigma: Annotated[
        float, Param("gaussian: sd of the noise, pixel units", min=0, scale="ratio", range=(0.05, 0.5), source="Yeh")
    ] = 0.2,
    scaling: Annotated[
        str,
        Param(
            "factor of the map: free: the best one, of either sign; positive: the best one of at least 0; none: 1",
            choices=("free", "positive", "none"),
            sweep=("free", "positive", "none"),
            reference="free",
            source="methods 4.6, science C-9",
        ),
    ] = "free",
    normalize: Annotated[
        bool, Param("divide by the mean of (f(x) - f(x - I))^2, to compare networks", source="science C-9")
    ] = False,
    output: Annotated[
        str, Param("what f is", choices=("logit", "prob"), sweep=("logit", "prob"), reference="logit", source="SMO")
    ] = "logit",
    seed: Annotated[int, Param("seed of the draws", min=0, sweep=(0, 1, 2, 3, 4), reference=0)] = 0,
) -> Answers:
    """Mean square of what the map, times a factor, fails to tell of the output's fall under perturbations.

    E[(df - b I.Phi)^2], df = f(x) - f(x - I); with scaling=free b = E[df I.Phi] / E[(I.Phi)^2], 0 where that is 0 / 0.
    Then a map and its negative have the same value, which grows with the square of the output; normalize makes it a
    share in [0, 1] (with scaling=none it may exceed 1). Yeh et al. 2019, definition 2.1; methods 4.6; science C-9.

    I.Phi is taken in the space that the map refers to. square: I is the indicator of the square in every channel, which
    is right for attributions (x times a slope), or with times_x what the square removes, which is right for slopes. A
    map without channels counts as shared out evenly among them, so that a square sums it once. The images do not depend
    on the map: all maps of an image share n passes.

    Details: beta and its sign, `unscaled` (b = 1), `normalized`, and `change`, the mean of df^2.

    Raises:
        NoValue: side_min above side_max; n = 0 for gaussian; normalize, and no perturbation changes the output.
    """
    if perturbation == "gaussian":
        probes: _Squares | _Noise = _Noise(case, n, sigma, case.stream(seed, "infidelity noise"))
        key: Key = ("infidelity gaussian", sigma, seed)
    else:
        probes = _Squares(case, n, (side_min, side_max), stride, fill, times_x, case.stream(seed, "infidelity squares"))
        key = "infidelity square", *probes.sides, stride, fill, seed
    scores = yield Look(key, stack(probes.count, probes.images, case.pixels), output)
    told = probes.products(case.map)
    fell = case.clean[output] - scores.double()
    change, power, overlap = (float((a * b).mean()) for a, b in ((fell, fell), (told, told), (fell, told)))
    best = overlap / power if power > 0 else 0.0
    beta = {"free": best, "positive": max(best, 0.0), "none": 1.0}[scaling]
    value = float((fell - beta * told).square().mean())
    share = value / change if change > 0 else None
    if normalize and share is None:
        raise NoValue("no perturbation changes the output")
    details = {
        "beta": beta,
        "beta_sign": float((beta > 0) - (beta < 0)),
        "unscaled": float((fell - told).square().mean()),
        "normalized": share,
        "change": change,
    }
    return Finding(share if normalize and share is not None else value, details=details)


class _Squares:
    """Squares of an image, each filled with a colour.

    Raises:
        NoValue: the smallest is larger than the largest.
    """

    def __init__(
        self, case: Case, n: int, shares: tuple[float, float], stride: int, fill: str, times_x: bool, stream: Stream
    ) -> None:
        import numpy as np
        import torch

        self.case, self.times_x, self.colour = case, times_x, case.colour(fill)
        height, width = case.pixels.shape[-2:]
        shorter = min(height, width)
        low, high = (max(1, int(share * shorter + 0.5)) for share in shares)
        self.sides = low, high
        if low > high:
            raise NoValue(f"side_min is {low} pixels, more than side_max, {high}")
        grids = []  # side, top, left of every square
        for side in range(low, high + 1):
            tops, lefts = np.arange(0, height - side + 1, stride), np.arange(0, width - side + 1, stride)
            places = np.stack(np.meshgrid(tops, lefts, indexing="ij"), -1).reshape(-1, 2)
            grids.append(np.column_stack([np.full(len(places), side), places]))
        squares = np.concatenate(grids)
        order = np.argsort(stream.uniform([0], (len(squares),))[0], kind="stable")  # the first ones for every n
        self.squares = torch.from_numpy(squares[order[: n or None]])
        self.count = len(self.squares)

    def images(self, at: range) -> Tensor:
        import torch

        x = self.case.pixels
        side, top, left = self.squares[at.start : at.stop].to(x.device).T.reshape(3, -1, 1, 1)
        rows = torch.arange(x.shape[-2], device=x.device).reshape(1, -1, 1)
        columns = torch.arange(x.shape[-1], device=x.device).reshape(1, 1, -1)
        inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
        return torch.where(inside[:, None], self.colour, x)

    def products(self, heatmap: Tensor) -> Tensor:
        """I.Phi of every square, from the integral image."""
        import torch.nn.functional as F

        phi = heatmap.double()
        if self.times_x:
            removed = ((self.case.pixels - self.colour) / self.case.unit(self.case.space)).cpu().double()
            phi = phi * removed if phi.dim() == 3 else phi * removed.mean(0)
        plane = phi.sum(0) if phi.dim() == 3 else phi
        total = F.pad(plane, (1, 0, 1, 0)).cumsum(0).cumsum(1)
        side, top, left = self.squares.T
        bottom, right = top + side, left + side
        return total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]


class _Noise:
    """Images in which every element is noise above black: x - I = clip(-sigma z, 0, 1), z normal.

    Raises:
        NoValue: n is 0.
    """

    def __init__(self, case: Case, n: int, sigma: float, stream: Stream) -> None:
        if n == 0:
            raise NoValue("n=0 means all squares; there is no end to gaussian perturbations")
        self.case, self.count, self.sigma, self.stream = case, n, sigma, stream

    def images(self, at: range) -> Tensor:
        x = self.case.pixels
        return x - self._removed(at)

    def products(self, heatmap: Tensor) -> Tensor:
        """I.Phi of every draw, which is made again."""
        import torch

        phi = heatmap if heatmap.dim() == 3 else (heatmap / len(self.case.pixels)).expand(self.case.pixels.shape)
        weights = (phi.double() / self.case.unit(self.case.space).cpu()).flatten()
        parts = [range(i, min(i + 16, self.count)) for i in range(0, self.count, 16)]
        return torch.cat([self._removed(at).cpu().flatten(1).double() @ weights for at in parts])

    def _removed(self, at: range) -> Tensor:
        """I."""
        import torch

        x = self.case.pixels
        noise = self.sigma * x.new_tensor(self.stream.normal(at, tuple(x.shape)))
        return torch.minimum(torch.maximum(x + noise, x - 1), x)

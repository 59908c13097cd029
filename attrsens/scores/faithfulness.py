"""Whether a map's sums over features go with what changing these features does to the output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from attrsens.scores._case import Answers, Case, Finding, Look, NoValue, stack
from attrsens.spec import SCORES, Param

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@SCORES(
    "faithfulness",
    version=1,
    formula="Pearson correlation over {n} random subsets S of {share} of the elements (a channel of a pixel is one) "
    "between sum_S e Phi and f(x) - f(x - e on S), f the class's {output}, e {perturbation} (uniform: U(-0.5, 0.5) cut "
    "to [x - 1, x]; zero: e = x, and the sum is of Phi alone)",
    direction="higher",
    range=(-1.0, 1.0),
    source="Yeh et al. 2019 (HSE) 4; methods 4.9; science C-4",
    cost="n F",
    judges="map",
    floor="shuffle",
    reduce="none",
)
def faithfulness(
    case: Case,
    *,
    n: Annotated[
        int, Param("subsets", min=2, max=1_000_000, scale="ratio", range=(100, 2000), source="HSE 4: 500")
    ] = 500,
    share: Annotated[
        float,
        Param(
            "share of the C x H x W elements in a subset, rounded to elements, at least one",
            min=0,
            max=1,
            scale="ratio",
            range=(0.05, 0.5),
            source="HSE 4: 300 of 784 and 500 of 3072 elements",
        ),
    ] = 0.15,
    perturbation: Annotated[
        str,
        Param(
            "uniform: noise from U(-0.5, 0.5), cut so that pixels stay in [0, 1] (HSE); zero: black (Ancona et al.)",
            choices=("uniform", "zero"),
            sweep=("uniform", "zero"),
            reference="uniform",
            source="methods 4.9",
        ),
    ] = "uniform",
    output: Annotated[
        str, Param("what f is", choices=("logit", "prob"), sweep=("logit", "prob"), reference="logit", source="HSE 4")
    ] = "logit",
    seed: Annotated[int, Param("seed of the draws", min=0, sweep=(0, 1, 2, 3, 4), reference=0)] = 0,
) -> Answers:
    """Correlation between a map's sums over random features and the output's fall when these change.

    corr over S of (sum_S e_i Phi_i, f(x) - f(x - e_S)). uniform weighs a feature by its own change, which suits slopes:
    on a linear network 1 for the weights w, below 1 for x w. zero removes it, e = x, and adds up Phi without weights,
    which suits attributions: 1 for x w. Yeh et al. 2019, "On the (In)fidelity and Sensitivity of Explanations", 4;
    methods 4.9; science C-4. e is turned into the space that the map refers to.

    Subset i and its noise are functions of seed, image and i, drawn for the images and again for the sums; neither
    depends on the map: all maps of an image share n passes. A map without channels counts alike in each of them.

    Raises:
        NoValue: the sums, or the falls, are all the same.
    """
    import torch

    probes = _Subsets(case, share, perturbation, seed)
    key = "faithfulness", share, perturbation, seed
    scores = yield Look(key, stack(n, probes.images, case.pixels), output)
    fell = case.clean[output] - scores.double()
    told = torch.from_numpy(probes.sums(case.map, n))
    correlation = _pearson(told, fell)
    if correlation is None:
        raise NoValue("the map's sums over the subsets are all the same" if _flat(told) else "the output never changes")
    return correlation


class _Subsets:
    """Random subsets of an image's elements, and what is taken off each."""

    def __init__(self, case: Case, share: float, perturbation: str, seed: int) -> None:
        self.case, self.zero = case, perturbation == "zero"
        self.stream = case.stream(seed, "faithfulness")
        self.x: NDArray[np.float32] = case.pixels.cpu().numpy().ravel()
        self.size = max(1, int(share * len(self.x) + 0.5))
        self.kept: dict[int, tuple[NDArray[np.intp], NDArray[np.float32]]] = {}

    def of(self, index: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """`draw`, and the first ones kept from the images to the sums, as many as 64 MB hold."""
        found = self.kept.get(index) or self.draw(index)
        if index not in self.kept and len(self.kept) * self.size * 12 < 64 * 10**6:
            self.kept[index] = found
        return found

    def draw(self, index: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """(elements, what is taken off each, in pixel units)."""
        import numpy as np

        total, few = len(self.x), min(self.size, len(self.x) - self.size)
        draws = int(-total * np.log1p(-few / total) + 8 * np.sqrt(few)) + 8  # far more than few distinct ones take
        u = self.stream.uniform([index], (self.size + draws,))[0]
        chosen = _distinct((u[self.size :].astype(np.float64) * total).astype(np.intp), total)[:few]
        if few < self.size:  # more than half of them: those that were not drawn
            left = np.ones(total, bool)
            left[chosen] = False
            chosen = np.flatnonzero(left)
        x = self.x[chosen]
        return chosen, x if self.zero else np.clip(u[: self.size] - np.float32(0.5), x - 1, x)

    def images(self, at: range) -> Tensor:
        import numpy as np
        import torch

        batch = np.repeat(self.x[None], len(at), 0)
        for row, index in zip(batch, at, strict=True):
            chosen, off = self.of(index)
            row[chosen] -= off
        return torch.from_numpy(batch).to(self.case.pixels).reshape(len(at), *self.case.pixels.shape)

    def sums(self, heatmap: Tensor, n: int) -> NDArray[np.float64]:
        """sum_S e Phi of the first n subsets; without e for zero."""
        import numpy as np

        phi = heatmap.double().expand(self.case.pixels.shape)
        if not self.zero:
            phi = phi / self.case.unit(self.case.space).cpu().double()
        flat = phi.numpy().ravel()
        draws = map(self.of, range(n))  # no BLAS: its threads wait longer for each other than this takes
        return np.array([(flat[chosen] * (1 if self.zero else off)).sum() for chosen, off in draws])


def _distinct(values: NDArray[np.intp], total: int) -> NDArray[np.intp]:
    """The values, each below `total`, where they first occur, in order: drawn at random, a random subset."""
    import numpy as np

    place, first = np.arange(len(values)), np.empty(total, np.intp)
    first[values[::-1]] = place[::-1]  # of equal ones the earliest is written last
    firsts: NDArray[np.intp] = values[first[values] == place]
    return firsts


def _pearson(a: Tensor, b: Tensor) -> float | None:
    """None where one of them is constant."""
    if _flat(a) or _flat(b):
        return None
    a, b = a - a.mean(), b - b.mean()
    return max(-1.0, min(1.0, float(a @ b / (a.norm() * b.norm()))))


def _flat(values: Tensor) -> bool:
    return bool((values == values[0]).all())


@SCORES(
    "completeness",
    version=1,
    formula="|sum of Phi over pixels and channels - (f(x) - f(x'))|, x' the method's own baseline, f the output it "
    "explains",
    direction="lower",
    range=(0.0, None),
    source="Sundararajan et al. 2017; methods 2.6; science 5",
    cost="none; with a baseline colour 1 F",
    judges="none",
    sign="signed",
    reduce="none",
    unit="the method's output",
)
def completeness(case: Case) -> Answers:
    """How far a map is from adding up to the change of the output since the method's baseline.

    |sum Phi - (f(x) - f(x'))|, in units of the output that the method explains. Where the baseline is a colour, it is
    computed from the signed map before reduction, wrapped or not, and `relative` is the gap over |f(x) - f(x')|. Else
    it is the gap that the method notes of its own run: over a path from a picture, noise or a boundary point, over
    coalitions, over several paths. Sundararajan et al. 2017; methods 2.6; science 5.

    Raises:
        NoValue: the method has no baseline; magnitudes were averaged (sign=abs_sample); a wrapper changed the map and
            the baseline is no colour.
    """
    parameters = case.explainer.complete()
    if parameters["sign"] == "abs_sample":
        raise NoValue("averaged magnitudes add up to nothing")
    colour = parameters.get("baseline")
    if colour in ("black", "white", "grey", "mean"):
        start = case.colour(str(colour)).expand_as(case.pixels)
        image = stack(1, lambda at: start.expand(len(at), *start.shape), start)
        (score,) = yield Look(("hidden", colour), image, case.method_output)
        change = case.clean[case.method_output] - float(score)
        gap = abs(float(case.raw.double().sum()) - change)
        return Finding(gap, details={"relative": gap / abs(change) if change else None})
    noted = case.notes.get("completeness_gap")
    if noted is None:
        raise NoValue("the method has no baseline whose output its map should add up to")
    if case.explainer.wrappers:
        raise NoValue("the noted gap is of the map before it was wrapped")
    return Finding(noted, details={"relative": None})

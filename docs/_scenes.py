"""Small explanations whose scores are known in closed form: networks, images, maps and regions of docs/metrics.py."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import attrsens
from attrsens.engine.bench import Bench, Job, Outcome
from attrsens.engine.cell import parse_call
from attrsens.engine.compute import explainer
from attrsens.engine.judge import case_of, judge
from attrsens.explainer import Raw
from attrsens.models.batches import Passes
from attrsens.regions import Region, Thing
from attrsens.scores._case import Case
from attrsens.scores._pool import Pool
from attrsens.seeds import Stream
from attrsens.spec import SCORES

Array = NDArray[np.float64]
Said = float | bool | str  # a number, yes or no, or that there is none
SIDE = 4
COUNT = SIDE * SIDE
RAMP: Array = np.arange(1, COUNT + 1).reshape(SIDE, SIDE) / 32.0  # exact in binary, as all numbers here
HALF: Array = np.full((SIDE, SIDE), 0.5)
ONES: Array = np.ones((SIDE, SIDE))
BOX: Array = np.pad(np.ones((2, 2)), 1)  # the middle 2 x 2 pixels


def one_hot(row: int = 1, column: int = 1, value: float = 1.0) -> Array:
    found = np.zeros((SIDE, SIDE))
    found[row, column] = value
    return found


def mixed(seed: int = 1) -> Array:
    """Normal numbers of both signs, the same ones every time."""
    draws = Stream(seed, "docs", "weights").normal([0], (SIDE, SIDE))[0]
    return np.round(draws.astype(np.float64) * 64) / 64


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square()


class Exp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


def top(weight: Array, bias: float = 0.0) -> nn.Linear:
    """Logits (weight . x + bias, 0)."""
    linear = nn.Linear(weight.size, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(np.stack([weight.ravel(), 0 * weight.ravel()])))
        linear.bias.copy_(torch.tensor([bias, 0.0]))
    return linear


def linear(weight: Array, bias: float = 0.0) -> nn.Module:
    """f(x) = w . x + b, and a second logit that is 0, as in every network here."""
    return nn.Sequential(nn.Flatten(), top(weight, bias))


def bowl(weight: Array) -> nn.Module:
    """f(x) = sum of w x^2, with slopes 2 w x."""
    return nn.Sequential(nn.Flatten(), Square(), top(weight))


def exponential(weight: Array) -> nn.Module:
    """f(x) = sum of w e^x, with slopes w e^x."""
    return nn.Sequential(nn.Flatten(), Exp(), top(weight))


def hinge(weight: Array) -> nn.Module:
    """f(x) = max(0, w . x)."""
    inner = nn.Linear(weight.size, 1)
    with torch.no_grad():
        inner.weight.copy_(torch.from_numpy(weight.reshape(1, -1)))
        inner.bias.zero_()
    return nn.Sequential(nn.Flatten(), inner, nn.ReLU(), top(np.ones((1, 1))))


class Brightness(nn.Module):
    """Sorts images of any size by their mean: class k for k / 16 to (k + 1) / 16, and class 16 never."""

    def forward(self, x: Tensor) -> Tensor:
        centres = (torch.arange(16, device=x.device, dtype=x.dtype) + 0.5) / 16
        near = -1000 * (x.mean((1, 2, 3))[:, None] - centres).square()
        return torch.cat([near, near.new_full((len(x), 1), -1e4)], 1)


@dataclass(frozen=True)
class Scene:
    """An image of one channel, a network, and the map in question.

    Attributes:
        net: the network, logits out; the image goes in as it is.
        method: whose map is judged, unless `map` is given.
        map: the map itself.
        region: 1 where the object is.
        target: the explained class.
    """

    net: nn.Module
    image: Array
    method: str = "grad"
    map: Array | None = None
    region: Array | None = None
    target: int = 0

    @cached_property
    def classifier(self) -> attrsens.Classifier:
        return attrsens.Classifier(self.net.eval(), [0.0], [1.0], crop=len(self.image), device="cpu")

    @property
    def pixels(self) -> Tensor:
        return torch.from_numpy(self.image).float()[None]

    @property
    def annotated(self) -> Region | None:
        if self.region is None:
            return None
        return Region("mask", (Thing("object", None, self.region.astype(np.float32)),))

    def case(self, metric: str) -> Case:
        """The explanation as the score sees it."""
        f, x = self.classifier, self.pixels
        bound = explainer(f, parse_call(self.method), self.target, "")
        raw = bound.raw(x) if self.map is None else Raw(torch.from_numpy(self.map).float()[None], {}, Passes())
        logits = f.view().logits(x[None])[0]
        return case_of(bound, parse_call(metric, registry=SCORES), x, logits, raw, self.annotated)

    def ours(self, metric: str) -> float:
        """What attrsens says."""
        if self.map is None:
            call = (self.classifier, self.pixels, self.target, self.method, [metric])
            return _value(judge(*call, annotated=self.annotated)[0])
        job = Job(self.case(metric), parse_call(metric, registry=SCORES))
        Bench(self.classifier, _nothing).settle([job])
        return _value(job.outcome)

    def moves(self, n: int = 50, radius: float = 0.1, ball: str = "linf") -> Array:
        """The u_i of the pool of copies, (n, H, W)."""
        drawn = Pool(self.case("gini"), n, radius, ball, "pixel", 0).moves(range(n))
        return drawn[:, 0].double().numpy()

    # -- the same in double precision, without attrsens --------------------------------------------------------

    @cached_property
    def _wide(self) -> nn.Module:
        return copy.deepcopy(self.net).double().eval()

    def logits(self, images: Array) -> Array:
        """(n, classes) of (n, H, W)."""
        with torch.no_grad():
            found: Array = self._wide(torch.from_numpy(np.asarray(images))[:, None]).numpy()
        return found

    def f(self, images: Array) -> Array:
        """(n,), the target's logit."""
        return self.logits(images)[:, self.target]

    def phi(self, image: Array | None = None) -> Array:
        """The map that is given, or the gradient."""
        if self.map is not None:
            return self.map
        x = torch.from_numpy(self.image if image is None else image)[None, None].requires_grad_()
        (slope,) = torch.autograd.grad(self._wide(x)[0, self.target], x)
        return np.asarray(slope[0, 0].numpy(), np.float64)


def _value(outcome: Outcome | None) -> float:
    if outcome is None or outcome.value is None:
        raise SystemExit(f"no value: {outcome.reason if outcome else 'not settled'}")
    return outcome.value


def _nothing(*_: Any) -> Any:
    raise AssertionError("a given map asks for no other")


@dataclass(frozen=True)
class Other:
    """What somebody else says.

    Attributes:
        name: the function and what it was given.
        call: computes it.
        differs: why it is not the true value; empty where it is.
    """

    name: str
    call: Callable[[], Said]
    differs: str = ""


@dataclass(frozen=True)
class Row:
    """A metric on a fixture.

    Attributes:
        metric: the expression.
        fixture: network, image and map, in a few words.
        true: the true value, and `why` in a phrase.
        ours, paper, captum, quantus: what they say; paper is its formula, typed in NumPy.
    """

    metric: str
    fixture: str
    true: float
    why: str
    ours: Callable[[], float]
    paper: Other
    captum: Other | None = None
    quantus: Other | None = None
    tolerance: float = 1e-6

    @property
    def name(self) -> str:
        return self.metric.partition(":")[0]


def formula(call: Callable[[], float], name: str = "") -> Other:
    """A paper's."""
    return Other(name, call)


def row(
    scene: Scene,
    metric: str,
    fixture: str,
    true: float,
    why: str,
    paper: Other,
    captum: Other | None = None,
    quantus: Other | None = None,
    tolerance: float = 1e-6,
) -> Row:
    """Of a score of the scene's map."""
    return Row(metric, fixture, true, why, partial(scene.ours, metric), paper, captum, quantus, tolerance)

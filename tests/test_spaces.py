"""What `space=normalized` means, for every method, whatever it computes: three relations and no method's name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from test_contract import cheap, refusal
from torch import Tensor, nn
from toys import SmallNet, uniform

import attrsens
from attrsens import METHODS
from attrsens.explainer import Explainer
from attrsens.images import Preprocess
from attrsens.spec import Spec

MEAN, STD = (0.5, 0.375, 0.25), (0.25, 0.125, 0.5)
SMALL = {"search_steps": 4, "doublings": 2, "segments": 6, "k": 3}
NAMES = list(METHODS)


@dataclass
class Questions:
    """What a method wanted to know of pixels: colours by name, and whether anything else.

    The mean is the zero of the normalised tensor, so that its colour tells nothing of pixels; and under another
    normaliser it is another colour, so that beside questions about pixels (superpixels before the mean) neither
    relation is due.
    """

    colours: set[str] = field(default_factory=set)
    pixels: bool = False

    @property
    def none(self) -> bool:
        return not self.pixels and self.colours <= {"mean"}

    @property
    def any(self) -> bool:
        return "mean" not in self.colours and not self.none


class Asked(attrsens.Classifier):
    """A classifier whose views write down what they are asked of pixels."""

    questions = Questions()
    _facts: Preprocess

    def encode(self, pixels: Tensor) -> Tensor:
        self.questions.pixels = True
        return super().encode(pixels)

    def decode(self, images: Tensor) -> Tensor:
        self.questions.pixels = True
        return super().decode(images)

    def colour(self, name: str) -> Tensor:
        before = self.questions.pixels
        found = super().colour(name)  # which encodes
        self.questions.pixels = before
        self.questions.colours.add(name)
        return found

    @property
    def preprocess(self) -> Preprocess:
        self.questions.pixels = True
        return self._facts

    @preprocess.setter
    def preprocess(self, facts: Preprocess) -> None:
        self._facts = facts


class Moved(nn.Module):
    """A network over coordinates that start elsewhere."""

    def __init__(self, net: nn.Module, by: Tensor) -> None:
        super().__init__()
        self.net, self.by = net, by.reshape(-1, 1, 1)

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z + self.by)


def classifier(net: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], kind=attrsens.Classifier):
    f = kind(net, mean, std, crop=16, device="cpu")
    f.class_count = 5
    return f


def explain(spec: Spec, f: attrsens.Classifier, x: Tensor, parameters: dict[str, object], **more: object) -> Tensor:
    return Explainer(f, spec, 1, spec.complete(parameters | more), "a").raw(x).map


def small(spec: Spec, **more: object) -> dict[str, object]:
    return cheap(spec, **{h.name: SMALL[h.name] for h in spec.hypers if h.name in SMALL} | more)


def variants(spec: Spec, output: str) -> Iterator[dict[str, object]]:
    """A small run, and one with every colour that can stand behind the image or where a path begins."""
    yield small(spec, output=output)
    for hyper in spec.own():
        if "mean" in hyper.param.choices:
            for choice in sorted(set(hyper.param.choices) - {hyper.default, "image"}):
                yield small(spec, output=output, **{hyper.name: choice})


def questions(spec: Spec, net: nn.Module, x: Tensor, parameters: dict[str, object]) -> Questions:
    """What a method asks of the classifier between the encoded image and its map."""
    f = classifier(net, MEAN, STD, Asked)
    explainer = Explainer(f, spec, 1, spec.complete(parameters | {"space": "normalized"}), "a")
    view = explainer.view()
    encoded = view.encode(x)
    view.questions = Questions()
    spec.function(view, encoded, 1, **explainer.own())
    return view.questions


def assert_same(found: Tensor, want: Tensor) -> None:
    """Up to float noise, that of a difference of two scores near 1 included."""
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-5 * float(want.abs().max()) + 3e-7)


@pytest.fixture(scope="module")
def x() -> Tensor:
    """Multiples of 1/256: with the means and powers of two here, coordinates are exact."""
    return (uniform(3, 16, 16, seed=9) * 256).floor() / 256


def is_refused(spec: Spec, x: Tensor, output: str) -> bool:
    """Whether the method has no rule for the output, as only those of the softmax may."""
    refused = refusal(spec, classifier(SmallNet("reused"), MEAN, STD), x, output=output)
    want = f"{spec.name}: output=prob has no rule for the softmax; use output=logit" if output == "prob" else None
    assert refused in (None, want)
    return refused is not None


@pytest.mark.parametrize("output", ["logit", "prob"])
@pytest.mark.parametrize("name", NAMES)
def test_the_normaliser_and_the_origin_do_not_show(name: str, output: str, x: Tensor) -> None:
    """In normalised space a method explains the network itself.

    One that asks nothing of pixels cannot tell the normalised image from an image of a classifier that does not
    normalise: both have the same map. For one that does (its box, its colours, its superpixels lie in pixels) the
    normaliser is a system of coordinates, whose origin is arbitrary: with another mean, and the network moved so that
    every picture keeps its logits, the map is the same.
    """
    spec = METHODS[name]
    if is_refused(spec, x, output):
        return
    net, mean, std = SmallNet("reused"), torch.tensor(MEAN), torch.tensor(STD)
    f, bare = classifier(net, MEAN, STD), classifier(net, (0.0,) * 3, (1.0,) * 3)
    other = (0.125, 0.625, 0.5)
    shifted = classifier(Moved(net, (torch.tensor(other) - mean) / std), other, STD)
    tried = 0
    for parameters in variants(spec, output):
        asked = questions(spec, net, x, parameters)
        normalised = explain(spec, f, x, parameters, space="normalized")
        if asked.none:
            encoded = (x - mean.reshape(-1, 1, 1)) / std.reshape(-1, 1, 1)
            assert_same(normalised, explain(spec, bare, encoded, parameters, space="pixel"))
        elif asked.any:
            assert_same(normalised, explain(spec, shifted, x, parameters, space="normalized"))
        tried += asked.none or asked.any
    assert tried > 0


@pytest.mark.parametrize("output", ["logit", "prob"])
@pytest.mark.parametrize("name", NAMES)
def test_the_unit_shows_as_a_power_of_itself(name: str, output: str, x: Tensor) -> None:
    """With a normaliser that only divides, a map in normalised space is that in pixel space times std^k: k is 0 for
    what scores or completes, 1 for gradients, 2 for their squares, and the same for every std."""
    spec = METHODS[name]
    if is_refused(spec, x, output):
        return
    parameters, degrees = small(spec, output=output), []
    for unit in (0.25, 0.5):
        f = classifier(SmallNet("reused"), (0.0,) * 3, (unit,) * 3)
        pixel, normalised = (explain(spec, f, x, parameters, space=s) for s in ("pixel", "normalized"))
        ratio = float(normalised.double().norm() / pixel.double().norm())
        degrees.append(next((k for k in (0, 1, 2) if abs(ratio / unit**k - 1) < 0.1), None))
        assert degrees[-1] is not None, ratio
        assert_same(normalised, pixel * unit ** degrees[-1])
    assert degrees[0] == degrees[1]

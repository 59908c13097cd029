"""Alignment with boundaries: closed forms on networks whose boundary is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import Linear, SmallNet, draw, uniform

import attrsens
from attrsens.engine.bench import Bench, Job
from attrsens.engine.cell import parse_call
from attrsens.engine.compute import explainer
from attrsens.engine.judge import case_of, judge
from attrsens.spec import SCORES

SIDE = 5


def one(f: attrsens.Classifier, x: Tensor, method: str, score: str = "alignment", target: int | None = None):
    target = top(f, x) if target is None else target
    (outcome,) = judge(f, x, target, method, [score], image="toy")
    return outcome


def top(f: attrsens.Classifier, x: Tensor) -> int:
    return int(f.view().logits(x[None])[0].argmax())


def plane() -> tuple[attrsens.Classifier, Tensor, Tensor]:
    """(classifier, weights (2, 3, side, side), an image a little inside class 0) of a linear network."""
    weight = draw(2, 3 * SIDE * SIDE, seed=4)
    x = 0.4 + 0.2 * uniform(3, SIDE, SIDE, seed=2)
    bias = -(weight @ x.flatten())
    bias[0] += 1.5
    f = attrsens.Classifier(Linear(weight, bias), [0.0] * 3, [1.0] * 3, crop=SIDE, device="cpu")
    return f, weight.reshape(2, 3, SIDE, SIDE), x


def step(weight: Tensor) -> Tensor:
    """x - x', from the image above, whose logits are (1.5, 0), to the plane where they are equal."""
    normal = weight[0] - weight[1]
    return 1.5 * normal / normal.norm() ** 2


def test_a_linear_network_is_aligned_with_its_boundary() -> None:
    """SM = BSM, everywhere the same gradient."""
    f, weight, x = plane()
    found = one(f, x, "grad", "alignment:normal=fc")
    assert found.value == pytest.approx(0, abs=1e-6)
    assert found.details["raw"] == found.details["relative"] == found.details["lipschitz_bound"] == 0
    assert found.details["distance"] == pytest.approx(float(step(weight).norm()), rel=0.02)


def test_the_normal_is_of_the_difference() -> None:
    """cos(w_c, w_c - w_c'), and ||w_c'|| / ||w_c||; the margin's own gradient does not change on the way."""
    f, weight, x = plane()
    own, normal = weight[0].flatten().double(), (weight[0] - weight[1]).flatten().double()
    found = one(f, x, "grad")
    assert found.value == pytest.approx(1 - float(own @ normal / own.norm() / normal.norm()), abs=1e-6)
    assert found.details["relative"] == pytest.approx(float(weight[1].norm() / weight[0].norm()), rel=1e-5)
    assert found.details["raw"] == pytest.approx(float(weight[1].norm()), rel=1e-5)
    assert found.details["lipschitz_bound"] == pytest.approx(0, abs=1e-3)
    for measure in ("cosine", "relative", "raw"):
        value = one(f, x, "grad", f"alignment:measure={measure}").value
        assert value == pytest.approx(found.details[measure])


class Bowl(nn.Module):
    """Logits (a/2 ||x - m||^2 - a r^2 / 2, 0): the boundary is a sphere of radius r around m."""

    def __init__(self, a: float, radius: float) -> None:
        super().__init__()
        self.a, self.radius = a, radius

    def forward(self, x: Tensor) -> Tensor:
        first = 0.5 * self.a * (((x - 0.5) ** 2).flatten(1).sum(1) - self.radius**2)
        return torch.stack([first, torch.zeros_like(first)], 1)


def bowl(a: float = 3.0, radius: float = 0.3) -> tuple[attrsens.Classifier, Tensor]:
    f = attrsens.Classifier(Bowl(a, radius), [0.0] * 3, [1.0] * 3, crop=SIDE, device="cpu")
    ray = draw(3, SIDE, SIDE, seed=8)
    return f, 0.5 + ray / ray.norm() * 0.8


@pytest.mark.parametrize("normal", ["fc", "diff"])
@pytest.mark.parametrize("a", [3.0, 30.0])
def test_a_sphere(normal: str, a: float) -> None:
    """g = a (x - m): same direction at x', r against .8 long; the bound of its Lipschitz constant is a, exactly.

    Trap C-7: the raw distance grows with a, and nothing else does.
    """
    f, x = bowl(a)
    found = one(f, x, "grad", f"alignment:normal={normal}")
    assert found.value == pytest.approx(0, abs=1e-4)
    assert found.details["distance"] == pytest.approx(0.5, rel=0.01)
    assert found.details["relative"] == pytest.approx(0.5 / 0.8, rel=0.01)
    assert found.details["raw"] == pytest.approx(a * 0.5, rel=0.01)
    assert found.details["lipschitz_bound"] == pytest.approx(a, rel=1e-4)


def test_the_bound_is_in_pixels_whatever_the_space() -> None:
    """With other deviations in every channel, the normalised gradient differs from the pixels' by channel."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = Bowl(4.0, 0.3)

        def forward(self, x: Tensor) -> Tensor:
            return self.inside(x * torch.tensor([0.2, 0.5, 3.0]).reshape(3, 1, 1))

    f = attrsens.Classifier(Scaled(), [0.0] * 3, [0.2, 0.5, 3.0], crop=SIDE, device="cpu")
    x = bowl()[1]
    bounds = [one(f, x, f"grad:space={s}").details["lipschitz_bound"] for s in ("pixel", "normalized")]
    assert bounds == pytest.approx([4.0, 4.0], rel=1e-4)


@pytest.mark.parametrize("rule", ["trapezoid", "captum_trapezoid"])
def test_integrated_gradients_against_big(rule: str) -> None:
    """On a linear network x w against (x - x') w, in the same quadrature: Captum's loses the same share of both."""
    f, weight, x = plane()
    a, b = x * weight[0], step(weight) * weight[0]
    found = one(f, x, f"ig:output=logit,steps=5,rule={rule}", "alignment:measure=relative")
    assert found.value == pytest.approx(float((a - b).norm() / a.norm()), rel=2e-3)
    cosine = float((a * b).sum() / a.norm() / b.norm())
    assert found.details["cosine"] == pytest.approx(1 - cosine, abs=0.02)
    assert found.details["lipschitz_bound"] is None

    bound = explainer(f, parse_call(f"ig:output=logit,steps=5,rule={rule}"), 0, "toy")
    case = case_of(bound, parse_call("alignment", registry=SCORES), x, f.logits(x[None])[0], bound.raw(x))
    _, asked = attrsens.METHODS.parse(next(SCORES["alignment"].function(case)).expression)
    assert (asked["rule"], asked["steps"]) == (rule, 5)


@pytest.mark.parametrize(
    ("method", "score", "boundary", "parameters"),
    [
        ("grad:output=prob", "alignment:normal=diff,search_steps=7", "bsm", {"normal": "diff", "search_steps": 7}),
        ("grad:space=normalized,output=prob", "alignment:normal=fc", "bsm", {"space": "normalized"}),
        ("ig:space=normalized", "alignment:to=agi", "agi", {"space": "normalized"}),
        ("sg:n=3,output=prob", "alignment:to=bsg", "bsg", {}),
        ("gi:output=prob", "alignment:to=big,search=pgd-cw", "big", {"search": "pgd-cw"}),
    ],
)
def test_it_is_the_distance_of_two_maps(method: str, score: str, boundary: str, parameters: dict) -> None:
    """Of the same space and output, flattened with their channels."""
    x = uniform(3, 16, 16, seed=1)
    f = lively(x)
    target = top(f, x)
    bound = explainer(f, parse_call(method), target, "toy")
    a = bound.raw(x).map.double()
    spec = attrsens.METHODS[boundary]
    parameters = spec.complete({**parameters, "output": "prob"})
    b = attrsens.Explainer(f, spec, target, parameters, image="toy").raw(x).map.double()
    found = one(f, x, method, score)
    assert found.reason is None
    assert found.details["raw"] == pytest.approx(float((a - b).norm()), rel=1e-6)
    assert found.details["relative"] == pytest.approx(float((a - b).norm() / a.norm()), rel=1e-6)
    assert found.value == pytest.approx(1 - float((a * b).sum() / a.norm() / b.norm()), rel=1e-6)


def lively(x: Tensor) -> attrsens.Classifier:
    """A small network that is undecided about an image."""
    net = SmallNet("functional").eval()
    with torch.no_grad():
        net.fc.bias.sub_(net(((x - 0.45) / 0.25)[None])[0])
        net.fc.bias[2] += 0.01
        net.fc.weight.mul_(20)
        net.fc.bias.mul_(20)
    return attrsens.Classifier(net, [0.45] * 3, [0.25] * 3, crop=16, device="cpu")


def test_runs_and_batches() -> None:
    x = uniform(3, 16, 16, seed=1)
    first, again = one(lively(x), x, "grad"), one(lively(x), x, "grad")
    assert first.value == again.value
    assert 0 < first.value < 2
    f = lively(x)
    alone = attrsens.Classifier(f.network, [0.45] * 3, [0.25] * 3, crop=16, device="cpu", batch=1, fold=False)
    assert one(alone, x, "grad").value == pytest.approx(first.value, abs=1e-4)


def test_when_there_is_none() -> None:
    f, weight, x = plane()
    wrong = one(f, x, "grad", target=1)
    assert wrong.value is None
    assert "not the one" in wrong.reason
    assert wrong.passes.forward == 0, "nothing is sought"

    bias = torch.tensor([1e4, 0.0])
    far = attrsens.Classifier(Linear(weight.flatten(1), bias), [0.0] * 3, [1.0] * 3, crop=SIDE, device="cpu")
    lost = one(far, x, "grad", "alignment:search_steps=3")
    assert lost.value is None
    assert "no boundary" in lost.reason

    flat = weight.flatten(1).clone()
    flat[0] = 0
    zero = attrsens.Classifier(
        Linear(flat, torch.tensor([1.5, 0]) - flat @ x.flatten()), [0.0] * 3, [1.0] * 3, crop=SIDE, device="cpu"
    )
    nothing = one(zero, x, "grad")
    assert nothing.value is None
    assert "zero everywhere" in nothing.reason

    grey = one(f, x, "sp:patch_size=2,stride=1")
    assert grey.value is None
    assert "reduce=mean" in grey.reason
    assert one(f, x, "sp:patch_size=2,stride=1", "alignment:reduce=mean").value is not None


def test_a_map_of_nothing_is_at_a_right_angle() -> None:
    f, _, x = plane()
    assert one(f, x, "random", "alignment:reduce=mean").value == pytest.approx(1, abs=4 / SIDE)
    assert np.isfinite(one(f, x, "random", "alignment:reduce=mean").value)


@pytest.mark.parametrize("normal", ["fc", "diff"])
def test_passes_made_are_those_that_are_told_beforehand(normal: str) -> None:
    f, _, x = plane()
    counts = []
    for dry in (True, False):
        call = parse_call(f"alignment:normal={normal}", registry=SCORES)
        bound = explainer(f, parse_call("grad"), 0, "toy")

        def beside(text: str, target: int, dry: bool = dry) -> attrsens.explainer.Raw:
            return explainer(f, parse_call(text), target, "toy", dry).raw(x)

        bench = Bench(f, beside, dry)
        job = Job(case_of(bound, call, x, f.logits(x[None])[0], bound.raw(x)), call)
        bench.settle([job])
        counts.append((job.passes.forward, job.passes.backward))
    assert counts[0] == counts[1] == ((210, 163) if normal == "fc" else (211, 164))


def test_one_channel() -> None:
    x = uniform(1, 4, 4)
    weight = draw(2, 16)
    f = attrsens.Classifier(Linear(weight, -weight @ x.flatten() + torch.tensor([0.3, 0])), [0.0], [1.0], device="cpu")
    assert one(f, x, "grad", "alignment:normal=fc").value == pytest.approx(0, abs=1e-6)

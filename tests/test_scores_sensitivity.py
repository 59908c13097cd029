"""Sensitivity scores against closed forms, a second derivation in numpy, Captum, and HSE's propositions."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from captum.metrics import sensitivity_max
from numpy.typing import NDArray
from torch import Tensor, nn

import attrsens
from attrsens.engine.bench import Bench, Job, Outcome
from attrsens.engine.cell import parse_call
from attrsens.engine.compute import explainer
from attrsens.engine.judge import case_of, judge
from attrsens.seeds import Stream
from attrsens.spec import SCORES
from tests import toys

N = 50
Array = NDArray[np.float64]


def one(f: attrsens.Classifier, x: Tensor, method: str, score: str, target: int = 0) -> Outcome:
    (outcome,) = judge(f, x, target, method, [score], image="toy")
    return outcome


def value(f: attrsens.Classifier, x: Tensor, method: str, score: str, target: int = 0) -> float:
    outcome = one(f, x, method, score, target)
    assert outcome.value is not None, outcome.reason
    return outcome.value


def bench_of(
    f: attrsens.Classifier, x: Tensor, method: str, scores: list[str], control: object = None
) -> tuple[Bench, list[Job]]:
    """Scores settled together, with the bench that answered them."""
    bound = explainer(f, parse_call(method), 0, "toy")
    raw, logits = bound.raw(x), f.view().logits(x[None])[0]
    bench = Bench(f, lambda text, t: explainer(f, parse_call(text), t, "toy").raw(x))
    calls = [parse_call(text, registry=SCORES) for text in scores]
    jobs = [Job(case_of(bound, call, x, logits, raw), call, control) for call in calls]
    bench.settle(jobs)
    return bench, jobs


def moves(n: int, shape: tuple[int, ...], radius: float = 0.1, ball: str = "linf", seed: int = 0) -> Array:
    """The draws, typed from the definition."""
    stream = Stream(seed, "toy", f"pool {ball}")
    if ball == "gaussian":
        return radius * stream.normal(range(n), shape).astype(float)
    return radius * (2 * stream.uniform(range(n), shape).astype(float) - 1)


def quadratic(side: int = 4, **options: object) -> tuple[attrsens.Classifier, Array]:
    """f = x'Ax/2, whose gradient is A x."""
    a = toys.draw(3 * side * side, 3 * side * side, seed=3)
    a = a + a.T
    net = toys.Quadratic(a)
    f = attrsens.Classifier(net, [0.0] * 3, [1.0] * 3, crop=side, device="cpu", **options)
    return f, a.double().numpy()


def unit(v: Array) -> Array:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


SENSITIVITIES = (
    "max_sensitivity", "mean_sensitivity", "max_sensitivity:definition=yeh", "max_sensitivity:definition=smo",
    "mean_sensitivity:definition=plain", "sensitivity_ratio", "lipschitz", "deviation",
)  # fmt: skip


# -- closed forms ----------------------------------------------------------------------------------------------------


def test_draws_fill_the_ball_unclipped() -> None:
    u = moves(200, (3, 4, 4))
    assert 0.099 < np.abs(u).max() <= 0.1
    assert abs(u.mean()) < 0.002
    assert abs(u.std() - 0.1 / math.sqrt(3)) < 0.001


@pytest.mark.parametrize("score", SENSITIVITIES)
def test_the_gradient_of_a_linear_network_does_not_move(score: str) -> None:
    f, _ = toys.linear()
    assert value(f, toys.uniform(3, 6, 6), "grad", score) < 1e-5


def test_definitions_on_a_quadratic() -> None:
    f, a = quadratic()
    x = toys.uniform(3, 4, 4, seed=1)
    flat = x.flatten().double().numpy()
    phi, change = a @ flat, moves(N, (48,)) @ a  # A is symmetric
    normal = moves(N, (48,), ball="gaussian") @ a
    lengths = np.linalg.norm(change, axis=1)
    hse = np.linalg.norm(unit(phi + change) - unit(phi), axis=1)
    expected = {
        "max_sensitivity": hse.max(),
        "mean_sensitivity": hse.mean(),
        "max_sensitivity:definition=yeh": lengths.max() / np.linalg.norm(phi),
        "mean_sensitivity:definition=yeh": lengths.mean() / np.linalg.norm(phi),
        "max_sensitivity:definition=smo": np.linalg.norm(normal, axis=1).max() / np.linalg.norm(phi),
        "max_sensitivity:definition=plain": lengths.max(),
        "mean_sensitivity:definition=plain": lengths.mean(),
        "lipschitz": (lengths / np.linalg.norm(moves(N, (48,)), axis=1)).max(),
        "lipschitz:ball=gaussian": (
            np.linalg.norm(normal, axis=1) / np.linalg.norm(moves(N, (48,), ball="gaussian"), axis=1)
        ).max(),
        "deviation": np.linalg.norm(unit(phi + change.mean(0)) - unit(phi)),
        "deviation:definition=plain": np.linalg.norm(change.mean(0)),
    }
    for score, number in expected.items():
        assert value(f, x, "grad", score) == pytest.approx(number, rel=1e-4), score
    assert len({round(v, 6) for v in expected.values()}) == len(expected), "the definitions can be told apart"


def test_a_signed_unit_distance_is_the_cosine_and_its_sign_counts() -> None:
    f, a = quadratic()
    x = toys.uniform(3, 4, 4, seed=1)
    phi = a @ x.flatten().double().numpy()
    cosine = unit(phi + moves(N, (48,)) @ a) @ unit(phi)
    outcome = one(f, x, "grad", "max_sensitivity")
    np.testing.assert_allclose(np.square(outcome.curve), 2 - 2 * cosine, rtol=1e-4)
    assert outcome.details["witness"] == cosine.argmin()
    assert value(f, x, "grad", "max_sensitivity:sign=abs") < outcome.value
    assert value(f, x, "grad:sign=abs", "max_sensitivity") == value(f, x, "grad", "max_sensitivity:sign=abs")


def test_channels_are_apart_unless_asked() -> None:
    f, _ = quadratic()
    x = toys.uniform(3, 4, 4, seed=1)
    apart = value(f, x, "grad", "max_sensitivity")
    assert value(f, x, "grad:reduce=sum", "max_sensitivity") == apart
    assert value(f, x, "grad", "max_sensitivity:reduce=mean") != pytest.approx(apart, rel=1e-3)


def test_prediction_and_ratio_on_a_quadratic() -> None:
    f, a = quadratic()
    x = toys.uniform(3, 4, 4, seed=1)
    flat, u = x.flatten().double().numpy(), moves(N, (48,))
    clean = 0.5 * flat @ a @ flat
    scores = 0.5 * np.einsum("ni,ij,nj->n", flat + u, a, flat + u)
    falls = np.abs(scores - clean) / abs(clean)
    changes = np.linalg.norm(u @ a, axis=1) / np.linalg.norm(a @ flat)
    predicted = one(f, x, "grad", "prediction_sensitivity")
    assert predicted.value == pytest.approx(falls.max(), rel=1e-4)
    assert predicted.details["mean"] == pytest.approx(falls.mean(), rel=1e-4)
    p = 1 / (1 + np.exp(-np.array([clean, *scores])))
    by_prob = value(f, x, "grad", "prediction_sensitivity:output=prob")
    assert by_prob == pytest.approx(np.abs(p[1:] / p[0] - 1).max(), rel=1e-3)
    ratio = one(f, x, "grad", "sensitivity_ratio")
    assert ratio.value == pytest.approx(changes.max() / falls.max(), rel=1e-4)
    assert ratio.details["mean_ratio"] == pytest.approx(changes.mean() / falls.mean(), rel=1e-4)
    assert ratio.details["witness"] == (changes / falls).argmax()
    assert ratio.details["quotient"] == pytest.approx((changes / falls).max(), rel=1e-2)


def test_the_space_of_the_ball_and_of_the_map() -> None:
    """A copy in normalised units moves by radius times std; the map stays in the method's own space."""
    side, std = 4, [0.2, 0.25, 0.5]
    a = toys.draw(48, 48, seed=3)
    a = a + a.T
    f = attrsens.Classifier(toys.Quadratic(a), [0.4, 0.5, 0.6], std, crop=side, device="cpu")
    x, wide = toys.uniform(3, side, side, seed=1), a.double().numpy()
    u = moves(N, (48,), 0.3)
    scale = np.repeat(std, side * side)
    for method, factor in (("grad", 1 / scale), ("grad:space=normalized", np.ones(48))):
        moved = np.linalg.norm((u @ wide) * factor, axis=1)
        got = value(f, x, method, "max_sensitivity:definition=plain,space=normalized,radius=0.3")
        assert got == pytest.approx(moved.max(), rel=1e-4)
        got = value(f, x, method, "lipschitz:space=normalized,radius=0.3")
        assert got == pytest.approx((moved / np.linalg.norm(u, axis=1)).max(), rel=1e-4)
        moved = np.linalg.norm(((u / scale) @ wide) * factor, axis=1)
        got = value(f, x, method, "max_sensitivity:definition=plain,radius=0.3")
        assert got == pytest.approx(moved.max(), rel=1e-4)


# -- oracles and traps -----------------------------------------------------------------------------------------------


def test_captum_agrees_on_yehs_definition() -> None:
    f = attrsens.Classifier(toys.SmallNet("functional"), [0.45] * 3, [0.25] * 3, crop=16, device="cpu", batch=64)
    x = toys.uniform(3, 16, 16, seed=2)
    u = torch.from_numpy(moves(N, (3, 16, 16), 0.2)).float()

    def gradients(images: Tensor | tuple[Tensor, ...]) -> tuple[Tensor]:
        ((g, _),) = f.view().gradients(images[0] if isinstance(images, tuple) else images, 0)
        return (g.contiguous(),)

    captum = sensitivity_max(gradients, x[None], perturb_func=lambda y: y + u, n_perturb_samples=N)
    got = value(f, x, "grad", "max_sensitivity:definition=yeh,radius=0.2")
    assert got == pytest.approx(float(captum), rel=1e-5)


def test_smos_running_maximum_is_not_divided_again() -> None:
    """Science C-5: max(previous, new) / norm in every round shrinks (or blows up) whatever was found before."""
    f, a = quadratic()
    x = toys.uniform(3, 4, 4, seed=1)
    changes = np.linalg.norm(moves(N, (48,), ball="gaussian") @ a, axis=1)
    norm = np.linalg.norm(a @ x.flatten().double().numpy())
    running = 0.0
    for change in changes:
        running = max(running, change) / norm
    got = value(f, x, "grad", "max_sensitivity:definition=smo")
    assert got == pytest.approx(changes.max() / norm, rel=1e-4)
    assert running < 0.95 * got


def test_more_copies_never_lower_the_maximum_and_keep_the_first() -> None:
    f, x = toys.small(), toys.uniform(3, 16, 16, seed=2)
    outcomes = [one(f, x, "grad", f"max_sensitivity:n={n}") for n in (5, 20, 50)]
    assert outcomes[0].value <= outcomes[1].value <= outcomes[2].value
    assert outcomes[0].curve == outcomes[2].curve[:5]
    assert outcomes[0].value < outcomes[2].value


def test_batches_and_repeats() -> None:
    x = toys.uniform(3, 16, 16, seed=2)
    scores = [*SENSITIVITIES, "prediction_sensitivity"]
    narrow = judge(toys.small(batch=1), x, 0, "sg:n=4", scores, image="toy")
    wide = judge(toys.small(batch=16), x, 0, "sg:n=4", scores, image="toy")
    again = judge(toys.small(batch=16), x, 0, "sg:n=4", scores, image="toy")
    for a, b, c, name in zip(narrow, wide, again, scores, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-5), name
        assert (b.value, b.details) == (c.value, c.details), name


def test_one_pool_serves_all() -> None:
    f, x = toys.small(), toys.uniform(3, 16, 16, seed=2)
    scores = [
        "max_sensitivity", "mean_sensitivity", "max_sensitivity:definition=yeh,n=20", "sensitivity_ratio", "lipschitz",
        "ris", "ros", "deviation", "stability_rate:n=48", "prediction_sensitivity",
        "prediction_sensitivity:output=prob",
    ]  # fmt: skip
    bench, jobs = bench_of(f, x, "grad", scores)
    assert all(job.outcome.value is not None for job in jobs)
    full = N // 8 * 8  # batches of 8, shared; what is left over is each question's own
    made = full + sum({n - n // 8 * 8 for n in (N, 20, 48)})
    assert bench.passes.backward == made
    assert bench.passes.forward == made + math.ceil(N / 8) * 8
    assert jobs[0].outcome.passes.backward == N
    alone, _ = bench_of(f, x, "grad", ["max_sensitivity"])
    assert alone.passes.backward == N


def test_other_balls_are_other_pools() -> None:
    f, x = toys.small(), toys.uniform(3, 16, 16, seed=2)
    bench, _ = bench_of(
        f, x, "grad", ["max_sensitivity:n=8", "max_sensitivity:n=8,definition=smo", "lipschitz:n=8,seed=1"]
    )
    assert bench.passes.backward == 24
    bench, _ = bench_of(f, x, "grad", ["lipschitz:n=8,ball=gaussian", "max_sensitivity:n=8,definition=smo"])
    assert bench.passes.backward == 8


# -- what the method itself draws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["sg:n=3,spread=0.5", "lime:n=12,segments=9", "grad+smooth:n=3,radius=0.5"])
def test_fresh_draws_and_draws_alone(method: str) -> None:
    """Science C-6: with common draws what is left is the image's doing; alone is what draws do to the same image."""
    f, x = toys.small(), toys.uniform(3, 16, 16, seed=2)
    common, fresh, alone = (
        value(f, x, method, f"mean_sensitivity:n=6,radius=0.02,draws={d}") for d in ("common", "fresh", "alone")
    )
    assert common < 0.5 * fresh
    assert alone == pytest.approx(fresh, rel=0.3)
    assert alone > 0


def test_a_method_without_draws_costs_nothing_alone_and_shares_its_pool() -> None:
    f, x = toys.small(), toys.uniform(3, 16, 16, seed=2)
    bench, jobs = bench_of(f, x, "grad", [f"max_sensitivity:n=8,draws={d}" for d in ("common", "fresh", "alone")])
    assert bench.passes.backward == 8
    assert jobs[0].outcome.value == jobs[1].outcome.value
    assert jobs[2].outcome.value == 0


def test_smoothing_by_common_noise_of_a_linear_net_does_not_move_but_fresh_noise_would() -> None:
    f, _ = quadratic()
    x = toys.uniform(3, 4, 4, seed=1)
    exact = value(f, x, "grad+smooth:n=4,radius=0.5", "max_sensitivity:definition=plain,n=8")
    assert exact == pytest.approx(value(f, x, "grad", "max_sensitivity:definition=plain,n=8"), rel=1e-4)
    assert value(f, x, "grad+smooth:n=4,radius=0.5", "max_sensitivity:definition=plain,n=8,draws=fresh") > 2 * exact


# -- floors ----------------------------------------------------------------------------------------------------------


def shuffled(heatmap: Tensor, index: int) -> Tensor:
    order = torch.from_numpy(np.argsort(Stream(0, "", "order").uniform([index], (heatmap[0].numel(),))[0]))
    return heatmap.flatten(1)[:, order].reshape(heatmap.shape)


@pytest.mark.parametrize(("sign", "chance"), [("signed", math.sqrt(2)), ("abs", 0.85)])
def test_chance(sign: str, chance: float) -> None:
    """Science C-6: sqrt 2 for signed maps, .85 for magnitudes of Gaussian ones."""
    f, _ = toys.linear(side=24)
    x = toys.uniform(3, 24, 24)
    _, (job,) = bench_of(f, x, "grad", [f"mean_sensitivity:n=10,sign={sign}"], control=shuffled)
    assert job.outcome.value == pytest.approx(chance, abs=0.03)


# -- no value --------------------------------------------------------------------------------------------------------


class Gate(nn.Module):
    """The first pixel above .5, so that the gradient is zero on one side; the second logit is 0."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x: Tensor) -> Tensor:
        score = self.gain * torch.relu(x[:, 0, 0, 0] - 0.5)
        return torch.stack([score, torch.zeros_like(score)], 1)


def gate(gain: float = 1.0) -> attrsens.Classifier:
    return attrsens.Classifier(Gate(gain), [0.0] * 3, [1.0] * 3, crop=4, device="cpu")


def test_zero_maps_have_no_relative_change() -> None:
    dark, edge = torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.52)
    for score in ("max_sensitivity", "mean_sensitivity:definition=yeh", "sensitivity_ratio", "deviation"):
        outcome = one(gate(), dark, "grad", score)
        assert outcome.value is None
        assert "zero" in str(outcome.reason)
    assert value(gate(), dark, "grad", "max_sensitivity:definition=plain") == 0
    assert "copy" in str(one(gate(), edge, "grad", "max_sensitivity").reason)
    assert value(gate(), edge, "grad", "max_sensitivity:definition=yeh") == pytest.approx(1)
    assert value(gate(), edge, "grad", "lipschitz") > 1


def test_other_reasons() -> None:
    dark = torch.zeros(3, 4, 4)
    assert "is 0" in str(one(gate(), dark, "grad", "prediction_sensitivity").reason)
    assert value(gate(), dark, "grad", "prediction_sensitivity:output=prob") == 0
    f, _ = quadratic()
    x = toys.uniform(3, 4, 4, seed=1)
    assert "radius 0" in str(one(f, x, "grad", "lipschitz:radius=0").reason)
    assert one(f, x, "grad", "mean_sensitivity:n=1").details["sd"] is None
    still = attrsens.Classifier(toys.OnePixel(0, 0), [0.0] * 3, [1.0] * 3, crop=4, device="cpu")
    assert "does not change" in str(one(still, x, "grad", "sensitivity_ratio:radius=0").reason)


def test_the_witness_of_a_score_that_stands_still() -> None:
    """A change of the map at no change of the score is an infinite quotient: witness there, quotient null."""

    class Step(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            v = x[:, 0, 0, 0]
            level = torch.where(v < 0.5, torch.full_like(v, 2.0) + 0 * v, 2.0 + (v - 0.5))
            return torch.stack([level, torch.zeros_like(v)], 1)

    f = attrsens.Classifier(Step(), [0.0] * 3, [1.0] * 3, crop=4, device="cpu")
    outcome = one(f, torch.full((3, 4, 4), 0.55), "grad", "sensitivity_ratio")
    assert outcome.value is not None
    assert outcome.details["quotient"] is not None  # the score moved from 2.05
    x = torch.full((3, 4, 4), 0.5)
    outcome = one(f, x, "grad", "sensitivity_ratio")
    assert outcome.details["quotient"] is None
    assert outcome.details["witness_prediction"] == 0
    assert outcome.details["witness_explanation"] == pytest.approx(1)


# -- deviation -------------------------------------------------------------------------------------------------------


def test_deviation_of_a_wrapped_call_is_from_the_call_without() -> None:
    f, x = toys.small(), toys.uniform(3, 16, 16, seed=2)
    grad = toys.explain(f, "grad", x).flatten().double().numpy()
    for wrapper in ("smooth:n=5,radius=0.4", "softplus:beta=2"):
        bound = explainer(f, parse_call(f"grad+{wrapper}"), 0, "toy")
        wrapped = bound.raw(x).map.flatten().double().numpy()
        got = value(f, x, f"grad+{wrapper}", "deviation")
        assert got == pytest.approx(np.linalg.norm(unit(wrapped) - unit(grad)), rel=1e-6)
        got = value(f, x, f"grad+{wrapper}", "deviation:definition=yeh")
        assert got == pytest.approx(np.linalg.norm(wrapped - grad) / np.linalg.norm(grad), rel=1e-6)
    assert value(f, x, "grad+smooth:radius=0", "deviation") == 0  # HSE: R = 0 is the base
    assert value(f, x, "sg:n=4+smooth:n=2,radius=0", "deviation") == 0


def test_deviation_keeps_wrappers_that_do_not_smooth() -> None:
    f, x = toys.small(), toys.uniform(3, 16, 16, seed=2)
    base = explainer(f, parse_call("grad+topk:k=30"), 0, "toy").raw(x).map.flatten().double().numpy()
    both = (
        explainer(f, parse_call("grad+smooth:n=5,radius=0.4+topk:k=30"), 0, "toy").raw(x).map.flatten().double().numpy()
    )
    got = value(f, x, "grad+smooth:n=5,radius=0.4+topk:k=30", "deviation:definition=plain")
    assert got == pytest.approx(np.linalg.norm(both - base), rel=1e-6)
    assert got > 0
    outcome = one(f, x, "grad+topk:k=30", "deviation:n=6")
    assert outcome.passes.backward == 6


def test_deviation_grows_with_the_radius() -> None:
    f, x = toys.small(), toys.uniform(3, 16, 16, seed=2)
    near, far = (value(f, x, "grad", f"deviation:radius={r}") for r in (0.02, 0.4))
    assert 0 < near < far


# -- propositions of HSE ---------------------------------------------------------------------------------------------

PLAIN = "max_sensitivity:definition=plain,n=30,radius={}"


class Softplus(nn.Module):
    """Two softplus layers, and a third, without biases: Corollary 2.1's network."""

    def __init__(self, widths: tuple[int, ...], seed: int, scale: float = 1.0) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.weights = nn.ParameterList(
            scale * toys.draw(b, a, seed=seed + i) / math.sqrt(a) for i, (a, b) in enumerate(pairs)
        )

    def forward(self, x: Tensor) -> Tensor:
        z = x.flatten(1)
        for weight in self.weights:
            z = torch.nn.functional.softplus(z @ weight.T)
        return torch.cat([z, torch.zeros_like(z)], 1)


def softplus(seed: int, side: int = 4) -> attrsens.Classifier:
    net = Softplus((3 * side * side, 12, 8, 1), seed)
    return attrsens.Classifier(net, [0.0] * 3, [1.0] * 3, crop=side, device="cpu")


def test_a1_mean_below_max_below_the_largest_distance_within_the_ball() -> None:
    f, x = softplus(1), toys.uniform(3, 4, 4, seed=2)
    largest = value(f, x, "grad", PLAIN.format(0.1))
    assert value(f, x, "grad", "mean_sensitivity:definition=plain,n=30") <= largest
    images = torch.cat([x[None], x + torch.from_numpy(moves(30, (3, 4, 4))).float()])
    maps = torch.cat([g for g, _ in f.view().gradients(images, 0)]).flatten(1).double()
    assert largest <= float(torch.cdist(maps, maps).max()) * (1 + 1e-6)


def test_a2_scaling() -> None:
    """S(C Phi) = |C| S(Phi) of the unnormalised distance only (science C-3); relative ones do not change."""
    x = toys.uniform(3, 16, 16, seed=2)
    net = toys.SmallNet("functional")
    louder = toys.SmallNet("functional")
    with torch.no_grad():
        louder.fc.weight.mul_(-3)
        louder.fc.bias.mul_(-3)
    f, g = (attrsens.Classifier(m, [0.45] * 3, [0.25] * 3, crop=16, device="cpu") for m in (net, louder))
    assert value(g, x, "grad", PLAIN.format(0.1)) == pytest.approx(3 * value(f, x, "grad", PLAIN.format(0.1)), rel=1e-4)
    for name in ("max_sensitivity", "max_sensitivity:definition=yeh", "sensitivity_ratio"):
        assert value(g, x, "grad", name) == pytest.approx(value(f, x, "grad", name), rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", ["grad", "gi", "sg:n=4"])
def test_21_the_witness(seed: int, method: str) -> None:
    f, x = toys.small(), toys.uniform(3, 16, 16, seed=seed)
    outcome = one(f, x, method, "sensitivity_ratio:n=20")
    assert outcome.details["quotient"] >= outcome.value
    assert outcome.details["quotient"] >= outcome.details["mean_ratio"]
    image = x + torch.from_numpy(moves(20, (3, 16, 16))).float()[int(outcome.details["witness"])]
    clean, there = (float(v) for v in f.view().score(torch.stack([x, image]), 0))
    bound = explainer(f, parse_call(method), 0, "toy")
    base, other = (bound.raw(i).map.double() for i in (x, image))
    quotient = float((other - base).norm() / base.norm()) / (abs(there - clean) / abs(clean))
    assert quotient >= outcome.value * (1 - 1e-4)
    assert quotient == pytest.approx(outcome.details["quotient"], rel=1e-2)  # a difference of float32 logits


def test_22_sensitivity_is_at_most_the_lipschitz_constant_times_the_radius() -> None:
    f, a = quadratic()
    x = toys.uniform(3, 4, 4, seed=1)
    norm = np.linalg.norm(a, 2)
    lipschitz = value(f, x, "grad", "lipschitz")
    assert lipschitz <= norm
    for radius in (0.05, 0.2):
        s = value(f, x, "grad", PLAIN.format(radius))
        assert s <= norm * radius * math.sqrt(48)  # sqrt p: the ball is L-infinity, the constant L2 (science C-2)
        assert s <= value(f, x, "grad", f"lipschitz:n=30,radius={radius}") * radius * math.sqrt(48)
    quiet = attrsens.Classifier(toys.Quadratic(torch.tensor(a).float() / 1000), [0.0] * 3, [1.0] * 3, device="cpu")
    assert value(quiet, x, "grad", "max_sensitivity") > norm / 1000 * 0.1 * math.sqrt(48)  # unit length breaks it (C-3)


def bound_of(weights: list[Array], corrected: bool) -> float:
    norms = [np.linalg.norm(w, 2) for w in weights]
    if not corrected:
        return math.prod(n**2 / 4 for n in norms)
    terms = [math.prod(n**2 for n in norms[: k + 1]) * math.prod(norms[k + 1 :]) for k in range(len(norms))]
    return 0.25 * sum(terms)


def test_corollary_21_as_corrected_and_not_as_printed() -> None:
    """Science C-2: the printed bound prod ||W||^2/4 fails at w1 = w2 = 1, where f'' reaches .25."""
    for seed in range(6):
        f = softplus(10 * seed)
        weights = [w.double().numpy() for w in f.network.weights]
        x = toys.uniform(3, 4, 4, seed=seed)
        assert value(f, x, "grad", "lipschitz:n=30,radius=0.5") <= bound_of(weights, corrected=True)
    net = Softplus((1, 1, 1), 0)
    with torch.no_grad():
        for w in net.weights:
            w.fill_(1.0)
    f = attrsens.Classifier(net, [0.0], [1.0], crop=1, device="cpu")
    ones = [np.ones((1, 1))] * 2
    got = value(f, torch.full((1, 1, 1), 0.0), "grad", "lipschitz:n=30,radius=0.05")
    assert bound_of(ones, corrected=False) == 1 / 16 < got <= bound_of(ones, corrected=True)


@pytest.mark.parametrize("radius", [0.02, 0.2])
def test_23_gradient_times_input(radius: float) -> None:
    f, x = softplus(3), toys.uniform(3, 4, 4, seed=4)
    length, r = float(x.norm()), radius * math.sqrt(48)
    s = value(f, x, "grad", PLAIN.format(radius))
    bound = (1 + r / length) * s + r * float(toys.explain(f, "grad", x).norm()) / length
    assert value(f, x, "gi", PLAIN.format(radius)) / length <= bound


def noisy(x: Tensor, n: int, radius: float) -> Tensor:
    return x + radius * (2 * torch.from_numpy(Stream(0, "toy", "smooth").uniform(range(n), tuple(x.shape))) - 1)


def test_24_smoothing_with_common_draws_only() -> None:
    """S(smoothed) at x is at most the mean of S over the smoothing points; fresh draws break it (science C-3)."""
    f, x = toys.small(), toys.uniform(3, 16, 16, seed=5)
    score, method = "max_sensitivity:definition=plain,n=10,radius=0.005", "grad+smooth:n=4,radius=0.3"
    each = [value(f, z, "grad", score) for z in noisy(x, 4, 0.3)]
    assert value(f, x, method, score) <= np.mean(each) * (1 + 1e-5)
    assert value(f, x, method, f"{score},draws=fresh") > np.mean(each)


def test_corollary_22_smoothgrad() -> None:
    """A mean over draws of the Gaussian kernel, at one absolute sd; S_avg and S_max alike."""
    f, x = toys.small(), toys.uniform(3, 16, 16, seed=5)
    points = x + 0.3 * torch.from_numpy(Stream(0, "toy", "smooth").normal(range(4), (3, 16, 16)))
    for name in ("mean_sensitivity", "max_sensitivity"):
        score = f"{name}:definition=plain,n=10,radius=0.1"
        each = [value(f, z, "grad", score) for z in points]
        assert value(f, x, "grad+smooth:n=4,ball=gaussian,radius=0.3", score) <= np.mean(each) * (1 + 1e-5)


def test_corollary_a1_integrated_gradients() -> None:
    """S(IG)/d(x) <= mean over the path of (1 + d(r)/d(x)) S(grad at z, t r) + d(r) d(mean gradient)/d(x), L2."""
    f, x = softplus(3), toys.uniform(3, 4, 4, seed=4)
    radius, steps = 0.1, 10
    length, r = float(x.norm()), radius * math.sqrt(48)
    ig = value(f, x, "ig:steps=10,rule=trapezoid,baseline=black", PLAIN.format(radius))
    ends = np.full(steps + 1, 1 / steps)
    ends[[0, -1]] /= 2
    path = [value(f, t * x, "grad", PLAIN.format(radius * t)) if t else 0.0 for t in np.linspace(0, 1, steps + 1)]
    mean = sum(
        w * toys.explain(f, "grad", float(t) * x) for w, t in zip(ends, np.linspace(0, 1, steps + 1), strict=True)
    )
    bound = (1 + r / length) * float(ends @ path) + r * float(mean.norm()) / length
    assert ig / length <= bound * (1 + 1e-6)


def test_b1_set_explanations_in_l1() -> None:
    """S(Phi_k) <= 2 S(Phi) / (eta k) in L1, from the maps of the pool."""
    f, x = softplus(3), toys.uniform(3, 4, 4, seed=4)
    images = torch.cat([x[None], x + torch.from_numpy(moves(30, (3, 4, 4), 0.5)).float()])
    k, seen = 8, 0
    plain = torch.stack([explainer(f, parse_call("grad"), 0, "toy").raw(i).map.flatten().double() for i in images])
    sets = torch.stack([explainer(f, parse_call(f"grad+topk:k={k}"), 0, "toy").raw(i).map.flatten() for i in images])
    ordered = plain[0].sort(descending=True).values
    eta = float(ordered[k - 1] - ordered[k])
    for phi, chosen in zip(plain[1:], sets[1:], strict=True):
        moved = float((chosen - sets[0]).abs().sum())
        assert moved <= 2 * float((phi - plain[0]).abs().sum()) / (eta * k) * (1 + 1e-6)
        seen += moved > 0
    assert seen
    # the scores are in L2, where a set of k differs by at most sqrt(2 / k)
    assert value(f, x, f"grad+topk:k={k}", "max_sensitivity:definition=plain,radius=0.5") <= math.sqrt(2 / k) + 1e-6


def test_31_the_adversarial_loss_is_bounded_by_gradient_and_curvature() -> None:
    """Theorem 3.1 on f = x'Ax/2: logistic loss, L2 ball, curvature by ||A||, which lipschitz bounds from below."""
    f, a = quadratic()
    x = toys.uniform(3, 4, 4, seed=1)
    eps = 0.3
    u = moves(200, (48,), 1.0)
    u = eps * unit(u)
    flat = x.flatten().double().numpy()
    clean = 0.5 * flat @ a @ flat
    scores = 0.5 * np.einsum("ni,ij,nj->n", flat + u, a, flat + u)
    gradient = np.linalg.norm(a @ flat)
    for y in (-1, 1):
        worst = np.log1p(np.exp(-y * scores)).max()
        assert worst <= np.log1p(np.exp(-y * clean)) + eps * gradient + eps**2 / 2 * np.linalg.norm(a, 2)
    sampled = value(f, x, "grad", "lipschitz:n=200,radius=0.3")
    assert 0.3 * np.linalg.norm(a, 2) < sampled <= np.linalg.norm(a, 2)


def test_toy_of_section_43() -> None:
    """HSE 4.3: the gradient flips between (1, 0) and (0, 1); over a wide ball its mean is (.5, .5) and stands still."""

    class Toy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a, b = 20 * x[:, 0, 0, 0], 20 * x[:, 0, 0, 1]
            gap = (a - b).abs()
            k = gap.detach().floor()
            even = torch.maximum(a, b) - k / 2
            score = torch.where(k % 2 == 0, even, torch.minimum(a, b) + (k + 1) / 2)
            return torch.stack([score, torch.zeros_like(score)], 1)

    f = attrsens.Classifier(Toy(), [0.0], [1.0], crop=2, device="cpu")
    x = torch.tensor([[[1.0, 0.595], [0.0, 0.0]]])
    assert float(f.view().score(x[None], 0)[0]) == pytest.approx(16, abs=1e-4)
    assert value(f, x, "grad", "max_sensitivity") == pytest.approx(math.sqrt(2))
    assert value(f, x, "grad+smooth:n=200,radius=1.0", "max_sensitivity:n=5") < 0.35


def test_one_channel_and_a_frozen_case() -> None:
    f, x = toys.small(channels=1), toys.uniform(1, 16, 16, seed=2)
    assert 0 < value(f, x, "grad", "max_sensitivity") < 2
    before = x.clone()
    value(f, x, "grad", "sensitivity_ratio")
    assert torch.equal(before, x)
    bound = explainer(f, parse_call("grad"), 0, "toy")
    assert replace(bound, dry=True).raw(x).passes.backward == 1

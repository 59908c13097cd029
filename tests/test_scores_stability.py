"""Relative stability and the stability rate against a second derivation in numpy and exact binomial tails."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binom, spearmanr
from torch import Tensor, nn

import attrsens
from attrsens.models.layers import features_of, find_head
from tests import toys
from tests.test_scores_sensitivity import bench_of, gate, moves, one, quadratic, shuffled, unit, value

Array = NDArray[np.float64]
RELATIVE = ("ris", "ros", "rrs")


def facts(f: attrsens.Classifier, x: Tensor, u: Array) -> tuple[Array, Array, Array]:
    """Gradients, logits and penultimate features of an image and its copies, image by image."""
    images = torch.cat([x[None], x + torch.from_numpy(u).float()])
    grads = torch.stack([toys.explain(f, "grad", i) for i in images])
    net = f.network
    with torch.no_grad():
        z = torch.cat([f.normalised(i[None]) for i in images])
        z = torch.relu(net.bn1(net.conv1(z)))
        z = torch.relu(net.bn2(net.conv2(z))).mean((2, 3))
        logits = net.fc(z)
    return tuple(t.flatten(1).double().numpy() for t in (grads, logits, z))


def printed(e: Array, below: Array, p: float, least: float = 1e-6) -> Array:
    over = np.linalg.norm((e[0] - e[1:]) / np.maximum(np.abs(e[0]), least), p, axis=1)
    return over / np.maximum(np.linalg.norm(below, p, axis=1), least)


def relative(v: Array, p: float) -> Array:
    return np.linalg.norm(v[0] - v[1:], p, axis=1) / np.linalg.norm(v[0], p)


@pytest.fixture(scope="module")
def scene() -> tuple[attrsens.Classifier, Tensor, Array]:
    return toys.small(), toys.uniform(3, 16, 16, seed=2), moves(20, (3, 16, 16), 0.3)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_relative_stabilities_from_their_definition(scene: tuple[attrsens.Classifier, Tensor, Array], p: float) -> None:
    f, x, u = scene
    e, h, z = facts(f, x, u)
    keep = h[1:].argmax(1) == h[0].argmax()
    flat = x.flatten().double().numpy()
    copies = np.stack([flat, *(flat + u.reshape(20, -1))])
    features_move = (z[0] - z[1:]) / np.maximum(np.abs(z[0]), 1e-6)
    expected = {
        "ris": (printed(e, u.reshape(20, -1) / np.maximum(flat, 1e-6), p), relative(e, p) / relative(copies, p)),
        "ros": (printed(e, h[0] - h[1:], p), relative(e, p) / relative(h, p)),
        "rrs": (printed(e, features_move, p), relative(e, p) / relative(z, p)),
    }
    for name, (as_printed, by_norm) in expected.items():
        for form, values in (("printed", as_printed), ("norm", by_norm)):
            outcome = one(f, x, "grad", f"{name}:form={form},n=20,radius=0.3,p={p}")
            assert outcome.value == pytest.approx(values[keep].max(), rel=1e-3), (name, form)
            assert outcome.details["neighbours"] == keep.sum()
            assert outcome.details["printed"] == pytest.approx(as_printed[keep].max(), rel=1e-3)
            assert outcome.details["norm"] == pytest.approx(by_norm[keep].max(), rel=1e-3)
            assert keep[int(outcome.details["witness"])]


def test_only_neighbours_of_the_same_label_count() -> None:
    """A class boundary runs through the ball: the copies beyond it, whose map is another, are left out."""

    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            v = x[:, 0, 0, 0]
            score = torch.where(v > 0.5, v, 0.5 + 50 * (0.5 - v))
            return torch.stack([score, 0.5 + 60 * (0.5 - v)], 1)  # class 0 wins above .5

    f = attrsens.Classifier(Corner(), [0.0] * 3, [1.0] * 3, crop=4, device="cpu")
    x = torch.full((3, 4, 4), 0.55)
    far = moves(50, (3, 4, 4))[:, 0, 0, 0] < -0.05
    assert 0 < far.sum() < 50
    for name in ("ris", "ros"):
        outcome = one(f, x, "grad", name)
        assert outcome.value == 0, "beyond the boundary the gradient is -50, and this side 1"
        assert outcome.details["neighbours"] == 50 - far.sum()
    assert value(f, x, "grad", "max_sensitivity") == pytest.approx(2)
    rate = one(f, x, "grad", "stability_rate:n=50")
    assert rate.details["count"] == 50 - far.sum()
    other = one(f, torch.full((3, 4, 4), 0.5001), "grad", "ris:radius=0.000001")
    assert other.value == 0
    lonely = one(f, torch.full((3, 4, 4), 0.55), "grad", "ris:n=1,seed=1,radius=1.0")
    assert (lonely.value is None) == (float(moves(1, (3, 4, 4), 1.0, seed=1)[0, 0, 0, 0]) < -0.05)


def test_no_neighbour_is_no_value() -> None:
    f, _ = toys.linear()
    x = toys.uniform(3, 6, 6)
    seeds = [s for s in range(20) if "no copy keeps" in str(one(f, x, "grad", f"ris:n=1,radius=8,seed={s}").reason)]
    assert 0 < len(seeds) < 20


def test_a_kept_map_with_another_label_is_not_stable() -> None:
    f, _ = toys.linear()
    details = one(f, toys.uniform(3, 6, 6), "grad", "stability_rate:radius=2").details
    assert details["map_kept"] == 59
    assert 0 < details["count"] == details["label_kept"] < 59


@pytest.mark.parametrize("name", RELATIVE)
def test_scaling_the_map_changes_nothing(name: str) -> None:
    x = toys.uniform(3, 16, 16, seed=2)
    net, louder = toys.SmallNet("functional"), toys.SmallNet("functional")
    with torch.no_grad():
        louder.fc.weight.mul_(4)
        louder.fc.bias.mul_(4)
    f, g = (attrsens.Classifier(m, [0.45] * 3, [0.25] * 3, crop=16, device="cpu") for m in (net, louder))
    score = f"{name}:form=norm,n=10"
    assert value(g, x, "grad", score) == pytest.approx(value(f, x, "grad", score), rel=1e-4)
    # as printed, the change of the logits is not relative
    factor = 4 if name == "ros" else 1
    score = f"{name}:form=printed,n=10,least=1e-12"
    assert value(g, x, "grad", score) == pytest.approx(value(f, x, "grad", score) / factor, rel=1e-2)


@pytest.mark.parametrize("name", ["ris", "ros"])
def test_the_gradient_of_a_linear_network_is_stable(name: str) -> None:
    f, _ = toys.linear()
    x = toys.uniform(3, 6, 6)
    assert value(f, x, "grad", name) < 1e-3
    assert value(f, x, "grad", f"{name}:form=norm") < 1e-5
    assert value(f, x, "grad", "stability_rate") == 1


def test_near_zero_entries_rule_the_printed_form_only() -> None:
    f, x = toys.small(), toys.uniform(3, 16, 16, seed=2)
    dark = x.clone()
    dark[:, :2] = 0
    forms = [one(f, image, "grad", "ris:n=10").details for image in (x, dark)]
    assert forms[1]["printed"] < 0.01 * forms[0]["printed"]
    assert 0.5 < forms[1]["norm"] / forms[0]["norm"] < 2


def test_the_space_of_the_relative_change() -> None:
    f, x = toys.small(), toys.uniform(3, 16, 16, seed=2)
    outcome = one(f, x, "grad", "ris:n=5,space=normalized,radius=0.4,form=norm")
    z = f.view(space="normalized").encode(x).flatten().double().numpy()
    u = moves(5, (3, 16, 16), 0.4)
    e, h, _ = facts(f, x, u * 0.25)
    keep = h[1:].argmax(1) == h[0].argmax()
    below = np.linalg.norm(u.reshape(5, -1), axis=1) / np.linalg.norm(z)
    assert outcome.value == pytest.approx((relative(e, 2) / below)[keep].max(), rel=1e-3)


def test_batches_and_repeats_and_cost() -> None:
    x = toys.uniform(3, 16, 16, seed=2)
    scores = [f"{name}:n=16" for name in RELATIVE] + ["stability_rate:n=16", "stability_rate:n=16,similarity=spearman"]
    narrow, jobs = bench_of(toys.small(batch=1), x, "grad", scores)
    wide, others = bench_of(toys.small(batch=16), x, "grad", scores)
    for a, b, score in zip(jobs, others, scores, strict=True):
        assert a.outcome.value == pytest.approx(b.outcome.value, rel=1e-3 if "printed" in score else 1e-4), score
    again, same = bench_of(toys.small(batch=16), x, "grad", scores)
    assert [j.outcome for j in others] == [j.outcome for j in same]
    assert narrow.passes.backward == wide.passes.backward == again.passes.backward == 16
    assert narrow.passes.forward == 16 + 16 + 17  # maps, logits, features
    assert others[2].outcome.passes.forward == 16 + 16 + 17
    assert others[0].outcome.passes.forward == 16 + 16


# -- features --------------------------------------------------------------------------------------------------------


def test_features_are_what_the_last_linear_layer_is_given() -> None:
    f, x = toys.small(), toys.uniform(6, 3, 16, 16)
    with features_of(f.view(), x[0]) as given:
        logits = f.view().logits(x)
    seen = torch.cat(given)
    torch.testing.assert_close(f.network.fc(seen), logits)
    before = len(given)
    f.view().logits(x)
    assert len(given) == before, "no hook is left behind"


class Tail(nn.Module):
    """A head whose output is changed, or that is no linear layer."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.inner_net = kind, toys.SmallNet("functional")
        self.head = nn.Conv2d(5, 5, 1)
        with torch.no_grad():
            self.head.weight.copy_(toys.draw(5, 5, 1, 1))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        z = self.inner_net(x)
        if self.kind == "temperature":
            return z / 2
        if self.kind == "twice":
            return self.inner_net.fc(torch.nn.functional.pad(z, (0, 3)))
        return self.head(z[:, :, None, None]).flatten(1)


@pytest.mark.parametrize("kind", ["temperature", "twice", "conv"])
def test_without_a_linear_head_there_is_no_representation(kind: str) -> None:
    f = attrsens.Classifier(Tail(kind), [0.45] * 3, [0.25] * 3, crop=16, device="cpu")
    assert find_head(f.network, torch.zeros(1, 3, 16, 16)) is None
    x = toys.uniform(3, 16, 16, seed=2)
    _, jobs = bench_of(f, x, "grad", ["rrs:n=8", "ros:n=8", "prediction_sensitivity:n=8"])
    assert "linear layer" in str(jobs[0].outcome.reason)
    assert all(job.outcome.value is not None for job in jobs[1:]), "the others go on"


def test_lite0_has_a_head(lite0: attrsens.Classifier, chelsea: Tensor) -> None:
    with features_of(lite0.view(), chelsea) as given:
        lite0.view().logits(chelsea[None])
    assert given[0].shape == (1, 1280)


# -- the rate --------------------------------------------------------------------------------------------------------


def test_59_clean_draws_certify_95() -> None:
    f, _ = toys.linear()
    x = toys.uniform(3, 6, 6)
    outcome = one(f, x, "grad", "stability_rate:radius=0.01")
    assert (outcome.value, outcome.details["count"], outcome.details["n"]) == (1, 59, 59)
    assert outcome.details["lower"] == pytest.approx(0.05 ** (1 / 59))
    assert outcome.details["lower"] > 0.95
    assert outcome.details["upper"] == 1
    assert one(f, x, "grad", "stability_rate:radius=0.01,n=58").details["lower"] < 0.95


@pytest.mark.parametrize("similarity", ["cosine", "spearman"])
def test_rate_from_its_definition(similarity: str) -> None:
    f, a = quadratic()
    x = toys.uniform(3, 4, 4, seed=1)
    flat, u = x.flatten().double().numpy(), moves(59, (48,))
    phi, maps = a @ flat, (flat + u) @ a
    ranks = np.array([spearmanr(m, phi).statistic for m in maps])
    found = unit(maps) @ unit(phi) if similarity == "cosine" else ranks
    tau = float(np.quantile(found, 0.4)) + 1e-4
    scores = 0.5 * np.einsum("ni,ij,nj->n", flat + u, a, flat + u)
    same = (scores > 0) == (0.5 * flat @ a @ flat > 0)
    count = int(((found >= tau) & same).sum())
    outcome = one(f, x, "grad", f"stability_rate:tau={tau},similarity={similarity}")
    assert outcome.details["count"] == count
    assert 0 < count < 59
    assert outcome.value == count / 59
    np.testing.assert_allclose(outcome.curve, found, atol=1e-3 if similarity == "spearman" else 1e-5)
    # Clopper-Pearson from the tails that define it
    assert binom.sf(count - 1, 59, outcome.details["lower"]) == pytest.approx(0.05)
    assert binom.cdf(count, 59, outcome.details["upper"]) == pytest.approx(0.05)
    looser = one(f, x, "grad", f"stability_rate:tau={tau},similarity={similarity},confidence=0.8").details
    assert outcome.details["lower"] < looser["lower"] < count / 59 < looser["upper"] < outcome.details["upper"]


def test_the_bound_covers() -> None:
    """Over every count of a binomial, the lower bound is right at least 95 times in 100."""
    from scipy.stats import beta

    for rate in (0.5, 0.9, 0.97):
        lower = np.array([beta.ppf(0.05, k, 60 - k) if k else 0.0 for k in range(60)])
        assert binom.pmf(np.arange(60), 59, rate)[lower <= rate].sum() >= 0.95


def test_a_shuffled_pool_is_not_stable() -> None:
    f, _ = toys.linear(side=24)
    x = toys.uniform(3, 24, 24)
    _, (job,) = bench_of(f, x, "grad", ["stability_rate:n=10,radius=0.01"], control=shuffled)
    assert job.outcome.value == 0
    assert job.outcome.details["lower"] == 0
    assert job.outcome.details["upper"] == pytest.approx(1 - 0.05 ** (1 / 10))


def test_maps_without_a_direction() -> None:
    dark, edge = torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.52)
    assert "zero" in str(one(gate(), dark, "grad", "stability_rate").reason)
    assert "zero" in str(one(gate(), dark, "grad", "ris").reason)
    outcome = one(gate(), edge, "grad", "stability_rate")
    far = moves(59, (3, 4, 4))[:, 0, 0, 0] < -0.02
    assert outcome.curve.count(-1.0) == far.sum() > 0
    assert outcome.details["map_kept"] == 59 - far.sum()
    f, _ = toys.linear()
    x = toys.uniform(3, 6, 6)
    assert "constant" in str(one(f, x, "constant", "stability_rate:similarity=spearman").reason)
    assert value(f, x, "constant", "stability_rate:radius=0.01") == 1


def test_the_image_may_be_zero_in_its_space() -> None:
    f, _ = toys.linear()
    outcome = one(f, torch.zeros(3, 6, 6), "grad", "ris:form=norm")
    assert outcome.value is None
    assert "zero" in str(outcome.reason)
    assert one(f, torch.zeros(3, 6, 6), "grad", "ris").details["norm"] is None


def test_alone_is_what_the_draws_do() -> None:
    f, x = toys.small(), toys.uniform(3, 16, 16, seed=2)
    assert value(f, x, "grad", "stability_rate:draws=alone") == 1
    outcome = one(f, x, "sg:n=2,spread=0.8", "stability_rate:n=20,draws=alone,tau=0.99")
    assert outcome.value < 1
    assert outcome.details["label_kept"] == 20
    assert math.isclose(outcome.value, outcome.details["map_kept"] / 20)

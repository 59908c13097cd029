"""Insertion, deletion and symmetric relevance gain."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from judged import MEAN, STD, Lively, case, lively, outcome, settle, value
from scipy.ndimage import gaussian_filter
from toys import Linear, draw, linear, uniform

import attrsens
from attrsens.engine.judge import judge
from attrsens.scores.curves import _Course

BOTH = ["insertion", "deletion"]


def rise(kind: str, normalised: torch.Tensor, heatmap: torch.Tensor, step: int, fill: str, target: int) -> np.ndarray:
    """RISE's evaluation, typed from its description: pixels move from `start` to `finish`, most salient first."""
    kernel = np.zeros((11, 11))
    kernel[5, 5] = 1
    blur = torch.zeros(3, 3, 11, 11)
    for c in range(3):
        blur[c, c] = torch.from_numpy(gaussian_filter(kernel, 5))
    substrate = {
        "mean": torch.zeros_like(normalised),
        "black": -MEAN / STD + torch.zeros_like(normalised),
        "blur": F.conv2d(normalised[None], blur, padding=5)[0],
    }[fill]
    start, finish = (normalised, substrate) if kind == "deletion" else (substrate, normalised)
    values = heatmap.flatten().tolist()
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    now = start.clone().flatten(1)
    scores = []
    net = Lively()
    for at in range(math.ceil(len(order) / step) + 1):
        with torch.no_grad():
            scores.append(float(net(now.reshape(1, *start.shape)).double().softmax(1)[0, target]))
        coords = order[at * step : (at + 1) * step]
        now[:, coords] = finish.flatten(1)[:, coords]
    return np.array(scores)


@pytest.mark.parametrize("fill", ["mean", "black", "blur"])
@pytest.mark.parametrize("kind", BOTH)
def test_curves_are_those_of_rise(kind: str, fill: str) -> None:
    f, x = lively(), uniform(3, 12, 12, seed=3)
    heatmap = (draw(12, 12, seed=4) * 2).round()  # many ties, which go by position
    want = rise(kind, (x - MEAN) / STD, heatmap, 9, fill, target=1)
    assert want.max() - want.min() > 0.2, "the curve moves"
    got = outcome(f, x, heatmap, f"{kind}:step=9,fill={fill}", target=1)
    np.testing.assert_allclose(got.curve, want, atol=1e-5)
    assert got.value == pytest.approx((want.sum() - want[0] / 2 - want[-1] / 2) / (len(want) - 1), abs=1e-6)
    normed = outcome(f, x, heatmap, f"{kind}:step=9,fill={fill},auc=norm", target=1)
    assert normed.value == pytest.approx(got.value / want.max(), abs=1e-6), "SAM's: over the largest"


@pytest.mark.parametrize("kind", BOTH)
def test_a_shorter_last_step_counts_by_its_share(kind: str) -> None:
    f, x, heatmap = lively(), uniform(3, 12, 12, seed=3), draw(12, 12, seed=4)
    want = rise(kind, (x - MEAN) / STD, heatmap, 50, "mean", target=1)  # 50, 50, 44
    got = outcome(f, x, heatmap, f"{kind}:step=50", target=1)
    np.testing.assert_allclose(got.curve, want, atol=1e-5)
    shares = np.array([0, 50, 100, 144]) / 144
    assert got.value == pytest.approx(np.interp(np.linspace(0, 1, 14401), shares, want).mean(), abs=1e-4)


@pytest.mark.parametrize("kind", BOTH)
def test_logits_and_the_deletion_of_a_linear_net_in_closed_form(kind: str) -> None:
    f, w = linear(side=6)
    x = uniform(3, 6, 6, seed=2)
    gains = (w[0] * x).sum(0).flatten()
    falls = torch.cat([torch.zeros(1), gains.sort(descending=True).values.cumsum(0)]).double()
    bias = float(f.view().logits(torch.zeros(1, 3, 6, 6))[0, 0])
    want = bias + (falls if kind == "insertion" else falls[-1] - falls)
    got = outcome(f, x, w[0] * x, f"{kind}:step=1,output=logit,reduce=sum")
    np.testing.assert_allclose(got.curve, want, atol=1e-4)
    assert got.value == pytest.approx(float((want[1:] + want[:-1]).mean() / 2), abs=1e-4)


@pytest.mark.parametrize("kind", [*BOTH, "srg"])
def test_a_flat_curve(kind: str) -> None:
    """A network that does not look: raw is its probability, and SAM's norm is 1, however low that is."""
    net = Linear(torch.zeros(100, 48), torch.zeros(100))
    f = attrsens.Classifier(net, [0.0] * 3, [1.0] * 3, crop=4, device="cpu")
    x, heatmap = uniform(3, 4, 4), draw(4, 4)
    assert value(f, x, heatmap, kind) == pytest.approx(0 if kind == "srg" else 0.01, abs=1e-9)
    assert value(f, x, heatmap, f"{kind}:auc=norm") == pytest.approx(0 if kind == "srg" else 1, abs=1e-9)
    refused = outcome(f, x, heatmap, f"{kind}:auc=norm,output=logit")
    assert refused.value is None
    assert "above 0" in (refused.reason or "")


def test_insertion_is_the_deletion_of_the_least_relevant_read_backwards() -> None:
    f, x, heatmap = lively(), uniform(3, 12, 12, seed=3), draw(12, 12, seed=4)
    scores = ["insertion:step=12", "deletion:step=12", "srg:step=12"]
    (ins, dele, srg, ins_minus, dele_minus, srg_minus), _ = settle(f, x, [heatmap, -heatmap], scores)
    np.testing.assert_allclose(ins.curve, (dele_minus.curve or [])[::-1], atol=1e-6)
    np.testing.assert_allclose(dele.curve, (ins_minus.curve or [])[::-1], atol=1e-6)
    assert srg.value == ins.value - dele.value
    assert srg.details == {"least_first": ins.value, "most_first": dele.value}
    np.testing.assert_allclose(srg.curve, np.array(dele_minus.curve) - np.array(dele.curve), atol=1e-6)
    assert np.mean((np.array(srg.curve)[1:] + np.array(srg.curve)[:-1]) / 2) == pytest.approx(srg.value, abs=1e-6)
    assert srg_minus.value == pytest.approx(-(srg.value or 0), abs=1e-6)


def test_the_better_map_wins() -> None:
    f, w = linear(side=6)
    x = uniform(3, 6, 6, seed=2)
    good, bad = w[0] * x, draw(3, 6, 6, seed=9)
    scores = ["insertion:fill=black", "deletion:fill=black", "srg:fill=black"]
    (a, b, c, d, e, g), _ = settle(f, x, [good, bad], scores)
    assert a.value > d.value
    assert b.value < e.value
    assert c.value > g.value


def test_what_five_maps_cost() -> None:
    """Two curves a map, one image with everything hidden for all, no clean one; conventions on top cost nothing."""
    seen: list[int] = []
    f = lively(1, 28, batch=16)
    f.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    x, maps = uniform(1, 28, 28, seed=3), [draw(28, 28, seed=i) for i in range(5)]
    scores = ["insertion", "deletion", "srg", "insertion:auc=norm", "deletion:output=logit", "srg:auc=norm"]
    found, bench = settle(f, x, maps, scores)
    assert bench.passes.forward == 272, "5 x 54 + 1 in full batches"
    assert bench.passes.backward == 0
    assert seen[-17:] == [16] * 17
    assert seen[-18] == 1, "before that the cases alone"
    assert [o.passes.forward for o in found[:3]] == [28, 28, 55]


def test_the_default_step_is_a_28th() -> None:
    f, w = linear(side=224, classes=2)
    x, heatmap = uniform(3, 224, 224), w[0]
    found, bench = settle(f, x, [heatmap], ["insertion", "deletion", "srg", "deletion:step=1792"])
    assert [o.passes.forward for o in found] == [28, 28, 55, 28]
    assert len(found[0].curve or []) == 29
    assert found[3].value == found[1].value
    assert bench.passes.forward == 56, "27 + 27 + 1 in full batches of 8"
    small = case(lively(1, 28), uniform(1, 28, 28), draw(28, 28), "deletion")
    assert _Course(small, "mean", 0).counts == list(range(0, 785, 28)), "MNIST"
    cifar = _Course(case(lively(3, 32), uniform(3, 32, 32), draw(32, 32), "deletion"), "mean", 0)
    assert cifar.counts == [*range(0, 1000, 37), 1024]


def test_which_map_ranks() -> None:
    f, x, heatmap = lively(), uniform(3, 12, 12, seed=3), draw(3, 12, 12, seed=4)

    def got(score: str, raw: torch.Tensor, **conventions: str) -> float:
        return value(f, x, raw, score, **conventions)

    assert got("deletion", heatmap) == got("deletion", heatmap.mean(0))
    assert got("deletion", heatmap, reduce="none") == got("deletion", heatmap.mean(0)), "channels apart: their mean"
    assert got("deletion:sign=abs", heatmap) == got("deletion", heatmap.abs().mean(0))
    assert got("deletion:sign=abs", heatmap) != got("deletion", heatmap)
    assert got("deletion:reduce=max", heatmap) == got("deletion", heatmap.amax(0))


@pytest.mark.parametrize("kind", [*BOTH, "srg"])
def test_what_changes_nothing(kind: str) -> None:
    x, heatmap = uniform(3, 12, 12, seed=3), draw(12, 12, seed=4)
    f = lively(batch=16)
    base = outcome(f, x, heatmap, kind)
    assert outcome(f, x, heatmap, kind) == base, "to the bit"
    assert outcome(f, x, 3e-9 * heatmap.exp(), kind).value == base.value, "the order alone counts"
    assert value(lively(batch=1), x, heatmap, kind) == pytest.approx(base.value, abs=1e-5)
    before = x.clone()
    outcome(f, x, heatmap, kind)
    assert torch.equal(before, x)


def test_a_map_that_ranks_nothing() -> None:
    f, x = lively(), uniform(3, 12, 12, seed=3)
    for kind in (*BOTH, "srg"):
        found = outcome(f, x, torch.full((12, 12), 0.3), kind)
        assert found.value is None
        assert "constant" in (found.reason or "")
        assert found.passes.forward == 0
        found = outcome(f, x, draw(12, 12), f"{kind}:step=144")
        assert found.value is None
        assert "all 144 pixels" in (found.reason or "")


def test_from_the_method_to_the_score() -> None:
    f, x = lively(1, 28), uniform(1, 28, 28, seed=3)
    found = judge(f, x, 2, "gi", ["insertion:fill=blur", "deletion:fill=grey", "srg:fill=white"], image="toy")
    assert all(o.value is not None and len(o.curve or []) == 29 for o in found)

"""kshap against Shapley's own formula, Captum's KernelShap, and the axioms."""

from __future__ import annotations

import itertools
import math
from functools import cache

import captum.attr as ca
import numpy as np
import pytest
import torch
from skimage.segmentation import slic
from torch import nn
from toys import Linear, SmallNet, draw, explain, uniform

import attrsens
from attrsens.methods.shap import every, kernel, sampled, solve
from attrsens.seeds import Stream


def sharp() -> tuple[attrsens.Classifier, nn.Module]:
    """A small network whose probabilities go from 0 to 1, and the same as a classifier."""
    net = SmallNet("reused")
    with torch.no_grad():
        net.fc.weight.mul_(30)
    return attrsens.Classifier(net, [0.45] * 3, [0.25] * 3, crop=16, device="cpu"), net.eval()


def picture(side: int = 12, seed: int = 3) -> torch.Tensor:
    return (uniform(3, side, side, seed=seed) * 255).round() / 255


def cut(x: torch.Tensor, segments: int) -> np.ndarray:
    """Superpixels by another call than the method's."""
    bytes_ = (x * 255).round().byte().permute(1, 2, 0).numpy()
    return slic(bytes_, n_segments=segments, compactness=30, sigma=3, start_label=0)


def raw(f: attrsens.Classifier, x: torch.Tensor, target: int = 0, **parameters: object):
    spec = attrsens.METHODS["kshap"]
    return attrsens.Explainer(f, spec, target, spec.complete(parameters), image="toy").raw(x)


def values_of(heatmap: torch.Tensor, labels: np.ndarray) -> np.ndarray:
    """One value a superpixel; the map must be constant on each."""
    found = [heatmap[torch.from_numpy(labels == s)].unique() for s in range(labels.max() + 1)]
    assert all(len(v) == 1 for v in found)
    return np.array([float(v) for v in found])


def worth(x: torch.Tensor, labels: np.ndarray, target: int, colour: float = 0.0):
    """The probability of a class when only some superpixels are shown, from the network itself."""
    net = sharp()[1]

    @cache
    def of(coalition: tuple[int, ...]) -> float:
        shown = torch.where(torch.from_numpy(np.isin(labels, coalition)), x, torch.full_like(x, colour))
        with torch.inference_mode():
            return float(torch.softmax(net(((shown - 0.45) / 0.25)[None]), 1)[0, target])

    return of


def shapley(of, count: int) -> np.ndarray:
    """Shapley's formula, coalition by coalition."""
    out = np.zeros(count)
    for j in range(count):
        others = [k for k in range(count) if k != j]
        for size in range(count):
            weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            for coalition in itertools.combinations(others, size):
                out[j] += weight * (of(tuple(sorted((*coalition, j)))) - of(coalition))
    return out


@pytest.mark.parametrize(("fill", "colour"), [("black", 0.0), ("mean", 0.45)])
def test_few_superpixels_give_exact_shapley_values(fill: str, colour: float) -> None:
    x = picture()
    labels = cut(x, 9)
    count = labels.max() + 1
    assert count == 9
    found = raw(sharp()[0], x, 2, segments=9, fill=fill)
    want = shapley(worth(x, labels, 2, colour), count)
    np.testing.assert_allclose(values_of(found.map, labels), want, atol=2e-5 * np.abs(want).max())
    assert (found.passes.forward, found.passes.backward) == (2**count, 0)
    assert found.notes["segments"] == count
    seeds = [raw(sharp()[0], x, 2, segments=9, fill=fill, seed=s).map for s in (1, 2)]
    assert torch.equal(*seeds)


def test_segment_fill_is_the_mean_of_each_superpixel() -> None:
    x = picture()
    labels = cut(x, 9)
    hidden = x.clone()
    for s in range(labels.max() + 1):
        at = torch.from_numpy(labels == s)
        hidden[:, at] = (x[:, at].double().mean(1, keepdim=True) * 255 + 1e-6).floor().float() / 255
    f, net = sharp()

    @cache
    def of(coalition: tuple[int, ...]) -> float:
        shown = torch.where(torch.from_numpy(np.isin(labels, coalition)), x, hidden)
        with torch.inference_mode():
            return float(torch.softmax(net(((shown - 0.45) / 0.25)[None]), 1)[0, 1])

    want = shapley(of, labels.max() + 1)
    found = values_of(explain(f, "kshap", x, 1, segments=9, fill="segment"), labels)
    np.testing.assert_allclose(found, want, atol=1e-4 * np.abs(want).max())


def test_captum_converges_to_it() -> None:
    """Captum samples, and has the end points as heavy rows; ours is exact here."""
    x = picture()
    labels = cut(x, 9)
    ours = explain(sharp()[0], "kshap", x, 2, segments=9)

    class Model(nn.Module):
        net = sharp()[1]

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.net((images - 0.45) / 0.25), 1)

    errors = []
    for n in (200, 3200):
        each = []
        for seed in range(3):
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
                found = ca.KernelShap(Model()).attribute(
                    x[None],
                    torch.zeros_like(x)[None],
                    2,
                    feature_mask=torch.from_numpy(labels)[None, None],
                    n_samples=n,
                    perturbations_per_eval=64,
                )
            each.append(float((found[0, 0] - ours).square().mean().sqrt()))
        errors.append(np.mean(each) / float(ours.abs().max()))
    assert errors[1] < 0.04
    assert errors[1] < errors[0] / 2.5


@pytest.mark.parametrize("n", [1, 3, 40, 41, 300])
def test_values_sum_to_what_all_adds_to_none(n: int) -> None:
    """However few coalitions there are."""
    x = picture(16)
    labels = cut(x, 12)
    found = raw(sharp()[0], x, 1, n=n, segments=12)
    of = worth(x, labels, 1)
    rise = of(tuple(range(labels.max() + 1))) - of(())
    assert values_of(found.map, labels).sum() == pytest.approx(rise, abs=1e-6)
    assert found.notes["completeness_gap"] < 1e-12
    assert found.passes.forward == n + 2


@pytest.mark.parametrize("n", [30, 5000])
def test_additive_superpixels_are_recovered_exactly(n: int) -> None:
    """Sampled (30 coalitions) or in full (2^9)."""
    x = picture(16)
    labels = cut(x, 12)
    weight = draw(4, 3 * 256, seed=1)
    f = attrsens.Classifier(Linear(weight, torch.ones(4)), [0.0] * 3, [1.0] * 3, crop=16, device="cpu")
    each = (weight[0].reshape(x.shape) * x).sum(0).double().numpy()
    want = np.bincount(labels.ravel(), each.ravel())
    found = raw(f, x, n=n, segments=12, output="logit")
    np.testing.assert_allclose(values_of(found.map, labels), want, atol=1e-5 * np.abs(want).max())
    assert found.passes.forward == (n + 2 if n == 30 else 2 ** len(want))


def test_full_enumeration_begins_where_it_costs_no_more() -> None:
    x = picture()
    count = cut(x, 9).max() + 1
    for n, passes in ((2**count - 2, 2**count), (2**count - 3, 2**count - 1)):
        assert raw(sharp()[0], x, n=n, segments=9).passes.forward == passes


def test_more_coalitions_come_closer_as_one_over_the_root() -> None:
    x = picture(16)
    exact = explain(sharp()[0], "kshap", x, 1, n=5000, segments=12)
    errors = []
    for n in (100, 400):
        maps = [explain(sharp()[0], "kshap", x, 1, n=n, segments=12, seed=s) for s in range(12)]
        errors.append(float(torch.stack([(m - exact).square().mean() for m in maps]).mean().sqrt()))
    assert 1.6 < errors[0] / errors[1] < 2.6


def test_the_kernel_is_the_papers() -> None:
    for count in (2, 3, 6):
        weights = kernel(count)[every(count).sum(1)]
        sizes = every(count).sum(1)
        want = [(count - 1) / (math.comb(count, k) * k * (count - k)) for k in sizes]
        np.testing.assert_allclose(weights, want)
        assert len(np.unique(every(count), axis=0)) == 2**count - 2


def test_coalitions_are_drawn_in_proportion_to_the_kernel() -> None:
    """Each of the 30 coalitions of five appears as often as its weight says (chi-square far from its tail)."""
    n = 20_000
    found = sampled(n, 5, Stream(0, "a", "coalitions"))
    np.testing.assert_array_equal(found[1::2], ~found[::2])
    np.testing.assert_array_equal(sampled(51, 5, Stream(0, "a", "coalitions")), found[:51])
    number = found @ (1 << np.arange(5))
    seen = np.bincount(number, minlength=32)[1:31]
    weights = kernel(5)[every(5).sum(1)]
    want = n * weights / weights.sum()
    # complements come in pairs: 15 free counts, doubled
    assert ((seen - want) ** 2 / want).sum() / 2 < 40


def test_what_the_coalitions_do_not_tell_is_shared_evenly() -> None:
    """One coalition of four: its two members are alike, and so are the others."""
    values = solve(np.array([[True, True, False, False]]), np.ones(1), np.array([0.0, 1.0, 0.8]))
    np.testing.assert_allclose(values, [0.4, 0.4, 0.1, 0.1])


def test_both_spaces_hide_alike() -> None:
    x = picture(16)
    for fill in ("black", "segment"):
        pixel, normal = (explain(sharp()[0], "kshap", x, n=60, fill=fill, space=s) for s in ("pixel", "normalized"))
        torch.testing.assert_close(normal, pixel, rtol=0, atol=1e-4 * float(pixel.abs().max()))

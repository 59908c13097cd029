"""Statistics over noisy copies, wrappers around any method, and the controls."""

from __future__ import annotations

import json

import captum.attr as ca
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import kstest
from skimage.filters import sobel
from torch import Tensor, nn
from toys import SmallNet, explain, linear, mean_gradient, small, uniform

import attrsens
from attrsens.engine.cell import parse_call
from attrsens.engine.compute import explainer
from attrsens.models.surgery import relu_as
from attrsens.models.wrappers.softplus import softplus as softplus_model
from attrsens.samples import sample
from attrsens.seeds import Stream
from attrsens.spec import WRAPPERS

X = uniform(3, 16, 16, seed=5)


def wrapped(f: attrsens.Classifier, expression: str, x: Tensor = X, target: int = 1, image: str = "toy"):
    """(raw map, passes) of a method expression."""
    raw = explainer(f, parse_call(expression), target, image).raw(x)
    return raw.map, (raw.passes.forward, raw.passes.backward)


def noise(purpose: str, n: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(Stream(seed, "toy", purpose).normal(range(n), (3, 16, 16)))


# -- SmoothGrad's relatives ------------------------------------------------------------------------------------------


def test_variance_and_mean_square_are_those_of_captums_noise_tunnel() -> None:
    """Its formulas, over its own gradients at our noisy copies."""
    f = small(fold=False)
    sd = 0.2 * float(X.max() - X.min())
    noisy = X + sd * noise("noise", 6)

    def pixels(x: Tensor) -> Tensor:
        return f.network((x - 0.45) / 0.25)

    each = ca.Saliency(pixels).attribute(noisy.requires_grad_(), 1, abs=False).double()
    square = (each**2).mean(0)
    got = explain(f, "sgsq", X, 1, n=6, spread=0.2)
    torch.testing.assert_close(got.double(), square, rtol=1e-4, atol=1e-12)
    got = explain(f, "vargrad", X, 1, n=6, spread=0.2)
    torch.testing.assert_close(got.double(), square - each.mean(0) ** 2, rtol=1e-3, atol=1e-12)
    assert bool((got >= 0).all())


def test_the_variance_of_one_draw_or_of_no_noise_is_zero() -> None:
    f = small()
    assert not bool(explain(f, "vargrad", X, 1, n=1).any())
    assert float(explain(f, "vargrad", X, 1, n=5, spread=0.0).max()) < 1e-12
    torch.testing.assert_close(explain(f, "sgsq", X, 1, n=5, spread=0.0), explain(f, "grad", X, 1) ** 2)


def test_the_uniform_gradient_is_the_mean_over_uniform_noise() -> None:
    f = small()
    width = 0.3 * float(X.max() - X.min())
    draws = torch.from_numpy(Stream(4, "toy", "uniform noise").uniform(range(7), (3, 16, 16)))
    want, _ = mean_gradient(f, X + width * (2 * draws - 1), 1)
    torch.testing.assert_close(explain(f, "ug", X, 1, n=7, spread=0.3, seed=4), want, rtol=1e-5, atol=1e-8)
    assert torch.equal(explain(f, "ug", X, 1, n=0), explain(f, "grad", X, 1))


@pytest.mark.parametrize("method", ["sg", "ug", "vargrad", "sgsq"])
def test_noisy_methods_converge_as_one_over_the_root_of_n(method: str) -> None:
    f = small()
    many = explain(f, method, X, 1, n=6400, seed=99)
    errors = []
    for n in (25, 400):
        maps = torch.stack([explain(f, method, X, 1, n=n, seed=s) for s in range(8)])
        errors.append(float((maps - many).square().mean().sqrt()))
    assert 2.8 < errors[0] / errors[1] < 5.5, "16 times the draws, a quarter of the error"


# -- wrappers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ball", ["linf", "gaussian"])
@pytest.mark.parametrize("agg", ["mean", "median"])
@pytest.mark.parametrize("base", ["grad", "gi", "ig:steps=3", "gbp"])
def test_smooth_is_the_mean_or_median_of_the_maps_around(base: str, agg: str, ball: str) -> None:
    f = small()
    got, passes = wrapped(f, f"{base}+smooth:n=6,radius=0.2,ball={ball},agg={agg},seed=3")
    stream = Stream(3, "toy", "smooth")
    draws = (
        stream.normal(range(6), (3, 16, 16)) if ball == "gaussian" else 2 * stream.uniform(range(6), (3, 16, 16)) - 1
    )
    maps = torch.stack([wrapped(f, base, X + 0.2 * torch.from_numpy(d))[0] for d in draws])
    want = maps.mean(0) if agg == "mean" else torch.from_numpy(np.median(maps.numpy(), axis=0))
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-6 * float(want.abs().max()) + 1e-9)
    _, once = wrapped(f, base)
    assert passes == (6 * once[0], 6 * once[1])


def test_smooth_over_one_pass_methods_fills_its_batches() -> None:
    seen: list[int] = []

    class Spy(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            return super().forward(x)

    f = attrsens.Classifier(Spy("reused"), [0.45] * 3, [0.25] * 3, crop=16, fold=False, device="cpu")
    for base in ("grad", "gi", "gbp", "grad+softplus"):
        seen.clear()
        wrapped(f, f"{base}+smooth:n=20")
        assert seen == [8, 8, 4], base


def test_smooth_with_no_radius_or_on_a_linear_network_is_the_base() -> None:
    f = small()
    for base in ("grad", "sp:patch_size=5,stride=4"):
        assert torch.equal(wrapped(f, f"{base}+smooth:radius=0,n=4")[0], wrapped(f, base)[0])
    flat, weight = linear(side=6)
    x = uniform(3, 6, 6)
    for agg in ("mean", "median"):
        torch.testing.assert_close(wrapped(flat, f"grad+smooth:n=4,agg={agg}", x)[0], weight[1])


def test_a_gaussian_ball_of_the_same_size_is_smoothgrad_in_law() -> None:
    f = small()
    spread = 0.1 / float(X.max() - X.min())
    a = wrapped(f, "grad+smooth:n=4000,radius=0.1,ball=gaussian")[0]
    b = explain(f, "sg", X, 1, n=4000, spread=spread)
    assert float((a - b).norm() / b.norm()) < 0.1


def test_the_softplus_wrapper_explains_the_smoothed_network_and_predicts_with_the_own(run_cli, tmp_path) -> None:
    net = SmallNet("inplace")
    f, g = (
        small("inplace", fold=False),
        attrsens.Classifier(
            softplus_model(net, None, beta=2.0), [0.45] * 3, [0.25] * 3, crop=16, fold=False, device="cpu"
        ),
    )
    for base in ("grad", "sg:n=3", "ig:steps=3,output=logit", "sp:patch_size=5,stride=4"):
        torch.testing.assert_close(wrapped(f, f"{base}+softplus:beta=2")[0], wrapped(g, base)[0], rtol=1e-4, atol=1e-6)
    assert relu_as.active == []
    out = tmp_path / "out"
    methods = ["--method", "grad", "--method", "grad+softplus:beta=0.8"]
    code, _, err = run_cli("explain", "sample:coffee", *methods, "--format", "npy", "--out", out)
    assert code == 0, err
    plain, soft = json.loads((out / "report.json").read_bytes())["records"]
    assert plain["target"] == soft["target"]
    assert plain["heatmap"]["sketch"] != soft["heatmap"]["sketch"]
    assert soft["method"]["name"] == "grad"
    assert soft["method"]["wrappers"] == [{"name": "softplus", "version": 2, "parameters": {"beta": 0.8}}]
    assert soft["method"]["expression"].endswith("+softplus:beta=0.8")
    assert soft["heatmap"]["npy"].startswith("heatmaps/coffee.lite0.grad_softplus.")


def test_softplus_around_a_network_without_relus_is_an_error() -> None:
    f = attrsens.Classifier(
        nn.Sequential(nn.Flatten(), nn.Linear(768, 3), nn.GELU(), nn.Linear(3, 2)), [0.0] * 3, [1.0] * 3, device="cpu"
    )
    with pytest.raises(attrsens.AttrsensError, match="softplus: model sequential calls no ReLU"):
        wrapped(f, "grad+softplus")


def test_topk_keeps_the_largest_entries_alike() -> None:
    f = small()
    base = wrapped(f, "grad")[0]
    got = wrapped(f, "grad+topk:k=50")[0]
    assert got.unique().tolist() == pytest.approx([0.0, 1 / 50])
    kept = got.flatten() > 0
    assert int(kept.sum()) == 50
    assert float(base.flatten()[kept].min()) >= float(base.flatten()[~kept].max())
    by_size = wrapped(f, "grad+topk:k=50,by=abs")[0].flatten() > 0
    assert float(base.flatten().abs()[by_size].min()) >= float(base.flatten().abs()[~by_size].max())
    assert torch.equal(wrapped(f, "grad+topk:k=99999")[0], torch.full((3, 16, 16), 1 / 768))


def test_ties_go_to_the_first_place() -> None:
    got = wrapped(small(), "constant+topk:k=5")[0].flatten()
    assert got.nonzero().flatten().tolist() == [0, 1, 2, 3, 4]


def test_wrappers_stack_in_order_and_have_their_own_keys() -> None:
    f = small()
    outer = wrapped(f, "grad+topk:k=60+smooth:n=5,radius=0.1")[0]
    inner = wrapped(f, "grad+smooth:n=5,radius=0.1+topk:k=60")[0]
    assert float(outer.sum()) == pytest.approx(1.0, rel=1e-4)
    assert len(outer.unique()) > len(inner.unique()) == 2
    calls = [
        parse_call(e)
        for e in ("grad", "grad+topk", "grad+topk:k=5", "grad+smooth", "grad+smooth+topk", "grad+topk+smooth")
    ]
    assert len({json.dumps(c.identity, sort_keys=True) for c in calls}) == 6
    assert all(parse_call(c.expression) == c for c in calls)
    assert "wrappers" not in calls[0].identity, "keys of plain methods stay what they were"


def test_a_new_wrapper_is_one_function() -> None:
    @WRAPPERS("negated_of_a_test", version=1, cost="base")
    def negated(base, f, x, target):
        """Minus the base."""
        return -base(x)

    try:
        f = small()
        assert torch.equal(wrapped(f, "gi+negated_of_a_test")[0], -wrapped(f, "gi")[0])
    finally:
        WRAPPERS.remove("negated_of_a_test")


def test_unknown_wrappers_suggest_the_nearest() -> None:
    with pytest.raises(attrsens.AttrsensError, match="unknown wrapper 'smoth'; did you mean 'smooth'"):
        parse_call("sg:n=5+smoth")
    with pytest.raises(attrsens.AttrsensError, match="topk has no parameter 'n'; wrappers that have it: smooth"):
        parse_call("sg+topk:n=5")


# -- controls --------------------------------------------------------------------------------------------------------


def test_random_maps_are_uniform_and_the_images_own() -> None:
    f = small()
    maps = [explain(f, "random", uniform(3, 64, 64), 1, seed=s).flatten().numpy() for s in (0, 1)]
    assert kstest(maps[0], "uniform", (-1, 2)).pvalue > 1e-3
    assert abs(np.corrcoef(*maps)[0, 1]) < 0.05
    assert not np.array_equal(maps[0], wrapped(f, "random", uniform(3, 64, 64), image="other")[0].flatten().numpy())
    low = explain(f, "random", uniform(3, 64, 64), 1, signed=False)
    assert kstest(low.flatten().numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("space", ["pixel", "normalized"])
def test_edges_are_skimages_sobel_of_the_luminance(space: str) -> None:
    f = small()
    grey = np.tensordot([0.299, 0.587, 0.114], X.numpy().astype(np.float64), 1)
    want = sobel(grey, mode="nearest") * np.sqrt(2)  # it halves the sum of squares
    got = wrapped(f, f"edges:space={space}")[0].numpy()
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_shuffled_maps_keep_their_values_and_lose_their_places() -> None:
    f = small()
    base, got = wrapped(f, "grad")[0], wrapped(f, "shuffle")[0]
    order = {tuple(v): i for i, v in enumerate(base.flatten(1).T.tolist())}
    places = [order[tuple(v)] for v in got.flatten(1).T.tolist()]
    assert sorted(places) == list(range(256)), "channels move together"
    assert abs(float(F.cosine_similarity(base.flatten(), got.flatten(), 0))) < 0.3
    assert wrapped(f, "shuffle:of=sg")[1] == (50, 50)


def test_controls_take_a_methods_map_of_the_output_they_are_given() -> None:
    """A method that explains the probability by itself is shuffled as such with output=prob."""
    f = small()
    logit, prob = (wrapped(f, f"sp:patch_size=29,output={out}", x=uniform(3, 32, 32))[0] for out in ("logit", "prob"))
    assert torch.equal(prob, wrapped(f, "sp", x=uniform(3, 32, 32))[0])
    for expression, want in (("shuffle:of=sp", logit), ("shuffle:of=sp,output=prob", prob)):
        got = wrapped(f, expression, x=uniform(3, 32, 32))[0]
        assert torch.equal(got.flatten().sort().values, want.flatten().sort().values), expression
    assert not torch.equal(logit, prob)


def test_phase_maps_keep_spectrum_and_mean() -> None:
    f = small()
    base, got = wrapped(f, "grad")[0], wrapped(f, "phase")[0]
    power, other = (torch.fft.fft2(m.double()).abs() for m in (base, got))
    torch.testing.assert_close(power, other, rtol=1e-3, atol=1e-4 * float(power.max()))
    torch.testing.assert_close(base.mean((1, 2)), got.mean((1, 2)), rtol=1e-3, atol=1e-7)
    reduced, scrambled = (torch.fft.fft2(m.mean(0).double()).abs() for m in (base, got))
    torch.testing.assert_close(reduced, scrambled, rtol=1e-3, atol=1e-4 * float(reduced.max()))
    assert abs(float(F.cosine_similarity(base.flatten(), got.flatten(), 0))) < 0.5


def test_the_other_map_is_the_methods_map_of_another_picture(tmp_path) -> None:
    net = SmallNet("reused")
    f = attrsens.Classifier(net, [0.45] * 3, [0.25] * 3, resize=16, crop=16, device="cpu")
    report = attrsens.explain(["sample:coffee", "sample:chelsea"], model=f, target=1, method=["sg:n=50", "other:of=sg"])
    own = {
        r.image.path: a.map for r, a in zip(report.records, report.attributions, strict=True) if r.method.name == "sg"
    }
    got = {
        r.image.path: a.map
        for r, a in zip(report.records, report.attributions, strict=True)
        if r.method.name == "other"
    }
    np.testing.assert_array_equal(got["sample:coffee"], own["sample:chelsea"])
    np.testing.assert_array_equal(got["sample:chelsea"], own["sample:coffee"])
    path = str(sample("rocket").path)
    named = attrsens.explain("sample:coffee", model=f, target=1, method=f"other:of=sg,picture={path}")
    rocket = attrsens.explain("sample:rocket", model=f, target=1, method="sg:n=50")
    np.testing.assert_array_equal(named.attributions[0].map, rocket.attributions[0].map)
    mistaken = attrsens.explain("sample:rocket", model=f, method=f"other:picture={path}")
    assert "the other picture is this image itself" in mistaken.failures[0].message


def test_controls_of_unknown_methods_are_named() -> None:
    with pytest.raises(attrsens.AttrsensError, match="unknown method 'gard'; did you mean 'grad'"):
        wrapped(small(), "shuffle:of=gard")

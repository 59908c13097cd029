"""Model wrappers: softplus in place of every ReLU, and means over a fixed bank of noise, as classifiers everywhere."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import STYLES, SmallNet, draw, explain, mean_gradient, uniform

import attrsens
from attrsens.images import Preprocess
from attrsens.models.surgery import rectifier, relu_as
from attrsens.models.wrappers import smoothed as smoothed_module
from attrsens.models.wrappers.smoothed import smoothed
from attrsens.models.wrappers.softplus import softplus
from attrsens.seeds import Stream
from attrsens.spec import MODEL_WRAPPERS

STEPS = Preprocess(16, 16, mean=(0.45,) * 3, std=(0.25, 0.2, 0.3))


def classifier(net: nn.Module, **options: object) -> attrsens.Classifier:
    return attrsens.Classifier(net, STEPS.mean, STEPS.std, crop=16, device="cpu", **options)


class Explicit(SmallNet):
    """The small network with its activation written out."""

    def __init__(self, curve) -> None:
        super().__init__("functional")
        self.curve = curve

    def activate(self, x: Tensor) -> Tensor:
        return self.curve(x)


# -- softplus --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("style", STYLES)
def test_softplus_stands_in_for_every_style_of_relu(style: str, fold: bool) -> None:
    f = classifier(softplus(SmallNet(style), STEPS, beta=0.8), fold=fold)
    want = classifier(Explicit(lambda z: torch.log1p(torch.exp(0.8 * z)) / 0.8), fold=False)
    x = uniform(3, 3, 16, 16)
    torch.testing.assert_close(f.logits(x), want.logits(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(f.gradient(x[0], 2), want.gradient(x[0], 2), rtol=1e-3, atol=1e-5)


class Clipped(SmallNet):
    """ReLU6 in the spelling that is asked for."""

    def __init__(self, spelling: str) -> None:
        super().__init__("functional")
        self.spelling, self.module = spelling, nn.ReLU6(inplace=True)

    def activate(self, x: Tensor) -> Tensor:
        x = x * 20  # so that the upper corner is reached
        return {
            "F.relu6": lambda: F.relu6(x),
            "module": lambda: self.module(x),
            "F.hardtanh": lambda: F.hardtanh(x, 0.0, 6.0),
            "clamp": lambda: x.clamp(0, 6),
            "torch.clamp": lambda: torch.clamp(x, min=0, max=6),
            "clamp_": lambda: x.clamp_(0, 6),
        }[self.spelling]()


@pytest.mark.parametrize("spelling", ["F.relu6", "module", "F.hardtanh", "clamp", "torch.clamp", "clamp_"])
def test_relu6_is_the_difference_of_two_softpluses(spelling: str) -> None:
    f = classifier(softplus(Clipped(spelling), STEPS, beta=0.8))
    want = classifier(Explicit(lambda z: F.softplus(20 * z, 0.8) - F.softplus(20 * z - 6, 0.8)), fold=False)
    x = uniform(2, 3, 16, 16)
    torch.testing.assert_close(f.logits(x), want.logits(x), rtol=1e-4, atol=1e-4)
    assert float((f.logits(x) - classifier(Clipped(spelling)).logits(x)).abs().max()) > 1e-2
    torch.testing.assert_close(f.gradient(x[0], 1), want.gradient(x[0], 1), rtol=1e-3, atol=1e-4)


X = torch.tensor([-1.0, 0.5, 7.0])
SPELLINGS = [
    (lambda x: F.threshold(x, 0.0, 0.0), float("inf"), False),
    (lambda x: torch.threshold_(x, 0, 0), float("inf"), True),
    (lambda x: x.clip_(0), float("inf"), True),
    (nn.Threshold(0, 0), float("inf"), False),
    (lambda x: F.relu(x), float("inf"), False),
    (lambda x: F.relu(x, True), float("inf"), True),
    (lambda x: F.relu(x, inplace=True), float("inf"), True),
    (torch.relu, float("inf"), False),
    (torch.relu_, float("inf"), True),
    (lambda x: x.relu(), float("inf"), False),
    (lambda x: x.relu_(), float("inf"), True),
    (lambda x: x.clamp(min=0), float("inf"), False),
    (lambda x: x.clamp(0), float("inf"), False),
    (lambda x: torch.clamp_min(x, 0), float("inf"), False),
    (lambda x: x.clamp_min_(0), float("inf"), True),
    (lambda x: F.relu6(x, True), 6.0, True),
    (lambda x: F.hardtanh(x, min_val=0.0, max_val=2.0, inplace=True), 2.0, True),
    (lambda x: torch.clip(x, 0, 6), 6.0, False),
]


@pytest.mark.parametrize(("call", "high", "in_place"), SPELLINGS)
def test_spellings_of_relu_are_known_and_answered(call, high: float, in_place: bool) -> None:
    seen = []

    def rule(z: Tensor, top: float) -> Tensor:
        seen.append(top)
        return 3 * z

    given = X.clone()
    with relu_as(rule) as mode:
        out = call(given)
    assert mode.count == 1
    assert seen == [high]
    torch.testing.assert_close(out, 3 * X)
    assert torch.equal(given, out if in_place else X)
    torch.testing.assert_close(call(X.clone()), X.clamp(0, high), msg="outside the block it is itself")


@pytest.mark.parametrize(
    "call",
    [
        *(lambda x: x.clamp(min=1e-6), F.hardtanh, lambda x: x.clamp(max=0), F.gelu, lambda x: x.clamp(0, 1)),
        *(lambda x: F.threshold(x, 0.1, 0.0), lambda x: torch.arange(3).clamp(0), lambda x: x.long().clamp_(min=0)),
    ],
)
def test_what_is_no_relu_stays(call) -> None:
    with relu_as(lambda z, high: 1 / 0) as mode:
        call(X.clone())
    assert mode.count == 0
    assert rectifier(torch.clamp, (X, X), {}) is None


def test_an_input_that_was_overwritten_is_read_again_as_overwritten() -> None:
    """Pre-activation networks do this: the shortcut carries what the in-place ReLU left."""

    class Shortcut(nn.Module):
        def __init__(self, activate) -> None:
            super().__init__()
            self.fc, self.activate = nn.Linear(8, 8), activate
            with torch.no_grad():
                self.fc.weight.copy_(draw(8, 8))
                self.fc.bias.copy_(draw(8, seed=1))

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc(x)
            out = self.activate(x)
            return self.fc(out) + x

    def explicit(z: Tensor) -> Tensor:
        return z.copy_(F.softplus(z.clone(), 0.8))

    x = uniform(4, 8).requires_grad_()
    got, want = softplus(Shortcut(nn.ReLU(inplace=True)), STEPS, beta=0.8)(x), Shortcut(explicit)(x)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(*(torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for y in (got, want)))


def test_a_sharp_softplus_is_relu_again() -> None:
    x = uniform(2, 3, 16, 16)
    f, relu = classifier(softplus(SmallNet("reused"), STEPS, beta=1e4)), classifier(SmallNet("reused"))
    torch.testing.assert_close(f.logits(x), relu.logits(x), rtol=1e-4, atol=1e-4)
    a, b = f.gradient(x[0], 1).flatten(), relu.gradient(x[0], 1).flatten()
    assert float(F.cosine_similarity(a, b, 0)) > 0.999


def test_softplus_has_the_second_derivative_that_relu_lacks() -> None:
    def curvature(net: nn.Module) -> float:
        x = uniform(1, 3, 16, 16).requires_grad_()
        (g,) = torch.autograd.grad(net(x)[0, 1], x, create_graph=True)
        second = torch.autograd.grad(g.sum(), x, allow_unused=True)[0] if g.requires_grad else None
        return 0.0 if second is None else float(second.abs().max())

    net = SmallNet("inplace").eval()
    assert curvature(softplus(net, STEPS, beta=2.0).eval()) > 1e-6
    assert curvature(net) == 0


def test_one_layer_of_softplus_is_relu_under_logistic_noise() -> None:
    """Science 5: the gradient of softplus equals the mean gradient of ReLU when noise of scale 1 / beta is added to
    what goes in; here with the noise's quantiles for draws."""
    beta, count = 0.8, 20_000
    weight, x = draw(6, 5), uniform(5)
    share = (torch.arange(count) + 0.5) / count
    noise = torch.log(share / (1 - share)) / beta
    mean = ((weight @ x)[None] + noise[:, None] > 0).float().mean(0) @ weight

    class Layer(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.relu(z @ weight.T)

    given = x[None].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(softplus(Layer(), STEPS, beta=beta)(given).sum(), given)
    torch.testing.assert_close(gradient[0], mean, rtol=1e-3, atol=1e-3)


def test_the_network_is_as_before_also_after_an_error() -> None:
    class Breaks(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) == 3:
                raise RuntimeError("three")
            return super().forward(x)

    net = Breaks("inplace").eval()
    wrapped, x = softplus(net, STEPS, beta=0.8).eval(), uniform(2, 3, 16, 16)
    before = net(x)
    wrapped(x)
    with pytest.raises(RuntimeError, match="three"):
        wrapped(uniform(3, 3, 16, 16))
    assert torch.equal(net(x), before)
    assert torch.equal(torch.relu(X), X.clamp(min=0))


# -- smoothed --------------------------------------------------------------------------------------------------------


def bank(n: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(Stream(seed, "", "smoothed").normal(range(n), (3, 16, 16)))


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("n", [7, 70])  # 70: more than is kept for the way back
def test_smoothed_is_the_mean_over_the_bank_and_its_gradient_smoothgrads(n: int, fold: bool) -> None:
    base = classifier(SmallNet("inplace"), fold=fold)
    f = classifier(smoothed(SmallNet("inplace"), STEPS, n=n, sigma=0.2, seed=3), fold=fold)
    x = uniform(2, 3, 16, 16)
    for i, image in enumerate(x):
        noisy = image + 0.2 * bank(n, 3)
        torch.testing.assert_close(f.logits(x)[i], base.logits(noisy).mean(0), rtol=1e-5, atol=1e-6)
        sg, _ = mean_gradient(base, noisy, 1)
        torch.testing.assert_close(f.gradient(image, 1), sg, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(f.logits(x), f.logits(x.flip(0)).flip(0), rtol=1e-5, atol=1e-6)


def test_probabilities_are_of_the_mean_logits() -> None:
    base, f = classifier(SmallNet("reused")), classifier(smoothed(SmallNet("reused"), STEPS, n=5, sigma=0.3))
    image = uniform(3, 16, 16)
    mean = base.logits(image + 0.3 * bank(5)).mean(0)
    view = f.view(output="prob")
    torch.testing.assert_close(view.score(image[None], 2)[0], mean.softmax(0)[2], rtol=1e-5, atol=1e-6)
    step = torch.zeros_like(image)
    step[1, 4, 4] = 1e-2
    slope = (view.score((image + step)[None], 2) - view.score((image - step)[None], 2)) / 2e-2
    torch.testing.assert_close(view.gradient(image, 2)[1, 4, 4], slope[0], rtol=2e-2, atol=1e-6)


def test_smoothed_counts_a_pass_for_every_copy_and_keeps_its_batches_small() -> None:
    seen: list[int] = []

    class Spy(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            return super().forward(x)

    f = classifier(smoothed(Spy("reused"), STEPS, n=20, sigma=0.1), fold=False)
    view = f.view()
    view.logits(uniform(3, 3, 16, 16))
    assert (view.passes.forward, view.passes.backward) == (60, 0)
    view.gradient(uniform(3, 16, 16), 0)
    assert (view.passes.forward, view.passes.backward) == (80, 20)
    assert max(seen) <= 16
    assert sum(seen) == 80


def test_noise_that_is_not_held_is_drawn_anew_the_same(monkeypatch) -> None:
    x = uniform(2, 3, 16, 16)
    held = classifier(smoothed(SmallNet("reused"), STEPS, n=9, sigma=0.2)).logits(x)
    monkeypatch.setattr(smoothed_module, "BANK", 0)
    torch.testing.assert_close(classifier(smoothed(SmallNet("reused"), STEPS, n=9, sigma=0.2)).logits(x), held)


def test_memory_that_runs_out_halves_the_copies_in_a_batch() -> None:
    class Hungry(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    x = uniform(1, 3, 16, 16)
    f = classifier(smoothed(Hungry("reused"), STEPS, n=9, sigma=0.2), fold=False)
    want = classifier(smoothed(SmallNet("reused"), STEPS, n=9, sigma=0.2), fold=False)
    torch.testing.assert_close(f.logits(x), want.logits(x))
    torch.testing.assert_close(f.gradient(x[0], 1), want.gradient(x[0], 1))
    assert f.view().passes.forward == 0
    assert f.passes.forward == 9 + 9


@pytest.mark.parametrize("n", [5, 70])
def test_wrappers_commute(n: int) -> None:
    """Also where copies are computed again on the way back, when softplus has closed."""
    one = softplus(smoothed(SmallNet("inplace"), STEPS, n=n, sigma=0.2), STEPS, beta=2.0)
    other = smoothed(softplus(SmallNet("inplace"), STEPS, beta=2.0), STEPS, n=n, sigma=0.2)
    f, g = classifier(one), classifier(other)
    x = uniform(3, 16, 16)
    torch.testing.assert_close(f.logits(x[None]), g.logits(x[None]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(f.gradient(x, 1), g.gradient(x, 1), rtol=1e-4, atol=1e-7)
    assert not torch.allclose(f.gradient(x, 1), classifier(smoothed(SmallNet("inplace"), STEPS, n=n)).gradient(x, 1))


@pytest.mark.parametrize("n", [3, 40])
def test_the_network_inside_is_folded_however_often_it_runs(n: int) -> None:
    f = classifier(smoothed(softplus(SmallNet("reused"), STEPS), STEPS, n=n))
    f.logits(uniform(1, 3, 16, 16))
    assert (f.form.folding.folded, f.form.folding.left) == (2, {})


@pytest.mark.parametrize("space", ["pixel", "normalized"])
def test_every_copy_is_clamped_as_the_network_would(space: str) -> None:
    clamped = replace(STEPS, clamp=True)
    f = classifier(smoothed(SmallNet("reused"), clamped, n=6, sigma=0.4), clamp=True).view(space=space)
    base = classifier(SmallNet("reused"), clamp=True)
    x = uniform(3, 16, 16)
    noisy = x + 0.4 * bank(6)
    torch.testing.assert_close(f.logits(f.encode(x)[None])[0], base.logits(noisy).mean(0), rtol=1e-5, atol=1e-6)
    want, _ = mean_gradient(base, noisy, 1)
    torch.testing.assert_close(classifier_gradient(f, x), want, rtol=1e-4, atol=1e-7)


def classifier_gradient(f: attrsens.Classifier, x: Tensor) -> Tensor:
    """The gradient in pixel space of a view in either space."""
    scale = 1.0 if f.space == "pixel" else 1 / torch.tensor(STEPS.std).reshape(3, 1, 1)
    return f.gradient(f.encode(x), 1) * scale


def test_nothing_is_smoothed_without_noise() -> None:
    x = uniform(2, 3, 16, 16)
    f = classifier(smoothed(SmallNet("reused"), STEPS, n=3, sigma=0.0))
    torch.testing.assert_close(f.logits(x), classifier(SmallNet("reused")).logits(x), rtol=1e-5, atol=1e-6)


# -- everywhere ------------------------------------------------------------------------------------------------------


def test_wrapped_models_are_known_by_their_whole_expression() -> None:
    short, full = (attrsens.load(m, device="cpu") for m in ("lite0+softplus", "lite0+softplus:beta=0.8"))
    other = attrsens.load("lite0+softplus:beta=3", device="cpu")
    assert short.id == full.id
    assert short.name == "lite0+softplus:beta=0.8"
    assert len({short.id, other.id, attrsens.load("lite0", device="cpu").id}) == 3
    both = attrsens.load("lite0+softplus:beta=9+smoothed:n=2,sigma=0.05", device="cpu")
    assert both.name == "lite0+softplus:beta=9.0+smoothed:n=2,sigma=0.05,seed=0"
    assert both.copies == 2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "lite0+softplu",
            "unknown model wrapper 'softplu'; did you mean 'softplus'? model wrappers: smoothed, softplus",
        ),
        ("lite0+softplus:sigma=1", "softplus has no parameter 'sigma'; model wrappers that have it: smoothed"),
        ("lite0+softplus:beta=0", "softplus: beta must be a number from 0.001 to 1,000,000.0; got '0'"),
        ("lite0+smoothed:n", "model wrapper 'smoothed:n': cannot read 'n'; write name:parameter=value,..."),
        ("lite0+smoothed:n=2,n=3", "model wrapper 'smoothed:n=2,n=3': n is given twice"),
    ],
)
def test_mistakes_in_a_wrapper_are_named(model: str, message: str, run_cli) -> None:
    code, out, err = run_cli("explain", "--model", model)
    assert (code, out, err) == (2, "", f"attrsens: {message}\n")


def test_softplus_of_a_network_without_relus_says_so_before_any_work(tmp_path, monkeypatch, run_cli) -> None:
    (tmp_path / "curved_net_of_a_test.py").write_text(
        "from torch import nn\n"
        "def build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(48, 4), nn.GELU(), nn.Linear(4, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 4), nn.GELU(), nn.Linear(4, 3))
    torch.save(net.state_dict(), "net.pt")
    options = ["--arch", "py:curved_net_of_a_test:build", "--preprocess", "resize=4,crop=4"]
    code, out, err = run_cli("explain", "sample:coffee", "--model", "net.pt+softplus", *options)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "attrsens: softplus: the network calls no ReLU, so there is nothing to smooth"
    assert not (tmp_path / "attrsens-out").exists()


def test_wrapped_models_explain_like_any_other(tmp_path, run_cli) -> None:
    models = ["lite0+softplus:beta=5", "lite0+smoothed:n=3,sigma=0.1"]
    arguments = [part for m in models for part in ("--model", m)]
    out = tmp_path / "out"
    code, _, err = run_cli(
        "explain", "sample:coffee", *arguments, "--method", "grad", "--method", "sg:n=2", "--out", out
    )
    assert code == 0, err
    report = json.loads((out / "report.json").read_bytes())
    by = {(r["model"]["name"].partition(":")[0], r["method"]["name"]): r for r in report["records"]}
    assert by["lite0+smoothed", "sg"]["passes"] == {"forward": 6, "backward": 6}
    assert by["lite0+softplus", "grad"]["passes"] == {"forward": 1, "backward": 1}
    assert len({r["heatmap"]["sketch"] for r in report["records"]}) == 4
    assert all((out / r["heatmap"]["png"]).is_file() for r in report["records"])
    plain = attrsens.explain("sample:coffee", method="grad").attributions[0].map
    soft = attrsens.explain("sample:coffee", model=models[0], method="grad").attributions[0].map
    assert not np.allclose(plain, soft)


def test_a_rerun_of_a_wrapped_model_makes_no_pass(monkeypatch) -> None:
    first = attrsens.explain("sample:coffee", model="lite0+softplus:beta=5+smoothed:n=2,sigma=0.1", method="grad")
    seen = []
    monkeypatch.setattr("attrsens.models.nets.lite0.Lite0.forward", lambda *_: seen.append(1))
    again = attrsens.explain("sample:coffee", model="lite0+softplus:beta=5+smoothed:n=2,sigma=0.1", method="grad")
    assert seen == []
    assert again.records == first.records


def test_a_new_wrapper_is_one_function() -> None:
    @MODEL_WRAPPERS("twice", version=1)
    def twice(net, preprocess):
        """The network with doubled logits."""

        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = net

            def forward(self, x: Tensor) -> Tensor:
                return 2 * self.inner(x)

        return Twice()

    try:
        f, base = (attrsens.load(m, device="cpu") for m in ("lite0+twice", "lite0"))
        x = uniform(1, 3, 224, 224)
        torch.testing.assert_close(f.logits(x), 2 * base.logits(x), rtol=1e-4, atol=1e-4)
        assert explain(f, "grad", x[0], 3).shape == (3, 224, 224)
    finally:
        MODEL_WRAPPERS.remove("twice")

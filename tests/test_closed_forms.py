"""What the papers' theorems and definitions say of small networks, checked without the methods' own code."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import draw, explain, linear, small, uniform

import attrsens
from attrsens.engine.cell import parse_call
from attrsens.engine.compute import explainer
from attrsens.methods.agi import classes

NOISY = ["sg", "ug", "bsg", "bsm"]


@pytest.mark.parametrize("method", NOISY)
def test_noise_does_not_change_the_gradient_of_a_linear_network(method: str) -> None:
    f, weight = linear(side=6)
    x = uniform(3, 6, 6, seed=2)
    own = int(f.logits(x[None]).argmax())
    got = explain(f, method, x, own)
    torch.testing.assert_close(got, weight[own], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["vargrad", "sgsq"])
def test_variance_and_mean_square_of_a_linear_network(method: str) -> None:
    f, weight = linear(side=6)
    want = weight[1] ** 2 if method == "sgsq" else torch.zeros_like(weight[1])
    torch.testing.assert_close(explain(f, method, uniform(3, 6, 6, seed=2), 1), want, rtol=1e-4, atol=1e-5)


def test_deeplift_from_zero_is_gradient_times_input_without_biases() -> None:
    """Of a bias-free ReLU network, whose activations at zero are zero."""
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.Conv2d(6, 6, 3, bias=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(6 * 4 * 4, 4, bias=False),
    )  # fmt: skip
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(0.3 * draw(*p.shape, seed=i))
    f = attrsens.Classifier(net.eval(), [0.0] * 3, [1.0] * 3, crop=8, device="cpu")
    x = uniform(3, 8, 8, seed=3)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(net(leaf[None])[0, 1], leaf)
    torch.testing.assert_close(explain(f, "deeplift", x, 1, baseline="black"), slope * x, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(explain(f, "lrp", x, 1, eps=1e-9), slope * x, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("k", [5, 50, 300])
def test_set_explanations_move_no_more_than_their_maps_allow(k: int) -> None:
    """HSE, proposition B.1: |S(x) - S(y)|_1 <= 2 |map(x) - map(y)|_1 / (eta k), eta the gap below the k-th entry."""
    f = small()
    x = uniform(3, 16, 16, seed=5)

    def of(expression: str, at: torch.Tensor) -> torch.Tensor:
        return explainer(f, parse_call(expression), 1, "toy").raw(at).map.double().flatten()

    here, chosen = of("grad", x), of(f"grad+topk:k={k}", x)
    ranked = here.sort(descending=True).values
    eta = float(ranked[k - 1] - ranked[k])
    moved = []
    for seed in range(6):
        y = x + 0.05 * (uniform(3, 16, 16, seed=100 + seed) - 0.5)
        change = float((of(f"grad+topk:k={k}", y) - chosen).abs().sum())
        assert change <= 2 * float((of("grad", y) - here).abs().sum()) / (eta * k) + 1e-6
        moved.append(change)
    assert max(moved) > 0, "the sets did change"


@pytest.mark.parametrize("output", ["logit", "prob"])
def test_one_step_of_adversarial_gradient_integration(output: str) -> None:
    """A = - sum over t of df_c/dx * (clip(x + eps sign df_t/dx, 0, 1) - x)."""
    f, x, eps = small(), uniform(3, 16, 16, seed=4), 0.01
    own = int(f.logits(x[None]).argmax())
    leaf = x.clone().requires_grad_()
    logits = f.network((leaf[None] - 0.45) / 0.25)[0]
    scores = logits if output == "logit" else logits.softmax(0)
    (down,) = torch.autograd.grad(scores[own], leaf, retain_graph=True)
    want = torch.zeros_like(x)
    for t in classes(f.class_count, own, 4, "path"):
        (up,) = torch.autograd.grad(scores[t], leaf, retain_graph=True)
        want -= down * ((x + eps * up.sign()).clamp(0, 1) - x)
    spec = attrsens.METHODS["agi"]
    own_map = attrsens.Explainer(
        f, spec, own, spec.complete({"k": 4, "steps": 1, "eps": eps, "output": output}), image="toy"
    ).raw(x)
    torch.testing.assert_close(own_map.map, want, rtol=1e-3, atol=1e-6 * float(want.abs().max()))
    assert float(want.abs().max()) > 0

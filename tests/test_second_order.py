"""Maps that can be differentiated: exact against finite differences in float64, and the passes they cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attrsens.engine.cell import parse_call
from attrsens.engine.compute import explainer
from attrsens.models.classifier import Classifier
from attrsens.models.second_order import twice
from attrsens.models.surgery import relu_as, softplus_relu
from attrsens.spec import METHODS, WRAPPERS


class Mixed(nn.Module):
    """Every kind of layer that has a tangent rule: in-place and functional ReLUs, ReLU6, other curves, pools, norms,
    constants, a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu, self.relu6 = nn.ReLU(inplace=True), nn.ReLU6(inplace=True)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)
        self.norm.running_mean.fill_(0.1)
        self.norm.running_var.fill_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.relu(self.norm(self.first(x))), 2)
        x = x + self.relu6(3 * self.second(x) - 0.1)
        x += 0.2
        x = 1.5 - torch.tanh(x / 2)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Gated(Mixed):
    """A product of two activations, which has no tangent rule."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        return self.head((x * torch.sigmoid(self.second(x))).mean((2, 3)))


def wide(net: nn.Module, seed: int = 0, **options: object) -> Classifier:
    """In float64, so that finite differences have digits."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    f = Classifier(net, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), fold=False, **options)  # type: ignore[arg-type]
    f.dtype = torch.float64
    f.network.double()
    return f


def draw(seed: int) -> Tensor:
    return torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


EXPRESSIONS = [
    *(name for name in METHODS if METHODS[name].traits.get("differentiable")),
    *(f"grad+{name}" for name in WRAPPERS if WRAPPERS[name].traits.get("differentiable")),
    "lrp:eps=0.1",
    "grad:output=prob",
    "grad:space=normalized",
    "grad:sign=abs_sample",
    "ig:steps=3,rule=middle",
    "gi+smooth:n=3,agg=median",
    "ig:steps=2+softplus:beta=3+smooth:n=2,radius=0.1",
]
FEW = {"sg": "n=3", "ug": "n=3", "vargrad": "n=3", "sgsq": "n=3", "ig": "steps=4", "grad+smooth": "n=3"}


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("net", [Mixed, Gated])
def test_the_gradient_of_a_map_is_that_of_finite_differences(expression: str, net: type[nn.Module]) -> None:
    if "lrp" in expression and net is Gated:
        pytest.skip("products have no relevance rule")
    text = f"{expression}:{FEW[expression]}" if expression in FEW else expression
    f = wide(net())
    bound = replace(explainer(f, parse_call(text), 1, "image"), graph=True)
    weights, direction = draw(1), draw(2) - 0.5

    def loss(x: Tensor) -> Tensor:
        with softplus_relu(4.0):
            return (bound.raw(x).map * weights).sum()

    x = draw(3).requires_grad_()
    (found,) = torch.autograd.grad(loss(x), x)
    wide_step = text.startswith(("vargrad", "sgsq"))  # their result is rounded to float32
    h = 1e-3 if wide_step else 1e-6
    slope = (loss(x.detach() + h * direction) - loss(x.detach() - h * direction)).item() / (2 * h)
    assert abs(slope) > 1e-6
    assert (found * direction).sum().item() == pytest.approx(slope, rel=5e-3 if wide_step else 1e-6)
    own_rule = text.startswith(("gradcam", "ggradcam", "gbp", "lrp"))
    assert ("no tangents" in f.memo) == (net is Gated and not own_rule)
    assert relu_as.active == []


@pytest.mark.parametrize("beta", [None, 4.0])
def test_all_three_results_can_be_differentiated_and_equal_a_double_backward(beta: float | None) -> None:
    f = wide(Mixed())
    u = torch.stack([draw(4), draw(5)]).requires_grad_()
    target = torch.tensor([0, 3])

    def loss(z: Tensor) -> Tensor:
        return z.softmax(1).gather(1, target[:, None])[:, 0]

    def gradient(memo: dict[str, str]) -> Tensor:
        if beta is None:
            logits, values, gradients = twice(f.network, u, loss, memo)
        else:
            with softplus_relu(beta):
                logits, values, gradients = twice(f.network, u, loss, memo)
        total = (gradients * draw(6)).sum() + (logits * draw(7)[0, 0, :5]).sum() + (values**2).sum()
        (found,) = torch.autograd.grad(total, u)
        return found

    exact, plain = gradient({}), gradient({"no tangents": "asked for"})
    assert exact.abs().max() > 1e-3
    torch.testing.assert_close(exact, plain, rtol=1e-9, atol=1e-10)


def test_without_smoothing_a_relu_network_has_no_second_order_signal() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    f = wide(net)
    bound = replace(explainer(f, parse_call("grad"), 1, "image"), graph=True)
    x = draw(3).requires_grad_()
    (found,) = torch.autograd.grad((bound.raw(x).map ** 2).sum(), x)
    assert torch.equal(found, torch.zeros_like(found))


def test_a_gradient_with_a_graph_counts_two_passes_each_way() -> None:
    f = wide(Mixed())
    bound = replace(explainer(f, parse_call("sg:n=3"), 1, "image"), graph=True)
    assert vars(bound.raw(draw(3)).passes) == {"forward": 6, "backward": 6}
    assert vars(replace(bound, dry=True).raw(draw(3)).passes) == {"forward": 6, "backward": 6}


def test_views_without_a_graph_give_what_they_gave() -> None:
    f = wide(Mixed())
    for text in ("grad", "gbp", "lrp", "lrp:eps=0.1", "gradcam", "sg:n=3"):
        bound = explainer(f, parse_call(text), 1, "image")
        plain, graph = bound.raw(draw(3)).map, replace(bound, graph=True).raw(draw(3)).map
        torch.testing.assert_close(graph.detach(), plain, rtol=1e-9, atol=1e-12)
        assert graph.requires_grad
        assert not plain.requires_grad


def test_a_clamped_pixel_has_no_gradient() -> None:
    f = wide(Mixed(), clamp=True)
    bound = replace(explainer(f, parse_call("grad"), 1, "image"), graph=True)
    x = draw(3)
    x[0, 0, 0] = -0.5
    assert bound.raw(x).map[0, 0, 0] == 0
    torch.testing.assert_close(bound.raw(x).map.detach(), explainer(f, parse_call("grad"), 1, "image").raw(x).map)


def test_gradcam_of_a_smoothed_network_keeps_its_own_relu() -> None:
    """Grad-CAM cuts its sum at 0 exactly; only the network's ReLUs are smoothed."""
    f = wide(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 5)))
    found = explainer(f, parse_call("gradcam+softplus:beta=0.8"), 1, "image").raw(draw(3)).map
    below = explainer(f, parse_call("gradcam+softplus:beta=0.8"), 2, "image").raw(draw(3)).map
    assert min(found.min(), below.min()) == 0

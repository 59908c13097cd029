"""Guided backpropagation, Grad-CAM, LRP and DeepLIFT against other implementations and closed forms."""

from __future__ import annotations

import captum.attr as ca
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import zoo
from torch import Tensor, nn
from toys import SmallNet, draw, explain, linear, small, uniform

import attrsens
from attrsens.errors import InputError
from attrsens.models.layers import find_layer, planes
from attrsens.models.rules import RescaleRule

MEAN, STD = (0.45,) * 3, (0.25,) * 3


def on(net: nn.Module, side: int, fold: bool = False) -> attrsens.Classifier:
    return attrsens.Classifier(net, MEAN, STD, crop=side, fold=fold, device="cpu")


class Pixels(nn.Module):
    """Pixels in, logits out, for the other implementations."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - MEAN[0]) / STD[0])


def spread_out(net: nn.Module) -> nn.Module:
    """Weights and biases that keep signals of one size, drawn the same every time."""
    with torch.no_grad():
        for i, m in enumerate(net.modules()):
            if isinstance(m, (nn.Conv2d, nn.Linear)):
                m.weight.copy_(draw(*m.weight.shape, seed=i) * (2 / m.weight[0].numel()) ** 0.5)
                if m.bias is not None:
                    m.bias.copy_(draw(*m.bias.shape, seed=i + 100) * 0.1)
    return net.eval()


def plain(activation: type[nn.Module] = nn.ReLU, pool: type[nn.Module] = nn.MaxPool2d) -> nn.Module:
    """Every activation a module of its own, so that hooks can work on it."""
    return spread_out(
        nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), activation(), pool(2), nn.Conv2d(8, 8, 3, padding=1), activation()),
            *(pool(2), nn.Flatten(), nn.Linear(128, 16), activation(), nn.Linear(16, 4)),
        )
    )


X = uniform(3, 16, 16, seed=5)


def captums_guided(net: nn.Module, target: int) -> Tensor:
    with pytest.warns(UserWarning, match="Setting backward hooks"):
        return ca.GuidedBackprop(Pixels(net)).attribute(X[None].clone().requires_grad_(), target)[0]


# -- guided backpropagation ------------------------------------------------------------------------------------------


def test_guided_backpropagation_is_captums() -> None:
    net = plain()
    want = captums_guided(net, 2)
    got = explain(on(net, 16), "gbp", X, 2)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(got, explain(on(net, 16), "grad", X, 2))


@pytest.mark.parametrize("style", ["functional", "inplace", "reused"])
def test_guided_backpropagation_meets_every_style_of_relu(style: str) -> None:
    """Module hooks see nothing of a functional ReLU, and return the plain gradient (methods 8, trap 1)."""

    class Separate(SmallNet):
        def __init__(self) -> None:
            super().__init__("reused")
            self.one, self.two = nn.ReLU(), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(self.bn1(self.conv1(x)))
            return self.fc(self.two(self.bn2(self.conv2(x))).mean((2, 3)))

    want = captums_guided(Separate().eval(), 1)
    for fold in (True, False):
        torch.testing.assert_close(explain(small(style, fold=fold), "gbp", X, 1), want, rtol=1e-3, atol=1e-6)
    if style == "functional":
        missed = captums_guided(SmallNet("functional").eval(), 1)
        assert not torch.allclose(missed, want, rtol=1e-2)


class Six(torch.autograd.Function):
    """Guided ReLU6, written for the test."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return torch.minimum(torch.maximum(z, torch.zeros_like(z)), torch.full_like(z, 6.0))

    @staticmethod
    def backward(ctx, g):
        (z,) = ctx.saved_tensors
        return torch.where((z > 0) & (z < 6) & (g > 0), g, torch.zeros_like(g))


class Guided6(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return Six.apply(z)


def test_guided_relu6_lets_nothing_through_at_its_top() -> None:
    net, guided = plain(nn.ReLU6), plain(Guided6)
    with torch.no_grad():
        for n in (net, guided):
            n[0].weight.mul_(8)  # so that some units are at 6
    x = X[None].clone().requires_grad_()
    (want,) = torch.autograd.grad(Pixels(guided)(x)[0, 2], x)
    torch.testing.assert_close(explain(on(net, 16), "gbp", X, 2), want[0], rtol=1e-4, atol=1e-6)
    assert bool((net[0]((x - 0.45) / 0.25) > 6).any())


@pytest.mark.parametrize("style", ["apart", "view", "clamp"])
def test_guided_relu_changes_no_gradient_that_others_share(style: str) -> None:
    """A sum hands one gradient to a ReLU and to its neighbour; the second must get it whole."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(12, 6), nn.Linear(12, 6)
            self.last = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.a(x.flatten(1)), self.b(x.flatten(1))
            if style == "view":
                F.relu(a[:, :], inplace=True)
            else:
                a = F.relu(a) if style == "apart" else a.clamp(min=0)
            return self.last(a + b)

    net = spread_out(Shared())
    x = uniform(3, 2, 2, seed=3)
    f = attrsens.Classifier(net, [0.0] * 3, [1.0] * 3, crop=2, fold=False, device="cpu")
    g = net.last.weight[1].detach()
    assert bool((g < 0).any())
    through = g.clamp(min=0) * (net.a(x.flatten()) > 0)
    want = (net.a.weight.T @ through + net.b.weight.T @ g).detach().reshape(3, 2, 2)
    torch.testing.assert_close(explain(f, "gbp", x, 1), want, rtol=1e-5, atol=1e-6)


def test_guided_backpropagation_without_relus_says_so() -> None:
    with pytest.raises(attrsens.AttrsensError, match="model sequential calls no ReLU, so there is nothing to guide"):
        explain(on(plain(nn.GELU), 16), "gbp", X, 1)


# -- Grad-CAM --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "cifar-resnet20"])
def test_gradcam_is_captums(name: str) -> None:
    f, x = zoo.classifier(name, fold=False), zoo.images(name, 1)[0]
    target = int(f.logits(x[None]).argmax())
    layer = find_layer(f.network, f.normalised(x[None]))
    given = f.normalised(x[None])
    module = f.network.get_submodule(layer)
    want = ca.LayerGradCam(f.network, module).attribute(given, target, relu_attributions=True)
    want = F.interpolate(want, size=x.shape[-2:], mode="bilinear", align_corners=False)[0, 0].detach()
    torch.testing.assert_close(explain(f, "gradcam", x, target), want, rtol=1e-3, atol=1e-4 * float(want.max()))
    nearest = ca.LayerAttribution.interpolate(
        ca.LayerGradCam(f.network, module).attribute(given, target, relu_attributions=True),
        tuple(x.shape[-2:]),
        "nearest",
    )[0, 0].detach()
    got = explain(f, "gradcam", x, target, upsample="nearest", layer=layer)
    torch.testing.assert_close(got, nearest, rtol=1e-3, atol=1e-4 * float(want.max()))
    guided = explain(f, "ggradcam", x, target)
    torch.testing.assert_close(guided, explain(f, "gbp", x, target) * explain(f, "gradcam", x, target))


@pytest.mark.filterwarnings("ignore")
def test_gradcam_of_a_transformer_is_that_of_pytorch_grad_cam() -> None:
    """Up to the scaling to [0, 1] that its library applies to every map."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    f, x = zoo.classifier("vit_tiny", fold=False), zoo.images("vit_tiny", 1)[0]

    def grid(tokens: Tensor) -> Tensor:
        return tokens[:, 1:].reshape(len(tokens), 4, 4, -1).permute(0, 3, 1, 2)

    net = zoo.build("vit_tiny")
    theirs = GradCAM(net, [net.blocks[-1].norm1], reshape_transform=grid)
    want = torch.from_numpy(theirs(f.normalised(x[None]), [ClassifierOutputTarget(3)])[0])
    got = explain(f, "gradcam", x, 3)
    assert float(want.max()) > 0.9
    got = (got - got.min()) / (got.max() - got.min())
    assert float((got - want).abs().max()) < 0.02


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer4"),
        ("googlenet", "inception5b"),
        ("vgg11_bn", "features"),
        ("mobilenet_v3_small", "features"),
        ("densenet121", "features"),
        ("convnext_tiny", "features"),
        ("vit_tiny", "blocks.11.norm1"),
        ("swin_tiny", "norm"),
        ("timm resnet10t", "layer4"),
        ("cifar-resnet18", "layer4"),
        ("cifar-resnet20", "layer3"),
        ("mnist-cnn", "conv2"),
        ("mnist-lenet", "3"),
    ],
)
def test_the_last_layer_that_knows_places_is_found(name: str, layer: str) -> None:
    f, x = zoo.classifier(name), zoo.images(name, 1)[0]
    heatmap = explain(f, "gradcam", x, 1)
    assert f.memo["layer"] == layer
    assert heatmap.shape == x.shape[-2:]
    assert float(heatmap.min()) >= 0


def test_places_of_tokens_and_of_channels_that_come_last() -> None:
    tokens = torch.arange(2 * 17 * 3.0).reshape(2, 17, 3)
    grid = planes(nn.Identity(), tokens, (8, 8))
    assert grid.shape == (2, 3, 4, 4)
    assert torch.equal(grid[1, 2].flatten(), tokens[1, 1:, 2])
    last = torch.arange(2 * 7 * 7 * 5.0).reshape(2, 7, 7, 5)
    assert torch.equal(planes(nn.Identity(), last, (56, 56)), last.permute(0, 3, 1, 2))
    assert torch.equal(planes(nn.LayerNorm(7), torch.ones(1, 7, 7, 7), (56, 56)), torch.ones(1, 7, 7, 7))
    assert planes(nn.Identity(), torch.ones(1, 8, 1, 1), (8, 8)) is None
    assert planes(nn.Identity(), torch.ones(1, 8), (8, 8)) is None
    assert planes(nn.Identity(), torch.ones(1, 25 + 4, 8), (8, 8)) is not None, "25 places and 4 registers"
    assert planes(nn.Identity(), torch.ones(1, 63, 8), (8, 8)) is None, (
        "49 places and 14 tokens before them are too many"
    )


def test_layers_that_do_not_fit_are_named() -> None:
    f = on(plain(), 16)
    with pytest.raises(attrsens.AttrsensError, match="unknown layer '33'; did you mean"):
        explain(f, "gradcam", X, 1, layer="33")
    with pytest.raises(attrsens.AttrsensError, match=r"layer 7 returns \(1, 16\), which has no places"):
        explain(f, "gradcam", X, 1, layer="7")
    flat = on(spread_out(nn.Sequential(nn.Flatten(), nn.Linear(768, 4))), 16)
    with pytest.raises(attrsens.AttrsensError, match="no layer of it knows places"):
        explain(flat, "gradcam", X, 1)


def test_a_cam_that_is_cut_to_zero_is_noted() -> None:
    net = plain()
    with torch.no_grad():
        net[-1].weight[1] = -net[-1].weight[1].abs()
        net[-3].weight.abs_()
    f = on(net, 16)
    spec = attrsens.METHODS["gradcam"]
    raw = attrsens.Explainer(f, spec, 1, spec.complete({"layer": "4"}), "a").raw(X)
    assert raw.notes == {"all_negative": 1.0}
    assert not bool(raw.map.any())


# -- LRP -------------------------------------------------------------------------------------------------------------


def loops(net: nn.Sequential, x: Tensor, target: int, eps: float) -> Tensor:
    """The epsilon rule, layer by layer, with explicit sums: linear layers, ReLU, average pooling as a sum."""

    def share(a: Tensor, weight: Tensor, z: Tensor, relevance: Tensor) -> Tensor:
        sign = torch.where(z >= 0, 1.0, -1.0)
        return (a[None, :] * weight * (relevance / (z + eps * sign))[:, None]).sum(0)

    acts = [x]
    for layer in net:
        acts.append(layer(acts[-1]))
    relevance = torch.zeros_like(acts[-1])
    relevance[0, target] = acts[-1][0, target]
    for layer, a, z in reversed(list(zip(net, acts, acts[1:], strict=False))):
        if isinstance(layer, (nn.ReLU, nn.Flatten)):
            relevance = relevance.reshape(a.shape)
        else:
            bare = torch.autograd.functional.jacobian(layer, a).reshape(z.numel(), a.numel())
            relevance = share(a.flatten(), bare, z.flatten(), relevance.flatten()).reshape(a.shape)
    return relevance[0]


@pytest.mark.parametrize("eps", [1e-6, 0.3])
def test_lrp_is_the_sum_of_shares(eps: float) -> None:
    net = plain(pool=nn.AvgPool2d)
    f = attrsens.Classifier(net, [0.0] * 3, [1.0] * 3, crop=16, fold=False, device="cpu")
    want = loops(net, X[None], 2, eps)
    torch.testing.assert_close(explain(f, "lrp", X, 2, eps=eps), want, rtol=1e-3, atol=1e-5)
    if eps == 0.3:
        assert not torch.allclose(want, explain(f, "gi", X, 2), rtol=1e-2, atol=1e-3), "the stabiliser counts"


class Head(nn.Module):
    """A convolutional network that ends in a convolution: Captum has no rule for flattening before layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = spread_out(
            nn.Sequential(
                *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
                *(nn.AvgPool2d(8), nn.Conv2d(8, 4, 1)),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).flatten(1)


def test_lrp_is_captums() -> None:
    net = Head().eval()
    want = ca.LRP(net).attribute(((X - 0.45) / 0.25)[None].requires_grad_(), 2)[0].detach()
    got = explain(on(net, 16), "lrp", X, 2, eps=1e-9, space="normalized")
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-7)


def test_lrp_of_a_residual_network_is_zennits() -> None:
    from zennit.attribution import Gradient
    from zennit.composites import LayerMapComposite
    from zennit.rules import Epsilon, Pass
    from zennit.torchvision import ResNetCanonizer
    from zennit.types import Activation, AvgPool, Convolution
    from zennit.types import Linear as Dense

    eps = 0.05
    x = zoo.images("resnet18", 1)[0]
    f = zoo.classifier("resnet18")  # BatchNorm merged, as the canonizer does
    given = f.normalised(x[None])
    rules = [(Activation, Pass()), (Convolution, Epsilon(eps)), (Dense, Epsilon(eps)), (AvgPool, Epsilon(eps))]
    from zennit.layer import Sum

    composite = LayerMapComposite([(Sum, Epsilon(eps)), *rules], canonizers=[ResNetCanonizer()])
    with Gradient(zoo.build("resnet18"), composite) as attributor:
        _, want = attributor(given, lambda out: out * F.one_hot(torch.tensor([3]), 10))
    got = explain(f, "lrp", x, 3, eps=eps, space="normalized")
    assert float(F.cosine_similarity(got.flatten(), want.flatten(), 0)) > 0.999
    assert float((got - want[0]).abs().max() / want.abs().max()) < 0.02
    exact = explain(f, "gi", x, 3, space="normalized")
    assert float((got - exact).abs().max() / exact.abs().max()) > 0.05, "not the gradient times the input"


def test_lrp_of_relu_networks_tends_to_gradient_times_input() -> None:
    f, x = zoo.classifier("cifar-resnet20"), zoo.images("cifar-resnet20", 1)[0]
    gi = explain(f, "gi", x, 3)
    far, near = (float((explain(f, "lrp", x, 3, eps=e) - gi).abs().max() / gi.abs().max()) for e in (1e-2, 1e-6))
    assert near < 1e-2 < 0.05 < far


def test_relevance_passes_a_relu6_at_its_top() -> None:
    """R_in = R_out also where the activation is cut at 6, where the gradient is zero."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False), nn.ReLU6(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[10.0, 5.0, 0.0], [1.0, 1.0, 1.0]]))
        net[3].weight.copy_(torch.tensor([[2.0, 3.0]]))
    f = attrsens.Classifier(net, [0.0] * 3, [1.0] * 3, crop=1, fold=False, device="cpu")
    x = torch.tensor([0.6, 0.8, 0.1]).reshape(3, 1, 1)  # first unit 10, cut to 6: relevance 12
    want = 12 * torch.tensor([6.0, 4.0, 0.0]) / 10 + 3 * torch.tensor([0.6, 0.8, 0.1])
    torch.testing.assert_close(explain(f, "lrp", x, 0).flatten(), want, rtol=1e-4, atol=1e-5)


# -- DeepLIFT --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.Tanh])
def test_deeplift_is_captums(activation: type[nn.Module]) -> None:
    """With average pooling: Captum 0.9's maximum does not add up (its own delta on this network is 1.8)."""
    net = plain(activation, nn.AvgPool2d)
    for name, value in (("black", 0.0), ("grey", 0.5)):
        base = torch.full((1, 3, 16, 16), value)
        with pytest.warns(UserWarning, match="Setting forward, backward hooks"):
            want = ca.DeepLift(Pixels(net)).attribute(X[None].clone().requires_grad_(), base, 2)[0].detach()
        torch.testing.assert_close(explain(on(net, 16), "deeplift", X, 2, baseline=name), want, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "reference", "want"),
    [  # one window of four pixels; the reference is one grey
        ((3.0, 1.0, 0.0, 0.0), 0.5, (2.5, 0.0, 0.0, 0.0)),  # up to the larger maximum, where the image's is
        ((0.2, 0.1, 0.0, 0.3), 0.5, (-0.2, 0.0, 0.0, 0.0)),  # down from it, where the reference's first is
    ],
)
def test_the_change_of_a_maximum_goes_to_the_winners(x, reference: float, want) -> None:
    net = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        net[2].weight.fill_(1.0)
    f = attrsens.Classifier(net, [0.0], [1.0], crop=2, fold=False, device="cpu")
    assert reference == 0.5
    got = explain(f, "deeplift", torch.tensor(x).reshape(1, 2, 2), 0, baseline="grey")
    torch.testing.assert_close(got.flatten(), torch.tensor(want))


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "vgg11_bn", "densenet121", "cifar-resnet20", "mnist-cnn"])
def test_deeplift_is_complete_on_networks_that_reuse_their_relus(name: str) -> None:
    """Hooks on modules that run twice break this (methods 8, trap 2)."""
    f, x = zoo.classifier(name), zoo.images(name, 1)[0]
    spec = attrsens.METHODS["deeplift"]
    raw = attrsens.Explainer(f, spec, 3, spec.complete({"baseline": "grey"}), "a").raw(x)
    rise = f.score(x[None], 3)[0] - f.score(torch.full_like(x, 0.5)[None], 3)[0]
    torch.testing.assert_close(raw.map.sum(), rise, rtol=1e-3, atol=1e-3)
    assert raw.notes["completeness_gap"] < 1e-3 * max(1.0, abs(float(rise)))
    assert (raw.passes.forward, raw.passes.backward) == (2, 1)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.Sigmoid])
def test_deeplift_takes_the_derivative_where_the_input_does_not_change(activation: type[nn.Module]) -> None:
    """The first pixel is the reference's: multipliers are those of the definition, also where 0 / 0 stands."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 3), activation(), nn.Linear(3, 1, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.diag(torch.tensor([1.0, 1.0, 20.0])))
        net[1].bias.copy_(torch.tensor([0.3, -0.5, 0.1]))
        net[3].weight.copy_(torch.tensor([[2.0, 3.0, 5.0]]))
    f = attrsens.Classifier(net, [0.0] * 3, [1.0] * 3, crop=1, fold=False, device="cpu")
    rule, x = RescaleRule(f.network, "deeplift"), torch.tensor([0.0, 0.4, 0.5]).reshape(1, 3, 1, 1)
    with rule.recording(), torch.no_grad():
        f.network(torch.zeros_like(x))
    x.requires_grad_()
    with rule.applied():
        (got,) = torch.autograd.grad(f.network(x).sum(), x)
    z = torch.tensor([0.3, -0.1, 10.1], requires_grad=True)
    y, y0 = activation()(z), activation()(torch.tensor([0.3, -0.5, 0.1]))
    (slope,) = torch.autograd.grad(y.sum(), z)
    rise = (y - y0).detach()
    want = torch.stack([slope[0], rise[1] / 0.4, rise[2] / 10]) * torch.tensor([2.0, 3.0, 100.0])
    torch.testing.assert_close(got.flatten(), want)


def test_deeplift_of_an_overlapping_maximum_adds_up() -> None:
    """Windows of 3 every 2: one pixel may win twice, and unpooling by indices would keep it once."""
    net = spread_out(nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(192, 3)))
    f = attrsens.Classifier(net, [0.0] * 3, [1.0] * 3, crop=16, fold=False, device="cpu")
    rise = f.score(X[None], 1)[0] - f.score(torch.full_like(X, 0.5)[None], 1)[0]
    torch.testing.assert_close(explain(f, "deeplift", X, 1, baseline="grey").sum(), rise, rtol=1e-4, atol=1e-5)


# -- closed forms and reach ------------------------------------------------------------------------------------------


def test_on_a_linear_network_all_are_the_weights() -> None:
    f, weight = linear(side=6)
    x = uniform(3, 6, 6, seed=2)
    torch.testing.assert_close(explain(f, "lrp", x, 1), x * weight[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        explain(f, "deeplift", x, 1, baseline="white"), (x - 1) * weight[1], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("method", ["lrp", "deeplift"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_tiny", "layer blocks.0.norm1 calls layer_norm, for which it has no rule"),
        ("convnext_tiny", "layer features.0.1 calls layer_norm, for which it has no rule"),
        ("mobilenet_v3_small", "layer features.1.block.1 calls mul, for which it has no rule"),
    ],
)
def test_what_is_out_of_reach_is_named(method: str, name: str, reason: str) -> None:
    with pytest.raises(attrsens.AttrsensError, match=f"{method}: {reason}"):
        explain(zoo.classifier(name), method, zoo.images(name, 1)[0], 1)


@pytest.mark.parametrize("method", ["lrp", "deeplift"])
def test_probabilities_have_no_rule(method: str) -> None:
    with pytest.raises(attrsens.AttrsensError, match=f"{method}: output=prob has no rule for the softmax"):
        explain(small(), method, X, 1, output="prob")


def test_an_activation_that_depends_on_the_image_is_no_silent_error() -> None:
    class Fickle(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            x = self.conv1(x)
            x = self.relu(x) if float(x.detach().mean()) > self.limit else x
            return self.fc(x.mean((2, 3)))

    net = Fickle("reused")
    f = on(net, 16)
    levels = [float(f.network.conv1((v - 0.45) / 0.25 * torch.ones(1, 3, 16, 16)).mean()) for v in (0.0, 1.0)]
    f.network.limit = sum(levels) / 2
    image = torch.full((3, 16, 16), 1.0 if levels[1] > levels[0] else 0.0)
    base = "black" if levels[1] > levels[0] else "white"
    with pytest.raises(attrsens.AttrsensError, match="deeplift: the network calls its activations otherwise"):
        explain(f, "deeplift", image, 1, baseline=base)


@pytest.mark.parametrize("method", ["gbp", "gradcam", "ggradcam", "lrp", "deeplift"])
def test_no_trace_is_left_also_after_an_error(method: str) -> None:
    class Breaks(SmallNet):
        broken = False

        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            if self.broken:
                raise RuntimeError("broken")
            return out

    f = on(Breaks("inplace"), 16)
    before = explain(f, "grad", X, 1)
    first = explain(f, method, X, 1)
    f.network.broken = True
    with pytest.raises(InputError, match="broken"):
        explain(f, method, X, 1)
    f.network.broken = False
    hooks = [m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in f.network.modules()]
    assert not any(hooks)
    assert torch.equal(explain(f, "grad", X, 1), before)
    assert torch.equal(explain(f, method, X, 1), first)


def test_numpy_is_not_needed_to_compare_maps() -> None:
    """Maps are torch tensors inside, arrays outside."""
    report = attrsens.explain(
        [np.uint8(np.random.default_rng(0).integers(0, 256, (16, 16, 3)))], model=small(), method=["gbp", "gradcam"]
    )
    assert [a.map.dtype for a in report.attributions] == [np.float32] * 2

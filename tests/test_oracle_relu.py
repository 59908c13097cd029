"""Captum and zennit as independent implementations on one small network, once with ReLU and once with ReLU6.

Where a library knows ReLU alone, its rule meets ReLU6 as a subclass of ReLU, or its rule for any nonlinearity is used.
Of lime, rise, mp, agi, bsm, big and bsg the oracles on both activations are in their own files.
"""

from __future__ import annotations

import captum.attr as ca
import pytest
import torch
import torch.nn.functional as F
from captum.attr._core import deep_lift
from skimage.segmentation import slic
from torch import Tensor, nn
from toys import draw, explain, uniform

import attrsens
from attrsens.seeds import Stream

MEAN, STD = 0.45, 0.25
X = (uniform(3, 16, 16, seed=5) * 255).round() / 255
LAST = "3"  # the last layer that knows places as Grad-CAM's authors mean it: before the pooling


class Cut(nn.ReLU):
    """ReLU6 as a kind of ReLU, so that hooks for ReLU find it."""

    def forward(self, z: Tensor) -> Tensor:
        return F.relu6(z)


class Pixels(nn.Module):
    """Pixels in, logits out."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - MEAN) / STD)


def network(activation: type[nn.Module]) -> nn.Sequential:
    """Every activation a module of its own; some units of the first two are above 6, some of each below 0."""
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), activation(), nn.Conv2d(8, 8, 3, stride=2, padding=1), activation()),
        *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 16), activation(), nn.Linear(16, 5)),
    )
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(draw(*p.shape, seed=i) * (2 / p[0].numel()) ** 0.5 if p.dim() > 1 else 0.1 * draw(*p.shape, seed=i))
        net[0].weight.mul_(3)
        net[-1].weight.mul_(0.3)
    return net.eval()


@pytest.fixture(params=[nn.ReLU, nn.ReLU6])
def net(request: pytest.FixtureRequest) -> nn.Sequential:
    return network(request.param)


def ours(net: nn.Module) -> attrsens.Classifier:
    return attrsens.Classifier(net, [MEAN] * 3, [STD] * 3, crop=16, device="cpu")


def assert_close(found: Tensor, want: Tensor) -> None:
    want = want.detach()
    assert float(want.abs().max()) > 0
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-4 * float(want.abs().max()))


def test_the_networks_use_what_tells_them_apart() -> None:
    inner = network(nn.ReLU6)
    for depth in (1, 3):
        z = inner[:depth](((X - MEAN) / STD)[None])
        assert bool((z > 6.5).any()), depth
        assert bool((z < 0).any()), depth
    two = [explain(ours(network(a)), "grad", X, 1) for a in (nn.ReLU, nn.ReLU6)]
    assert float(F.cosine_similarity(*(g.flatten() for g in two), 0)) < 0.9


# -- propagation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6])
@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_guided_backpropagation_and_guided_gradcam(activation: type[nn.Module]) -> None:
    hooked = Pixels(network(nn.ReLU if activation is nn.ReLU else Cut))
    f = ours(network(activation))
    want = ca.GuidedBackprop(hooked).attribute(X[None].clone().requires_grad_(), 2)[0]
    assert_close(explain(f, "gbp", X, 2), want)
    layer = hooked.net.get_submodule(LAST)
    want = ca.GuidedGradCam(hooked, layer).attribute(X[None].clone().requires_grad_(), 2)[0]
    assert_close(explain(f, "ggradcam", X, 2, layer=LAST, upsample="nearest"), want)


@pytest.mark.parametrize("upsample", ["bilinear", "nearest"])
def test_gradcam(net: nn.Sequential, upsample: str) -> None:
    found = ca.LayerGradCam(Pixels(net), net.get_submodule(LAST)).attribute(X[None], 2, relu_attributions=True)
    want = F.interpolate(found, size=(16, 16), mode=upsample)[0, 0]
    assert_close(explain(ours(net), "gradcam", X, 2, layer=LAST, upsample=upsample), want)


@pytest.mark.parametrize("eps", [1e-6, 0.2])
def test_lrp(net: nn.Sequential, eps: float) -> None:
    """Relevance passes any activation of zennit's list, also above 6, where ReLU6 has no slope."""
    from zennit.attribution import Gradient
    from zennit.composites import LayerMapComposite
    from zennit.rules import Epsilon, Pass
    from zennit.types import Activation, AvgPool, Convolution
    from zennit.types import Linear as Dense

    f = ours(net)
    given = f.normalised(X[None])
    layers = [(Activation, Pass()), *((kind, Epsilon(eps)) for kind in (Convolution, Dense, AvgPool))]
    with Gradient(net, LayerMapComposite(layers)) as attributor:
        _, want = attributor(given, lambda out: out * F.one_hot(torch.tensor([2]), 5))
    assert_close(explain(f, "lrp", X, 2, eps=eps, space="normalized"), want[0])


@pytest.mark.parametrize(("baseline", "value"), [("black", 0.0), ("white", 1.0)])
@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
def test_deeplift(net: nn.Sequential, baseline: str, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captum's rescale rule reads inputs and outputs of a module alone; here it may do so of ReLU6 too."""
    monkeypatch.setitem(deep_lift.SUPPORTED_NON_LINEAR, nn.ReLU6, deep_lift.nonlinear)
    x0 = torch.full_like(X, value)[None]
    want = ca.DeepLift(Pixels(net)).attribute(X[None].clone().requires_grad_(), x0, 2)[0]
    assert_close(explain(ours(net), "deeplift", X, 2, baseline=baseline), want)


# -- noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "statistic"),
    [("sg", "smoothgrad"), ("sgsq", "smoothgrad_sq"), ("vargrad", "vargrad"), ("ug", "smoothgrad")],
)
def test_statistics_of_noisy_gradients(
    net: nn.Sequential, method: str, statistic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Captum's noise tunnel, handed our noise where it asks torch for its own."""
    n, width = 7, 0.3 * float(X.max() - X.min())
    if method == "ug":
        noise = 2 * torch.from_numpy(Stream(4, "toy", "uniform noise").uniform(range(n), (3, 16, 16))) - 1
    else:
        noise = torch.from_numpy(Stream(4, "toy", "noise").normal(range(n), (3, 16, 16)))
    monkeypatch.setattr(torch, "normal", lambda mean, sd: mean + sd * noise)
    tunnel = ca.NoiseTunnel(ca.Saliency(Pixels(net)))
    want = tunnel.attribute(X[None], nt_type=statistic, nt_samples=n, stdevs=width, target=2, abs=False)[0]
    assert_close(explain(ours(net), method, X, 2, n=n, spread=0.3, seed=4), want)


# -- superpixels ------------------------------------------------------------------------------------------------------


@pytest.fixture
def labels() -> Tensor:
    """Five superpixels or so, few enough for every order of them."""
    picture = (X * 255).round().byte().permute(1, 2, 0).numpy()
    found = torch.from_numpy(slic(picture, n_segments=4, compactness=30, sigma=3, start_label=0))
    assert 3 <= int(found.max()) + 1 <= 5
    return found


@pytest.mark.parametrize(("fill", "value"), [("black", 0.0), ("mean", MEAN)])
def test_shapley_values_of_superpixels(net: nn.Sequential, labels: Tensor, fill: str, value: float) -> None:
    """Captum goes through every order in which superpixels can come."""
    model = nn.Sequential(Pixels(net), nn.Softmax(1))
    want = ca.ShapleyValues(model).attribute(
        X[None], torch.full_like(X, value)[None], 2, feature_mask=labels[None, None], perturbations_per_eval=16
    )
    assert_close(explain(ours(net), "kshap", X, 2, segments=4, fill=fill), want[0, 0])


def test_occlusion_and_integrated_gradients(net: nn.Sequential) -> None:
    model = nn.Sequential(Pixels(net), nn.Softmax(1))
    want = ca.Occlusion(model).attribute(X[None], (3, 4, 4), (3, 3, 3), 0.0, 2)[0, 0]
    assert_close(explain(ours(net), "sp", X, 2, patch_size=4, stride=3, align="accumulate"), want)
    want = ca.IntegratedGradients(model).attribute(X[None], 0.0, 2, n_steps=9, method="riemann_middle")[0].float()
    assert_close(explain(ours(net), "ig", X, 2, steps=9, rule="middle"), want)

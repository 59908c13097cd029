"""Captum 0.9 as an independent implementation, on the default classifier and on a resnet18 with random weights."""

from __future__ import annotations

import captum.attr as ca
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from toys import draw, explain, uniform

import attrsens
from attrsens.models.zoo import lite0 as load_lite0
from attrsens.seeds import Stream

STEPS = 12
# our rule, Captum's name, Captum's points for our `steps`
SHARED_RULES = [
    ("captum_trapezoid", "riemann_trapezoid", STEPS),
    ("left", "riemann_left", STEPS),
    ("right", "riemann_right", STEPS),
    ("middle", "riemann_middle", STEPS),
    ("gausslegendre", "gausslegendre", STEPS),
]


class FromPixels(nn.Module):
    """A network behind its normaliser, as a user of Captum would write it."""

    def __init__(self, net: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.net = net.eval()
        self.mean, self.std = torch.tensor(mean).reshape(-1, 1, 1), torch.tensor(std).reshape(-1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - self.mean) / self.std)


def resnet18() -> nn.Module:
    """Random weights and running statistics, so that BatchNorm is no identity."""
    with torch.random.fork_rng(devices=[]):
        net = torchvision.models.resnet18(weights=None)
    with torch.no_grad():
        for i, (name, tensor) in enumerate(net.state_dict().items()):
            if name.endswith("running_var") or (name.endswith("weight") and tensor.dim() == 1):
                tensor.copy_(uniform(*tensor.shape, seed=i) + 0.5)
            elif tensor.dim() == 1:
                tensor.copy_(draw(*tensor.shape, seed=i) * 0.1)
            elif tensor.dim() > 1:
                tensor.copy_(draw(*tensor.shape, seed=i) * (2 / tensor[0].numel()) ** 0.5)
        net.fc.weight.mul_(0.05)  # no saturated softmax
    return net


@pytest.fixture(scope="module", params=["lite0", "resnet18"])
def pair(request, lite0, plain_lite0) -> tuple[attrsens.Classifier, attrsens.Classifier, nn.Module]:
    """(folded, reference numerics, Captum's model) of one network."""
    if request.param == "lite0":
        return lite0, plain_lite0, FromPixels(load_lite0().module, (0.5,) * 3, (0.5,) * 3)
    net, mean, std = resnet18(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    folded, plain = (attrsens.Classifier(net, mean, std, crop=224, fold=fold, device="cpu") for fold in (True, False))
    return folded, plain, FromPixels(net, mean, std)


def agree(pair, want: Tensor, method: str, x: Tensor, target: int, **parameters: object) -> None:
    folded, plain, _ = pair
    for f, bar in ((plain, 0.99999), (folded, 0.999)):
        found = explain(f, method, x, target, **parameters).double()
        assert float(F.cosine_similarity(found.flatten(), want.double().flatten(), 0)) >= bar, (method, parameters)
        assert float(found.norm() / want.double().norm()) == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize("target", [282, 5])
def test_gradient(pair, chelsea, target: int) -> None:
    want = ca.Saliency(pair[2]).attribute(chelsea[None].requires_grad_(), target, abs=False)[0]
    agree(pair, want, "grad", chelsea, target)


def test_input_times_gradient(pair, chelsea) -> None:
    want = ca.InputXGradient(pair[2]).attribute(chelsea[None].requires_grad_(), 282)[0].detach()
    agree(pair, want, "gi", chelsea, 282)


@pytest.mark.parametrize(("rule", "theirs", "points"), SHARED_RULES)
def test_integrated_gradients(pair, chelsea, rule: str, theirs: str, points: int) -> None:
    attribute = ca.IntegratedGradients(pair[2]).attribute
    white = torch.ones_like(chelsea)[None]
    want = attribute(chelsea[None], white, 282, n_steps=points, method=theirs, internal_batch_size=4)[0].float()
    agree(pair, want, "ig", chelsea, 282, rule=rule, steps=STEPS, output="logit", baseline="white")


def test_integrated_gradients_of_a_probability(pair, chelsea) -> None:
    model = nn.Sequential(pair[2], nn.Softmax(1))
    target = int(pair[2](chelsea[None]).argmax())
    attribute = ca.IntegratedGradients(model).attribute
    want = attribute(chelsea[None], 0, target, n_steps=STEPS, method="gausslegendre", internal_batch_size=4)[0].float()
    agree(pair, want, "ig", chelsea, target, rule="gausslegendre", steps=STEPS)


def test_occlusion(pair, chelsea) -> None:
    """44 px patches every 36 px cover 224 px exactly, so that Captum adds no rounded-up place."""
    attribute = ca.Occlusion(pair[2]).attribute
    mean = torch.tensor(pair[0].preprocess.mean).reshape(1, 3, 1, 1).expand(1, 3, 224, 224)
    want = attribute(chelsea[None], (3, 44, 44), (3, 36, 36), mean, 282, perturbations_per_eval=6)[0, 0]
    agree(pair, want, "sp", chelsea, 282, patch_size=44, stride=36, fill="mean", align="accumulate", output="logit")


def test_smoothgrad_with_the_same_noise(pair, chelsea) -> None:
    """Captum draws its own noise, so its Saliency is averaged over ours."""
    noise = torch.from_numpy(Stream(0, "toy", "noise").normal(range(4), (3, 224, 224)))
    noisy = chelsea + 0.15 * float(chelsea.max() - chelsea.min()) * noise
    want = ca.Saliency(pair[2]).attribute(noisy.requires_grad_(), 282, abs=False).mean(0)
    agree(pair, want, "sg", chelsea, 282, n=4)


def test_gradcam(pair, chelsea) -> None:
    """Of the class seen, at the layer that is chosen when none is named."""
    _, plain, model = pair
    target = int(plain.logits(chelsea[None]).argmax())
    explain(plain, "gradcam", chelsea, target)
    layer = model.net.get_submodule(plain.memo["layer"])
    found = ca.LayerGradCam(model, layer).attribute(chelsea[None], target, relu_attributions=True)
    want = F.interpolate(found, size=(224, 224), mode="bilinear")[0, 0].detach()
    assert float(want.max()) > 0
    agree(pair, want, "gradcam", chelsea, target)


def test_vit_of_timm_explains_as_captum_does() -> None:
    import timm

    with torch.random.fork_rng(devices=[]):
        net = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=10, img_size=64)
    x = uniform(3, 64, 64, seed=1)
    f = attrsens.Classifier(net, (0.5,) * 3, (0.5,) * 3, crop=64, device="cpu")
    model = FromPixels(net, (0.5,) * 3, (0.5,) * 3)
    want = ca.Saliency(model).attribute(x[None].requires_grad_(), 3, abs=False)[0]
    agree((f, f, model), want, "grad", x, 3)
    want = ca.IntegratedGradients(model).attribute(x[None], 0, 3, n_steps=8, method="riemann_middle")[0].float()
    agree((f, f, model), want, "ig", x, 3, rule="middle", steps=8, output="logit")
    for method, parameters in (("sg", {"n": 3}), ("sp", {"stride": 16}), ("gi", {})):
        assert bool(explain(f, method, x, 3, **parameters).isfinite().all())

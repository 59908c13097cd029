"""The best peers of every method: what the libraries' documentation shows, and the loops of `_loops.py`.

Captum's defaults: NoiseTunnel passes all `nt_samples` copies in one batch (`nt_samples_batch_size=None`), and
IntegratedGradients all `n_steps` points (`internal_batch_size=None`, rule gausslegendre). LIME keeps its batch of 10,
KernelShap its one coalition a pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from _loops import Rise, adversarial_integration, meaningful_perturbation, uniform_gradient
from _sides import Plain, Subject, with_modules
from _timing import Sample, measure, stock_memory
from _works import SPREAD, Work
from torch import Tensor, nn


@dataclass(frozen=True)
class Peer:
    """Another implementation.

    Attributes:
        run: from its batch setting to the map, or a map of the image.
        net: counts its passes.
        tune: its batch setting is searched first.
        scaled: it does a different amount of work, so that times are compared by pass.
        same: its map should be ours.
        own: it is attrsens itself.
    """

    name: str
    run: Callable[[int], Tensor]
    net: Plain
    tune: bool = False
    scaled: bool = False
    same: bool = False
    own: bool = False

    def timed(self, batch: int, least: float) -> Callable[[], Sample]:
        """What measures it, over `least` seconds, with memory as it would be by itself."""

        def part() -> Sample:
            with nullcontext() if self.own else stock_memory():
                return measure(partial(self.run, batch), least)

        return part


def peers(s: Subject, work: Work) -> list[Peer]:
    """Every peer of a method on a subject; none where nothing that is installed does the same."""
    make = {
        **dict.fromkeys(("grad", "gi", "ig"), _gradients),
        **dict.fromkeys(("sg", "vargrad", "sgsq"), _tunnel),
        "ug": _uniform,
        **dict.fromkeys(("gbp", "ggradcam", "deeplift"), _rules),
        "gradcam": _gradcam,
        "lrp": _relevance,
        "sp": _occlusion,
        "lime": _lime,
        "kshap": _shap,
        **dict.fromkeys(("rise", "mp", "agi"), _retyped),
    }
    return make[work.method](s, work) if work.method in make else []


def _input(s: Subject, grad: bool = True) -> Tensor:
    return s.pixels[None].clone().requires_grad_(grad)  # or Captum warns at every call


def _gradients(s: Subject, work: Work) -> list[Peer]:
    from captum.attr import InputXGradient, IntegratedGradients, Saliency

    x, net, t = _input(s), s.plain, s.target
    if work.method == "grad":
        return [Peer("Captum", lambda b: Saliency(net).attribute(x, target=t, abs=False)[0], net, same=True)]
    if work.method == "gi":
        return [Peer("Captum", lambda b: InputXGradient(net).attribute(x, target=t)[0], net, same=True)]
    path, steps = IntegratedGradients(net), work.parameters["steps"]
    like: Any = {"baselines": 0.0, "target": t, "n_steps": steps, "method": "riemann_trapezoid"}
    return [
        Peer("Captum", lambda b: path.attribute(x, **like, internal_batch_size=b)[0], net, tune=True, same=True),
        Peer("Captum's defaults", lambda b: path.attribute(x, target=t, n_steps=steps)[0], net),
    ]


def _tunnel(s: Subject, work: Work) -> list[Peer]:
    from captum.attr import NoiseTunnel, Saliency

    x, net, n = _input(s), s.plain, work.parameters["n"]
    tunnel = NoiseTunnel(Saliency(net))
    kind = {"sg": "smoothgrad", "vargrad": "vargrad", "sgsq": "smoothgrad_sq"}[work.method]
    sd = SPREAD * float(s.pixels.max() - s.pixels.min())
    like: Any = {"nt_type": kind, "nt_samples": n, "stdevs": sd, "target": s.target, "abs": False}
    found = [Peer("Captum", lambda b: tunnel.attribute(x, **like, nt_samples_batch_size=b)[0], net, tune=True)]
    if work.method == "sg":
        found += [Peer("Captum's defaults", lambda b: tunnel.attribute(x, **like)[0], net)]
    return found


def _uniform(s: Subject, work: Work) -> list[Peer]:
    x, n = _input(s, False), work.parameters["n"]
    run = lambda b: uniform_gradient(s.plain, x, s.target, n, SPREAD, b)[0]  # noqa: E731
    return [Peer("plain loop", run, s.plain, tune=True)]


def _rules(s: Subject, work: Work) -> list[Peer]:
    from captum.attr import DeepLift, GuidedBackprop, GuidedGradCam
    from zennit.attribution import Gradient
    from zennit.composites import GuidedBackprop as Composite

    x, net, t = _input(s), s.plain, s.target
    if work.method == "deeplift":
        lift, black = DeepLift(net), torch.zeros_like(x)
        return [Peer("Captum", lambda b: lift.attribute(x, black, target=t)[0].detach(), net, same=True)]
    if work.method == "ggradcam":
        both = GuidedGradCam(net, net.net.get_submodule(s.layer))
        run = lambda b: both.attribute(x, target=t, interpolate_mode="bilinear")[0]  # noqa: E731
        return [Peer("Captum", run, net, same=True)]
    captums = GuidedBackprop(net)
    own = Plain(copy.deepcopy(net.net), s.classifier.preprocess)
    zennits = Gradient(own, Composite())
    zennits.__enter__()  # the rules stay registered, so that no run pays for it
    guide = _one_hot(s)
    return [
        Peer("Captum", lambda b: captums.attribute(x, target=t)[0], net, same=True),
        Peer("zennit", lambda b: zennits(x, guide)[1][0], own, same=True),
    ]


def _gradcam(s: Subject, work: Work) -> list[Peer]:
    from captum.attr import LayerAttribution, LayerGradCam
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    x, net, size = _input(s), s.plain, tuple(s.pixels.shape[-2:])
    given = _input(s, False)
    layer = net.net.get_submodule(s.layer)
    cam = LayerGradCam(net, layer)
    own = Plain(copy.deepcopy(net.net), s.classifier.preprocess)
    jacobs = GradCAM(own, [own.net.get_submodule(s.layer)])
    goal = [ClassifierOutputTarget(s.target)]

    def captums(b: int) -> Tensor:
        small = cam.attribute(given, target=s.target, relu_attributions=True)
        wide: Tensor = LayerAttribution.interpolate(small, size, "bilinear")
        return wide[0, 0].detach()

    return [
        Peer("Captum", captums, net, same=True),
        Peer("pytorch-grad-cam", lambda b: torch.from_numpy(jacobs(x, goal)[0]), own, same=True),
    ]


class _Skip(nn.Module):
    """A residual block whose sum zennit's rules see."""

    def __init__(self, layers: nn.Module) -> None:
        from zennit.layer import Sum

        super().__init__()
        self.layers, self.sum = layers, Sum()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.sum(torch.stack([self.layers(x), x], dim=-1))
        return out


def _relevance(s: Subject, work: Work) -> list[Peer]:
    from zennit.attribution import Gradient
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.composites import LayerMapComposite
    from zennit.layer import Sum
    from zennit.rules import Epsilon, Pass
    from zennit.torchvision import ResNetCanonizer
    from zennit.types import Activation, AvgPool, Convolution, Linear

    canonizer: Any = ResNetCanonizer()
    net = copy.deepcopy(s.plain.net)
    if s.name == "lite0":
        whole: Any = with_modules(net, nn.ReLU6)
        blocks = [_Skip(block.layers) if block.skip else block for block in whole.blocks]
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        net = nn.Sequential(whole.stem, *blocks, whole.head, pool, whole.classifier)
        canonizer = SequentialMergeBatchNorm()
    own = Plain(net, s.classifier.preprocess)
    own.mean.zero_(), own.std.fill_(1)  # it is given normalised images
    rules = [(kind, Epsilon(1e-6)) for kind in (Sum, Convolution, Linear, AvgPool)]
    zennits = Gradient(own, LayerMapComposite([(Activation, Pass()), *rules], canonizers=[canonizer]))
    zennits.__enter__()
    x, guide = s.classifier.normalised(s.pixels[None]).requires_grad_(), _one_hot(s, relevance=True)
    return [Peer("zennit", lambda b: zennits(x, guide)[1][0].detach(), own, same=True)]


def _one_hot(s: Subject, relevance: bool = False) -> Callable[[Tensor], Tensor]:
    """What zennit hands back from the logits: the class's one, or its logit."""

    def guide(out: Tensor) -> Tensor:
        hot = F.one_hot(torch.tensor([s.target]), out.shape[1]).to(out)
        return out * hot if relevance else hot

    return guide


def _occlusion(s: Subject, work: Work) -> list[Peer]:
    from captum.attr import Occlusion

    window, patch, x = Occlusion(s.plain), work.parameters["patch_size"], _input(s, False)
    stride = min(max(work.parameters["stride"], 24), patch)  # at fine strides it takes minutes; it allows no gaps
    like: Any = {"sliding_window_shapes": (3, patch, patch), "baselines": 0.0, "target": s.target}
    like["strides"] = (3, stride, stride)
    run = lambda b: window.attribute(x, **like, perturbations_per_eval=b)[0]  # noqa: E731
    return [Peer(f"Captum, stride {stride}", run, s.plain, tune=True, scaled=True)]


def _superpixels(s: Subject) -> tuple[Any, Callable[[Any], Any]]:
    """The picture as bytes, and the search for superpixels that attrsens makes."""
    from skimage.segmentation import slic

    picture = (s.pixels * 255).round().byte().permute(1, 2, 0).numpy()
    return picture, lambda image: slic(image, 50, 30.0, sigma=3.0, start_label=0)


def _lime(s: Subject, work: Work) -> list[Peer]:
    from lime import lime_image

    lime_image.tqdm = iter  # no bar
    picture, cut = _superpixels(s)
    own = {"kernel_width": work.parameters.get("kernel_width", 0.25), "random_state": work.parameters["seed"]}

    def classify(images: Any) -> Any:
        with torch.no_grad():
            return s.plain(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).softmax(1).numpy()

    def run(b: int) -> Tensor:
        found = lime_image.LimeImageExplainer(**own).explain_instance(
            picture,
            classify,
            labels=(s.target,),
            top_labels=None,
            hide_color=0,
            num_samples=work.parameters["n"],
            segmentation_fn=cut,
        )
        weights = torch.zeros(int(found.segments.max()) + 1)
        for segment, weight in found.local_exp[s.target]:
            weights[segment] = weight
        return weights[torch.from_numpy(found.segments)]

    return [Peer("lime_image", run, s.plain, same=True)]


def _shap(s: Subject, work: Work) -> list[Peer]:
    from captum.attr import KernelShap

    picture, cut = _superpixels(s)
    x, n = _input(s, False), work.parameters["n"]
    shap = KernelShap(lambda images: s.plain(images).softmax(1))

    def run(size: int) -> Tensor:
        mask = torch.from_numpy(cut(picture))[None, None]
        return shap.attribute(
            x, baselines=0.0, target=s.target, feature_mask=mask, n_samples=n, perturbations_per_eval=size
        )[0].mean(0)

    return [
        Peer("Captum's defaults", lambda b: run(1), s.plain, scaled=True),
        Peer("Captum, 16 a pass", lambda b: run(16), s.plain, scaled=True),
    ]


def _retyped(s: Subject, work: Work) -> list[Peer]:
    from attrsens.methods._masks import blur
    from attrsens.methods.agi import classes

    x, net, t = _input(s, False), s.plain, s.target
    if work.method == "rise":
        rise = Rise(net, work.parameters["n"])
        return [Peer("RISE's loop", lambda b: rise(x, t), net)]
    if work.method == "mp":
        wide, steps = F.pad(x, (2, 2, 2, 2), mode="reflect"), work.parameters["steps"]
        blurred = blur(wide, work.parameters.get("blur_radius", 10.0))
        run = lambda b: meaningful_perturbation(net, wide, blurred, t, steps)  # noqa: E731
        return [Peer("Fong's loop", run, net, scaled=True)]
    goals = classes(s.classifier.class_count, t, work.parameters["k"], "path")
    steps = work.parameters["steps"]
    return [Peer("AGI's loop", lambda b: adversarial_integration(net, x, t, goals, steps), net)]

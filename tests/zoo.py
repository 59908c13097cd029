"""The networks that numerics, doctor and methods are tried on: one of every kind, small, with drawn weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import nn
from toys import draw, uniform

import attrsens
from attrsens.cli import readme
from attrsens.models.nets import IMAGENET, find_net
from attrsens.spec import METHODS

# name -> (builder, side of its images, BatchNorms that fold, BatchNorms that stay)
ZOO: dict[str, tuple[Callable[[], nn.Module], int, int, int]] = {}


def _torchvision(name: str, **options: object) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision

        return torchvision.models.get_model(name, weights=None, num_classes=10, **options)

    return build


def _timm(name: str, **options: object) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=10, **options)

    return build


ZOO["resnet18"] = (_torchvision("resnet18"), 64, 20, 0)
ZOO["googlenet"] = (_torchvision("googlenet", aux_logits=False, init_weights=True), 64, 57, 0)
ZOO["vgg11_bn"] = (_torchvision("vgg11_bn"), 64, 8, 0)
ZOO["vgg11"] = (_torchvision("vgg11"), 64, 0, 0)
ZOO["mobilenet_v3_small"] = (_torchvision("mobilenet_v3_small"), 64, 34, 0)
ZOO["densenet121"] = (_torchvision("densenet121"), 64, 59, 62)
ZOO["convnext_tiny"] = (_torchvision("convnext_tiny"), 64, 0, 0)
ZOO["vit_tiny"] = (_timm("vit_tiny_patch16_224", img_size=64), 64, 0, 0)
ZOO["swin_tiny"] = (_timm("swin_tiny_patch4_window7_224", img_size=64, window_size=2), 64, 0, 0)
ZOO["timm resnet10t"] = (_timm("resnet10t"), 64, 14, 0)
ZOO["cifar-resnet20"] = (lambda: find_net("cifar-resnet20").build(10), 32, 19, 0)
ZOO["cifar-resnet18"] = (lambda: find_net("cifar-resnet18").build(10), 32, 20, 0)
ZOO["mnist-cnn"] = (lambda: find_net("mnist-cnn").build(10), 28, 0, 0)
ZOO["mnist-lenet"] = (lambda: find_net("mnist-lenet").build(10), 28, 0, 0)


def build(name: str) -> nn.Module:
    """The network with the same weights every time, its BatchNorms as a trained network has them."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        net = ZOO[name][0]()
    with torch.no_grad():
        plain = name not in ("vit_tiny", "swin_tiny", "convnext_tiny")
        for i, m in enumerate(net.modules()):
            if plain and isinstance(m, (nn.Conv2d, nn.Linear)):  # signals of one size through every layer
                m.weight.copy_(draw(*m.weight.shape, seed=i) * (2 / m.weight[0].numel()) ** 0.5)
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.copy_(draw(len(m.running_mean), seed=i) * 0.1)
                m.running_var.copy_(uniform(len(m.running_var), seed=i + 1) + 0.5)
                m.weight.copy_(uniform(len(m.weight), seed=i + 2) + 0.5)
        net.eval()
        last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
        gain = 2 / net(images(name) - 0.45).std()  # logits that leave every class a chance
        for p in last.parameters():
            p.mul_(gain)
    return net


def classifier(name: str, **options: object) -> attrsens.Classifier:
    """A classifier over square images of the network's side."""
    side = ZOO[name][1]
    channels = 1 if name.startswith("mnist") else 3
    mean, std = ((0.13,), (0.31,)) if channels == 1 else (IMAGENET.mean, IMAGENET.std)
    return attrsens.Classifier(build(name), mean, std, resize=side, crop=side, device="cpu", name=name, **options)


def images(name: str, count: int = 2) -> torch.Tensor:
    """Smooth images in [0, 1]."""
    side, channels = ZOO[name][1], 1 if name.startswith("mnist") else 3
    small = uniform(count, channels, 8, 8, seed=3)
    return torch.nn.functional.interpolate(small, size=(side, side), mode="bicubic").clamp(0, 1)


SMALL = {"n": 3, "steps": 3, "patch_size": 5, "stride": 8, "trials": 2, "segments": 6, "k": 2}
SMALL |= {"search_steps": 2, "doublings": 0, "bisect": 2, "polish": 1}


def cheap(method: str) -> str:
    """A small run of a method."""
    settings = ",".join(f"{h.name}={SMALL[h.name]}" for h in METHODS[method].hypers if h.name in SMALL)
    return f"{method}:{settings}" if settings else method


def outcome(f: attrsens.Classifier, method: str) -> str:
    """What happens when a method explains a picture: map, zero or failure."""
    report = attrsens.explain("sample:coffee", model=f, method=method, cache=False)
    if report.failures:
        return "failure"
    return "map" if np.abs(report.attributions[0].map).max() > 0 else "zero"


@cache
def predictions(name: str) -> dict[str, str | None]:
    """Why each method cannot explain the network, or None, as doctor predicts it."""
    return readme.predictions(classifier(name, fold=False))


def support_table() -> str:
    """The table that README shows: what doctor predicts of every network here."""
    return readme.support_table({name: predictions(name) for name in ZOO})

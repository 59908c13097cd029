"""The two sides of `explain.py` and the floor under them, on the same network, image and target.

attrsens runs as its users get it: BatchNorm folded, channels_last, its own batch sizes. Captum runs on the network as
loaded behind a normalising module, as its documentation shows, with frozen weights (which can only help it).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from _timing import Sample, Usage
from torch import Tensor, nn

import attrsens
from attrsens.explainer import Explainer, Raw
from attrsens.images import decode
from attrsens.models.classifier import Classifier
from attrsens.models.nets import IMAGENET
from attrsens.models.zoo import lite0
from attrsens.samples import samples

PATCH, SPREAD, SEED = 29, 0.15, 0
FLOOR_BATCHES = (4, 8, 16)
BATCHED = ("sg", "ig", "sp")  # the others are one pass, where no batch helps


@dataclass(frozen=True)
class Sizes:
    """How much work: draws of sg, points of ig, strides of sp for attrsens and for Captum."""

    n: int
    steps: int
    stride: int
    peer_stride: int


class Plain(nn.Module):
    """Pixels in, logits out, over a network as loaded; counts the images it sees."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))
        self.images = 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        logits: Tensor = self.net((x - self.mean) / self.std)
        return logits


@dataclass(frozen=True)
class Subject:
    """A network on both sides, prepared, and what is explained: pixels (3, 224, 224) and their top class."""

    name: str
    classifier: Classifier
    plain: Plain
    pixels: Tensor
    target: int
    image: str


def subject(name: str) -> Subject:
    """lite0 with its weights, or resnet50 with random ones, looking at the first packaged sample."""
    classifier, net = {"lite0": _lite0, "resnet50": _resnet50}[name]()
    steps = classifier.preprocess
    plain = Plain(net, steps.mean, steps.std).eval().requires_grad_(False)
    image = decode(next(iter(samples().values())).path)
    pixels = torch.from_numpy(steps.apply(image))
    ours = classifier.logits(pixels[None])  # the first pass also folds
    with torch.no_grad():
        peers = plain(pixels[None])
    spread = float(peers.max() - peers.min())
    if float((ours - peers).abs().max()) > 1e-4 * max(1.0, spread):
        raise SystemExit(f"{name}: the two sides' logits differ, so this would compare different networks")
    return Subject(name, classifier, plain, pixels, int(ours.argmax()), image.sha256)


def _lite0() -> tuple[Classifier, nn.Module]:
    return attrsens.load("lite0"), lite0().module


def _resnet50() -> tuple[Classifier, nn.Module]:
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)  # inside the fork: the global generator is left as it was
        net: nn.Module = torchvision.models.resnet50(weights=None)
    return Classifier(net, IMAGENET.mean, IMAGENET.std, resize=256, crop=224, name="resnet50"), net


def passes(method: str, sizes: Sizes, side: int = 224) -> int:
    """What the method's maths needs: images forward, and backward for all but sp."""
    places = ((side - PATCH) // sizes.stride + 1) ** 2
    return {"grad": 1, "gi": 1, "sg": sizes.n, "ig": sizes.steps, "sp": places + 1}[method]


def ours(s: Subject, method: str, sizes: Sizes) -> Callable[[], Raw]:
    """attrsens doing the method."""
    own: dict[str, dict[str, Any]] = {
        "sg": {"n": sizes.n, "spread": SPREAD, "seed": SEED},
        "ig": {"steps": sizes.steps, "rule": "captum_trapezoid", "baseline": "black"},
        "sp": {"patch_size": PATCH, "stride": sizes.stride, "fill": "black"},
    }
    spec = attrsens.METHODS[method]
    parameters = spec.complete({**own.get(method, {}), "output": "logit", "space": "pixel"})
    explainer = Explainer(s.classifier, spec, s.target, parameters, s.image)
    return lambda: explainer.raw(s.pixels)


def peer(s: Subject, method: str, sizes: Sizes) -> Callable[[int], Tensor]:
    """Captum doing the same at a batch setting, which the one-pass methods ignore."""
    from captum.attr import InputXGradient, IntegratedGradients, NoiseTunnel, Occlusion, Saliency

    x = s.pixels[None].clone()
    if method != "sp":
        x.requires_grad_()  # or Captum warns at every call
    net, target = s.plain, s.target
    if method == "grad":
        saliency = Saliency(net)
        return lambda batch: saliency.attribute(x, target=target, abs=False)
    if method == "gi":
        product = InputXGradient(net)
        return lambda batch: product.attribute(x, target=target)
    if method == "sg":
        tunnel = NoiseTunnel(Saliency(net))
        sd = SPREAD * float(x.max() - x.min())
        return lambda batch: tunnel.attribute(
            x,
            nt_type="smoothgrad",
            nt_samples=sizes.n,
            nt_samples_batch_size=batch,
            stdevs=sd,
            target=target,
            abs=False,
        )
    if method == "ig":
        path = IntegratedGradients(net)
        return lambda batch: path.attribute(
            x,
            baselines=0.0,
            target=target,
            n_steps=sizes.steps,
            method="riemann_trapezoid",
            internal_batch_size=batch,
        )
    window = Occlusion(net)
    return lambda batch: window.attribute(
        x,
        sliding_window_shapes=(3, PATCH, PATCH),
        strides=(3, sizes.peer_stride, sizes.peer_stride),
        baselines=0.0,
        target=target,
        perturbations_per_eval=batch,
    )


def floor(s: Subject, method: str, sizes: Sizes, window: float) -> Callable[[], Sample]:
    """The method's passes at the bare network's best throughput: folded, channels_last, a ready batch, no batching."""
    batches = FLOOR_BATCHES if method in BATCHED else (1,)
    count, backward = passes(method, sizes), method != "sp"
    shape = s.pixels.shape
    stacks = [torch.rand(b, *shape).contiguous(memory_format=torch.channels_last) for b in batches]

    def run() -> Sample:
        before = Usage.now()
        best = max(_throughput(s, stack, backward, window) for stack in stacks)
        return Sample(count / best, before.foreign())

    return run


def _throughput(s: Subject, stack: Tensor, backward: bool, window: float) -> float:
    """Images a second of one batch, over again for at least `window` seconds; the first time does not count."""
    net = s.classifier._net
    x = stack.detach().requires_grad_(backward)

    def once() -> None:
        if backward:
            torch.autograd.grad(net(x)[:, s.target].sum(), x)
        else:
            with torch.inference_mode():
                net(x)

    once()
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < window:
        once()
        count += 1
    return count * len(x) / (time.perf_counter() - start)

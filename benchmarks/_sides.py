"""Our side of `explain.py` and the floor under it, and the networks, images and targets that both sides get.

attrsens runs as its users get it: BatchNorm folded, channels_last, its own batch sizes. The peers run on the network as
loaded behind a normalising module, as Captum's documentation shows, with frozen weights (which can only help them).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from _timing import Sample, Usage
from _works import SEED, Work
from torch import Tensor, nn

import attrsens
from attrsens.explainer import Explainer, raw_together
from attrsens.images import Preprocess, decode
from attrsens.models.batches import Passes
from attrsens.models.classifier import Classifier
from attrsens.models.layers import layer_of
from attrsens.models.nets import IMAGENET
from attrsens.models.nets.lite0 import LITE0, ConvNorm
from attrsens.models.zoo import lite0
from attrsens.samples import samples

FLOOR_BATCHES = (4, 8, 16)


class Plain(nn.Module):
    """Pixels in, logits out, over a network as loaded; counts the images it sees."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, steps: Preprocess) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(steps.mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(steps.std).reshape(1, -1, 1, 1))
        self.images = 0
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        logits: Tensor = self.net((x - self.mean) / self.std)
        return logits


@dataclass(frozen=True)
class Subject:
    """A network on both sides, prepared, and what is explained: images (3, 224, 224), their top classes and hashes."""

    name: str
    classifier: Classifier
    plain: Plain
    images: list[Tensor]
    targets: list[int]
    hashes: list[str]

    @property
    def pixels(self) -> Tensor:
        return self.images[0]

    @property
    def target(self) -> int:
        return self.targets[0]

    @property
    def layer(self) -> str:
        """Grad-CAM's layer, as attrsens finds it."""
        layer_of(self.classifier, "auto", self.pixels)
        return str(self.classifier.memo["layer"])


def subject(name: str, relu: bool, count: int) -> Subject:
    """lite0 with its weights, or resnet50 with random ones, and the first `count` packaged samples."""
    net, steps = {"lite0": _lite0, "resnet50": _resnet50}[name]()
    if name == "lite0" and relu:
        net = with_modules(net, nn.ReLU)
    sizes = {"resize": steps.resize, "crop": steps.crop, "interp": steps.interp}
    classifier = Classifier(net, steps.mean, steps.std, **sizes, name=name)
    plain = Plain(net, steps)
    paths = [sample.path for sample in samples().values()]
    decoded = [decode(paths[i % len(paths)]) for i in range(count)]
    images = [torch.from_numpy(steps.apply(image)) for image in decoded]
    ours = classifier.logits(images)  # the first pass also folds
    with torch.no_grad():
        peers = plain(torch.stack(images))
    spread = float(peers.max() - peers.min())
    if float((ours - peers).abs().max()) > 1e-4 * max(1.0, spread):
        raise SystemExit(f"{name}: the two sides' logits differ, so this would compare different networks")
    targets = [int(c) for c in ours.argmax(1)]
    return Subject(name, classifier, plain, images, targets, [f"{image.sha256}{i}" for i, image in enumerate(decoded)])


def _lite0() -> tuple[nn.Module, Preprocess]:
    return lite0().module, LITE0


def _resnet50() -> tuple[nn.Module, Preprocess]:
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)  # inside the fork: the global generator is left as it was
        net: nn.Module = torchvision.models.resnet50(weights=None)
    return net, IMAGENET


def with_modules(net: nn.Module, activation: type[nn.Module]) -> nn.Module:
    """A copy of lite0 whose activations are modules of a type, which hooks of libraries need."""
    net = copy.deepcopy(net)
    for parent in [m for m in net.modules() if not isinstance(m, ConvNorm)]:
        for name, child in list(parent.named_children()):
            if isinstance(child, ConvNorm) and child.act:
                child.act = False
                setattr(parent, name, nn.Sequential(child, activation()))
    return net


def ours(s: Subject, work: Work) -> Callable[[], tuple[Tensor, Passes]]:
    """attrsens doing the work: the (first) map, and the passes of all images."""
    spec = attrsens.METHODS[work.method]
    parameters = spec.complete({"space": "pixel", **work.parameters})
    each = [
        Explainer(s.classifier, spec, target, parameters, image)
        for target, image in zip(s.targets, s.hashes, strict=True)
    ]

    def alone() -> tuple[Tensor, Passes]:
        raw = each[0].raw(s.pixels)
        return raw.map, raw.passes

    def together() -> tuple[Tensor, Passes]:
        rows = [([one], image) for one, image in zip(each, s.images, strict=True)][: work.images]
        raws, passes = raw_together(rows, work.images)
        return raws[0][0].map, passes

    return alone if work.images == 1 else together


def floor(s: Subject, work: Work, window: float, batches: Sequence[int] = ()) -> Callable[[], Sample]:
    """The work's passes at the bare network's best throughput: folded, channels_last, a ready batch, no batching.

    Args:
        batches: those that the maths allows; by default one image where that is all there is, else `FLOOR_BATCHES`.
    """
    batches = batches or ((1,) if work.single else FLOOR_BATCHES)
    stacks = [torch.rand(b, *s.pixels.shape).contiguous(memory_format=torch.channels_last) for b in batches]

    def run() -> Sample:
        before = Usage.now()
        least = sum(
            count / max(_throughput(s, stack, kind, window) for stack in stacks) for kind, count in work.kinds.items()
        )
        return Sample(least, before.foreign())

    return run


def _throughput(s: Subject, stack: Tensor, kind: str, window: float) -> float:
    """Images a second of one batch, over again for at least `window` seconds; the first time does not count."""
    net = s.classifier.network
    x = stack.detach().requires_grad_(kind != "forward")
    layer = net.get_submodule(s.layer) if kind == "layer" else net

    def once() -> None:
        if kind == "forward":
            with torch.inference_mode():
                net(x)
        elif kind == "layer":
            _to_layer(net, layer, stack, s.target)
        else:
            score = net(x)[:, s.target].sum()
            for left in range(2 if kind == "twice" else 1, 0, -1):
                torch.autograd.grad(score, x, retain_graph=left > 1)

    once()
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < window:
        once()
        count += 1
    return count * len(x) / (time.perf_counter() - start)


def _to_layer(net: nn.Module, layer: nn.Module, stack: Tensor, target: int) -> None:
    """Forward, and back to a layer's output, before which no graph is kept."""
    kept: list[Tensor] = []

    def cut(_: nn.Module, __: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[0]

    handle = layer.register_forward_hook(cut)
    try:
        torch.autograd.grad(net(stack)[:, target].sum(), kept[0])
    finally:
        handle.remove()

"""What a network does when it is run: its activations, how they are called, what it returns, what its gradients are."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attrsens.errors import AttrsensError
from attrsens.models.calls import carries, kind_of, name_of
from attrsens.models.layers import find_layer
from attrsens.models.surgery import first_output, rectifier

if TYPE_CHECKING:
    from attrsens.models.classifier import Classifier

RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Hardtanh)
CURVES = set(
    "gelu silu hardswish hardsigmoid sigmoid tanh elu leaky_relu prelu mish softplus selu celu glu rrelu threshold "
    "logsigmoid hardtanh softsign".split()
)
MIXERS = {"scaled_dot_product_attention", "multi_head_attention_forward", "softmax"}


@dataclass
class Census:
    """Counts of one forward pass.

    Attributes:
        relus: calls of ReLU and ReLU6 in any spelling; `functional`: those outside a ReLU module; `in_place`: those
            that overwrite their input; `reused`: activation modules that run more than once.
        others: other nonlinearities by name. attention: softmax and attention calls by name. pools: pooling by name.
        layers: leaf modules by type.
        no_rule: functions for which relevance propagation has no rule, with the first layer that calls each.
        spatial: the layer whose output Grad-CAM weighs, or "" where none is spatial.
        training: modules that stay in training mode.
        output: what the network returns, in words.
    """

    relus: int = 0
    functional: int = 0
    in_place: int = 0
    reused: list[str] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)
    attention: dict[str, int] = field(default_factory=dict)
    pools: dict[str, int] = field(default_factory=dict)
    layers: dict[str, int] = field(default_factory=dict)
    no_rule: dict[str, str] = field(default_factory=dict)
    spatial: str = ""
    training: list[str] = field(default_factory=list)
    output: str = "tensor"


@dataclass
class Gradients:
    """Gradients of the top class's score with respect to the input, over a few images.

    Attributes:
        state: ok; zero: of the logit, in every image and around it; zero here: in every image, but not around it; not
            finite; none: no path from the logits to the input; failed.
        zeros: largest share of elements that are exactly zero, in an image; `flat`: images where all are.
        saturated: the probability's gradient is zero in some image, though the logit's is not.
        message: what the network said where it failed.
    """

    state: str = "ok"
    zeros: float = 0.0
    flat: int = 0
    saturated: bool = False
    message: str = ""


@dataclass
class Facts:
    """What a method may need to know of a network before it runs: see the trait `unfit` of a method."""

    census: Census
    gradients: Gradients
    network: nn.Module


class _Watch(TorchFunctionMode):
    def __init__(self, census: Census, stack: list[nn.Module], names: dict[nn.Module, str]) -> None:
        super().__init__()
        self.census, self.stack, self.names = census, stack, names
        self.counts: dict[str, Counter[str]] = {"others": Counter(), "attention": Counter(), "pools": Counter()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        cut = rectifier(func, args, kwargs)
        name = str(getattr(func, "__name__", "")).rstrip("_")
        if cut is not None:
            self.census.relus += 1
            self.census.in_place += cut[2]
            self.census.functional += not (self.stack and isinstance(self.stack[-1], RECTIFIERS))
        elif name in CURVES:
            self.counts["others"][name] += 1
        elif name in MIXERS:
            self.counts["attention"][name] += 1
        elif "pool" in name:
            self.counts["pools"][name] += 1
        if self.stack and carries(args) and kind_of(func, args, kwargs) == "none":
            self.census.no_rule.setdefault(name_of(func), self.names.get(self.stack[-1]) or "the network itself")
        return func(*args, **kwargs)


def take_census(net: nn.Module, x: Tensor) -> Census:
    """Run the network once on normalised images, watching; every hook is taken off again."""
    census, stack, calls = Census(), list[nn.Module](), Counter[nn.Module]()
    names = {module: name for name, module in net.named_modules()}

    def enter(module: nn.Module, _: Any) -> None:
        stack.append(module)
        calls[module] += 1

    def leave(module: nn.Module, *_: Any) -> None:
        stack.pop()

    handles = []
    for module in names:
        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with torch.enable_grad(), _Watch(census, stack, names) as watch:  # as explanations run it
            output = net(x.detach().clone().requires_grad_() + 0)
    finally:
        for handle in handles:
            handle.remove()
    census.others, census.attention, census.pools = (dict(watch.counts[k]) for k in ("others", "attention", "pools"))
    curved = [m for m in calls if isinstance(m, RECTIFIERS) or type(m).__module__ == "torch.nn.modules.activation"]
    census.reused = [names[m] for m in curved if calls[m] > 1]
    with suppress(Exception):  # a way back that fails is told elsewhere
        census.spatial = find_layer(net, x) or ""
    census.layers = dict(Counter(type(m).__name__ for m in names if not list(m.children())).most_common())
    census.training = [name or "the network itself" for m, name in names.items() if m.training]
    census.output = "tensor" if isinstance(output, Tensor) else f"{type(output).__name__} of {len(output)}"
    return census


def look_at_gradients(f: Classifier, pixels: Tensor) -> Gradients:
    """Gradients of a few images (N, C, H, W) at their top classes."""
    out = Gradients()
    try:
        targets = f.view().logits(pixels).argmax(1).tolist()
        for image, target in zip(pixels, targets, strict=True):
            gradient = f.view().gradient(image, target)
            if not bool(gradient.isfinite().all()):
                return Gradients("not finite")
            zeros = float((gradient == 0).float().mean())
            out.zeros = max(out.zeros, zeros)
            out.flat += zeros == 1
            out.saturated |= zeros < 1 and not bool(f.view(output="prob").gradient(image, target).any())
        if out.flat == len(pixels):
            noise = torch.from_numpy(f.stream(0, "around").normal(range(len(pixels)), tuple(pixels.shape[1:])))
            around = torch.cat([pixels / 2, pixels + 0.15 * noise.to(pixels)])
            steep = [bool(f.view().gradient(image, targets[i % len(pixels)]).any()) for i, image in enumerate(around)]
            out.state = "zero here" if any(steep) else "zero"
    except AttrsensError as error:
        return Gradients("none" if "no gradient path" in str(error) else "failed", message=str(error))
    return out


def batch_difference(f: Classifier, pixels: Tensor) -> tuple[float, bool]:
    """(largest change of an image's logits when others are in its batch, as a fraction of their range; whether a
    second run of the same batch gives the same logits to the bit)."""
    with torch.inference_mode():
        together, again = (first_output(f.network(f.normalised(pixels))).float() for _ in range(2))
        alone = torch.cat([first_output(f.network(f.normalised(image[None]))).float() for image in pixels])
    span = max(1e-12, float(together.max() - together.min()))
    return float((together - alone).abs().max()) / span, bool(torch.equal(together, again))

"""A classifier whose weights are drawn anew, a part of its network at a time: for parameter randomisation."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from attrsens.models.batches import Passes
from attrsens.models.failures import copied
from attrsens.models.surgery import core_of

if TYPE_CHECKING:
    from attrsens.models.classifier import Classifier
    from attrsens.seeds import Stream

SHORTCUTS = {"shortcut", "downsample"}
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Unit:
    """Modules whose weights are drawn anew together, in order of definition."""

    name: str
    modules: tuple[nn.Module, ...]

    def tensors(self) -> Iterator[Tensor]:
        for module in self.modules:
            yield from (t for t in [*module._parameters.values(), *module._buffers.values()] if t is not None)


class Randomised:
    """A copy of a classifier, whose units are drawn anew and put back; the original is never touched.

    Weights of two and more dimensions become Xavier uniform, U(-b, b) with b = sqrt(6 / (fan in + fan out)); norms get
    weight 1, bias 0, mean 0 and variance 1; biases are kept, or zero; other vectors stay. A BatchNorm that was folded
    into its convolution is treated as if it were there. A weight's numbers depend on the stream and on the weight's
    place in the network alone, not on units or order.

    Args:
        f: the classifier; device, precision, batch, folding and model wrappers are as its own.
        unit: layer (a convolution or linear layer) or block; either with the norms defined after it. Blocks are the
            children of the network, of plain containers (Sequential, ModuleList) and of whatever holds more than half
            of the weights.
        bias: keep or zero.
        shortcut: skip leaves what is below a module named shortcut or downsample as trained.
        stream: draws the weights.
        dry: name the units only; the classifier is the original, and nothing is drawn.

    Attributes:
        classifier: what to explain.
        units: in order of definition, from the input to the output.

    Raises:
        AttrsensError: the network cannot be copied.
    """

    def __init__(self, f: Classifier, unit: str, bias: str, shortcut: str, stream: Stream, dry: bool = False) -> None:
        self.classifier = f if dry else twin(f)
        self.bias, self.stream, self.dry = bias, stream, dry
        core = core_of(self.classifier.network)
        self._places = {id(w): k for k, w in enumerate(_weights(core))}
        self._trained: dict[int, Tensor] = {}
        self.units = find_units(core, unit, shortcut)

    def draw(self, unit: Unit) -> None:
        """Give a unit new weights."""
        if self.dry:
            return
        with torch.no_grad():
            for tensor in unit.tensors():
                self._trained.setdefault(id(tensor), tensor.clone())
            for module in unit.modules:
                _reset(module) if _is_norm(module) else self._fill(module)

    def restore(self, unit: Unit) -> None:
        """Give a unit its trained weights back."""
        with torch.no_grad():
            for tensor in unit.tensors():
                if id(tensor) in self._trained:
                    tensor.copy_(self._trained[id(tensor)])

    @property
    def share(self) -> float:
        """The share of the network's weights, of two and more dimensions, that were ever drawn."""
        weights = _weights(core_of(self.classifier.network))
        return sum(w.numel() for w in weights if id(w) in self._trained) / sum(w.numel() for w in weights)

    def _fill(self, module: nn.Module) -> None:
        folded = getattr(module, "folded", None)
        gain = 1 / math.sqrt(1 + folded.eps) if folded else 1.0  # of a norm with weight 1, mean 0 and variance 1
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if parameter.dim() > 1:
                u = self.stream.uniform([self._places[id(parameter)]], tuple(parameter.shape))[0]
                parameter.copy_(torch.from_numpy(2 * u - 1) * (xavier(parameter) * gain))
            elif folded and name == "bias":
                kept = self.bias == "keep" and folded.bias is not None
                parameter.copy_(folded.bias * gain) if kept else parameter.zero_()
            elif self.bias == "zero" and name.endswith("bias"):
                parameter.zero_()


def twin(f: Classifier) -> Classifier:
    """A classifier over a copy of the network in the form that it has, with counts and memory of its own.

    Raises:
        AttrsensError: the network cannot be copied.
    """
    net = copied(f.network, f.name)
    other = copy.copy(f)
    other._net, other._shared = net, replace(f._shared)
    other._copies = [m for m in net.modules() if hasattr(m, "copies") and hasattr(m, "chunk")]
    other.passes, other.memo, other.probe = Passes(), dict(f.memo), None
    return other


def xavier(weight: Tensor) -> float:
    """The bound of Glorot and Bengio's uniform draws."""
    field = math.prod(weight.shape[2:])
    return math.sqrt(6 / ((weight.shape[0] + weight.shape[1]) * field))


def find_units(core: nn.Module, unit: str, shortcut: str = "init") -> list[Unit]:
    """The units of a network, in order of definition; what holds no weight joins the unit before it."""
    total = len(_weights(core))
    groups: list[tuple[str, list[nn.Module]]] = []
    seen: set[nn.Module] = set()

    def opens(module: nn.Module) -> bool:
        if unit == "layer":
            return bool(list(module.children()))
        plain = type(module) in (nn.Sequential, nn.ModuleList)
        return module is core or plain or (2 * len(_weights(module)) > total and bool(list(module.children())))

    def visit(name: str, module: nn.Module, label: str | None) -> None:
        if module in seen or (shortcut == "skip" and name.rpartition(".")[2] in SHORTCUTS):
            return
        seen.add(module)
        if label is None and not opens(module):
            label = name or "network"
        if any(t is not None for t in module._parameters.values()) or _is_norm(module):
            own = label or name or "network"
            if not groups or groups[-1][0] != own:
                groups.append((own, []))
            groups[-1][1].append(module)
        for child, inner in module.named_children():
            visit(f"{name}.{child}" if name else child, inner, label)

    visit("", core, None)
    units: list[tuple[str, list[nn.Module]]] = []
    waiting: list[nn.Module] = []
    for name, modules in groups:
        if any(_own_weights(m) for m in modules):
            units.append((name, waiting + modules))
            waiting = []
        elif units:
            units[-1][1].extend(modules)
        else:
            waiting += modules
    return [Unit(name, tuple(modules)) for name, modules in units]


def _weights(module: nn.Module) -> list[Tensor]:
    """Every weight of two and more dimensions, each once, in order of definition."""
    found = {id(w): w for m in module.modules() for w in _own_weights(m)}
    return list(found.values())


def _own_weights(module: nn.Module) -> list[Tensor]:
    if _is_norm(module):
        return []
    return [p for p in module._parameters.values() if p is not None and p.dim() > 1]


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, _NORMS) or "running_mean" in module._buffers


def _reset(norm: nn.Module) -> None:
    for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
        tensor = getattr(norm, name, None)
        if isinstance(tensor, Tensor):
            tensor.fill_(value)

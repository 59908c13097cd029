"""The form a network runs in: BatchNorm folded into the convolution before it, and channels-last memory order.

Both leave its function as it is; whatever does not is taken back and said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from attrsens.models.surgery import first_output

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
Pair = tuple[nn.Module, nn.Module]
EXACT = 1e-4  # of the logits' range: what folding and layout may change


@dataclass
class Folding:
    """What became of a network's BatchNorms.

    Attributes:
        folded: how many went into a convolution.
        left: names of those that did not, with the reason.
    """

    folded: int = 0
    left: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Folded:
    """What a convolution remembers, as `folded`, of the BatchNorm that went into it.

    Attributes:
        bias: the convolution's own, before.
        eps: the norm's.
    """

    bias: Tensor | None
    eps: float


def fold_batchnorm(net: nn.Module, example: Tensor) -> Folding:
    """Fold every BatchNorm that directly follows a convolution, in place.

    A network that declares `batchnorm_pairs()` is taken at its word. Any other is traced on `example`, and if its
    logits then differ by more than `EXACT` of their range everything is put back.
    """
    names: dict[nn.Module, str] = {module: name for name, module in net.named_modules() if isinstance(module, _NORMS)}
    declared = getattr(net, "batchnorm_pairs", None)
    if callable(declared):
        return Folding(len(_fold(net, list(declared()))))
    if not names:
        return Folding()
    pairs, before, reasons = _trace(net, example)
    undo = _fold(net, pairs)
    left = {name: reasons.get(norm, "not called") for norm, name in names.items() if norm not in {n for _, n in pairs}}
    if not undo:
        return Folding(0, left)
    with torch.no_grad():
        after = first_output(net(example))
    change = difference(before, after)
    if change <= EXACT:
        return Folding(len(undo), left)
    for conv, weight, bias, places in undo:
        conv.weight, conv.bias = weight, bias
        del conv.folded
        for parent, name, norm in places:
            setattr(parent, name, norm)
    reason = f"folding changes the logits by {change:.1e} of their range"
    return Folding(0, left | {names[norm]: reason for _, norm in pairs})


def difference(before: Tensor, after: Tensor) -> float:
    """Largest change of the logits as a fraction of their range (of their size where all are equal); inf if not
    finite."""
    if not bool(torch.isfinite(after).all()):
        return float("inf")
    span = float(before.max() - before.min()) or float(before.abs().max())
    return float((after - before).abs().max()) / max(span, 1e-30)


def _trace(net: nn.Module, example: Tensor) -> tuple[list[Pair], Tensor, dict[nn.Module, str]]:
    """Pairs (convolution, norm) where the norm's input is the very tensor the convolution returned, each run once; the
    logits; and why each other norm that ran is in no pair."""
    made: dict[int, tuple[nn.Module, Tensor]] = {}
    calls: dict[nn.Module, int] = {}
    found: list[Pair] = []
    reasons: dict[nn.Module, str] = {}

    def after_conv(module: nn.Module, _: Any, output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        made[id(output)] = (module, output)  # kept, so that the id is not used again

    def before_norm(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls[module] = calls.get(module, 0) + 1
        conv = made[id(inputs[0])][0] if inputs and id(inputs[0]) in made else None
        if not _foldable(module):
            reasons[module] = "normalises by the batch's own statistics"
        elif conv is None:
            reasons[module] = "follows no convolution"
        elif not _plain(conv):
            reasons[module] = "its convolution makes its weight anew"
        else:
            found.append((conv, module))

    handles = []
    for module in net.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            handles.append(module.register_forward_hook(after_conv))
        elif isinstance(module, _NORMS):
            handles.append(module.register_forward_pre_hook(before_norm))
    try:
        with torch.no_grad():
            before = first_output(net(example))
    finally:
        for handle in handles:
            handle.remove()
    pairs = [(c, n) for c, n in found if calls[c] == calls[n] == 1]
    reasons |= {n: "it or its convolution runs more than once" for _, n in found if (_, n) not in pairs}
    return pairs, before, reasons


def _plain(conv: nn.Module) -> bool:
    """Whether the weight is a parameter of its own, and no hook or parametrisation makes it anew."""
    made = bool(conv._forward_pre_hooks) or hasattr(conv, "parametrizations")
    return not made and isinstance(conv._parameters.get("weight"), nn.Parameter)


def _foldable(module: nn.Module) -> bool:
    return isinstance(module, _NORMS) and bool(module.track_running_stats) and module.running_mean is not None


def _rest(norm: nn.Module) -> nn.Module:
    """What stays of a norm once its affine map is gone: timm's norms carry their activation."""
    parts = [getattr(norm, name) for name in ("drop", "act") if isinstance(getattr(norm, name, None), nn.Module)]
    return nn.Sequential(*parts) if parts else nn.Identity()


def _fold(net: nn.Module, pairs: list[Pair]) -> list[tuple[Any, Any, Any, list[tuple[nn.Module, str, nn.Module]]]]:
    undo = []
    homes: dict[nn.Module, list[tuple[nn.Module, str]]] = {}
    for parent in net.modules():
        for name, child in parent.named_children():
            homes.setdefault(child, []).append((parent, name))
    for conv, norm in cast(list[tuple[Any, Any]], pairs):
        weight, bias = conv.weight, conv.bias
        mean, var = norm.running_mean, norm.running_var
        gain = 1 / torch.sqrt(var.double() + norm.eps)
        if norm.weight is not None:
            gain = gain * norm.weight.double()
        shift = (0 if bias is None else bias.double()) - mean.double()
        shift = shift * gain + (0 if norm.bias is None else norm.bias.double())
        shaped = gain.reshape(-1, *[1] * (weight.dim() - 1))
        conv.weight = nn.Parameter(weight.detach() * shaped.to(weight.dtype), requires_grad=False)
        conv.bias = nn.Parameter(shift.detach().to(weight.dtype), requires_grad=False)
        conv.folded = Folded(None if bias is None else bias.detach(), float(norm.eps))
        places = [(parent, name, norm) for parent, name in homes[norm]]
        rest = _rest(norm)
        for parent, name, _ in places:
            setattr(parent, name, rest)
        undo.append((conv, weight, bias, places))
    return undo


@dataclass
class Form:
    """What was done to a network before its passes.

    Attributes:
        layout: memory order of convolutions' inputs and weights.
        note: why it is not channels_last, where that was meant.
    """

    layout: torch.memory_format = torch.contiguous_format
    note: str = ""
    folding: Folding = field(default_factory=Folding)

    @property
    def layout_name(self) -> str:
        return "plain" if self.layout == torch.contiguous_format else "channels_last"


def fast_form(net: nn.Module, example: Tensor) -> Form:
    """Fold BatchNorms and lay the network out in channels-last order, in place, as far as its logits on `example`
    change by no more than `EXACT` of their range."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(example.device.type, enabled=False):
        example = example.detach().clone(memory_format=torch.contiguous_format)
        folding = fold_batchnorm(net, example.clone())
        if callable(getattr(net, "batchnorm_pairs", None)):  # vouched for, and tested
            net.to(memory_format=torch.channels_last)
            return Form(torch.channels_last, "", folding)
        before = first_output(net(example.clone()))
        net.to(memory_format=torch.channels_last)
        try:
            change = difference(before, first_output(net(example.clone(memory_format=torch.channels_last))))
            note = f"channels_last changes the logits by {change:.1e} of their range" if change > EXACT else ""
        except Exception as error:  # such as a view of what is no longer contiguous
            note = f"channels_last fails ({(str(error).splitlines() or [''])[0][:100]})"
        if note:
            net.to(memory_format=torch.contiguous_format)
        return Form(torch.contiguous_format if note else torch.channels_last, note, folding)

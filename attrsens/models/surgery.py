"""Changes to a network that leave its function as it is: BatchNorm folded into the convolution before it."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
Pair = tuple[nn.Module, nn.Module]


def fold_batchnorm(net: nn.Module, example: Tensor) -> int:
    """Fold every BatchNorm that directly follows a convolution, in place; returns how many were folded.

    A network that declares `batchnorm_pairs()` is taken at its word. Any other is traced on `example`, and if its
    logits then differ by more than 1e-4 of their range everything is put back and 0 is returned.
    """
    declared = getattr(net, "batchnorm_pairs", None)
    if callable(declared):
        return len(_fold(net, list(declared())))
    pairs, before = _trace(net, example)
    undo = _fold(net, pairs)
    if not undo:
        return 0
    with torch.no_grad():
        after = first_output(net(example))
    tolerance = 1e-4 * max(1.0, float(before.max() - before.min()))
    if bool(torch.isfinite(after).all()) and float((after - before).abs().max()) <= tolerance:
        return len(undo)
    for conv, weight, bias, places in undo:
        conv.weight, conv.bias = weight, bias
        for parent, name, norm in places:
            setattr(parent, name, norm)
    return 0


def _trace(net: nn.Module, example: Tensor) -> tuple[list[Pair], Tensor]:
    """Pairs (convolution, norm) where the norm's input is the very tensor the convolution returned, each run once."""
    made: dict[int, tuple[nn.Module, Tensor]] = {}
    calls: dict[nn.Module, int] = {}
    found: list[Pair] = []

    def after_conv(module: nn.Module, _: Any, output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        made[id(output)] = (module, output)  # kept, so that the id is not used again

    def before_norm(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls[module] = calls.get(module, 0) + 1
        if inputs and id(inputs[0]) in made:
            found.append((made[id(inputs[0])][0], module))

    handles = []
    for module in net.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and _plain(module):
            handles.append(module.register_forward_hook(after_conv))
        elif _foldable(module):
            handles.append(module.register_forward_pre_hook(before_norm))
    try:
        with torch.no_grad():
            before = first_output(net(example))
    finally:
        for handle in handles:
            handle.remove()
    return [(c, n) for c, n in found if calls[c] == calls[n] == 1], before


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
        places = [(parent, name, norm) for parent, name in homes[norm]]
        rest = _rest(norm)
        for parent, name, _ in places:
            setattr(parent, name, rest)
        undo.append((conv, weight, bias, places))
    return undo


def first_output(output: Any) -> Tensor:
    """The logits in what a network returns: some return (logits, something)."""
    return cast(Tensor, output[0] if isinstance(output, (tuple, list)) else output)

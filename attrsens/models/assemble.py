"""A network from an architecture and a state dict, and the architecture that a state dict fits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from attrsens.errors import AttrsensError
from attrsens.models.checkpoints import State
from attrsens.models.layouts import check_state, load_state, settle
from attrsens.models.nets import Net, net_names
from attrsens.models.torchvision_nets import plausible


def wanted(net: Net) -> list[str]:
    """The tensor names of an architecture."""
    return list(_bare(net, net.classes).state_dict())


def assemble(net: Net, state: State, what: str) -> nn.Module:
    """The network with a settled state dict, whose last tensor tells the number of classes.

    Raises:
        AttrsensError: names or shapes differ.
    """
    adapted = net.adapt(state)
    bare = _bare(net, net.classes)
    count = _classes(bare, adapted, net.classes)
    if count != net.classes:
        bare = _bare(net, count)
    check_state(bare, adapted, what)
    if _take(bare, adapted):
        return bare
    module = net.build(count)
    load_state(module, adapted)
    return module


def outputs(module: nn.Module) -> int:
    """The length of the tensor that ends the network."""
    last = next(reversed(module.state_dict().values()), None)
    return int(last.shape[0]) if last is not None and last.dim() else 0


def guess(state: State, find: Callable[[str], Net], what: str) -> str:
    """The one architecture, ours or torchvision's, that has exactly these names and shapes.

    Args:
        find: from a name to the architecture.

    Raises:
        AttrsensError: none has, or several.
    """
    for names in (list(net_names()), plausible(state)):
        fits = [name for name in names if _fits(find(name), state, what)]
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise AttrsensError(f"model {what}: its tensors fit {', '.join(fits)}; choose with --arch")
    raise AttrsensError(
        f"model {what}: its tensors fit none of torchvision's architectures and none of {', '.join(net_names())}; give "
        "--arch timm/NAME or --arch py:module:function"
    )


def _fits(net: Net, state: State, what: str) -> bool:
    try:
        bare = _bare(net, net.classes)
        adapted = net.adapt(settle(State(state), list(bare.state_dict()), what).state)
        if len(adapted) < len(bare.state_dict()) / 2:
            return False
        count = _classes(bare, adapted, net.classes)
        check_state(bare if count == net.classes else _bare(net, count), adapted, what)
    except AttrsensError:
        return False
    return True


def _classes(bare: nn.Module, state: State, usual: int) -> int:
    names = list(bare.state_dict())
    last = state.get(names[-1]) if names else None
    return int(last.shape[0]) if last is not None and last.dim() and len(last) else usual


def _bare(net: Net, classes: int) -> nn.Module:
    """The network without memory for its weights, where it can be built so."""
    try:
        with torch.device("meta"):
            return net.build(classes)
    except (NotImplementedError, RuntimeError):  # some compute their widths with tensors
        with _Undrawn():
            return net.build(classes)


class _Undrawn(TorchFunctionMode):
    """While active, parameters are not filled: initial weights that nobody asks for take most of the time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        filled = args[0] if args else kwargs.get("tensor")
        if isinstance(filled, nn.Parameter) and name.endswith("_") and not name.startswith("_"):
            return filled
        return func(*args, **kwargs)


def _take(bare: nn.Module, state: State) -> bool:
    """Make the file's tensors the network's own, where it needs no others; then nothing is drawn or copied."""
    names = list(bare.state_dict())
    held = {name for name, _ in bare.named_parameters()} | {name for name, _ in bare.named_buffers()}
    if held != set(names) or not all(t.device.type == "meta" for t in bare.state_dict().values()):
        return False
    zero = torch.zeros((), dtype=torch.long)
    full: State = OrderedDict((name, state.get(name, zero)) for name in names)
    full._metadata = getattr(state, "_metadata", getattr(bare.state_dict(), "_metadata", {}))  # type: ignore[attr-defined]
    bare.load_state_dict(full, assign=True)
    return not any(t.device.type == "meta" for t in [*bare.parameters(), *bare.buffers()])

"""Other rules in place of a network's ReLUs, for as long as a `with` lasts; no module is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def first_output(output: Any) -> Tensor:
    """The logits in what a network returns: some return (logits, something)."""
    return cast(Tensor, output[0] if isinstance(output, (tuple, list)) else output)


def core_of(net: nn.Module) -> nn.Module:
    """The network inside its model wrappers."""
    while isinstance(getattr(net, "inner", None), nn.Module):
        net = net.inner  # type: ignore[assignment]
    return net


Rule = Callable[[Tensor, float], Tensor]
_IN_PLACE = {
    *(torch.relu_, torch.Tensor.relu_, F.hardtanh_, torch.clamp_, torch.Tensor.clamp_, torch.clip_, torch.Tensor.clip_),
    *(torch.clamp_min_, torch.Tensor.clamp_min_, torch.threshold_),
}
_RELU = {F.relu, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_}
_HARDTANH = {F.hardtanh, F.hardtanh_}
_CLAMP = {
    *(torch.clamp, torch.clamp_, torch.Tensor.clamp, torch.Tensor.clamp_),
    *(torch.clip, torch.clip_, torch.Tensor.clip, torch.Tensor.clip_),
}
_CLAMP_MIN = {torch.clamp_min, torch.clamp_min_, torch.Tensor.clamp_min, torch.Tensor.clamp_min_}
_THRESHOLD = {F.threshold, torch.threshold, torch.threshold_}
_SPELLINGS = {*_RELU, F.relu6, *_HARDTANH, *_CLAMP, *_CLAMP_MIN, *_THRESHOLD}


def rectifier(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, float, bool] | None:
    """(low, high, in place) when a torch function call is a ReLU (cuts at `low` = 0, `high` infinite) or a ReLU6; None
    for every other call. Covers modules, functions, methods, and the spellings clamp, clip, threshold and hardtanh; a
    clamp between 0 and something else than 6, such as a normaliser's, is none."""
    if func not in _SPELLINGS:  # most calls by far
        return None
    inf = float("inf")
    given = args[0] if args else kwargs.get("input")
    if not isinstance(given, Tensor) or not given.is_floating_point():
        return None
    place = func in _IN_PLACE or bool(kwargs.get("inplace", False))
    if func in _RELU:
        return 0.0, inf, place or (func is F.relu and len(args) > 1 and bool(args[1]))
    if func is F.relu6:
        return 0.0, 6.0, place or (len(args) > 1 and bool(args[1]))
    if func in _HARDTANH:
        low, high = kwargs.get("min_val", args[1] if len(args) > 1 else -1.0), None
        high = kwargs.get("max_val", args[2] if len(args) > 2 else 1.0)
        return (0.0, float(high), place or (len(args) > 3 and bool(args[3]))) if low == 0 else None
    if func in _CLAMP:
        low, high = kwargs.get("min", args[1] if len(args) > 1 else None), kwargs.get("max")
        high = args[2] if len(args) > 2 else high
        numbers = isinstance(low, (int, float)) and (high is None or isinstance(high, (int, float)))
        if numbers and low == 0 and high in (None, 6):
            return 0.0, inf if high is None else 6.0, place
        return None
    if func in _THRESHOLD:
        level = kwargs.get("threshold", args[1] if len(args) > 1 else None)
        value = kwargs.get("value", args[2] if len(args) > 2 else None)
        return (0.0, inf, place or (len(args) > 3 and bool(args[3]))) if level == 0 and value == 0 else None
    if func in _CLAMP_MIN:
        low = kwargs.get("min", args[1] if len(args) > 1 else None)
        return (0.0, inf, place) if isinstance(low, (int, float)) and low == 0 else None
    return None


class relu_as(TorchFunctionMode):
    """While active, every ReLU is `rule(x, high)`, where `high` is infinite, for ReLU6 6; no module is touched.

    Attributes:
        beta: of softplus rules.
        count: how many were answered.
        active: those that are active now, outermost first. What is computed again on the way back, after they have
            closed, has to enter them again: see `again`.
    """

    active: ClassVar[list[relu_as]] = []

    def __init__(self, rule: Rule, beta: float | None = None) -> None:
        super().__init__()
        self.rule, self.beta, self.count = rule, beta, 0

    def __enter__(self) -> relu_as:
        super().__enter__()  # type: ignore[no-untyped-call]
        relu_as.active.append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        relu_as.active.remove(self)
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        cut = rectifier(func, args, kwargs)
        if cut is None:
            return func(*args, **kwargs)
        self.count += 1
        return self.answer(func, args[0] if args else kwargs["input"], cut[1], cut[2])

    def answer(self, func: Any, given: Tensor, high: float, in_place: bool) -> Tensor:
        """What the call returns. What works in place may be read again by others, so `given` is changed then; the rule
        may need the values it saw."""
        x = given.clone() if in_place and torch.is_grad_enabled() else given
        y = self.rule(x, high)
        return given.copy_(y) if in_place else y


class guided_relu(relu_as):
    """While active, the way back through every ReLU and ReLU6 lets positive gradients through only, and only where the
    input is inside (0, high).

    Inside a mode of softplus, ReLU is softplus and what comes back is cut at 0 before it meets softplus's slope.
    torch's own ReLU does the second; what leaves it on the way back is cut at 0. That costs one operation in place.
    """

    def __init__(self) -> None:
        super().__init__(_own)

    def answer(self, func: Any, given: Tensor, high: float, in_place: bool) -> Tensor:
        outer = relu_as.active[-2] if len(relu_as.active) > 1 else None
        if outer is not None and outer.beta is not None:
            outer.count += 1
            y = outer.rule(given.clone() if in_place else given, high)
            if y.requires_grad:
                y.register_hook(self._gate)  # type: ignore[no-untyped-call]
            return given.copy_(y) if in_place else y
        if in_place and func in _KEEP_RESULT and given._base is None:
            y = torch.relu_(given) if func in _RELU else F.hardtanh_(given, 0.0, high)
        else:  # relu keeps its result for the way back, as the network's would; every other spelling its input
            x = given.clone() if in_place else given
            y = torch.relu(x) if func in _RELU else _own(x, high)
        if y.grad_fn is not None:
            y.grad_fn.register_hook(_positive)
        return given.copy_(y) if in_place and y is not given else y

    def _gate(self, g: Tensor) -> Tensor | None:
        """The rule, while the map is made; what differentiates the map meets the derivative."""
        return torch.maximum(g, torch.zeros_like(g)) if self in relu_as.active else None


_KEEP_RESULT = {*_RELU, F.relu6, *_HARDTANH}  # whose way back in place is told by the result alone


def _own(x: Tensor, high: float) -> Tensor:
    """ReLU or ReLU6 by an operation whose derivative is 0 at both ends, unlike clamp's."""
    return F.hardtanh(x, 0.0, high)


def _positive(found: tuple[Tensor | None, ...], _: Any) -> tuple[Tensor | None, ...]:
    """What a ReLU hands down, cut at 0: in place, since the ReLU has just made it and nobody else holds it. As a
    maximum, because a clamp is a spelling of ReLU, which an active mode would answer."""
    (g,) = found
    if g is None:
        return found
    zero = torch.zeros((), dtype=g.dtype, device=g.device)
    return (torch.maximum(g, zero) if g.requires_grad else torch.maximum(g, zero, out=g),)


@contextmanager
def again(modes: list[relu_as]) -> Iterator[None]:
    """Modes that were active, active once more."""
    with ExitStack() as stack:
        for mode in modes:
            stack.enter_context(mode)
        yield


def softplus_relu(beta: float) -> relu_as:
    """Every ReLU as softplus, while active."""
    return relu_as(softplus_rule(beta), beta)


def softplus_rule(beta: float) -> Rule:
    """log(1 + exp(beta z)) / beta for ReLU, the difference of two for ReLU6 (methods 2.15)."""

    def rule(z: Tensor, high: float) -> Tensor:
        low = F.softplus(z, beta)
        return low if high == float("inf") else low - F.softplus(z - high, beta)

    return rule

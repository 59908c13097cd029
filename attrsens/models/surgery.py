"""Other rules in place of a network's ReLUs, for as long as a `with` lasts; no module is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def first_output(output: Any) -> Tensor:
    """The logits in what a network returns: some return (logits, something)."""
    return cast(Tensor, output[0] if isinstance(output, (tuple, list)) else output)


Rule = Callable[[Tensor, float], Tensor]
_IN_PLACE = {torch.relu_, torch.Tensor.relu_, F.hardtanh_, torch.clamp_, torch.Tensor.clamp_, torch.Tensor.clamp_min_}
_RELU = {F.relu, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_}
_HARDTANH = {F.hardtanh, F.hardtanh_}
_CLAMP = {torch.clamp, torch.clamp_, torch.Tensor.clamp, torch.Tensor.clamp_, torch.clip, torch.Tensor.clip}
_CLAMP_MIN = {torch.clamp_min, torch.Tensor.clamp_min, torch.Tensor.clamp_min_}


def rectifier(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, float, bool] | None:
    """(low, high, in place) when a torch function call cuts its input at `low` = 0, as ReLU (`high` infinite) and
    ReLU6 do; None for every other call. Covers functional, method, clamp and hardtanh spellings."""
    inf = float("inf")
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
        if isinstance(low, (int, float)) and low == 0 and (high is None or isinstance(high, (int, float))):
            return 0.0, inf if high is None else float(high), place
        return None
    if func in _CLAMP_MIN:
        low = kwargs.get("min", args[1] if len(args) > 1 else None)
        return (0.0, inf, place) if isinstance(low, (int, float)) and low == 0 else None
    return None


class relu_as(TorchFunctionMode):
    """While active, every ReLU is `rule(x, high)`, where `high` is infinite, for ReLU6 6; no module is touched.

    Attributes:
        count: how many were answered.
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule, self.count = rule, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        cut = rectifier(func, args, kwargs)
        if cut is None:
            return func(*args, **kwargs)
        self.count += 1
        _, high, in_place = cut
        given = args[0] if args else kwargs["input"]
        # what works in place may be read again by others, so it is changed; the rule may need the values it saw
        x = given.clone() if in_place and torch.is_grad_enabled() else given
        y = self.rule(x, high)
        return given.copy_(y) if in_place else y


def softplus_rule(beta: float) -> Rule:
    """log(1 + exp(beta z)) / beta for ReLU, the difference of two for ReLU6 (methods 2.15)."""

    def rule(z: Tensor, high: float) -> Tensor:
        low = F.softplus(z, beta)
        return low if high == float("inf") else low - F.softplus(z - high, beta)

    return rule

"""Propagation by other rules than the chain rule's, as modes: epsilon-LRP and DeepLIFT's rescale rule.

Relevance is carried as coefficients c with R = a c for every activation a, so that each rule is a change of the
gradient: what flows back is multiplied where a rule differs from the chain rule, and the map is the input times what
arrives. Every call of a function is met, whether a module, a function or a method made it; no module is touched.

The factors are as large as the activations, and on a CPU an operation with a mask (`where`, `masked_fill`, a bool times
a float) costs ten times one of floats alone: the usual path has none.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attrsens.errors import AttrsensError
from attrsens.models.calls import CURVES, PASSED, POOLS, carries, kind_of, name_of
from attrsens.models.surgery import rectifier


class _Slope(torch.autograd.Function):
    """A function that `run` computes with its slope, by which the way back multiplies."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, run: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        y, slope = run(z.detach())
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return g * slope, None


class _Ratio(torch.autograd.Function):
    """y, whose way back multiplies by y / z while a rule makes its map; what differentiates the map later goes back
    through y itself."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor, rule: _Rules) -> Tensor:
        ctx.save_for_backward(z, y)
        ctx.rule = rule
        return y.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        if not ctx.rule.making:
            return None, g, None
        z, y = ctx.saved_tensors
        return g * (y / z).nan_to_num(0.0, 0.0, 0.0), None, None


class _Rules(TorchFunctionMode, ABC):
    """What epsilon-LRP and DeepLIFT share: sorting calls, and saying where a network is out of reach.

    Args:
        method: whom an error speaks for.
    """

    def __init__(self, net: nn.Module, method: str) -> None:
        super().__init__()
        self.net, self.method, self.inside, self.making = net, method, False, False

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The mode, for what the network calls."""
        begin = self.net.register_forward_pre_hook(lambda *_: self.enter())
        end = self.net.register_forward_hook(lambda *_: self.enter(False))
        self.making = True
        try:
            with self:
                yield
        finally:
            self.inside = self.making = False
            begin.remove()
            end.remove()

    def enter(self, inside: bool = True) -> None:
        self.inside = inside

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.inside or name_of(func) in PASSED or not self.concerns(func, args, kwargs):
            return func(*args, **kwargs)  # outside the network, or as in the chain rule
        kind = kind_of(func, args, kwargs)
        if kind == "curve":
            given = args[0] if args else kwargs["input"]
            cut = rectifier(func, args, kwargs)
            named = str(getattr(func, "__name__", ""))
            in_place = bool(cut and cut[2]) or bool(kwargs.get("inplace"))
            in_place |= named.endswith("_") and not named.endswith("__")
            rest = args[1:] if args else ()
            options = {k: v for k, v in kwargs.items() if k != "input"}

            def run(v: Tensor) -> Tensor:
                out: Tensor = func(v.clone() if in_place else v, *rest, **options)
                return out

            out = self.curve(given, run, None if cut is None else cut[1])
            return given.copy_(out) if in_place else out
        if kind == "pool":
            return self.pool(func, args, kwargs)
        if kind == "none":
            raise AttrsensError(
                f"{self.method}: layer {_running(self.net)} calls {name_of(func)}, for which it has no rule"
            )
        out = func(*args, **kwargs)
        return self.total(out) if kind == "sum" else out

    def concerns(self, func: Any, args: Any, kwargs: Any) -> bool:
        """Whether relevance flows through the call."""
        return carries(args) or carries(tuple(kwargs.values()))

    @abstractmethod
    def curve(self, z: Tensor, run: Callable[[Tensor], Tensor], high: float | None) -> Tensor:
        """The nonlinearity `run` of z, which leaves z as it is, with the rule's slope in place of the derivative;
        `high` is where a ReLU ends (infinite, or 6), None for others. z may be overwritten afterwards."""

    def total(self, out: Any) -> Any:
        return out

    def pool(self, func: Any, args: Any, kwargs: Any) -> Any:
        return func(*args, **kwargs)  # the winner takes all, as in the gradient


def _running(net: nn.Module) -> str:
    """The name of the innermost module of a network that is running, from the frames of its calls."""
    names: dict[int, str] = {id(module): name for name, module in net.named_modules()}
    frame = inspect.currentframe()
    while frame is not None:
        if name := names.get(id(frame.f_locals.get("self"))):
            return name
        frame = frame.f_back
    return "the network itself"


class EpsilonRule(_Rules):
    """epsilon-LRP: a sum z hands its relevance R down in proportion to its addends, R_j = z_j R / (z + eps sign z)."""

    def __init__(self, net: nn.Module, method: str, eps: float, graph: bool = False) -> None:
        super().__init__(net, method)
        self.eps, self.graph = eps, graph

    def curve(self, z: Tensor, run: Callable[[Tensor], Tensor], high: float | None) -> Tensor:
        """Relevance passes unchanged, so coefficients are multiplied by y / z, and by 0 where z = 0: ReLU's own
        derivative."""
        if self.graph:
            z = z.clone()
        if high == float("inf"):
            return torch.relu(z)
        if self.graph:  # a cap after a ReLU, which passes relevance on as a ReLU does: no quotient near z = 0
            lifted = z if high is None else torch.relu(z)
            quotient: Tensor = _Ratio.apply(lifted, run(z), self)
            return quotient

        def ratio(z: Tensor) -> tuple[Tensor, Tensor]:
            y = run(z)
            return y, (y / z).nan_to_num_(0.0, 0.0, 0.0)

        out: Tensor = _Slope.apply(z, ratio)
        return out

    def total(self, out: Any) -> Any:
        """Coefficients that reach a sum z are multiplied by z / (z + eps sign z) = |z| / (|z| + eps)."""
        if isinstance(out, Tensor) and out.requires_grad and self.graph:
            kept = out.clone().abs()  # of what may be overwritten

            def part(g: Tensor) -> Tensor | None:
                return g * (kept / (kept + self.eps)) if self.making else None

            out.register_hook(part)  # type: ignore[no-untyped-call]
        elif isinstance(out, Tensor) and out.requires_grad:
            size = out.detach().abs()

            def shared(g: Tensor) -> Tensor:
                factor = size + self.eps
                torch.div(size, factor, out=factor)
                return factor * g if g.requires_grad else factor.mul_(g)

            out.register_hook(shared)  # type: ignore[no-untyped-call]
        return out


class RescaleRule(_Rules):
    """DeepLIFT's rescale rule: at a nonlinearity the slope is the change of the output over the change of the input
    between the image and the reference; where the input does not change, the derivative.

    The reference runs first, inside `recording()`; then every call of the image meets the same call of the reference.
    """

    SAME = 1e-10  # a change of the input below which the derivative is taken (methods 2.11)
    TINY = 1e-30  # is lost in every sum with what is not below SAME

    def __init__(self, net: nn.Module, method: str) -> None:
        super().__init__(net, method)
        self.calls: list[Tensor] = []
        self.at, self.record = 0, False

    @contextmanager
    def recording(self) -> Iterator[None]:
        """The next forward pass is the reference's."""
        self.record, self.calls = True, []
        try:
            with self.applied():
                yield
        finally:
            self.record = False

    def enter(self, inside: bool = True) -> None:
        self.at = 0
        super().enter(inside)

    def concerns(self, func: Any, args: Any, kwargs: Any) -> bool:
        """Nonlinearities always, so that the calls of both passes meet; the rest where relevance flows."""
        name = name_of(func)
        if name in CURVES or name in POOLS or rectifier(func, args, kwargs) is not None:
            return True
        return not self.record and super().concerns(func, args, kwargs)

    def meet(self, z: Tensor) -> Tensor:
        """The input of the same call of the reference."""
        if self.at >= len(self.calls) or self.calls[self.at].shape[1:] != z.shape[1:]:
            raise AttrsensError(
                f"{self.method}: the network calls its activations otherwise for the image than for the reference"
            )
        self.at += 1
        return self.calls[self.at - 1]

    def curve(self, z: Tensor, run: Callable[[Tensor], Tensor], high: float | None) -> Tensor:
        if self.record:
            self.calls.append(z.detach().clone())  # which others may overwrite
            return run(z.detach())
        z0 = self.meet(z)
        if not z.requires_grad:
            return run(z)

        def rescaled(z: Tensor) -> tuple[Tensor, Tensor]:
            """The output and (rise + TINY y') / (change + TINY), which is rise / change or, where both are 0, y'."""
            with torch.enable_grad():
                given = z.detach().requires_grad_()
                y = run(given)
            (derivative,) = torch.autograd.grad(y, given, y.new_full((), self.TINY).expand_as(y))
            y, change = y.detach(), z - z0
            torch.hardshrink(change, self.SAME, out=change)  # 0 up to SAME
            rise = y - run(z0)
            torch.hardshrink(rise, self.SAME, out=rise)
            return y, rise.add_(derivative).div_(change.add_(self.TINY))

        out: Tensor = _Slope.apply(z, rescaled)
        return out

    def pool(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Of two maxima the change is split at the larger: up to it where the image's winner is, down from it where the
        reference's is (the rule of SHAP and Captum)."""
        z = args[0] if args else kwargs["input"]
        options = {k: v for k, v in kwargs.items() if k != "input"}
        if self.record:
            self.calls.append(z.detach().clone())
            return func(*args, **kwargs)
        z0 = self.meet(z)
        with torch.no_grad():
            y = func(z.detach(), *args[1:], **options)
            if not z.requires_grad:
                return y
            y0 = func(z0, *args[1:], **options)
            at, at0 = (_winners(func, v, args[1:], options) for v in (z.detach(), z0))
        out: Tensor = _Pooled.apply(z, z0, y, y0, at, at0.expand_as(at), self.SAME)
        return out


def _winners(func: Any, z: Tensor, rest: Any, options: dict[str, Any]) -> Tensor:
    """Flat positions of the maxima of every window."""
    with_indices = {"max_pool1d": F.max_pool1d_with_indices, "max_pool2d": F.max_pool2d_with_indices}[name_of(func)]
    found: Tensor = with_indices(z, *rest, **options)[1]
    return found


class _Pooled(torch.autograd.Function):
    """Max-pooling whose way back is DeepLIFT's."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, z0: Tensor, y: Tensor, y0: Tensor, at: Tensor, at0: Tensor, same: float) -> Tensor:
        larger = torch.maximum(y, y0)
        change = z - z0
        ctx.save_for_backward(larger - y0, y - larger, at, at0, change)
        ctx.same = same
        return y.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        up, down, at, at0, change = ctx.saved_tensors

        def back(values: Tensor, where: Tensor) -> Tensor:
            flat = torch.zeros_like(change).flatten(2)
            return flat.scatter_add_(2, where.flatten(2), values.flatten(2)).reshape(change.shape)

        near = change.abs() < ctx.same
        moved = (back(g * up, at) + back(g * down, at0)) / torch.where(near, torch.ones_like(change), change)
        return torch.where(near, back(g, at), moved), None, None, None, None, None, None

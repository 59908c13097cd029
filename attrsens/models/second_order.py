"""Gradients that can be differentiated once more, at the price of one further pass each way.

A loss on a gradient map g(x) needs the product of the Hessian with v = dloss/dg. It is exact and needs no double
backward: the tangent of v goes forward through the network, which between its activations is linear, and what comes
back through the same layers picks up at every activation phi the product of three things: phi'', the tangent, and the
gradient that the first pass brought there (Pearlmutter 1994, with the tangents kept). On a CPU a double backward costs
about five times a pass forward and back (methods 5.1); this costs one.

Networks whose layers are not of that kind (products of two activations, attention, normalisation by the input's own
statistics), and other rules for the way back, are differentiated twice by autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attrsens.errors import AttrsensError
from attrsens.models.calls import FACTS, WEIGHTED, carries, kind_of, name_of
from attrsens.models.failures import explained
from attrsens.models.outputs import check_finite, check_logits
from attrsens.models.surgery import first_output, rectifier, relu_as

if TYPE_CHECKING:
    from attrsens.models.classifier import Classifier

Loss = Callable[[Tensor], Tensor]  # logits (B, classes) -> one number an image


ADDS = set("add iadd radd sub isub rsub".split())
JOINS = set("cat concat concatenate stack".split())
POOLED = {"max_pool1d": F.max_pool1d_with_indices, "max_pool2d": F.max_pool2d_with_indices}


class Unsupported(Exception):
    """The network calls something that has no tangent rule."""


def differentiable(
    f: Classifier, loss: Callable[..., Tensor], x: Tensor, places: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(logits, losses (B, 1), gradients) of images (B, C, H, W) in the view's space, with their graph. Counts two
    passes each way: going back through a gradient is one more.

    Args:
        loss: from logits and places in the stack to one number an image.
    """
    with torch.enable_grad(), f.exact():
        f.settle(x[0])
        x = x if x.requires_grad else x.detach().requires_grad_()
        u = f.laid_out(x)
        try:
            logits, values, found = twice(f.network, u, lambda z: loss(z, places), f.memo)
        except AttrsensError:
            raise
        except Exception as error:  # the network may be anybody's
            raise explained(error, f.name, "cannot be differentiated twice") from None
        check_logits(logits, len(x), f.name, f.classes)
        check_finite(logits, f.name)
        gradients = f.back(found, x)
    f.count(2 * len(x), 2 * len(x))
    return logits, values[:, None], gradients.abs() if f.sign == "abs_sample" else gradients


def twice(net: nn.Module, u: Tensor, loss: Loss, memo: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """(logits, losses (B,), gradients of the losses with respect to u), each of which can be differentiated once more.

    Args:
        u: normalised images (B, C, H, W).
        memo: of the network, where a network without tangents is remembered.
    """
    modes = torch.overrides._get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    plain = all(type(mode) is relu_as for mode in modes)
    if plain and "no tangents" not in memo:
        try:
            found: tuple[Tensor, Tensor, Tensor] = _Twice.apply(u, net, loss)
            return found
        except Unsupported as error:
            memo["no tangents"] = str(error)
    with torch.enable_grad():
        x = u if u.requires_grad else u.detach().requires_grad_()
        logits = _wide(first_output(net(x.clone())), u)
        values = loss(logits)
        (gradients,) = torch.autograd.grad(values.sum(), x, create_graph=True)
    return logits, values, gradients


@dataclass
class _Point:
    """An activation in the first pass: its slope, its curvature, and their products with what came back; or, of a
    maximum, where it was."""

    slope: Tensor | None = None
    curvature: Tensor | None = None
    bent: Tensor | None = None  # curvature times the gradient that reached the activation
    winners: Tensor | None = None


class _Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, net: nn.Module, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        tape: list[_Point] = []
        with torch.enable_grad():
            x = u.detach().requires_grad_()
            with _Recorder(tape):
                logits = _wide(first_output(net(x.clone())), u)
            leaf = logits.detach().requires_grad_()
            values = loss(leaf)
            (slope,) = torch.autograd.grad(values.sum(), leaf)
            (gradients,) = torch.autograd.grad(logits, x, slope)
        ctx.net, ctx.loss, ctx.tape = net, loss, tape
        ctx.save_for_backward(logits.detach())
        return logits.detach(), values.detach(), gradients

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, to_logits: Tensor, to_values: Tensor, v: Tensor) -> tuple[Tensor | None, None, None]:
        (logits,) = ctx.saved_tensors
        with torch.enable_grad():
            tangent = v.detach().requires_grad_()
            with _Tangents(ctx.tape):
                moved = _wide(first_output(ctx.net(tangent.clone())), logits)
            leaf = logits.detach().requires_grad_()
            values = ctx.loss(leaf)
            (slope,) = torch.autograd.grad(values.sum(), leaf, create_graph=True)
            total = (slope * moved.detach()).sum() + (leaf * to_logits).sum() + (values * to_values).sum()
            (seed,) = torch.autograd.grad(total, leaf)
            (found,) = torch.autograd.grad(moved, tangent, seed)
        return found, None, None


def _wide(logits: Tensor, like: Tensor) -> Tensor:
    return logits.to(like.dtype)


class _Recorder(TorchFunctionMode):
    """The first pass: every activation leaves its slope and curvature on the tape, and what comes back to it."""

    def __init__(self, tape: list[_Point]) -> None:
        super().__init__()
        self.tape = tape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        if name in FACTS or not (carries(args) or carries(tuple(kwargs.values()))):
            return func(*args, **kwargs)
        kind = _kind(func, name, args, kwargs)
        if kind == "curve":
            return self.curve(func, name, args, kwargs)
        if kind == "pool":
            y, winners = POOLED[name](*args, **kwargs)
            self.tape.append(_Point(winners=winners))
            return y
        return func(*args, **kwargs)

    def curve(self, func: Any, name: str, args: Any, kwargs: Any) -> Tensor:
        given = args[0] if args else kwargs["input"]
        cut = rectifier(func, args, kwargs)
        in_place = _in_place(func, kwargs, cut)
        point = _Point()
        self.tape.append(point)
        beta = None
        if cut and relu_as.active:
            relu_as.active[-1].count += 1
            beta = relu_as.active[-1].beta
        rest = args[1:] if args else ()
        options = {k: v for k, v in kwargs.items() if k != "input"}

        def run(z: Tensor) -> Tensor:
            if cut and relu_as.active:
                return relu_as.active[-1].rule(z, cut[1])
            out: Tensor = func(z.clone() if in_place else z, *rest, **options)
            return out

        bend = _softplus(beta, cut[1]) if cut and beta else _bend(run, curved=cut is None or bool(relu_as.active))
        dirty = in_place and given._base is None and not given.is_leaf
        y: Tensor = _Noted.apply(given, point, bend, dirty)
        return given.copy_(y) if in_place and not dirty else y


class _Noted(torch.autograd.Function):
    """An activation whose slope and curvature are kept, and with them what comes back to it."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, point: _Point, bend: Callable[..., Any], in_place: bool) -> Tensor:
        y, point.slope, point.curvature = bend(z.detach())
        ctx.point = point
        if in_place:
            z.copy_(y)
            ctx.mark_dirty(z)
            return z
        return y  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        point: _Point = ctx.point
        if point.curvature is not None:
            point.bent = point.curvature * g if point.bent is None else point.bent + point.curvature * g
        assert point.slope is not None
        return point.slope * g, None, None, None


def _softplus(beta: float, high: float) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """softplus and its slope and curvature, for ReLU6 of the difference of two: s = a - b, s' = beta s (1 - a - b) with
    the sigmoids a and b."""

    def bend(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, slope = _smooth_step(z, beta)
        if high == float("inf"):
            return y, slope, (slope - slope.square()).mul_(beta)
        past, other = _smooth_step(z - high, beta)
        both = slope + other
        slope -= other
        return y.sub_(past), slope, both.neg_().add_(1).mul_(slope).mul_(beta)

    return bend


def _smooth_step(z: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """(softplus, sigmoid s): softplus(z) = max(z, 0) - log(max(s, 1 - s)) / beta, to a float's epsilon of 1 / beta.
    torch's own takes ten times as long, by log1p and, where it is steep, by numbers too small to be normal."""
    slope = (z * beta).clamp_(min=-30).sigmoid_()
    y = (slope - 0.5).abs_().add_(0.5).log_().mul_(-1 / beta)
    return y.add_(z, alpha=0.5).add_(z.abs(), alpha=0.5), slope


def _bend(run: Callable[[Tensor], Tensor], curved: bool) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor | None]]:
    """Any function of single numbers with its two derivatives, by autograd; `curved` False: its second is 0."""

    def bend(z: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        with torch.enable_grad():
            leaf = z.clone().requires_grad_()
            y = run(leaf)
            (slope,) = torch.autograd.grad(y.sum(), leaf, create_graph=curved)
            if not curved or not slope.requires_grad:
                return y.detach(), slope.detach(), None
            (curvature,) = torch.autograd.grad(slope.sum(), leaf)
        return y.detach(), slope.detach(), curvature

    return bend


class _Tangents(TorchFunctionMode):
    """The second pass: what goes forward is a tangent. Biases and constants add nothing; an activation multiplies by
    the slope on the tape."""

    def __init__(self, tape: list[_Point]) -> None:
        super().__init__()
        self.tape, self.at = tape, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        if name in FACTS or not (carries(args) or carries(tuple(kwargs.values()))):
            return func(*args, **kwargs)
        kind = _kind(func, name, args, kwargs)
        if kind in ("curve", "pool"):
            point = self.tape[self.at]
            self.at += 1
            given = args[0] if args else kwargs["input"]
            if kind == "pool":
                assert point.winners is not None
                found = given.flatten(2).gather(2, point.winners.flatten(2))
                return found.reshape(*point.winners.shape)
            out: Tensor = _Bent.apply(given, point)
            return given.copy_(out) if _in_place(func, kwargs, rectifier(func, args, kwargs)) else out
        if name in WEIGHTED:
            return _unbiased(func, name, args, kwargs)
        if name in ADDS:
            return _added(func, args, kwargs)
        return func(*args, **kwargs)


class _Bent(torch.autograd.Function):
    """slope times tangent; what comes back gains curvature times the first pass's gradient times tangent."""

    @staticmethod
    def forward(ctx: Any, tangent: Tensor, point: _Point) -> Tensor:
        assert point.slope is not None
        extra = None if point.bent is None else point.bent * tangent
        ctx.save_for_backward(point.slope, extra)
        return point.slope * tangent

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        slope, extra = ctx.saved_tensors
        return (slope * g if extra is None else torch.addcmul(extra, slope, g)), None


def _kind(func: Any, name: str, args: Any, kwargs: Any) -> str:
    """As `kind_of`, for what is carried here.

    Raises:
        Unsupported: the call has no tangent rule.
    """
    given = (*args, *kwargs.values())
    if name in JOINS and not all(carries(part) for part in args[0]):
        raise Unsupported(f"{name} of images and constants")
    if name == "pad" and (kwargs.get("value", args[3] if len(args) > 3 else 0) or 0) != 0:
        raise Unsupported("padding with a number")
    kind = "move" if name == "copy" else kind_of(func, args, kwargs)
    if kind == "none" or name in ("addmm", "addcmul", "einsum") or (kind == "curve" and sum(map(carries, given)) > 1):
        raise Unsupported(name)
    return kind


def _in_place(func: Any, kwargs: Any, cut: tuple[float, float, bool] | None) -> bool:
    named = str(getattr(func, "__name__", ""))
    return bool(cut and cut[2]) or bool(kwargs.get("inplace")) or (named.endswith("_") and not named.endswith("__"))


def _unbiased(func: Any, name: str, args: Any, kwargs: Any) -> Tensor:
    """A convolution, a linear layer or a batch norm without its constant."""
    args, kwargs = list(args), dict(kwargs)
    at = 4 if name == "batch_norm" else 2
    if len(args) > at:
        args[at] = None
    kwargs.pop("bias", None)
    if name == "batch_norm":
        mean = kwargs.get("running_mean", args[1] if len(args) > 1 else None)
        if len(args) > 1:
            args[1] = torch.zeros_like(mean)
        else:
            kwargs["running_mean"] = torch.zeros_like(mean)
    out: Tensor = func(*args, **kwargs)
    return out


def _added(func: Any, args: Any, kwargs: Any) -> Tensor:
    """A sum or difference without its constants."""
    parts = [a if carries(a) or not isinstance(a, (Tensor, int, float)) else _zero(a) for a in args]
    rest = {k: _zero(v) if k == "other" and not carries(v) else v for k, v in kwargs.items()}
    out: Tensor = func(*parts, **rest)
    return out


def _zero(value: Any) -> Any:
    return torch.zeros_like(value) if isinstance(value, Tensor) else 0

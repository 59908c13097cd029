"""What a call of a torch function is to rules that follow a network: a curve, a sum, a pool, a move, or none."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import Tensor

from attrsens.models.surgery import rectifier

# what passes relevance on as the chain rule does: it moves or selects entries
MOVES = set(
    "view reshape flatten unflatten permute transpose contiguous cat concat concatenate stack pad getitem unsqueeze "
    "squeeze expand repeat chunk split tensor_split to float clone dropout dropout1d dropout2d dropout3d alpha_dropout "
    "feature_dropout movedim swapaxes roll narrow select unbind channel_shuffle pixel_shuffle interpolate neg "
    "view_as reshape_as expand_as upsample t".split()
)
# linear maps with or without a bias: sums of contributions
SUMS = set(
    "conv1d conv2d conv3d conv_transpose2d linear batch_norm avg_pool1d avg_pool2d adaptive_avg_pool1d "
    "adaptive_avg_pool2d mean sum add iadd radd sub isub rsub".split()
)
WEIGHTED = set("conv1d conv2d conv3d conv_transpose2d linear batch_norm".split())
POOLS = set("max_pool1d max_pool2d".split())
DIVISIONS = set("truediv itruediv div true_divide divide".split())
PRODUCTS = set("addmm matmul mm bmm rmatmul".split())
SCALES = set("mul imul rmul truediv itruediv div true_divide multiply divide".split())
CURVES = set(
    "sigmoid tanh gelu silu hardswish hardsigmoid elu leaky_relu prelu mish softplus selu celu softsign logsigmoid "
    "threshold hardtanh".split()
)
# questions about a tensor
FACTS = set(
    "get set size dim numel len stride is_contiguous is_floating_point get_device element_size item tolist detach "
    "requires_grad has_torch_function isfinite all any register_hook retain_grad bool new_zeros new_ones new_empty "
    "new_full zeros_like ones_like is_complex ndimension".split()
)


PASSED = MOVES | FACTS


@lru_cache(maxsize=1024)
def name_of(func: Any) -> str:
    """A torch function's plain name: `conv2d`, `add` for `+`, `iadd` for `+=`, `get` for an attribute."""
    return str(getattr(func, "__name__", func)).strip("_")


def kind_of(func: Any, args: Any, kwargs: Any) -> str:
    """What a torch function call is to a propagation rule: curve, sum, pool, move, or none where there is no rule."""
    name = name_of(func)
    if rectifier(func, args, kwargs) is not None or name in CURVES:
        return "curve"
    if name == "batch_norm" and _training(args, kwargs):
        return "none"
    if name in WEIGHTED and any(carries(a) for a in (*args[1:], *kwargs.values())):
        return "none"  # weights that depend on the image
    if name in DIVISIONS and len(args) > 1 and carries(args[1]):
        return "none"
    if name in PRODUCTS or name in SCALES:  # of two things that carry relevance: bilinear
        carried = [*args, *kwargs.values()]
        if sum(carries(a) for a in carried) > 1:
            return "none"
        return "sum" if name in PRODUCTS else "move"
    if name in SUMS:
        return "sum"
    if name in POOLS:
        return "pool"
    return "move" if name in MOVES or name in FACTS else "none"


def _training(args: Any, kwargs: Any) -> bool:
    """Whether a batch_norm call normalises by the batch's own statistics."""
    return bool(kwargs.get("training", args[5] if len(args) > 5 else False))


def carries(value: Any) -> bool:
    """Whether a gradient flows into any tensor in it."""
    if isinstance(value, (list, tuple)):
        return any(carries(v) for v in value)
    return isinstance(value, Tensor) and value.requires_grad

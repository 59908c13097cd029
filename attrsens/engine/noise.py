"""The noise floor of a gradient map: how much it moves when nothing that matters is changed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from attrsens.models.classifier import Classifier


@dataclass
class Move:
    """How far the gradient map (mean over channels, top class's logit, pixel space) moves under a change of numerics:
    the largest over the images. All three are 0 for the same map; lower is closer; `DEFINITION` says it beside them.

    Attributes:
        l2: ||b - a|| / ||a||, a the map in the reference numerics, b the changed one; cosine: 1 - cosine similarity;
            spearman: 1 - rank correlation over pixels, ties averaged.
    """

    change: str
    l2: float | None
    cosine: float | None
    spearman: float | None
    reason: str | None = None


DEFINITION = (
    "gradient map of the top class's logit in pixel space, signed, mean over channels; a: BatchNorm unfolded, plain "
    "memory order, one image a batch; b: with the change; l2 = ||b - a|| / ||a||, cosine = 1 - cosine similarity, "
    "spearman = 1 - rank correlation over pixels; each the largest over the pictures; lower is closer"
)


def noise_floor(f: Classifier, pixels: Tensor) -> list[Move]:
    """Maps of unfolded weights in plain layout, one image a batch, against: one thread, all images in one batch,
    channels_last, BatchNorm folded, and the form that passes take by default.

    Args:
        f: an unfolded classifier. pixels: (N, C, H, W).
    """
    import torch

    from attrsens.models.failures import copied
    from attrsens.models.form import fast_form, fold_batchnorm
    from attrsens.models.surgery import core_of

    net, x, std = f.network, f.normalised(pixels), torch.tensor(f.preprocess.std).reshape(-1, 1, 1)
    plain, last = torch.contiguous_format, torch.channels_last
    targets = f.view().logits(pixels).argmax(1)

    def maps(net: nn.Module, layout: torch.memory_format, size: int) -> Tensor:
        parts = []
        for part, classes in zip(torch.split(x, size), torch.split(targets, size), strict=True):
            given = part.detach().clone(memory_format=layout).requires_grad_()
            score = _logits(net, given).gather(1, classes[:, None]).sum()
            parts.append((torch.autograd.grad(score, given)[0].cpu() / std).mean(1))
        return torch.cat(parts).double()

    def threads(count: int) -> Tensor:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            return maps(net, plain, 1)
        finally:
            torch.set_num_threads(before)

    base = maps(net, plain, 1)
    out = []
    other = 1 if torch.get_num_threads() > 1 else 2
    out.append(_move(f"threads: {other} instead of {torch.get_num_threads()}", base, partial(threads, other)))
    if len(x) > 1:
        out.append(_move(f"batch: {len(x)} instead of 1", base, partial(maps, net, plain, len(x))))
    laid = copied(net, f.name).to(memory_format=last)
    out.append(_move("layout: channels_last instead of plain", base, partial(maps, laid, last, 1)))
    folded = copied(net, f.name)
    if fold_batchnorm(core_of(folded), x[:1].clone()).folded:
        out.append(_move("fold: BatchNorm folded", base, partial(maps, folded, plain, 1)))
    fast = copied(net, f.name)
    layout = fast_form(core_of(fast), x[:1]).layout
    out.append(_move("the default form, against --no-fold", base, partial(maps, fast, layout, f.sizes[1])))
    return out


def _logits(net: nn.Module, x: Tensor) -> Tensor:
    from attrsens.models.surgery import first_output

    return first_output(net(x)).float()


def _move(change: str, base: Tensor, run: Any) -> Move:
    try:
        maps = run()
    except Exception as error:  # such as a view of what is no longer contiguous
        return Move(change, None, None, None, (str(error).splitlines() or [type(error).__name__])[0][:120])
    pairs = list(zip(base.flatten(1), maps.flatten(1), strict=True))
    if not all(bool(a.any()) and bool(b.any()) and bool(b.isfinite().all()) for a, b in pairs):
        return Move(change, None, None, None, "a map is zero or not finite")
    l2 = max(float((a - b).norm() / a.norm()) for a, b in pairs)
    cosine = max(0.0, *(1 - float(a @ b / (a.norm() * b.norm())) for a, b in pairs))
    return Move(change, l2, cosine, max(0.0, *(1 - _spearman(a, b) for a, b in pairs)))


def _spearman(a: Tensor, b: Tensor) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a.numpy(), b.numpy()).statistic)

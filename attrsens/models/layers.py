"""Layers by name: what they return and what comes back to them, and which one is the last that knows places."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attrsens.errors import AttrsensError, InputError, unknown
from attrsens.models.failures import explained
from attrsens.models.surgery import first_output

if TYPE_CHECKING:
    from attrsens.models.classifier import Classifier

PREFIX = 8  # tokens before those of the patches: class, distillation, registers


def layer_gradient(f: Classifier, x: Tensor, target: int, name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """(layer, its output, the gradient of the score with respect to it) for one image in the view's space; what lies
    before the layer is not gone back through, unless the view keeps graphs. One pass forward, and one back as far as
    the layer.

    Args:
        name: of the layer, or "auto" (see `find_layer`).

    Raises:
        AttrsensError: no such layer, or the score does not depend on it.
    """
    module = layer_of(f, name, x)
    leaves: list[Tensor] = []
    found: tuple[Tensor, ...] = ()

    def cut(_: nn.Module, __: Any, output: Any) -> Any:
        leaf = first_output(output) if f.graph else first_output(output).detach()
        leaf = leaf if leaf.requires_grad else leaf.requires_grad_()
        leaves.append(leaf)
        handed = leaf + 0  # which may be overwritten
        return (handed, *output[1:]) if isinstance(output, (tuple, list)) else handed

    handle = module.register_forward_hook(cut)
    try:
        with torch.enable_grad(), f.exact():
            score = f.scores_of(x[None], target)
            try:
                if score.requires_grad:
                    found = torch.autograd.grad(score.sum(), leaves[-1:], allow_unused=True, create_graph=f.graph)
            except Exception as error:  # the network may be anybody's
                raise explained(error, f.name, "fails on the way back") from None
    finally:
        handle.remove()
    if not found or found[0] is None:
        raise AttrsensError(f"model {f.name}: layer {name} has no part in the score of class {target}")
    return module, leaves[-1] if f.graph else leaves[-1].detach(), found[0]


def planes(module: nn.Module, output: Tensor, size: tuple[int, int]) -> Tensor | None:
    """A layer's output as (N, C, h, w): as it is, from (N, h, w, C), or from tokens (N, T, C) without those before the
    patches'; None if it has no places, just one, or none that match an image of `size` (height, width)."""
    height, width = size
    if output.dim() == 4:
        _, a, b, c = output.shape
        first, last = _aspect(b, c, size), _aspect(a, b, size)
        channels = getattr(module, "normalized_shape", (None,))[-1]
        if first and last:  # both could be: a norm knows its channels, else they come first
            first = not (channels == c != a)
        if not first and not last:
            return None
        output = output if first else output.permute(0, 3, 1, 2)
        return output if output.shape[-1] * output.shape[-2] > 1 else None
    if output.dim() == 3:
        for before in range(PREFIX + 1):
            count = output.shape[1] - before
            rows = round((count * height / width) ** 0.5) if count > 1 else 0
            if rows and count % rows == 0 and _aspect(rows, count // rows, size):
                return output[:, before:].transpose(1, 2).reshape(len(output), -1, rows, count // rows)
    return None


def _aspect(rows: int, columns: int, size: tuple[int, int]) -> bool:
    """Whether a grid has the image's proportions, but for what striding rounds off."""
    height, width = size
    return abs(rows * width - columns * height) < max(height, width)


def layer_of(f: Classifier, name: str, image: Tensor) -> nn.Module:
    """A layer of a classifier's network by name; "auto" finds it once, on an image (C, H, W) in the view's space.

    Raises:
        AttrsensError: no such layer, or none that knows places.
    """
    if name == "auto":
        if "layer" not in f.memo:
            try:
                f.memo["layer"] = find_layer(f.network, f.normalised(image[None]))
            except Exception as error:  # the network may be anybody's
                raise explained(error, f.name, "fails on the way back") from None
        name = f.memo["layer"] or ""
        if not name:
            raise AttrsensError(f"model {f.name}: no layer of it knows places")
    modules: dict[str, nn.Module] = dict(f.network.named_modules())
    if name not in modules:
        places = [n for n in modules if n]
        raise unknown("layer", name, places, f"the last ones are {', '.join(places[-8:])}")
    return modules[name]


def find_layer(net: nn.Module, x: Tensor) -> str | None:
    """The last layer that knows places and is heard: the one that Grad-CAM weighs by default.

    Candidates are modules that are or hold a convolution, and LayerNorms; the last to finish whose places receive a
    gradient is taken: resnets' layer4, vgg's and densenet's features, googlenet's inception5b, the last convolution of
    small nets, the first norm of a ViT's last block, the last norm of a Swin. One pass forward and back on an example.

    Args:
        x: normalised images (N, C, H, W); the first is used.
    """
    finished: list[tuple[str, nn.Module, Tensor]] = []
    size = (x.shape[-2], x.shape[-1])
    names = {m: n for n, m in net.named_modules() if n}
    chosen = [m for m in names if isinstance(m, nn.LayerNorm) or any(isinstance(c, nn.Conv2d) for c in m.modules())]

    def keep(module: nn.Module, _: Any, output: Any) -> None:
        found = first_output(output)
        if isinstance(found, Tensor) and found.requires_grad and planes(module, found, size) is not None:
            finished.append((names[module], module, found))

    handles = [module.register_forward_hook(keep) for module in chosen]
    try:
        with torch.enable_grad():
            logits = first_output(net(x[:1].detach().clone().requires_grad_() + 0))
    finally:
        for handle in handles:
            handle.remove()
    if not finished or not logits.requires_grad:
        return None
    outputs = [output for _, _, output in finished]
    gradients = torch.autograd.grad(logits[0].max(), outputs, allow_unused=True)
    for (name, module, _), gradient in reversed(list(zip(finished, gradients, strict=True))):
        places = planes(module, gradient, size) if gradient is not None else None
        if places is not None and bool(places.any()):
            return name
    return None


@contextmanager
def features_of(f: Classifier, image: Tensor) -> Iterator[list[Tensor]]:
    """A list that, while the network runs, gains what its head is given, batch by batch: its penultimate features.

    The head is the linear layer whose output are the logits; it is found once, on an image (C, H, W) in the view's
    space, in one pass that is not counted.

    Raises:
        InputError: no linear layer makes the logits, or they are a mean over noisy copies.
    """
    if "head" not in f.memo:
        try:
            f.memo["head"] = find_head(f.network, f.normalised(image[None])) if f.copies == 1 else None
        except Exception as error:  # the network may be anybody's
            raise explained(error, f.name, "fails") from None
    if f.memo["head"] is None:
        raise InputError(f"model {f.name}: its logits are not the output of a linear layer")
    f.settle(image)
    given: list[Tensor] = []
    head: nn.Module = dict(f.network.named_modules())[f.memo["head"]]
    handle = head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].float()))
    try:
        yield given
    finally:
        handle.remove()


def find_head(net: nn.Module, x: Tensor) -> str | None:
    """The name of the linear layer whose output are the logits, and which runs once; None if there is none.

    Args:
        x: normalised images (N, C, H, W); the first is used.
    """
    finished: list[tuple[str, Tensor]] = []
    names: dict[nn.Module, str] = {m: n for n, m in net.named_modules() if isinstance(m, nn.Linear)}

    def keep(module: nn.Module, _: Any, output: Any) -> None:
        finished.append((names[module], output))

    handles = [module.register_forward_hook(keep) for module in names]
    try:
        with torch.inference_mode():
            logits = first_output(net(x[:1].detach().clone()))
    finally:
        for handle in handles:
            handle.remove()
    runs = [name for name, _ in finished]
    made = [name for name, output in finished if output.shape == logits.shape and torch.equal(output, logits)]
    return made[-1] if made and runs.count(made[-1]) == 1 else None

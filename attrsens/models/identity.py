"""What a classifier is called in cache keys and reports."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence

import torch
from torch import nn

from attrsens.images import Preprocess
from attrsens.spec import canonical


def model_id(
    name: str, weights: str, architecture: str, preprocess: Preprocess, classes: Sequence[str] | None = None
) -> str:
    """`NAME@` and 12 digits of the sha256 over weights, architecture, preprocessing and class names."""
    data = {"weights": weights, "architecture": architecture, "preprocess": preprocess.describe()}
    text = canonical(data | {"classes": list(classes) if classes is not None else None})
    return f"{name}@{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def fingerprint(module: nn.Module, preprocess: Preprocess, classes: Sequence[str] | None) -> str:
    """The digits of `model_id` for a module in memory."""
    digest = hashlib.sha256()
    for key, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return model_id("", digest.hexdigest(), code_of(module), preprocess, classes).removeprefix("@")


def code_of(module: nn.Module) -> str:
    """What a network computes besides its tensors: every class's source text and every plain attribute.

    A function that a forward pass calls from elsewhere is not seen.
    """
    parts = []
    plain = (int, float, str, bool, type(None), tuple)
    for name, part in module.named_modules():
        facts = {k: v for k, v in sorted(vars(part).items()) if isinstance(v, plain) and k != "training"}
        parts.append(f"{name} {type(part).__module__}.{type(part).__qualname__} {facts!r}")
    for kind in sorted({type(part) for part in module.modules()}, key=lambda k: f"{k.__module__}.{k.__qualname__}"):
        if not kind.__module__.startswith("torch."):
            parts.append(_source(kind))
    return "\n".join(parts)


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        functions = [f for f in vars(kind).values() if inspect.isfunction(f)]
        return repr([(f.__name__, f.__code__.co_code.hex(), repr(f.__code__.co_consts)) for f in functions])

"""What a classifier is called in cache keys and reports."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from attrsens.images import Preprocess
from attrsens.spec import canonical


def fingerprint(module: nn.Module, preprocess: Preprocess) -> str:
    """12 digits of the sha256 over the weights, the module's text and the preprocessing."""
    digest = hashlib.sha256()
    for key, tensor in module.state_dict().items():
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return model_id("", digest.hexdigest(), repr(module), preprocess).removeprefix("@")


def model_id(name: str, weights: str, architecture: str, preprocess: Preprocess) -> str:
    """`NAME@` and 12 digits of the sha256 over weights, architecture and preprocessing."""
    text = canonical({"weights": weights, "architecture": architecture, "preprocess": preprocess.describe()})
    return f"{name}@{hashlib.sha256(text.encode()).hexdigest()[:12]}"

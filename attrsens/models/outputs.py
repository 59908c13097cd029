"""What a network returned: whether it is logits, and the one number an image that is explained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attrsens.errors import AttrsensError, InputError

Target = int | Sequence[int]


def check_logits(logits: object, count: int, name: str, classes: Sequence[str] | None) -> None:
    """Raise unless there is one row of logits an image, of as many classes as there are names.

    Raises:
        AttrsensError: there is not.
    """
    if not isinstance(logits, Tensor):
        raise AttrsensError(f"model {name} returns a {type(logits).__name__}; a tensor of logits is needed")
    if logits.dim() != 2 or len(logits) != count or logits.shape[1] == 0:
        raise AttrsensError(f"model {name} returns {tuple(logits.shape)} for {count} images; logits are 2-D")
    if classes is not None and len(classes) != logits.shape[1]:
        raise AttrsensError(
            f"model {name} has {logits.shape[1]} outputs, but {len(classes)} class names; give --classes"
        )


def check_finite(logits: Tensor, name: str) -> None:
    """Raise unless every logit is finite.

    Raises:
        InputError: one is not.
    """
    if not bool(torch.isfinite(logits).all()):
        raise InputError(f"model {name} gives logits that are not finite")


def select(logits: Tensor, target: Target | Tensor, output: str, name: str) -> Tensor:
    """One logit or probability an image, (N,).

    Args:
        target: a class, or one an image.
        output: "logit" or "prob".

    Raises:
        AttrsensError: no such class.
    """
    classes = torch.as_tensor(target, device=logits.device).expand(len(logits))
    outside = (classes < 0) | (classes >= logits.shape[1])
    if bool(outside.any()):
        wrong = int(classes[outside][0])
        raise AttrsensError(f"class {wrong} is out of range: model {name} has {logits.shape[1]} classes")
    values = logits if output == "logit" else torch.softmax(logits, 1)
    return values.gather(1, classes[:, None])[:, 0]

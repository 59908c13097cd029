"""Set explanations: the k largest entries of a map, all alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from attrsens.methods._settings import Notes, Points, one
from attrsens.spec import WRAPPERS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.explainer import Base
    from attrsens.models.classifier import Classifier


def _settings(
    base: Base, f: Classifier, x: Tensor, targets: Sequence[int], points: Points
) -> Iterator[tuple[Tensor, Notes]]:
    """Other sets of the same map."""
    import torch

    heatmap = base(x)
    for point in points:
        flat = (heatmap.abs() if point["by"] == "abs" else heatmap).flatten()
        order = torch.argsort(flat, descending=True, stable=True)[: point["k"]]
        out = torch.zeros_like(flat)
        out[order] = 1 / min(point["k"], len(flat))
        yield out.reshape(heatmap.shape), dict(base.notes)


@WRAPPERS("topk", version=1, cost="base", over=("k", "by"), settings=_settings)
def topk(
    base: Base,
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    k: Annotated[
        int, Param("entries of the raw map that are kept", min=1, scale="ratio", source="HSE 4.3", pixels=2)
    ] = 13_000,
    by: Annotated[str, Param("largest by value or by magnitude", choices=("signed", "abs"), source="methods 2.20")] = (
        "signed"
    ),
) -> tuple[Tensor, Notes]:
    """1/k on the k largest entries of the raw map (channels apart), 0 elsewhere; ties by position.

    HSE section 2; methods 2.20. A k of all entries or more gives a constant map. Costs what the base costs.
    """
    found: tuple[Tensor, Notes] = one(_settings, base, f, x, target, k=k, by=by)
    return found

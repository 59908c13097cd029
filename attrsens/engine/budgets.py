"""Budgets of attacks: which of them make a curve, and what can be kept on an image of 8 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrsens.engine.cell import Call
from attrsens.errors import AttrsensError
from attrsens.spec import Spec

SMALLEST = 1 / 255 - 1e-6  # a step of 8 bits


def alone(parameters: Mapping[str, Any]) -> bool:
    """Whether eps bounds all that is done to the image, so that nothing is done without it."""
    return str(parameters.get("perturbation", "delta")) == "delta"


def checked_budgets(spec: Spec, calls: Sequence[Call]) -> None:
    """Raise where several eps make no curve, or where one allows no change of an 8-bit image.

    Raises:
        AttrsensError: they do not, or it does.
    """
    p = calls[0].parameters
    if len(calls) > 1 and not spec.traits.get("budget"):
        raise AttrsensError(f"{spec.name}: its eps is no budget, and several make no curve; give one")
    if len(calls) > 1 and "delta" not in str(p.get("perturbation", "delta")).split("-"):
        raise AttrsensError(
            f"eps bounds delta, and the perturbation is {p['perturbation']}: several eps change nothing"
        )
    for call in calls if spec.traits.get("budget") and alone(p) else ():
        eps = float(call.parameters["eps"])
        if 0 < eps < SMALLEST:
            raise AttrsensError(f"eps {eps:.4g} is less than 1/255, a step of the 8-bit image: nothing could change")

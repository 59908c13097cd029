"""The gradient, and the gradient times the input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrsens.spec import METHODS

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.classifier import Classifier


@METHODS("grad", version=1, gradient=True, local=True, cost="1 F + 1 B")
def gradient(f: Classifier, x: Tensor, target: int) -> Tensor:
    """Gradient of the target's score with respect to the input.

    Simonyan et al. 2014; methods 2.1. One pass forward and back.
    """
    return f.gradient(x, target)


@METHODS("gi", version=1, gradient=True, local=True, cost="1 F + 1 B")
def gradient_times_input(f: Classifier, x: Tensor, target: int) -> Tensor:
    """Input times gradient, both in the chosen space.

    Shrikumar et al. 2016; methods 2.2. One pass forward and back.
    """
    return x * f.gradient(x, target)

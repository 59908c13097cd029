"""The gradient, and the gradient times the input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from attrsens.spec import METHODS

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.batches import Images
    from attrsens.models.classifier import Classifier


def gradients(f: Classifier, images: Images, target: int) -> Iterator[Tensor]:
    """The gradients of many images in stacks."""
    return (gradient for gradient, _ in f.gradients(images, target))


def products(f: Classifier, images: Images, target: int) -> Iterator[Tensor]:
    """Input times gradient of many images in stacks."""
    from attrsens.models.batches import chunks

    if f.dry:
        yield from gradients(f, images, target)
        return
    for chunk in chunks(images, f.sizes[1]):
        for gradient, _ in f.gradients(chunk, target):
            yield chunk * gradient


@METHODS("grad", version=1, gradient=True, differentiable=True, local=True, cost="1 F + 1 B", many=gradients)
def gradient(f: Classifier, x: Tensor, target: int) -> Tensor:
    """Gradient of the target's score with respect to the input.

    Simonyan et al. 2014; methods 2.1. One pass forward and back.
    """
    return f.gradient(x, target)


@METHODS("gi", version=1, gradient=True, differentiable=True, local=True, cost="1 F + 1 B", many=products)
def gradient_times_input(f: Classifier, x: Tensor, target: int) -> Tensor:
    """Input times gradient, both in the chosen space.

    Shrikumar et al. 2016; methods 2.2. One pass forward and back.
    """
    return x * f.gradient(x, target)

"""Methods that send the score back by other rules than the gradient's: guided backpropagation, LRP, DeepLIFT."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from attrsens.errors import AttrsensError
from attrsens.spec import METHODS, Param

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attrsens.models.batches import Images
    from attrsens.models.census import Facts
    from attrsens.models.classifier import Classifier
    from attrsens.models.surgery import relu_as


def _no_relu(facts: Facts) -> str | None:
    return None if facts.census.relus else "it calls no ReLU to guide through"


def copies(network: nn.Module) -> int:
    """How often a network runs for one image, wrappers that average over noise considered."""
    return math.prod(getattr(m, "copies", 1) for m in network.modules() if hasattr(m, "chunk"))


def _no_rule(facts: Facts) -> str | None:
    if copies(facts.network) > 1:
        return "it runs several noisy copies of the image"
    first = next(iter(facts.census.no_rule.items()), None)
    return f"layer {first[1]} calls {first[0]}, for which it has no rule" if first else None


def guided_many(f: Classifier, images: Images, target: int) -> Iterator[Tensor]:
    """Guided gradients of many images in stacks."""
    from attrsens.models.batches import chunks

    if f.dry:
        yield from (gradient for gradient, _ in f.gradients(images, target))
        return
    for chunk in chunks(images, f.sizes[1]):
        with _guided() as mode:
            if len(mode.active) > 1 and not f.graph:
                raise AttrsensError("gbp: smoothed ReLUs have no guided rule; drop +softplus")
            parts = [gradient for gradient, _ in f.gradients(chunk, target)]
        _seen(mode, f)
        yield from parts


@METHODS(
    "gbp", version=1, gradient=True, differentiable=True, local=True, cost="1 F + 1 B", many=guided_many, unfit=_no_relu
)
def guided_backprop(f: Classifier, x: Tensor, target: int) -> Tensor:
    """Gradient that passes a ReLU only where its input and what comes back are positive.

    R_in = R_out 1[z > 0] 1[R_out > 0], for ReLU6 also 1[z < 6]. Springenberg et al. 2015; methods 2.8. Functional,
    in-place and reused ReLUs alike; other activations keep their derivative. One pass forward and back.
    """
    (stack,) = guided_many(f, x[None], target)
    return stack[0]


def _guided() -> relu_as:
    from attrsens.models.surgery import guided_relu

    return guided_relu()


def _seen(mode: relu_as, f: Classifier) -> None:
    if mode.count == 0:
        raise AttrsensError(f"gbp: model {f.name} calls no ReLU, so there is nothing to guide through")


@METHODS("lrp", version=1, gradient=True, differentiable=True, local=True, cost="1 F + 1 B", unfit=_no_rule)
def lrp_epsilon(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    eps: Annotated[
        float,
        Param(
            "stabiliser of the sums, in units of the activations", min=0, max=1e6, scale="ratio", source="methods 2.10"
        ),
    ] = 1e-6,
) -> Tensor:
    """Relevance handed down in proportion to what each addend gave: the epsilon rule in every layer.

    R_j = a_j sum_k w_jk R_k / (z_k + eps sign z_k), sign(0) = 1, from R = logit. Bach et al. 2015, eq. 58; methods
    2.10. A bias keeps its share (in pixel space the mean does too); BatchNorm is merged into its convolution or a layer
    of its own; activations pass relevance on; max-pooling gives all to the winner; averages, means and residual sums
    share by the same rule. One pass forward and back. For ReLU networks and eps towards 0 it is gradient times input.
    """
    from attrsens.models.rules import EpsilonRule

    _logits_only(f, "lrp")
    if f.dry:
        return x * f.gradient(x, target)
    f.settle(x)
    with EpsilonRule(f.network, "lrp", eps, graph=f.graph).applied():
        coefficients = f.gradient(x, target)
    return x * coefficients


@METHODS("deeplift", version=1, gradient=True, cost="2 F + 1 B", unfit=_no_rule)
def deeplift_rescale(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    baseline: Annotated[
        str, Param("the reference", choices=("black", "white", "grey", "mean"), source="methods 2.11")
    ] = "black",
) -> tuple[Tensor, dict[str, float | None]]:
    """(x - x0) times the slopes between the image and a reference, activation by activation: the rescale rule.

    At a nonlinearity the multiplier is (y - y0) / (z - z0), below 1e-10 the derivative; linear layers are exact;
    max-pooling splits its change at the larger maximum. Shrikumar et al. 2017; methods 2.11. Two passes forward and one
    back. The map sums to f(x) - f(x0): `completeness_gap` is noted.
    """
    import copy

    from attrsens.models.rules import RescaleRule

    _logits_only(f, "deeplift")
    x0 = f.colour(baseline).expand_as(x)
    exact = copy.copy(f)  # counts on the same meter
    exact.precision = "fp32"
    if f.dry:
        exact.score(x0[None], target)
        return (x - x0) * f.gradient(x, target), {"completeness_gap": None}
    f.settle(x)
    rule = RescaleRule(f.network, "deeplift")
    with rule.recording():
        low = exact.score(x0[None], target)[0]
    with rule.applied():
        ((multipliers, score),) = f.gradients(x[None], target)
    heatmap = (x - x0) * multipliers[0]
    gap = abs(float(heatmap.sum()) - float(score[0] - low))
    return heatmap, {"completeness_gap": None if f.sign == "abs_sample" else gap}


def _logits_only(f: Classifier, name: str) -> None:
    if f.output != "logit":
        raise AttrsensError(f"{name}: output={f.output} has no rule for the softmax; use output=logit")
    if f.copies > 1:
        raise AttrsensError(f"{name}: model {f.name} runs several noisy copies of the image")

"""Grad-CAM and its product with guided backpropagation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from attrsens.errors import AttrsensError
from attrsens.methods.propagation import copies, guided_backprop
from attrsens.spec import METHODS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.census import Facts
    from attrsens.models.classifier import Classifier

LAYER = Param("layer whose output is weighed, by its name in the network; auto: the last one that knows places")
UPSAMPLE = Param("from the layer's grid to the image", choices=("bilinear", "nearest"), source="methods 2.9")


def _nowhere(facts: Facts) -> str | None:
    if copies(facts.network) > 1:
        return "its layers run for several noisy copies of the image"
    return None if facts.census.spatial else "no layer of it knows places"


def _nowhere_or_no_relu(facts: Facts) -> str | None:
    return _nowhere(facts) or (None if facts.census.relus else "it calls no ReLU to guide through")


@METHODS("gradcam", version=1, gradient=True, differentiable=True, inner=True, cost="1 F + 1 B", unfit=_nowhere)
def gradcam(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    layer: Annotated[str, LAYER] = "auto",
    upsample: Annotated[str, UPSAMPLE] = "bilinear",
) -> tuple[Tensor, dict[str, float | None]]:
    """Positive part of a layer's channels, weighted by the mean gradient that reaches them, enlarged to the image.

    ReLU(sum_k w_k A^k), w_k = spatial mean of df_c/dA^k. Selvaraju et al. 2017, eq. 1 and 2; methods 2.9. No scaling to
    [0, 1]. Tokens of transformers are laid out on their grid, those before the patches left out. One pass forward, and
    one back as far as the layer. `all_negative` is noted as 1 where every place is cut to 0.
    """
    import torch
    import torch.nn.functional as F

    from attrsens.models.layers import layer_gradient, planes

    if f.dry:
        return f.gradient(x, target).sum(0), {}
    if f.copies > 1:
        raise AttrsensError(f"gradcam: the layers of model {f.name} run for several noisy copies of the image")
    f.settle(x)
    module, output, slopes = layer_gradient(f, x, target, layer)
    size = (x.shape[-2], x.shape[-1])
    activations, gradients = planes(module, output, size), planes(module, slopes, size)
    if activations is None or gradients is None:
        shape = tuple(output.shape)
        raise AttrsensError(f"gradcam: layer {layer} returns {shape}, which has no places; choose another, or auto")
    weights = gradients.mean((2, 3), keepdim=True)
    cam = (weights * activations).sum(1, keepdim=True)
    cam = torch.maximum(cam, torch.zeros_like(cam))  # no ReLU of the network, which `+softplus` would smooth
    align = None if upsample == "nearest" else False
    heatmap = F.interpolate(cam, size=tuple(x.shape[-2:]), mode=upsample, align_corners=align)[0, 0]
    return heatmap, {"all_negative": float(not bool(torch.any(heatmap > 0)))}


@METHODS("ggradcam", version=1, gradient=True, differentiable=True, cost="2 F + 2 B", unfit=_nowhere_or_no_relu)
def guided_gradcam(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    layer: Annotated[str, LAYER] = "auto",
    upsample: Annotated[str, UPSAMPLE] = "bilinear",
) -> tuple[Tensor, dict[str, float | None]]:
    """Guided backpropagation times Grad-CAM.

    Selvaraju et al. 2017, section 3.2; methods 2.9 ("GradCam" in HSE). Two passes forward and back.
    """
    cam, notes = gradcam(f, x, target, layer=layer, upsample=upsample)
    return guided_backprop(f, x, target) * cam, notes

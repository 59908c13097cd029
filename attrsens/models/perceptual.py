"""LPIPS: how different two images look to a network, for attacks whose changes have no small norm."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from attrsens.errors import AttrsensError
from attrsens.models.zoo import load

TAPS = (4, 9, 16, 23, 30)  # of VGG16's features: after relu1_2, 2_2, 3_3, 4_3 and 5_3
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1]


class Lpips:
    """LPIPS v0.1 on VGG16: differences of unit-length features, weighted by channel, averaged over places and summed
    over five layers. 0 for equal images. Zhang et al. 2018; methods 3.

    Args:
        backbone: torchvision's VGG16 weights, in any form that `--model` reads.
        span: "11": images are fed in [-1, 1], as the metric was made for; "01": as they are, in [0, 1], as SMO does,
            which gives smaller values.

    Attributes:
        mark: what identifies it in keys.

    Raises:
        AttrsensError: the backbone is none, or the package `lpips`, whose weights of channels are read (no code of it
            runs), is not installed.
    """

    def __init__(self, backbone: str | Path, span: str = "11", device: str = "auto") -> None:
        classifier = load(str(backbone), arch="vgg16", device=device, fold=False)
        features = getattr(classifier.network, "features", None)
        if not isinstance(features, nn.Sequential) or len(features) < TAPS[-1]:
            raise AttrsensError(f"lpips-backbone {backbone}: no VGG16 without batch normalisation")
        self.features, self.device, self.span = features, classifier.device, span
        linear = _weights()
        self.linear = [linear[f"lin{k}.model.1.weight"].to(self.device) for k in range(len(TAPS))]
        self.mark = f"vgg16 v0.1 {classifier.sha256} {span}"
        self.definition = f"LPIPS v0.1, VGG16, images in {'[-1, 1]' if span == '11' else '[0, 1]'}; Zhang et al. 2018"

    @torch.inference_mode()
    def __call__(self, a: Tensor, b: Tensor) -> float:
        """Of two images (3, H, W) in [0, 1]. One pass of VGG16's features each."""
        pair = torch.stack([a, b]).to(self.device, torch.float32)
        pair = 2 * pair - 1 if self.span == "11" else pair
        shift, scale = (pair.new_tensor(v).reshape(3, 1, 1) for v in (SHIFT, SCALE))
        x, total = (pair - shift) / scale, 0.0
        for k, layer in enumerate(self.features[: TAPS[-1]]):
            x = layer(x)
            if k + 1 in TAPS:
                unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
                gap = (unit[0] - unit[1]).square() * self.linear[TAPS.index(k + 1)][0]
                total += float(gap.sum(0).mean())
        return total


def _weights() -> dict[str, Tensor]:
    spec = find_spec("lpips")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise AttrsensError("lpips-backbone: the package lpips is not installed; pip install 'attrsens[lpips]'")
    file = Path(places[0]) / "weights/v0.1/vgg.pth"
    found: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return found

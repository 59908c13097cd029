"""The one architecture of the robust ImageNet family that torchvision lacks."""

from __future__ import annotations

from torch import nn

from attrsens.models.nets import IMAGENET, net


@net("wide_resnet50_4", preprocess=IMAGENET, labels="imagenet", classes=1000)
def wide_resnet50_4(name: str, classes: int) -> nn.Module:
    """ResNet-50 with four times the inner channels (robust-models-transfer)."""
    from torchvision.models.resnet import Bottleneck, ResNet

    module: nn.Module = ResNet(Bottleneck, [3, 4, 6, 3], num_classes=classes, width_per_group=64 * 4)
    return module

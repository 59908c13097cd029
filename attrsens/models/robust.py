"""The adversarially robust ImageNet models of Salman et al. 2020, as published on the Hugging Face hub.

Names are `ARCHITECTURE-NORM-epsEPS`: the network was trained by PGD within a ball of that norm and radius (L2 in
pixels in [0, 1], L-infinity in 255ths); eps0 is the regular twin.
"""

from __future__ import annotations

from pathlib import Path

from attrsens.errors import unknown
from attrsens.models.hub import hub_file

REPOSITORY = "madrylab/robust-imagenet-models"

# published name -> torchvision's (or our) architecture
LADDER = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "wide_resnet50_2": "wide_resnet50_2",
    "wide_resnet50_4": "wide_resnet50_4",
}
SINGLE = {
    "densenet": "densenet161",
    "mnasnet": "mnasnet1_0",
    "mobilenet": "mobilenet_v2",
    "resnext50_32x4d": "resnext50_32x4d",
    "shufflenet": "shufflenet_v2_x1_0",
    "vgg16_bn": "vgg16_bn",
}
L2 = ("0", "0.01", "0.03", "0.05", "0.1", "0.25", "0.5", "1", "3", "5")
LINF = ("0.5", "1.0", "2.0", "4.0", "8.0")


def robust_names() -> dict[str, tuple[str, str]]:
    """name -> (file in the repository, architecture), for the whole family."""
    out = {}
    for arch, ours in LADDER.items():
        out.update({f"{arch}-l2-eps{e}": (f"{arch}_l2_eps{e}.ckpt", ours) for e in L2})
    for arch, ours in SINGLE.items():
        out.update({f"{arch}-l2-eps{e}": (f"{arch}_l2_eps{e}.ckpt", ours) for e in ("0", "3")})
    for arch in ("resnet18", "resnet50", "wide_resnet50_2"):
        out.update({f"{arch}-linf-eps{e.removesuffix('.0')}": (f"{arch}_linf_eps{e}.ckpt", arch) for e in LINF})
    return out


def check_robust(name: str) -> None:
    """Raise unless the family has the name; needs no torch.

    Raises:
        AttrsensError: suggests the nearest.
    """
    names = robust_names()
    if name not in names:
        raise unknown("robust model", name, names, "'attrsens list models' lists the family")


def robust_file(name: str, offline: bool) -> tuple[Path, str]:
    """The checkpoint of a robust model, and its architecture.

    Raises:
        AttrsensError: not to be had.
    """
    file, arch = robust_names()[name]
    return hub_file(f"model robust/{name}", REPOSITORY, [file], offline=offline), arch

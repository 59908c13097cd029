"""Architectures for weights from files, by name: ours, torchvision's, timm's, or a function of the user's."""

from __future__ import annotations

import importlib
import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from attrsens.errors import AttrsensError, unknown
from attrsens.images import Preprocess
from attrsens.models.names import torchvision_names
from attrsens.models.nets import Net, find_net, net_names

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("attrsens")


def check_arch(arch: str) -> None:
    """Raise unless --arch names an architecture; needs no torch.

    Raises:
        AttrsensError: suggests the nearest.
    """
    if arch.startswith("py:"):
        if not re.fullmatch(r"py:[\w.]+:\w+", arch):
            raise AttrsensError(f"architecture {arch!r}: write py:module:function")
    elif arch.startswith("timm/"):
        from attrsens.models.timm_nets import check_timm

        check_timm(arch.removeprefix("timm/"))
    elif arch not in net_names() and arch not in torchvision_names():
        raise unknown("architecture", arch, [*net_names(), *torchvision_names()], "'attrsens list models' lists them")


def find_architecture(arch: str) -> Net:
    """The architecture of --arch; imports torch.

    Raises:
        AttrsensError: the user's own code fails, or timm lacks the name.
    """
    if arch.startswith("py:"):
        from attrsens.models.identity import code_of

        module = _own_code(arch)
        return Net(lambda classes: module, Preprocess(), identity=f"{arch}\n{code_of(module)}")
    if arch.startswith("timm/"):
        from attrsens.models import timm_nets

        return timm_nets.net(arch.removeprefix("timm/"))
    if arch in net_names():
        return find_net(arch)
    from attrsens.models import torchvision_nets

    return torchvision_nets.net(arch)


def _own_code(arch: str) -> nn.Module:
    """Call the user's own function, and say so."""
    from torch import nn

    _, _, rest = arch.partition(":")
    module, _, function = rest.partition(":")
    log.warning("running your own code: %s() of module %s", function, module)
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        net = getattr(importlib.import_module(module), function)()
    except (Exception, SystemExit) as error:  # the user's code may do anything
        raise AttrsensError(f"architecture {arch}: {type(error).__name__}: {error}") from None
    if not isinstance(net, nn.Module):
        raise AttrsensError(f"architecture {arch}: returned {type(net).__name__}, not a torch.nn.Module")
    return net

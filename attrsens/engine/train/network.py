"""The network that a training starts from."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attrsens.engine.train.request import Request
from attrsens.errors import AttrsensError
from attrsens.images import Preprocess
from attrsens.models import zoo
from attrsens.models.architectures import check_arch, find_architecture
from attrsens.models.checkpoints import payload_hash
from attrsens.models.outputs import check_logits
from attrsens.models.surgery import core_of, first_output
from attrsens.training.data import Data
from attrsens.training.draws import drawing


@dataclass(frozen=True)
class Beginning:
    """A network to train.

    Attributes:
        preprocess: from a picture of the data set to its input.
        start: name and hash of the weights it starts from; None for random ones.
    """

    module: nn.Module
    architecture: str
    preprocess: Preprocess
    start: dict[str, Any] | None


def beginning(request: Request, data: Data, seen: Data, device: torch.device) -> Beginning:
    """The network of `--from`, else a new one; in channels-last order, in float32.

    Args:
        seen: the images that training sees, whose mean and standard deviation a new network is fed with.

    Raises:
        AttrsensError: it does not fit the pictures or the classes.
    """
    if request.start:
        found = _continued(request, request.start, data, device)
    else:
        found = _new(request, str(request.arch), data, seen)
    module = found.module.float().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x, _ = data.pixels(slice(0, 2), device)
    try:
        with torch.no_grad():
            check_logits(first_output(module.eval()(x)), len(x), found.architecture, None)
    except RuntimeError as error:
        side = data.images.shape[1]
        raise AttrsensError(f"architecture {found.architecture} takes no pictures of {side} px ({error})") from None
    _try_to_learn(module, x[: min(int(request.parameters["batch"]), len(seen))], found.architecture)
    return Beginning(module, found.architecture, found.preprocess, found.start)


def _try_to_learn(module: nn.Module, x: Tensor, arch: str) -> None:
    """Raise if it cannot see a batch of training: BatchNorm knows no spread of a single number.

    Raises:
        AttrsensError: says so.
    """
    tried = copy.deepcopy(module).train()
    try:
        with torch.no_grad(), drawing(0, "try", x.device):
            tried(x)
    except ValueError as error:
        what = (
            f"architecture {arch} cannot learn from {len(x)} picture{'s' * (len(x) > 1)} of {x.shape[2]} px at a time"
        )
        raise AttrsensError(f"{what} ({error}); try a larger --batch or --size") from None


def _new(request: Request, arch: str, data: Data, seen: Data) -> Beginning:
    with drawing(int(request.parameters["seed"]), "init", torch.device("cpu")):  # as its authors do, by our seed
        module = find_architecture(arch).build(len(data.classes))
    mean, std = seen.statistics()
    side = data.images.shape[1]
    return Beginning(module, arch, Preprocess(side, side, mean=mean, std=std), None)


def _continued(request: Request, start: str, data: Data, device: torch.device) -> Beginning:
    source = zoo.load(start, arch=request.arch, device=str(device), fold=False, offline=request.offline)
    side, steps = data.images.shape[1], source.preprocess
    if "+" in source.name and start != source.name.partition("+")[0] and len(zoo.split(start)[1]):
        raise AttrsensError(f"from {start}: a wrapped network is not trained; drop the wrapper")
    if (steps.crop or side) != side or steps.channels != 3 or source.class_count != len(data.classes):
        raise AttrsensError(
            f"from {start}: made for {source.class_count} classes at {steps.crop or side} px; the data set has "
            f"{len(data.classes)} at {side} px"
        )
    try:
        check_arch(source.architecture)
    except AttrsensError:
        raise AttrsensError(f"from {start}: its architecture has no name that a model card could give") from None
    module = copy.deepcopy(core_of(source.network)).requires_grad_(True)
    told = {"name": source.name, "sha256": payload_hash(module.state_dict())}
    return Beginning(module, source.architecture, steps, told)

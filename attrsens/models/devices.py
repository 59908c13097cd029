"""Devices and batch sizes as options; checking one needs no torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attrsens.errors import AttrsensError

if TYPE_CHECKING:
    import torch


def check_device(name: str) -> None:
    """Raise unless the name is that of a device, present or not.

    Raises:
        AttrsensError: lists what a device can be called.
    """
    if not re.fullmatch("auto|cpu|cuda(:[0-9]{1,4})?", name):
        raise AttrsensError(f"unknown device {name!r}; devices: auto, cpu, cuda, cuda:INDEX")


def check_batch(batch: int | str) -> None:
    """Raise unless it is "auto" or a number of images.

    Raises:
        AttrsensError: it is neither.
    """
    if batch != "auto" and (not re.fullmatch("[0-9]{1,9}", str(batch)) or int(batch) < 1):
        raise AttrsensError(f"batch must be auto or an integer of at least 1; got {batch!r}")


def pick_device(name: str) -> torch.device:
    """auto, cpu, cuda or cuda:INDEX as a device.

    Raises:
        AttrsensError: an unknown name, or no such GPU.
    """
    import torch

    check_device(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    index = name.partition(":")[2]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= count:
        raise AttrsensError(f"device {name}: this machine has {count or 'no'} CUDA devices; use --device cpu")
    return torch.device(name)

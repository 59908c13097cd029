"""Devices and batch sizes as options, and a CPU's memory; checking an option needs no torch."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from functools import cache
from typing import TYPE_CHECKING

from attrsens.errors import AttrsensError

if TYPE_CHECKING:
    import torch

MMAP_MAX, TRIM_THRESHOLD = -4, -1  # the numbers that mallopt knows them by
KEPT = 2**30  # bytes


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


@cache
def keep_memory(device: str) -> None:
    """On a CPU, have glibc keep up to 1 GiB of freed memory for the next pass, for the rest of the process.

    By itself it maps a block above 32 MB anew each time and then unmaps it, and the system clears all of its pages:
    lite0 took 1.5 times as long with batches of 8. The peak is the same. Left alone are other C libraries, and settings
    of the environment (`MALLOC_*`, `GLIBC_TUNABLES`).
    """
    set_up = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if device != "cpu" or sys.platform != "linux" or set_up:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, KEPT)

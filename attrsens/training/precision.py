"""The precision that trains fastest on this machine."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch


def pick_precision(asked: str, device: torch.device) -> str:
    """fp32 or bf16; "auto" is bf16 where the hardware multiplies it: AMX or AVX-512 BF16, GPUs since Ampere."""
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if cpu_has_bf16() else "fp32"


@cache
def cpu_has_bf16() -> bool:
    """Whether the processor says so; False where it cannot be asked."""
    if platform.system() != "Linux":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return bool({"amx_bf16", "avx512_bf16"} & set(flags))

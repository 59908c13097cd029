"""A training's state on disk: one safetensors file that is replaced as a whole, so that a kill leaves the last one."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attrsens.errors import AttrsensError, OutputError
from attrsens.models.checkpoints import payload_hash, printable

FORMAT = "attrsens-training-2"


def replace_file(path: Path, payload: bytes) -> None:
    """Write under a temporary name, sync, rename, sync the folder.

    Raises:
        OutputError: the disk is full or the folder cannot be written; what was there before stays.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise OutputError(f"{path} cannot be written ({error.strerror}); make room or choose another --out") from None


def save_state(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Replace the checkpoint; tensors are kept to the bit, and so are the numbers in `facts`."""
    from safetensors.torch import save

    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    told = json.dumps(facts)
    replace_file(path, save(plain, {"format": FORMAT, "facts": told, "sha256": _digest(plain, told)}))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """(tensors, facts) of a checkpoint, as they were saved; None where there is none.

    Raises:
        AttrsensError: the file is something else, or damaged.
    """
    from safetensors import safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            if told.get("format") != FORMAT:
                raise ValueError("of another format")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if told["sha256"] != _digest(tensors, told["facts"]):
            raise ValueError("damaged: its hash differs")
        facts: dict[str, Any] = json.loads(told["facts"])
        if not isinstance(facts["identity"], dict):
            raise ValueError("it does not say of what")
    except Exception as error:  # damage of any type
        raise no_checkpoint(path, error) from None
    return tensors, facts


def no_checkpoint(path: Path, why: Exception) -> AttrsensError:
    """The error for a file that no training can go on from."""
    what = printable(str(why)[:100])
    return AttrsensError(f"{path}: not a checkpoint of attrsens train ({what}); remove it or choose another --out")


def _digest(tensors: dict[str, Tensor], facts: str) -> str:
    return hashlib.sha256(f"{payload_hash(tensors)}\n{facts}".encode()).hexdigest()


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under longer names."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `prefixed`: those that have the prefix, without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their own memory, in the same order of it."""
    with torch.no_grad():
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}

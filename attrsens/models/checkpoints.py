"""Weights from untrusted files. No code from a checkpoint ever runs."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attrsens.errors import AttrsensError

State = OrderedDict[str, Tensor]
WRAPPERS = ("state_dict", "model", "net")


def sha256_file(path: str | Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state(path: str | Path) -> State:
    """The state dict in a checkpoint: safetensors, or what `torch.load(weights_only=True)` accepts.

    It may lie under `state_dict`, `model` or `net`, and its names may begin with `module.`.

    Raises:
        AttrsensError: says what the file is instead, or what it lacks.
    """
    path = Path(path)
    _recognise(path)
    try:
        if _is_safetensors(path):
            from safetensors.torch import load_file

            data: Any = load_file(path)
        else:
            data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage in an untrusted file, of any type
        first = str(error).strip().split("\n")[0][:160]
        if "weights_only" in str(error).lower() or "Unsupported" in first:
            first = "it holds Python objects besides tensors, which are not run; save its state_dict() as safetensors"
        raise AttrsensError(f"{path}: cannot be read as a checkpoint ({first})") from None
    state = strip_prefix(_unwrap(data, path), "module.")
    odd = [name for name, tensor in state.items() if not _ordinary(tensor)]
    if odd:
        raise AttrsensError(f"{path}: tensors that are not dense real numbers in memory: {_some(odd)}")
    for name, tensor in state.items():
        if tensor.is_floating_point():
            state[name] = tensor.float()
    bad = [name for name, t in state.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if bad:
        raise AttrsensError(f"{path}: weights that are not finite: {_some(bad)}")
    return state


def load_state(module: torch.nn.Module, state: State) -> None:
    """Load a state dict that `check_state` has passed; BatchNorm's counters may be missing."""
    if not hasattr(state, "_metadata"):  # safetensors does not keep it; some architectures want a version
        state._metadata = getattr(module.state_dict(), "_metadata", {})  # type: ignore[attr-defined]
    module.load_state_dict(state, strict=False)


def renamed(state: State, pattern: str, replacement: str) -> State:
    """The state dict with names rewritten where the pattern matches a whole name."""
    out: State = OrderedDict((re.sub(f"^{pattern}$", replacement, name), tensor) for name, tensor in state.items())
    if hasattr(state, "_metadata"):
        out._metadata = state._metadata  # type: ignore[attr-defined]
    return out


def strip_prefix(state: State, prefix: str) -> State:
    """The state dict without a prefix that every name has."""
    if not state or not all(name.startswith(prefix) for name in state):
        return state
    out: State = OrderedDict((name.removeprefix(prefix), tensor) for name, tensor in state.items())
    if hasattr(state, "_metadata"):
        versions = {key.removeprefix(prefix.rstrip(".")).lstrip("."): v for key, v in state._metadata.items()}
        out._metadata = versions  # type: ignore[attr-defined]
    return out


def check_state(module: torch.nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Raise unless names and shapes are exactly those of the module; the message names some of what differs."""
    want = module.state_dict()
    optional = {name for name in want if name.endswith("num_batches_tracked")}
    missing = [name for name in want if name not in state and name not in optional]
    extra = [name for name in state if name not in want]
    shapes = [n for n in want if n in state and state[n].shape != want[n].shape]
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing ({_some(missing)})")
    if extra:
        parts.append(f"{len(extra)} unexpected ({_some(extra)})")
    if shapes:
        first = shapes[0]
        parts.append(
            f"{len(shapes)} of another shape ({first}: {tuple(state[first].shape)} for {tuple(want[first].shape)})"
        )
    if parts:
        raise AttrsensError(f"{what}: weights do not fit the architecture: {'; '.join(parts)}")


def _recognise(path: Path) -> None:
    if not path.is_file():
        raise AttrsensError(f"{path}: not a regular file")
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise AttrsensError(f"{path}: the file is empty")
    if head.lstrip()[:1] == b"<":
        raise AttrsensError(f"{path}: a web page, not a checkpoint; download the file itself")
    if head.startswith(b"version https://git-lfs"):
        raise AttrsensError(f"{path}: a Git LFS pointer, not the weights; run 'git lfs pull'")
    if not head.startswith((b"PK", b"\x80")) and not _is_safetensors(path):
        raise AttrsensError(f"{path}: not a checkpoint (neither safetensors nor a file of torch.save)")
    if head.startswith(b"PK"):
        import zipfile

        try:
            names = zipfile.ZipFile(path).namelist()
        except zipfile.BadZipFile:
            raise AttrsensError(f"{path}: damaged or cut short") from None
        if any("constants.pkl" in name or name.startswith("models/") or "/models/" in name for name in names):
            raise AttrsensError(f"{path}: TorchScript or exported programs are not loaded; save a state_dict")


def _ordinary(tensor: Tensor) -> bool:
    """A dense tensor of real numbers on the CPU, as a trained network has them."""
    reals = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
    kinds = reals | {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_nested
    return plain and tensor.dtype in kinds


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    size = int.from_bytes(head[:8], "little")
    return len(head) == 9 and head[8:] == b"{" and size < path.stat().st_size


def _unwrap(data: Any, path: Path) -> State:
    for _ in range(3):
        if isinstance(data, Mapping) and data and all(isinstance(k, str) and isinstance(data[k], Tensor) for k in data):
            state: State = OrderedDict(data)
            if isinstance(getattr(data, "_metadata", None), Mapping):
                state._metadata = data._metadata  # type: ignore[attr-defined]
            return state
        inner = next((k for k in WRAPPERS if isinstance(data, Mapping) and isinstance(data.get(k), Mapping)), None)
        if inner is None:
            break
        data = data[inner]
    keys = _some([str(k) for k in data]) if isinstance(data, Mapping) else type(data).__name__
    raise AttrsensError(f"{path}: no state dict, neither at the top nor under {', '.join(WRAPPERS)}; it holds {keys}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")

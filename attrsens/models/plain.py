"""Whether a file of torch.save is as plain as a state dict needs it to be, so that torch's own reader may have it.

torch's reader runs no code either, but instructions can make it hash or print what unfolds without end, fill the
memory, or hand out tensors of memory that nobody wrote. So they are gone through once with tokens for the tensors.
"""

from __future__ import annotations

import io
import math
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

from attrsens.models.unpickle import SCALARS, Name, Unpickler, extent

SIZE = 4 * 2**20  # bytes of instructions; a state dict has a hundred or two for each tensor
REBUILD = {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"}


class NotPlain(Exception):
    """There is more in the pickle than tensors, lists, dicts, numbers and text."""


class Storage:
    """A storage that the pickle names, with its length in elements."""

    def __init__(self, key: str, length: int) -> None:
        self.key, self.length = key, length


class Tensor:
    """A tensor that the pickle rebuilds."""


class Scan(Unpickler):
    """The inert machine, which here stops at anything that is not plain, and makes no tensor."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.lengths: dict[str, int] = {}

    def persistent_load(self, pid: Any) -> Storage:
        key, length = pid[2], pid[4]
        if type(key) is not str or any(view is not None for view in pid[5:]):
            raise NotPlain
        self.lengths[key] = max(length, self.lengths.get(key, 0))
        return Storage(key, length)

    def find_class(self, module: str, name: str) -> Name:
        storage = module in ("torch", "torch.storage") and name.endswith("Storage")
        rebuild = module == "torch._utils" and name in REBUILD
        if not (storage or rebuild or (module, name) == ("collections", "OrderedDict")):
            raise NotPlain
        return Name(module, name)

    def build(self, made: Any, arguments: Any) -> Any:
        name = made.name if isinstance(made, Name) else ""
        if name == "OrderedDict" and arguments == ():
            return OrderedDict()
        if name == "_rebuild_parameter" and isinstance(arguments[0], Tensor) and len(arguments) == 3:
            return arguments[0]
        if name.startswith("_rebuild_tensor") and isinstance(arguments[0], Storage) and len(arguments) <= 6:
            storage, offset, size, stride = arguments[:4]
            if extent(offset, size, stride) <= storage.length and math.prod(size) <= storage.length:
                return Tensor()
        raise NotPlain

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], OrderedDict) or not isinstance(state, dict) or {*state} - {"_metadata"}:
            raise NotPlain

    def load_proto(self) -> None:
        if self.read(1) != b"\2":
            raise NotPlain

    def _put(self, pairs: list[Any]) -> None:
        if not all(isinstance(key, SCALARS) for key in pairs[::2]):
            raise NotPlain
        super()._put(pairs)

    def refuse(self) -> None:
        raise NotPlain

    dispatch: ClassVar[dict[int, Any]] = Unpickler.dispatch | {
        pickle.BUILD[0]: load_build, pickle.PROTO[0]: load_proto, pickle.BYTEARRAY8[0]: refuse,
        pickle.INST[0]: refuse, pickle.OBJ[0]: refuse, pickle.FRAME[0]: refuse,
    }  # fmt: skip


def is_plain(path: Path, kind: str) -> bool:
    """Whether a zip or pickle of torch.save holds nothing but plain data, and no more than fits its size."""
    try:
        return _plain_zip(path) if kind == "zip" else _plain_old(path)
    except Exception:  # also damage, which the reader behind tells
        return False


def _plain_zip(path: Path) -> bool:
    import torch

    reader = torch._C.PyTorchFileReader(os.fspath(path))  # the names and sizes that torch will see
    sizes = {name: reader.get_record_size(name) for name in reader.get_all_records()}
    if sizes["data.pkl"] > SIZE or sum(sizes.values()) > path.stat().st_size:
        return False
    Scan(io.BytesIO(reader.get_record("data.pkl"))).load()
    return True


def _plain_old(path: Path) -> bool:
    with path.open("rb") as file:
        head = io.BytesIO(file.read(SIZE))
    for _ in range(3):  # magic number, protocol version, facts on the machine
        Scan(head).load()
    scan = Scan(head)
    scan.load()
    keys = Scan(head).load()
    return sorted(keys) == sorted(scan.lengths) and sum(scan.lengths.values()) <= path.stat().st_size

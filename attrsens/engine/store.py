"""Finished results on disk: one safetensors file a cell, committed so that nothing half-written is ever read.

The files are the truth; there is no index and no lock. A file is written under a temporary name, synced, linked to
its final name, and the folder is synced. Readers check a hash of the payload and set a damaged file aside.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrsens.errors import AttrsensError
from attrsens.places import cache_folder, weights_folder
from attrsens.spec import canonical

log = logging.getLogger("attrsens")

FORMAT = "attrsens-cell-1"
SUFFIX, TEMPORARY = ".safetensors", ".tmp-"
DEFAULT_LIMIT = 20 * 10**9


@dataclass(frozen=True)
class Entry:
    """One stored cell: arrays by name, and plain JSON values."""

    arrays: dict[str, NDArray[Any]]
    data: dict[str, Any]


class Store:
    """Cells by key.

    Args:
        folder: created only when something is written.
        limit: bytes to keep; beyond it the oldest cells go, at the end of a run.

    Attributes:
        damaged: files that were found damaged and set aside.
        writable: no commit has failed yet.
    """

    def __init__(self, folder: Path | None = None, limit: int = DEFAULT_LIMIT) -> None:
        self.folder = (folder or cache_folder()) / "v1"
        self.limit = limit
        self.damaged = 0
        self.writable = self._readable = True
        self._wrote = False

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{SUFFIX}"

    def __contains__(self, key: str) -> bool:
        return self.path(key).exists()

    def holds(self, key: str) -> bool:
        """Whether the cell is there and sound; a damaged one is set aside, as `get` does."""
        return self.get(key) is not None

    def get(self, key: str) -> Entry | None:
        """The cell, or None when it is absent or damaged (then it is set aside and counted)."""
        path = self.path(key)
        try:
            entry = _read(path, key)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if self._readable:
                log.warning("cache: %s cannot be read (%s); cells are computed again", path, error.strerror)
            self._readable = False
            return None
        except Damaged as error:
            self.damaged += 1
            log.warning("cache: %s is damaged (%s); set aside, the cell is computed again", path, error)
            self._set_aside(path)
            return None
        return entry

    def put(self, key: str, arrays: dict[str, NDArray[Any]], data: dict[str, Any]) -> bool:
        """Commit a cell; returns once it is safe on disk. A store that cannot be written says so once, and returns
        False from then on: results are still delivered, only not kept."""
        if not self.writable:
            return False
        try:
            payload = _encode(key, arrays, data)
            try:
                _commit(self.path(key), payload)
            except FileNotFoundError:  # somebody cleared the store in between
                _commit(self.path(key), payload)
        except OSError as error:
            self.writable = False
            log.warning(
                "cache: %s cannot be written (%s); results are not kept; use --cache-dir DIR or --no-cache",
                self.folder,
                error.strerror,
            )
            return False
        self._wrote = True
        return True

    def keys(self) -> list[str]:
        """Every stored key, sorted."""
        return sorted(p.name.removesuffix(SUFFIX) for p in self._files())

    def size(self) -> tuple[int, int]:
        """(cells, bytes)."""
        sizes = [_size(p) for p in self._files()]
        return len(sizes), sum(sizes)

    def verify(self) -> tuple[int, int]:
        """Read every cell; damaged ones are set aside. Returns (sound, damaged)."""
        self._sweep()
        keys = self.keys()
        before = self.damaged
        sound = sum(self.get(key) is not None for key in keys)
        return sound, self.damaged - before

    def clear(self) -> tuple[int, int]:
        """Remove every cell, what was set aside, and the weights read from pickles; returns (cells, bytes) removed.

        Raises:
            AttrsensError: something could not be removed.
        """
        count, size = self.size()
        kept = weights_folder(self.folder.parent)
        weights = [*kept.glob(f"*{SUFFIX}"), *kept.glob(".tmp-*")]
        size += sum(_size(p) for p in weights)
        own = [*weights, *self._files(), *self.folder.glob("??/.tmp-*"), *self.folder.glob(f"damaged/*{SUFFIX}")]
        try:
            for path in own:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise AttrsensError(f"cache: {self.folder} cannot be cleared ({error.strerror})") from None
        for folder in (*self.folder.glob("*/"), self.folder, kept):
            with suppress(OSError):  # not empty: somebody else's files, or a run that goes on
                folder.rmdir()
        return count, size

    def trim(self) -> int:
        """Remove the oldest cells until the rest fits the limit; returns how many went. Does nothing unless this
        object has written."""
        if not self._wrote:
            return 0
        self._sweep()
        files = []
        for path in self._files():
            with suppress(OSError):
                status = path.stat()
                files.append((status.st_mtime_ns, path.name, status.st_size, path))
        total, gone = sum(f[2] for f in files), 0
        for _, _, size, path in sorted(files):
            if total <= self.limit:
                break
            with suppress(OSError):
                path.unlink()
                gone += 1
            total -= size
        return gone

    def _files(self) -> Iterator[Path]:
        return (p for p in self.folder.glob(f"??/*{SUFFIX}") if not p.name.startswith("."))

    def _set_aside(self, path: Path) -> None:
        target = self.folder / "damaged"
        with suppress(OSError):
            target.mkdir(exist_ok=True)
            path.replace(target / path.name)

    def _sweep(self) -> None:
        """Remove temporary files of processes of this machine that no longer run, and any that are a day old."""
        clean(self.folder.glob(f"??/{TEMPORARY}*"), TEMPORARY)


class Damaged(Exception):
    """A stored file is not what was written."""


def _encode(key: str, arrays: dict[str, NDArray[Any]], data: dict[str, Any]) -> bytes:
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
    text = canonical(data)
    header = {"format": FORMAT, "key": key, "data": text, "sha256": _payload_hash(key, arrays, text)}
    return save(arrays, metadata=header)


def _read(path: Path, key: str) -> Entry:
    from safetensors import SafetensorError, safe_open

    path.stat()  # a missing file is no damage
    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, ValueError, TypeError) as error:
        raise Damaged(str(error)[:100]) from None
    if header.get("format") != FORMAT or header.get("key") != key:
        raise Damaged("not a cell of this key")
    if header.get("sha256") != _payload_hash(key, arrays, header.get("data", "")):
        raise Damaged("hash differs")
    return Entry(arrays, json.loads(header["data"]))


def _payload_hash(key: str, arrays: dict[str, NDArray[Any]], text: str) -> str:
    digest = hashlib.sha256(f"{key}\n{text}\n".encode())
    for name in sorted(arrays):
        a = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {a.dtype.str} {a.shape}\n".encode())
        digest.update(a.tobytes())
    return digest.hexdigest()


def _commit(path: Path, payload: bytes) -> None:
    """Write, sync, link to the final name, sync the folder. An existing file stays: same key, same result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / temporary_name(TEMPORARY)
    try:
        with temporary.open("xb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            temporary.replace(path)
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    finally:
        with suppress(OSError):
            temporary.unlink()


def temporary_name(prefix: str) -> str:
    """A file name of this process's own."""
    return f"{prefix}{_host()}-{os.getpid()}-{uuid.uuid4().hex}"


def clean(paths: Iterable[Path], prefix: str) -> None:
    """Remove those of these temporary files whose process was of this machine and no longer runs, or that are a day
    old."""
    for path in paths:
        host, _, pid = path.name.removeprefix(prefix).rpartition("-")[0].rpartition("-")
        gone = host == _host() and pid.isdigit() and not _alive(int(pid))
        if gone or _age(path) > 86400:
            with suppress(OSError):
                path.unlink()


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _host() -> str:
    return socket.gethostname().replace("/", "_") or "host"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True

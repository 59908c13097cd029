"""Weights from untrusted files. No code from a checkpoint ever runs.

safetensors and numpy archives first, then `torch.load(weights_only=True)` for pickles that `plain.py` finds plain; any
other is read by `unpickle.py`, in a process of its own that knows tensors only, and what that finds is kept as
safetensors.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import uuid
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attrsens.errors import AttrsensError
from attrsens.models.plain import is_plain
from attrsens.models.unpickle import WRAPPERS, clean_versions, find_state

log = logging.getLogger("attrsens")

State = OrderedDict[str, Tensor]
HEADER = 100 * 2**20  # bytes of a safetensors header; the format's own limit
ARCHIVE = 8 * 2**30  # bytes of a numpy archive, unpacked
SMALL, RATIO = 64 * 2**20, 20  # bytes that any archive may unpack to, and by how much more than its own
SECONDS = 600  # that the tensor-only reader may take
KEPT = "attrsens-weights-2"


@dataclass
class Checkpoint:
    """The state dict of a file.

    Attributes:
        sha256: of the file's bytes.
        layout: how the weights lay in the file, in words.
    """

    state: State
    sha256: str
    layout: list[str] = field(default_factory=list)


def sha256_file(path: str | Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_checkpoint(path: str | Path, keep: Path | None = None) -> Checkpoint:
    """The state dict in a checkpoint, all tensors dense, finite and in memory; floating-point ones as float32.

    Args:
        keep: folder for what the tensor-only reader finds, so that it need not read the file again; None keeps nothing.

    Raises:
        AttrsensError: says what the file is instead, or what it lacks.
    """
    path = Path(path)
    kind = recognise(path)
    digest = sha256_file(path)
    try:
        if kind == "safetensors":
            state, layout = _read_safetensors(path), ["safetensors"]
        elif kind == "npz":
            state, layout = _read_npz(path), ["numpy archive"]
        else:
            state, layout = _read_pickle(path, kind, digest, keep)
    except AttrsensError:
        raise
    except Exception as error:  # damage in an untrusted file, of any type
        raise AttrsensError(f"{path}: cannot be read as a checkpoint ({_first(error)})") from None
    return Checkpoint(_checked(state, path), digest, layout)


def recognise(path: Path) -> str:
    """What a file is by its first bytes: safetensors, npz, zip (torch.save) or pickle (torch.save of old).

    Raises:
        AttrsensError: none of these; the message says what it is instead.
    """
    if not path.exists():
        raise AttrsensError(f"model: no file {path}")
    if not path.is_file():
        raise AttrsensError(f"{path}: not a regular file")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise AttrsensError(f"{path}: cannot be read ({error.strerror})") from None
    size = path.stat().st_size
    if not head:
        raise AttrsensError(f"{path}: the file is empty")
    if head.lstrip()[:1] == b"<":
        raise AttrsensError(f"{path}: a web page, not a checkpoint; download the file itself")
    if head.startswith(b"version https://git-lfs"):
        raise AttrsensError(f"{path}: a Git LFS pointer, not the weights; run 'git lfs pull'")
    if head[257:262] == b"ustar":
        raise AttrsensError(f"{path}: a tar archive, also torch's format of before 2018, is not loaded; save it anew")
    if head.startswith(b"PK"):
        return _recognise_zip(path, size)
    if head.startswith(b"\x80"):
        return "pickle"
    length = int.from_bytes(head[:8], "little")
    if len(head) > 8 and head[8:9] == b"{":
        if length > HEADER:
            raise AttrsensError(f"{path}: claims a safetensors header of {length / 1e6:,.0f} MB; 100 MB at most")
        if length + 8 <= size:
            return "safetensors"
        raise AttrsensError(f"{path}: safetensors that were cut short, in their header")
    raise AttrsensError(f"{path}: not a checkpoint (neither safetensors nor a file of torch.save)")


def _recognise_zip(path: Path, size: int) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception:  # zipfile raises what it happens to meet
        raise AttrsensError(f"{path}: damaged or cut short") from None
    names = [m.filename for m in members]
    if any("constants.pkl" in n or n.startswith(("models/", "code/")) or "/models/" in n for n in names):
        raise AttrsensError(f"{path}: TorchScript or exported programs are not loaded; save a state_dict")
    unpacked = sum(m.file_size for m in members)
    if members and all(n.endswith(".npy") for n in names):
        if unpacked > min(ARCHIVE, SMALL + RATIO * size):
            raise AttrsensError(f"{path}: would unpack to {unpacked / 1e9:,.1f} GB, which no weights of its size do")
        return "npz"
    if not any(n.endswith("data.pkl") for n in names):
        raise AttrsensError(f"{path}: a zip archive without weights; give the checkpoint itself")
    # torch stores its tensors as they are: what is larger than its file is a trap
    if any(m.compress_type != zipfile.ZIP_STORED for m in members) or unpacked > size:
        raise AttrsensError(f"{path}: a compressed archive, which torch.save does not write; unpack it first")
    return "zip"


def _read_safetensors(path: Path) -> State:
    from safetensors.torch import load_file

    return OrderedDict(load_file(path))


def _read_npz(path: Path) -> State:
    import numpy as np

    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    odd = [name for name, a in arrays.items() if a.dtype.kind not in "fiub"]
    if odd:
        raise AttrsensError(f"{path}: arrays that are not real numbers: {some(odd)}")
    return OrderedDict((name, torch.from_numpy(np.array(a, order="C"))) for name, a in arrays.items())


def _read_pickle(path: Path, kind: str, digest: str, keep: Path | None) -> tuple[State, list[str]]:
    form = "torch.save" if kind == "zip" else "torch.save, old format"
    kept = keep / f"{digest}.safetensors" if keep else None
    if kept and kept.exists():
        found = _kept(kept, digest)
        if found:
            return found
    if not is_plain(path, kind):
        return _read_inert(path, digest, kept)
    try:
        data: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # objects besides tensors, or damage; the reader below tells which
        return _read_inert(path, digest, kept)
    state, under, ended = find_state(data)
    if state is None:
        keys = some([str(k)[:80] for k in ended]) if isinstance(ended, Mapping) else type(ended).__name__
        raise AttrsensError(
            f"{path}: no state dict, neither at the top nor under {', '.join(WRAPPERS[:3])}, ...; it holds {keys}"
        )
    return _with_versions(state, getattr(ended, "_metadata", None)), [form, *_under(under)]


def _read_inert(path: Path, digest: str, kept: Path | None) -> tuple[State, list[str]]:
    """Read with `unpickle.py` in a child process without secrets, network keys, GPU or much memory."""
    size = path.stat().st_size
    with tempfile.TemporaryDirectory(prefix="attrsens-") as folder:
        out = Path(folder) / "weights.safetensors"
        reader = Path(__file__).with_name("unpickle.py")
        # the child finds torch where this process found it, and nothing else of its environment
        start = f"import sys, runpy; sys.path[:] = {[p for p in sys.path if p]!r}; " + (
            f"sys.argv = ['unpickle', {str(path.resolve())!r}, {str(out)!r}]; "
            f"runpy.run_path({str(reader)!r}, run_name='__main__')"
        )
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", start],
                cwd=folder,
                env={"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HOME": folder, "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=SECONDS,
                preexec_fn=_limits(size) if os.name == "posix" else None,
            )
            told: dict[str, Any] = json.loads(done.stdout.decode("utf-8", "replace").splitlines()[-1])
        except subprocess.TimeoutExpired:
            raise AttrsensError(f"{path}: reading it took more than {SECONDS} s; save its state_dict()") from None
        except (ValueError, IndexError):
            raise AttrsensError(f"{path}: cannot be read as a checkpoint (its reader stopped)") from None
        if "hostile" in told:
            what = printable(told["hostile"])
            raise AttrsensError(f"{path}: refused: {what}, which no checkpoint needs; nothing of it was run")
        if "error" in told:
            what = printable(told["error"])
            raise AttrsensError(
                f"{path}: cannot be read as a checkpoint ({what}); what is not a tensor is never run; save its "
                "state_dict() as safetensors"
            )
        read = _read_safetensors(out)
        state: State = OrderedDict((name, read[name]) for name in told["names"])  # in the order of the pickle
    layout = ["pickled objects, read as tensors only", *_under(told["under"])]
    versions = clean_versions(told["versions"])
    if kept:
        facts = {"layout": layout, "versions": versions, "names": list(state)}
        _keep(kept, state, {"source": digest, **{name: json.dumps(fact) for name, fact in facts.items()}})
    return _with_versions(state, versions), layout


def _limits(size: int) -> Any:
    """Bounds for the child: memory and output in proportion to the file, no core dump, little of anything else."""

    def apply() -> None:
        import resource

        bounds = {
            "RLIMIT_DATA": 2 * 2**30 + 4 * size,
            "RLIMIT_FSIZE": 64 * 2**20 + 2 * size,
            "RLIMIT_CPU": SECONDS,
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": 256,
        }
        for name, bound in bounds.items():
            limit = getattr(resource, name, None)
            if limit is not None:
                with suppress(OSError, ValueError):
                    _, hard = resource.getrlimit(limit)
                    top = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
                    resource.setrlimit(limit, (top, top))

    return apply


def _keep(path: Path, state: State, facts: dict[str, str]) -> None:
    """Write weights with a hash over them; a folder that cannot be written is no reason to fail."""
    from safetensors.torch import save_file

    temporary = path.parent / f".tmp-{os.getpid()}-{uuid.uuid4().hex}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(state), temporary, {"format": KEPT, "payload": payload_hash(state), **facts})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:  # safetensors has its own types for a full disk
        log.warning("cache: the weights read from a pickle cannot be kept (%s)", _first(error))
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _kept(path: Path, digest: str) -> tuple[State, list[str]] | None:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            state: State = OrderedDict((name, file.get_tensor(name)) for name in json.loads(facts["names"]))
        if (facts["format"], facts["source"], facts["payload"]) != (KEPT, digest, payload_hash(state)):
            raise ValueError("its hash differs")
        return _with_versions(state, clean_versions(json.loads(facts["versions"]))), list(json.loads(facts["layout"]))
    except Exception as error:  # a damaged file is read anew
        log.warning("cache: %s is damaged (%s); the checkpoint is read again", path, _first(error))
        with suppress(OSError):
            path.unlink()
        return None


def payload_hash(state: Mapping[str, Tensor]) -> str:
    """sha256 of names, kinds, shapes and bytes, whatever the file they lie in."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _with_versions(state: Mapping[str, Tensor], versions: Any) -> State:
    """The state dict, with the versions of modules that torch keeps beside it."""
    out: State = OrderedDict(state)
    cleaned = clean_versions(versions)
    if cleaned:
        out._metadata = cleaned  # type: ignore[attr-defined]
    return out


def _checked(state: State, path: Path) -> State:
    odd = [name for name, tensor in state.items() if not _ordinary(tensor)]
    if odd:
        raise AttrsensError(f"{path}: tensors that are not dense real numbers in memory: {some(odd)}")
    for name, tensor in state.items():
        state[name] = tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
    bad = [name for name, t in state.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if bad:
        raise AttrsensError(f"{path}: weights that are not finite: {some(bad)}")
    return state


def _ordinary(tensor: Tensor) -> bool:
    """A dense tensor of real numbers on the CPU, as a trained network has them."""
    reals = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
    kinds = reals | {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_nested
    return plain and tensor.dtype in kinds


def _under(keys: list[str]) -> list[str]:
    return [f"under {' / '.join(keys)}"] if keys else []


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return printable(lines[0][:160]) if lines else type(error).__name__


def some(names: list[str]) -> str:
    """A few of the names, which may be anything."""
    return ", ".join(printable(name[:80]) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def printable(text: str) -> str:
    """Text from a file, fit for one line on a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)

"""Files that mean harm: none runs code, none brings a traceback, and each is told apart in one line."""

from __future__ import annotations

import ast
import copyreg
import importlib
import io
import itertools
import json
import os
import pickle
import re
import runpy
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import dill
import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from attrsens.errors import AttrsensError
from attrsens.models import checkpoints, unpickle
from attrsens.models.checkpoints import read_checkpoint
from attrsens.models.nets import find_net
from attrsens.models.plain import is_plain

ARCH = "mnist-madry-tiny"
GB10 = 10**10


def weights() -> dict[str, torch.Tensor]:
    """The tensors of a small architecture of ours."""
    with torch.random.fork_rng(devices=[]):
        state = find_net(ARCH).build(10).state_dict()
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(tensor.shape, generator=generator) for name, tensor in state.items()}


FUNCTIONS = [torch._utils._rebuild_tensor, torch._utils._rebuild_tensor_v2, torch._utils._rebuild_parameter]
CLASSES = [OrderedDict, torch.FloatStorage, torch.UntypedStorage, torch.nn.Parameter, torch.nn.Module]


@pytest.fixture(autouse=True)
def _nothing_changes():
    """No test may leave a trace in what a pickle might change in the process that reads it."""
    functions = [(f.__code__, f.__defaults__, f.__kwdefaults__, dict(f.__dict__)) for f in FUNCTIONS]
    classes = [dict(vars(c)) for c in CLASSES]
    yield
    assert functions == [(f.__code__, f.__defaults__, f.__kwdefaults__, dict(f.__dict__)) for f in FUNCTIONS]
    for before, changed in zip(classes, CLASSES, strict=True):
        assert {name: vars(changed)[name] for name in before} == before
        assert {*vars(changed)} - {*before} <= {"__slotnames__"}  # copyreg's own notes


def read_here(command: list[str], **options) -> subprocess.CompletedProcess:
    """What the tensor-only reader's process would do, in this one, which saves seconds."""
    source, target = ast.literal_eval(re.search(r"sys\.argv = (\[.*?\]);", command[-1])[1])[1:]
    return subprocess.CompletedProcess(command, 0, json.dumps(unpickle.main(source, target)).encode(), b"")


@pytest.fixture
def here(monkeypatch):
    """The tensor-only reader runs in this process; returns the commands it was called with."""
    calls = []

    def run(command, **options):
        calls.append((command, options))
        return read_here(command, **options)

    monkeypatch.setattr(checkpoints.subprocess, "run", run)
    return calls


@pytest.fixture
def refused(run_cli, tmp_path):
    """The one line with which the command line refuses a file, without the file's name."""

    def call(path: Path | str) -> str:
        out = tmp_path / "out"
        with warnings.catch_warnings():
            warnings.simplefilter("always")  # those that a user would see are lines too many
            code, stdout, stderr = run_cli("explain", "sample:coffee", "--model", path, "--arch", ARCH, "--out", out)
        assert (code, stdout) == (2, ""), stderr
        assert stderr.endswith("\n")
        line = stderr[:-1]
        assert line.isprintable(), line
        assert len(line) < 1000
        assert line.startswith("attrsens: ")
        assert "Traceback" not in line
        assert not out.exists()
        return line.removeprefix("attrsens: ").replace(str(path), "FILE")

    return call


def archive(instructions: bytes, records: dict[str, bytes] | None = None, **options) -> bytes:
    """A file as torch.save writes it, with these instructions and storages."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **options) as file:
        for name, data in {"data.pkl": instructions, "byteorder": b"little", "version": b"3\n"}.items():
            file.writestr(f"x/{name}", data)
        for key, data in (records or {}).items():
            file.writestr(f"x/data/{key}", data)
    return out.getvalue()


def old(instructions: bytes, keys: list[str] | None = None, storages: bytes = b"") -> bytes:
    """A file as torch.save wrote it before 1.6, with these instructions."""
    head = [torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {"little_endian": True}]
    return b"".join(pickle.dumps(o, 2) for o in head) + instructions + pickle.dumps(keys or [], 2) + storages


class Call:
    """Unpickling it calls a function."""

    def __init__(self, function, *arguments, state=None) -> None:
        self.function, self.arguments, self.state = function, arguments, state

    def __reduce__(self):
        return (self.function, self.arguments, *([self.state] if self.state is not None else []))


class Stored:
    """A storage that a pickle names, with what it claims of it."""

    def __init__(self, *claim) -> None:
        self.claim = claim


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        return obj.claim if isinstance(obj, Stored) else None


def dumps(data: object) -> bytes:
    out = io.BytesIO()
    _Pickler(out, 2).dump(data)
    return out.getvalue()


def tensor(size, stride, offset=0, numel=4, view=()) -> Call:
    storage = Stored("storage", torch.FloatStorage, "0", "cpu", numel, *view)
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())


# -- code ------------------------------------------------------------------------------------------------------------

EVIL = """
from pathlib import Path

class Runs:
    def __new__(cls, *_, **__):
        Path({marker!r}).touch()
        return object.__new__(cls)

class Sets:
    def __setstate__(self, state):
        Path({marker!r}).touch()

class Adds(dict):
    def __setitem__(self, key, value):
        Path({marker!r}).touch()

def run(*_):
    Path({marker!r}).touch()

def victim(a=1):
    return a
"""


@pytest.fixture
def marker(tmp_path, monkeypatch) -> Path:
    """What appears once code of a file has run; the module that does it is there to be imported."""
    path = tmp_path / "it-ran"
    (tmp_path / "evil_module_of_a_test.py").write_text(EVIL.format(marker=str(path)))
    (tmp_path / "evil_import_of_a_test.py").write_text(f"open({str(path)!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    yield path
    for name in ("evil_module_of_a_test", "evil_import_of_a_test"):
        sys.modules.pop(name, None)


class ReduceEx:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce_ex__(self, protocol):
        return os.system, (self.command,)


def opcodes(marker: Path, text: bytes) -> bytes:
    return text.replace(b"TOUCH", f"touch {marker}".encode()).replace(b"EVIL", b"evil_module_of_a_test")


CALLS = {
    "os.system": (lambda m: dumps(Call(os.system, f"touch {m}")), "calls posix.system"),
    "eval": (lambda m: dumps(Call(eval, f"open({str(m)!r}, 'w').close()")), "calls builtins.eval"),
    "exec": (lambda m: dumps(Call(exec, f"open({str(m)!r}, 'w').close()")), "calls builtins.exec"),
    "open": (lambda m: dumps(Call(open, str(m), "w")), "calls io.open"),
    "Popen": (lambda m: dumps(Call(subprocess.Popen, ["touch", str(m)])), "calls subprocess.Popen"),
    "import": (
        lambda m: dumps(Call(importlib.import_module, "evil_import_of_a_test")),
        "calls importlib.import_module",
    ),
    "__import__": (lambda m: dumps(Call(__import__, "evil_import_of_a_test")), "calls builtins.__import__"),
    "runpy": (
        lambda m: dumps(Call(runpy.run_path, str(m.parent / "evil_import_of_a_test.py"))),
        "calls runpy.run_path",
    ),
    "a pickle in a pickle": (
        lambda m: dumps(Call(pickle.loads, dumps(Call(os.system, f"touch {m}")))),
        "calls pickle.loads",
    ),
    "__reduce_ex__": (lambda m: pickle.dumps(ReduceEx(f"touch {m}"), 2), "calls posix.system"),
    "protocol 0": (lambda m: pickle.dumps(ReduceEx(f"touch {m}"), 0), "calls posix.system"),
    "INST": (lambda m: opcodes(m, b"(S'TOUCH'\nios\nsystem\n."), "calls os.system"),
    "OBJ": (lambda m: opcodes(m, b"(cos\nsystem\nS'TOUCH'\no."), "calls os.system"),
    "STACK_GLOBAL": (lambda m: pickle.dumps(ReduceEx(f"touch {m}"), 4), "calls posix.system"),
    "EXT": (lambda m: opcodes(m, b"\x80\x02\x82\xf0S'TOUCH'\n\x85R."), "no state dict in it; it holds object"),
    "NEWOBJ": (lambda m: opcodes(m, b"\x80\x02cEVIL\nRuns\n)\x81."), "no state dict in it; it holds Runs"),
    "NEWOBJ_EX": (lambda m: opcodes(m, b"\x80\x04cEVIL\nRuns\n)}\x92."), "no state dict in it; it holds Runs"),
    "__setstate__": (lambda m: opcodes(m, b"\x80\x02cEVIL\nSets\n)\x81}b."), "no state dict in it; it holds Sets"),
    "__setitem__": (lambda m: opcodes(m, b"\x80\x02cEVIL\nAdds\n)\x81K\x01K\x02s."), "no state dict in it; it holds 1"),
    "a function": (lambda m: opcodes(m, b"\x80\x02cEVIL\nrun\n)R."), "no state dict in it; it holds run"),
    "an import": (lambda m: b"\x80\x02cevil_import_of_a_test\nNone\n.", "no state dict in it; it holds None"),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("wrap", [archive, old], ids=["zip", "old"])
def test_code_in_a_pickle_does_not_run(name, wrap, marker, here, refused, tmp_path):
    make, message = CALLS[name]
    instructions = make(marker)
    path = tmp_path / "evil.pt"
    path.write_bytes(wrap(instructions))
    copyreg.add_extension("posix", "system", 0xF0)
    try:
        assert message in refused(path)
        assert not marker.exists()
        assert "evil_module_of_a_test" not in sys.modules
        if wrap is archive:  # the trap works
            _spring(instructions)
            assert marker.exists()
    finally:
        copyreg.remove_extension("posix", "system", 0xF0)


def _spring(instructions: bytes, reader=pickle) -> None:
    try:
        made = reader.loads(instructions)
    except AttributeError:  # the module is imported before its attribute is looked for
        return
    if isinstance(made, subprocess.Popen):
        made.wait()
    if isinstance(made, io.IOBase):
        made.close()


def test_code_beside_whole_weights_does_not_run_in_the_real_reader(marker, refused, tmp_path):
    path = tmp_path / "evil.pt"
    torch.save({"state_dict": weights(), "trick": Call(os.system, f"touch {marker}")}, path)
    assert refused(path) == (
        "FILE: refused: its pickle calls posix.system, which no checkpoint needs; nothing of it was run"
    )
    assert not marker.exists()


def test_a_module_beside_the_file_is_not_imported_by_the_real_reader(marker, refused, tmp_path):
    path = tmp_path / "evil.pt"
    path.write_bytes(archive(opcodes(marker, b"\x80\x02cEVIL\nRuns\n)\x81.")))
    assert "no state dict in it; it holds Runs" in refused(path)
    assert not marker.exists()


def test_a_call_of_torch_load_is_refused(here, refused, tmp_path):
    inner = tmp_path / "inner.pt"
    torch.save(weights(), inner)
    path = tmp_path / "outer.pt"
    path.write_bytes(archive(dumps(Call(torch.load, str(inner)))))
    assert "calls torch.serialization.load" in refused(path)


def carried(marker: Path, called: bool) -> bytes:
    """dill's own way to take a function along, called or not."""
    code = f"open({str(marker)!r}, 'w').close()"
    function = eval(f"lambda: {code.replace('open', '__import__(chr(105) + chr(111)).open')}", {"__name__": "gone"})
    return dill.dumps({"f": Call(function) if called else function}, protocol=2, byref=False)


def test_a_function_that_dill_carries_along_is_not_called(marker, here, refused, tmp_path):
    path = tmp_path / "dill.pt"
    instructions = carried(marker, called=True)
    path.write_bytes(old(instructions))
    assert "calls a function that it carries along" in refused(path)
    assert not marker.exists()
    _spring(instructions, dill)
    assert marker.exists()


def test_a_function_that_dill_only_carries_does_not_matter(marker, here, tmp_path):
    function = dill.loads(carried(marker, called=False))["f"]
    torch.save({"state_dict": weights(), "f": function}, tmp_path / "dill.pt", pickle_module=dill)
    read = read_checkpoint(tmp_path / "dill.pt")
    assert all(torch.equal(read.state[name], value) for name, value in weights().items())
    assert len(here) == 1
    assert not marker.exists()
    function()
    assert marker.exists()


# -- changes to what is there ----------------------------------------------------------------------------------------

TARGETS = {
    "torch._utils _rebuild_tensor_v2": "changes torch._utils._rebuild_tensor_v2",
    "torch._utils _rebuild_tensor": "changes torch._utils._rebuild_tensor",
    "collections OrderedDict": "changes collections.OrderedDict",
    "torch.nn.parameter Parameter": "changes torch.nn.parameter.Parameter",
    "torch.nn.modules.module Module": "changes torch.nn.modules.module.Module",
    "torch FloatStorage": "changes torch's StorageType",
    "torch.storage UntypedStorage": "it holds type",
    "torch _C": "changes torch._C",
}


def slot_state(module: str, name: str) -> bytes:
    """Instructions that set an attribute of a global."""
    attribute = b"(N}X\x0c\x00\x00\x00__defaults__K\x07\x85st"
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + attribute + b"b."


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("wrap", [archive, old], ids=["zip", "old"])
def test_nothing_that_is_there_is_changed(target, wrap, here, refused, tmp_path):
    path = tmp_path / "slots.pt"
    path.write_bytes(wrap(slot_state(*target.split())))
    assert TARGETS[target] in refused(path)


def test_the_trick_with_slots_works_on_a_function(marker):
    victim = pickle.loads(slot_state("evil_module_of_a_test", "victim"))
    assert victim() == 7


class Shadowed:
    """A state dict whose methods are hidden behind attributes."""

    def __reduce__(self):
        attributes = dict.fromkeys(("items", "keys", "get", "__iter__", "update", "copy"), "trap")
        attributes["_metadata"] = {"": {"version": 3}, "a": 5, "b": {"version": "x"}, "c": {}}
        return OrderedDict, (), attributes, None, iter(weights().items())


def test_attributes_on_a_dictionary_hide_nothing(here, tmp_path):
    torch.save({"state_dict": Shadowed()}, tmp_path / "x.pt")
    naive = torch.load(tmp_path / "x.pt", weights_only=True)["state_dict"]
    assert naive.items == "trap"
    read = read_checkpoint(tmp_path / "x.pt")
    assert list(read.state) == list(weights())
    assert read.state._metadata == {"": {"version": 3}}
    assert "items" not in vars(read.state)


@pytest.mark.parametrize("odd", [[1], "x", {1: 2}, {"": {"version": []}}, {"": OrderedDict()}, 7])
def test_odd_versions_of_modules_are_dropped(odd, here, tmp_path):
    state = OrderedDict(weights())
    state._metadata = odd
    torch.save(state, tmp_path / "x.pt")
    read = read_checkpoint(tmp_path / "x.pt")
    assert list(read.state) == list(weights())
    assert not hasattr(read.state, "_metadata")


def test_attributes_on_a_tensor_hide_nothing(here, tmp_path):
    """torch's own reader sets them; a method that is a number would stop whoever calls it."""
    state = {
        name: Call(torch._utils._rebuild_parameter_with_state, value, False, OrderedDict(), {"detach": 1, "float": 2})
        for name, value in weights().items()
    }
    torch.save(state, tmp_path / "x.pt")
    naive = torch.load(tmp_path / "x.pt", weights_only=True)
    assert all(value.detach == 1 for value in naive.values())
    read = read_checkpoint(tmp_path / "x.pt")
    assert all(torch.equal(read.state[name], value) for name, value in weights().items())
    assert all(not vars(value) for value in read.state.values())


# -- memory and time -------------------------------------------------------------------------------------------------

LEVELS = 10**5
UNFOLDS = b")q\x00" + (b"(" + b"h\x00" * 10 + b"tq\x00") * 30  # a tuple of 10^30 tuples
LISTS = b"]q\x00" + (b"](" + b"h\x00" * 10 + b"eq\x00") * 30
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"

DEEP = {
    "lists in lists": b"\x80\x02" + b"]" * LEVELS + b"a" * (LEVELS - 1) + b".",
    "tuples in tuples": b"\x80\x02)" + b"\x85" * LEVELS + b".",
    "a deep tuple as a key": b"\x80\x02})" + b"\x85" * LEVELS + b"K\x01s.",
    "a key that unfolds": b"\x80\x02}" + UNFOLDS + b"K\x01s.",
    "keys that unfold": b"\x80\x02}(" + UNFOLDS + b"K\x01u.",
    "a key of an old dict": b"\x80\x02(" + UNFOLDS + b"K\x01d.",
    "a key of an OrderedDict": b"\x80\x02ccollections\nOrderedDict\n]" + UNFOLDS + b"K\x01\x86a\x85R.",
    "a value that unfolds": b"\x80\x02}X\x01\x00\x00\x00x" + LISTS + b"s.",
    "a set that unfolds": b"\x80\x02\x8f(" + UNFOLDS + b"\x90.",
    "a frozen set": b"\x80\x04(" + UNFOLDS + b"\x91.",
    "a set that is called": b"\x80\x02cbuiltins\nset\n](" + UNFOLDS + b"e\x85R.",
    "a function that unfolds": b"\x80\x02" + LISTS + b")R.",
    "a class that unfolds": b"\x80\x02" + LISTS + b")\x81.",
    "a storage that unfolds": b"\x80\x02" + STORAGE + LISTS + b"X\x03\x00\x00\x00cpuK\x04tQ.",
    "a length that unfolds": b"\x80\x02" + STORAGE + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + UNFOLDS + b"tQ.",
    "a place that unfolds": b"\x80\x02" + STORAGE + b"X\x01\x00\x00\x000" + UNFOLDS + b"K\x04tQ.",
    "a number of many digits": b"\x80\x02}\x8b\x00\x00\x01\x00" + b"\x7f" * 65536 + b"Ns.",
    "a text for a storage": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "a number for a storage": b"\x80\x02K\x00Q.",
    "a line for a storage": b"\x80\x02P0\n.",
    "an empty storage": b"\x80\x02)Q.",
}


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("wrap", [archive, old], ids=["zip", "old"])
def test_what_unfolds_without_end_is_not_unfolded(name, wrap, here, refused, tmp_path):
    path = tmp_path / "deep.pt"
    path.write_bytes(wrap(DEEP[name], {"0": bytes(16)}) if wrap is archive else wrap(DEEP[name]))
    assert re.match("FILE: (no state dict|cannot be read as a checkpoint)", refused(path))


def test_modules_that_hold_one_another_are_not_followed_without_end(here, refused, tmp_path):
    module = nn.Linear(1, 1)
    for _ in range(60):
        module = nn.Sequential(module, module)
    torch.save(module, tmp_path / "x.pt")
    assert "modules within modules without end" in refused(tmp_path / "x.pt")


def test_a_module_that_holds_itself_is_not_followed_without_end(here, refused, tmp_path):
    module = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    module._modules["2"] = module._modules["3"] = module
    torch.save(module, tmp_path / "x.pt")
    assert "modules within modules without end" in refused(tmp_path / "x.pt")


BEYOND = {
    "size": ((5,), (1,)),
    "much": ((GB10,), (1,)),
    "stride": ((2, 2), (3, 1)),
    "overflow": ((2**62, 2**62), (1, 1)),
    "negative size": ((-1,), (1,)),
    "negative stride": ((2,), (-1,)),
    "negative offset": ((1,), (1,), -1),
    "offset": ((1,), (1,), 4),
    "far offset": ((1,), (1,), 2**62),
    "no numbers": (("a",), (1,)),
    "truths": ((True,), (1,)),
    "lengths": ((2,), (1, 1)),
    "a list": ([[2]], [[1]]),
}


OLD_STORAGE = (4).to_bytes(8, "little") + np.arange(4, dtype="f4").tobytes()


@pytest.mark.parametrize("name", BEYOND)
def test_a_tensor_beyond_its_storage_is_refused(name, here, refused, tmp_path):
    path = tmp_path / "beyond.pt"
    path.write_bytes(archive(dumps({"w": tensor(*BEYOND[name])}), {"0": bytes(16)}))
    assert re.search("a tensor (larger than its storage|of impossible shape)", refused(path))
    path.write_bytes(old(dumps({"w": tensor(*BEYOND[name], view=(None,))}), ["0"], OLD_STORAGE))
    assert re.search("a tensor (larger than its storage|of impossible shape)", refused(path))


def test_torch_alone_enlarges_a_storage(tmp_path):
    (tmp_path / "x.pt").write_bytes(old(dumps({"w": tensor((10**6,), (1,), view=(None,))})))
    assert torch.load(tmp_path / "x.pt", weights_only=True)["w"].shape == (10**6,)


def test_a_tensor_within_its_storage_is_not_refused(tmp_path):
    (tmp_path / "x.pt").write_bytes(archive(dumps({"w": tensor((2, 2), (1, 2))}), {"0": np.arange(4.0, dtype="f4")}))
    assert read_checkpoint(tmp_path / "x.pt").state["w"].tolist() == [[0, 2], [1, 3]]
    assert is_plain(tmp_path / "x.pt", "zip")


@pytest.mark.parametrize("numel", [2, 5, GB10, -1, 2**63])
def test_a_storage_of_another_length_than_it_claims_is_refused(numel, here, refused, tmp_path):
    path = tmp_path / "claims.pt"
    path.write_bytes(archive(dumps({"w": tensor((1,), (1,), numel=numel)}), {"0": bytes(16)}))
    assert "cannot be read as a checkpoint" in refused(path)


def test_storages_that_an_old_file_names_but_lacks_are_not_taken_from_memory(here, tmp_path):
    """Their memory would be handed out as it is; torch alone does."""
    instructions = dumps({"w": tensor((64,), (1,), numel=64, view=(None,))})
    (tmp_path / "x.pt").write_bytes(old(instructions))
    assert torch.load(tmp_path / "x.pt", weights_only=True)["w"].shape == (64,)
    with pytest.raises(AttrsensError, match="storages that the file lacks"):
        read_checkpoint(tmp_path / "x.pt")


def expanded(path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(GB10)}, path)


def claimed_text(path: Path) -> None:
    path.write_bytes(old(b"\x80\x04\x8e" + GB10.to_bytes(8, "little") + b"abc"))


def claimed_text_at_once(path: Path) -> None:
    path.write_bytes(b"\x80\x04\x8e" + GB10.to_bytes(8, "little") + b"abc")


def claimed_storage(path: Path) -> None:
    instructions = dumps({"w": tensor((GB10,), (1,), numel=GB10)})
    path.write_bytes(archive(instructions, {"0": bytes(16)}))


REAL = {
    "a repeated number": (expanded, "not enough memory|can't allocate"),
    "an old storage": (
        lambda p: p.write_bytes(old(dumps({"w": tensor((GB10,), (1,), numel=GB10, view=(None,))}), ["0"])),
        "not enough memory|can't allocate",
    ),
    "bytes": (
        lambda p: p.write_bytes(archive(b"\x80\x05\x96" + GB10.to_bytes(8, "little") + b".")),
        "more memory than",
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_the_real_reader_gives_no_more_memory_than_a_file_can_need(name, refused, tmp_path):
    make, message = REAL[name]
    make(tmp_path / "x.pt")
    assert re.search(message, refused(tmp_path / "x.pt"))


@pytest.mark.parametrize("make", [claimed_text, claimed_text_at_once, claimed_storage], ids=lambda f: f.__name__)
def test_lengths_that_are_only_claimed_are_noticed(make, here, refused, tmp_path):
    make(tmp_path / "x.pt")
    assert "cannot be read as a checkpoint" in refused(tmp_path / "x.pt")


@pytest.mark.parametrize("size", [0, 2 * GB10])
def test_a_large_header_is_not_read(size, refused, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(GB10.to_bytes(8, "little") + b'{"a":' + b" " * 100)
    if size:
        os.truncate(path, size)  # sparse: it takes no space
    assert refused(path) == "FILE: claims a safetensors header of 10,000 MB; 100 MB at most"


def test_archives_that_unpack_to_more_than_they_are_are_refused(here, refused, tmp_path):
    zeros = bytes(100 * 2**20)
    (tmp_path / "x.pt").write_bytes(archive(dumps({}), {"0": zeros}, compression=zipfile.ZIP_DEFLATED))
    assert "a compressed archive, which torch.save does not write" in refused(tmp_path / "x.pt")
    np.savez_compressed(tmp_path / "x.npz", conv1=np.frombuffer(zeros, "f4"))
    assert (tmp_path / "x.npz").stat().st_size < 2**20
    assert "would unpack to 0.1 GB" in refused(tmp_path / "x.npz")


def test_an_archive_whose_directory_lies_about_lengths_is_refused(here, refused, tmp_path):
    data = bytearray(archive(dumps({}), {"0": bytes(16)}))
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (0xF0000000).to_bytes(4, "little")
    (tmp_path / "x.pt").write_bytes(data)
    assert "a compressed archive, which torch.save does not write" in refused(tmp_path / "x.pt")


def test_prefixes_without_end_are_not_taken_off_one_by_one(refused, tmp_path):
    deep = "model." * 10**5
    torch.save({f"{deep}{name}": value for name, value in weights().items()}, tmp_path / "x.pt")
    assert "weights do not fit the architecture" in refused(tmp_path / "x.pt")


# -- the child -------------------------------------------------------------------------------------------------------


def test_the_reader_has_no_secrets_and_little_of_anything(here, monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET_OF_A_TEST", "hush")
    torch.save({"state_dict": weights(), "args": np.float64(1)}, tmp_path / "x.pt")
    read_checkpoint(tmp_path / "x.pt")
    [(command, options)] = here
    assert command[:3] == [sys.executable, "-I", "-c"]
    assert "hush" not in repr(command)
    assert set(options["env"]) == {"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HOME", "LC_ALL"}
    assert options["env"]["CUDA_VISIBLE_DEVICES"] == ""
    assert options["stdin"] == subprocess.DEVNULL
    assert Path(options["cwd"]) != Path.cwd()
    assert not Path(options["cwd"]).exists()
    assert options["timeout"] == checkpoints.SECONDS


def test_the_limits_of_the_reader_hold_in_its_process(tmp_path):
    told = "import json, resource as r; print(json.dumps([r.getrlimit(getattr(r, 'RLIMIT_' + n)) for n in {names}]))"
    names = ["DATA", "FSIZE", "CPU", "CORE", "NOFILE"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", told.format(names=names)],
        capture_output=True,
        preexec_fn=checkpoints._limits(1000),
        check=True,
    )
    most = [2 * 2**30 + 4000, 64 * 2**20 + 2000, checkpoints.SECONDS, 0, 256]
    assert all(hard <= top for (_, hard), top in zip(json.loads(done.stdout), most, strict=True))


@pytest.mark.parametrize("output", [b"", b"nonsense", b"3", b"[]", b"null", b'{"under": 3}', b"{}"])
def test_a_reader_that_dies_or_babbles_is_one_line(output, refused, monkeypatch, tmp_path):
    dead = subprocess.CompletedProcess([], -9, output, b"Traceback")
    monkeypatch.setattr(checkpoints.subprocess, "run", lambda *_, **__: dead)
    torch.save({"state_dict": weights(), "args": np.float64(1)}, tmp_path / "x.pt")
    assert "cannot be read as a checkpoint" in refused(tmp_path / "x.pt")


def test_a_reader_that_takes_too_long_is_one_line(refused, monkeypatch, tmp_path):
    def late(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(checkpoints.subprocess, "run", late)
    torch.save({"state_dict": weights(), "args": np.float64(1)}, tmp_path / "x.pt")
    assert "reading it took more than 600 s" in refused(tmp_path / "x.pt")


# -- other things than checkpoints -----------------------------------------------------------------------------------


def tar(path: Path, marker: Path, form: int = tarfile.USTAR_FORMAT, first: str = "sys_info") -> bytes:
    """A file as torch.save wrote it in 2016, with a payload; returns the payload."""
    payload = dumps(Call(os.system, f"touch {marker}"))
    with tarfile.open(path, "w", format=form, errors="surrogateescape", encoding="utf-8") as file:
        for name in (first, "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(payload)
            file.addfile(member, io.BytesIO(payload))
    return payload


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_tar_of_torchs_first_years_is_refused(form, marker, refused, tmp_path):
    payload = tar(tmp_path / "x.pth.tar", marker, form)
    assert "FILE: a tar archive" in refused(tmp_path / "x.pth.tar")
    assert not marker.exists()
    _spring(payload)
    assert marker.exists()


def test_a_tar_in_disguise_is_refused(marker, here, refused, tmp_path):
    """Without the magic of tar, and with a name that begins as a pickle does."""
    path = tmp_path / "x.pt"
    tar(path, marker, first="\udc80x")
    data = bytearray(path.read_bytes())
    data[257:265] = bytes(8)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    assert path.read_bytes().startswith(b"\x80")
    assert tarfile.is_tarfile(path)
    assert "TorchScript or a tar archive in disguise" in refused(path)
    assert not marker.exists()


def test_torchscript_that_python_does_not_see_is_refused_by_the_reader(tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "x.pt"))
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was run"))
    assert "in disguise" in unpickle.main(str(tmp_path / "x.pt"), str(tmp_path / "out"))["error"]


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> list[Path]:
    """What torch.jit and torch.export write."""
    folder = tmp_path_factory.mktemp("programs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Tiny()).save(str(folder / "script.pt"))
        torch.jit.trace(Tiny(), torch.zeros(1, 2)).save(str(folder / "trace.pt"))
        torch.export.save(torch.export.export(Tiny(), (torch.zeros(1, 2),)), folder / "program.pt2")
    (folder / "program.pt").write_bytes((folder / "program.pt2").read_bytes())
    return sorted(folder.iterdir())


def test_programs_are_refused(programs, refused):
    assert [path.name for path in programs] == ["program.pt", "program.pt2", "script.pt", "trace.pt"]
    for path in programs:
        assert refused(path) == "FILE: TorchScript or exported programs are not loaded; save a state_dict"


def sparse(path: Path) -> None:
    torch.save({**weights(), "0.weight": torch.eye(3).to_sparse()}, path)


def quantised(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({**weights(), "0.weight": torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.quint8)}, path)


def changed(name: str, value: torch.Tensor | None, write=torch.save):
    def make(path: Path) -> None:
        state = weights()
        if value is None:
            del state[name]
        else:
            state[name] = value
        write(state, path)

    return make


def objects_in_numpy(path: Path) -> None:
    np.savez(path, conv1=np.array([Call(os.system, f"touch {path.parent / 'it-ran'}")], object))


def halves(path: Path) -> None:
    torch.save({k: (v * 1e9).half() for k, v in weights().items()}, path)


def cut(make, part: float):
    def cut_short(path: Path) -> None:
        make(path)
        os.truncate(path, int(path.stat().st_size * part))

    return cut_short


nan, inf = torch.full((4,), float("nan")), torch.full((4,), -float("inf"))
NAMES = "a\nb\x1b[31m\r\u2028\x00"

# what it is -> (how it is made, how it is told)
KINDS = {
    "page.pt": (lambda p: p.write_bytes(b"<!DOCTYPE html><html>Sign in</html>"), "a web page, not a checkpoint"),
    "pointer.pt": (lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid"), "a Git LFS pointer"),
    "empty.pt": (lambda p: p.touch(), "the file is empty"),
    "words.pt": (lambda p: p.write_bytes(b"just some words" * 99), "not a checkpoint (neither safetensors nor"),
    "folder.pt": (Path.mkdir, "not a regular file"),
    "zip.pt": (lambda p: zipfile.ZipFile(p, "w").close(), "a zip archive without weights"),
    "cut.pt": (cut(lambda p: torch.save(weights(), p), 0.5), "damaged or cut short"),
    "cut.safetensors": (cut(lambda p: save_file(weights(), p), 0.5), "cannot be read as a checkpoint (Error while de"),
    "header.safetensors": (cut(lambda p: save_file(weights(), p), 0.001), "safetensors that were cut short, in their"),
    "objects.npz": (objects_in_numpy, "cannot be read as a checkpoint (Object arrays cannot be loaded"),
    "complex.npz": (lambda p: np.savez(p, w=np.zeros(3, complex)), "arrays that are not real numbers: w"),
    "nan.pt": (changed("0.bias", nan), "weights that are not finite: 0.bias"),
    "missing.pt": (changed("0.bias", None), "architecture: 1 missing (0.bias)"),
    "extra.pt": (changed("9.bias", torch.zeros(1)), "architecture: 1 unexpected (9.bias)"),
    "shape.pt": (changed("0.bias", torch.zeros(5)), "architecture: 1 of another shape (0.bias: (5,) for (4,))"),
    "kind.pt": (changed("0.bias", torch.zeros(4).int()), "1 of another kind (0.bias: torch.int32 for torch.float32)"),
    "complex.pt": (changed("0.bias", torch.zeros(4) * 1j), "tensors that are not dense real numbers in memory: 0.bias"),
    "sparse.pt": (sparse, "no state dict in it; it holds 0.weight, 0.bias"),
    "names.pt": (changed(NAMES, torch.zeros(1)), "1 unexpected (a?b?[31m???)"),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_told_by_its_own_line(name, here, refused, tmp_path):
    make, message = KINDS[name]
    make(tmp_path / name)
    assert message in refused(tmp_path / name)
    assert not (tmp_path / "it-ran").exists()


def test_the_kinds_are_told_apart(here, refused, tmp_path):
    lines = {}
    for name, (make, _) in KINDS.items():
        make(tmp_path / name)
        lines[name] = re.sub(r"\(.*", "", refused(tmp_path / name)) + re.sub(r".*\(", "", refused(tmp_path / name))
    assert len(set(lines.values())) == len(lines), sorted(lines.values())


MORE = {
    "infinite.pt": (changed("0.bias", inf), "not finite"),
    "infinite.safetensors": (changed("0.bias", inf, save_file), "not finite"),
    "nan16.pt": (changed("0.bias", nan.half()), "not finite"),
    "bfloat.safetensors": (changed("0.bias", nan.bfloat16(), save_file), "not finite"),
    "overflowed.pt": (halves, "not finite"),
    "missing.safetensors": (changed("0.bias", None, save_file), "1 missing"),
    "bool.safetensors": (changed("0.bias", torch.zeros(4).bool(), save_file), "of another kind"),
    "float8.safetensors": (changed("0.bias", torch.zeros(4).to(torch.float8_e5m2), save_file), "not dense real"),
    "complex.safetensors": (changed("0.bias", torch.zeros(4) * 1j, save_file), "not dense real"),
    "quantised.pt": (quantised, "no state dict"),
    "empty-tensor.pt": (changed("0.bias", torch.zeros(0)), "another shape"),
    "last.pt": (changed("7.bias", torch.zeros(0)), "another shape"),
    "scalar.pt": (changed("7.bias", torch.zeros(())), "another shape"),
    "long.pt": (changed("x" * 10**6, torch.zeros(1)), "1 unexpected (xxxx"),
    "nameless.pt": (changed("", torch.zeros(1)), "1 unexpected ()"),
    "surrogates.pt": (changed("\ud800", torch.zeros(1)), "1 unexpected (?)"),
    "names.safetensors": (changed(NAMES, torch.zeros(1), save_file), "1 unexpected (a?b?[31m???)"),
    "keys.pt": (lambda p: torch.save({NAMES: 1}, p), "it holds a?b?[31m???"),
    "argument.pt": (lambda p: torch.save({NAMES: 1, "x": np.float64(1)}, p), "it holds a?b?[31m???, x"),
    "globals.pt": (lambda p: p.write_bytes(archive(b"\x80\x02cos.\x1b[31m\nx\n)R.")), "calls os.?[31m.x"),
    "unicode.npz": (lambda p: np.savez(p, w=np.array(["a"])), "not real numbers"),
    "structured.npz": (lambda p: np.savez(p, w=np.zeros(2, [("a", "f4")])), "not real numbers"),
    "endian.npz": (lambda p: np.savez(p, w=np.zeros(2, ">f4")), "byte order"),
    "long-double.npz": (lambda p: np.savez(p, w=np.zeros(2, np.longdouble)), "cannot be read"),
    "meta.pt": (lambda p: torch.save({"w": torch.zeros(2, device="meta")}, p), "no state dict"),
    "nested.pt": (lambda p: torch.save({"model": {"model": {"model": {"model": {"model": 1}}}}}, p), "no state dict"),
    "normaliser.pt": (changed("normalizer.new_mean", torch.zeros(0)), "unexpected (normalizer.new_mean)"),
}


@pytest.mark.parametrize("name", MORE)
def test_odd_tensors_and_names_are_one_line(name, here, refused, tmp_path):
    make, message = MORE[name]
    make(tmp_path / name)
    assert message in refused(tmp_path / name)


@pytest.mark.parametrize("sizes", [(0, 0), (3, 1), (10**6, 10**6), (2, 2)])
def test_a_normaliser_of_odd_size_is_refused(sizes, refused, tmp_path):
    mean, std = (torch.ones(n) for n in sizes)
    torch.save({**weights(), "normalizer.new_mean": mean, "normalizer.new_std": std}, tmp_path / "x.pt")
    assert "FILE: its normaliser has mean" in refused(tmp_path / "x.pt")


@pytest.mark.parametrize("std", [0.0, -1.0, 1e-40])
def test_a_normaliser_that_divides_by_nothing_is_refused(std, refused, tmp_path):
    extra = {"normalizer.new_mean": torch.zeros(1), "normalizer.new_std": torch.full((1,), std)}
    torch.save({**weights(), **extra}, tmp_path / "x.pt")
    assert "FILE: its normaliser has mean (0.0,) and std" in refused(tmp_path / "x.pt")


def test_pipes_devices_and_links_are_refused_without_being_read(refused, tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "link.pt").symlink_to(tmp_path / "pipe.pt")
    (tmp_path / "zero.pt").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe.pt", tmp_path / "link.pt", tmp_path / "zero.pt", "/dev/zero"):
        assert refused(path) == "FILE: not a regular file"
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    assert refused(tmp_path / "loop.pt") == "model: no file FILE"


def test_a_file_that_may_not_be_read_is_refused(refused, tmp_path, monkeypatch):
    path = tmp_path / "mine.pt"
    torch.save(weights(), path)
    true = Path.open

    def deny(self, *args, **options):
        if self == path:  # for root, no mode of the file would
            raise PermissionError(13, "Permission denied", str(path))
        return true(self, *args, **options)

    monkeypatch.setattr(Path, "open", deny)
    assert refused(path) == "FILE: cannot be read (Permission denied)"


# -- damage ----------------------------------------------------------------------------------------------------------

SMALL = {"a.weight": torch.arange(64.0).reshape(8, 8), "a.bias": torch.ones(8), "n": torch.tensor(3)}


def in_old_format() -> bytes:
    out = io.BytesIO()
    torch.save(SMALL, out, _use_new_zipfile_serialization=False)
    return out.getvalue()


def in_zip() -> bytes:
    out = io.BytesIO()
    torch.save(SMALL, out)
    return out.getvalue()


def in_dill() -> bytes:
    out = io.BytesIO()
    torch.save({"model": SMALL, "args": Tiny, "f": lambda: 3}, out, pickle_module=dill)
    return out.getvalue()


def in_numpy() -> bytes:
    out = io.BytesIO()
    np.savez(out, **{name: value.numpy() for name, value in SMALL.items()})
    return out.getvalue()


def in_packed_numpy() -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **{name: value.numpy() for name, value in SMALL.items()})
    return out.getvalue()


FORMATS = {
    "safetensors": lambda: save(SMALL),
    "zip": in_zip,
    "old": in_old_format,
    "dill": in_dill,
    "npz": in_numpy,
    "packed npz": in_packed_numpy,
}


@pytest.mark.parametrize("form", FORMATS)
def test_a_whole_file_loads(form, here, tmp_path):
    (tmp_path / "x.pt").write_bytes(FORMATS[form]())
    read = read_checkpoint(tmp_path / "x.pt")
    assert {name: value.tolist() for name, value in read.state.items()} == {k: v.tolist() for k, v in SMALL.items()}
    assert len(here) == (form == "dill")


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_ends_early_is_refused_wherever_it_ends(form, here, tmp_path):
    data, path = FORMATS[form](), tmp_path / "x.pt"
    ends = {*np.linspace(0, len(data) - 1, 36).astype(int).tolist(), 1, 2, 8, 9, len(data) - 2}
    for end in sorted(ends):
        path.write_bytes(data[:end])
        with pytest.raises(AttrsensError, match=r"x\.pt: ") as caught:
            read_checkpoint(path)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_with_changed_bytes_loads_or_is_refused(form, here, tmp_path):
    data, path = FORMATS[form](), tmp_path / "x.pt"
    rng = np.random.default_rng(11)
    for _ in range(60):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[at] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with suppress(AttrsensError):  # and no other
            state = read_checkpoint(path).state
            assert all(bool(torch.isfinite(value).all()) for value in state.values())


def test_every_instruction_may_be_any_other(here, tmp_path):
    """Each byte of a pickle's beginning replaced by each instruction: the machine stops or goes on, and no more."""
    instructions = zipfile.ZipFile(io.BytesIO(in_dill())).read("archive/data.pkl")
    codes = [getattr(pickle, name)[0] for name in pickle.__all__ if name.isupper() and name not in ("HIGHEST_PROTOCOL",)
             and isinstance(getattr(pickle, name), bytes) and len(getattr(pickle, name)) == 1]  # fmt: skip
    codes = [code for code in codes if code != pickle.BYTEARRAY8[0]]  # asks for memory: tried above, within limits
    outcomes = set()
    for at, code in itertools.product(range(2, len(instructions), 29), codes[::2]):
        damaged = bytearray(instructions)
        damaged[at] = code
        machine = unpickle.Unpickler(io.BytesIO(damaged))
        machine.persistent_load = lambda pid: None
        try:
            machine.load()
            outcomes.add("loads")
        except Exception as error:
            outcomes.add(type(error).__name__)
    assert "loads" in outcomes
    assert len(outcomes) > 3

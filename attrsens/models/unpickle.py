"""Tensors from a pickle of any kind, none of whose code runs. Meant for a process of its own, which is thrown away.

    python unpickle.py CHECKPOINT OUT.safetensors

Every name in the pickle becomes an inert token, so there is nothing that its instructions could call, change or build
but dicts, lists, numbers, text and dense tensors. The state dict that is found is written as safetensors; what was
found where is written to stdout as JSON. This file imports nothing of attrsens: its process knows only torch.
"""

from __future__ import annotations

import _compat_pickle
import json
import pickle
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

WRAPPERS = ("state_dict", "model", "net", "model_state_dict", "model_state", "weights")
DEPTH = 200  # of modules within modules
MODULES = 20_000  # that a pickled network may have
SCALARS = (str, bytes, int, float, type(None))  # what may be a key: hashing tuples of tuples can take for ever


def find_state(data: Any) -> tuple[dict[str, Any] | None, list[str], Any]:
    """(state dict, the keys it lay under, where the search ended); without one, None instead of the state dict.

    The state dict is the mapping from names to tensors at the top, or under one of `WRAPPERS`, or that of a module.
    """
    import torch

    path: list[str] = []
    for _ in range(4):
        if isinstance(data, Object):
            known, data = data, data.state_dict() or data.parts
            if not data:
                return None, path, known
            path.append(f"a pickled {known.name}")
        if not isinstance(data, Mapping):
            break
        items = dict(dict.items(data)) if isinstance(data, dict) else dict(data)
        if items and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in items.items()):
            return items, path, data
        inner = next((k for k in WRAPPERS if isinstance(items.get(k), (Mapping, Object))), None)
        if inner is None:
            break
        path.append(inner)
        data = items[inner]
    return None, path, data


class Name:
    """A global that the pickle names. It stands for nothing."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Object:
    """What the pickle would have built of a class or function that is not known here: its name and its parts."""

    __slots__ = ("name", "parts", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: Any = None
        self.parts: dict[Any, Any] = {}

    def state_dict(self, prefix: str = "", depth: int = 0, left: Iterator[int] | None = None) -> dict[str, Any] | None:
        """The tensors of a pickled `torch.nn.Module` by name, as its own state_dict() would name them."""
        facts = self.state[0] if isinstance(self.state, tuple) and self.state else self.state
        if not isinstance(facts, dict) or "_modules" not in facts:
            return None
        left = left or iter(range(MODULES))  # counted through them all: they may hold one another
        if depth > DEPTH or next(left, None) is None:
            raise pickle.UnpicklingError("modules within modules without end")
        hidden = facts.get("_non_persistent_buffers_set")
        hidden = hidden if isinstance(hidden, set) else ()
        out: dict[str, Any] = {}
        for kind in ("_parameters", "_buffers"):
            held = facts.get(kind)
            for key, value in dict.items(held) if isinstance(held, dict) else ():
                if value is not None and not (kind == "_buffers" and key in hidden):
                    out[f"{prefix}{key}"] = value
        for key, child in dict.items(facts["_modules"]) if isinstance(facts["_modules"], dict) else ():
            inner = child.state_dict(f"{prefix}{key}.", depth + 1, left) if isinstance(child, Object) else None
            out |= inner or {}
        return out


def extent(offset: Any, size: Any, stride: Any) -> int:
    """How many elements of its storage a tensor needs, from the first; raises where that is not a shape."""
    if any(type(n) is not int or n < 0 for n in (offset, *size, *stride)) or len(size) != len(stride):
        raise pickle.UnpicklingError("a tensor of impossible shape")
    return 0 if 0 in size else offset + 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))


# The only things that are built: (module, name) -> function of checked arguments.
def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Any:
    import torch

    if not isinstance(storage, torch.storage.TypedStorage):
        raise pickle.UnpicklingError("a tensor without a storage")
    if extent(offset, size, stride) > storage._size():  # type: ignore[no-untyped-call]  # set_ would enlarge it
        raise pickle.UnpicklingError("a tensor larger than its storage")
    return torch._utils._rebuild_tensor(storage, offset, tuple(size), tuple(stride))  # type: ignore[no-untyped-call]


def _mapping(pairs: Any = (), *_: Any) -> Any:
    pairs = dict.items(pairs) if isinstance(pairs, dict) else pairs
    return OrderedDict((key, value) for key, value in pairs if isinstance(key, SCALARS))


def _set(items: Iterable[Any] = (), *_: Any) -> Any:
    return {item for item in items if isinstance(item, SCALARS)}


BUILDERS: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
    ("torch.nn.parameter", "Parameter"): lambda data, *_: data,
    ("torch._tensor", "_rebuild_from_type_v2"): lambda rebuild, _, arguments, *__: build(rebuild, arguments),
    ("collections", "OrderedDict"): _mapping,
    ("collections", "defaultdict"): lambda *_: {},
    ("builtins", "dict"): _mapping,
    ("builtins", "set"): _set,
    ("builtins", "tuple"): lambda *a: tuple(*a[:1]),
    ("dill._dill", "_load_type"): lambda name, *_: Name("builtins", name) if isinstance(name, str) else None,
    ("torch", "Size"): lambda *a: tuple(*a[:1]),
}


# What a pickle calls only to do harm: a checkpoint that does is refused, though nothing here would run it.
HARMFUL_MODULES = set(
    "os posix nt subprocess pty socket shutil runpy ctypes code codeop webbrowser commands popen2 importlib pip "
    "asyncio multiprocessing signal sys platform tempfile urllib http requests ssl pdb bdb timeit cProfile profile "
    "trace doctest venv ensurepip zipimport pkgutil pickle _pickle cloudpickle marshal".split()
)
HARMFUL_BUILTINS = set("eval exec execfile compile open file __import__ breakpoint input exit quit".split())
HARMFUL = {("torch", "load"), ("torch.serialization", "load"), ("torch.hub", "load"), ("torch.jit", "load")}


class Hostile(Exception):
    """The pickle does what no checkpoint needs to do."""


def build(made: Any, arguments: Any) -> Any:
    """What a call in the pickle gives: a tensor or container that is known here, else an inert `Object`.

    Raises Hostile where it calls what only harms, or a function that it carries along."""
    arguments = arguments if isinstance(arguments, tuple) else ()
    if isinstance(made, Object) and made.name == "_create_function":
        raise Hostile("its pickle calls a function that it carries along")
    if not isinstance(made, Name):
        return Object("object")
    builtin = made.module in ("builtins", "io", "_io") and made.name in HARMFUL_BUILTINS
    if builtin or made.module.split(".")[0] in HARMFUL_MODULES or (made.module, made.name) in HARMFUL:
        raise Hostile(f"its pickle calls {made.module}.{made.name}")
    builder = BUILDERS.get((made.module, made.name))
    return builder(*arguments) if builder else Object(made.name)


_Machine: Any = pickle._Unpickler  # the one in Python: its instructions can be replaced


class Unpickler(_Machine):  # type: ignore[misc]
    """The pickle machine without the instructions that call, import or change anything."""

    storages: ClassVar[set[Any]] = set()  # those that were named

    def find_class(self, module: str, name: str) -> Any:
        if name == "UntypedStorage":  # torch's own reader asks whether it is this very class
            import torch

            return torch.UntypedStorage
        new = _compat_pickle.IMPORT_MAPPING.get(module, module)  # Python 2's names
        return Name(*_compat_pickle.NAME_MAPPING.get((module, name), (new, name)))

    def get_extension(self, code: int) -> None:
        self.append(Object("extension"))

    def build(self, made: Any, arguments: Any) -> Any:
        return build(made, arguments)

    def load_binpersid(self) -> None:
        pid = self.stack.pop()
        if isinstance(pid, tuple) and pid[:1] == ("module",):  # old files keep a class's source beside it
            self.append(pid[1])
            return
        plain = isinstance(pid, tuple) and len(pid) >= 5 and all(isinstance(p, SCALARS) for p in (pid[0], *pid[2:5]))
        if not plain or type(pid[4]) is not int or pid[4] < 0:
            raise pickle.UnpicklingError("a storage that torch.save would not name so")
        self.storages.add(pid[2])
        self.append(self.persistent_load(pid))

    def load_reduce(self) -> None:
        arguments, made = self.stack.pop(), self.stack.pop()
        # copyreg's way to make an object of a class: the class is the first argument
        if isinstance(made, Name) and made.name in ("_reconstructor", "__newobj__") and arguments:
            made, arguments = arguments[0], arguments[1:] if made.name == "__newobj__" else ()
        self.append(self.build(made, arguments))

    def load_newobj(self) -> None:
        arguments, made = self.stack.pop(), self.stack.pop()
        self.append(self.build(made, arguments))

    def load_newobj_ex(self) -> None:
        self.stack.pop()
        self.load_newobj()

    def load_inst(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        self.append(self.build(self.find_class(module, name), tuple(self.pop_mark())))

    def load_obj(self) -> None:
        made, *arguments = self.pop_mark()
        self.append(self.build(made, tuple(arguments)))

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Object):
            target.state = state
        elif isinstance(target, OrderedDict) and isinstance(state, dict):
            versions = state.get("_metadata")
            if isinstance(versions, dict):
                target._metadata = versions  # type: ignore[attr-defined]
        elif isinstance(target, Name):
            raise Hostile(f"its pickle changes {target.module}.{target.name}")
        elif type(target).__module__.startswith("torch") and not hasattr(target, "storage"):
            raise Hostile(f"its pickle changes torch's {type(target).__name__}")

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key, value])

    def load_setitems(self) -> None:
        self._put(self.pop_mark())

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def load_additems(self) -> None:
        items, target = self.pop_mark(), self.stack[-1]
        if isinstance(target, set):
            target.update(_set(items))

    def load_frozenset(self) -> None:
        self.append(_set(self.pop_mark()))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._put(items)

    def _put(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        into = target.parts if isinstance(target, Object) else target
        if isinstance(into, dict):
            for key, value in zip(pairs[::2], pairs[1::2], strict=False):
                if isinstance(key, SCALARS):
                    dict.__setitem__(into, key, value)

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    dispatch: ClassVar[dict[int, Any]] = dict(_Machine.dispatch)
    for _code, _method in {
        pickle.REDUCE: load_reduce, pickle.NEWOBJ: load_newobj, pickle.NEWOBJ_EX: load_newobj_ex,
        pickle.INST: load_inst, pickle.OBJ: load_obj, pickle.BUILD: load_build, pickle.SETITEM: load_setitem,
        pickle.SETITEMS: load_setitems, pickle.APPEND: load_append, pickle.APPENDS: load_appends,
        pickle.ADDITEMS: load_additems, pickle.FROZENSET: load_frozenset, pickle.DICT: load_dict,
        pickle.BINPERSID: load_binpersid,
    }.items():  # fmt: skip
        dispatch[_code[0]] = _method


def read(path: str) -> Any:
    """What a file of torch.save holds, read by `Unpickler`."""
    import torch

    archive = torch._C.PyTorchFileReader(path).get_all_records() if zipfile.is_zipfile(path) else []
    if "constants.pkl" in archive or (
        not archive and tarfile.is_tarfile(path)
    ):  # torch.load would hand it to readers of its own
        raise pickle.UnpicklingError("TorchScript or a tar archive in disguise")
    Unpickler.storages.clear()

    def load(file: Any, **options: Any) -> Any:
        found = Unpickler(file, **options).load()
        if Unpickler.storages - _set(found if isinstance(found, list) else ()):  # what follows is the list of them
            raise pickle.UnpicklingError("storages that the file lacks")  # torch hands out memory as it is
        return found

    module: Any = types.SimpleNamespace(Unpickler=Unpickler, load=load, __name__="inert")
    return torch.load(path, map_location="cpu", pickle_module=module, weights_only=False)


def main(source: str, target: str) -> dict[str, Any]:
    """Write the state dict of `source` to `target`; what was found where, or why not, ready to be written as JSON."""
    try:
        return _convert(source, target)
    except Hostile as error:
        return {"hostile": str(error)[:200]}
    except MemoryError:
        return {"error": "it asks for more memory than a checkpoint of its size can need"}
    except Exception as error:  # whatever an untrusted file can cause
        return {"error": f"{type(error).__name__}: {str(error).lstrip().partition(chr(10))[0][:160]}"}


def _convert(source: str, target: str) -> dict[str, Any]:
    import torch
    from safetensors.torch import save_file

    state, under, ended = find_state(read(source))
    if state is None:
        keys = [str(k)[:80] for k in ended][:4] if isinstance(ended, Mapping) else []
        held = ", ".join(keys) or getattr(ended, "name", type(ended).__name__)
        return {"error": f"no state dict in it; it holds {held}"}
    plain = {}
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            return {"error": f"{name[:80]} is not a dense tensor of real numbers"}
        plain[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
    save_file(plain, target)
    return {"under": under, "names": list(plain), "versions": clean_versions(getattr(ended, "_metadata", None))}


def clean_versions(versions: Any) -> dict[str, dict[str, int]]:
    """Module versions as torch keeps them beside a state dict; anything else in there is dropped."""
    if not isinstance(versions, dict):
        return {}
    facts = {k: dict.get(v, "version") for k, v in dict.items(versions) if isinstance(k, str) and isinstance(v, dict)}
    return {k: {"version": v} for k, v in facts.items() if type(v) is int}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:3])))

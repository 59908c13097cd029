"""From a state dict as somebody saved it to the one that an architecture takes: wrappers off, normaliser out."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from attrsens.errors import AttrsensError
from attrsens.models.checkpoints import State, some

log = logging.getLogger("attrsens")

PREFIXES = ("module.", "model.", "net.", "network.")
LEVELS = 4  # of prefixes
NORMALISERS = ("normalizer", "normalize")


@dataclass
class Settled:
    """A state dict without what was wrapped around the network.

    Attributes:
        mean, std: of a normaliser that the file carries; None where it carries none.
        layout: what was taken off, in words.
    """

    state: State
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: list[str] = field(default_factory=list)


def settle(state: State, wanted: Collection[str], what: str) -> Settled:
    """Take off what training wrapped around a network: `module.`, an attacker with a copy of the network, a
    normaliser, and `model.` up to `LEVELS` times until names agree with those that are wanted.

    Checkpoints of MadryLab's robustness and of robust-models-transfer have all of these (methods 6).

    Raises:
        AttrsensError: a normaliser without a usable mean and std.
    """
    if state.keys() == set(wanted):  # also a network that has a module of such a name itself
        return Settled(state)
    out = Settled(strip_prefix(state, "module."))
    if out.state is not state:
        out.layout.append("prefix module.")
    _drop_attacker(out, what)
    _take_normaliser(out, what)
    for _ in range(LEVELS):
        if any(name in wanted for name in out.state):
            break
        prefix = next((p for p in PREFIXES if out.state and all(name.startswith(p) for name in out.state)), None)
        if prefix is None:
            break
        out.state = strip_prefix(out.state, prefix)
        out.layout.append(f"prefix {prefix}")
    return out


def _drop_attacker(out: Settled, what: str) -> None:
    copies = [name for name in out.state if name.startswith("attacker.")]
    if not copies:
        return
    twins = [(name, name.removeprefix("attacker.")) for name in copies]
    if any(twin in out.state and not torch.equal(out.state[name], out.state[twin]) for name, twin in twins):
        log.warning("%s: the attacker's copy of the network differs from the network; the network is used", what)
    out.state = _without(out.state, copies)
    out.layout.append("attacker's copy dropped")


def _take_normaliser(out: Settled, what: str) -> None:
    for module in NORMALISERS:
        for mean, std in ((f"{module}.new_mean", f"{module}.new_std"), (f"{module}.mean", f"{module}.std")):
            if mean not in out.state or std not in out.state:
                continue
            shapes = [tuple(out.state[name].shape) for name in (mean, std)]
            if any(out.state[name].numel() not in (1, 3) for name in (mean, std)):
                raise AttrsensError(f"{what}: its normaliser has mean and std of shapes {shapes[0]} and {shapes[1]}")
            values = [tuple(round(float(v), 7) for v in out.state[name].flatten()) for name in (mean, std)]
            if len(values[0]) != len(values[1]) or min(values[1]) <= 0:
                raise AttrsensError(f"{what}: its normaliser has mean {values[0]} and std {values[1]}")
            out.mean, out.std = values
            out.state = _without(out.state, [mean, std])
            out.layout.append("normaliser inside, used as mean and std")
            return


def strip_prefix(state: State, prefix: str) -> State:
    """The state dict without a prefix that every name has."""
    if not state or not all(name.startswith(prefix) for name in state):
        return state
    out: State = OrderedDict((name.removeprefix(prefix), tensor) for name, tensor in state.items())
    if hasattr(state, "_metadata"):
        versions = {key.removeprefix(prefix.rstrip(".")).lstrip("."): v for key, v in state._metadata.items()}
        out._metadata = versions  # type: ignore[attr-defined]
    return out


def renamed(state: State, pattern: str, replacement: str) -> State:
    """The state dict with names rewritten where the pattern matches a whole name."""
    out = _like(state, [(re.sub(f"^{pattern}$", replacement, name), tensor) for name, tensor in state.items()])
    return out if len(out) == len(state) else state  # two would have one name: then neither is what is wanted


def without(state: State, pattern: str) -> State:
    """The state dict without the names that the pattern matches from their beginning."""
    return _without(state, [name for name in state if re.match(pattern, name)])


def _without(state: State, names: Collection[str]) -> State:
    gone = set(names)
    return _like(state, [(name, tensor) for name, tensor in state.items() if name not in gone])


def _like(state: State, items: list[tuple[str, Tensor]]) -> State:
    out: State = OrderedDict(items)
    if hasattr(state, "_metadata"):
        out._metadata = state._metadata  # type: ignore[attr-defined]
    return out


def check_state(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Raise unless names and shapes are exactly those of the module; the message names some of what differs."""
    want = module.state_dict()
    optional = {name for name in want if name.endswith("num_batches_tracked")}
    missing = [name for name in want if name not in state and name not in optional]
    extra = [name for name in state if name not in want]
    shapes = [n for n in want if n in state and state[n].shape != want[n].shape]
    kinds = [n for n in want if n in state and state[n].is_floating_point() != want[n].is_floating_point()]
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing ({some(missing)})")
    if extra:
        parts.append(f"{len(extra)} unexpected ({some(extra)})")
    if shapes:
        first = shapes[0]
        parts.append(
            f"{len(shapes)} of another shape ({first}: {tuple(state[first].shape)} for {tuple(want[first].shape)})"
        )
    if kinds:
        parts.append(f"{len(kinds)} of another kind ({kinds[0]}: {state[kinds[0]].dtype} for {want[kinds[0]].dtype})")
    if parts:
        raise AttrsensError(f"{what}: weights do not fit the architecture: {'; '.join(parts)}")


def load_state(module: nn.Module, state: State) -> None:
    """Load a state dict that `check_state` has passed; BatchNorm's counters may be missing."""
    if not hasattr(state, "_metadata"):  # safetensors does not keep it; some architectures want a version
        state._metadata = getattr(module.state_dict(), "_metadata", {})  # type: ignore[attr-defined]
    module.load_state_dict(state, strict=False)

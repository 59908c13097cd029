"""What identifies a result: strings and numbers only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path

from attrsens.errors import AttrsensError, unknown
from attrsens.images import read_bytes
from attrsens.samples import located
from attrsens.spec import (
    ATTACKS,
    METHODS,
    SCORES,
    SIMILARITIES,
    WRAPPERS,
    Hyper,
    Param,
    Registry,
    Value,
    canonical,
    split_expression,
    write_expression,
)

REGISTRIES = (METHODS, WRAPPERS, SCORES, SIMILARITIES, ATTACKS)


@dataclass(frozen=True)
class Call:
    """A registered function with every parameter, and the wrappers around it, innermost first."""

    kind: str
    name: str
    version: int
    parameters: Mapping[str, Value]
    wrappers: tuple[Call, ...] = ()

    @property
    def expression(self) -> str:
        """`name:parameter=value,...+wrapper:...` with every parameter; parses back to the same call."""
        own = write_expression(self.name, self.parameters)
        return "+".join([own, *(w.expression for w in self.wrappers)])

    @cached_property
    def identity(self) -> dict[str, object]:
        """What the key is made of: a file stands for its content, not for its name."""
        specs = [r[self.name] for r in REGISTRIES if r.kind == self.kind and self.name in r]
        files = {h.name for spec in specs for h in spec.hypers if h.type is Path}
        values = {k: _content(str(v)) if k in files and v else v for k, v in self.parameters.items()}
        data = {"kind": self.kind, "name": self.name, "version": self.version, "parameters": values}
        return data | ({"wrappers": [w.identity for w in self.wrappers]} if self.wrappers else {})

    def raw(self) -> Call:
        """The call whose result is kept: `sign=abs` and `reduce` act on it afterwards, without any pass."""
        sign = "signed" if self.parameters["sign"] == "abs" else self.parameters["sign"]
        return replace(self, parameters={**self.parameters, "sign": sign, "reduce": "none"})


@dataclass(frozen=True)
class Cell:
    """One result. Without calls it is the prediction: the logits of the image.

    Attributes:
        model, precision, fold, device, torch: what computed it; `device` is the kind, `torch` major.minor.
        image: sha256 of the decoded pixels; `noise` sd of input noise, 0 for none, drawn by `noise_seed`.
        erased: hash of what was erased from the input and how, "" for nothing.
        noise_at: "" where the noise was added to the crop.
        target: class index, None for a prediction.
        width: images in a batch of a search or an optimiser, where it decides the last digits; else 0.
    """

    model: str
    image: str
    target: int | None = None
    calls: tuple[Call, ...] = ()
    noise: float = 0.0
    precision: str = "fp32"
    fold: bool = True
    device: str = "cpu"
    torch: str = ""
    width: int = 0
    noise_seed: int = 0
    erased: str = ""
    noise_at: str = ""

    @cached_property
    def key(self) -> str:
        """sha256 of the canonical JSON of everything above, in hex."""
        unsaid = {"width": 0, "noise_seed": 0, "erased": "", "noise_at": ""}  # left out where they say nothing
        data = {k: v for k, v in vars(self).items() if k not in ("calls", "key") and (k, v) not in unsaid.items()}
        return hashlib.sha256(canonical(data | {"calls": [c.identity for c in self.calls]}).encode()).hexdigest()

    def raw(self) -> Cell:
        """The cell whose result is kept in the store."""
        return replace(self, calls=tuple(c.raw() for c in self.calls))


def over_names(call: Call) -> tuple[str, ...]:
    """What may differ between calls that one run computes, of the outermost wrapper, else of the method; "target" says
    that classes may differ, too."""
    entry, registry = _outermost(call)
    return tuple(registry[entry.name].traits.get("over", ()))


def over_values(call: Call) -> tuple[Value, ...]:
    """The values of what may differ, by which the calls of one run are sorted."""
    entry, _ = _outermost(call)
    return tuple(entry.parameters[name] for name in over_names(call) if name != "target")


def run_key(call: Call, beside: bool = False) -> str | None:
    """What calls must have alike for one run to compute them all (`explainer.raw_across`); None for one that shares
    with no other.

    Args:
        beside: for rows of one batch to compute them (`explainer.raw_together`).
    """
    entry, registry = _outermost(call)
    shared = registry[entry.name].shared(entry.parameters, beside)
    if shared is None:
        return None
    raw, same = call.raw(), replace(entry, parameters=shared)
    if call.wrappers:
        return canonical(replace(raw, wrappers=(*raw.wrappers[:-1], same)).identity)
    kept = {name: value for name, value in raw.parameters.items() if name in shared}
    return canonical(replace(raw, parameters=kept).identity)


def _outermost(call: Call) -> tuple[Call, Registry]:
    """The last wrapper, else the method itself, and where it is registered."""
    return (call.wrappers[-1], WRAPPERS) if call.wrappers else (call, METHODS)


def parse_call(expression: str, flags: Mapping[str, object] = {}, registry: Registry = METHODS) -> Call:
    """A call from `name[:parameter=value,...][+wrapper[:parameter=value,...]]...`.

    Args:
        flags: values for parameters of this entry; what the expression says wins.

    Raises:
        AttrsensError: unknown name or parameter, or a value outside its range.
    """
    if registry is not METHODS:
        spec, parameters = registry.parse(expression, flags)
        return Call(registry.kind, spec.name, spec.version, parameters)
    head, *rest = split_expression(expression)
    spec, parameters = registry.parse(head, flags)
    name = spec.name
    parsed = [WRAPPERS.parse(part) for part in rest]
    wrappers = tuple(Call(WRAPPERS.kind, w.name, w.version, values) for w, values in parsed)
    if parameters.get("sign") == "abs_sample" and not spec.traits["gradient"]:
        raise AttrsensError(f"{name}: sign=abs_sample is for methods that average gradients; {name} takes none")
    return Call(registry.kind, name, spec.version, parameters, wrappers)


def parse_calls(expressions: list[str], flags: Mapping[str, object]) -> list[Call]:
    """Calls from several expressions; a flag goes to every method that has it.

    Raises:
        AttrsensError: as `parse_call`; or a flag that none of the methods has: the message names those that do.
    """
    if "seed" in flags:
        Hyper("seed", int, 0, Param("seed", min=0)).check(flags["seed"], "draws")
    calls = list({call.expression: call for call in (parse_call(e, flags) for e in expressions)}.values())
    for call in calls:  # also those that an expression overrules
        for flag in flags.keys() & call.parameters.keys():
            METHODS[call.name].parse(flag, flags[flag])
    for flag in flags.keys() - {"seed"}:  # a seed is welcome where nothing is drawn
        if not any(flag in c.parameters for c in calls):
            names = ", ".join(dict.fromkeys(c.name for c in calls))
            owners = METHODS.owners(flag)
            known = f"methods that have it: {', '.join(owners)}" if owners else "no method has it"
            raise AttrsensError(f"{names} has no parameter {flag!r}; {known}")
    return calls


def choose_method(flags: Mapping[str, object]) -> str:
    """The method that is meant when none is named: the one that has the named parameters; without any, grad.

    Raises:
        AttrsensError: no method has them, or several do.
    """
    common = {h.name for h in METHODS.common} | {"seed"}
    named = [flag for flag in flags if flag not in common]
    if not named:
        return "grad"
    owners = [name for name in METHODS if all(name in METHODS.owners(flag) for flag in named)]
    if len(owners) != 1:
        for flag in named:
            if not METHODS.owners(flag):
                raise unknown("parameter", flag, list(METHODS.parameters()), "'attrsens list methods' names them")
        found = f"several methods have it: {', '.join(owners)}" if owners else "no method has all of them"
        raise AttrsensError(f"parameter {' and '.join(named)}: {found}; choose with --method")
    return owners[0]


@cache
def torch_version() -> str:
    """major.minor of the installed torch, without importing it."""
    return ".".join(metadata.version("torch").split(".")[:2])


def _content(path: str) -> str:
    return "sha256:" + hashlib.sha256(read_bytes(located(path))).hexdigest()

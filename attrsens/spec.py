"""What a method is, read once from its signature.

The law: left of `*` is data, right of `*` are hyperparameters, each written
`name: Annotated[type, Param("help", ...)] = default`. Flags, checks, cache keys, tables and contract tests follow.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from attrsens.errors import AttrsensError, unknown
from attrsens.params import Hyper as Hyper
from attrsens.params import Param as Param
from attrsens.params import Value as Value


@dataclass(frozen=True)
class Spec:
    """A registered function and its hyperparameters.

    Attributes:
        name, version: a change of the mathematics raises the version, which expires this entry's cached results.
        summary: first line of the docstring.
        traits: facts that the decorator was given, such as `gradient=False`.
    """

    kind: str
    name: str
    version: int
    function: Callable[..., Any]
    summary: str
    hypers: tuple[Hyper, ...]
    traits: Mapping[str, Any] = field(default_factory=dict)

    def hyper(self, name: str) -> Hyper:
        for hyper in self.hypers:
            if hyper.name == name:
                return hyper
        raise unknown("parameter", name, [h.name for h in self.hypers], self._listing())

    def parse(self, name: str, text: object) -> Value:
        """One checked value of one hyperparameter."""
        return self.hyper(name).check(text, self.name)

    def complete(self, overrides: Mapping[str, object] = {}) -> dict[str, Value]:
        """Every hyperparameter with its value, checked, in declared order."""
        for name in overrides:
            self.hyper(name)
        return {h.name: h.check(overrides.get(h.name, h.default), self.name) for h in self.hypers}

    def own(self) -> tuple[Hyper, ...]:
        """The hyperparameters of the function itself, without those that join every entry."""
        names = _keyword_only(self.function)
        return tuple(h for h in self.hypers if h.name in names)

    def shared(self, parameters: Mapping[str, Value], beside: bool = False) -> dict[str, Value] | None:
        """The parameters that settings of one run have in common (traits `over` and `beside`); None without such runs.

        Args:
            beside: of settings that are rows of one batch.
        """
        if "over" not in self.traits:
            return None
        free = {*self.traits["over"], *(self.traits.get("beside", ()) if beside else ())}
        return {name: value for name, value in parameters.items() if name not in free}

    def _listing(self) -> str:
        return f"{self.name} has: {', '.join(h.name for h in self.hypers) or 'none'}"


class Registry(Mapping[str, Spec]):
    """Functions of one kind by name, filled when the package that holds them is first asked for.

    Args:
        kind: the word for an entry, such as "method".
        package: where the entries live; every module in it but private ones is imported on first use.
        common: hyperparameters that join every entry; a trait of the same name replaces the default.
        traits: facts that the decorator must be given.
    """

    def __init__(self, kind: str, package: str, common: tuple[Hyper, ...] = (), traits: tuple[str, ...] = ()) -> None:
        self.kind, self.package, self.common, self.traits = kind, package, common, traits
        self._specs: dict[str, Spec] = {}
        self._found = False

    def __call__(self, name: str, *, version: int, **traits: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator that registers a function."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self._discover()
            if name in self._specs:
                raise TypeError(f"{self.kind} {name!r} is registered twice")
            lacking = [trait for trait in self.traits if trait not in traits]
            if lacking:
                raise TypeError(f"{self.kind} {name!r}: state {' and '.join(lacking)}")
            common = tuple(replace(h, default=traits.get(h.name, h.default)) for h in self.common)
            own = read_hypers(function)
            targets = {"target"} if self.kind == "method" else set()  # a wrapper's base has one
            _check_sharing(f"{self.kind} {name!r}", traits, {h.name for h in own} | targets)
            hypers = own + common
            names = [h.name for h in hypers]
            if len(set(names)) < len(names):
                raise TypeError(f"{self.kind} {name!r} has a parameter twice: {names}")
            hypers = tuple(replace(h, default=h.check(h.default, name)) for h in hypers)
            summary = (inspect.getdoc(function) or "").split("\n")[0].rstrip(".")
            self._specs[name] = Spec(self.kind, name, version, function, summary, hypers, traits)
            return function

        return register

    def __getitem__(self, name: str) -> Spec:
        self._discover()
        if name not in self._specs:
            raise unknown(self.kind, name, list(self))
        return self._specs[name]

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._specs

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._specs))

    def __len__(self) -> int:
        self._discover()
        return len(self._specs)

    def remove(self, name: str) -> None:
        """Forget an entry (tests and notebooks that register their own)."""
        del self._specs[name]

    def parse(self, expression: str, flags: Mapping[str, object] = {}) -> tuple[Spec, dict[str, Value]]:
        """The entry and every parameter that `name[:parameter=value,...]` means; `flags` stand in where it is silent.

        Raises:
            AttrsensError: unknown name or parameter, or a value outside its range.
        """
        name, colon, rest = expression.strip().partition(":")
        spec = self[name.strip()]
        given: dict[str, object] = {}
        for part in rest.split(",") if colon else []:
            key, equals, value = (p.strip() for p in part.partition("="))
            if not equals or not key:
                raise AttrsensError(f"{self.kind} {expression!r}: cannot read {part!r}; write name:parameter=value,...")
            if key in given:
                raise AttrsensError(f"{self.kind} {expression!r}: {key} is given twice")
            owners = self.owners(key)
            if owners and spec.name not in owners:
                raise AttrsensError(
                    f"{spec.name} has no parameter {key!r}; {self.kind}s that have it: {', '.join(owners)}"
                )
            spec.hyper(key)
            given[key] = value
        own = {h.name for h in spec.hypers}
        return spec, spec.complete({k: v for k, v in flags.items() if k in own} | given)

    def owners(self, parameter: str) -> list[str]:
        """The entries that have the parameter."""
        return [name for name in self if any(h.name == parameter for h in self[name].hypers)]

    def parameters(self) -> dict[str, dict[str, Hyper]]:
        """Every parameter name with the entries that have it and their own version of it."""
        out: dict[str, dict[str, Hyper]] = {}
        for name in self:
            for hyper in self[name].hypers:
                out.setdefault(hyper.name, {})[name] = hyper
        return out

    def _discover(self) -> None:
        if not self._found:
            self._found = True
            package = importlib.import_module(self.package)
            for module in sorted(m.name for m in pkgutil.iter_modules(getattr(package, "__path__", []))):
                if not module.startswith("_"):
                    importlib.import_module(f"{self.package}.{module}")


def read_hypers(function: Callable[..., Any]) -> tuple[Hyper, ...]:
    """The hyperparameters in a signature. Only annotations right of `*` are evaluated.

    Raises:
        TypeError: one of them lacks its Annotated[type, Param(...)] or its default.
    """
    scope = vars(sys.modules[function.__module__]) if function.__module__ in sys.modules else {}
    scope = {**scope, **function.__globals__}
    hypers = []
    for name, parameter in _keyword_only(function).items():
        note = parameter.annotation
        if isinstance(note, str):
            note = eval(note, scope)  # the project's own source text
        parts = get_args(note) if get_origin(note) is Annotated else ()
        if len(parts) != 2 or not isinstance(parts[1], Param) or parts[0] not in (int, float, str, bool, Path):
            raise TypeError(f"{function.__qualname__}: write {name}: Annotated[type, Param('help')] = default")
        if parameter.default is inspect.Parameter.empty:
            raise TypeError(f"{function.__qualname__}: {name} needs a default")
        hypers.append(Hyper(name, parts[0], parameter.default, parts[1]))
    return tuple(hypers)


def canonical(data: object) -> str:
    """JSON with sorted keys and no spaces: the form that is hashed."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def _check_sharing(entry: str, traits: Mapping[str, Any], names: set[str]) -> None:
    """The traits by which settings share a run: complete, and of parameters that exist.

    Raises:
        TypeError: they are not.
    """
    if ("over" in traits) != ("settings" in traits or "together" in traits):
        raise TypeError(f"{entry}: `over` says what may differ in `settings` or `together`; state both or neither")
    if ("beside" in traits) != ("together" in traits):
        raise TypeError(f"{entry}: `beside` says what may differ in `together`; state both or neither")
    for name in (*traits.get("over", ()), *traits.get("beside", ())):
        if name not in names:
            raise TypeError(f"{entry}: no parameter {name!r} to share runs over")


def _keyword_only(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


COMMON = (
    Hyper(
        "output",
        str,
        "logit",
        Param("scalar that is explained", choices=("logit", "prob"), source="methods 1.5"),
    ),
    Hyper(
        "space",
        str,
        "pixel",
        Param(
            "tensor that gradients, noise and fills refer to: pixels in [0, 1] or normalised",
            choices=("pixel", "normalized"),
            source="methods 1.1",
        ),
    ),
    Hyper(
        "sign",
        str,
        "signed",
        Param(
            "signed; abs: absolute value of the map; abs_sample: of every gradient before averaging",
            choices=("signed", "abs", "abs_sample"),
            source="methods 1.8",
        ),
    ),
    Hyper(
        "reduce",
        str,
        "mean",
        Param(
            "how colour channels become one, after sign",
            choices=("mean", "sum", "max", "none"),
            source="methods 1.7",
        ),
    ),
)

METHODS = Registry("method", "attrsens.methods", COMMON, traits=("gradient", "cost"))
ATTACKS = Registry("attack", "attrsens.attacks", traits=("cost", "source"))
WRAPPERS = Registry("wrapper", "attrsens.methods.wrappers", traits=("cost",))
MODEL_WRAPPERS = Registry("model wrapper", "attrsens.models.wrappers")

SEEN = (
    Hyper(
        "sign",
        str,
        "method",
        Param("of the map that is judged; method: as the method's sign says", choices=("method", "signed", "abs")),
    ),
    Hyper(
        "reduce",
        str,
        "method",
        Param(
            "its channels: method: as the method's reduce says; none: every channel apart",
            choices=("method", "mean", "sum", "max", "none"),
        ),
    ),
)
DEFINED = ("formula", "direction", "range", "source")  # what a number in a paper has to say
SIMILARITIES = Registry("similarity", "attrsens.similarity", traits=DEFINED)
SCORES = Registry("score", "attrsens.scores", SEEN, traits=(*DEFINED, "cost", "judges"))


def split_expression(text: str) -> list[str]:
    """The parts of `name...+wrapper...`; the plus sign of a number such as 1e+3 is no border."""
    return re.split(r"\+(?=[A-Za-z_])", text)


def write_expression(name: str, parameters: Mapping[str, Value]) -> str:
    """`name:parameter=value,...` with every parameter; `Registry.parse` reads it back."""
    texts = {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in parameters.items()}
    return f"{name}:{','.join(f'{k}={v}' for k, v in texts.items())}" if texts else name

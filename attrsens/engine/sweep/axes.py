"""A knob and the values it takes: read from `--param`, `--values` and `--reference`, or from what is published."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from attrsens.engine.cell import Call, parse_call
from attrsens.engine.metrics import spec_of
from attrsens.errors import AttrsensError, unknown
from attrsens.spec import METHODS, SCORES, SIMILARITIES, WRAPPERS, Hyper, Registry, Spec, Value

MOST = 1000  # values of one knob
ALL = "all"
TOLD = "; published values: {}"


@dataclass(frozen=True)
class Axis:
    """One knob.

    Attributes:
        name: as the user addresses it: `patch_size`, `smooth.radius`, `deletion.fill`.
        kind, owner: registry and entry that have it: method, wrapper, score or similarity.
        values: in the order in which they are shown; `reference` is one of them.
    """

    name: str
    kind: str
    owner: str
    hyper: Hyper
    values: tuple[Value, ...]
    reference: Value

    @property
    def judges(self) -> bool:
        """Whether it is a knob of a metric: maps stay what they are."""
        return self.kind in (SCORES.kind, SIMILARITIES.kind)

    def of(self, call: Call) -> Value:
        """What a call has it at."""
        return self._entry(call).parameters[self.hyper.name]

    def set(self, call: Call, value: Value) -> Call:
        """The call with another value of this knob.

        Raises:
            AttrsensError: the method does not take it.
        """
        if self.kind != WRAPPERS.kind:
            changed = replace(call, parameters={**call.parameters, self.hyper.name: value})
        else:
            wrappers = [
                replace(w, parameters={**w.parameters, self.hyper.name: value}) if w is self._entry(call) else w
                for w in call.wrappers
            ]
            changed = replace(call, wrappers=tuple(wrappers))
        if not self.judges:
            parse_call(changed.expression)
        return changed

    def _entry(self, call: Call) -> Call:
        if self.kind != WRAPPERS.kind:
            return call
        return next(w for w in call.wrappers if w.name == self.owner)


def axes_of(call: Call, names: Sequence[str], texts: Sequence[str], references: Sequence[str]) -> list[Axis]:
    """The knobs of one method call that the names address, with their values; those of metrics are left out.

    Args:
        texts, references: of the names, in their order; shorter lists leave the rest to what is published.

    Raises:
        AttrsensError: bad values, no published sweep, a reference that is none of the values.
    """
    out: list[Axis] = []
    for i, name in enumerate(names):
        spec, hyper = addressed(call, name)
        if spec is None or hyper is None:
            continue
        text = texts[i] if i < len(texts) else None
        reference = references[i] if i < len(references) else None
        axis = _axis(name, spec, hyper, text, reference)
        twin = next(
            (a.name for a in out if (a.kind, a.owner, a.hyper.name) == (axis.kind, axis.owner, hyper.name)), None
        )
        if twin:
            raise AttrsensError(f"param: {twin} and {name} are one knob of {call.name}")
        out.append(axis)
    return out


def metric_axes(
    calls: Iterable[Call], names: Sequence[str], texts: Sequence[str], references: Sequence[str]
) -> list[Axis]:
    """The knobs of metrics among the names."""
    out = []
    known = {call.name: call for call in calls}
    for i, name in enumerate(names):
        owner, dot, parameter = name.partition(".")
        if dot and owner in known:
            spec = spec_of(known[owner])
            text = texts[i] if i < len(texts) else None
            reference = references[i] if i < len(references) else None
            out.append(_axis(name, spec, spec.hyper(parameter), text, reference))
    return out


def check_names(names: Sequence[str], calls: Sequence[Call]) -> None:
    """Raise for a name that addresses nothing.

    Raises:
        AttrsensError: names the methods that have the parameter, or the nearest parameter.
    """
    for name in names:
        owner, dot, parameter = name.partition(".")
        if not dot:
            if name != ALL and not any(addressed(call, name)[1] for call in calls):
                _nobody(name, calls)
            continue
        registry = next((r for r in (METHODS, WRAPPERS, SCORES, SIMILARITIES) if owner in r), None)
        if registry is None:
            every = [n for r in (METHODS, WRAPPERS, SCORES, SIMILARITIES) for n in r]
            raise AttrsensError(f"param {name}: {unknown('method, wrapper or metric', owner, every)}")
        registry[owner].hyper(parameter)
        used = {n for call in calls for n in (call.name, *(w.name for w in call.wrappers))}
        if registry in (METHODS, WRAPPERS) and owner not in used:
            how = f"--method {owner}" if registry is METHODS else f"--method {calls[0].name}+{owner}"
            raise AttrsensError(f"param {name}: {owner} is not part of any method here; give {how}")


def method_for(names: Sequence[str]) -> list[str]:
    """The parameters by which a method is chosen where none is named: those without an owner; an owner names itself.

    Returns:
        Parameter names, or the expression of the one method that the names address.
    """
    return [name for name in names if "." not in name and name != ALL]


def named_method(names: Sequence[str]) -> str | None:
    """The method that the names themselves say, as in `sg.n`."""
    return next((n.partition(".")[0] for n in names if n.partition(".")[0] in METHODS and "." in n), None)


def published(hyper: Hyper) -> tuple[tuple[Value, ...], Value]:
    """The published values, else every choice, with the reference.

    Raises:
        AttrsensError: there is neither.
    """
    p = hyper.param
    values = p.sweep or p.choices or ((False, True) if hyper.type is bool else ())
    if not values:
        raise AttrsensError(f"{hyper.name}: no sweep of it is published; give --values")
    values = tuple(hyper.check(v, hyper.name) for v in values)
    wanted = p.reference if p.reference is not None else hyper.default
    return values, wanted if wanted in values else values[0]


def parse_values(text: str, hyper: Hyper, owner: str) -> tuple[Value, ...]:
    """Values from a comma list whose parts are values, ranges `from:to[:step]` (both ends, step 1), or
    `log:from:to:count`; repeats are dropped.

    Raises:
        AttrsensError: names the part that cannot be read.
    """
    found: dict[Value, None] = {}
    for part in text.split(","):
        words = part.strip().split(":")
        numeric = hyper.type in (int, float)
        if not part.strip():
            raise AttrsensError(f"{owner}: values of {hyper.name}: an empty value in {text!r}")
        if numeric and len(words) > 1:
            for number in _range(words, part.strip(), hyper, owner):
                found[hyper.check(round(number) if hyper.type is int else number, owner)] = None
        else:
            found[hyper.check(part.strip(), owner)] = None
        if len(found) > MOST:
            raise AttrsensError(f"{owner}: values of {hyper.name}: more than {MOST:,}")
    return tuple(found)


def _range(words: Sequence[str], part: str, hyper: Hyper, owner: str) -> list[float]:
    form = "write from:to, from:to:step or log:from:to:count"
    try:
        if words[0] == "log":
            start, stop, count = float(words[1]), float(words[2]), int(words[3])
            if len(words) != 4 or not (0 < start < math.inf and 0 < stop < math.inf and 2 <= count <= MOST):
                raise ValueError
            share = [i / (count - 1) for i in range(count)]
            return [start, *(_short(start * (stop / start) ** s) for s in share[1:-1]), stop]
        numbers = [float(word) for word in words]
        start, stop, step = [*numbers, 1.0][:3] if len(numbers) in (2, 3) else [0.0, 0.0, 0.0]
        count = math.floor((stop - start) / step + 1e-9) + 1
        if count < 1:
            raise ValueError
    except (ValueError, IndexError, ZeroDivisionError, OverflowError):
        raise AttrsensError(f"{owner}: values of {hyper.name}: cannot read {part!r}; {form}") from None
    if count > MOST:
        raise AttrsensError(f"{owner}: values of {hyper.name}: {part!r} are {count:,}; at most {MOST:,}")
    return [_short(start + i * step) for i in range(count)]


def _short(number: float) -> float:
    """Without the dust of floating point: 0.30000000000000004 is 0.3."""
    return float(f"{number:.12g}")


def _axis(name: str, spec: Spec, hyper: Hyper, text: str | None, reference: str | None) -> Axis:
    if text is not None:
        values = parse_values(text, hyper, spec.name)
        wanted = hyper.param.reference if hyper.param.reference is not None else hyper.default
        usual = wanted if wanted in values else values[0]
    else:
        values, usual = published(hyper)
    if len(values) < 2:
        raise AttrsensError(f"{spec.name}: {hyper.name}: a sweep needs two values; got {text}")
    if reference is not None:
        usual = hyper.check(reference, spec.name)
        if usual not in values:
            told = ", ".join(map(str, values))
            raise AttrsensError(f"{spec.name}: reference {hyper.name}={usual} is none of the values {told}")
    return Axis(name, spec.kind, spec.name, hyper, values, usual)


def addressed(call: Call, name: str) -> tuple[Spec | None, Hyper | None]:
    """The entry of a call that a name addresses, and the parameter; (None, None) if it addresses none of it."""
    owner, dot, parameter = name.rpartition(".")
    entries: list[tuple[Registry, str]] = [(METHODS, call.name)]
    if dot:
        entries = [(r, n) for r, n in [*entries, *((WRAPPERS, w.name) for w in call.wrappers)] if n == owner]
    for registry, entry in entries:
        spec = registry[entry]
        for hyper in spec.hypers:
            if hyper.name == parameter:
                return spec, hyper
    return None, None


def _nobody(name: str, calls: Sequence[Call]) -> None:
    """Raise: none of the methods has the parameter."""
    here = ", ".join(dict.fromkeys(c.name for c in calls))
    owners: Mapping[str, Sequence[str]] = {
        "methods": METHODS.owners(name),
        "wrappers": [f"{w}.{name}" for w in WRAPPERS.owners(name)],
        "metrics": [f"{m}.{name}" for r in (SCORES, SIMILARITIES) for m in r.owners(name)],
    }
    told = "; ".join(f"{kind} that have it: {', '.join(found)}" for kind, found in owners.items() if found)
    if told:
        raise AttrsensError(f"{here} has no parameter {name!r}; {told}")
    METHODS[calls[0].name].hyper(name)  # suggests the nearest
